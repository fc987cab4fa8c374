"""Events: which action happened from when to when, from the predictions for a video's windows.

The prediction for a window is one class, or none. Windows overlap, so at each instant the window counts whose centre
is nearest of those that cover it; between two overlapping windows the border is midway between their centres. Here,
with windows of 4 seconds every 2, "-" is a window without a class::

    seconds      0   2   4   6   8  10  12
    wave         [-------]
    wave             [-------]
    -                    [-------]
    kick                     [-------]
    event        wave------|       kick|
                 0         5   7       10

An event is an unbroken stretch of one class. It bridges a stretch of other classes, or of none, of up to ``gap``
seconds if its own class follows; that stretch then belongs to it. So events never overlap. (From no paper; the tests
label single instants by this rule, and compare.)
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from peakzoom.inference.prediction import Confidence
from peakzoom.utils.errors import printable
from peakzoom.video.clips import TIMESTAMP_ROUNDING

EVENT_COLUMNS = ("start", "end", "class", "score", "peak", "windows")  # of events.csv


@dataclass(frozen=True)
class Event:
    """A class, from when to when."""

    start: float  # seconds since the first frame of the source
    end: float
    name: str  # of the class
    score: float  # mean over its windows, in [0, 1]
    peak: float  # highest of them
    windows: int  # that predict the class


class _Stretch(NamedTuple):
    """A stretch of time, and the prediction for its window."""

    start: float
    end: float
    name: str | None
    score: float


class Namer:
    """Names the class of one window after the other: the best one, where its score is high enough.

    Args:
        classes: S names.
        threshold: score from which a window has a class.
        keep: score down to which it has the class of the window before it; None: the threshold too.
        ignore: classes that are none.
    """

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float,
        keep: float | None = None,
        ignore: Collection[str] = (),
    ) -> None:
        self._classes, self._ignore = classes, ignore
        self._threshold, self._keep = threshold, threshold if keep is None else keep
        self._before: str | None = None

    def name(self, scores: np.ndarray, confidence: Confidence | None = None) -> str | None:
        """The class of the next window, from its scores (S,); None = none, as where its confidence is too low."""
        best = int(scores.argmax())
        name = self._classes[best]
        level = self._keep if name == self._before else self._threshold
        rejected = confidence is not None and confidence.rejected
        self._before = name if scores[best] >= level and name not in self._ignore and not rejected else None
        return self._before

    def go_on(self, name: str | None) -> None:
        """The last window had this class; None also where the next one does not follow it."""
        self._before = name


class Merger:
    """Takes windows in order, yields events as soon as nothing that follows can change them.

    Args:
        gap: seconds that an event may bridge, 0 or more.
        shortest: seconds that an event lasts at least; others are not yielded.

    Attributes:
        count: events yielded so far.
    """

    def __init__(self, gap: float = 0.0, shortest: float = 0.0) -> None:
        self.count = 0
        self._shortest = shortest - TIMESTAMP_ROUNDING
        self._reach = gap + TIMESTAMP_ROUNDING
        self._window: _Stretch | None = None  # the last one
        self._from = 0.0  # when its stretch begins
        self._open: Event | None = None  # it may go on
        self._total = 0.0  # of its scores
        self._passed: list[_Stretch] = []  # stretches since then, which it may bridge

    @property
    def since(self) -> float:
        """The time before which no event will begin that is still to come."""
        if self._open is not None:
            return self._open.start
        return 0.0 if self._window is None else self._from

    def add(self, start: float, end: float, name: str | None, score: float) -> Iterator[Event]:
        """Add a window, in seconds, that starts no earlier than the last one; yields the events that it completes.

        Args:
            start: of the window.
            end: of the window.
            name: its class; None = none.
            score: of that class.
        """
        begins = start
        if (old := self._window) is not None:
            if start <= old.end:  # the border is midway between the centres, where both windows are
                begins = min(max((old.start + old.end + start + end) / 4, start), old.end)
            yield from self._add_stretch(old._replace(start=self._from, end=min(begins, old.end)))
        self._window, self._from = _Stretch(start, end, name, score), begins

    def end(self) -> Iterator[Event]:
        """Yield all events that are left; later windows are not joined to earlier ones."""
        if self._window is not None:
            yield from self._add_stretch(self._window._replace(start=self._from))
        self._window = None
        while self._open is not None:
            yield from self._close(self._open)

    def _add_stretch(self, stretch: _Stretch) -> Iterator[Event]:
        start, end, name, score = stretch
        event = self._open
        if event is None:
            if name is not None:
                self._open, self._total = Event(start, end, name, score, score, 1), score
        elif name == event.name and start - event.end <= self._reach:
            self._total += score
            windows = event.windows + 1
            mean, peak = self._total / windows, max(event.peak, score)
            self._open = Event(event.start, end, event.name, mean, peak, windows)
            self._passed.clear()
        else:
            self._passed.append(stretch)
            if end - event.end > self._reach:  # whatever follows begins too late
                yield from self._close(event)

    def _close(self, event: Event) -> Iterator[Event]:
        """Yield the open event; what it did not bridge may hold others."""
        passed, self._passed, self._open = self._passed, [], None
        if event.end - event.start >= self._shortest:
            self.count += 1
            yield event
        for stretch in passed:
            yield from self._add_stretch(stretch)


def clock_time(seconds: float) -> str:
    """hh:mm:ss.mmm, to the nearest millisecond.

    >>> clock_time(3723.0456)
    '01:02:03.046'
    """
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def cue(event: Event) -> str:
    """A WebVTT cue whose text is the class, with an empty line after it.

    Source: WebVTT, W3C, section 4: times of at least two digits of hours, an end after the start, text without line
    breaks and with &, < and > escaped.
    """
    end = max(event.end, (round(event.start * 1000) + 1) / 1000)
    text = html.escape(printable(" ".join(event.name.split())), quote=False)
    return f"{clock_time(event.start)} --> {clock_time(end)}\n{text}\n\n"
