"""A network that keeps its weights below its classifiers: what it makes of each view is computed once (``--freeze``).

Features of some random views of every training video, and of the views of every validation video, are kept in the run
until it is done; the classifiers are then trained on them in seconds. Betas are no classifiers: where videos are
zoomed, their gradient comes through the network, which is run for every clip as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from peakzoom.data.entries import Entry, Problem
from peakzoom.data.loading import Batch, ClipDataset, Sample, collate
from peakzoom.data.workers import begin_worker
from peakzoom.model import PeakZoom
from peakzoom.model.load import tensors_digest
from peakzoom.model.network import PeakZoomOutput
from peakzoom.training.distributed import Slice
from peakzoom.training.module import Training
from peakzoom.utils.durable import whole_folder
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.views import to_input

NETWORK = "network.txt"  # beside features: the digest of what they were computed by


def freeze(model: PeakZoom) -> None:
    """Train the classifiers and the betas of a model alone."""
    classifier = {id(value) for value in model.backbone.fc.parameters()}
    for value in model.backbone.parameters():
        if id(value) not in classifier:
            value.requires_grad_(False)


class FeatureTraining(Training):
    """A stage whose batches hold features, as the model's ``gather`` took them, in place of views."""

    def _run(self, batch: Batch, part: Slice | None = None) -> PeakZoomOutput:
        return self.model.classify({"original": batch.views.to(self.model.backbone.fc.weight.dtype)})


class FeatureSet(Dataset[Sample | Problem]):
    """Features by the keys of the clips that they are of; of random clips those of the first epochs serve all.

    Args:
        folder: that :func:`features_of` has filled.
        clips: the data set that they are of.
    """

    def __init__(self, folder: Path, clips: ClipDataset) -> None:
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        self.known = np.load(folder / "known.npy")
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int) -> Sample | Problem:
        row = key % len(self.features)
        entry = entry_of(self.clips, row)
        if not self.known[row]:
            return Problem(str(entry.path), "could not be decoded when its features were computed")
        return self.clips.maker.sample(entry, torch.from_numpy(self.features[row].copy()))


def entry_of(clips: ClipDataset, key: int) -> Entry:
    """The video of a key."""
    return clips.entries[key % len(clips.entries) if clips.maker.augment else key // clips.maker.clips]


class Numbered(Dataset[tuple[int, Sample | Problem]]):
    """Clips with their keys."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __getitem__(self, key: int) -> tuple[int, Sample | Problem]:
        return key, self.clips[key]


class NumberedBatch(NamedTuple):
    """The keys of those clips of a batch that could be decoded, and the batch."""

    keys: list[int]
    batch: Batch


def _collate(samples: Sequence[tuple[int, Sample | Problem]]) -> NumberedBatch:
    return NumberedBatch(
        [key for key, sample in samples if isinstance(sample, Sample)], collate([each for _, each in samples])
    )


def features_of(
    training: Training, trainer: L.Trainer, clips: ClipDataset, folder: Path, workers: int, begun: bool
) -> FeatureSet:
    """The features of a data set, from ``folder``, or computed and kept there.

    Files that cannot be decoded are noted in the training. Features of another network, as where the file of its
    weights was replaced, are computed anew, but for a stage that has begun to learn from them.

    Raises:
        UserError: the stage has begun, and its network is another one now.
    """
    network, note = _body_digest(training.model), folder / NETWORK
    if not note.exists() or note.read_text() != network:
        if begun and note.exists():
            raise UserError(
                f"the weights that the training in {folder.parent.parent} started from have changed: put back what was "
                "there, or begin anew in another --out"
            )
        count = len(clips.entries) * training.recipe.frozen_views if clips.maker.augment else len(clips)
        with whole_folder(folder, replace=True) as draft:
            _compute(training, trainer, Numbered(clips), draft, count, workers)
            (draft / NETWORK).write_text(network)
    return FeatureSet(folder, clips)


def _body_digest(model: PeakZoom) -> str:
    """Of the network below its classifier."""
    state = model.backbone.state_dict()
    return tensors_digest({name: value for name, value in state.items() if not name.startswith("fc.")})


@torch.no_grad()
def _compute(
    training: Training, trainer: L.Trainer, clips: Numbered, folder: Path, count: int, workers: int
) -> None:
    model, device = training.model.to(trainer.strategy.root_device), trainer.strategy.root_device
    was_training = model.training
    model.eval()
    batches: Any = DataLoader(
        clips,
        batch_size=training.recipe.batch_size,
        sampler=range(count),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=begin_worker,
    )
    known, features = np.zeros(count, bool), None
    pre = training.recipe.preprocess
    with progress_bar(f"features of {counted(count, 'clip')}", True) as report:
        for done, (keys, batch) in enumerate(batches, 1):
            training.note(batch.problems)
            if keys:
                video, _ = to_input(batch.to(device, pre.source_size).views, pre)
                with trainer.precision_plugin.forward_context():
                    found = model.gather(model.backbone.features(video)).float().cpu().numpy()
                if features is None:
                    features = np.lib.format.open_memmap(
                        folder / "features.npy", "w+", np.float32, (count, *found.shape[1:])
                    )
                features[keys], known[keys] = found, True
            report(min(done * training.recipe.batch_size, count), count)
    model.train(was_training)
    if features is None:
        features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (count, 1))
    features.flush()
    np.save(folder / "known.npy", known)
