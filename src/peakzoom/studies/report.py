"""The table of a study from its stored predictions, with notes below it and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from peakzoom.evaluation.stats import bootstrap_interval
from peakzoom.inference.cost import multiply_adds, parameters, time_per_clip
from peakzoom.studies.arms import Arm
from peakzoom.studies.figures import plot_ablation, plot_cost
from peakzoom.studies.predictions import ArmPrediction, Key, complete, results
from peakzoom.studies.study import Study
from peakzoom.studies.tables import (
    ABLATION_COLUMNS,
    COMPARISON_COLUMNS,
    NARROW,
    Cost,
    Table,
    TableRow,
    shown_difference,
    shown_p,
    shown_table,
    to_markdown,
    write_rows,
)
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import build
from peakzoom.utils.durable import write_text
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.words import counted


@dataclass(frozen=True)
class StudyReport:
    """The table of a study as it was written, and what a terminal shows of it."""

    table: Table
    narrow: Table  # fewer columns of the same rows, for 80 characters
    pairs: Table | None  # each row against its baseline, video by video; None where no row has one
    notes: list[str]
    figure: Path


def write_report(study: Study, rounds: int = 0) -> StudyReport:
    """Write the table of a study, over the folds and seeds that all arms have: ``table.md`` and ``.csv``, a figure.

    Args:
        study: whose.
        rounds: clips timed of each network; 0 leaves costs out, and makes the table and figure of an ablation.

    Raises:
        UserError: no fold and seed has every row yet.
    """
    kept = complete(study.predictions, [arm.key for arm in study.arms])
    if not kept:
        raise UserError("no fold has every row of the table yet: go on with the same command")
    measured = costs(study.arms, study.recipe, study.data.classes, rounds) if rounds else {}
    rows = table(kept, study.arms, measured)
    columns = COMPARISON_COLUMNS if measured else ABLATION_COLUMNS
    pairs, notes = _pairs(kept, study.arms), [*_how(study, kept)]
    if pairs:
        notes.append(
            "The second table has each row against its baseline: by how much the mean negative log-likelihood of the "
            "label is less, over videos, on how many of them it is better and worse, and the difference in points over "
            "whole groups of videos, where they have groups."
        )
    if measured:
        notes.append(
            f"Milliseconds: forward alone, batch 1, median and range of {counted(rounds, 'round')}, the networks in "
            f"turn, cpu, {counted(torch.get_num_threads(), 'thread')}."
        )
    shown = shown_table(rows, columns)
    write_text(study.out / "table.md", to_markdown([shown, *([pairs] if pairs else [])], notes))
    write_rows(study.out / "table.csv", rows)
    figure = study.out / ("cost.png" if measured else "ablation.png")
    (plot_cost if measured else plot_ablation)(rows, figure)
    return StudyReport(
        shown, shown_table(rows, [each for each in columns if each in NARROW], NARROW), pairs, notes, figure
    )


def costs(arms: Sequence[Arm], recipe: Recipe, classes: Sequence[str], rounds: int) -> dict[Key, Cost]:
    """Multiply-adds, parameters and measured time of each arm, untrained, on this machine."""
    frames, size = recipe.preprocess.frames, recipe.preprocess.size
    networks = {arm.key: build(arm.recipe(recipe), classes, joint=True) for arm in arms}
    timings = time_per_clip({repr(key): network for key, network in networks.items()}, frames, size, rounds)
    return {
        key: Cost(multiply_adds(network, frames, size), parameters(network), timings[repr(key)])
        for key, network in networks.items()
    }


def table(
    kept: Sequence[ArmPrediction], arms: Sequence[Arm], measured: Mapping[Key, Cost] | None = None
) -> list[TableRow]:
    """One row an arm, from :func:`~peakzoom.studies.predictions.complete` predictions."""
    found, labels = results(kept), {arm.key: arm.label for arm in arms}
    rows = []
    for arm in arms:
        result = found[arm.key]
        of_seeds = {name: right.mean(1) for name, right in result.right.items()}
        rows.append(
            TableRow(
                label=arm.label,
                model=arm.model,
                branches=arm.branches,
                runs=result.runs,
                accuracy=float(of_seeds["fused"].mean()),
                spread=float(of_seeds["fused"].std(ddof=1)) if len(of_seeds["fused"]) > 1 else None,
                interval=bootstrap_interval(result.right["fused"]),
                branch_accuracies={name: float(of_seeds[name].mean()) for name in (*arm.branches, "fused")},
                nll=-float(result.logs.mean()),
                cost=(measured or {}).get(arm.key),
                baseline=labels[arm.baseline] if arm.baseline else None,
                test=result.compare(found[arm.baseline]) if arm.baseline else None,
            )
        )
    return rows


def _how(study: Study, kept: Sequence[ArmPrediction]) -> Iterator[str]:
    """How the table was made."""
    folds = list(dict.fromkeys(each.fold for each in kept))
    seeds = sorted({each.seed for each in kept})
    videos = len({each.video for each in kept})
    pre, views = study.recipe.preprocess, study.views
    yield (
        f"{counted(len(folds), 'fold')} ({printable(', '.join(folds))}), {counted(videos, 'test video')}, "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}; "
        f"recipe {study.recipe.name}, {pre.frames} x {pre.size} x {pre.size}, {views.clips} x "
        f"{views.crops} views. Every row is trained in two stages of the same length; the first is shared."
    )
    yield (
        "Accuracy: mean over seeds ± standard deviation over seeds; the interval is a 95% bootstrap over videos. "
        "p: two-sided paired sign-flip test over videos, against the row without attention."
    )
    if shared := len({(each.video, each.fold) for each in kept}) - videos:
        yield f"Folds share test videos: {shared} count more than once, and intervals are too narrow."
    keys = {arm.key for arm in study.arms}
    trainings = {each.training for each in study.predictions if each.arm in keys}
    if left := len(trainings) - len({each.training for each in kept}):
        yield f"Left out, because not every row has their fold and seed: {left} of {len(trainings)} trainings."


def _pairs(kept: Sequence[ArmPrediction], arms: Sequence[Arm]) -> Table | None:
    """What the table does not show of a row and its baseline: likelihoods, and the test by whole groups."""
    found, labels = results(kept), {arm.key: arm.label for arm in arms}
    rows = []
    for arm in arms:
        if arm.baseline is None:
            continue
        result, alone = found[arm.key], found[arm.baseline]
        nats = result.compare_likelihoods(alone)
        grouped = all(result.groups) and len(set(result.groups)) > 1
        by_groups = result.compare(alone, by_groups=True) if grouped else None
        low, high = nats.interval
        rows.append(
            (
                f"{arm.label} against {labels[arm.baseline]}",
                f"{nats.difference:+.3f} ({low:+.3f} to {high:+.3f})",
                shown_p(nats),
                f"{nats.better}, {nats.worse}",
                shown_difference(by_groups) if by_groups else "",
                shown_p(by_groups) if by_groups else "",
            )
        )
    return (
        Table(("row", "NLL less, nats", "p", "better, worse", "by groups, points", "p"), tuple(rows))
        if rows
        else None
    )
