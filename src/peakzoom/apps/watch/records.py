"""What a watch reports, one record after the other, and each as a line of JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from peakzoom.apps.watch.events import Event
from peakzoom.inference.prediction import Confidence, best_classes, to_objects


@dataclass(frozen=True)
class Started:
    """The first record: what is watched, and how."""

    source: str  # its name, without a password
    live: bool  # it goes on while windows are scored
    height: int  # pixels of frames as displayed
    width: int
    rate: float  # frames per second that the source states; 0 = none
    classes: list[str]
    frames: int  # of a window's clip
    stride: int
    fps: float | None  # None = frames as they are stored
    window: float | None  # seconds from its start to its end, by the stated rate; None = none is stated
    every: float | None  # seconds from one window's start to the next one's, by the stated rate too
    began: datetime | None = None  # when second 0 was, of a camera or stream


@dataclass(frozen=True)
class ScoredWindow:
    """The model's prediction for one window.

    Attributes:
        start, end: seconds since the first frame.
        classes, scores: S names and float64 (S,) fused scores, averaged over the crops.
        name: the predicted class; None where the best score is below the threshold, the best class is ignored, or the
            prediction is rejected.
        covered: frames from its first to its last; fewer than usual where a short video was repeated to fill it.
        behind: seconds from when its last frame was due until its scores were there; None where nothing is live.
        confidence: what decides whether it is rejected; None where nothing is.
        labels: all predicted classes and their scores, best first, of a model for several labels; None of any other.
        early: whether the scores are those of the original branch alone, which led by enough; None where no window may
            exit early.
        original: float64 (S,), scores of that branch; None where there is none, or of several labels. No line has them.
    """

    start: float
    end: float
    classes: list[str]
    scores: np.ndarray
    name: str | None
    covered: int
    behind: float | None
    confidence: Confidence | None = None
    labels: list[tuple[str, float]] | None = None
    early: bool | None = None
    original: np.ndarray | None = None

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k best classes and their scores, best first; ties in the order of the classes."""
        return best_classes(self.classes, self.scores, k)


@dataclass(frozen=True)
class Dropped:
    """Neighbouring windows that were not scored, because scoring fell behind."""

    start: float  # of the first one, in seconds since the first frame
    end: float  # of the last one
    windows: int


@dataclass(frozen=True)
class Break:
    """The frames before and after this time do not follow each other; no window and no event spans it."""

    time: float  # of the first frame after it, in seconds since the first frame
    reason: str


@dataclass(frozen=True)
class SourceProblem:
    """Something is wrong with the source, although it gives frames."""

    time: float  # of the last frame before it, in seconds since the first frame
    reason: str
    lost: bool  # some of the video could not be decoded, or did not come
    away: bool = False  # nothing comes now, and it is asked for again


@dataclass(frozen=True)
class Ended:
    """The last record."""

    seconds: float  # of video, up to the end of the last window
    took: float  # seconds, by the clock
    windows: int
    dropped: int
    events: int
    stopped: bool  # by the caller, not because the source ended
    early: int | None = None  # windows of the original branch alone; None where none may exit early

    @property
    def speed(self) -> float:
        """Seconds of video watched in one second."""
        return self.seconds / max(self.took, 1e-9)


Record: TypeAlias = Started | ScoredWindow | Event | Dropped | Break | SourceProblem | Ended
TYPES = {  # the "type" of a line
    Started: "source",
    ScoredWindow: "window",
    Event: "event",
    Dropped: "dropped",
    Break: "break",
    SourceProblem: "problem",
    Ended: "end",
}
TIMES = frozenset({"start", "end", "time", "seconds"})  # fields in seconds of video


def to_line(record: Record, top: int = 5) -> dict[str, Any]:
    """Plain data for one line of JSON, with the ``top`` classes of a window; times in seconds, to the microsecond."""
    line: dict[str, Any] = {"type": TYPES[type(record)]}
    if isinstance(record, ScoredWindow):
        line |= {
            "start": round(record.start, 6),
            "end": round(record.end, 6),
            "class": record.name,
            **({} if record.labels is None else {"labels": to_objects(record.labels)}),
            **({} if record.early is None else {"early": record.early}),
            "top": to_objects(record.top(top)),
            "frames": record.covered,
            **(record.confidence.to_dict() if record.confidence else {}),
        }
        return line if record.behind is None else {**line, "behind": round(record.behind, 3)}
    for name, value in vars(record).items():
        if (name in ("began", "away") and not value) or (name == "early" and value is None):
            continue
        if isinstance(value, datetime):
            value = value.isoformat(timespec="milliseconds")
        key = "class" if name == "name" else name
        line[key] = round(value, 6) if name in TIMES else round(value, 3) if name == "took" else value
    return line
