"""A video decoded once, however much is made of it.

The process that decodes a file (:mod:`peakzoom.video.guard`) keeps its frames as the decoder gave them and converts
them as often as they are wanted: for the views of a test, for the clips of an explanation, for a figure. Frames of more
than ``HOLD_BYTES`` are not kept: then the file is decoded again each time, frame by frame, and memory does not grow
with its length. Both ways give the same pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.decode import HOLD_BYTES, frames_of
from peakzoom.video.guard import Guard, guards, streamed
from peakzoom.video.sampling import DecodedViews, Views, views_of
from peakzoom.video.scan import Scan, scan
from peakzoom.video.views import Preprocess


class HeldVideo:
    """A file whose frames are held for as long as the block lasts. Blocks of the same video may lie in one another.

    Entering it raises a DecodeError where the file gives no frame, none in bounded time and memory, or more than
    ``most``. After the block, :meth:`frames` decodes the file again.
    """

    scan: Scan  # what decoding found out

    def __init__(self, path: str | Path, most: int | None = None) -> None:
        self.path, self._most = Path(path), most
        self._blocks = 0
        self._stack = ExitStack()
        self._guard: Guard | None = None

    def __enter__(self) -> HeldVideo:
        if not self._blocks:
            with ExitStack() as stack:
                (guard,) = stack.enter_context(guards())
                self.scan = guard.run(self.path, _hold, self.path, self._most)
                self._guard, self._stack = guard, stack.pop_all()
        self._blocks += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._blocks -= 1
        if self._blocks:
            return
        guard, self._guard = self._guard, None
        if guard is not None and guard.pid is not None and (error is None or isinstance(error, UserError)):
            with suppress(DecodeError):
                guard.run(self.path, _drop)
        self._stack.__exit__(kind, error, trace)

    def views(self, preprocess: Preprocess, views: Views) -> DecodedViews:
        """The views of a test, within the block; the same as by :func:`peakzoom.video.sampling.decode_views`."""
        assert self._guard is not None
        return self._guard.run(self.path, _held_views, self.scan, preprocess, views)

    def frames(self, wanted: np.ndarray | None, size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
        """Frames one after the other; see :func:`peakzoom.video.decode.frames_of`."""
        if self._guard is None:
            return streamed(self.path, frames_of, self.scan, wanted, size)
        return self._guard.stream(self.path, _held_frames, self.scan, wanted, size)


# In the process that decodes -------------------------------------------------------------------------------------

_held: Scan | None = None


def _hold(path: Path, most: int | None) -> Scan:
    """Decode a file and keep its frames; returns the scan without them."""
    global _held
    _held = None  # those of the file before
    _held = scan(path, HOLD_BYTES, most)
    return replace(_held, held=None)


def _drop() -> None:
    global _held
    _held = None


def _with_frames(scanned: Scan) -> Scan:
    """The scan with its frames, which whoever takes them may let go; without, where they are not kept."""
    if _held is None or _held.held is None or _held.info != scanned.info:
        return scanned
    return replace(_held, held=deque(_held.held))


def _held_views(scanned: Scan, preprocess: Preprocess, views: Views) -> DecodedViews:
    return views_of(_with_frames(scanned), preprocess, views)


def _held_frames(
    scanned: Scan, wanted: np.ndarray | None, size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    return frames_of(_with_frames(scanned), wanted, size)
