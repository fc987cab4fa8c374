"""The frames of a test: one decode of a file for all its clips, by a clip rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.decode import Video, decode
from peakzoom.video.views import Preprocess, frames_at


def decode_clips(path: str | Path, preprocess: Preprocess, rule: str, clips: int) -> tuple[Video, np.ndarray]:
    """Decode the frames of a video's test clips.

    Args:
        path: the file.
        preprocess: how clips are made.
        rule: name in :data:`~peakzoom.video.clips.CLIP_RULES`.
        clips: how many.

    Returns:
        The video, its frames of ``preprocess.test_size``, and int64 (clips, T), the frame numbers of its clips.

    Raises:
        DecodeError: as :func:`~peakzoom.video.decode.decode`.
    """
    chosen = np.empty((0, 0), np.int64)

    def select(timestamps: np.ndarray) -> np.ndarray:
        nonlocal chosen
        base = frames_at(Path(path), timestamps, preprocess.fps)
        chosen = base[CLIP_RULES[rule](len(base), preprocess.frames, preprocess.stride, clips)]
        return chosen

    return decode(path, select, preprocess.test_size), chosen
