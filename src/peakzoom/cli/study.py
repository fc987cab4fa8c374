"""``peakzoom ablate`` and ``peakzoom compare``: tables of many trainings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peakzoom.cli.console import answer
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import names_of, whole_numbers
from peakzoom.cli.options import (
    DataArg,
    LayoutOptions,
    MachineOptions,
    NetworkOptions,
    RecipeOptions,
    ValFractionOpt,
    ViewOptions,
    data_option,
    output_option,
)
from peakzoom.cli.recipe import chosen_options, chosen_recipe
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet
    from peakzoom.studies.arms import Arm, Fold
    from peakzoom.studies.predictions import ArmPrediction, Key
    from peakzoom.studies.study import Study
    from peakzoom.training.options import Options
    from peakzoom.training.recipes import Recipe

OutOpt = Annotated[
    Path, output_option("--out", help="Folder of the study, new or begun.", show_default=False)
]


@dataclass(frozen=True)
class StudyOptions:
    """What is trained again and again, and from what."""

    fold: Annotated[
        list[str] | None, data_option(help="Groups to test on together, as 1,11; once for each fold.")
    ] = None
    leave_one_group_out: Annotated[
        bool, data_option("--leave-one-group-out", help="Every group is a fold.")
    ] = False
    split_numbers: Annotated[
        str | None, data_option(help="Official splits as folds, as 1,2,3 (UCF101, HMDB51).")
    ] = None
    seeds: Annotated[str, typer.Option(help="As 0,1,2.")] = "0,1,2"
    init: Annotated[str | None, typer.Option(help="Start from trained networks: NAME=RUN,NAME=RUN.")] = None


@dataclass(frozen=True)
class Compared:
    """Which networks stand side by side."""

    models: Annotated[str, typer.Option(help="Networks, as tcnn_xs,r3d_18,tsm.")] = "tcnn_xs"
    spatial: Annotated[
        str, typer.Option(help="Which of them also with spatial attention: all, none, or names.")
    ] = "all"
    cost: Annotated[
        float | None, typer.Option(min=0.001, help="Widths are chosen for about so many G multiply-adds.")
    ] = None
    rounds: Annotated[int, typer.Option(min=1, help="Clips timed for each network.")] = 7


@grouped
def ablate(
    data: DataArg,
    out: OutOpt,
    *,
    study: StudyOptions,
    reading: LayoutOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    val_fraction: ValFractionOpt = 0.0,
    views: ViewOptions,
    machine: MachineOptions,
) -> None:
    """Table 4: what each branch adds. Five sets of branches, trained on from one network, tested on the same videos.

    The same command goes on with what is not done; more folds or seeds may be added later.

    Example: `peakzoom ablate clips/clips.csv --out studies/branches --fold ann,bob --fold cem,dee --seeds 0,1`
    """
    from peakzoom.studies.arms import ABLATION, Arm
    from peakzoom.studies.study import Study

    chosen = chosen_recipe(recipe, network)
    options = chosen_options(recipe, machine, val_fraction=val_fraction)
    averaged, seeds = views.views(), whole_numbers(study.seeds, "--seeds")
    init = _starts(study.init, [chosen.model])
    videos, folds = _folds(data, reading, study)
    arms = [Arm(chosen.model, branches, chosen.width) for branches in ABLATION]
    _check(arms, videos, chosen, options, init)

    begun = Study(out, videos, chosen, options, averaged, init)
    begun.run(arms, folds, seeds)
    names = {arm.key: " + ".join(arm.letters) for arm in arms}
    alone = arms[0].key
    _report(begun, arms, names, {key: alone for key in names if key != alone})


@grouped
def compare(
    data: DataArg,
    out: OutOpt,
    *,
    compared: Compared,
    study: StudyOptions,
    reading: LayoutOptions,
    recipe: RecipeOptions,
    val_fraction: ValFractionOpt = 0.0,
    views: ViewOptions,
    machine: MachineOptions,
) -> None:
    """Tables 2 and 3: networks side by side, with and without spatial attention, under one budget.

    Accuracy, multiply-adds, parameters and measured time of each. The same command goes on with what is not done;
    more folds, seeds or networks may be added later.

    Example: `peakzoom compare clips/clips.csv --out studies/networks --models tcnn_xs,r3d_18,tsm --cost 1
    --leave-one-group-out`
    """
    from peakzoom.model.config import BRANCHES
    from peakzoom.studies.arms import Arm
    from peakzoom.studies.study import Study

    chosen = chosen_recipe(recipe)
    options = chosen_options(recipe, machine, val_fraction=val_fraction)
    averaged, seeds = views.views(), whole_numbers(study.seeds, "--seeds")
    wanted, also = _networks(compared.models, compared.spatial)
    init = _starts(study.init, wanted)
    videos, folds = _folds(data, reading, study)
    cost = compared.cost
    widths = {name: chosen.width if cost is None else _width(name, cost, chosen) for name in wanted}
    arms = [
        Arm(name, branches, widths[name])
        for name in wanted
        for branches in (BRANCHES[:1], BRANCHES)
        if branches == BRANCHES[:1] or name in also
    ]
    _check(arms, videos, chosen, options, init)

    begun = Study(out, videos, chosen, options, averaged, init)
    begun.run(arms, folds, seeds)
    names = {
        arm.key: arm.model
        + (f" x {arm.width:g}" if arm.width != 1 else "")
        + (" + spatial" if len(arm.branches) > 1 else "")
        for arm in arms
    }
    baselines = {arm.key: (arm.model, arm.width, "O") for arm in arms if arm.branches == BRANCHES}
    _report(begun, arms, names, baselines, compared.rounds)


def _networks(models: str, spatial: str) -> tuple[list[str], list[str]]:
    """The networks to compare, and those of them that also get spatial attention."""
    from peakzoom.model import BACKBONES

    wanted = list(dict.fromkeys(name.strip() for name in models.split(",")))
    for name in wanted:
        if name not in BACKBONES:
            raise UserError(f"--models has {name!r}, expected some of {', '.join(BACKBONES)}")
    also = {"all": wanted, "none": []}.get(spatial, [name.strip() for name in spatial.split(",")])
    for name in also:
        if name not in wanted:
            raise UserError(f"--spatial has {name!r}, expected all, none or some of {', '.join(wanted)}")
    return wanted, also


def _width(name: str, cost: float, recipe: Recipe) -> float:
    """The width at which a network costs about so many G multiply-adds."""
    from peakzoom.inference.cost import width_for
    from peakzoom.model import BACKBONES
    from peakzoom.training.start import backbone_options

    made_with = backbone_options(replace(recipe, model=name))

    def make(width: float) -> Any:
        return BACKBONES[name](10, width=width, **made_with)

    return width_for(make, cost, recipe.preprocess.frames, recipe.preprocess.size)


def _starts(text: str | None, models: list[str]) -> dict[str, str]:
    """The trained model that each network starts from, out of NAME=RUN,NAME=RUN; none where none is named."""
    init: dict[str, str] = {}
    for part in names_of(text or ""):
        name, _, run = part.partition("=")
        if name not in models or not run:
            raise UserError(f"--init has {part!r}, expected NAME=RUN with NAME one of {', '.join(models)}")
        init[name] = run
    if init and (missing := sorted(set(models) - set(init))):
        raise UserError(f"--init has no {missing[0]}: start all networks from trained ones, or none")
    return init


def _folds(data: Path, reading: LayoutOptions, study: StudyOptions) -> tuple[VideoSet, list[Fold]]:
    """All videos, and the folds of the options; the data's own test videos where those name none."""
    from peakzoom.studies.arms import Fold, group_folds, one_group_each

    numbers = study.split_numbers
    if sum((bool(study.fold), study.leave_one_group_out, numbers is not None)) > 1:
        raise UserError(
            "--fold, --leave-one-group-out and --split-numbers exclude one another: give one of them"
        )
    if numbers is not None:
        each = {number: reading.videos(data, number) for number in whole_numbers(numbers, "--split-numbers")}
        return next(iter(each.values())), [Fold(f"split-{number}", videos) for number, videos in each.items()]
    videos = reading.videos(data)
    if study.leave_one_group_out:
        return videos, one_group_each(videos)
    if study.fold:
        return videos, group_folds(videos, [names_of(fold) for fold in study.fold])
    if not any(entry.split == "test" for entry in videos.entries):
        raise UserError(
            f"{videos.name} has no test videos: give --fold GROUP,GROUP or --leave-one-group-out, or mark some as test"
        )
    return videos, [Fold("test", videos)]


def _check(arms: list[Arm], videos: VideoSet, recipe: Recipe, options: Options, init: dict[str, str]) -> None:
    """Refuse what a training would refuse before the study has a folder: a mistake there would stay part of it."""
    from peakzoom.training.check import check_settings

    for model, width in dict.fromkeys((arm.model, arm.width) for arm in arms):
        check_settings(
            replace(recipe, model=model, width=width),
            replace(options, init=init.get(model)),
            videos.classes,
            validates=options.val_fraction > 0,
        )


def _report(
    study: Study,
    arms: list[Arm],
    names: dict[Key, str],
    baselines: dict[Key, Key],
    rounds: int | None = None,
) -> None:
    """Print the table of a study and write it as Markdown, CSV and a figure; costs are timed in ``rounds``."""
    from peakzoom.studies.figures import plot_ablation, plot_cost
    from peakzoom.studies.predictions import complete
    from peakzoom.studies.rows import costs, table
    from peakzoom.studies.tables import ABLATION, COMPARISON, to_csv, to_markdown

    measured = costs(arms, study.recipe, study.data.classes, rounds) if rounds else None
    rows = table(study.predictions, arms, names, baselines, measured)
    kept = complete(study.predictions, [arm.key for arm in arms])
    notes = study.notes(arms) + [
        note for one, other in baselines.items() for note in _notes(kept, one, other, names)
    ]
    if measured:
        first = next(iter(measured.values())).timing
        notes.append(
            f"Milliseconds: forward alone, batch 1, median and range of {rounds} rounds, the networks in turn, "
            f"{first.device}, {first.threads} threads."
        )
    text = to_markdown(rows, COMPARISON if measured else ABLATION, None, notes)
    (study.out / "table.md").write_text(text, encoding="utf-8")
    (study.out / "table.csv").write_text(to_csv(rows), encoding="utf-8")
    figure = study.out / ("cost.png" if measured else "ablation.png")
    draw = plot_cost if measured else plot_ablation
    draw(rows, figure)
    answer(text)
    answer(f"Table: {study.out / 'table.md'} and .csv; figure: {figure}")


def _notes(predictions: list[ArmPrediction], one: Key, other: Key, names: dict[Key, str]) -> Iterator[str]:
    """What the table does not show of two of its rows: likelihoods, and the test by whole groups."""
    from peakzoom.studies.predictions import by_groups, compare_likelihoods

    pair = f"{names[one]} against {names[other]}"
    nats = compare_likelihoods(predictions, one, other)
    yield (
        f"NLL (mean negative log-likelihood of the label), {pair}: "
        f"{-nats.difference:+.3f} nats ({-nats.interval[1]:+.3f} to {-nats.interval[0]:+.3f}), p = {nats.p:.3f} "
        f"over videos; {nats.better} better, {nats.worse} worse."
    )
    if test := by_groups(predictions, one, other):
        low, high = test.interval
        yield (
            f"By whole groups ({test.count}), {pair}: {test.difference:+.1f} points "
            f"({low:+.1f} to {high:+.1f}), p = {test.p:.3f}; {test.better} videos better, {test.worse} worse."
        )
