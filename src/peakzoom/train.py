"""Training in two steps, as the paper: the T-CNN first, then all three branches from it (METHOD.md, section 6).

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
        best/ last/                weights (safetensors) and config.json, for peakzoom.load and from_pretrained, and
                                   README.md, the model card
        metrics.csv curves.png     accuracy and loss of every epoch
        tensorboard/

Whatever is read again is written whole or not at all (:mod:`peakzoom.durable`), so that a run may be killed, or its
disk be full, at any moment: ``resume`` takes the last checkpoint that can be read, and ends with the same weights.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import shlex
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from peakzoom.checkpoints import SafeCheckpoints, checkpoint_callback, newest, read_checkpoint
from peakzoom.durable import DRAFT, telling_full_disk, whole, whole_folder, write_csv, write_text
from peakzoom.errors import DecodeError, UserError
from peakzoom.journal import hash_of
from peakzoom.memory import keep_freed_memory
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.backbones import FIXED_LENGTH
from peakzoom.model.network import ATTENTION_PER, RESPONSES, PeakZoomOutput
from peakzoom.plots import plot_curves
from peakzoom.precision import slow_in, wrong_gradients
from peakzoom.predict import find_model, read_model
from peakzoom.processes import Share, SyncBatchNorm, Together, launched, lost_another, place, synchronise
from peakzoom.progress import in_notebook, is_watched, progress_bar
from peakzoom.recipes import Phase, Recipe
from peakzoom.runs import NAME_FILE
from peakzoom.runs import PHASES as PHASES
from peakzoom.runs import read_metrics as read_metrics
from peakzoom.video.cache import AUTO_LIMIT, CachedVideo, FrameCache, cache_home, fill, free_bytes
from peakzoom.video.clips import clip_span
from peakzoom.video.decode import probe
from peakzoom.video.entries import Entry, Problem, VideoSet
from peakzoom.video.guard import guarded
from peakzoom.video.loading import Batch, ClipDataset, EpochSampler, loader, seed_of, used_in_part
from peakzoom.video.splits import split_validation
from peakzoom.video.views import Preprocess, to_input
from peakzoom.weights import load_weights

Say = Callable[[str], None]
CHECK_EVERY = 50  # steps between looks at the loss on a GPU, each of which waits for it


@dataclass(frozen=True)
class Options:
    """What a user may ask of a training beside the recipe.

    Attributes:
        seed: of weights, order, crops and splits.
        val_fraction: share of the training videos held back for choosing the epoch; 0 trains on all and keeps the
            last epoch.
        cache: "auto", "on" or "off".
        workers: loader processes; None = one less than the processors.
        accelerator, devices, num_nodes, precision: Lightning's; where ``torchrun`` started the processes, devices
            "auto" and one node mean as many as it did.
        sync_batch_norm: batch norms take their statistics from all processes' clips, not from each one's own.
        patience: epochs without a better validation before a phase stops; None = never.
        steps: which phases to train.
        init: weights to start the T-CNN from (a run folder, a saved model); a head of other classes is made new.
        weights: a public weight file to start it from instead, see :func:`peakzoom.weights.load_weights`.
        progress: show progress bars, where there is a terminal or a notebook to show them.
    """

    seed: int = 0
    val_fraction: float = 0.15
    cache: str = "auto"
    workers: int | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    patience: int | None = None
    steps: tuple[str, ...] = PHASES
    init: str | None = None
    weights: str | None = None
    progress: bool = True
    sync_batch_norm: bool = False


def schedule(step: int, steps: int, phase: Phase) -> float:
    """Learning rate at a step as a multiple of ``phase.lr``: linear warm-up, then a cosine to ``final_lr``."""
    rise = phase.warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    done = min(1.0, (step - rise) / max(1.0, steps - rise))
    low = phase.final_lr / phase.lr
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: PeakZoom, phase: Phase) -> Optimizer:
    """SGD decays every weight, as the paper's would; AdamW spares biases, batch norms and the two betas."""
    if phase.optimizer == "sgd":
        return SGD(model.parameters(), phase.lr, momentum=0.9, weight_decay=phase.weight_decay)
    if phase.optimizer != "adamw":
        raise UserError(f"optimizer is {phase.optimizer!r}, expected sgd or adamw")
    decayed = [value for value in model.parameters() if value.dim() > 1]
    spared = [value for value in model.parameters() if value.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return AdamW(groups, phase.lr, weight_decay=phase.weight_decay)


class Training(L.LightningModule):
    """One phase as Lightning sees it. ``problems`` gathers the files that could not be decoded on the way."""

    class_weight: Tensor | None

    def __init__(
        self, model: PeakZoom, recipe: Recipe, phase: Phase, seed: int, class_weight: Tensor | None
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe, self.phase, self.seed = recipe, phase, seed
        self.register_buffer("class_weight", class_weight, persistent=False)
        self.problems: dict[str, Problem] = {}
        self.draws: torch.Generator | None = None
        self.together = Together(1)
        self.sums: dict[str, list[Any]] = {}  # of an epoch so far: [sum over the clips, clips]
        self._finite: Tensor = torch.tensor(True)

    def on_fit_start(self) -> None:
        self.together = Together(self.trainer.world_size)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.phase)
        steps = int(self.trainer.estimated_stepping_batches)
        scale = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps, self.phase))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scale, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout and the split of peaks draw anew from (seed, step), so a resumed run draws what it would have. Every
        # process draws for the whole batch and takes its part, so their number changes nothing. (The 0 was once the
        # process's number; it stays, for the same draws as then.)
        state = seed_of(self.seed, self.global_step, 0)
        torch.manual_seed(state)
        self.draws = torch.Generator(self.device).manual_seed(state)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # Lightning's own would go into the problems and stumble over them.
        return batch.to(device, self.recipe.preprocess.source_size)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self._note(batch)
        world = self.trainer.world_size
        share = self.together.share(len(batch.views))
        if not share.total and world == 1:
            return None
        if not share.total:
            return self._nothing()
        present = len(batch.views) > 0
        norms = [part for part in self.modules() if isinstance(part, SyncBatchNorm)]
        for norm in norms:
            norm.counts = present
        if present:
            output, labels = self._run(batch, share if world > 1 else None), batch.labels
        elif norms:  # the others wait for this process's sums
            labels = batch.labels.new_zeros(1)
            output = self._run(Batch(self._stand_in(), labels, []))
        if present or norms:
            loss = self.model.loss(
                output, labels, label_smoothing=self.phase.label_smoothing, class_weight=self.class_weight
            )
        else:
            loss = self._nothing()
        if world > 1:
            loss = loss * self._weight_among_all(batch.labels)  # 0 where a clip only stands in
        if present:
            self._measure("train", output, batch, loss.detach() * share.total / world)
        self._finite = loss.detach().isfinite() & self._finite
        if self.device.type == "cpu" or self.global_step % CHECK_EVERY == 0:
            self._check_finite()
        return loss

    def _nothing(self) -> Tensor:
        """A loss of 0 with gradients of 0, for which the other processes wait."""
        used = [value for value in self.parameters() if value.requires_grad]
        return torch.stack([0 * value.sum() for value in used]).sum()

    def _stand_in(self) -> Tensor:
        """One black clip, as :attr:`Batch.views`."""
        pre = self.recipe.preprocess
        shape = (1, pre.frames, 3, pre.source_size, pre.source_size)
        return torch.zeros(shape, dtype=torch.uint8, device=self.device)

    def _weight_among_all(self, labels: Tensor) -> Tensor:
        """What this process's mean loss counts in the mean of all: how its clips weigh against the others', times W."""
        weight = self.class_weight
        own = (
            weight[labels].sum()
            if weight is not None
            else torch.tensor(float(len(labels)), device=self.device)
        )
        every = own.clone()
        torch.distributed.all_reduce(every)
        return self.trainer.world_size * own / every.clamp(min=1e-30)

    def _check_finite(self) -> None:
        if not self.together.all(bool(self._finite)):
            raise UserError(self._not_finite())

    def on_train_epoch_end(self) -> None:
        # Before the checkpoint callbacks: what they saved last is from before.
        self._check_finite()

    def _not_finite(self) -> str:
        return (
            f"the loss is no longer a finite number in epoch {self.current_epoch + 1}, step {self.global_step}: train "
            "anew with a lower --lr, or with --precision 32-true where it was another"
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._note(batch)
        if len(batch.views):
            output = self._run(batch)
            loss = self.model.loss(output, batch.labels)
            self._measure("val", output, batch, loss * len(batch.labels))

    def on_validation_epoch_end(self) -> None:
        measured = self.log_epoch("val")
        if measured:
            # Accuracy chooses the epoch; on few videos it ties often, and then the lower loss does.
            score = measured["val_accuracy"] - 1e-3 * min(measured["val_loss"], 10.0)
        else:  # no validation video could be decoded: as without any, the last epoch is kept
            score = float(self.current_epoch - 1_000_000)
        self.log("val_score", score)

    def _run(self, batch: Batch, share: Share | None = None) -> PeakZoomOutput:
        video, source = to_input(batch.views, self.recipe.preprocess)
        dtype = self.model.backbone.fc.weight.dtype  # another than float32 where --precision is 64-true, say
        video, source = video.to(dtype), None if source is None else source.to(dtype)
        return self.model(video, source, generator=self.draws, share=share)

    def _names(self) -> list[str]:
        return [*self.model.branches, "fused"] if len(self.model.branches) > 1 else ["fused"]

    def _measure(self, part: str, output: PeakZoomOutput, batch: Batch, loss: Tensor) -> None:
        """Add to the sums of the epoch: ``loss``, a sum over the clips and the branches, and the right answers."""
        logits, names = output.logits(), self._names()
        found = {f"{part}_loss": loss / len(names)}
        for name in names:
            found[_accuracy(part, name)] = (logits[name].argmax(1) == batch.labels).sum()
        for key, value in found.items():
            total = self.sums.setdefault(key, [0.0, 0])
            total[0] = total[0] + value.detach().float()  # on the device: a GPU is not waited for
            total[1] += len(batch.labels)

    def log_epoch(self, part: str) -> dict[str, float]:
        """Log the epoch's means over the clips of all processes and begin anew; empty where there was no clip."""
        keys = [f"{part}_loss", *(_accuracy(part, name) for name in self._names())]
        own = [float(value) for key in keys for value in self.sums.pop(key, (0.0, 0))]
        total = self.together.sums(own)
        means = {key: total[2 * i] / total[2 * i + 1] for i, key in enumerate(keys) if total[2 * i + 1]}
        for key, mean in means.items():
            self.log(key, mean, prog_bar=key in (f"{part}_loss", f"{part}_accuracy"))
        return means

    def _note(self, batch: Batch) -> None:
        for path, reason in batch.problems:
            self.problems.setdefault(path, Problem(path, reason))


def _accuracy(part: str, name: str) -> str:
    return f"{part}_accuracy" + ("" if name == "fused" else f"_{name}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["problems"] = [(each.path, each.reason) for each in self.problems.values()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for path, reason in checkpoint.get("problems", []):  # absent from runs of older versions
            self.problems.setdefault(path, Problem(path, reason))


class EpochLog(Callback):
    """One row of ``metrics.csv`` and one redrawn plot an epoch; one line a time where there is no progress bar."""

    def __init__(self, folder: Path, say: Say | None, name: str) -> None:
        self.file, self.say, self.name = folder / "metrics.csv", say, name
        self.began = time.monotonic()
        self.first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.log_epoch("train")
        if not trainer.is_global_zero:
            return
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rows = read_metrics(self.file)
        epoch = trainer.current_epoch
        attention = pl_module.model.attention
        row = {
            "epoch": epoch + 1,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "beta_dis": float(attention.beta_dis.detach()),
            "beta_com": float(attention.beta_com.detach()),
            **measured,
        }
        rows = [old for old in rows if old["epoch"] <= epoch] + [row]  # a resumed run writes its epochs once
        columns = list(dict.fromkeys(name for each in rows for name in each))
        with whole(self.file) as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        with whole(self.file.with_name("curves.png"), "wb") as stream:
            plot_curves(rows, stream, self.name)
        if self.say:
            took = time.monotonic() - self.began
            left = took / (epoch + 1 - self.first) * ((trainer.max_epochs or 0) - epoch - 1)
            shown = [f"{name} {measured[key]:{form}}" for key, name, form in SHOWN if key in measured]
            self.say(
                f"{self.name} epoch {epoch + 1}/{trainer.max_epochs}: {', '.join(shown)}, {left:.0f} s left"
            )


SHOWN = (
    ("train_loss", "loss", ".3f"),
    ("train_accuracy", "accuracy", ".1%"),
    ("val_loss", "validation loss", ".3f"),
    ("val_accuracy", "validation accuracy", ".1%"),
)


def class_weights(entries: Sequence[Entry], classes: int, balance: float) -> Tensor | None:
    """Loss weights (S,) proportional to (1 / n_c)^balance, with mean 1 over the videos; None when all are 1."""
    counts = Counter(entry.label for entry in entries)
    if not balance or len(set(counts.values())) == 1:
        return None
    raw = torch.tensor([counts.get(label, 0) for label in range(classes)], dtype=torch.float32)
    weight = raw.clamp(min=1).pow(-balance)
    return weight * raw.sum() / (weight * raw).sum()


def _decode_all(
    entries: Sequence[Entry], recipe: Recipe, options: Options, say: Say
) -> tuple[dict[Path, CachedVideo], list[Problem], Recipe]:
    """Fill the cache (or look at the files, without one) and settle what the recipe leaves to the data."""
    paths = [entry.path for entry in entries]
    started = launched()
    workers = options.workers
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // (started[0] if started else 1))
    sample = paths[:: max(1, len(paths) // 16)][:16]
    infos = []
    for path in sample:
        try:
            infos.append(guarded(path, probe, path))
        except DecodeError:
            continue  # counted below, with all files, or by the loader when it meets the file
    if not infos:
        raise UserError(
            f"none of {len(sample)} videos could be decoded; run 'peakzoom data check' on this data"
        )
    pre = recipe.preprocess
    rates = [info.fps for info in infos if info.fps > 0]
    if recipe.same_rate and pre.fps is None and rates and max(rates) > 1.2 * min(rates):
        pre = replace(pre, fps=float(np.median(rates)))
        say(
            f"frame rates differ ({min(rates):.3g} to {max(rates):.3g}): all videos are taken at {pre.fps:.3g} a second"
        )
    lengths = [info.duration * pre.fps if pre.fps else info.frames for info in infos]

    height, width = pre.stored_canvas
    size = int(np.mean(lengths) * height * width * 3 * len(paths))
    folder = cache_home()
    use = options.cache == "on" or (
        options.cache == "auto" and size <= min(AUTO_LIMIT, free_bytes(folder) // 2)
    )
    cached: dict[Path, CachedVideo] = {}
    problems: list[Problem] = []
    if use:
        say(f"decoding {len(paths)} videos into {folder} (about {size / 1e9:.2g} GB at {width} x {height})")
        with progress_bar(f"decoding {len(paths)} videos", options.progress and is_main_process()) as told:
            # Each process begins elsewhere, and finds there what the others have decoded when it comes to it.
            rank, world = place()
            begin = rank * len(paths) // world
            turned = paths[begin:] + paths[:begin]
            found = fill(FrameCache(folder, pre.stored_canvas, pre.fps), turned, workers, told)
        for path in dict.fromkeys(paths):
            result = found[path]
            if isinstance(result, DecodeError):
                problems.append(Problem(str(path), result.reason))
            else:
                cached[path] = result
                if result.problem:
                    problems.append(used_in_part(path, result.problem))
        lengths = [video.frames for video in cached.values()] or lengths
    else:
        say(
            f"no cache of decoded frames ({size / 1e9:.3g} GB; --cache on makes one): "
            "videos are decoded each time, and broken ones are listed when they are met"
        )
    if recipe.stride is None:
        stride = max(1, round((recipe.reach * float(np.median(lengths)) - 1) / max(1, pre.frames - 1)))
        pre = replace(pre, stride=stride)
        say(
            f"frame stride {stride}: a clip of {pre.frames} frames spans {clip_span(pre.frames, stride)} "
            f"of a median video's {np.median(lengths):.0f}"
        )
    else:
        pre = replace(pre, stride=recipe.stride)
    return cached, problems, replace(recipe, preprocess=pre)


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of several that train together."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _unheard(line: str) -> None:
    """What the other processes say: all of them would say the same."""


def _write_lists(
    out: Path, data: VideoSet, parts: dict[str, list[Entry]], problems: Sequence[Problem]
) -> None:
    # Absolute paths: an evaluation from another folder must know its training videos again.
    write_text(out / "classes.txt", "\n".join(data.classes) + "\n")
    write_text(out / NAME_FILE, data.name + "\n")
    write_csv(
        out / "videos.csv",
        ["path", "label", "class", "group", "split"],
        (
            [entry.path.absolute(), entry.label, data.classes[entry.label], entry.group or "", split]
            for split, entries in parts.items()
            for entry in entries
        ),
    )
    _write_problems(out, problems)


def _write_problems(out: Path, problems: Sequence[Problem]) -> None:
    write_csv(out / "problems.csv", ["path", "reason"], ((each.path, each.reason) for each in problems))


def _read_problems(out: Path) -> list[Problem]:
    """Those that a stopped run has noted: a phase that is done meets its videos no more."""
    file = out / "problems.csv"
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [Problem(row["path"], row["reason"]) for row in csv.DictReader(stream)]


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
    if recipe.model not in BACKBONES:
        raise UserError(f"model is {recipe.model!r}, expected one of {', '.join(BACKBONES)}")
    if recipe.attention_per not in ATTENTION_PER:
        raise UserError(
            f"attention per {recipe.attention_per!r} is unknown, expected one of {', '.join(ATTENTION_PER)}"
        )
    if recipe.response not in RESPONSES:
        raise UserError(f"response is {recipe.response!r}, expected one of {', '.join(RESPONSES)}")
    if not 0 <= recipe.erase < 1:
        raise UserError(
            f"erase is {recipe.erase:g}, expected 0 or more and less than 1, a fraction of the frame"
        )
    for phase in (recipe.tcnn, recipe.joint):
        if not 0 < phase.lr < math.inf:
            raise UserError(f"the learning rate is {phase.lr:g}, expected a number above 0")
    if options.patience is not None and not validates:
        raise UserError("--patience needs validation videos, and --val-fraction 0 leaves none")
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


def _open_run(out: Path, config: dict[str, Any], resume: bool) -> None:
    """Make the run folder, or check that a resumed run asks for what the first one did."""
    file = out / "config.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a new folder with --out")
    if out.exists() and any(each.name != file.name + DRAFT for each in out.iterdir()):
        if not resume:
            raise UserError(f"{out} is not empty: --resume goes on with it, another --out begins anew")
        if not file.exists():
            raise UserError(f"{out} holds no training to resume: config.json is missing")
        before = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(config))
        if changed := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
            raise UserError(
                f"{out} was begun with another {', '.join(changed)}; resume with the same, or use another --out"
            )
    elif resume:
        raise UserError(f"{out} does not exist or is empty: there is nothing to resume")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(config, indent=2) + "\n")
    if not (out / "command.txt").exists():  # or a run was killed between the two
        write_text(out / "command.txt", shlex.join(sys.argv) + "\n")


def backbone_options(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says about its video network beside the width."""
    options: dict[str, Any] = {"max_stride": recipe.max_stride}
    if recipe.model in FIXED_LENGTH:
        options["frames"] = recipe.preprocess.frames
    return options


def build(recipe: Recipe, classes: Sequence[str], joint: bool) -> PeakZoom:
    """The untrained network of a recipe's first or second (``joint``) phase."""
    model = PeakZoom(
        recipe.model,
        len(classes),
        branches=recipe.branches if joint else ("original",),
        width=recipe.width,
        backbone_options=backbone_options(recipe),
        dropout=recipe.dropout,
        attention_per=recipe.attention_per,
        response=recipe.response,
        erase=recipe.erase,
        classes=list(classes),
        preprocess=recipe.preprocess.to_dict(),
    )
    if model.branches == ("original",):
        model.attention.requires_grad_(False)  # unused: several processes would wait for its gradients
    return model


def _save(model: PeakZoom, folder: Path) -> None:
    """Save a model under a name of its own first: a folder called ``best`` is always whole."""
    with whole_folder(folder) as draft:
        model.save_pretrained(draft, model_card_kwargs={"folder": folder})


def start_from(model: PeakZoom, init: str | Path, say: Say) -> None:
    """Load a trained model's backbone; a classifier of other classes stays as it is made, and that is said."""
    trained = read_model(find_model(init))
    weights = trained.backbone.state_dict()
    if trained.classes != model.classes:
        say(f"{init}: {len(trained.classes)} other classes, so the classifier starts anew")
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    own = model.backbone.state_dict()
    if unfit := sorted(
        name for name, value in weights.items() if name not in own or own[name].shape != value.shape
    ):
        raise UserError(
            f"{init} is another network than this one ({unfit[0]} does not fit); name its --model"
        )
    missing = [name for name in own if name not in weights and not name.startswith("fc.")]
    if missing:
        raise UserError(f"{init} is another network than this one (it has no {missing[0]}); name its --model")
    model.backbone.load_state_dict({**own, **weights})


def _normalisation(pre: Preprocess) -> str:
    """How pixels are normalised; where nobody chose it, that a weight file may have been trained otherwise."""
    mean, std = (",".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    line = f"pixels are normalised with mean {mean} and std {std}"
    if (pre.mean, pre.std) == (Preprocess.mean, Preprocess.std):
        line += "; the weights' own may differ: give it with --mean and --std"
    return line


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
    if bar and in_notebook():
        callbacks.append(TQDMProgressBar())  # the default there needs ipywidgets
    if options.patience is not None:
        if val_set is None:
            raise UserError("--patience needs validation videos, and none of them could be decoded")
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
    met = list(training.problems.values())
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, met)
        met = list(dict.fromkeys(problem for each in gathered for problem in each))
    met = [problem for problem in met if problem not in problems]  # the first phase has met most of them
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
        recipe: see :mod:`peakzoom.recipes`.
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
