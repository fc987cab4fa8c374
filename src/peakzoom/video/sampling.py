"""The views of a test video: which clips and crops, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.memory import return_freed_memory
from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.decode import HOLD_BYTES, Video, convert
from peakzoom.video.guard import Guard
from peakzoom.video.parallel import in_order
from peakzoom.video.scan import Scan, scan
from peakzoom.video.views import Preprocess, crop_offsets, frames_at

Given = TypeVar("Given")

RETURN_EVERY = 50  # videos, after which freed memory goes back to the system


@dataclass(frozen=True)
class Views:
    """Which views of a video are averaged: the paper's 30 are ten clips times three crops.

    Attributes:
        rule: name in ``peakzoom.video.clips.CLIP_RULES``.
        clips, crops: how many of each.
    """

    rule: str = "paper"
    clips: int = 10
    crops: int = 3

    def __post_init__(self) -> None:
        if self.rule not in CLIP_RULES:
            raise UserError(f"clip rule is {self.rule!r}, expected one of {', '.join(CLIP_RULES)}")
        if min(self.clips, self.crops) < 1:
            raise UserError(
                f"{self.clips} clips and {self.crops} crops make no view: expected at least 1 of each"
            )


@dataclass(frozen=True)
class DecodedViews:
    """A video decoded once, with the frame numbers of all its test clips."""

    video: Video
    clips: np.ndarray  # int64 (clips, T)
    offsets: list[tuple[int, int]]  # (top, left) of the crops
    side: int

    def __len__(self) -> int:
        return len(self.clips) * len(self.offsets)

    def view(self, index: int) -> Tensor:
        """One view alone, uint8 (1, T, 3, side, side); views count clip by clip."""
        clip, crop = divmod(index, len(self.offsets))
        return self._crop(self.video.take(self.clips[clip]), self.offsets[crop])[None]

    def batches(self) -> Iterator[Tensor]:
        """One batch a clip: its crops, uint8 (crops, T, 3, side, side)."""
        for clip in self.clips:
            frames = self.video.take(clip)
            yield torch.stack([self._crop(frames, corner) for corner in self.offsets])

    def _crop(self, frames: Tensor, corner: tuple[int, int]) -> Tensor:
        top, left = corner
        return frames[:, :, top : top + self.side, left : left + self.side]


def decode_views(
    path: str | Path,
    preprocess: Preprocess,
    views: Views,
    guard: Guard | None = None,
    most: int | None = None,
) -> DecodedViews:
    """Decode a video once for all its views.

    Args:
        path: the file.
        preprocess: how clips are made.
        views: which views.
        guard: decodes, in bounded time and memory; None decodes in this process and thread.
        most: frames; a longer file is refused. None takes any.

    Raises:
        DecodeError: as :func:`peakzoom.video.decode.decode`, and as :meth:`peakzoom.video.guard.Guard.run`.
    """
    wanted = (path, preprocess, views.rule, views.clips, most)
    video, clips = guard.run(path, decode_clips, *wanted) if guard else decode_clips(*wanted)
    return crop_views(video, clips, preprocess, views)


def crop_views(video: Video, clips: np.ndarray, preprocess: Preprocess, views: Views) -> DecodedViews:
    """The views of decoded clips; what comes and is returned is as of :func:`decode_clips`."""
    side = preprocess.source_size
    offsets = crop_offsets(video.frames.shape[2], video.frames.shape[3], side, views.crops)
    return DecodedViews(video, clips, offsets, side)


def decode_ahead(
    files: Sequence[Given],
    preprocess: Preprocess,
    views: Views,
    workers: int = 1,
    ahead: int = 2,
    decode: Callable[[Guard | None, Given], DecodedViews] | None = None,
) -> Iterator[DecodedViews | DecodeError]:
    """Decode videos while the network works, in order.

    Args:
        files: paths, or whatever ``decode`` knows a file by.
        preprocess: how clips are made.
        views: which views.
        workers: processes that decode, see :mod:`peakzoom.video.guard`. 0 decodes in this process, for debugging: a
            file that hangs or crashes the decoder hangs or crashes everything then.
        ahead: how many videos may wait in memory.
        decode: has a guard decode a file; :func:`decode_views` where not given.
    """

    def work(guard: Guard | None, file: Given) -> DecodedViews:
        return decode(guard, file) if decode else decode_views(cast(Path, file), preprocess, views, guard)

    def here(file: Given) -> DecodedViews | DecodeError:
        try:
            return work(None, file)
        except DecodeError as error:
            return error

    decoded = in_order(work, files, min(workers, len(files)), ahead) if workers > 0 else map(here, files)
    for count, video in enumerate(decoded, start=1):
        yield video
        if count % RETURN_EVERY == 0:
            return_freed_memory()


def decode_clips(
    path: str | Path, preprocess: Preprocess, rule: str, clips: int, most: int | None = None
) -> tuple[Video, np.ndarray]:
    """Decode the frames of a video's test clips.

    Args:
        path: the file.
        preprocess: how clips are made.
        rule: name in :data:`~peakzoom.video.clips.CLIP_RULES`.
        clips: how many.
        most: frames; a longer file is refused. None takes any.

    Returns:
        The video, its frames of ``preprocess.test_size``, and int64 (clips, T), the frame numbers of its clips.

    Raises:
        DecodeError: as :func:`~peakzoom.video.decode.decode`.
    """
    return clips_of(scan(path, HOLD_BYTES, most), preprocess, rule, clips)


def clips_of(scanned: Scan, preprocess: Preprocess, rule: str, clips: int) -> tuple[Video, np.ndarray]:
    """:func:`decode_clips` of a file that is scanned already."""
    base = frames_at(scanned.info.path, scanned.timestamps, preprocess.fps)
    chosen = base[CLIP_RULES[rule](len(base), preprocess.frames, preprocess.stride, clips)]
    return convert(scanned, lambda _: chosen, preprocess.test_size), chosen
