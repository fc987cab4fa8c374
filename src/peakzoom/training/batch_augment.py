"""Random changes of the clips of a batch, where the network is; the operations are kornia's, which is an extra.

RandAugment (Cubuk et al. 2020), random erasing (Zhong et al. 2020), mixup (Zhang et al. 2018) and cutmix (Yun et al.
2019). All frames of a clip are changed alike; operations that look at each frame by itself, as equalising its
histogram, are left out, for a clip would flicker. Draws are those of PyTorch's generator, which a training seeds for
every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peakzoom.training.recipes import BatchAugment, Recipe
from peakzoom.utils.extras import needed_for

STRONGEST = 30  # magnitude at which an operation does the most that it can


@dataclass(frozen=True)
class Mixed:
    """Clips after their changes.

    Attributes:
        views: uint8 (B, T, 3, s, s).
        labels: the labels of which there is more, as they came.
        others: those of what was mixed in; None where nothing was.
        share: of what was mixed in, at most a half, the same in all clips.
    """

    views: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: float = 0.0


class BatchChanges:
    """Makes the random changes of a recipe.

    Raises:
        UserError: some are asked for, and kornia is not installed.
    """

    def __init__(self, wanted: BatchAugment) -> None:
        self.wanted = wanted
        if not self:
            return
        with needed_for("--augment strong"):
            import kornia.augmentation as K
        self.library: Any = K
        each = list(_operations(K, wanted.magnitude / STRONGEST))
        # With no number of operations kornia would apply all of them.
        self.operations = K.VideoSequential(*each, random_apply=wanted.operations or 1)
        self.erase = K.VideoSequential(K.RandomErasing(scale=(0.02, 0.33), p=wanted.erasing))

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        wanted = self.wanted
        return any((wanted.operations, wanted.erasing, wanted.mixup, wanted.cutmix))

    def __call__(self, views: Tensor, labels: Tensor) -> Mixed:
        """Changed clips.

        Args:
            views: uint8 (B, T, 3, s, s), on any device.
            labels: (B,) or (B, S), on the same.
        """
        if not self:
            return Mixed(views, labels)
        video = views.float() / 255
        if self.wanted.operations:  # each clip draws operations of its own
            video = torch.cat([self.operations(clip) for clip in video.split(1)])
        if self.wanted.erasing:
            video = self.erase(video)
        mixed, others, share = self._mix(video, labels)
        if share > 0.5 and others is not None:
            labels, others, share = others, labels, 1 - share
        return Mixed((mixed * 255).round_().clamp_(0, 255).to(torch.uint8), labels, others, share)

    def _mix(self, video: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Mixed clips, the labels of what was mixed in, and its share."""
        kinds = [name for name in ("mixup", "cutmix") if getattr(self.wanted, name)]
        if not kinds or len(video) < 2:
            return video, None, 0.0
        kind = kinds[int(torch.randint(len(kinds), ()))]
        spread = getattr(self.wanted, kind)
        how: dict[str, Any] = {"same_on_batch": True, "data_keys": ["input", "class"]}
        if kind == "mixup":
            share = float(torch.distributions.Beta(spread, spread).sample())
            change = self.library.RandomMixUpV2(torch.tensor([share, share]), **how)
        else:
            change = self.library.RandomCutMixV2(beta=spread, use_correct_lambda=True, **how)
        # The frames of a clip are channels of one image; which clip was mixed in is told by its number.
        mixed, found = change(video.flatten(1, 2), torch.arange(len(labels), device=labels.device))
        others, lambdas = found.reshape(len(labels), 3)[:, 1:].unbind(1)
        share = float(lambdas[0]) if kind == "mixup" else 1 - float(lambdas[0])
        return mixed.view_as(video), labels[others.long()], share


def _operations(library: Any, strength: float) -> Iterator[Any]:
    """What one of is drawn from, at a strength in (0, 1); ranges are those of kornia's RandAugment."""
    around = (1 - 0.9 * strength, 1 + 0.9 * strength)
    yield library.RandomBrightness(around, p=1.0)
    yield library.RandomContrast(around, p=1.0)
    yield library.RandomSaturation(around, p=1.0)
    yield library.RandomSharpness(0.9 * strength, p=1.0)
    yield library.RandomPosterize(8 - 4 * strength, p=1.0)
    yield library.RandomSolarize(thresholds=(1 - strength, 1.0), additions=(0.0, 0.0), p=1.0)
    yield library.RandomRotation(30 * strength, p=1.0)
    yield library.RandomAffine(0.0, shear=(-17 * strength, 17 * strength, 0, 0), p=1.0)
    yield library.RandomAffine(0.0, shear=(0, 0, -17 * strength, 17 * strength), p=1.0)
    yield library.RandomAffine(0.0, translate=(0.1 * strength, 0.1 * strength), p=1.0)


def told_changes(recipe: Recipe) -> str:
    """The random changes of a training clip, as a line to show."""
    augment, batch = recipe.augment, recipe.batch_augment
    parts = ["crops of the input's size"]
    if augment.area:
        parts = [f"crops of {augment.area[0]:.0%} to {augment.area[1]:.0%} of the frame"]
    parts += ["mirrored half of the time"] * augment.flip
    named = {"brightness": augment.brightness, "contrast": augment.contrast}
    parts += [f"{name} up to {value:.0%}" for name, value in named.items() if value]
    if batch.operations:
        parts.append(f"{batch.operations} operations of RandAugment at magnitude {batch.magnitude}")
    if batch.erasing:
        parts.append(f"a box erased in {batch.erasing:.0%}")
    mixes = {"mixup": batch.mixup, "cutmix": batch.cutmix}
    if mixing := [f"{name} ({value:g})" for name, value in mixes.items() if value]:
        parts.append(" or ".join(mixing))
    return f"random changes of a clip: {', '.join(parts)}"
