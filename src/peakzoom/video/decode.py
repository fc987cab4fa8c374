"""A video file becomes frames, decoded with PyAV (FFmpeg's libraries).

Three rules, each learnt from real files and held by a test:

* **Frames are counted by decoding and kept in the decoder's order** (:mod:`peakzoom.video.scan`).
* **Frames are what a player shows**: cropped, turned and mirrored by the display matrix, with square pixels, in the
  colour matrix and range that the file states; where it states none, BT.601 and limited range, as FFmpeg has
  it. HDR transfer curves are not tone-mapped, interlaced lines are not separated, transparency is dropped.
* **Memory is bounded.** Which frames are wanted depends on their count, which is known only at the end. Until
  then they are held as the decoder gave them; above `hold_bytes` they are dropped and a second decode converts the
  wanted ones as they come. Both routes give the same pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from torch import Tensor

from peakzoom.utils.errors import DecodeError
from peakzoom.utils.segments import segment_of
from peakzoom.video.colour import convertible, rgb_frame
from peakzoom.video.container import open_file
from peakzoom.video.cursor import Cursor
from peakzoom.video.faults import reason_of
from peakzoom.video.packets import Losses, decoded_frames
from peakzoom.video.scan import Scan, VideoInfo, scan
from peakzoom.video.shape import Crop, orientation

# From the timestamps of all frames, float64 (n,), to the wanted frame numbers: any shape, duplicates allowed.
Select = Callable[[np.ndarray], np.ndarray]

# (height, width) of the frames, or a function from the displayed (height, width) to it; None = as displayed.
Size = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None

# From this displayed short side on, libswscale resizes while it converts: turning every pixel of a large
# frame into RGB for torch to throw most of them away costs more. Below it, torch's resize keeps up.
LARGE_SHORT_SIDE = 720

HOLD_BYTES = 512 * 2**20  # of decoded frames, until it is known which are wanted


@dataclass(frozen=True)
class Video:
    """The selected frames of a video."""

    info: VideoInfo  # about the whole file
    frames: Tensor  # uint8 (K, 3, H, W), RGB, 0 to 255; channels-last in memory
    index: np.ndarray  # int64 (K,), sorted and unique: the frame numbers of `frames`
    timestamps: np.ndarray  # float64 (info.frames,), seconds since the first frame, of all frames of the file

    def take(self, indices: np.ndarray) -> Tensor:
        """Kept frames by number: integers of any shape, in any order, with duplicates -> uint8 (*shape, 3, H, W)."""
        assert np.isin(indices, self.index).all()
        slots = torch.from_numpy(np.asarray(np.searchsorted(self.index, indices)))
        return self.frames.movedim(1, -1)[slots].movedim(-1, -3)  # channels last: one copy of whole frames


def decode(
    path: str | Path, select: Select | None = None, size: Size = None, hold_bytes: int = HOLD_BYTES
) -> Video:
    """Decodes a file and converts the wanted frames to RGB.

    Args:
        path: a file in any format that FFmpeg reads; of several video streams see :mod:`peakzoom.video.streams`.
        select: the frames to keep, given the timestamps of all (see `Select`); None = all.
        size: of the frames (see `Size`), also where the stored size changes mid-stream. One bilinear, antialiased
            resize leads from stored to wanted pixels.
        hold_bytes: memory for decoded frames until the choice is known; above it the file is decoded twice.

    Raises:
        DecodeError: there is no frame, or one cannot be converted; the reason is one line.
    """
    scanned = scan(path, hold_bytes)
    return convert(scanned, select(scanned.timestamps) if select else None, size)


def convert(scanned: Scan, wanted: np.ndarray | None = None, size: Size = None) -> Video:
    """The wanted frames of a scanned file, by number, any shape, duplicates allowed; None = all."""
    info = scanned.info
    index = np.arange(info.frames) if wanted is None else np.unique(wanted)
    height, width = _target_size(size, info)
    frames = torch.empty((len(index), height, width, 3), dtype=torch.uint8)
    for slot, (_, pixels) in enumerate(frames_of(scanned, index, (height, width))):
        frames[slot] = pixels
    return Video(info, frames.permute(0, 3, 1, 2), index, scanned.timestamps)


def frames_of(
    scanned: Scan, wanted: np.ndarray | None = None, size: Size = None
) -> Iterator[tuple[int, Tensor]]:
    """The wanted frames of a scanned file, one after the other: what a file of any length needs no memory for.

    Yields the frame number and uint8 (H, W, 3), RGB, of the ``wanted`` (sorted, unique) numbers; None = all.

    Raises:
        DecodeError: a frame cannot be converted, or the file gives fewer frames than when it was scanned.
    """
    info = scanned.info
    with reason_of(info.path):
        target = _target_size(size, info)
        numbers = deque((np.arange(info.frames) if wanted is None else wanted).tolist())
        reformatter = VideoReformatter()  # keeps libswscale's tables from frame to frame
        source = _read_again(scanned) if scanned.held is None else _release(scanned.held)
        for number, frame in enumerate(source if numbers else ()):
            if number != numbers[0]:
                continue
            numbers.popleft()
            with convertible(info.path, number, frame):
                pixels = to_rgb(frame, target, (info.height, info.width), reformatter, scanned.crop)
            yield number, pixels
            if not numbers:
                break
        if numbers:
            raise DecodeError(info.path, f"gave {info.frames} frames, fewer when read again; has it changed?")


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


def to_rgb(
    frame: av.VideoFrame,
    size: tuple[int, int],
    displayed: tuple[int, int],
    reformatter: VideoReformatter,
    crop: Crop | None = None,
) -> Tensor:
    """A decoded frame as displayed, in the wanted (height, width): uint8 (H, W, 3).

    ``displayed`` is the video's own (height, width), by its first frame; the reformatter and ``crop`` are the same for
    all frames.
    av.FFmpegError or ValueError if the pixel format cannot be converted.
    """
    turns, upside_down = orientation(frame)
    height, width = size[::-1] if turns % 2 else size  # before the turn
    if crop is not None and not crop.fits(frame.height, frame.width):
        crop = None
    large = min(displayed) >= LARGE_SHORT_SIDE and crop is None  # libswscale takes whole frames
    rgb = rgb_frame(frame, reformatter, (height, width) if large else None)
    pixels = torch.from_numpy(rgb.to_ndarray())
    if crop is not None:
        pixels = pixels[crop.top : frame.height - crop.bottom, crop.left : frame.width - crop.right]
    if pixels.shape[:2] != (height, width):
        image = pixels.permute(2, 0, 1)[None]  # channels-last: the fast case of torch's uint8 resize
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
        pixels = image[0].permute(1, 2, 0)
    if upside_down:
        pixels = pixels.flip(0)
    return torch.rot90(pixels, -turns)


def _target_size(size: Size, info: VideoInfo) -> tuple[int, int]:
    if size is None:
        return info.height, info.width
    return size(info.height, info.width) if callable(size) else size
