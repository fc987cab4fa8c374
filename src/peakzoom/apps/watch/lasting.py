"""A stream or camera that drops and comes back: it is opened again, and time goes on by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from peakzoom.apps.watch.reader import WAKE
from peakzoom.apps.watch.records import Break, SourceProblem
from peakzoom.apps.watch.source import Frame, SizeOf, Source, SourceItem, TimedFrame, open_here
from peakzoom.utils.errors import DecodeError
from peakzoom.video.packets import Number

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds between attempts; each wait is twice the one before


class Lasting:
    """Opens a live source, and opens it again whenever it ends.

    Between the last frame before and the first one after there is a :class:`Break`; the time between them is that by
    the clock, so that seconds of video stay seconds since the first frame.

    Args:
        source: what :func:`peakzoom.apps.watch.source.open_source` takes, but no file.
        size: of converted frames.
        patience: seconds without a frame after which it is given up.
        is_over: whether nobody wants its frames any more; asked all the time while it is away.
        tell: takes what is wrong before there is a source that could say it.
        clock: seconds, from any origin.
        number: as :func:`peakzoom.apps.watch.source.open_source` takes it.
    """

    def __init__(
        self,
        source: str,
        size: SizeOf,
        patience: float,
        is_over: Callable[[], bool],
        tell: Callable[[SourceProblem], None] = lambda problem: None,
        clock: Callable[[], float] = time.monotonic,
        number: Number | None = None,
    ) -> None:
        self._open = partial(open_here, source, size, number, patience)
        self._patience, self._is_over, self._tell, self._clock = patience, is_over, tell, clock

    def open(self) -> Source:
        """The source, once it is there; its items end when it is given up, or is over.

        Raises:
            DecodeError: it is given up, or over, before it was ever there.
        """
        self._now = self._connect(self._clock(), self._tell)
        return replace(self._now, items=self._items(), convert=self._convert, close=self._close)

    def _convert(self, frame: Frame) -> Tensor:
        return self._now.convert(frame)

    def _close(self) -> None:
        self._now.close()

    def _connect(self, since: float, tell: Callable[[SourceProblem], None]) -> Source:
        """Try until it is there; ``since`` is when the last frame came."""
        wait, told = FIRST_WAIT, False
        while True:
            try:
                return self._open()
            except DecodeError as error:
                if self._is_over() or self._clock() - since + wait > self._patience:
                    raise
                if not told:
                    tell(self._away(0.0, error.reason))
                    told = True
                until = self._clock() + wait
                while (left := until - self._clock()) > 0 and not self._is_over():
                    time.sleep(min(left, WAKE))
                wait = min(2 * wait, LONGEST_WAIT)

    def _away(self, time: float, why: str) -> SourceProblem:
        return SourceProblem(
            time, f"{why}; trying again for up to {self._patience:g} s", lost=True, away=True
        )

    def _items(self) -> Iterator[SourceItem]:
        before = 0.0  # seconds, when this connection's first frame came
        while True:
            last, seen, why = before, self._clock(), "it ended"
            try:
                for item in self._now.items:
                    moved = replace(item, time=before + item.time)
                    if isinstance(item, TimedFrame):
                        last, seen = moved.time, self._clock()
                    yield moved
            except DecodeError as error:
                why = error.reason
            self._now.close()
            if self._is_over():
                return
            yield self._away(last, why)
            try:
                self._now = self._connect(seen, lambda problem: None)
            except DecodeError as error:
                if not self._is_over():
                    yield SourceProblem(
                        last, f"given up after {self._patience:g} s: {error.reason}", lost=True
                    )
                return
            away = self._clock() - seen
            before = last + away
            yield Break(before, f"back after {away:.3f} s")


def moved(source: Source, seconds: float, reason: str) -> Source:
    """The same source, so much later, and first a break for this reason."""

    def items() -> Iterator[SourceItem]:
        yield Break(seconds, reason)
        for item in source.items:
            yield replace(item, time=seconds + item.time)

    return replace(source, items=items())
