"""Training recipes: plain data, one function each.

``paper`` is Sec. 3.1 as printed. ``small`` is for small data on a small machine, ``spatial`` the same with the three
branches; docs/results.md has what came out with them. ``quickstart`` is what ``peakzoom quickstart`` trains with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from peakzoom.model import BACKBONES
from peakzoom.model.backbones import ARCHITECTURE, is_own
from peakzoom.model.backbones.architecture import parse_architecture
from peakzoom.model.config import ATTENTION_PER, BRANCHES, RESPONSES
from peakzoom.model.schema import check_preprocess
from peakzoom.utils.errors import UserError, did_you_mean
from peakzoom.video.views import Augment, Preprocess

FROZEN_VIEWS = 4  # of each video, whose features --freeze computes
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
        frozen_norms: batch norms keep the statistics that they begin with. In stage 2 they would otherwise mix those of
            the original and of the zoomed videos, which differ, and fit neither in a test.
        layer_decay: each block of the network learns at this multiple of the learning rate of the block after it
            (:func:`peakzoom.training.optimizer.blocks`); 1: all alike.
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
    frozen_norms: bool = False
    layer_decay: float = 1.0


@dataclass(frozen=True)
class BatchAugment:
    """Random changes of the clips of a batch after their crops, computed where the network is.

    Attributes:
        operations: of RandAugment on a clip, alike on all its frames; 0: none.
        magnitude: of these operations, from 1 to 29.
        erasing: share of the clips in which a box is blackened, the same in all frames.
        mixup: a of the Beta(a, a) by which two clips are blended; 0: none.
        cutmix: a of the Beta(a, a) that says how large a box of another clip is pasted; 0: none. With both, each batch
            draws one of the two.
    """

    operations: int = 0
    magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything that a training needs beside the data.

    Attributes:
        model: name that :func:`peakzoom.model.backbones.backbone_factory` knows.
        stride: frame stride; None chooses it so that a clip spans ``reach`` of the median training video.
        width: factor on its channels.
        max_stride: feature cells of the network lie at most so many pixels apart.
        branches: of stage 2; the original alone is the T-CNN trained on as long (paper, Table 4).
        tcnn, joint: stage 1 and stage 2.
        class_balance: exponent b of the loss weights (N / (S n_c))^b; 0 = every video counts the same.
        attention_per, response, erase, faintest: see :class:`~peakzoom.model.PeakZoom`.
        quiet: weight of the loss that asks cells which do not speak for a clip's class to prefer none, in networks
            that choose among their cells (:func:`~peakzoom.model.pooling.quiet_loss`).
        same_rate: bring videos to their median rate when their rates differ.
        accumulate: batches whose gradients are added up to one step.
        average: decay of the exponential moving average of the weights that is validated and kept; 0: the weights
            themselves.
        frozen_views: the network below its classifiers keeps the weights that it starts from, and where no video is
            zoomed its features are computed once, of so many random views of each video; 0: it is trained.
        lora: rank of the low-rank matrices that are trained in place of the network's own weights, and added to them
            at the end (Hu et al., 2022); 0: none.
        checkpoint: a transformer computes what is inside its layers once more for the gradient, which takes a third
            more time and far less memory.
        stochastic_depth: how often a transformer's last block is left out of a clip in training, earlier ones less
            often (:mod:`peakzoom.model.backbones.depth`); networks without such blocks are trained as they are.
        distill: weight of the loss by which the original branch learns from the fused prediction.
        architecture: of the model "architecture", its plan as JSON (:mod:`peakzoom.model.backbones.architecture`).
        native_source: ``preprocess.zoom_source`` becomes the factor at which frames are as large as the median training
            video, as far as memory allows (:mod:`peakzoom.training.native`).
    """

    name: str
    model: str
    tcnn: StageSettings
    joint: StageSettings
    preprocess: Preprocess = field(default_factory=Preprocess)
    augment: Augment = field(default_factory=Augment)
    batch_augment: BatchAugment = field(default_factory=BatchAugment)
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
    faintest: float = 1e-3
    quiet: float = 0.0
    same_rate: bool = False
    accumulate: int = 1
    average: float = 0.0
    frozen_views: int = 0
    lora: int = 0
    stochastic_depth: float = 0.0
    distill: float = 0.0
    checkpoint: bool = False
    native_source: bool = False
    architecture: str = ""

    def recorded(self) -> dict[str, Any]:
        """As plain data, for a run to be compared with; runs that began before there was a key do not have it."""
        values = asdict(self)
        for key, default in LEFT_OUT.items():
            stage, _, name = key.rpartition(".")
            part = values[stage] if stage else values
            if part[name] == default:
                del part[name]
        return {key: value for key, value in values.items() if value != {}}


# What is not recorded where it has this value: keys that older runs do not have.
LEFT_OUT: dict[str, Any] = {
    "quiet": 0,
    "faintest": Recipe.faintest,
    "tcnn.frozen_norms": False,
    "joint.frozen_norms": False,
    "preprocess.trained_fps": None,
    "preprocess.short_side": None,
    "tcnn.layer_decay": 1.0,
    "joint.layer_decay": 1.0,
    "accumulate": 1,
    "average": 0,
    "frozen_views": 0,
    "lora": 0,
    "stochastic_depth": 0,
    "distill": 0,
    "checkpoint": False,
    "native_source": False,
    "architecture": "",
    **{f"batch_augment.{key}": value for key, value in asdict(BatchAugment()).items()},
}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested tables by key: ``{"joint": {"lr": 1}}`` becomes ``{"joint.lr": 1}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


Range = tuple[str, Callable[[Any], bool]]
MOST = 1_000_000  # of any number: far above what anyone trains with, and products of such numbers stay within float32
COUNT: Range = ("1 or more", lambda value: value >= 1)
POSITIVE: Range = ("more than 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Range = ("0 or more", lambda value: 0 <= value < math.inf)
SHARE: Range = ("from 0 to less than 1", lambda value: 0 <= value < 1)
CHANCE: Range = ("from 0 to 1", lambda value: 0 <= value <= 1)
CHANGE: Range = ("from 0 to 1, a relative change", lambda value: 0 <= value <= 1)
AREA: Range = ("two rising shares above 0 up to 1, or none", lambda area: 0 < area[0] <= area[1] <= 1)
ASPECT: Range = ("two rising numbers, more than 0", lambda aspect: 0 < aspect[0] <= aspect[1] < math.inf)
MEAN: Range = ("from 0 to 1, as pixels are", lambda mean: all(0 <= each <= 1 for each in mean))
STD: Range = ("above 0 up to 1, as pixels are", lambda std: all(0 < each <= 1 for each in std))
# Of values by key, without the name of the stage; a value that is None needs no range.
RANGES: dict[str, Range] = {
    "faintest": ("more than 0 and at most 1, a response", lambda value: 0 < value <= 1),
    **dict.fromkeys(("epochs", "batch_size", "max_stride", "stride", "accumulate"), COUNT),
    **dict.fromkeys(("reach", "lr", "clip_gradient", "preprocess.fps", "preprocess.trained_fps"), POSITIVE),
    **dict.fromkeys(
        ("min_steps", "final_lr", "weight_decay", "class_balance", "quiet", "distill"), NOT_NEGATIVE
    ),
    **dict.fromkeys(("frozen_views", "lora", "batch_augment.mixup", "batch_augment.cutmix"), NOT_NEGATIVE),
    **dict.fromkeys(("warmup", "label_smoothing", "dropout", "erase", "average", "stochastic_depth"), SHARE),
    "batch_augment.operations": ("from 0 to 10", lambda value: 0 <= value <= 10),
    "batch_augment.magnitude": ("from 1 to 29", lambda value: 1 <= value <= 29),
    "batch_augment.erasing": CHANCE,
    "layer_decay": ("more than 0 and at most 1", lambda value: 0 < value <= 1),
    **dict.fromkeys(("augment.brightness", "augment.contrast"), CHANGE),
    **{"augment.area": AREA, "augment.aspect": ASPECT, "preprocess.mean": MEAN, "preprocess.std": STD},
    "preprocess.size": ("32 pixels or more", lambda value: value >= 32),
    "width": ("more than 0 and at most 64", lambda value: 0 < value <= 64),
}
WORDS: dict[str, Collection[str]] = {
    "model": BACKBONES,
    "attention_per": ATTENTION_PER,
    "response": RESPONSES,
    "optimizer": OPTIMIZERS,
}


def check_recipe(recipe: Recipe) -> None:
    """Refuse what no network can be built from and no training can run with.

    Raises:
        UserError: a word that is unknown, a number out of its range.
    """
    for key, value in flat(asdict(recipe)).items():
        name = key.removeprefix("tcnn.").removeprefix("joint.")
        if name == "model" and (is_own(value) or value == ARCHITECTURE):  # asked where it is made, and below
            continue
        if name in WORDS:
            expect_word(key, value, WORDS[name])
        elif name in RANGES and value is not None:
            expected, holds = RANGES[name]
            expect(holds(value), key, value, expected)
        if isinstance(value, int | float):
            expect(value <= MOST, key, value, f"at most {MOST}")
    check_preprocess(recipe.preprocess.to_dict())
    if (recipe.model == ARCHITECTURE) != bool(recipe.architecture):
        raise UserError(
            "model architecture and the key architecture go together: name a file by --model FILE.json"
        )
    if recipe.architecture:
        parse_architecture(recipe.architecture, "architecture")
    for branch in recipe.branches:
        expect_word("branches", branch, BRANCHES)
    once = len(set(recipe.branches)) == len(recipe.branches) > 0
    expect(once, "branches", ", ".join(recipe.branches), f"some of {', '.join(BRANCHES)}, each once")


def expect_word(key: str, value: str, known: Collection[str]) -> None:
    """UserError if a setting is none of the known words."""
    if value not in known:
        raise UserError(f"{key} is {value!r}, expected one of {', '.join(known)}{did_you_mean(value, known)}")


def expect(holds: bool, key: str, value: object, expected: str) -> None:
    """UserError if a setting is not what is expected."""
    if not holds:
        raise UserError(f"{key} is {value}, expected {expected}")


# What --augment names: of Augment and of BatchAugment.
CHANGES: dict[str, tuple[Augment, BatchAugment]] = {
    "none": (Augment(flip=False), BatchAugment()),
    "light": (
        Augment(area=(0.6, 1.0), aspect=(0.8, 1.25), brightness=0.3, contrast=0.3),
        BatchAugment(),
    ),
    "strong": (
        Augment(area=(0.3, 1.0), aspect=(0.75, 4 / 3), brightness=0.3, contrast=0.3),
        BatchAugment(operations=2, erasing=0.25, mixup=0.8, cutmix=1.0),
    ),
}


def paper() -> Recipe:
    """Sec. 3.1: SGD, momentum 0.9, weight decay 4e-5, cosine from 0.1 to 1e-4 over 150 epochs, batch 16.

    Table 1 can be read in several ways; this is the best that fits its cost (docs/choices.md).
    """
    settings = StageSettings(epochs=150, optimizer="sgd", lr=0.1, final_lr=1e-4, weight_decay=4e-5)
    return Recipe(name="paper", model="tcnn_local", tcnn=settings, joint=settings)


def small() -> Recipe:
    """Some ten to some thousand videos, from the weights that come with the package, on a CPU or a small GPU.

    The local T-CNN: its class maps mark the action, and from those weights it is as accurate as the one whose cells see
    everything (docs/results.md). From scratch it is not where several people act together; take ``tcnn_xs`` there.
    Stage 2 trains the original branch alone on, for as many passes as three branches take in ``spatial``: it is as
    accurate so, and costs a third in every prediction (docs/results.md).
    """
    return Recipe(
        name="small",
        model="tcnn_xs_local",
        tcnn=StageSettings(
            50, "adamw", 2e-3, 1e-5, warmup=0.1, weight_decay=0.05, label_smoothing=0.1, min_steps=300
        ),
        joint=StageSettings(
            75, "adamw", 1e-3, 1e-5, warmup=0.1, weight_decay=0.05, label_smoothing=0.1, min_steps=450
        ),
        branches=BRANCHES[:1],
        preprocess=Preprocess(size=96, canvas=(108, 108), test_canvas=True, zoom_source=2),
        augment=CHANGES["light"][0],
        dropout=0.3,
        max_stride=16,
        stride=None,
        reach=0.8,
        class_balance=0.5,
        attention_per="clip",
        response="evidence",
        erase=0.15,
        faintest=0.5,
        quiet=1.0,
        same_rate=True,
    )


def spatial() -> Recipe:
    """``small`` with the paper's three branches: the network looks again, twice, at frames that its peaks enlarge."""
    recipe = small()
    return replace(
        recipe,
        name="spatial",
        branches=BRANCHES,
        joint=replace(recipe.joint, epochs=25, min_steps=150),
    )


def quickstart() -> Recipe:
    """The local T-CNN at half its width, whose class maps mark the action: minutes on two cores.

    It starts from the weights that come with the package, so that a few epochs do. Eight frames, spread over the clip,
    cost half of sixteen. Stage 2 leaves out the complementary branch, which costs a pass and added nothing
    (benchmarks/results.md), and keeps the batch norms' statistics of stage 1. Crops stay mild, because the figure fills
    the frame and the telling foot or head would be cut off.
    """
    recipe = small()
    return replace(
        recipe,
        name="quickstart",
        faintest=Recipe.faintest,  # it has no complementary branch
        width=0.5,
        dropout=0.2,
        preprocess=replace(recipe.preprocess, frames=8),
        stride=3,
        branches=BRANCHES[:2],
        tcnn=replace(recipe.tcnn, epochs=6, lr=3e-3, min_steps=0),
        joint=replace(recipe.joint, epochs=3, min_steps=0, frozen_norms=True),
        augment=Augment(area=(0.85, 1.0), aspect=(0.9, 1.1), brightness=0.2, contrast=0.2),
    )


def finetune() -> Recipe:
    """From weights that others have published (``--weights``), which know actions or things already: low rates.

    The network and how its clips are made are those of the weights. Its early blocks, which know most of what video is
    like, change least (``layer_decay``), and what is kept is a moving average. Nothing of this was measured: no such
    weights can be had where this package is made.
    """
    recipe = small()
    gentle: dict[str, Any] = {"final_lr": 1e-6, "min_steps": 0, "layer_decay": 0.75}
    return replace(
        recipe,
        name="finetune",
        average=0.999,
        stochastic_depth=0.1,
        tcnn=replace(recipe.tcnn, epochs=30, lr=5e-4, **gentle),
        joint=replace(recipe.joint, epochs=15, lr=2e-4, **gentle),
        preprocess=Preprocess(),
        augment=Augment(area=(0.4, 1.0), aspect=(0.75, 4 / 3), brightness=0.2, contrast=0.2),
        dropout=0.5,
        max_stride=32,
        batch_size=8,
        quiet=0.0,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "small": small,
    "spatial": spatial,
    "finetune": finetune,
    "paper": paper,
    "quickstart": quickstart,
}
