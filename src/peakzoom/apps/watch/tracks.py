"""From windows to events: of one class at a time, or of each class by itself where there may be several labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from peakzoom.apps.watch.events import Event, Merger, Namer
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.inference.prediction import Confidence


class Tracks(Protocol):
    """Takes windows in order: first :meth:`names`, then :meth:`add` of each."""

    @property
    def count(self) -> int:
        """Events so far."""

    def names(self, scores: np.ndarray, confidence: Confidence | None = None) -> list[str]:
        """The classes of the next window, best first, from its scores (S,)."""

    def add(self, start: float, end: float, scores: np.ndarray) -> Iterator[Event]:
        """Yield the events that this window, in seconds, completes."""

    def again(self, start: float, end: float, line: Mapping[str, Any]) -> Iterator[Event]:
        """The same of a window that is recorded, from its line of JSON."""

    @property
    def since(self) -> float:
        """The time before which no event will begin that is still to come."""

    def forget(self) -> None:
        """The next window does not follow the last one."""

    def end(self) -> Iterator[Event]:
        """Yield all events that are left."""


def tracks(
    classes: Sequence[str], options: WatchOptions, thresholds: Sequence[float] | None = None
) -> Tracks:
    """For S classes, and the thresholds (S,) of a model for several labels."""
    if thresholds is None:
        return OneTrack(classes, options)
    return SeveralTracks(classes, options, thresholds)


class OneTrack:
    """Each window is of its best class, or of none, and events never overlap."""

    def __init__(self, classes: Sequence[str], options: WatchOptions) -> None:
        self._namer = Namer(classes, options.level, options.keep, options.ignore or ())
        self._merger = Merger(options.gap, options.shortest)
        self._name: str | None = None

    @property
    def count(self) -> int:
        """See :class:`Tracks`, as for the next six."""
        return self._merger.count

    def names(self, scores: np.ndarray, confidence: Confidence | None = None) -> list[str]:
        """At most one."""
        self._name = self._namer.name(scores, confidence)
        return [] if self._name is None else [self._name]

    def add(self, start: float, end: float, scores: np.ndarray) -> Iterator[Event]:
        """Of the name that was just given."""
        yield from self._merger.add(start, end, self._name, float(scores.max()))

    def again(self, start: float, end: float, line: Mapping[str, Any]) -> Iterator[Event]:
        """By its class and the best score."""
        self._namer.go_on(line["class"])
        yield from self._merger.add(start, end, line["class"], line["top"][0]["score"])

    @property
    def since(self) -> float:
        """That of the one merger."""
        return self._merger.since

    def forget(self) -> None:
        """Of names, not of events: whoever calls this ends them too."""
        self._namer.go_on(None)

    def end(self) -> Iterator[Event]:
        """In order."""
        yield from self._merger.end()


class SeveralTracks:
    """A window is of every class whose score reaches its threshold; events of different classes may overlap.

    Thresholds are the model's, or the one of the options for all classes where they have one. A class that is on goes
    on down to ``options.keep``, where that is lower.
    """

    def __init__(self, classes: Sequence[str], options: WatchOptions, thresholds: Sequence[float]) -> None:
        self._classes = classes
        given = options.threshold
        self._high = np.array([each if given is None else given for each in thresholds])
        self._low = self._high if options.keep is None else np.minimum(self._high, options.keep)
        self._counted = np.array([name not in (options.ignore or ()) for name in classes])
        self._mergers = [Merger(options.gap, options.shortest) for _ in classes]
        self._on = np.zeros(len(classes), bool)

    @property
    def count(self) -> int:
        """See :class:`Tracks`, as for the next six."""
        return sum(merger.count for merger in self._mergers)

    def names(self, scores: np.ndarray, confidence: Confidence | None = None) -> list[str]:
        """Any number; a confidence is for models that always name a class."""
        self._on = (scores >= np.where(self._on, self._low, self._high)) & self._counted
        return [self._classes[at] for at in np.argsort(-scores, kind="stable") if self._on[at]]

    def add(self, start: float, end: float, scores: np.ndarray) -> Iterator[Event]:
        """In the order of the classes."""
        for name, merger, on, score in zip(self._classes, self._mergers, self._on, scores, strict=True):
            yield from merger.add(start, end, name if on else None, float(score))

    def again(self, start: float, end: float, line: Mapping[str, Any]) -> Iterator[Event]:
        """By its labels; the scores of other classes count nothing."""
        said = {each["class"]: each["score"] for each in line["labels"]}
        self._on = np.array([name in said for name in self._classes])
        yield from self.add(start, end, np.array([said.get(name, 0.0) for name in self._classes]))

    @property
    def since(self) -> float:
        """Of the class for which it is earliest."""
        return min(merger.since for merger in self._mergers)

    def forget(self) -> None:
        """Of names, not of events: whoever calls this ends them too."""
        self._on[:] = False

    def end(self) -> Iterator[Event]:
        """Class by class."""
        for merger in self._mergers:
            yield from merger.end()
