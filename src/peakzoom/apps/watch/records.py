"""What a watch reports, one record after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.source import Break, Problem


@dataclass(frozen=True)
class Started:
    """What is watched, and how.

    Attributes:
        source: its name.
        live: it goes on whether we keep up or not.
        height, width: of the frames as displayed, in pixels.
        rate: frames per second that the source states; 0 = none.
        classes: S names.
        frames, stride, fps: of a window's clip; fps None = frames as they are stored.
        window: seconds from a window's first frame to the last one's end, and ...
        every: ... from the start of one to that of the next, by the rate stated; None = no rate is.
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
class Window:
    """What the model says of one window.

    Attributes:
        start, end: seconds since the first frame.
        classes: S names.
        scores: float64 (S,) fused softmax scores, averaged over the crops; they sum to 1.
        name: the class it speaks for; None where none reaches the threshold, or the best one is ignored.
        covered: frames from its first to its last; fewer than usual where a short video was repeated to fill it.
        behind: seconds by which its scores came after its last frame was due; None where nothing is live.
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
    """Windows that were not scored, because scoring did not keep up; ``start`` of the first, ``end`` of the last."""

    start: float
    end: float
    windows: int


@dataclass(frozen=True)
class Ended:
    """The last record.

    Attributes:
        seconds: of video, up to the end of the last window.
        took: seconds, by the clock.
        windows, dropped, events: how many.
        stopped: by request, not because the source ended.
    """

    seconds: float
    took: float
    windows: int
    dropped: int
    events: int
    stopped: bool

    @property
    def speed(self) -> float:
        """Seconds of video in a second."""
        return self.seconds / self.took if self.took > 0 else math.inf


Record: TypeAlias = Started | Window | Event | Dropped | Break | Problem | Ended


def to_line(record: Record, top: int = 5) -> dict[str, Any]:
    """Plain data for one line of JSON; times in seconds, to the microsecond.

    Args:
        record: any.
        top: classes of a window to name.
    """
    kind = type(record).__name__.lower()
    if isinstance(record, Started):
        return {"type": "source", **vars(record)}
    if isinstance(record, Window):
        best = record.top(top)
        line = {
            "type": kind,
            "start": round(record.start, 6),
            "end": round(record.end, 6),
            "class": record.name,
            "top": [{"class": name, "score": score} for name, score in best],
            "frames": record.covered,
        }
        return line if record.behind is None else {**line, "behind": round(record.behind, 3)}
    values = {name: round(value, 6) if name in TIMES else value for name, value in vars(record).items()}
    if isinstance(record, Event):
        values = {"class" if name == "name" else name: value for name, value in values.items()}
    if isinstance(record, Ended):
        kind, values = "end", {**values, "took": round(record.took, 3)}
    return {"type": kind, **values}


TIMES = frozenset({"start", "end", "time", "seconds"})
