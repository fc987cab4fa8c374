"""Whether settings fit one another, before anything is decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from peakzoom.model.load import find_model
from peakzoom.model.precision import slow_in
from peakzoom.model.weights import load_weights
from peakzoom.training.distributed import launched
from peakzoom.training.gradients import wrong_gradients
from peakzoom.training.options import Options, Say
from peakzoom.training.recipes import Recipe, check_recipe
from peakzoom.training.start import build
from peakzoom.utils.errors import UserError


def _unheard(line: str) -> None:
    """What the other processes say: all of them would say the same."""


def check_settings(
    recipe: Recipe, options: Options, classes: Sequence[str], validates: bool, say: Say | None = None
) -> None:
    """Refuse before a video is decoded or a folder made what would be refused after it.

    Args:
        recipe: of the training.
        options: of the training.
        classes: of the data.
        validates: there are validation videos.
        say: told of what is not refused but should be known.

    Raises:
        UserError: a setting that is unknown, impossible here, or excluded by another one.
    """
    check_recipe(recipe)
    if options.patience is not None and not validates:
        raise UserError("--set patience needs validation videos, and --val-fraction 0 leaves none")
    if options.init and options.weights:
        raise UserError("--init and --weights exclude one another: the T-CNN starts from one of them")
    if options.init:
        find_model(options.init)
    elif "tcnn" not in options.steps:
        found = ", and --weights is for the first step" if options.weights else ""
        raise UserError(
            f"the joint step starts from a trained T-CNN{found}: give one with --init, or train both steps"
        )
    if options.weights:
        # Decoding may take hours; a file of another network is known at once.
        load_weights(build(recipe, classes, joint=False).backbone, options.weights)
    # Lightning announces itself on every start; set here because importing it sets another level.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=_devices(options),
            num_nodes=_nodes(options),
            precision=options.precision,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        asked = f"accelerator {options.accelerator}, devices {options.devices}, precision {options.precision}"
        raise UserError(f"Lightning cannot train with {asked}: {reason}") from error
    if recipe.batch_size % trainer.world_size:
        raise UserError(
            f"a batch of {recipe.batch_size} clips cannot be shared out equally among {trainer.world_size} processes: "
            f"give --batch-size a multiple of {trainer.world_size}"
        )
    # Not the one asked for: on a CPU Lightning takes bf16-mixed for 16-mixed.
    precision, on_cpu = str(trainer.precision), trainer.accelerator.__class__.__name__ == "CPUAccelerator"
    if precision.startswith("bf16") and on_cpu:
        network: Any = build(recipe, classes, joint=False).backbone
        wrong = wrong_gradients(network, recipe.preprocess.frames, recipe.preprocess.size)
        if wrong:
            name, off = max(wrong.items(), key=lambda item: item[1])
            raise UserError(
                f"precision {precision} gives wrong gradients for {recipe.model} on this CPU with PyTorch "
                f"{torch.__version__}, {name} is off by {off:.0%}: train with --precision 32-true"
            )
    say = say or _unheard
    if precision != options.precision:
        say(f"precision {options.precision} is asked for, and Lightning trains in {precision} there")
    if why := slow_in(precision, trainer.strategy.root_device):
        say(why)


def _devices(options: Options) -> int | str:
    started = launched()
    if options.devices == "auto" and started:
        return started[0]
    return int(options.devices) if options.devices.isdigit() else options.devices


def _nodes(options: Options) -> int:
    started = launched()
    return started[1] if started and options.num_nodes == 1 else options.num_nodes
