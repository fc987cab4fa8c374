"""What a watch reports, one record after the other, and each as a line of JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from peakzoom.apps.watch.events import Event


@dataclass(frozen=True)
class Started:
    """The first record: what is watched, and how.

    Attributes:
        source: its name, without a password.
        live: whether it goes on while windows are scored.
        height, width: of the frames as displayed, in pixels.
        rate: frames per second that the source states; 0 = none.
        classes: S names.
        frames, stride, fps: of a window's clip; fps None = frames as they are stored.
        window: seconds from the start of a window to its end, by the stated rate; None = no rate is stated.
        every: seconds from one window's start to the next one's, by the stated rate; None = no rate is stated.
    """

    source: str
    live: bool
    height: int
    width: int
    rate: float
    classes: list[str]
    frames: int
    stride: int
    fps: float | None
    window: float | None
    every: float | None


@dataclass(frozen=True)
class ScoredWindow:
    """The model's prediction for one window.

    Attributes:
        start, end: seconds since the first frame.
        classes: S names.
        scores: float64 (S,) fused softmax scores, averaged over the crops; they sum to 1.
        name: the predicted class; None where the best score is below the threshold, or the best class is ignored.
        covered: frames from its first to its last; fewer than usual where a short video was repeated to fill it.
        behind: seconds from when its last frame was due until its scores were there; None where nothing is live.
    """

    start: float
    end: float
    classes: list[str]
    scores: np.ndarray
    name: str | None
    covered: int
    behind: float | None

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k best classes and their scores, best first; ties in the order of the classes."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.classes[index], float(self.scores[index])) for index in best]


@dataclass(frozen=True)
class Dropped:
    """Neighbouring windows that were not scored, because scoring fell behind.

    Attributes:
        start: of the first one, in seconds since the first frame.
        end: of the last one, in seconds since the first frame.
        windows: how many.
    """

    start: float
    end: float
    windows: int


@dataclass(frozen=True)
class Break:
    """The frames before and after this time do not follow each other; no window and no event spans it.

    Attributes:
        time: of the first frame after it, in seconds since the first frame.
        reason: one line.
    """

    time: float
    reason: str


@dataclass(frozen=True)
class SourceProblem:
    """Something is wrong with the source, although it gives frames.

    Attributes:
        time: of the last frame before it, in seconds since the first frame.
        reason: one line.
        lost: some of the video could not be decoded.
    """

    time: float
    reason: str
    lost: bool


@dataclass(frozen=True)
class Ended:
    """The last record.

    Attributes:
        seconds: of video, up to the end of the last window.
        took: seconds, by the clock.
        windows, dropped, events: how many.
        stopped: by the caller, not because the source ended.
    """

    seconds: float
    took: float
    windows: int
    dropped: int
    events: int
    stopped: bool

    @property
    def speed(self) -> float:
        """Seconds of video watched in one second; infinite where the clock did not advance."""
        return self.seconds / self.took if self.took > 0 else math.inf


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
    """Plain data for one line of JSON; times in seconds, to the microsecond.

    Args:
        record: of any kind.
        top: how many classes of a window are listed.
    """
    line: dict[str, Any] = {"type": TYPES[type(record)]}
    if isinstance(record, Started):
        return {**line, **vars(record)}
    if isinstance(record, ScoredWindow):
        line |= {
            "start": round(record.start, 6),
            "end": round(record.end, 6),
            "class": record.name,
            "top": [{"class": name, "score": score} for name, score in record.top(top)],
            "frames": record.covered,
        }
        return line if record.behind is None else {**line, "behind": round(record.behind, 3)}
    for name, value in vars(record).items():
        key = "class" if name == "name" else name
        line[key] = round(value, 6) if name in TIMES else round(value, 3) if name == "took" else value
    return line
