"""Training in two steps, as the paper: the T-CNN first, then all three branches from it (docs/method.md, section 6).

Reads from the bottom: :func:`train` lists the videos, decodes them into the cache, and calls :func:`_fit` for each
phase; Lightning carries the loop. The run folder::

    run/
      command.txt  config.json   what was asked; a resumed run must ask for the same
      classes.txt  videos.csv    class names; every video and where it went (train, val, test, unreadable)
      data.txt                   what the data are called
      problems.csv               every file that gave no frames, or not all, and why
      tcnn/ joint/               one folder a phase:
        checkpoints/               last.ckpt, written after every epoch, and previous.ckpt, the one before it, to go
                                   on from; best.ckpt
        best/ last/                weights (safetensors) and config.json, for peakzoom.load and from_pretrained
        metrics.csv curves.png     accuracy and loss of every epoch
        tensorboard/

Whatever is read again is written whole or not at all (:mod:`peakzoom.utils.durable`), so that a run may be killed, or
its disk be full, at any moment: ``resume`` takes the last checkpoint that can be read, and ends with the same
weights.
"""

from __future__ import annotations

import math
import os
import signal
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from peakzoom.data.entries import Problem, VideoSet
from peakzoom.data.loading import ClipDataset, EpochSampler, loader
from peakzoom.data.runs import PHASES as PHASES
from peakzoom.data.runs import read_metrics as read_metrics
from peakzoom.data.splits import split_validation
from peakzoom.model import PeakZoom
from peakzoom.model.weights import load_weights
from peakzoom.training.check import _devices, _nodes, _unheard, check_settings
from peakzoom.training.checkpoints import SafeCheckpoints, checkpoint_callback, newest, read_checkpoint
from peakzoom.training.distributed import (
    is_main_process,
    lost_another,
    synchronise,
)
from peakzoom.training.folder import _open_run, _read_problems, _save, _write_lists, _write_problems
from peakzoom.training.frames import _decode_all
from peakzoom.training.log import EpochLog
from peakzoom.training.module import Training
from peakzoom.training.options import Options, Say
from peakzoom.training.recipes import Phase, Recipe
from peakzoom.training.start import _normalisation, build, class_weights, start_from
from peakzoom.utils.durable import telling_full_disk
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import hash_of
from peakzoom.utils.memory import keep_freed_memory
from peakzoom.utils.progress import is_watched


def _fit(
    name: str,
    model: PeakZoom,
    recipe: Recipe,
    options: Options,
    out: Path,
    datasets: tuple[ClipDataset, ClipDataset | None],
    class_weight: Tensor | None,
    problems: list[Problem],
    say: Say,
) -> None:
    """Train one phase, or go on with it, and leave its best and last weights; ``problems`` gains what failed."""
    folder = out / name
    phase: Phase = getattr(recipe, name)
    if (
        is_main_process()
    ):  # and no other: it may come before this one has looked whether the run's folder is new
        folder.mkdir(parents=True, exist_ok=True)
    train_set, val_set = datasets
    steps = math.ceil(len(train_set) / recipe.batch_size)
    epochs = max(phase.epochs, math.ceil(phase.min_steps / steps))
    if epochs > phase.epochs:
        say(f"{name}: {epochs} epochs rather than {phase.epochs}, for {phase.min_steps} steps on few videos")

    bar = options.progress and is_watched()
    kept = folder / "checkpoints"
    callbacks: list[Callback] = [EpochLog(folder, None if bar else say, name)]
    if val_set:
        callbacks.append(checkpoint_callback(kept, "best", monitor="val_score", mode="max"))
    # After the best one, whose state it takes along. (ModelCheckpoint's own save_last saves only when it saves a
    # better one.)
    callbacks.append(checkpoint_callback(kept, "last"))
    if bar:
        callbacks.append(TQDMProgressBar())
    if options.patience is not None:
        if val_set is None:
            raise UserError("--set patience needs validation videos, and none of them could be decoded")
        callbacks.append(EarlyStopping("val_score", mode="max", patience=options.patience))
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator=options.accelerator,
        devices=_devices(options),
        num_nodes=_nodes(options),
        precision=options.precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        gradient_clip_val=phase.clip_gradient,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        log_every_n_steps=max(1, min(50, steps)),
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,  # EpochSampler shares the videos out itself
        num_sanity_val_steps=0,
        plugins=[SafeCheckpoints()],
    )
    if trainer.accelerator.__class__.__name__ == "CPUAccelerator":
        keep_freed_memory()
    workers = options.workers
    if workers is None:
        workers = max(1, ((os.cpu_count() or 2) - 1) // trainer.num_devices)
    rank, world = trainer.global_rank, trainer.world_size
    pin = trainer.accelerator.__class__.__name__ == "CUDAAccelerator"
    # A GPU changes clips faster than processes can; on a CPU these do it beside the network. Mere crops are made there
    # too, as they are fewer bytes than whole frames.
    train_set.defer = pin and recipe.augment.computes
    sampler = EpochSampler(len(train_set), options.seed)
    if options.sync_batch_norm and world > 1:
        synchronise(model)
    training = Training(model, recipe, phase, options.seed, class_weight)
    on_interrupt = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    try:
        trainer.fit(
            training,
            loader(train_set, recipe.batch_size, workers, sampler, pin, rank, world),
            loader(val_set, recipe.batch_size, workers, None, pin, rank, world) if val_set else None,
            ckpt_path=newest(kept, say),
            weights_only=True,
        )
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Lightning makes an exit with code 1 of Ctrl-C and leaves the process deaf to the next one.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if world == 1 or not lost_another(error):
            raise
        raise UserError(
            f"process {rank} of {world} lost another one, which says or whose machine's log says why: mend that and go "
            "on from the last epoch with --resume"
        ) from error
    met = [
        problem for problem in training.all_problems() if problem not in problems
    ]  # the first phase has met most
    problems += met
    if met:
        say(
            f"{len(met)} files could not be decoded while training, or in part alone: see {out / 'problems.csv'}"
        )
    if trainer.is_global_zero:
        if met:
            _write_problems(out, problems)  # before the weights, with which the phase is done
        model.float()  # what is saved is float32, whatever it was trained in
        _save(model, folder / "last")
        best = kept / "best.ckpt"
        if best.exists():
            state = read_checkpoint(best)["state_dict"]
            prefix = "model."
            model.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
        _save(model, folder / "best")
    trainer.strategy.barrier()  # the next phase starts from these weights


def train(
    data: VideoSet,
    recipe: Recipe,
    out: str | Path,
    options: Options | None = None,
    resume: bool = False,
    say: Say = print,
) -> Path:
    """Train on the videos of ``data`` that are not its test videos; returns the run folder.

    Args:
        data: labelled videos; those of split "val", where there are any, choose the epoch, else a share of the
            training videos is split off, whole groups where groups are known. Split "test" is never looked at.
        recipe: see :mod:`peakzoom.training.recipes`.
        out: a new folder.
        options: see :class:`Options`.
        resume: go on with the training in ``out``.
        say: told one line at a time.

    Raises:
        UserError: no videos, a folder that is in use, settings that do not fit, a full disk.
    """
    out = Path(out)

    def way_out() -> str:
        return "go on with --resume" if (out / "config.json").exists() else "begin anew"

    with telling_full_disk(out, way_out):
        return _train(data, recipe, out, options or Options(), resume, say)


def _train(data: VideoSet, recipe: Recipe, out: Path, options: Options, resume: bool, say: Say) -> Path:
    main = is_main_process()
    if not main:
        say = _unheard
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings(
        "ignore", ".*sync_dist=True.*"
    )  # what is logged is summed over the processes already
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    pool = [entry for entry in data.entries if entry.split != "test"]
    parts = {split: [entry for entry in pool if entry.split == split] for split in ("train", "val")}
    parts["train"] += [entry for entry in pool if entry.split is None]
    parts["test"] = [entry for entry in data.entries if entry.split == "test"]
    if not parts["val"] and options.val_fraction:
        parts["train"], parts["val"] = split_validation(parts["train"], options.val_fraction, options.seed)
    if not parts["train"]:
        raise UserError(f"{data.name} has no training videos; run 'peakzoom data check' on it")

    check_settings(recipe, options, data.classes, bool(parts["val"]), say)

    # Where the run is made and how many processes serve it are not what it is.
    asked = {
        key: value for key, value in asdict(options).items() if key not in ("workers", "progress", "cache")
    }
    # So that runs go on that were begun before there were these options:
    for name, usual in (("weights", None), ("sync_batch_norm", False)):
        if asked[name] == usual:
            del asked[name]
    videos = [
        [str(entry.path.absolute()), entry.label, split]
        for split, entries in parts.items()
        for entry in entries
    ]
    digest = f"{len(videos)} videos, {hash_of(videos)}"
    if main:
        _open_run(
            out, {"data": digest, "classes": data.classes, "recipe": asdict(recipe), "options": asked}, resume
        )

    cached, problems, recipe = _decode_all(parts["train"] + parts["val"], recipe, options, say)
    lost = {problem.path for problem in problems if not problem.reason.startswith("used in part")}
    problems = [*data.problems, *problems]
    problems += [each for each in _read_problems(out) if each not in problems]
    parts["unreadable"] = [
        entry for split in ("train", "val") for entry in parts[split] if str(entry.path) in lost
    ]
    for split in ("train", "val"):
        parts[split] = [entry for entry in parts[split] if str(entry.path) not in lost]
    if not parts["train"]:
        raise UserError(f"no training video of {data.name} could be decoded; {out / 'problems.csv'} says why")
    if main:
        _write_lists(out, data, parts, problems)
    if problems:
        say(f"{len(problems)} files are missing, broken or used in part: see {out / 'problems.csv'}")
    say(
        f"{len(parts['train'])} videos to train on, {len(parts['val'])} to validate, {len(parts['test'])} for testing "
        f"(not looked at), {len(data.classes)} classes"
    )

    weight = class_weights(parts["train"], len(data.classes), recipe.class_balance)
    for name in PHASES:
        if name not in options.steps:
            continue
        if (out / name / "best" / "model.safetensors").exists():
            say(f"{name}: done before")
            continue
        # The T-CNN alone zooms nowhere and needs no larger frames.
        phased = recipe
        if name == "tcnn":
            phased = replace(recipe, preprocess=replace(recipe.preprocess, zoom_source=1))
        pre, canvas = phased.preprocess, recipe.preprocess.stored_canvas
        datasets = (
            ClipDataset(parts["train"], pre, recipe.augment, cached, options.seed, canvas=canvas),
            ClipDataset(parts["val"], pre, None, cached, clips=3, canvas=canvas) if parts["val"] else None,
        )
        torch.manual_seed(options.seed)
        model = build(phased, data.classes, joint=name == "joint")
        if name == "joint" and "tcnn" in options.steps:
            start_from(model, out / "tcnn" / "best", say)
        elif options.init:
            start_from(model, options.init, say)
        elif options.weights:
            for line in load_weights(model.backbone, options.weights):
                say(line)
            say(_normalisation(phased.preprocess))
        model.start_heads_from_original()
        _fit(name, model, phased, options, out, datasets, weight, problems, say)
    return out
