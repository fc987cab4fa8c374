"""What the API sends, as Pydantic models: from them FastAPI makes the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["predict", "explain"]
State = Literal["waiting", "running", "done", "failed"]

PREDICTION: dict[str, Any] = {
    "file": "clip.mp4",
    "class": "wave",
    "score": 0.825,
    "top": [{"class": "wave", "score": 0.825}, {"class": "run", "score": 0.175}],
    "scores": {
        "original": {"run": 0.2, "wave": 0.8},
        "discriminative": {"run": 0.15, "wave": 0.85},
        "fused": {"run": 0.175, "wave": 0.825},
    },
    "problem": None,
}
JOB: dict[str, Any] = {
    "id": "5d41402abc4b2a76b9719d911017c592",
    "task": "predict",
    "file": "long.mp4",
    "state": "waiting",
    "created": 1790000000.0,
    "finished": None,
    "problem": None,
    "links": {"self": "/v1/jobs/5d41402abc4b2a76b9719d911017c592"},
}
PROBLEM_EXAMPLE: dict[str, Any] = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "notes.mp4: is a text, not a video.",
}


class Sent(BaseModel):
    """A part of an answer: it has what is named here, and nothing else."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ClassScore(Sent):
    """A class and its score."""

    label: str = Field(alias="class")
    score: float


class Prediction(Sent):
    """What a model says of one video: the line that `peakzoom predict --jsonl` writes, to the last digit."""

    model_config = ConfigDict(json_schema_extra={"examples": [PREDICTION]})

    file: str = Field(description="Name of the file as it was sent.")
    label: str | None = Field(
        alias="class", description="The class that the model names; null: none of them."
    )
    labels: list[ClassScore] | None = Field(
        None, description="All that it names, of a model of several labels a video."
    )
    score: float = Field(description="Fused score of the best class.")
    top: list[ClassScore] = Field(description="The best five classes.")
    scores: dict[str, dict[str, float]] = Field(
        description="By branch and class, means over the views; 'fused' is the prediction."
    )
    problem: str | None = Field(description="What was wrong with the file although it gave frames.")
    views: int | None = Field(None, description="With the early exit: views that were looked at.")
    closer: int | None = Field(None, description="With the early exit: views of stage 2.")
    confidence: float | None = Field(
        None, description="With a rejection threshold: what is compared with it."
    )
    rejected: bool | None = Field(None, description="With a rejection threshold: whether no class is named.")


class Peak(Sent):
    """A peak of the class response, as long as it stays."""

    first_frame: int
    last_frame: int
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    x: float = Field(description="Pixels of the displayed frame.")
    y: float = Field(description="Pixels of the displayed frame.")
    label: str = Field(alias="class", description="The class that adds most to the response there.")
    response: float = Field(description="From 0 to 1.")
    side: str = Field(description="The branch that enlarges the place: discriminative or complementary.")
    further: bool = Field(description="A peak of what is left where the response's own peaks are erased.")


class VideoFacts(Sent):
    """About the file."""

    frames: int
    fps: float | None
    seconds: float
    width: int
    height: int
    rotation: int
    pixels: str


class ViewFacts(Sent):
    """The crop that the evidence is taken from, in pixels of the displayed frame."""

    crop: int
    crops: int
    left: float
    top: float
    width: float
    height: float


class Evidence(Prediction):
    """The prediction, and where, when and how sure: the file that `peakzoom explain` writes."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    evidence_for: str = Field(description="The class that the evidence is for.")
    video: VideoFacts
    view: ViewFacts
    times: list[float] = Field(description="When each frame is shown, seconds.")
    frame_scores: dict[str, list[float]] = Field(description="Of the best ten classes, frame by frame.")
    peaks: list[Peak]


class Problem(Sent):
    """What went wrong, as RFC 9457 has it: `detail` is one sentence."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM_EXAMPLE]})

    type: str
    title: str
    status: int
    detail: str


class Job(Sent):
    """A file that is worked on, or has been."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    id: str
    task: Task
    file: str = Field(description="Name of the file as it was sent.")
    state: State
    created: float = Field(description="Unix time, seconds.")
    finished: float | None = Field(description="Unix time, seconds.")
    problem: Problem | None = Field(description="Why it failed.")
    links: dict[str, str] = Field(description="Paths: 'self'; once it is done 'result', 'video', 'figure'.")


class ViewsInfo(Sent):
    """Which views of a video are averaged."""

    rule: str
    clips: int
    crops: int


class LimitsInfo(Sent):
    """What is refused."""

    megabytes: int
    seconds: float
    waiting: int
    minutes: int
    jobs: int
    job_megabytes: int
    job_seconds: float


class ModelInfo(Sent):
    """The model behind the API, and how it is asked."""

    classes: list[str]
    facts: dict[str, str] = Field(description="What it is, in a few words each.")
    weights: str | None = Field(description="A short name of its weights; null for an exported file.")
    views: ViewsInfo
    limits: LimitsInfo
    version: str = Field(description="Of peakzoom.")


class Health(Sent):
    """How the server fares."""

    well: bool
    waiting: int = Field(description="Requests that are not answered yet.")
    jobs: int = Field(description="Jobs that are not finished yet.")
