"""What can be had of a video without recognising anything: its file's numbers, one still frame, where pixels change.

A classifier that is right by these alone is right for the wrong reason (:mod:`peakzoom.evaluation.shortcuts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from peakzoom.utils.segments import file_of
from peakzoom.video.decode import frames_of
from peakzoom.video.scan import HOLD_BYTES, VideoInfo, scan

SIDE = 16  # of every picture, in pixels: whole frames, whatever their shape
PAIRS, PARTS = (
    16,
    4,
)  # pairs of frames that are compared, and the parts of the video that they are averaged over
APART = 0.1  # seconds between the frames of a pair, at least one frame
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Glimpse:
    """Of one video; pictures are float32 from 0 to 255."""

    info: VideoInfo
    bytes: int  # of the file
    still: np.ndarray  # (SIDE, SIDE, 3), the frame in the middle
    background: np.ndarray  # (SIDE, SIDE, 3), the median over time
    changes: np.ndarray  # (PARTS, SIDE, SIDE), mean absolute difference of grey values, part after part

    def numbers(self) -> np.ndarray:
        """Of the file, float64 (6,): logarithms of bytes, frames and seconds; frames a second, height, width."""
        info = self.info
        sizes = np.log1p([self.bytes, info.frames, info.duration])
        return np.array([*sizes, info.fps, info.height, info.width])


def glimpse(path: str | Path) -> Glimpse:
    """Decode a whole file once. Errors as :func:`~peakzoom.video.decode.decode`."""
    path = Path(path)
    scanned = scan(path, HOLD_BYTES)
    info = scanned.info
    apart = min(max(1, round(APART * info.fps)), info.frames - 1)
    first = np.linspace(0, info.frames - 1 - apart, PAIRS).round().astype(np.int64)
    middle = info.frames // 2
    wanted = np.unique([*first, *(first + apart), middle])
    seen = {number: _picture(frame) for number, frame in frames_of(scanned, wanted, (SIDE, SIDE))}
    before, after = (np.stack([seen[number] for number in numbers]) for numbers in (first, first + apart))
    changes = np.abs((after - before) @ GREY).reshape(PARTS, -1, SIDE, SIDE).mean(1)
    background = np.median(before, axis=0)
    return Glimpse(info, file_of(path).stat().st_size, seen[middle], background, changes)


def _picture(frame: Tensor) -> np.ndarray:
    return np.asarray(frame.numpy(), np.float32)
