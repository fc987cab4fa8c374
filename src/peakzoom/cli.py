"""The command line: ``peakzoom quickstart | train | evaluate | predict | report | ablate | compare | data``.

Results go to standard output, everything about the way there to standard error. A user's mistake is one sentence and
exit code 2; files that gave no answer among others that did make exit code 1.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from peakzoom.errors import DecodeError, UserError
from peakzoom.video.parallel import tenths

if TYPE_CHECKING:
    from peakzoom.evaluate import Evaluation
    from peakzoom.predict import Prediction
    from peakzoom.recipes import Recipe
    from peakzoom.study import Arm, Fold, Key, Study
    from peakzoom.video.entries import VideoSet

app = typer.Typer(
    name="peakzoom",
    help="Recognise actions in video, with temporal and spatial attention.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

# No markup and no emoji: a class may be called "[/b]" and a file ":+1:.mp4".
out_console = Console(markup=False, emoji=False, highlight=False)
err_console = Console(stderr=True, markup=False, emoji=False, highlight=False)

# Typer brings a Click of its own in some versions and uses the installed one in others; this is the base of its errors.
USAGE_ERROR: type[Any] = next(
    each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException"
)
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def say(line: str) -> None:
    """One line on the way, to standard error."""
    err_console.print(line, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal, a line every tenth elsewhere."""
    if not err_console.is_terminal:
        yield tenths(say, f"{title}: ")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class RecipeName(str, Enum):
    """Recipes by name."""

    small = "small"
    paper = "paper"


class Cache(str, Enum):
    """Whether decoded frames are kept on disk."""

    auto = "auto"
    on = "on"
    off = "off"


class Steps(str, Enum):
    """Which trainings to run."""

    both = "both"
    tcnn = "tcnn"
    joint = "joint"


class Layout(str, Enum):
    """How a data set is laid out."""

    auto = "auto"
    folder = "folder"
    manifest = "manifest"
    ucf101 = "ucf101"
    hmdb51 = "hmdb51"
    kinetics = "kinetics"


DATA_HELP = (
    "Folder of class subfolders; CSV/TSV manifest (path, label, split, group); UCF101, HMDB51, Kinetics."
)
DataArg = Annotated[Path, typer.Argument(help=DATA_HELP, show_default=False)]
FormatOpt = Annotated[Layout, typer.Option("--format", help="Layout of DATA.")]
SplitsOpt = Annotated[Path | None, typer.Option(help="Folder of the official split files (UCF101, HMDB51).")]
SplitNumberOpt = Annotated[int, typer.Option("--split-number", help="Which official split: 1, 2 or 3.")]
RootOpt = Annotated[Path | None, typer.Option(help="Folder that the paths of a manifest start from.")]
DeviceOpt = Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")]
RunArg = Annotated[
    str, typer.Argument(help="Run folder, saved model, or owner/name on the hub.", show_default=False)
]
ClipsOpt = Annotated[
    str,
    typer.Option(
        "--clips", help="Clip rule: paper, tsm-dense, slowfast, mmaction2, mmaction2-0.x, tsn-uniform."
    ),
]
NumClipsOpt = Annotated[int, typer.Option("--num-clips", help="Clips of a video.")]
CropsOpt = Annotated[int, typer.Option("--crops", help="Crops of a clip.")]


def _open(data: Path, layout: Layout, splits: Path | None, number: int, root: Path | None) -> VideoSet:
    from peakzoom.video.datasets import open_data

    found = open_data(data, layout.value, splits, number, root)
    for note in found.notes:
        say(note)
    return found


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="New folder for clips, run and results.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    train_clips: Annotated[int | None, typer.Option(min=1, help="Rendered clips to train on.")] = None,
    test_clips: Annotated[int | None, typer.Option(min=1, help="Rendered clips to test on.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that render and decode.")] = 2,
) -> None:
    """Render a small set of action clips, train both steps, evaluate, and draw where the network looked.

    Example: `peakzoom quickstart`
    """
    from peakzoom.quickstart import TEST_CLIPS, TRAIN_CLIPS
    from peakzoom.quickstart import quickstart as run

    if out.is_file():
        raise UserError(f"{out} is a file: name a new folder with --out")
    done = run(
        out,
        seed=seed,
        train_clips=TRAIN_CLIPS if train_clips is None else train_clips,
        test_clips=TEST_CLIPS if test_clips is None else test_clips,
        workers=workers,
        say=say,
    )
    table = Table(title="Held-out performers and backgrounds", title_justify="left")
    for column in ("network", "top-1", "mean class accuracy"):
        table.add_column(column, justify="left" if column == "network" else "right")
    alone = done.tcnn.fused
    table.add_row("T-CNN alone (step 1)", f"{alone.top1:.1%}", f"{alone.mean_class:.1%}", end_section=True)
    for name, branch in done.joint.branches.items():
        table.add_row(
            NAMES[name],
            f"{branch.top1:.1%}",
            f"{branch.mean_class:.1%}",
            style="bold" if name == "fused" else "",
        )
    out_console.print(table)
    out_console.print(
        f"Where it looked: {done.picture}\nTable, scores, confusion: {done.out / 'evaluation-joint'}\n"
        f"Model: {done.out / 'run'}, for instance: peakzoom predict {done.out / 'run'} CLIP.mp4\n"
        f"Took {done.seconds:.0f} s.",
        soft_wrap=True,
    )


NAMES = {
    "original": "T-CNN + spatial: original (O)",
    "discriminative": "T-CNN + spatial: discriminative (D)",
    "complementary": "T-CNN + spatial: complementary (C)",
    "fused": "T-CNN + spatial: fused answer",
}


def _adapt(recipe: Recipe, **asked: Any) -> Recipe:
    """The recipe with what the command line asks for instead."""
    pre, augment, tcnn, joint = recipe.preprocess, recipe.augment, recipe.tcnn, recipe.joint
    if (size := asked["size"]) is not None:
        canvas = (round(pre.canvas[0] * size / pre.size), round(pre.canvas[1] * size / pre.size))
        pre = replace(pre, size=size, canvas=canvas)
    for name in ("frames", "fps", "zoom_source"):
        if asked[name] is not None:
            pre = replace(pre, **{name: asked[name]})
    if asked["epochs"] is not None:
        tcnn = replace(tcnn, epochs=asked["epochs"], min_steps=0)
    if asked["joint_epochs"] is not None:
        joint = replace(joint, epochs=asked["joint_epochs"], min_steps=0)
    if asked["lr"] is not None:
        tcnn = replace(tcnn, lr=asked["lr"], final_lr=min(tcnn.final_lr, asked["lr"]))
        joint = replace(joint, lr=asked["lr"], final_lr=min(joint.final_lr, asked["lr"]))
    if asked["no_flip"]:
        augment = replace(augment, flip=False)
    rest = {
        name: asked[name]
        for name in ("model", "width", "batch_size", "stride", "attention_per")
        if asked[name] is not None
    }
    return replace(recipe, preprocess=pre, augment=augment, tcnn=tcnn, joint=joint, **rest)


RecipeOpt = Annotated[
    RecipeName, typer.Option("--recipe", help="small: from scratch on small data; paper: Sec. 3.1.")
]
ModelOpt = Annotated[
    str | None, typer.Option(help="Network: tcnn (paper), tcnn_s, tcnn_xs, or a peer: r3d_18, tsm, i3d ...")
]
EpochsOpt = Annotated[int | None, typer.Option(min=1, help="Of the T-CNN.")]
JointEpochsOpt = Annotated[int | None, typer.Option(min=1, help="Of the joint training.")]
BatchOpt = Annotated[int | None, typer.Option(min=1, help="Clips in a batch.")]
LrOpt = Annotated[float | None, typer.Option(help="Highest learning rate of both steps.")]
SizeOpt = Annotated[int | None, typer.Option(min=32, help="Side of the input in pixels.")]
FramesOpt = Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")]
StrideOpt = Annotated[int | None, typer.Option(min=1, help="Frame stride.")]
FpsOpt = Annotated[float | None, typer.Option(min=0.01, help="Take every video at this rate.")]
ZoomSourceOpt = Annotated[int | None, typer.Option(min=1, help="Zoom from frames this many times the input.")]
AttentionPerOpt = Annotated[str | None, typer.Option(help="One attention per frame (paper) or per clip.")]
NoFlipOpt = Annotated[
    bool, typer.Option("--no-flip", help="Never mirror: left and right are different classes.")
]
WidthOpt = Annotated[float | None, typer.Option(min=0.01, help="Factor on the network's channels.")]
CacheOpt = Annotated[Cache, typer.Option(help="Keep decoded frames on disk; auto: up to 8 GiB.")]
WorkersOpt = Annotated[int | None, typer.Option(min=0, help="Loader processes.")]
PrecisionOpt = Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed ...")]
AcceleratorOpt = Annotated[str, typer.Option(help="auto, cpu, gpu, mps ...")]
DevicesOpt = Annotated[str, typer.Option(help="How many, or which.")]


@app.command()
def train(
    data: DataArg,
    out: Annotated[Path, typer.Option(help="New folder for the run.", show_default=False)],
    recipe: RecipeOpt = RecipeName.small,
    steps: Annotated[
        Steps, typer.Option(help="T-CNN, joint training of the three branches, or both.")
    ] = Steps.both,
    init: Annotated[
        str | None, typer.Option(help="Trained model to start from; other classes get a new head.")
    ] = None,
    model: ModelOpt = None,
    width: WidthOpt = None,
    epochs: EpochsOpt = None,
    joint_epochs: JointEpochsOpt = None,
    batch_size: BatchOpt = None,
    lr: LrOpt = None,
    size: SizeOpt = None,
    frames: FramesOpt = None,
    stride: StrideOpt = None,
    fps: FpsOpt = None,
    zoom_source: ZoomSourceOpt = None,
    attention_per: AttentionPerOpt = None,
    no_flip: NoFlipOpt = False,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Of the training videos; 0 keeps the last epoch.")
    ] = 0.15,
    test_groups: Annotated[
        str | None, typer.Option(help="Groups to set aside for testing, as 4,8,9.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, crops and splits.")] = 0,
    cache: CacheOpt = Cache.auto,
    workers: WorkersOpt = None,
    precision: PrecisionOpt = "32-true",
    accelerator: AcceleratorOpt = "auto",
    devices: DevicesOpt = "auto",
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out.")] = False,
    layout: FormatOpt = Layout.auto,
    splits: SplitsOpt = None,
    split_number: SplitNumberOpt = 1,
    root: RootOpt = None,
) -> None:
    """Train on your own videos: the T-CNN first, then all three branches from it.

    Examples: `peakzoom train clips/ --out runs/first` and
    `peakzoom train UCF-101 --splits ucfTrainTestlist --recipe paper --init k400 --out runs/ucf1`
    """
    import dataclasses

    from peakzoom.recipes import RECIPES
    from peakzoom.train import PHASES, Options, is_main_process
    from peakzoom.train import train as run
    from peakzoom.video.splits import hold_out_groups

    videos = _open(data, layout, splits, split_number, root)
    if test_groups is not None:
        groups = [group.strip() for group in test_groups.split(",") if group.strip()]
        videos = dataclasses.replace(videos, entries=hold_out_groups(videos.entries, groups))
    asked = _adapt(
        RECIPES[recipe.value](),
        model=model,
        width=width,
        epochs=epochs,
        joint_epochs=joint_epochs,
        batch_size=batch_size,
        lr=lr,
        size=size,
        frames=frames,
        stride=stride,
        fps=fps,
        zoom_source=zoom_source,
        attention_per=attention_per,
        no_flip=no_flip,
    )
    options = Options(
        seed=seed,
        val_fraction=val_fraction,
        cache=cache.value,
        workers=workers,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        patience=patience,
        steps=PHASES if steps == Steps.both else (steps.value,),
        init=init,
    )
    run(videos, asked, out, options, resume, say)
    if is_main_process():
        tested = any(entry.split == "test" for entry in videos.entries)
        out_console.print(
            f"Run: {out}\nNext: peakzoom evaluate {out}" + ("" if tested else " TEST_DATA"),
            soft_wrap=True,
        )


FoldOpt = Annotated[
    list[str] | None, typer.Option("--fold", help="Groups to test on together, as 1,11; once for each fold.")
]
LeaveOneOpt = Annotated[bool, typer.Option("--leave-one-group-out", help="Every group is a fold.")]
SplitNumbersOpt = Annotated[
    str | None, typer.Option("--split-numbers", help="Official splits as folds, as 1,2,3 (UCF101, HMDB51).")
]
SeedsOpt = Annotated[str, typer.Option("--seeds", help="As 0,1,2.")]
StudyOutOpt = Annotated[
    Path, typer.Option("--out", help="Folder of the study, new or begun.", show_default=False)
]
RoundsOpt = Annotated[int, typer.Option(min=1, help="Clips timed for each network.")]
InitsOpt = Annotated[
    str | None, typer.Option("--init", help="Start from trained networks: NAME=RUN,NAME=RUN.")
]


def _listed(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{option} is {text!r}, expected whole numbers, as 0,1,2")
    return [int(part) for part in dict.fromkeys(parts)]


def _folds(
    data: Path,
    layout: Layout,
    splits: Path | None,
    root: Path | None,
    groups: list[str] | None,
    one_each: bool,
    numbers: str | None,
) -> tuple[VideoSet, list[Fold]]:
    """All videos, and the folds that were asked for; the data's own test videos where none were."""
    from peakzoom.study import Fold, group_folds, one_group_each

    if sum((bool(groups), one_each, numbers is not None)) > 1:
        raise UserError(
            "--fold, --leave-one-group-out and --split-numbers exclude one another: give one of them"
        )
    if numbers is not None:
        each = {
            number: _open(data, layout, splits, number, root)
            for number in _listed(numbers, "--split-numbers")
        }
        return next(iter(each.values())), [Fold(f"split-{number}", found) for number, found in each.items()]
    found = _open(data, layout, splits, 1, root)
    if one_each:
        return found, one_group_each(found)
    if groups:
        named = [[name.strip() for name in fold.split(",") if name.strip()] for fold in groups]
        return found, group_folds(found, named)
    if not any(entry.split == "test" for entry in found.entries):
        raise UserError(
            f"{found.name} has no test videos: give --fold GROUP,GROUP or --leave-one-group-out, or mark some as test"
        )
    return found, [Fold("test", found)]


RECIPE_OPTIONS = (
    *("model", "width", "epochs", "joint_epochs", "batch_size", "lr", "size", "frames", "stride", "fps"),
    *("zoom_source", "attention_per", "no_flip"),
)


def _study_recipe(asked: dict[str, Any]) -> Recipe:
    """The recipe that a command's options ask for."""
    from peakzoom.recipes import RECIPES

    return _adapt(RECIPES[asked["recipe"].value](), **{name: asked.get(name) for name in RECIPE_OPTIONS})


def _report_study(
    study: Study, arms: list[Arm], names: dict[Key, str], baselines: dict[Key, Key], rounds: int, kind: str
) -> None:
    """Print the table of a study and write it as Markdown, CSV and a picture."""
    from peakzoom.plots_study import plot_ablation, plot_cost
    from peakzoom.study import costs, table
    from peakzoom.tables import ABLATION, COMPARISON, to_csv, to_markdown

    found = costs(arms, study.recipe, study.data.classes, rounds) if kind == "cost" else None
    rows = table(study.answers, arms, names, baselines, found)
    notes = study.notes(arms)
    if found:
        first = next(iter(found.values())).timing
        notes.append(
            f"Milliseconds: forward alone, batch 1, median and range of {rounds} rounds, the networks in turn, "
            f"{first.device}, {first.threads} threads."
        )
    text = to_markdown(rows, COMPARISON if kind == "cost" else ABLATION, None, notes)
    (study.out / "table.md").write_text(text, encoding="utf-8")
    (study.out / "table.csv").write_text(to_csv(rows), encoding="utf-8")
    picture = study.out / f"{kind}.png"
    if kind == "cost":
        plot_cost(rows, picture)
    else:
        plot_ablation(rows, picture)
    out_console.print(text, soft_wrap=True)
    out_console.print(f"Table: {study.out / 'table.md'} and .csv; picture: {picture}", soft_wrap=True)


@app.command()
def ablate(
    data: DataArg,
    out: StudyOutOpt,
    fold: FoldOpt = None,
    leave_one_group_out: LeaveOneOpt = False,
    split_numbers: SplitNumbersOpt = None,
    seeds: SeedsOpt = "0,1,2",
    recipe: RecipeOpt = RecipeName.small,
    model: ModelOpt = None,
    width: WidthOpt = None,
    init: InitsOpt = None,
    epochs: EpochsOpt = None,
    joint_epochs: JointEpochsOpt = None,
    batch_size: BatchOpt = None,
    lr: LrOpt = None,
    size: SizeOpt = None,
    frames: FramesOpt = None,
    stride: StrideOpt = None,
    fps: FpsOpt = None,
    zoom_source: ZoomSourceOpt = None,
    attention_per: AttentionPerOpt = None,
    no_flip: NoFlipOpt = False,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Of the training videos; 0 keeps the last epoch.")
    ] = 0.0,
    clips: ClipsOpt = "paper",
    num_clips: NumClipsOpt = 10,
    crops: CropsOpt = 3,
    cache: CacheOpt = Cache.auto,
    workers: WorkersOpt = None,
    precision: PrecisionOpt = "32-true",
    accelerator: AcceleratorOpt = "auto",
    devices: DevicesOpt = "auto",
    layout: FormatOpt = Layout.auto,
    splits: SplitsOpt = None,
    root: RootOpt = None,
) -> None:
    """Table 4: what each branch adds. Five sets of branches, trained on from one network, tested on the same videos.

    The same command goes on with what is not done; more folds or seeds may be asked for later.

    Example: `peakzoom ablate clips/clips.csv --out studies/branches --fold ann,bob --fold cem,dee --seeds 0,1`
    """
    options = dict(locals())
    from peakzoom.study import ABLATION, Arm

    asked = _study_recipe(options)
    arms = [Arm(asked.model, branches, asked.width) for branches in ABLATION]
    study, folds = _study(asked, [asked.model], options)
    study.run(arms, folds, _listed(seeds, "--seeds"), say)
    names = {arm.key: " + ".join(arm.letters) for arm in arms}
    alone = arms[0].key
    _report_study(study, arms, names, {key: alone for key in names if key != alone}, 0, "ablation")


@app.command()
def compare(
    data: DataArg,
    out: StudyOutOpt,
    models: Annotated[str, typer.Option(help="Networks, as tcnn_xs,r3d_18,tsm.")] = "tcnn_xs",
    spatial: Annotated[
        str, typer.Option(help="Which of them also with spatial attention: all, none, or names.")
    ] = "all",
    cost: Annotated[
        float | None, typer.Option(min=0.001, help="Widths are chosen for about so many G multiply-adds.")
    ] = None,
    fold: FoldOpt = None,
    leave_one_group_out: LeaveOneOpt = False,
    split_numbers: SplitNumbersOpt = None,
    seeds: SeedsOpt = "0,1,2",
    recipe: RecipeOpt = RecipeName.small,
    init: InitsOpt = None,
    epochs: EpochsOpt = None,
    joint_epochs: JointEpochsOpt = None,
    batch_size: BatchOpt = None,
    lr: LrOpt = None,
    size: SizeOpt = None,
    frames: FramesOpt = None,
    stride: StrideOpt = None,
    fps: FpsOpt = None,
    zoom_source: ZoomSourceOpt = None,
    attention_per: AttentionPerOpt = None,
    no_flip: NoFlipOpt = False,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Of the training videos; 0 keeps the last epoch.")
    ] = 0.0,
    clips: ClipsOpt = "paper",
    num_clips: NumClipsOpt = 10,
    crops: CropsOpt = 3,
    rounds: RoundsOpt = 7,
    cache: CacheOpt = Cache.auto,
    workers: WorkersOpt = None,
    precision: PrecisionOpt = "32-true",
    accelerator: AcceleratorOpt = "auto",
    devices: DevicesOpt = "auto",
    layout: FormatOpt = Layout.auto,
    splits: SplitsOpt = None,
    root: RootOpt = None,
) -> None:
    """Tables 2 and 3: networks side by side, with and without spatial attention, under one budget.

    Accuracy, multiply-adds, parameters and measured time of each. The same command goes on with what is not done;
    more folds, seeds or networks may be asked for later.

    Example: `peakzoom compare clips/clips.csv --out studies/peers --models tcnn_xs,r3d_18,tsm --cost 1
    --leave-one-group-out`
    """
    options = dict(locals())
    from peakzoom.cost import width_for
    from peakzoom.model import BACKBONES
    from peakzoom.model.network import BRANCHES
    from peakzoom.study import Arm
    from peakzoom.train import backbone_options

    asked = _study_recipe(options)
    wanted = list(dict.fromkeys(name.strip() for name in models.split(",")))
    also = {"all": wanted, "none": []}.get(spatial, [name.strip() for name in spatial.split(",")])
    for name in wanted:
        if name not in BACKBONES:
            raise UserError(f"--models has {name!r}, expected some of {', '.join(BACKBONES)}")
    for name in also:
        if name not in wanted:
            raise UserError(f"--spatial has {name!r}, expected all, none or some of {', '.join(wanted)}")
    widths = dict.fromkeys(wanted, asked.width)
    for name in wanted:
        if cost is not None:
            made_with = backbone_options(replace(asked, model=name))

            def make(width: float, name: str = name, made_with: dict[str, Any] = made_with) -> Any:
                return BACKBONES[name](10, width=width, **made_with)

            widths[name] = width_for(make, cost, asked.preprocess.frames, asked.preprocess.size)
    arms = [
        Arm(name, branches, widths[name])
        for name in wanted
        for branches in (BRANCHES[:1], BRANCHES)
        if branches == BRANCHES[:1] or name in also
    ]
    study, folds = _study(asked, wanted, options)
    study.run(arms, folds, _listed(seeds, "--seeds"), say)
    names = {
        arm.key: arm.model
        + (f" x {arm.width:g}" if arm.width != 1 else "")
        + (" + spatial" if len(arm.branches) > 1 else "")
        for arm in arms
    }
    baselines = {arm.key: (arm.model, arm.width, "O") for arm in arms if arm.branches == BRANCHES}
    _report_study(study, arms, names, baselines, rounds, "cost")


def _study(recipe: Recipe, models: list[str], asked: dict[str, Any]) -> tuple[Study, list[Fold]]:
    """The study that a command's options ask for, and its folds."""
    from peakzoom.predict import Protocol
    from peakzoom.study import Study
    from peakzoom.train import Options

    init: dict[str, str] = {}
    for part in (asked["init"] or "").split(","):
        name, _, run = part.strip().partition("=")
        if part.strip() and (name not in models or not run):
            raise UserError(
                f"--init has {part.strip()!r}, expected NAME=RUN with NAME one of {', '.join(models)}"
            )
        if run:
            init[name] = run
    if init and (missing := sorted(set(models) - set(init))):
        raise UserError(f"--init has no {missing[0]}: start all networks from trained ones, or none")
    options = Options(
        val_fraction=asked["val_fraction"],
        cache=asked["cache"].value,
        workers=asked["workers"],
        accelerator=asked["accelerator"],
        devices=asked["devices"],
        precision=asked["precision"],
    )
    protocol = Protocol(asked["clips"], asked["num_clips"], asked["crops"])
    videos, folds = _folds(
        asked["data"],
        asked["layout"],
        asked["splits"],
        asked["root"],
        asked["fold"],
        asked["leave_one_group_out"],
        asked["split_numbers"],
    )
    return Study(asked["out"], videos, recipe, options, protocol, init), folds


def _run_folder(run: str) -> Path | None:
    """The folder with ``videos.csv``, from a run or one of its phases."""
    path = Path(run).resolve()
    if not path.exists():  # a name on the hub
        return None
    return next(
        (each for each in (path, path.parent, path.parent.parent) if (each / "videos.csv").exists()), None
    )


@app.command()
def evaluate(
    run: RunArg,
    data: Annotated[
        Path | None, typer.Argument(help=DATA_HELP + " Default: the test videos of the run.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which videos: test, val or train.")] = "test",
    clips: ClipsOpt = "paper",
    num_clips: NumClipsOpt = 10,
    crops: CropsOpt = 3,
    out: Annotated[
        Path | None, typer.Option(help="New folder; default: evaluation beside the weights.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Decoding threads.")] = 1,
    device: DeviceOpt = "auto",
    layout: FormatOpt = Layout.auto,
    splits: SplitsOpt = None,
    split_number: SplitNumberOpt = 1,
    root: RootOpt = None,
) -> None:
    """Test a model on labelled videos, 30 views each, and leave every score in one file.

    Examples: `peakzoom evaluate runs/first` and `peakzoom evaluate runs/first/tcnn other_clips/`
    """
    from peakzoom.evaluate import choose_entries, run_videos
    from peakzoom.evaluate import evaluate as test
    from peakzoom.predict import Protocol, load

    protocol = Protocol(clips, num_clips, crops)
    recognizer = load(run, device)
    home = _run_folder(run)
    if data is not None:
        videos = _open(data, layout, splits, split_number, root)
    elif home is not None:
        videos = run_videos(home)
    else:
        raise UserError(f"{run} does not know its test videos: name the DATA to test on")
    entries = choose_entries(videos, home, split)
    target = out or (Path(run) if Path(run).is_dir() else Path()) / f"evaluation-{split}-{clips}"
    with progress_bar(f"testing on {len(entries)} videos") as progress:
        result = test(recognizer, videos, entries, target, protocol, workers, progress)
    out_console.print(
        _accuracy_table(result, f"{sum(result.counts.values())} {split} videos, {num_clips} x {crops} views")
    )
    out_console.print(_class_table(result))
    if result.problems:
        say(
            f"{len(result.problems)} files are missing, broken or used in part: see {target / 'problems.csv'}"
        )
    out_console.print(f"Scores, tables and pictures: {target}", soft_wrap=True)


def _accuracy_table(result: Evaluation, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("answer")
    for column in ("top-1", "top-5", "mean class"):
        table.add_column(column, justify="right")
    for name, branch in result.branches.items():
        row = (f"{branch.top1:.1%}", f"{branch.top5:.1%}", f"{branch.mean_class:.1%}")
        table.add_row(name, *row, style="bold" if name == "fused" else "")
    return table


def _class_table(result: Evaluation) -> Table:
    table = Table(title="Fused answer, class by class", title_justify="left")
    table.add_column("class")
    table.add_column("videos", justify="right")
    table.add_column("accuracy", justify="right")
    for name, accuracy in result.fused.per_class.items():
        table.add_row(name, str(result.counts[name]), f"{accuracy:.1%}")
    return table


@app.command()
def predict(
    run: RunArg,
    files: Annotated[
        list[Path], typer.Argument(help="Video files, or folders to search for them.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write JSON Lines here; - for standard output instead of tables.")
    ] = None,
    clips: ClipsOpt = "paper",
    num_clips: NumClipsOpt = 10,
    crops: CropsOpt = 3,
    workers: Annotated[int, typer.Option(min=0, help="Decoding threads.")] = 1,
    device: DeviceOpt = "auto",
) -> None:
    """Recognise the action in video files.

    Examples: `peakzoom predict runs/first clip.mp4` and
    `peakzoom predict runs/first camera/ --jsonl answers.jsonl`
    """
    from peakzoom.predict import Protocol, decode_ahead, load

    protocol = Protocol(clips, num_clips, crops)
    if jsonl is not None and str(jsonl) != "-":
        _check_new(jsonl, "--jsonl")
    recognizer = load(run, device)
    found = list(_expand(files))
    failed = 0
    stream = sys.stdout if str(jsonl) == "-" else jsonl.open("w", encoding="utf-8") if jsonl else None
    try:
        decoded = decode_ahead(found, recognizer.preprocess, protocol, workers)
        for path, views in zip(found, decoded, strict=True):
            if isinstance(views, DecodeError):
                failed += 1
                say(f"{path}: no prediction: {views.reason}")
                _write_line(stream, {"file": str(path), "error": views.reason})
                continue
            prediction = recognizer.score(views)
            if prediction.problem:
                say(f"{path}: {prediction.problem}")
            _write_line(stream, prediction.to_dict(top))
            if stream is not sys.stdout:
                _print_prediction(prediction, top)
    finally:
        if stream is not None and stream is not sys.stdout:
            stream.close()
    if failed:
        say(f"{failed} of {len(found)} files gave no prediction")
        raise typer.Exit(1)


def _expand(files: list[Path]) -> Iterator[Path]:
    from peakzoom.video.layouts.files import VIDEO_SUFFIXES

    for file in files:
        if not file.is_dir():
            yield file
            continue
        inside = sorted(
            each for each in file.rglob("*") if each.suffix.lower() in VIDEO_SUFFIXES and each.is_file()
        )
        if not inside:
            raise UserError(
                f"{file} is a folder without videos: expected files ending in {', '.join(sorted(VIDEO_SUFFIXES))}"
            )
        yield from inside


def _check_new(file: Path, option: str) -> None:
    """Before the work, not after it."""
    if file.exists():
        raise UserError(f"{file} exists: name another file for {option}, or remove it")
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is no folder: make it first, or name another file for {option}")


def _write_line(stream: TextIO | None, line: dict[str, Any]) -> None:
    if stream is not None:
        stream.write(json.dumps(line) + "\n")
        stream.flush()


def _print_prediction(prediction: Prediction, top: int) -> None:
    out_console.print(str(prediction.path), soft_wrap=True)
    width = max(len(name) for name in prediction.classes)
    for name, score in prediction.top(top):
        out_console.print(f"  {name:<{width}}  {score:.4f}", soft_wrap=True)


@data_app.command("check")
def data_check(
    data: DataArg,
    out: Annotated[Path | None, typer.Option(help="Also write the files with problems to this CSV.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Decoding processes.")] = os.cpu_count() or 1,
    layout: FormatOpt = Layout.auto,
    splits: SplitsOpt = None,
    split_number: SplitNumberOpt = 1,
    root: RootOpt = None,
) -> None:
    """Report on a data set: videos per class, lengths, sizes, rates, and every file that cannot be read.

    Example: `peakzoom data check clips/`
    """
    import csv

    from peakzoom.video.check import check

    if out is not None:
        _check_new(out, "--out")
    videos = _open(data, layout, splits, split_number, root)
    with progress_bar(f"decoding {len(videos.entries)} videos") as progress:
        report = check(videos, workers, progress)
    table = Table(
        title=f"{videos.name}: {len(videos.entries)} videos, {len(videos.classes)} classes, {report.groups} groups",
        title_justify="left",
    )
    splits_seen = sorted({name for each in report.classes for name in each.splits if name})
    table.add_column("class")
    for column in ("videos", *splits_seen, "unreadable", "frames", "seconds", "height x width"):
        table.add_column(column, justify="right")
    for each in report.classes:
        sizes = [f"{height}x{width}" for height, width in each.sizes]
        table.add_row(
            each.name,
            str(each.videos),
            *(str(each.splits.get(name, 0)) for name in splits_seen),
            str(each.unreadable),
            "{} - {:g} - {}".format(*each.frames) if each.frames else "",
            "{:.1f} - {:.1f} - {:.1f}".format(*each.seconds) if each.seconds else "",
            ", ".join(sizes[:2]) + (f" and {len(sizes) - 2} more" if len(sizes) > 2 else ""),
        )
    out_console.print(table)
    rates = [f"{count} at {rate:g}" for rate, count in report.rates.items()]
    lines = [
        "frames and seconds: least - median - most",
        "frames per second: "
        + ", ".join(rates[:6])
        + (f" and {len(rates) - 6} other rates" if len(rates) > 6 else ""),
        f"variable frame rate: {report.variable_rate}; header states another frame count: {report.wrong_headers}",
        f"missing, unreadable or damaged: {len(report.problems)}",
    ]
    out_console.print("\n".join(lines), soft_wrap=True)
    shown = 20
    for problem in report.problems[:shown]:
        out_console.print(f"  {problem.path}: {problem.reason}", soft_wrap=True)
    if len(report.problems) > shown:
        out_console.print(
            f"  and {len(report.problems) - shown} more; --out FILE.csv lists all", highlight=False
        )
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "reason"])
            writer.writerows((problem.path, problem.reason) for problem in report.problems)


def main() -> None:
    """Entry point: runs a command and turns users' mistakes into one sentence."""
    warnings.filterwarnings("ignore", module="lightning")
    # A file name need not be text, and a terminal need not know every letter.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except USAGE_ERROR as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        if type(error).__name__ != "NoArgsIsHelpError":  # then the help is printed already
            command = error.ctx.command_path if getattr(error, "ctx", None) else "peakzoom"
            say(f"error: {message}; see '{command} --help'")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in ("lightning", "torchmetrics", "matplotlib", "PIL", "tensorboard"):
            raise
        say(
            f"error: this command needs {missing}, which is not installed: pip install '.[train]' in the clone"
        )
        sys.exit(2)
    if code == INTERRUPTED:  # Typer returns it in some versions and raises in others
        say("stopped; a training goes on from its last epoch with --resume")
    sys.exit(code if isinstance(code, int) else 0)
