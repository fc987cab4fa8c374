"""One stage of a training: its clips, its network and the weights that this starts from, Lightning's fit of it."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from peakzoom.data.entries import Entry, Problem
from peakzoom.data.loading import ClipDataset, EpochSampler, ViewMaker, loader
from peakzoom.data.runs import STAGES
from peakzoom.data.workers import affordable
from peakzoom.model import PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.training.averaging import MovingAverage
from peakzoom.training.checkpoints import SafeCheckpoints, checkpoint_callback, newest, read_checkpoint
from peakzoom.training.distributed import LOST, is_main_process
from peakzoom.training.frames import Frames
from peakzoom.training.frozen import FeatureSet, FeatureTraining, features_of, freeze
from peakzoom.training.log import EpochBar, EpochLog
from peakzoom.training.loggers import ended, loggers
from peakzoom.training.lora import add_lora
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, StageSettings
from peakzoom.training.start import (
    build,
    checkpoint_gradients,
    class_weights,
    leave_out_blocks,
    set_start,
    start_at_shares,
)
from peakzoom.training.time_left import TimeLeft
from peakzoom.utils.errors import UserError, WorkerGone
from peakzoom.utils.memory import keep_freed_memory
from peakzoom.utils.processors import processors
from peakzoom.utils.system import LOADER_NEEDS, worker_gone
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

FEATURES = "features"  # folder in a run, while its network is frozen


@dataclass(frozen=True)
class StageRun:
    """One stage of a training: its name, folder, settings, and the clips that it trains on and validates with."""

    name: str
    folder: Path
    recipe: Recipe
    options: Options
    train_set: ClipDataset
    val_set: ClipDataset | None

    @property
    def settings(self) -> StageSettings:
        """Its part of the recipe."""
        return self.recipe.joint if self.name == "joint" else self.recipe.tcnn


def stage_run(
    name: str,
    out: Path,
    recipe: Recipe,
    options: Options,
    parts: Mapping[str, Sequence[Entry]],
    frames: Frames,
    several: int | None = None,
) -> StageRun:
    """Random clips to train on, three clips of each video to validate; ``several`` classes, where videos have more."""
    canvas = recipe.preprocess.stored_canvas
    if name == "tcnn" or recipe.branches == BRANCHES[:1]:  # it zooms nowhere and needs no larger frames
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, zoom_source=1))
    pre, cached = recipe.preprocess, frames.cached
    train_set = ClipDataset(
        parts["train"],
        ViewMaker(pre, recipe.augment, options.seed, canvas=canvas, classes=several),
        cached,
    )
    spread = ViewMaker(pre, clips=3, canvas=canvas, classes=several)
    val_set = ClipDataset(parts["val"], spread, cached) if parts["val"] else None
    return StageRun(name, out / name, recipe, options, train_set, val_set)


def build_stage(
    stage: StageRun,
    classes: Sequence[str],
    start: Callable[[PeakZoom], None] | None = None,
    kind: Callable[..., Training] | None = None,
) -> Training:
    """The network with the weights that it starts from, as Lightning trains it.

    Args:
        stage: what is trained.
        classes: of the data.
        start: gives the network its weights; those of :func:`~peakzoom.training.start.set_start` where it is not given.
        kind: makes a training, of the arguments of :class:`~peakzoom.training.module.Training`.
    """
    recipe, options = stage.recipe, stage.options
    joint = stage.name == "joint"
    torch.manual_seed(options.seed)
    model = build(recipe, classes, joint, multi_label=stage.train_set.maker.classes is not None)
    weight = class_weights(stage.train_set.entries, len(classes), recipe.class_balance)
    if model.multi_label:
        start_at_shares(model, stage.train_set.entries, weight)
    if start:
        start(model)
    else:
        before = stage.folder.with_name("tcnn") / "best" if joint and "tcnn" in options.steps else None
        set_start(model, options, before, recipe.preprocess)
    if recipe.checkpoint:
        checkpoint_gradients(model)
    if recipe.lora or recipe.frozen_views:
        _note_idle(recipe, stage.settings)
    elif recipe.stochastic_depth:
        leave_out_blocks(model, recipe.stochastic_depth)
    if recipe.lora:
        add_lora(model, recipe.lora)
    elif recipe.frozen_views:
        freeze(model)
    if kind is None:
        kind = FeatureTraining if _needs_features_alone(recipe, model.zooms) else Training
    return kind(model, recipe, stage.settings, options.seed, weight)


def _note_idle(recipe: Recipe, settings: StageSettings) -> None:
    """Log what a stage asks for in vain, as its network keeps its weights."""
    option = "--lora" if recipe.lora else "--freeze"
    if recipe.stochastic_depth:
        log.info(f"stochastic_depth plays no part: the network of {option} is run as in a prediction")
    if settings.layer_decay < 1:
        log.info(f"layer_decay plays no part: all that {option} trains has one learning rate")


def _needs_features_alone(recipe: Recipe, zooms: bool) -> bool:
    """Whether nothing is trained that the features of a clip depend on."""
    return bool(recipe.frozen_views) and not zooms


def _epochs(settings: StageSettings, batches: int, accumulate: int) -> int:
    """Of a stage, with so many batches in an epoch, of which so many make a step."""
    return max(settings.epochs, math.ceil(settings.min_steps / math.ceil(batches / accumulate)))


def _later(stage: StageRun, steps: int) -> int:
    """How many batches of this stage the one after it comes to: there each branch is a pass through the network."""
    if stage.name != STAGES[0] or STAGES[-1] not in stage.options.steps:
        return 0
    return _epochs(stage.recipe.joint, steps, stage.recipe.accumulate) * steps * len(stage.recipe.branches)


def make_trainer(stage: StageRun) -> L.Trainer:
    """Lightning's trainer with what is written and shown of a stage."""
    settings, options, folder = stage.settings, stage.options, stage.folder
    if options.patience is not None and stage.val_set is None:
        raise UserError("--set patience needs validation videos, and none of them could be decoded")
    if is_main_process():  # no other: it may come before this one has looked whether the run's folder is new
        folder.mkdir(parents=True, exist_ok=True)
    steps = math.ceil(len(stage.train_set) / stage.recipe.batch_size)
    epochs = _epochs(settings, steps, stage.recipe.accumulate)
    if epochs > settings.epochs:
        log.info(
            f"{stage.name}: {counted(epochs, 'epoch')} rather than {settings.epochs}, for "
            f"{counted(settings.min_steps, 'step')} on few "
            "videos"
        )
    left = TimeLeft(stage.name, _later(stage, steps))
    callbacks: list[Callback] = [left, EpochLog(folder, stage.name, left, options.progress)]
    if stage.val_set:
        callbacks.append(checkpoint_callback(folder / "checkpoints", "best", monitor="val_score", mode="max"))
    if stage.recipe.average:  # before those that save: the average is what they save
        callbacks.insert(0, MovingAverage(stage.recipe.average))
    # After the best one, whose state it takes along. (ModelCheckpoint's own save_last saves only when it saves a
    # better one.)
    callbacks.append(checkpoint_callback(folder / "checkpoints", "last"))
    if options.progress:
        callbacks.append(EpochBar(stage.name, left))
    if options.patience is not None:
        callbacks.append(EarlyStopping("val_score", mode="max", patience=options.patience))
    return L.Trainer(
        **options.hardware(),
        default_root_dir=folder,
        max_epochs=epochs,
        gradient_clip_val=settings.clip_gradient,
        callbacks=callbacks,
        logger=loggers(options.logger, folder, stage.recipe),
        accumulate_grad_batches=stage.recipe.accumulate,
        log_every_n_steps=max(1, min(50, steps)),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # SharedBatches shares the videos out
        num_sanity_val_steps=0,
        plugins=[SafeCheckpoints()],
    )


def fit_stage(
    stage: StageRun, trainer: L.Trainer, training: Training, sampler: EpochSampler | None = None
) -> list[Problem]:
    """Train a stage, or go on with it; returns the videos that could not be decoded, or not whole.

    ``sampler`` gives the keys of an epoch's training clips: every video once, where it is not given.
    """
    rank, world, device = trainer.global_rank, trainer.world_size, trainer.strategy.root_device.type
    if device == "cpu":
        keep_freed_memory()
    pin = device == "cuda"
    # A GPU changes clips faster than processes can; on a CPU these do it beside the network. Mere crops are made there
    # too, as they are fewer bytes than whole frames.
    stage.train_set.maker.defer = pin and stage.recipe.augment.computes
    sampler = sampler or EpochSampler(len(stage.train_set), stage.options.seed, world)
    workers = _workers(stage, trainer)
    last = newest(stage.folder / "checkpoints")
    with _told_ends(trainer), ended(trainer.loggers):
        train_set: ClipDataset | FeatureSet = stage.train_set
        val_set: ClipDataset | FeatureSet | None = stage.val_set
        if isinstance(training, FeatureTraining):
            kept = partial(features_of, training, trainer, workers=workers, begun=last is not None)
            train_set = kept(stage.train_set, stage.folder.parent / FEATURES / "train")
            val_set = stage.val_set and kept(stage.val_set, stage.folder.parent / FEATURES / "val")
            workers = 0  # features are read faster than they are handed over
        load = partial(
            loader,
            batch_size=stage.recipe.batch_size,
            workers=workers,
            pin_memory=pin,
            rank=rank,
            world=world,
        )
        if last:  # processes load ahead before Lightning says which epoch it is, and would load the first one's clips
            sampler.set_epoch(read_checkpoint(last)["epoch"] + 1)
        trainer.fit(
            training,
            load(train_set, sampler=sampler),
            load(val_set) if val_set else None,
            ckpt_path=last,
            weights_only=True,
        )
    return training.all_problems()


def _workers(stage: StageRun, trainer: L.Trainer) -> int:
    """How many processes load clips."""
    workers = stage.options.workers
    if workers is None:
        workers = max(1, (processors() - 1) // trainer.num_devices)
    batch_bytes = max(each.maker.clip_bytes for each in (stage.train_set, stage.val_set) if each)
    batch_bytes *= math.ceil(stage.recipe.batch_size / trainer.world_size)
    return affordable(workers, batch_bytes, trainer.num_devices)


@contextmanager
def _told_ends(trainer: L.Trainer) -> Iterator[None]:
    """Let Ctrl-C be Ctrl-C, and a process that lost another one, or one of its loaders, say so."""
    on_interrupt = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Lightning makes an exit with code 1 of Ctrl-C and leaves the process deaf to the next one.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    except (ConnectionError, EOFError) as error:  # while it took over a batch
        raise WorkerGone(f"a process that loads clips is gone: {LOADER_NEEDS}") from error
    except RuntimeError as error:
        if gone := worker_gone(error):
            raise gone from error
        if trainer.world_size == 1 or not LOST.search(str(error)):
            raise
        raise UserError(
            f"process {trainer.global_rank} of {trainer.world_size} lost another one, which says why, or whose "
            "machine's log does: mend that and go on from the last epoch with --resume"
        ) from error
