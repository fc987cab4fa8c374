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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from torch import Tensor

from peakzoom.video.faults import reason_of
from peakzoom.video.holding import Chunk, held_frames
from peakzoom.video.scan import HOLD_BYTES, Scan, VideoInfo, scan
from peakzoom.video.shape import Crop
from peakzoom.video.stored import Size, StoredFrame, stored_frames, target_size, to_stored

# From the timestamps of all frames, float64 (n,), to the wanted frame numbers: any shape, duplicates allowed.
Select = Callable[[np.ndarray], np.ndarray]

# Of a scanned file, the wanted (sorted, unique) numbers and the size of the frames: see :func:`frames_of`.
Frames = Callable[[Scan, np.ndarray, tuple[int, int]], Iterator[tuple[int, Tensor]]]


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


def frames_of(
    scanned: Scan, wanted: np.ndarray | None = None, size: Size = None
) -> Iterator[tuple[int, Tensor]]:
    """The wanted frames of a scanned file, one after the other: what a file of any length needs no memory for.

    Yields the frame number and uint8 (H, W, 3), RGB, of the ``wanted`` (sorted, unique) numbers; None = all.

    Raises:
        DecodeError: a frame cannot be converted, or the file gives fewer frames than when it was scanned.
    """
    for number, frame in stored_frames(scanned, wanted, size):
        with reason_of(scanned.info.path):
            pixels = displayed(frame)
        yield number, pixels


def convert(
    scanned: Scan, wanted: np.ndarray | None = None, size: Size = None, frames: Frames = frames_of
) -> Video:
    """The wanted frames of a scanned file, by number, any shape, duplicates allowed; None = all."""
    info = scanned.info
    index = np.arange(info.frames) if wanted is None else np.unique(wanted)
    height, width = target_size(size, info)
    kept = torch.empty((len(index), height, width, 3), dtype=torch.uint8)
    for slot, (_, pixels) in enumerate(frames(scanned, index, (height, width))):
        kept[slot] = pixels
    return Video(info, kept.permute(0, 3, 1, 2), index, scanned.timestamps)


def to_rgb(
    frame: av.VideoFrame,
    size: tuple[int, int],
    shown: tuple[int, int],
    reformatter: VideoReformatter,
    crop: Crop | None = None,
) -> Tensor:
    """A decoded frame as displayed, in the wanted (height, width): uint8 (H, W, 3).

    ``shown`` is the video's own (height, width); see :func:`peakzoom.video.stored.to_stored`.
    """
    return displayed(to_stored(frame, size, shown, reformatter, crop))


def displayed(frame: StoredFrame) -> Tensor:
    """A frame as displayed, of the size that is wanted of it: uint8 (H, W, 3)."""
    pixels = torch.from_numpy(frame.pixels)
    if pixels.shape[:2] != (frame.height, frame.width):
        image = pixels.permute(2, 0, 1)[None]  # channels-last: the fast case of torch's uint8 resize
        image = F.interpolate(image, (frame.height, frame.width), mode="bilinear", antialias=True)
        pixels = image[0].permute(1, 2, 0)
    if frame.upside_down:
        pixels = pixels.flip(0)
    return torch.rot90(pixels, -frame.turns) if frame.turns else pixels


def displayed_chunks(*arguments: Any) -> Iterator[Chunk]:
    """:func:`peakzoom.video.holding.held_frames`, made as displayed where they are decoded."""
    for chunk in held_frames(*arguments):
        yield [(number, _done(displayed(frame))) for number, frame in chunk]


def _done(pixels: Tensor) -> StoredFrame:
    """A frame as displayed, to which nothing is left to do."""
    height, width = pixels.shape[:2]
    return StoredFrame(pixels.contiguous().numpy(), height, width, upside_down=False, turns=0)
