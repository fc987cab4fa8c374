"""The views of a test video: which clips and crops, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.memory import return_freed_memory
from peakzoom.utils.words import counted
from peakzoom.video.clips import CLIP_RULES, clips_around
from peakzoom.video.decode import Frames, Video, convert, displayed, displayed_chunks, frames_of
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import Guard
from peakzoom.video.holding import drop, held_frames, hold
from peakzoom.video.parallel import in_order
from peakzoom.video.scan import HOLD_BYTES, Scan, scan
from peakzoom.video.views import Preprocess, crop_offsets, frames_at

Given = TypeVar("Given")

WAITING_BYTES = 2**30  # of frames of decoded videos that wait
FEW = 16  # files; chosen, not measured: larger frames in the pipe against one import of PyTorch
RETURN_EVERY = 50  # videos, after which freed memory goes back to the system


@dataclass(frozen=True)
class Views:
    """Which views of a video are averaged: the paper's 30 are ten clips, by one rule, times three crops."""

    rule: str = "paper"  # name in ``peakzoom.video.clips.CLIP_RULES``
    clips: int = 10
    crops: int = 3

    def __post_init__(self) -> None:
        if self.rule not in CLIP_RULES:
            raise UserError(f"clip rule is {self.rule!r}, expected one of {', '.join(CLIP_RULES)}")
        if min(self.clips, self.crops) < 1:
            raise UserError(
                f"{counted(self.clips, 'clip')} and {counted(self.crops, 'crop')} make no view: expected at "
                f"least 1 of each"
            )


@dataclass(frozen=True)
class Region:
    """The part of the displayed frame that a crop shows: its edges in displayed pixels."""

    top: float
    left: float
    height: float
    width: float

    def place(self, row: float, column: float, grid: int, size: int) -> tuple[float, float]:
        """(x, y) of a grid place in displayed pixels, (0, 0) the middle of the first.

        Grid line j lies on pixel j (size - 1) / (grid - 1) of the input, whose pixels share the region evenly.
        """
        x, y = ((each * (size - 1) / (grid - 1) + 0.5) / size for each in (column, row))
        return self.left + x * self.width - 0.5, self.top + y * self.height - 0.5

    def in_input(self, x: float, y: float, size: int) -> tuple[float, float]:
        """(x, y) in pixels of the network's input of a place in displayed pixels."""
        across, down = (x + 0.5 - self.left) / self.width, (y + 0.5 - self.top) / self.height
        return across * size - 0.5, down * size - 0.5


@dataclass(frozen=True)
class DecodedViews:
    """A video decoded once, for all its test clips and their crops."""

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

    def region(self, crop: int) -> Region:
        """Where a crop lies in the displayed frame."""
        height, width = self.video.frames.shape[2:]
        down, across = self.video.info.height / height, self.video.info.width / width
        top, left = self.offsets[crop]
        return Region(top * down, left * across, self.side * down, self.side * across)

    def _crop(self, frames: Tensor, corner: tuple[int, int]) -> Tensor:
        top, left = corner
        return frames[:, :, top : top + self.side, left : left + self.side]


def decode_views(
    path: str | Path,
    preprocess: Preprocess,
    views: Views,
    guard: Guard | None = None,
    most: int | None = None,
    around: Sequence[int] | None = None,
) -> DecodedViews:
    """Decode a video once for all its views.

    The guard decodes in bounded time and memory; without one it happens in this process and thread. A file of more than
    ``most`` frames is refused. In place of the clips of ``views`` there is one ``around`` each of these frames, which
    are numbers in the file; one that the model's frame rate leaves out has none.

    Raises:
        DecodeError: as :func:`peakzoom.video.decode.decode`, and as :meth:`peakzoom.video.guard.Guard.run`.
    """
    if guard is None:
        return views_of(scan(path, HOLD_BYTES, most), preprocess, views, around=around)
    scanned = guard.run(path, hold, path, most)
    try:
        return views_of(scanned, preprocess, views, partial(frames_by, guard, last=True), around)
    except DecodeError:
        if guard.pid is not None:
            with suppress(DecodeError):
                guard.run(path, drop, rest=True)
        raise


def frames_by(
    guard: Guard, scanned: Scan, wanted: np.ndarray | None, size: tuple[int, int], last: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """:func:`peakzoom.video.decode.frames_of` a file that a guard has decoded (:mod:`peakzoom.video.holding`).

    The first :data:`FEW` files of a process are resized here, so that it needs no PyTorch for them; the files after
    those in the process, so that less goes through the pipe. With ``last`` the process lets the frames go, and has as
    much time as decoding has left.
    """
    work = held_frames if guard.files <= FEW else displayed_chunks
    for chunk in guard.stream(scanned.info.path, work, scanned, wanted, size, last, rest=last):
        for number, frame in chunk:
            yield number, displayed(frame)


def views_of(
    scanned: Scan,
    preprocess: Preprocess,
    views: Views,
    frames: Frames = frames_of,
    around: Sequence[int] | None = None,
) -> DecodedViews:
    """The views of a file that is scanned already, of what ``frames`` reads of it; see :func:`decode_views`."""
    with reason_of(scanned.info.path):
        base = frames_at(scanned.info.path, scanned.timestamps, preprocess.fps_for(scanned.info.fps))
        if around is None:
            chosen = CLIP_RULES[views.rule](len(base), preprocess.frames, preprocess.stride, views.clips)
        else:
            wanted = [int(at[0]) for number in around if len(at := np.flatnonzero(base == number))]
            chosen = clips_around(np.array(wanted), len(base), preprocess.frames, preprocess.stride)
        clips = base[chosen]
        video = convert(scanned, clips, preprocess.test_size, frames)
        side = preprocess.source_size
        offsets = crop_offsets(video.frames.shape[2], video.frames.shape[3], side, views.crops)
        return DecodedViews(video, clips, offsets, side)


def most_bytes(preprocess: Preprocess, views: Views) -> int:
    """Bytes of the frames that the views of a video of 16 : 9 are cut from, where no two clips share a frame."""
    height, width = preprocess.test_size(9, 16)
    return 3 * height * width * preprocess.frames * views.clips


def decode_ahead(
    files: Sequence[Given],
    preprocess: Preprocess,
    views: Views,
    workers: int = 1,
    ahead: int = 2,
    decode: Callable[[Guard | None, Given], DecodedViews] | None = None,
) -> Iterator[DecodedViews | DecodeError]:
    """Decode videos while the network works, in order; up to ``ahead`` of them wait in memory.

    Files are paths, or whatever ``decode`` (:func:`decode_views` when not given) knows a file by. So many ``workers``
    decode, see :mod:`peakzoom.video.guard`; 0 decodes in this process, for debugging: a file that hangs or crashes the
    decoder hangs or crashes everything then. Where a video's frames are large fewer wait, down to none:
    :data:`WAITING_BYTES`.
    """
    ahead = min(ahead, WAITING_BYTES // most_bytes(preprocess, views))

    def work(guard: Guard | None, file: Given) -> DecodedViews:
        return decode(guard, file) if decode else decode_views(cast(Path, file), preprocess, views, guard)

    def here(file: Given) -> DecodedViews | DecodeError:
        try:
            return work(None, file)
        except DecodeError as error:
            return error

    decoded = in_order(work, files, workers, ahead) if workers > 0 else map(here, files)
    for count, video in enumerate(decoded, start=1):
        yield video
        if count % RETURN_EVERY == 0:
            return_freed_memory()
