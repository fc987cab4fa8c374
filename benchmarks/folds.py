"""Real clips, cross-validated: every group, or every two of many, is tested by a T-CNN trained on the others.

Trained as recipe ``small`` trains stage 1 (docs/runs.md), frames and augmentation included, from scratch or from a file
of weights without its classifier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from held import PRE, Clips, draw, middle
from measuring import answers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from trainings import OfVariant, trained
from variants import RECIPE, Variant, network, parse

from peakzoom.data.entries import ordered
from peakzoom.training.recipes import small
from peakzoom.video.clips import even_clips

BATCH = RECIPE.batch_size
TEST_CLIPS = 4  # of a video
TOGETHER = 5  # trainings at a time


@dataclass(frozen=True)
class Folds:
    """All folds of a variant and a seed.

    Attributes:
        name: of the variant.
        real: of the clips.
        seed: of all draws and of the weights.
        epochs: of a fold.
        least: steps of a fold, however few that many epochs are.
        start: what the weights are that it begins with; empty: none.
        weights: their file.
        start_clips: how many rendered clips they were trained on, where they are another job's.
        together: trainings at a time.
    """

    name: str
    real: str
    seed: int
    epochs: int
    least: int = small().tcnn.min_steps
    start: str = ""
    weights: str = ""
    start_clips: int = 0
    together: int = TOGETHER

    @property
    def steps(self) -> int:
        """About as many as all its folds take."""
        return 10 * max(self.least, self.epochs * 100 // BATCH)


def begin_with(net: Any, file: Path) -> None:
    """Load everything but the classifier, from a network's state or from a peakzoom run's model file."""
    if file.suffix == ".safetensors":
        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    if any(name.startswith("backbone.") for name in state):
        state = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    missing, unknown = net.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("fc.") and "num_batches" not in name]
    if missing or unknown:
        raise ValueError(f"{file} does not fit: it lacks {missing[:3]}, and has {unknown[:3]}")


def stride_of(clips: Clips) -> int:
    """As the recipe chooses it, so that a clip spans its share of the median video."""
    span = small().reach * float(torch.tensor(clips.lengths, dtype=torch.float).median())
    return max(1, round((span - 1) / (PRE.frames - 1)))


def groups_apart(groups: Iterable[str]) -> list[set[str]]:
    """The groups that each fold tests: one each, or two of many."""
    names = ordered(set(groups))
    apart = len(names) if len(names) <= 12 else len(names) // 2
    return [set(names[fold::apart]) for fold in range(apart)]


def folds_of(clips: Clips) -> list[list[int]]:
    """The clips that each fold tests."""
    outs = groups_apart({row["group"] for row in clips.rows})
    return [[n for n, row in enumerate(clips.rows) if row["group"] in out] for out in outs]


@torch.no_grad()
def chances(training: OfVariant, clips: Clips, numbers: list[int], stride: int) -> Tensor:
    """Probabilities of each class, (clips, S), means over the test clips of each video."""
    views = []
    for number in numbers:
        at = torch.from_numpy(even_clips(clips.lengths[number], PRE.frames, stride, TEST_CLIPS))
        views += [middle(clips.frames[number][one]) for one in at.to(clips.frames.device)]
    logits = answers(training.net.eval(), training.variant, torch.stack(views))[0]
    return logits.softmax(1).unflatten(0, (len(numbers), -1)).mean(1)


def cross_validated(
    job: Folds, clips: Clips, mode: str, make: Callable[[int], Any] | None = None
) -> tuple[dict[str, Any], int]:
    """Train and test all folds: a row, with what was answered to each clip, and how many steps that took.

    Args:
        job: what is trained.
        clips: real ones.
        mode: of a step.
        make: the network for a number of classes, trained as today's, in place of that of the variant's name.
    """
    began, recipe, stride = time.monotonic(), small(), stride_of(clips)
    variant = replace(Variant() if make else parse(job.name), dropout=recipe.dropout)
    tested, classes, device = folds_of(clips), int(clips.labels.max()) + 1, clips.frames.device
    torch.manual_seed(job.seed)
    every, steps = torch.zeros((len(clips.rows), classes), device=device), 0
    for first in range(0, len(tested), job.together):
        trainings = []
        for fold in range(first, min(first + job.together, len(tested))):
            inside = sorted(set(range(len(clips.rows))) - set(tested[fold]))
            net = make(classes) if make else network(variant, classes)
            if job.weights:
                begin_with(net, Path(job.weights))
            length = max(job.least, job.epochs * len(inside) // BATCH)
            draws = draw(clips, inside, length, BATCH, stride, recipe.augment, job.seed * 100 + fold)
            trainings.append(OfVariant(net.to(device), variant, clips, draws, mode))
            steps += length
        trained(trainings)
        for training, numbers in zip(trainings, tested[first:], strict=False):
            training.release()
            every[numbers] = chances(training, clips, numbers, stride)
    row = {
        "variant": job.name, "real": job.real, "start": job.start, "start clips": job.start_clips, "seed": job.seed,
        "epochs": job.epochs, "mode": mode, "stride": stride, "clips": len(clips.rows), "steps": steps,
        "right": int((every.argmax(1) == clips.labels).sum()),
        "accuracy": 100 * float((every.argmax(1) == clips.labels).float().mean()),
        "nats": float(F.nll_loss(every.clamp(min=1e-9).log(), clips.labels)),
        "seconds": time.monotonic() - began,
        "outcomes": {
            "group": [row["group"] for row in clips.rows],
            "label": clips.labels.tolist(),
            "chances": [[round(value, 5) for value in each] for each in every.tolist()],
        },
    }  # fmt: skip
    return row, steps
