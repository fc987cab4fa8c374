"""Training in two stages, as the paper: the T-CNN first, then the branches from it (docs/method.md, section 6).

:func:`train` is the whole way: check, open the run, decode, then build, fit and save each stage. Lightning carries the
loop; docs/runs.md lists the files. What is read again is written whole or not at all (:mod:`peakzoom.utils.durable`),
so that a run may be killed, or its disk be full, at any moment: ``resume`` takes the last checkpoint that can be read,
and ends with the same weights.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peakzoom.data.doubts import doubts
from peakzoom.data.entries import Entry, VideoSet, label_counts, some
from peakzoom.data.runs import STAGES
from peakzoom.data.splits import split_validation, usual_share
from peakzoom.evaluation.multi_label import HALF, targets_of, told
from peakzoom.evaluation.stats import FEW
from peakzoom.model import PeakZoom
from peakzoom.training.batch_augment import told_changes
from peakzoom.training.check import check_settings
from peakzoom.training.distributed import end_with_launcher, first_process_logs, is_main_process
from peakzoom.training.folder import (
    alone_in,
    expect_unchanged,
    note_problems,
    open_run,
    save_stage,
    write_lists,
)
from peakzoom.training.frames import Frames, decode_all
from peakzoom.training.module import Training
from peakzoom.training.options import FROM_SCRATCH, Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.stage import (
    FEATURES,
    StageRun,
    build_stage,
    fit_stage,
    make_trainer,
    stage_run,
)
from peakzoom.training.start import resolved, without_start
from peakzoom.utils.digests import digests, same_bytes
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import hash_of
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.words import counted

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
    with prepared(data, recipe, out, options, resume) as ready:
        train_stages(ready)
    return Path(out)


@dataclass(frozen=True)
class Ready:
    """A run whose videos are decoded and listed: its stages can be trained.

    Attributes:
        out: the run folder.
        classes: of the data.
        recipe: with what it left to the data.
        options: resolved.
        parts: the videos that could be decoded, by what they are for.
        frames: theirs.
        several: how many classes, where a video may have several labels.
    """

    out: Path
    classes: list[str]
    recipe: Recipe
    options: Options
    parts: Splits
    frames: Frames
    several: int | None


@contextmanager
def prepared(
    data: VideoSet,
    recipe: Recipe,
    out: str | Path,
    options: Options | None = None,
    resume: bool = False,
    also: Mapping[str, Any] | None = None,
) -> Iterator[Ready]:
    """A run folder, opened and no other process's during the block, with all that its stages need.

    The arguments are those of :func:`train`; ``also`` is what else a resumed run has to ask for again.

    Raises:
        UserError: as :func:`train`.
    """
    out, options = Path(out), options or Options()
    end_with_launcher()

    def way_out() -> str:
        return "go on with --resume" if (out / "config.json").exists() else "begin anew"

    with explain_full_disk(out, way_out), first_process_logs(), ExitStack() as held:
        given, options = options, _with_share(resolved(options, recipe), data)
        parts = _split(data, options)
        check_settings(
            *(recipe, options, data.classes), validates=bool(parts["val"]), multi_label=data.multi_label
        )
        if is_main_process():
            held.enter_context(alone_in(out))
            open_run(out, {**_recorded(data, parts, recipe, options), **(also or {})}, resume)
        known = _look_before(out, data, parts, options)
        if options.init == FROM_SCRATCH != given.init:
            log.info(without_start(recipe))
        log.info(told_changes(recipe))
        frames = decode_all([entry.path for entry in parts["train"] + parts["val"]], recipe, options)
        recipe = replace(recipe, preprocess=frames.preprocess)
        parts = _list_videos(out, data, parts, frames, known)
        several = len(data.classes) if data.multi_label else None
        yield Ready(out, list(data.classes), recipe, options, parts, frames, several)
        shutil.rmtree(out / FEATURES, ignore_errors=True)


def train_stages(ready: Ready, made: Callable[[StageRun, Sequence[str]], Training] = build_stage) -> None:
    """Build, fit and save each stage that is asked for and not done.

    Args:
        ready: the run.
        made: builds a stage's network with the weights that it starts from.
    """
    out, recipe, parts = ready.out, ready.recipe, ready.parts
    for name in (name for name in STAGES if name in ready.options.steps):
        if (out / name / "best" / "model.safetensors").exists():
            log.info("%s: done before", name)
            continue
        stage = stage_run(name, out, recipe, ready.options, parts, ready.frames, ready.several)
        training, trainer = made(stage, ready.classes), make_trainer(stage)
        met = fit_stage(stage, trainer, training)
        if trainer.is_global_zero:
            note_problems(out, met)
            save_stage(training.model, stage.folder, one_pass=recipe.distill > 0 and training.model.zooms)
            _say_thresholds(training.model, parts["val"])
        trainer.strategy.barrier()  # stage 2 starts from these weights


def _say_thresholds(model: PeakZoom, validated: Sequence[Entry]) -> None:
    """Say what was chosen of a model for several labels, and for which classes nothing could be."""
    thresholds = model.config.thresholds
    if thresholds is None:
        return
    known = told(targets_of([entry.labels for entry in validated], len(thresholds)))
    chosen = [value for value, is_known in zip(thresholds, known, strict=True) if is_known]
    usual = [name for name, is_known in zip(model.classes, known, strict=True) if not is_known]
    said = f"{min(chosen):.2f} to {max(chosen):.2f}, by F1 on validation videos" if chosen else ""
    kept = (
        f"{HALF:g} for {some(usual)}, of which fewer than {FEW} validation videos tell one" if usual else ""
    )
    log.info(f"thresholds of the classes: {'; '.join(each for each in (said, kept) if each)}")


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
    videos = [
        [str(entry.path.absolute()), entry.labels if entry.also else entry.label, part]
        for part, all in parts.items()
        for entry in all
    ]
    return {
        "data": f"{len(videos)} videos, {hash_of(videos)}",
        "classes": data.classes,
        **({"multi_label": True} if data.multi_label else {}),
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
    with progress_bar(f"reading {counted(len(looked_at), 'video')}", options.progress) as report:
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
    learned = label_counts(used["train"]).keys()
    if gone := sorted(label_counts(parts["train"]).keys() - learned):
        log.warning(
            f"no training video of {some(data.classes[label] for label in gone)} could be decoded: never learned"
        )
    log.info(
        f"{len(used['train'])} videos to train on, {len(used['val'])} to validate, {len(used['test'])} for testing "
        f"(not looked at), {counted(len(data.classes), 'class')}"
    )
    return used
