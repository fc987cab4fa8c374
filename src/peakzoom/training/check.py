"""Whether settings fit one another, before a video is decoded or a folder made."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import functional as F

from peakzoom.model.backbones import is_own
from peakzoom.model.backbones.own import expect_features
from peakzoom.model.names import is_on_hub
from peakzoom.model.outline import without_numbers
from peakzoom.model.precision import slow_in
from peakzoom.model.public import find_public, weights_file
from peakzoom.model.starts import expect_fit, start_of
from peakzoom.model.weights import fitting_weights
from peakzoom.training.batch_augment import BatchChanges
from peakzoom.training.log import quiet_lightning
from peakzoom.training.loggers import LOGGERS, expect_logger
from peakzoom.training.lora import expect_lora, expect_rank
from peakzoom.training.options import FROM_SCRATCH, Options
from peakzoom.training.recipes import Recipe, check_recipe, expect, expect_word
from peakzoom.training.start import build, checkpoint_gradients, expect_meaning, fitting_model
from peakzoom.utils.errors import UserError
from peakzoom.utils.missing import missing
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)


def check_settings(
    recipe: Recipe, options: Options, classes: Sequence[str], validates: bool, multi_label: bool = False
) -> None:
    """Refuse what would be refused after hours of decoding; log what is not refused but should be known.

    ``options`` are :func:`~peakzoom.training.start.resolved`, ``classes`` are the data's, ``validates`` says whether
    there are validation videos, ``multi_label`` whether a video may have several labels.

    Raises:
        UserError: a setting that is unknown, impossible here, or excluded by another one.
    """
    quiet_lightning()  # before the first Trainer, which announces the hardware
    check_recipe(recipe)
    expect_word("cache", options.cache, ("auto", "on", "off"))
    expect(options.num_nodes >= 1, "num_nodes", options.num_nodes, "1 or more")
    if options.patience is not None:
        expect(options.patience >= 1, "patience", options.patience, "1 or more")
        if not validates:
            raise UserError("--set patience needs validation videos, and --val-fraction 0 leaves none")
    if is_own(recipe.model):
        network, pre = build(recipe, classes, joint=False).backbone, recipe.preprocess
        expect_features(recipe.model, network, pre.frames, pre.size)
    _check_start(recipe, options, classes)
    _check_kept(recipe, options, classes)
    if recipe.distill and (set(recipe.branches) == {"original"} or "joint" not in options.steps):
        raise UserError(
            "distill teaches the original branch what the fused prediction knows, and this training zooms nowhere: "
            "take --recipe spatial, or --set branches=original,discriminative,complementary, and stage 2"
        )
    if recipe.quiet and multi_label:
        log.info("quiet plays no part where videos have several labels: it asks cells to prefer no class")
    if recipe.distill and multi_label:
        raise UserError(
            "distill softens one softmax over the classes, and videos have several labels: leave it out"
        )
    if recipe.checkpoint:
        with without_numbers():
            checkpoint_gradients(build(recipe, classes, joint=False))
    expect_word("logger", options.logger, LOGGERS)
    BatchChanges(recipe.batch_augment)  # raises where what it needs is not installed, as does the next
    expect_logger(options.logger)
    _check_hardware(recipe, options)


def _check_start(recipe: Recipe, options: Options, classes: Sequence[str]) -> None:
    """The weights to start from: at most one source, and it is there and fits."""
    if options.init and options.weights:
        raise UserError("--init and --weights exclude one another: the T-CNN starts from one of them")
    init = None if options.init == FROM_SCRATCH else options.init
    if init and (start := start_of(init)):
        expect_fit(start, recipe.model, recipe.width, recipe.preprocess.mean, recipe.preprocess.std)
        start.expect_whole()
    elif init:
        if find_public(init):
            raise UserError(f"{init} are public weights: give them with --weights")
        if not is_on_hub(init) and not os.path.lexists(init):
            raise missing(init, "a run, a saved model, or start weights that 'peakzoom weights' lists")
        fitting_model(build(recipe, classes, joint="tcnn" not in options.steps), init)
    elif not init and "tcnn" not in options.steps:
        also = ", and --weights is for stage 1" if options.weights else ""
        raise UserError(
            f"stage 2 starts from a trained T-CNN{also}: give one with --init, or train both stages"
        )
    if options.weights:
        if public := find_public(options.weights):
            expect_meaning(recipe, public)
        fitting_weights(build(recipe, classes, joint=False).backbone, weights_file(options.weights))


def _check_kept(recipe: Recipe, options: Options, classes: Sequence[str]) -> None:
    """Where a network keeps its weights, they are worth keeping, and nothing is asked of them that needs others."""
    if not recipe.frozen_views and not recipe.lora:
        return
    option = "--lora" if recipe.lora else "--freeze"
    if recipe.lora and recipe.frozen_views:
        raise UserError(
            "lora and frozen_views exclude one another: the network keeps its weights, or they change"
        )
    if options.init == FROM_SCRATCH and not options.weights:
        raise UserError(
            f"{option} keeps the weights that a network starts from, and this one starts from scratch: name some with "
            "--weights or --init"
        )
    if recipe.lora:
        expect_lora()
        expect_rank(build(recipe, classes, joint=False), recipe.lora)
    elif BatchChanges(recipe.batch_augment):
        raise UserError(
            "--freeze computes features once, so that clips of a batch cannot be changed or mixed: leave --augment "
            "strong and batch_augment out"
        )


def _check_hardware(recipe: Recipe, options: Options) -> None:
    """What Lightning makes of the machine can train, and shares a batch out equally."""
    try:
        trainer = L.Trainer(
            **options.hardware(),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise UserError(
            f"Lightning cannot train with accelerator {options.accelerator}, devices {options.devices}, precision "
            f"{options.precision}: {' '.join(str(error).split())}"
        ) from error
    world, device = trainer.world_size, trainer.strategy.root_device
    if recipe.frozen_views and world > 1:
        raise UserError(f"--freeze computes features in one process, and {world} came: --set devices=1")
    if recipe.batch_size % world:
        raise UserError(
            f"a batch of {counted(recipe.batch_size, 'clip')} cannot be shared out equally among "
            f"{counted(world, 'process')}: give "
            f"--batch-size a multiple of {world}"
        )
    if options.sync_batch_norm and world > 1 and device.type == "cpu":
        raise UserError(
            "--set sync_batch_norm=true needs GPUs: PyTorch has no such batch norm for processes on CPUs"
        )
    precision = str(trainer.precision)  # on a CPU Lightning takes bf16-mixed for 16-mixed
    if precision.startswith("bf16") and device.type == "cpu":
        off = gradient_error(torch.bfloat16)
        if off > 0.1:
            raise UserError(
                f"PyTorch {torch.__version__} computes wrong gradients in precision {precision} on this CPU, off by "
                f"{off:.0%} in a small convolution: train with --precision 32-true"
            )
    if precision != options.precision:
        log.warning(
            "Lightning trains in precision %s on this device, not in %s", precision, options.precision
        )
    if why := slow_in(precision, device):
        log.warning(why)


def gradient_error(dtype: torch.dtype) -> float:
    """How far the weight gradient of a convolution on the CPU is from that in float32, as a fraction of its norm.

    PyTorch 2.13.0 computes it wrongly in bfloat16 on CPUs with AVX-512 where the kernel is longer in time than the
    clip, as 3 x 3 x 3 on two slices: off by 70 to 100%, or not finite, with no error. Rounding alone is off by 0.3%.
    """
    draw = torch.Generator().manual_seed(0)
    clips, weight = (torch.randn(shape, generator=draw) for shape in ((2, 64, 2, 7, 7), (64, 64, 3, 3, 3)))
    outer = torch.randn(clips.shape, generator=draw)

    def gradient(dtype: torch.dtype) -> Tensor:
        leaf = weight.to(dtype, copy=True).requires_grad_()
        (found,) = torch.autograd.grad(F.conv3d(clips.to(dtype), leaf, padding=1), leaf, outer.to(dtype))
        return found.float()

    expected = gradient(torch.float32)
    off = float((gradient(dtype) - expected).norm() / expected.norm())
    return off if off == off else float("inf")
