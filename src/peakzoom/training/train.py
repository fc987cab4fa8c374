"""Training in two stages, as the paper: the T-CNN first, then the branches from it (docs/method.md, section 6).

:func:`train` is the whole way: check, open the run, decode, then build, fit and save each stage. Lightning carries the
loop; docs/runs.md lists the files. What is read again is written whole or not at all (:mod:`peakzoom.utils.durable`),
so that a run may be killed, or its disk be full, at any moment: ``resume`` takes the last checkpoint that can be read,
and ends with the same weights.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from peakzoom.data.doubts import doubts
from peakzoom.data.entries import Entry, Problem, VideoSet, some
from peakzoom.data.loading import ClipDataset, EpochSampler, ViewMaker, loader
from peakzoom.data.runs import STAGES
from peakzoom.data.splits import split_validation, usual_share
from peakzoom.data.workers import affordable
from peakzoom.model.config import BRANCHES
from peakzoom.training.check import check_settings
from peakzoom.training.checkpoints import SafeCheckpoints, checkpoint_callback, newest
from peakzoom.training.distributed import LOST, end_with_launcher, first_process_logs, is_main_process
from peakzoom.training.folder import (
    alone_in,
    expect_unchanged,
    note_problems,
    open_run,
    save_stage,
    write_lists,
)
from peakzoom.training.frames import Frames, decode_all
from peakzoom.training.log import EpochLog
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, StageSettings
from peakzoom.training.start import build, class_weights, resolved, set_start
from peakzoom.training.time_left import TimeLeft
from peakzoom.utils.digests import digests, same_bytes
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import UserError, WorkerGone
from peakzoom.utils.journal import hash_of
from peakzoom.utils.memory import keep_freed_memory
from peakzoom.utils.processors import processors
from peakzoom.utils.progress import is_watched, progress_bar
from peakzoom.utils.system import LOADER_NEEDS, worker_gone

log = logging.getLogger(__name__)

USUAL = 0.15  # of the training videos, to validate on
Splits = dict[str, list[Entry]]  # videos by what they are for: "train", "val", "test"


def train(
    data: VideoSet, recipe: Recipe, out: str | Path, options: Options | None = None, resume: bool = False
) -> Path:
    """Train on the videos of ``data`` that are not its test videos; returns the run folder.

    Args:
        data: labelled videos; those of split "val", where there are any, choose the epoch, else a share of the
            training videos is split off, whole groups where groups are known. Split "test" is never looked at.
        recipe: see :mod:`peakzoom.training.recipes`.
        out: a new folder.
        options: see :class:`Options`.
        resume: go on with the training in ``out``.

    Raises:
        UserError: no videos, a folder that is in use, settings that do not fit, a full disk.
    """
    out, options = Path(out), options or Options()
    end_with_launcher()

    def way_out() -> str:
        return "go on with --resume" if (out / "config.json").exists() else "begin anew"

    with explain_full_disk(out, way_out), first_process_logs(), ExitStack() as held:
        options = _with_share(resolved(options, recipe), data)
        parts = _split(data, options)
        check_settings(recipe, options, data.classes, validates=bool(parts["val"]))
        if is_main_process():
            held.enter_context(alone_in(out))
            open_run(out, _recorded(data, parts, recipe, options), resume)
        known = _look_before(out, data, parts, options)

        frames = decode_all([entry.path for entry in parts["train"] + parts["val"]], recipe, options)
        recipe = replace(recipe, preprocess=frames.preprocess)
        parts = _list_videos(out, data, parts, frames, known)

        for name in (name for name in STAGES if name in options.steps):
            if (out / name / "best" / "model.safetensors").exists():
                log.info("%s: done before", name)
                continue
            stage = _stage(name, out, recipe, options, parts, frames)
            training, trainer = _build(stage, data.classes), _trainer(stage)
            met = _fit(stage, trainer, training)
            if trainer.is_global_zero:
                note_problems(out, met)
                save_stage(training.model, stage.folder)
            trainer.strategy.barrier()  # stage 2 starts from these weights
    return out


def _with_share(options: Options, data: VideoSet) -> Options:
    """The options with the share of videos to validate on that they come to."""
    if options.val_fraction is not None:
        return options
    splits = {entry.split for entry in data.entries}
    trained = [entry for entry in data.entries if entry.split in ("train", None)]
    return replace(options, val_fraction=USUAL if "val" in splits else usual_share(trained, USUAL, "val"))


def _split(data: VideoSet, options: Options) -> Splits:
    """All videos by what they are for."""
    parts = {part: [each for each in data.entries if each.split == part] for part in ("train", "val", "test")}
    parts["train"] += [entry for entry in data.entries if entry.split is None]
    if not parts["val"] and options.val_fraction:
        parts["train"], parts["val"] = split_validation(parts["train"], options.val_fraction, options.seed)
    if not parts["train"]:
        raise UserError(f"{data.name} has no training videos; run 'peakzoom data check' on it")
    return parts


def _recorded(data: VideoSet, parts: Splits, recipe: Recipe, options: Options) -> dict[str, Any]:
    """What ``config.json`` holds, and a resumed run must have too."""
    videos = [[str(entry.path.absolute()), entry.label, part] for part, all in parts.items() for entry in all]
    return {
        "data": f"{len(videos)} videos, {hash_of(videos)}",
        "classes": data.classes,
        "recipe": recipe.recorded(),
        "options": options.recorded(),
    }


def _look_before(out: Path, data: VideoSet, parts: Splits, options: Options) -> dict[Path, str]:
    """Say what is doubtful of the data, and refuse videos that have changed since the training began.

    Returns the digests of the videos that are looked at.
    """
    if not is_main_process():
        return {}
    looked_at = [entry.path for entry in parts["train"] + parts["val"]]
    with progress_bar(f"reading {len(looked_at)} videos", options.progress) as report:
        found = digests(looked_at, report)
    expect_unchanged(out, found)
    twins = same_bytes(entry.path for entries in parts.values() for entry in entries)
    for doubt in doubts(data.classes, parts, twins):
        log.warning(doubt)
    return found


def _list_videos(
    out: Path, data: VideoSet, parts: Splits, frames: Frames, digests: Mapping[Path, str]
) -> Splits:
    """Write down every video and every problem; returns the parts without the videos that cannot be decoded."""
    used = {part: [entry for entry in all if entry.path not in frames.lost] for part, all in parts.items()}
    lost = [entry for part in ("train", "val") for entry in parts[part] if entry.path in frames.lost]
    if is_main_process():
        write_lists(out, data, {**used, "unreadable": lost}, digests)
        note_problems(out, [*data.problems, *frames.problems])
    if not used["train"]:
        raise UserError(f"no training video of {data.name} could be decoded; {out / 'problems.csv'} says why")
    learned = {entry.label for entry in used["train"]}
    if gone := sorted({entry.label for entry in parts["train"]} - learned):
        log.warning(
            f"no training video of {some(data.classes[label] for label in gone)} could be decoded: never learned"
        )
    log.info(
        f"{len(used['train'])} videos to train on, {len(used['val'])} to validate, {len(used['test'])} for testing "
        f"(not looked at), {len(data.classes)} classes"
    )
    return used


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


def _stage(name: str, out: Path, recipe: Recipe, options: Options, parts: Splits, frames: Frames) -> StageRun:
    """Random clips to train on, three clips of each video to validate."""
    canvas = recipe.preprocess.stored_canvas
    if name == "tcnn" or recipe.branches == BRANCHES[:1]:  # it zooms nowhere and needs no larger frames
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, zoom_source=1))
    pre, cached = recipe.preprocess, frames.cached
    train_set = ClipDataset(
        parts["train"], ViewMaker(pre, recipe.augment, options.seed, canvas=canvas), cached
    )
    val_set = (
        ClipDataset(parts["val"], ViewMaker(pre, clips=3, canvas=canvas), cached) if parts["val"] else None
    )
    return StageRun(name, out / name, recipe, options, train_set, val_set)


def _build(stage: StageRun, classes: Sequence[str]) -> Training:
    """The network with the weights that it starts from, as Lightning trains it."""
    recipe, options = stage.recipe, stage.options
    joint = stage.name == "joint"
    torch.manual_seed(options.seed)
    model = build(recipe, classes, joint)
    before = stage.folder.with_name("tcnn") / "best" if joint and "tcnn" in options.steps else None
    set_start(model, options, before, recipe.preprocess)
    weight = class_weights(stage.train_set.entries, len(classes), recipe.class_balance)
    return Training(model, recipe, stage.settings, options.seed, weight)


def _epochs(settings: StageSettings, steps: int) -> int:
    """Of a stage, with so many steps in an epoch."""
    return max(settings.epochs, math.ceil(settings.min_steps / steps))


def _later(stage: StageRun, steps: int) -> int:
    """How many batches of this stage the one after it comes to: there each branch is a pass through the network."""
    if stage.name == STAGES[-1] or STAGES[-1] not in stage.options.steps:
        return 0
    return _epochs(stage.recipe.joint, steps) * steps * len(stage.recipe.branches)


def _trainer(stage: StageRun) -> L.Trainer:
    """Lightning's trainer with what is written and shown of a stage."""
    settings, options, folder = stage.settings, stage.options, stage.folder
    if options.patience is not None and stage.val_set is None:
        raise UserError("--set patience needs validation videos, and none of them could be decoded")
    if is_main_process():  # no other: it may come before this one has looked whether the run's folder is new
        folder.mkdir(parents=True, exist_ok=True)
    steps = math.ceil(len(stage.train_set) / stage.recipe.batch_size)
    epochs = _epochs(settings, steps)
    if epochs > settings.epochs:
        log.info(
            f"{stage.name}: {epochs} epochs rather than {settings.epochs}, for {settings.min_steps} steps on few "
            "videos"
        )
    bar = options.progress and is_watched()
    left = TimeLeft(stage.name, _later(stage, steps))
    callbacks: list[Callback] = [left, EpochLog(folder, stage.name, left, options.progress and not bar)]
    if stage.val_set:
        callbacks.append(checkpoint_callback(folder / "checkpoints", "best", monitor="val_score", mode="max"))
    # After the best one, whose state it takes along. (ModelCheckpoint's own save_last saves only when it saves a
    # better one.)
    callbacks.append(checkpoint_callback(folder / "checkpoints", "last"))
    if bar:
        callbacks.append(TQDMProgressBar())
    if options.patience is not None:
        callbacks.append(EarlyStopping("val_score", mode="max", patience=options.patience))
    return L.Trainer(
        **options.hardware(),
        default_root_dir=folder,
        max_epochs=epochs,
        gradient_clip_val=settings.clip_gradient,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        log_every_n_steps=max(1, min(50, steps)),
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,  # SharedBatches shares the videos out
        num_sanity_val_steps=0,
        plugins=[SafeCheckpoints()],
    )


def _fit(stage: StageRun, trainer: L.Trainer, training: Training) -> list[Problem]:
    """Train a stage, or go on with it; returns the videos that could not be decoded, or not whole."""
    rank, world, device = trainer.global_rank, trainer.world_size, trainer.strategy.root_device.type
    if device == "cpu":
        keep_freed_memory()
    workers = stage.options.workers
    if workers is None:
        workers = max(1, (processors() - 1) // trainer.num_devices)
    pin = device == "cuda"
    # A GPU changes clips faster than processes can; on a CPU these do it beside the network. Mere crops are made there
    # too, as they are fewer bytes than whole frames.
    stage.train_set.maker.defer = pin and stage.recipe.augment.computes
    sampler = EpochSampler(len(stage.train_set), stage.options.seed, world)
    batch_bytes = max(each.maker.clip_bytes for each in (stage.train_set, stage.val_set) if each)
    batch_bytes *= math.ceil(stage.recipe.batch_size / world)
    workers = affordable(workers, batch_bytes, trainer.num_devices)
    load = partial(
        loader, batch_size=stage.recipe.batch_size, workers=workers, pin_memory=pin, rank=rank, world=world
    )
    with _told_ends(trainer):
        trainer.fit(
            training,
            load(stage.train_set, sampler=sampler),
            load(stage.val_set) if stage.val_set else None,
            ckpt_path=newest(stage.folder / "checkpoints"),
            weights_only=True,
        )
    return training.all_problems()


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
