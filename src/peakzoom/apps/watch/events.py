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

import csv
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peakzoom.utils.errors import UserError
from peakzoom.video.clips import TIMESTAMP_ROUNDING

COLUMNS = ("start", "end", "class", "score", "peak", "windows")  # of events.csv


@dataclass(frozen=True)
class Event:
    """A class, from when to when.

    Attributes:
        start, end: seconds since the first frame of the source.
        name: the class.
        score: mean over its windows, in [0, 1].
        peak: highest of them.
        windows: how many predict the class.
    """

    start: float
    end: float
    name: str
    score: float
    peak: float
    windows: int


@dataclass(frozen=True)
class _Stretch:
    """A stretch of time, and the prediction for its window."""

    start: float
    end: float
    name: str | None
    score: float


@dataclass
class _OpenEvent:
    """An event that may go on."""

    start: float
    end: float
    name: str
    total: float  # of the scores
    peak: float
    windows: int


class Merger:
    """Takes windows in order, yields events as soon as nothing that follows can change them.

    Args:
        gap: seconds that an event may bridge.

    Raises:
        UserError: ``gap`` is negative or not finite.
    """

    def __init__(self, gap: float = 0.0) -> None:
        if not (math.isfinite(gap) and gap >= 0):
            raise UserError(f"gap is {gap:g}, expected seconds of 0 or more")
        self._reach = gap + TIMESTAMP_ROUNDING
        self._window: _Stretch | None = None  # the last one
        self._from = 0.0  # when its stretch begins
        self._open: _OpenEvent | None = None
        self._passed: deque[_Stretch] = deque()  # stretches since the open event, which may bridge them

    def add(self, start: float, end: float, name: str | None, score: float) -> Iterator[Event]:
        """Add a window; yields the events that it completes.

        Args:
            start: of the window, in seconds, not before the start of the last one.
            end: of the window, in seconds.
            name: its class; None = none.
            score: of that class.
        """
        new, old = _Stretch(start, end, name, score), self._window
        begins = start
        if old is not None:
            if start <= old.end:  # the border is midway between the centres, where both windows are
                begins = min(max((old.start + old.end + start + end) / 4, start), old.end)
            yield from self._add_stretch(_Stretch(self._from, min(begins, old.end), old.name, old.score))
        self._window, self._from = new, begins

    def end(self) -> Iterator[Event]:
        """Yield all events that are left; later windows are not joined to earlier ones."""
        if (last := self._window) is not None:
            yield from self._add_stretch(_Stretch(self._from, last.end, last.name, last.score))
        self._window = None
        while self._open is not None:
            passed = list(self._passed)
            yield self._close()
            for each in passed:
                yield from self._add_stretch(each)

    def _add_stretch(self, stretch: _Stretch) -> Iterator[Event]:
        todo = deque([stretch])
        while todo:
            each, event = todo.popleft(), self._open
            if event is None:
                if each.name is not None:
                    self._open = _OpenEvent(each.start, each.end, each.name, each.score, each.score, 1)
            elif each.name == event.name and each.start - event.end <= self._reach:
                event.end, event.windows = each.end, event.windows + 1
                event.total, event.peak = event.total + each.score, max(event.peak, each.score)
                self._passed.clear()
            else:
                self._passed.append(each)
                if each.end - event.end > self._reach:  # whatever follows begins too late
                    todo.extendleft(reversed(self._passed))
                    yield self._close()

    def _close(self) -> Event:
        assert self._open is not None
        event, self._open = self._open, None
        self._passed.clear()
        mean = event.total / event.windows
        return Event(event.start, event.end, event.name, mean, event.peak, event.windows)


def clock_time(seconds: float) -> str:
    """hh:mm:ss.mmm, to the nearest millisecond.

    >>> clock_time(3723.0456)
    '01:02:03.046'
    """
    return _clock(round(seconds * 1000))


def _clock(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def cue(event: Event) -> str:
    """A WebVTT cue whose text is the class, with an empty line after it.

    Source: WebVTT, W3C, section 4: times of at least two digits of hours, an end after the start, text without line
    breaks and with &, < and > escaped.
    """
    first = round(event.start * 1000)
    last = max(round(event.end * 1000), first + 1)
    text = " ".join(event.name.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_clock(first)} --> {_clock(last)}\n{text}\n\n"


class EventFiles:
    """``events.csv`` and ``chapters.vtt`` in a folder, whole after every event.

    Args:
        folder: new, or empty.
    """

    def __init__(self, folder: Path) -> None:
        self._table = (folder / "events.csv").open("x", encoding="utf-8", newline="")
        self._chapters = (folder / "chapters.vtt").open("x", encoding="utf-8", newline="\n")
        self._rows = csv.writer(self._table)
        self._rows.writerow(COLUMNS)
        self._chapters.write("WEBVTT\n\n")
        self._flush()

    def add(self, event: Event) -> None:
        """Write an event that does not start before the last one."""
        times = (f"{event.start:.3f}", f"{event.end:.3f}")
        self._rows.writerow((*times, event.name, f"{event.score:.4f}", f"{event.peak:.4f}", event.windows))
        self._chapters.write(cue(event))
        self._flush()

    def close(self) -> None:
        """Close both files."""
        self._table.close()
        self._chapters.close()

    def _flush(self) -> None:
        self._table.flush()
        self._chapters.flush()
