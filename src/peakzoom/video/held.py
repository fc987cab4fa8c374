"""A video decoded once, however much is made of it.

The process that decodes a file (:mod:`peakzoom.video.guard`) keeps its frames as the decoder gave them and converts
them as often as they are wanted: for the views of a test, for the clips of an explanation, for a figure. Frames of more
than ``HOLD_BYTES`` are not kept: then the file is decoded again each time, frame by frame, and memory does not grow
with its length. Both ways give the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.guard import Guard, guards
from peakzoom.video.holding import drop, hold
from peakzoom.video.sampling import DecodedViews, Views, frames_by, views_of
from peakzoom.video.scan import Scan
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
                self.scan = guard.run(self.path, hold, self.path, self._most)
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
                guard.run(self.path, drop)
        self._stack.__exit__(kind, error, trace)

    def views(self, preprocess: Preprocess, views: Views) -> DecodedViews:
        """The views of a test, within the block; the same as by :func:`peakzoom.video.sampling.decode_views`."""
        assert self._guard is not None
        return views_of(self.scan, preprocess, views, partial(frames_by, self._guard))

    def frames(self, wanted: np.ndarray | None, size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
        """Frames one after the other; see :func:`peakzoom.video.decode.frames_of`."""
        if self._guard is not None:
            yield from frames_by(self._guard, self.scan, wanted, size)
            return
        with guards() as (guard,):
            yield from frames_by(guard, self.scan, wanted, size)
