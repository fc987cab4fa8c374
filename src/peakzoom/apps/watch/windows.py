"""Windows of a video that may never end: clips as :mod:`peakzoom.video.clips` cuts them, while the frames come.

Frames first become *base frames*: all of them as they are stored, or the frame on display at each time 0, 1 / fps,
2 / fps ..., as :func:`peakzoom.video.clips.resample` takes them. Windows are clips of base frames. With clips of 4
frames, stride 2 (a span of 7) and a window every 3 base frames, 15 base frames make::

    base frame   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14
    window 0     0  .  1  .  2  .  3
    window 1              0  .  1  .  2  .  3
    window 2                       0  .  1  .  2  .  3
    last window                             0  .  1  .  2  .  3     ends at the last frame, whatever the step

A video shorter than the span makes one window, which repeats the video from its beginning, as in every test
(:func:`peakzoom.video.clips.clip_indices`). Base frames are kept only as long as a window needs them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from peakzoom.video.clips import TIMESTAMP_ROUNDING, clip_indices, clip_span

Frame = TypeVar("Frame")
Pixels = TypeVar("Pixels")


@dataclass(frozen=True)
class Clip(Generic[Pixels]):
    """One window; times in seconds since the first frame of the source."""

    start: float  # when its first base frame appears
    end: float  # when its last one disappears
    frames: tuple[Pixels, ...]  # T converted frames
    covered: int  # base frames from the first to the last; fewer than the span where the video repeats


class Windows(Generic[Frame, Pixels]):
    """Takes frames in order, yields clips as soon as they are complete.

    Args:
        frames: of a clip.
        stride: distance of a clip's frames, in base frames.
        fps: rate to which the video is brought; None takes frames as they are stored.
        rate: frames per second that the source states, or 0; used only for a video of a single frame.
        every: seconds between the starts of windows; a window starts at the first base frame from then on. None: half
            the span, in base frames.
        convert: from a frame to what is kept of it; called once for each frame that is needed.
        nth: of the windows that ``every`` makes, each so many-th is made, the first one among them. The last window of
            the video is made whatever its number.

    All numbers but ``rate`` are above 0.
    """

    def __init__(
        self,
        frames: int,
        stride: int,
        fps: float | None,
        rate: float,
        every: float | None,
        convert: Callable[[Frame], Pixels],
        nth: int = 1,
    ) -> None:
        self.span = clip_span(frames, stride)
        self.hop = max(self.span // 2, 1)  # base frames; where `every` is None
        self._frames, self._stride, self._fps, self._rate = frames, stride, fps, rate
        self._every, self._convert, self._nth = every, convert, nth
        self._reset()

    def _reset(self) -> None:
        self._shown: tuple[float, Frame] | None = None  # the frame on display, since when
        self._pixels: Pixels | None = None  # of that frame, once they were needed
        self._origin = 0.0  # time of the first frame
        self._count = 0  # frames
        self._bases = 0  # base frames
        self._kept: deque[tuple[float, float, Pixels]] = deque(maxlen=self.span)  # from when to when
        self._starts: deque[int] = deque()  # base frames at which unfinished windows start
        self._due = 0.0  # since the first frame, when the next window is to start
        self._number = 0  # of the next window, those that are left out counted too
        self._covered = 0  # base frames up to the end of the last window

    def add(self, time: float, frame: Frame) -> Iterator[Clip[Pixels]]:
        """The windows that are complete once this frame is shown, at ``time``, not before the last frame."""
        if self._shown is None:
            self._origin = time
        elif self._fps is None:
            yield from self._take(time)
        else:
            # As in resample, with the mean interval so far: it matters from 250 frames a second on.
            slack = min(TIMESTAMP_ROUNDING, (time - self._origin) / self._count / 4)
            while self._bases / self._fps + slack < time - self._origin:
                yield from self._take(time)
        self._shown, self._pixels = (time, frame), None
        self._count += 1

    def end(self) -> Iterator[Clip[Pixels]]:
        """The window that ends at the last frame, unless there was one; later frames begin a new sequence."""
        if self._shown is not None:
            # The last frame stays on display for the mean interval.
            lasted, count = self._shown[0] - self._origin, self._count
            interval = lasted / (count - 1) if count > 1 else 1 / self._rate if self._rate else 0.0
            if self._fps is not None and count > 1:
                slack = min(TIMESTAMP_ROUNDING, interval / 4)
                count = max(math.ceil((lasted + interval - slack) * self._fps), 1)
            while self._bases < count:
                yield from self._take(self._shown[0] + interval)
            if self._covered < self._bases:
                yield self._clip()
        self._reset()

    def _take(self, until: float) -> Iterator[Clip[Pixels]]:
        """Take the frame on display, which is so until then, as the next base frame."""
        assert self._shown is not None
        start, frame = self._shown
        if self._fps is not None:
            start = self._origin + self._bases / self._fps
            until = self._origin + (self._bases + 1) / self._fps
        if self._pixels is None:
            self._pixels = self._convert(frame)
        if self._starts_here(start - self._origin):
            if self._number % self._nth == 0:
                self._starts.append(self._bases)
            self._number += 1
        self._kept.append((start, until, self._pixels))
        self._bases += 1
        if self._starts and self._starts[0] + self.span == self._bases:
            self._starts.popleft()
            self._covered = self._bases
            yield self._clip()

    def _starts_here(self, time: float) -> bool:
        if self._every is None:
            return self._bases % self.hop == 0
        if time < self._due - TIMESTAMP_ROUNDING:
            return False
        self._due = (math.floor((time + TIMESTAMP_ROUNDING) / self._every) + 1) * self._every
        return True

    def _clip(self) -> Clip[Pixels]:
        """The window of the base frames that are kept."""
        starts, ends, pixels = zip(*self._kept, strict=True)
        indices = clip_indices(0, len(pixels), self._frames, self._stride)
        return Clip(starts[0], ends[-1], tuple(pixels[index] for index in indices), len(pixels))
