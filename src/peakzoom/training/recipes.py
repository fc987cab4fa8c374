"""Training recipes: plain data, one function each.

``paper`` is Sec. 3.1 as printed. ``small`` is for small data from scratch on a small machine; docs/results.md has what
came out with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from peakzoom.model import BACKBONES
from peakzoom.model.config import ATTENTION_PER, BRANCHES, RESPONSES
from peakzoom.utils.errors import UserError, did_you_mean
from peakzoom.video.views import Augment, Preprocess

OPTIMIZERS = ("sgd", "adamw")  # SGD has momentum 0.9


@dataclass(frozen=True)
class StageSettings:
    """The settings of one of the two stages of a training.

    Attributes:
        epochs: passes over the training videos.
        min_steps: optimiser steps at least; small sets get more epochs to reach it.
        optimizer: "sgd" (momentum 0.9) or "adamw".
        lr, final_lr: the learning rate falls from one to the other along a cosine.
        warmup: share of the steps in which it first rises linearly from zero.
        weight_decay: on all weights for SGD (paper); not on biases, batch norms and betas for AdamW.
        label_smoothing: of the cross-entropies.
        clip_gradient: largest norm; None = as it comes.
    """

    epochs: int
    optimizer: str
    lr: float
    final_lr: float
    warmup: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    clip_gradient: float | None = None
    min_steps: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that a training needs beside the data.

    Attributes:
        model: name in ``peakzoom.model.BACKBONES``.
        stride: frame stride; None chooses it so that a clip spans ``reach`` of the median training video.
        width: factor on its channels.
        max_stride: feature cells of the network lie at most so many pixels apart.
        branches: of stage 2; the original alone is the T-CNN trained on as long (paper, Table 4).
        tcnn, joint: stage 1 and stage 2.
        class_balance: exponent b of the loss weights (N / (S n_c))^b; 0 = every video counts the same.
        attention_per, response, erase: see :class:`~peakzoom.model.PeakZoom`.
        quiet: weight of the loss that asks cells which do not speak for a clip's class to prefer none, in networks
            that choose among their cells (:func:`~peakzoom.model.pooling.quiet_loss`).
        same_rate: bring videos to their median rate when their rates differ.
    """

    name: str
    model: str
    tcnn: StageSettings
    joint: StageSettings
    preprocess: Preprocess = field(default_factory=Preprocess)
    augment: Augment = field(default_factory=Augment)
    batch_size: int = 16
    width: float = 1.0
    max_stride: int = 32
    branches: tuple[str, ...] = BRANCHES
    dropout: float = 0.5
    stride: int | None = 1
    reach: float = 1.0
    class_balance: float = 0.0
    attention_per: str = "frame"
    response: str = "gate"
    erase: float = 0.0
    quiet: float = 0.0
    same_rate: bool = False

    def recorded(self) -> dict[str, Any]:
        """As plain data, for a run to be compared with; runs that began before there was ``quiet`` do not have it."""
        values = asdict(self)
        if not self.quiet:
            del values["quiet"]
        return values


def check_recipe(recipe: Recipe) -> None:
    """Refuse what no network can be built from and no training can run with.

    Raises:
        UserError: a word that is unknown, a number out of its range.
    """
    _one_of("model", recipe.model, BACKBONES)
    _one_of("attention_per", recipe.attention_per, ATTENTION_PER)
    _one_of("response", recipe.response, RESPONSES)
    for branch in recipe.branches:
        _one_of("branches", branch, BRANCHES)
    _expect(len(recipe.branches) > 0, "branches", "empty", f"some of {', '.join(BRANCHES)}")
    once = len(set(recipe.branches)) == len(recipe.branches)
    _expect(once, "branches", ", ".join(recipe.branches), "each branch once")
    _expect(0 <= recipe.erase < 1, "erase", recipe.erase, "from 0 to less than 1, a share of the frame")
    _expect(0 <= recipe.quiet < math.inf, "quiet", recipe.quiet, "0 or more")
    _expect(0 <= recipe.dropout < 1, "dropout", recipe.dropout, "from 0 to less than 1")
    _expect(recipe.batch_size >= 1, "batch_size", recipe.batch_size, "1 or more")
    _expect(recipe.max_stride >= 1, "max_stride", recipe.max_stride, "1 or more")
    _expect(recipe.stride is None or recipe.stride >= 1, "stride", recipe.stride, "1 or more, or none")
    _expect(0 < recipe.width < math.inf, "width", recipe.width, "more than 0")
    _expect(0 < recipe.reach < math.inf, "reach", recipe.reach, "more than 0")
    balance = recipe.class_balance
    _expect(0 <= balance < math.inf, "class_balance", balance, "0 or more")
    pre = recipe.preprocess
    _expect(pre.size >= 32, "preprocess.size", pre.size, "32 pixels or more")
    _expect(pre.fps is None or 0 < pre.fps < math.inf, "preprocess.fps", pre.fps, "more than 0, or none")
    in_range = all(0 <= value <= 1 for value in pre.mean)
    _expect(in_range, "preprocess.mean", pre.mean, "from 0 to 1, as pixels are")
    in_range = all(0 < value <= 1 for value in pre.std)
    _expect(in_range, "preprocess.std", pre.std, "above 0 up to 1, as pixels go from 0 to 1")
    _check_augment(recipe.augment)
    for name, settings in (("tcnn", recipe.tcnn), ("joint", recipe.joint)):
        _check_stage(name, settings)


def _check_augment(augment: Augment) -> None:
    area, (narrow, wide) = augment.area, augment.aspect
    holds = area is None or 0 < area[0] <= area[1] <= 1
    _expect(holds, "augment.area", area, "two rising shares of the canvas, above 0 up to 1, or none")
    holds = 0 < narrow <= wide < math.inf
    _expect(holds, "augment.aspect", augment.aspect, "two rising numbers, more than 0")
    for name, value in (("brightness", augment.brightness), ("contrast", augment.contrast)):
        _expect(0 <= value <= 1, f"augment.{name}", value, "from 0 to 1, a relative change")


def _check_stage(name: str, settings: StageSettings) -> None:
    _one_of(f"{name}.optimizer", settings.optimizer, OPTIMIZERS)
    _expect(settings.epochs >= 1, f"{name}.epochs", settings.epochs, "1 or more")
    _expect(settings.min_steps >= 0, f"{name}.min_steps", settings.min_steps, "0 or more")
    _expect(0 < settings.lr < math.inf, f"the learning rate {name}.lr", settings.lr, "more than 0")
    for key, value in (("final_lr", settings.final_lr), ("weight_decay", settings.weight_decay)):
        _expect(0 <= value < math.inf, f"{name}.{key}", value, "0 or more")
    expected = "from 0 to less than 1, a share of the steps"
    _expect(0 <= settings.warmup < 1, f"{name}.warmup", settings.warmup, expected)
    smoothing, norm = settings.label_smoothing, settings.clip_gradient
    _expect(0 <= smoothing < 1, f"{name}.label_smoothing", smoothing, "from 0 to less than 1")
    _expect(norm is None or 0 < norm < math.inf, f"{name}.clip_gradient", norm, "more than 0, or none")


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UserError(
            f"{name} is {value!r}, expected one of {', '.join(known)}{did_you_mean(value, known)}"
        )


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}, expected {expected}")


def paper() -> Recipe:
    """Sec. 3.1: SGD, momentum 0.9, weight decay 4e-5, cosine from 0.1 to 1e-4 over 150 epochs, batch 16."""
    settings = StageSettings(epochs=150, optimizer="sgd", lr=0.1, final_lr=1e-4, weight_decay=4e-5)
    return Recipe(name="paper", model="tcnn", tcnn=settings, joint=settings)


def small() -> Recipe:
    """Some ten to some thousand videos, from scratch, on a CPU or a small GPU."""
    return Recipe(
        name="small",
        model="tcnn_xs",
        tcnn=StageSettings(
            50, "adamw", 2e-3, 1e-5, warmup=0.1, weight_decay=0.05, label_smoothing=0.1, min_steps=300
        ),
        joint=StageSettings(
            25, "adamw", 1e-3, 1e-5, warmup=0.1, weight_decay=0.05, label_smoothing=0.1, min_steps=150
        ),
        preprocess=Preprocess(size=96, canvas=(108, 108), test_canvas=True, zoom_source=2),
        augment=Augment(area=(0.6, 1.0), aspect=(0.8, 1.25), brightness=0.3, contrast=0.3),
        dropout=0.3,
        max_stride=16,
        stride=None,
        reach=0.8,
        class_balance=0.5,
        attention_per="clip",
        response="evidence",
        erase=0.15,
        same_rate=True,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"paper": paper, "small": small}
