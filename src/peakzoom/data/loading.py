"""Batches of clips for training and validation.

Every draw of a training clip comes from a generator seeded by (seed, epoch, video), carried by the key that the
sampler hands out. So a clip does not depend on the number of workers, on which worker made it, or on how often the
training was stopped and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from peakzoom.data.cache import CachedVideo, read_cached
from peakzoom.data.entries import Entry, Problem
from peakzoom.data.workers import begin_worker
from peakzoom.utils.errors import DecodeError
from peakzoom.video.clips import even_clips, random_clip
from peakzoom.video.decode import convert
from peakzoom.video.guard import guarded
from peakzoom.video.scan import HOLD_BYTES, scan
from peakzoom.video.views import Augment, Change, Preprocess, centre_view, changed, draw_change, frames_at


class Sample(NamedTuple):
    """One clip, its class, its video, and what was wrong with the file where it was decoded for this clip."""

    view: Tensor  # uint8 (T, 3, s, s); whole frames, (T, 3, h, w), where there is a change to be made
    label: Tensor  # int64 (); float32 (S,), 1 for each, where a video may have several labels
    video: str = ""
    change: Change | None = None
    problem: Problem | None = None


class Batch(NamedTuple):
    """Clips and their classes. Plain data: Lightning looks into every batch and takes no frozen dataclass."""

    views: Tensor  # uint8 (B, T, 3, s, s); whole frames, (B, T, 3, h, w), where there are changes to be made
    labels: Tensor  # int64 (B,); float32 (B, S) where a video may have several labels
    problems: list[tuple[str, str]]  # (path, reason) of broken videos
    changes: list[Change] | None = None
    videos: Sequence[str] = ()  # paths

    def to(self, device: torch.device, side: int) -> Batch:
        """On a device, with the changes made there; ``side`` is s, in pixels."""
        views = self.views.to(device, non_blocking=True)
        if self.changes:
            clips = zip(views, self.changes, strict=True)
            views = torch.stack([changed(frames, change, side) for frames, change in clips])
        labels = self.labels.to(device, non_blocking=True)
        return Batch(views, labels, self.problems, videos=self.videos)


def seed_of(*key: int) -> int:
    """A generator's seed from several numbers; their sum would make neighbours share streams, a mixture does not."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def used_but(path: Path, problem: str) -> Problem:
    """The problem of a video that is trained on although something is wrong with it, or had to be chosen."""
    return Problem(str(path), f"used, but: {problem}")


@dataclass
class ViewMaker:
    """How a clip is chosen and made into a view.

    Attributes:
        preprocess: the size of the clips.
        augment: what may change in a training clip, which is random; None gives evenly spread clips, centre crop.
        seed: of every draw.
        clips: of a video, without ``augment``.
        canvas: (height, width) of decoded frames, cached or not; ``preprocess.stored_canvas`` when not given.
        defer: give whole frames and the drawn change, which :meth:`Batch.to` makes on its device.
        classes: S, where a video may have several labels; None: it has one.
    """

    preprocess: Preprocess
    augment: Augment | None = None
    seed: int = 0
    clips: int = 1
    canvas: tuple[int, int] | None = None
    defer: bool = False
    classes: int | None = None

    @property
    def clip_bytes(self) -> int:
        """Of a clip as it comes out of a loader."""
        pre = self.preprocess
        height, width = (self.canvas or pre.stored_canvas) if self.defer else (pre.source_size,) * 2
        return 3 * pre.frames * height * width

    def from_cache(self, entry: Entry, cached: CachedVideo, key: int) -> Sample:
        """A clip of stored frames; DecodeError if they cannot be read."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, key))
        try:
            stored = read_cached(cached)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DecodeError(entry.path, f"its frames in the cache cannot be read: {reason}") from error
        frames = torch.from_numpy(stored[self._choose(len(stored), key, generator)]).permute(0, 3, 1, 2)
        return self._sample(entry, frames, generator)

    def from_file(self, entry: Entry, key: int) -> Sample:
        """The same clip, decoded. Errors as :func:`~peakzoom.video.decode.decode`."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, key))
        scanned = scan(entry.path, HOLD_BYTES)
        base = frames_at(entry.path, scanned.timestamps, self.preprocess.fps)
        wanted = base[self._choose(len(base), key, generator)]
        video = convert(scanned, wanted, self.canvas or self.preprocess.stored_canvas)
        sample = self._sample(entry, video.take(wanted), generator)
        problem = video.info.problem
        return sample._replace(problem=used_but(entry.path, problem)) if problem else sample

    def _choose(self, count: int, key: int, generator: torch.Generator) -> np.ndarray:
        """The clip's frames of ``count``, int64 (T,)."""
        pre = self.preprocess
        if self.augment:
            return random_clip(count, pre.frames, pre.stride, generator)
        return even_clips(count, pre.frames, pre.stride, self.clips)[key % self.clips]

    def _sample(self, entry: Entry, frames: Tensor, generator: torch.Generator) -> Sample:
        pre = self.preprocess
        if not self.augment:
            return self.sample(entry, centre_view(frames, pre))
        change = draw_change(frames.shape[2], frames.shape[3], pre, self.augment, generator)
        if self.defer:
            return self.sample(entry, frames)._replace(change=change)
        return self.sample(entry, changed(frames, change, pre.source_size))

    def sample(self, entry: Entry, view: Tensor) -> Sample:
        """A view with what its video is labelled as."""
        if self.classes is None:
            return Sample(view, torch.tensor(entry.label), str(entry.path))
        label = torch.zeros(self.classes)
        label[list(entry.labels)] = 1.0
        return Sample(view, label, str(entry.path))


class ClipDataset(Dataset[Sample | Problem]):
    """Clips of labelled videos, by key: ``epoch * videos + video`` for random clips, else ``video * clips + clip``.

    Videos without ``cached`` frames are decoded when a clip of them is needed.
    """

    def __init__(
        self, entries: Sequence[Entry], maker: ViewMaker, cached: Mapping[Path, CachedVideo] | None = None
    ) -> None:
        self.entries, self.maker, self.cached = list(entries), maker, dict(cached or {})

    def __len__(self) -> int:
        return len(self.entries) * (1 if self.maker.augment else self.maker.clips)

    def __getitem__(self, key: int) -> Sample | Problem:
        maker = self.maker
        entry = self.entries[key % len(self.entries) if maker.augment else key // maker.clips]
        try:
            lost = None
            if entry.path in self.cached:
                try:
                    return maker.from_cache(entry, self.cached[entry.path], key)
                except DecodeError as error:  # since it was filled: the clip is decoded, and is the same
                    lost = Problem(str(entry.path), f"decoded anew: {error.reason}")
            # In a process that a bad file cannot take the loader with.
            sample = guarded(entry.path, maker.from_file, entry, key)
            return sample if lost is None else sample._replace(problem=lost)
        except DecodeError as error:
            return Problem(str(error.path), error.reason)


class EpochSampler(Sampler[int]):
    """Every video once an epoch, in an order of its own; keys for :class:`ClipDataset`.

    The order is the same in each of ``world`` processes, and :class:`SharedBatches` deals it out. They get equally many
    clips: where the videos cannot be shared out so, the first ones of the order come once more at its end.
    """

    def __init__(self, videos: int, seed: int = 0, world: int = 1) -> None:
        self.videos, self.seed, self.world = videos, seed, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.videos // self.world) * self.world

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.videos)
        return iter((self.epoch * self.videos + np.resize(order, len(self))).tolist())


class TurnsSampler(EpochSampler):
    """A batch of one set of videos, a batch of another, and so on; each set in an order of its own every epoch.

    An epoch has as many batches of each as the larger set needs. Keys are those of :class:`ClipDataset`.

    Args:
        sets: numbers of videos, of which none is in both.
        batch_size: clips in a batch.
        videos: how many there are in all.
        seed: of the orders.
    """

    def __init__(
        self, sets: tuple[Sequence[int], Sequence[int]], batch_size: int, videos: int, seed: int
    ) -> None:
        super().__init__(videos, seed)
        self.sets, self.batch_size = sets, batch_size

    def __len__(self) -> int:
        return 2 * self.batch_size * math.ceil(max(map(len, self.sets)) / self.batch_size)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        orders = [np.resize(draw.permutation(each), len(self) // 2) for each in self.sets]
        turns = np.stack([each.reshape(-1, self.batch_size) for each in orders], axis=1)
        return iter((self.epoch * self.videos + turns.ravel()).tolist())


class SharedBatches(Sampler[list[int]]):
    """A process's part of every batch: neighbours in it, as many as the others' or one less, and at times none.

    All processes have equally many parts, and put together they are the batches of one process, in its order. The
    sampler of all keys is the same in every process; Lightning finds it here for ``set_epoch``.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.sampler, self.batch_size, self.rank, self.world = sampler, batch_size, rank, world

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        for batch in BatchSampler(self.sampler, self.batch_size, drop_last=False):
            yield np.array_split(np.array(batch, np.int64), self.world)[self.rank].tolist()


def collate(samples: Sequence[Sample | Problem]) -> Batch:
    """Stack what could be made; what could not is passed on, never replaced."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    noted = [sample.problem if isinstance(sample, Sample) else sample for sample in samples]
    problems = [(each.path, each.reason) for each in noted if each]
    views = torch.stack([sample.view for sample in good]) if good else torch.empty(0, dtype=torch.uint8)
    changes = [sample.change for sample in good if sample.change]
    labels = torch.stack([sample.label for sample in good]) if good else torch.empty(0, dtype=torch.int64)
    return Batch(views, labels, problems, changes or None, [sample.video for sample in good])


def loader(
    dataset: Dataset[Sample | Problem],
    batch_size: int,
    workers: int,
    sampler: Sampler[int] | None = None,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Sample | Problem]:
    """A loader of :class:`Batch`; without a sampler it goes through the keys in order.

    On several processes each loads its part of a batch, see :class:`SharedBatches`.
    """
    keys = SequentialSampler(dataset) if sampler is None else sampler  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_sampler=SharedBatches(keys, batch_size, rank, world),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=begin_worker,
    )
