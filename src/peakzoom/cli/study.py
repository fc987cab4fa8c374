"""``peakzoom ablate`` and ``peakzoom compare``: tables of many trainings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peakzoom.cli.console import fits, print_result, show_table
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import names_of, whole_numbers
from peakzoom.cli.options import (
    VAL_FRACTION,
    DataArg,
    LayoutOptions,
    MachineOptions,
    ModelOpt,
    RecipeOptions,
    ViewOptions,
    data_option,
    output_option,
)
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet
    from peakzoom.studies.arms import Fold
    from peakzoom.studies.study import Study
    from peakzoom.training.recipes import Recipe

StudyValFractionOpt = Annotated[float, data_option(**VAL_FRACTION)]
OutOpt = Annotated[
    Path, output_option("--out", help="Folder of the study, new or begun.", show_default=False)
]


@dataclass(frozen=True)
class StudyOptions:
    """What is trained again and again, and from what."""

    fold: Annotated[
        list[str] | None, data_option(help="Groups to test on together, as 1,11; once for each fold.")
    ] = None
    leave_one_group_out: Annotated[bool, data_option(help="Every group is a fold.")] = False
    split_numbers: Annotated[
        str | None, data_option(help="Official splits as folds, as 1,2,3 (UCF101, HMDB51).")
    ] = None
    seeds: Annotated[str, typer.Option(help="As 0,1,2.")] = "0,1,2"
    equal: Annotated[
        str,
        typer.Option(
            help="What all rows have alike in stage 2: passes through the network, or epochs, as before peakzoom had "
            "this option."
        ),
    ] = "passes"
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from trained networks: NAME=RUN,NAME=RUN. none: from scratch. Where none is named, all start "
            "from weights that come with peakzoom, if every network has some."
        ),
    ] = None


@dataclass(frozen=True)
class Compared:
    """Which networks stand side by side."""

    models: Annotated[str, typer.Option(help="Networks, as tcnn_xs,r3d_18,tsm, or FILE.json of a plan.")] = (
        "tcnn_xs_local"
    )
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
    model: ModelOpt = None,
    recipe: RecipeOptions,
    val_fraction: StudyValFractionOpt = 0.0,
    views: ViewOptions,
    machine: MachineOptions,
) -> None:
    """Table 4: what each branch adds. Five sets of branches, trained on from one network, tested on the same videos.

    The same command goes on with what is not done; more folds or seeds may be added later.

    Example:
    - `peakzoom ablate clips/clips.csv --out studies/branches --fold ann,bob --fold cem,dee --seeds 0,1`
    """
    from peakzoom.model.config import LETTERS
    from peakzoom.studies.arms import ABLATION_BRANCHES, EQUAL, Arm
    from peakzoom.studies.study import Study
    from peakzoom.training.recipes import expect_word

    chosen, options = recipe_and_options(recipe, machine, model, val_fraction=val_fraction)
    averaged, seeds = views.views(), whole_numbers(study.seeds, "--seeds")
    init = _starts(study.init, [chosen.model])
    expect_word("--equal", study.equal, EQUAL)
    videos, folds = _folds(data, reading, study)
    arms = [
        Arm(
            chosen.model,
            branches,
            chosen.width,
            " + ".join(LETTERS[name] for name in branches),
            study.equal,
            chosen.architecture,
        )
        for branches in ABLATION_BRANCHES
    ]
    begun = Study(out, videos, arms, chosen, options, averaged, init)
    begun.run(folds, seeds)
    _report(begun)


@grouped
def compare(
    data: DataArg,
    out: OutOpt,
    *,
    compared: Compared,
    study: StudyOptions,
    reading: LayoutOptions,
    recipe: RecipeOptions,
    val_fraction: StudyValFractionOpt = 0.0,
    views: ViewOptions,
    machine: MachineOptions,
) -> None:
    """Tables 2 and 3: networks side by side, with and without spatial attention, under one budget.

    Accuracy, multiply-adds, parameters and measured time of each. The same command goes on with what is not done;
    more folds, seeds or networks may be added later.

    Example:
    - `peakzoom compare clips/clips.csv --out studies/networks --models tcnn_xs,r3d_18,tsm --cost 1
      --leave-one-group-out`
    """
    from peakzoom.model.config import BRANCHES
    from peakzoom.studies.arms import EQUAL, Arm
    from peakzoom.studies.study import Study
    from peakzoom.training.recipes import expect_word

    chosen, options = recipe_and_options(recipe, machine, val_fraction=val_fraction)
    expect_word("--equal", study.equal, EQUAL)
    averaged, seeds = views.views(), whole_numbers(study.seeds, "--seeds")
    wanted, also = _networks(compared.models, compared.spatial)
    init = _starts(study.init, list(wanted))
    videos, folds = _folds(data, reading, study)
    arms = []
    for name, plan in wanted.items():
        width = 1.0 if plan else chosen.width  # a plan's channels are what it says they are
        if compared.cost is not None:
            width = _width(name, plan, compared.cost, chosen)
        label = name if width == 1 else f"{name} x {width:g}"
        arms.append(Arm(name, BRANCHES[:1], width, label, study.equal, plan))
        if name in also:
            arms.append(Arm(name, BRANCHES, width, f"{label} + spatial", study.equal, plan))
    begun = Study(out, videos, arms, chosen, options, averaged, init)
    begun.run(folds, seeds)
    _report(begun, compared.rounds)


def _networks(models: str, spatial: str) -> tuple[dict[str, str], list[str]]:
    """The networks to compare, each with its plan if it has one, and those of them that also get spatial attention.

    A network of a plan is called after its file, and after what is in it.
    """
    from peakzoom.model.backbones import EXPECTED, is_network
    from peakzoom.model.backbones.architecture import read_architecture
    from peakzoom.model.backbones.own import allow
    from peakzoom.utils.journal import hash_of

    wanted, called = {}, {}
    for given in (name.strip() for name in models.split(",")):
        plan = read_architecture(Path(given)) if given.endswith(".json") else ""
        if not plan and not is_network(given):
            raise UserError(f"--models has {given!r}, expected {EXPECTED}, or FILE.json of a plan")
        if not plan:
            allow(given)
        called[given] = f"{Path(given).stem}-{hash_of(plan)[:6]}" if plan else given
        wanted[called[given]] = plan
    also = {"all": list(called), "none": []}.get(spatial, [name.strip() for name in spatial.split(",")])
    for name in also:
        if name not in called:
            raise UserError(f"--spatial has {name!r}, expected all, none or some of {', '.join(called)}")
    return wanted, [called[name] for name in also]


def _width(name: str, plan: str, cost: float, recipe: Recipe) -> float:
    """The width at which a network costs about so many G multiply-adds."""
    import torch

    from peakzoom.inference.cost import width_for
    from peakzoom.model import PeakZoom
    from peakzoom.model.backbones import ARCHITECTURE, backbone_factory, is_own, options_for
    from peakzoom.model.config import BRANCHES

    factory = backbone_factory(ARCHITECTURE if plan else name)
    made_with: dict[str, Any] = dict(
        options_for(name, recipe.max_stride, recipe.preprocess.frames, recipe.preprocess.size)
    )
    if plan:
        made_with["plan"] = json.loads(plan)

    def make(width: float) -> Any:
        if is_own(
            name
        ):  # which need not be a classifier by itself, nor know PyTorch's device without numbers
            with torch.device("cpu"):
                network = factory(10, width=width, dropout=recipe.dropout, **made_with)
                return PeakZoom(network, 10, branches=BRANCHES[:1])
        return factory(10, width=width, **made_with)

    return width_for(make, cost, recipe.preprocess.frames, recipe.preprocess.size)


def _starts(text: str | None, models: list[str]) -> dict[str, str] | None:
    """The trained model that each network starts from, out of NAME=RUN,NAME=RUN; none where that is asked for."""
    from peakzoom.training.options import FROM_SCRATCH

    if text is None:
        return None
    init: dict[str, str] = {}
    for part in names_of(text) if text != FROM_SCRATCH else ():
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


def _report(study: Study, rounds: int = 0) -> None:
    from peakzoom.studies.report import write_report

    report = write_report(study, rounds)
    title = "Fused accuracy in %, by row" if rounds else "Accuracy in %, by row and branch"
    wide = fits(report.table.head, report.table.rows)
    shown = report.table if wide else report.narrow
    show_table(title, shown.head, shown.rows)
    if report.pairs and wide:
        show_table("Each row against its baseline", report.pairs.head, report.pairs.rows)
    print_result("\n".join(report.notes if wide else report.notes[:1]))
    more = "" if wide else "with all columns and tests"
    print_result(
        f"Table{', ' * bool(more)}{more}: {study.out / 'table.md'} and .csv; figure: {report.figure}"
    )
