"""Frames of a scanned file in RGB, as they are stored: what the process that decodes makes of them, without PyTorch.

PyTorch takes a second or two to import, and the process that decodes (:mod:`peakzoom.video.guard`) needs nothing of it
but a resize. So whoever receives the frames resizes them: :func:`peakzoom.video.decode.displayed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from peakzoom.utils.errors import DecodeError
from peakzoom.utils.segments import segment_of
from peakzoom.utils.words import counted
from peakzoom.video.colour import convertible, rgb_frame
from peakzoom.video.container import open_file
from peakzoom.video.cursor import Cursor
from peakzoom.video.faults import reason_of
from peakzoom.video.packets import Losses, decoded_frames
from peakzoom.video.scan import Scan, VideoInfo
from peakzoom.video.shape import Crop, orientation

# (height, width) of the frames, or a function from the displayed (height, width) to it; None = as displayed.
Size = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None

# From this displayed short side on, libswscale resizes while it converts: turning every pixel of a large
# frame into RGB for torch to throw most of them away costs more. Below it, torch's resize keeps up.
LARGE_SHORT_SIDE = 720


@dataclass(frozen=True)
class StoredFrame:
    """A frame in RGB, and what is left to do until it is as displayed: first resize it, then mirror, then turn it."""

    pixels: np.ndarray  # uint8 (h, w, 3)
    height: int  # wanted, before the turn
    width: int
    upside_down: bool
    turns: int  # quarters, clockwise


def stored_frames(
    scanned: Scan, wanted: np.ndarray | None = None, size: Size = None
) -> Iterator[tuple[int, StoredFrame]]:
    """The wanted frames of a scanned file, one after the other: what a file of any length needs no memory for.

    Yields the frame number and the frame, of the ``wanted`` (sorted, unique) numbers; None = all. ``size`` is that of
    the frames as displayed.

    Raises:
        DecodeError: a frame cannot be converted, or the file gives fewer frames than when it was scanned.
    """
    info = scanned.info
    with reason_of(info.path):
        target = target_size(size, info)
        numbers = deque((np.arange(info.frames) if wanted is None else wanted).tolist())
        reformatter = VideoReformatter()  # keeps libswscale's tables from frame to frame
        source = _read_again(scanned) if scanned.held is None else _release(scanned.held)
        for number, frame in enumerate(source if numbers else ()):
            if number != numbers[0]:
                continue
            numbers.popleft()
            with convertible(info.path, number, frame):
                stored = to_stored(frame, target, (info.height, info.width), reformatter, scanned.crop)
            yield number, stored
            if not numbers:
                break
        if numbers:
            raise DecodeError(
                info.path, f"gave {counted(info.frames, 'frame')}, fewer when read again; has it changed?"
            )


_cursor: Cursor[av.VideoFrame] = Cursor()  # in a file whose segments are read


def _read_again(scanned: Scan) -> Iterator[av.VideoFrame]:
    """Second pass: of a file from its start; of a segment from where the one before it ended, unless that is later."""
    path, stream = scanned.info.path, scanned.stream
    if (segment := segment_of(path)) is None:
        yield from _read(path, stream)
        return
    file = segment.file
    yield from _cursor.read(file, stream, lambda: _read(file, stream), scanned.first)


def _read(path: Path, stream: int) -> Iterator[av.VideoFrame]:
    """The same frames again; those missing since then are noticed by the caller."""
    with open_file(path) as container:
        for each in container.streams.video:
            if each.index == stream:
                yield from decoded_frames(container, each, Losses())  # the first pass has reported those


def _release(held: deque[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Held frames in order, each released when the next one is taken."""
    while held:
        yield held.popleft()


def to_stored(
    frame: av.VideoFrame,
    size: tuple[int, int],
    displayed: tuple[int, int],
    reformatter: VideoReformatter,
    crop: Crop | None = None,
) -> StoredFrame:
    """A decoded frame in RGB, to become the wanted (height, width) as displayed.

    ``displayed`` is the video's own (height, width), by its first frame; the reformatter and ``crop`` are the same for
    all frames.
    av.FFmpegError or ValueError if the pixel format cannot be converted.
    """
    turns, upside_down = orientation(frame)
    height, width = size[::-1] if turns % 2 else size  # before the turn
    if crop is not None and not crop.fits(frame.height, frame.width):
        crop = None
    large = min(displayed) >= LARGE_SHORT_SIDE and crop is None  # libswscale takes whole frames
    pixels = rgb_frame(frame, reformatter, (height, width) if large else None).to_ndarray()
    if crop is not None:
        pixels = pixels[crop.top : frame.height - crop.bottom, crop.left : frame.width - crop.right]
    return StoredFrame(pixels, height, width, upside_down, turns)


def target_size(size: Size, info: VideoInfo) -> tuple[int, int]:
    """(height, width) of a video's frames where ``size`` is wanted."""
    if size is None:
        return info.height, info.width
    return size(info.height, info.width) if callable(size) else size
