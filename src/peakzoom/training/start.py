"""The untrained network of a recipe, and the weights that a stage starts from."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peakzoom.data.entries import Entry, label_counts
from peakzoom.evaluation.multi_label import HALF
from peakzoom.model import PeakZoom, PeakZoomConfig
from peakzoom.model.backbones import BACKBONES, FIXED_SIZE, options_for
from peakzoom.model.load import find_model, is_on_hub, read_from_hub, read_model
from peakzoom.model.public import STRIDE, PublicWeights, find_public, weights_file
from peakzoom.model.starts import fitting_start, start_of, starts
from peakzoom.model.weights import load_weights
from peakzoom.training.options import FROM_SCRATCH, Options
from peakzoom.training.recipes import Recipe
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess

log = logging.getLogger(__name__)


def class_weights(entries: Sequence[Entry], classes: int, balance: float) -> Tensor | None:
    """Loss weights (S,) proportional to (1 / n_c)^balance, with mean 1 over the labels; None when all are 1."""
    counts = label_counts(entries)
    if not balance or len(set(counts.values())) == 1:
        return None
    raw = torch.tensor([counts.get(label, 0) for label in range(classes)], dtype=torch.float32)
    weight = raw.clamp(min=1).pow(-balance)
    return weight * raw.sum() / (weight * raw).sum()


def build(recipe: Recipe, classes: Sequence[str], joint: bool, multi_label: bool = False) -> PeakZoom:
    """The untrained network of a recipe's stage 1, or 2 (``joint``), for one label a clip or for several."""
    config = PeakZoomConfig(
        num_classes=len(classes),
        branches=recipe.branches if joint else ("original",),
        width=recipe.width,
        backbone_options=_options_of(recipe),
        dropout=recipe.dropout,
        attention_per=recipe.attention_per,
        response=recipe.response,
        erase=recipe.erase,
        faintest=recipe.faintest,
        classes=tuple(classes),
        preprocess=recipe.preprocess.to_dict(),
        thresholds=(HALF,) * len(classes) if multi_label else None,
    )
    model = PeakZoom(recipe.model, config=config)
    betas = {"discriminative": model.attention.beta_dis, "complementary": model.attention.beta_com}
    for name, beta in betas.items():
        if name not in model.zoomed:
            beta.requires_grad_(False)  # unused: several processes would wait for its gradient
    return model


def _options_of(recipe: Recipe) -> dict[str, Any]:
    """What the network of a recipe is told beside its width."""
    pre = recipe.preprocess
    options: dict[str, Any] = dict(options_for(recipe.model, recipe.max_stride, pre.frames, pre.size))
    return {**options, "plan": json.loads(recipe.architecture)} if recipe.architecture else options


@torch.no_grad()
def start_at_shares(model: PeakZoom, entries: Sequence[Entry], class_weight: Tensor | None) -> None:
    """Let a new classifier for several labels begin at the classes' shares of the videos, by its bias.

    From zero every class would be as likely as not, and the first epochs would go into denying nearly all of them
    (Lin et al., ICCV 2017, begin so with their rare class). ``class_weight`` is as of :func:`class_weights`.
    """
    bias: Any = model.backbone.fc.bias
    if bias is None:
        return
    counts = label_counts(entries)
    there = torch.tensor([counts.get(label, 0) for label in range(len(model.classes))], dtype=bias.dtype)
    odds = (there + 1) / (len(entries) - there + 1)  # of none and of all, too
    bias.copy_((odds if class_weight is None else odds * class_weight).log())


def checkpoint_gradients(model: PeakZoom) -> None:
    """Have the backbone compute its layers once more for the gradient; UserError where it cannot."""
    do = getattr(model.backbone, "checkpoint_gradients", None)
    if do is None:
        raise UserError(
            f"checkpoint is true, and {model.backbone_name} has no checkpoint_gradients(): leave it out"
        )
    do()


def leave_out_blocks(model: PeakZoom, rate: float) -> None:
    """Stochastic depth in training, where the backbone has blocks for it; where it has none, that is logged."""
    do = getattr(model.backbone, "leave_out_blocks", None)
    if do is None or not do(rate):
        log.info(
            f"stochastic_depth {rate:g} plays no part: {model.backbone_name} has no blocks that it leaves out"
        )


def resolved(options: Options, recipe: Recipe) -> Options:
    """The options with the ``init`` that they come to, which is None no more in a training of stage 1 by itself.

    Where none is given, it is the name of the package's start that fits the network, or "none". A folder goes before a
    start of the same name, and is then given as "./NAME", so that a name alone is always the start.
    """
    if options.init == FROM_SCRATCH:  # needs no start, and so no cards that can be read
        return options
    if options.init is not None:
        if start_of(options.init) and Path(options.init).exists():
            return replace(options, init=f"./{options.init}")
        return options
    if options.weights or "tcnn" not in options.steps:
        return options
    pre = recipe.preprocess
    start = fitting_start(recipe.model, recipe.width, pre.mean, pre.std)
    return replace(options, init=start.name if start else FROM_SCRATCH)


def without_start(recipe: Recipe) -> str:
    """A sentence for a recipe whose network no start of the package fits: what differs, and what would fit."""
    widths = [start.width for start in starts() if start.network == recipe.model]
    if not widths:
        name = "a network of this plan" if recipe.architecture else recipe.model
        return f"peakzoom has no start weights for {name} ('peakzoom weights' lists what it has)"
    if recipe.width in widths:
        return (
            f"peakzoom's start weights for {recipe.model} were trained with another preprocess.mean and preprocess.std "
            "(left out, the training starts from them)"
        )
    had = " and ".join(f"{width:g}" for width in widths)
    return (
        f"peakzoom's start weights for {recipe.model} are of width {had}, not {recipe.width:g} "
        f"(--set width={widths[-1]:g} starts from them)"
    )


def fitted(recipe: Recipe, public: PublicWeights) -> Recipe:
    """A recipe whose network and clips are those that public weights know; its stride stays where theirs is open."""
    clips = {key: value for key, value in public.preprocess.items() if key != "stride"}
    return replace(
        recipe,
        model=public.network,
        width=1.0,
        max_stride=STRIDE,
        stride=public.preprocess["stride"] or recipe.stride,
        augment=replace(recipe.augment, flip=recipe.augment.flip and public.mirrors),
        preprocess=Preprocess.from_dict({**clips, "zoom_source": recipe.preprocess.zoom_source}),
    )


def expect_meaning(recipe: Recipe, public: PublicWeights) -> None:
    """UserError if a recipe makes public weights meaningless: another network, or pixels that they never saw."""
    own, pre = public.preprocess, recipe.preprocess
    is_same = BACKBONES.get(recipe.model) is BACKBONES[public.network]  # by another name
    wanted = {
        "model": (public.network if is_same else recipe.model, public.network),
        "width": (recipe.width, 1.0),
        "preprocess.mean": (pre.mean, tuple(own["mean"])),
        "preprocess.std": (pre.std, tuple(own["std"])),
    }
    if public.network in FIXED_SIZE:  # their positions are learnt for one grid
        wanted |= {f"preprocess.{key}": (getattr(pre, key), own[key]) for key in ("size", "frames")}
    for key, (given, expected) in wanted.items():
        if given != expected:
            shown = ",".join(f"{each:g}" for each in given) if isinstance(given, tuple) else given
            raise UserError(f"{public.name} means nothing with {key} {shown}: leave that out, or the weights")


def set_start(model: PeakZoom, options: Options, trained: Path | None, pre: Preprocess) -> None:
    """Give a network the weights of ``trained``, this run's stage 1, or those of the options, if any.

    The options are :func:`resolved`. All heads of the network then start from its backbone's.
    """
    if trained is not None:
        start_from(model, trained)
    elif options.init == FROM_SCRATCH:
        log.info("starts from scratch")
    elif options.init and (start := start_of(options.init)):
        start.load(model.backbone)
        log.info(
            f"starts from {start.name}, which comes with peakzoom and was trained on generated clips only "
            "(--init none: from scratch)"
        )
    elif options.init:
        start_from(model, options.init)
    elif options.weights:
        for line in load_weights(model.backbone, weights_file(options.weights)):
            log.info(line)
        if public := find_public(options.weights):
            log.info(f"starts from {public.name}, trained on {public.data}; licence {public.licence}")
        else:
            log.info(_normalisation(pre))
            if model.backbone_name in FIXED_SIZE and (pre.size, pre.frames) != (
                Preprocess.size,
                Preprocess.frames,
            ):
                log.warning(
                    f"positions of {model.backbone_name} are counted from the first patch on: weights that were made "
                    f"with clips of another shape than {pre.frames} x {pre.size} x {pre.size} mean something else in it"
                )
    model.start_heads_from_original()


def start_from(model: PeakZoom, init: str | Path) -> None:
    """Load a trained model's backbone; a classifier of other classes stays as it is made, and that is logged."""
    weights, others = fitting_model(model, init)
    if others:
        log.info("%s: %d other classes, so the classifier starts anew", init, others)
    model.backbone.load_state_dict(weights)


def fitting_model(model: PeakZoom, init: str | Path) -> tuple[dict[str, Tensor], int]:
    """What :func:`start_from` loads, and of how many other classes the trained model is, 0 where of the same ones.

    Raises:
        UserError: there is no such model, or it is another network.
    """
    trained = read_from_hub(str(init)) if is_on_hub(str(init)) else read_model(find_model(init))
    weights = trained.backbone.state_dict()
    others = 0 if trained.classes == model.classes else len(trained.classes)
    if others:
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    own = model.backbone.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name in weights and name in own and weights[name].shape == own[name].shape:
            continue
        if name in weights or not name.startswith("fc."):
            raise UserError(
                f"{init} is another network than this one ({name} does not fit); name its --model"
            )
    return {**own, **weights}, others


def _normalisation(pre: Preprocess) -> str:
    """How pixels are normalised; where nobody chose it, that a weight file may have been trained otherwise."""
    mean, std = (",".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    line = f"pixels are normalised with mean {mean} and std {std}"
    if (pre.mean, pre.std) == (Preprocess.mean, Preprocess.std):
        line += "; the weights' own may differ: give it with --set preprocess.mean and --set preprocess.std"
    return line
