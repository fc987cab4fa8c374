"""A cascade on videos that its thresholds were not chosen on, replayed on the scores of full tests.

Of a study (docs/studies.md), one of its rows with all three branches: for every fold and seed, thresholds are chosen on
the test videos of the other folds of that seed, each scored by a network that never saw it, and what the cascade then
answers to the fold's own test videos is counted. Or of two evaluations by one network: thresholds from the first, tried
on the second. Or of evaluations, each by itself: thresholds from random halves, tried on the other halves. (A replay is
what is done: tests/inference/test_early_exit.py.)

    python benchmarks/cascade.py studies/ut-pre tcnn_xsx0.5-ODC --loss 0.2
    python benchmarks/cascade.py --evaluations full/calibration full/held-out --run pre/joint
    python benchmarks/cascade.py --halves full/calibration full/held-out --run pre/joint
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from timing import runs_of, show

from peakzoom.evaluation.calibrate import Replay, calibrate, course, replay
from peakzoom.evaluation.files import read_evaluation
from peakzoom.inference.cost import multiply_adds_by_pass
from peakzoom.inference.early_exit import Thresholds, Work, view_order
from peakzoom.inference.recognizer import load

HEADER = (
    "| videos of | videos | full | cascade | changed | lost | won | views | passes a view | passes a video | G a video "
    "| of full |\n" + "|---" * 12 + "|"
)


class Tested(NamedTuple):
    """The scores of a full test: of the original branch, fused, (V, views, S), and labels (V,)."""

    original: np.ndarray
    fused: np.ndarray
    labels: np.ndarray


def read(folder: Path) -> tuple[Tested, list[int]]:
    """An evaluation's scores, and the order of its views."""
    found = read_evaluation(folder)
    scores = {name: found.views[:, place] for place, name in enumerate(found.branches)}
    order = view_order(found.protocol.clips, found.protocol.crops)
    return Tested(scores["original"], scores["fused"], found.labels), order


def together(tests: Sequence[Tested]) -> Tested:
    """Several as one."""
    return Tested(*(np.concatenate(each) for each in zip(*tests, strict=True)))


class Answered(NamedTuple):
    """What a cascade made of V videos."""

    got: Replay
    full: np.ndarray  # int (V,), answers of the full test
    labels: np.ndarray


def answered(test: Tested, order: Sequence[int], thresholds: Thresholds) -> Answered:
    whole = course(test.fused, order)
    return Answered(replay(course(test.original, order), whole, thresholds), whole.best[:, -1], test.labels)


def line(name: str, parts: Sequence[Answered], work: Work, views_in_all: int) -> str:
    """A row of the table, of videos answered in several parts."""
    answers, views, closer = (
        np.concatenate(each) for each in zip(*(part.got for part in parts), strict=True)
    )
    full, labels = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    spent = np.asarray(work.of(views, closer))
    right, before = answers == labels, full == labels
    passes = views + 2 * closer
    return (
        f"| {name} | {len(labels)} | {before.mean():.1%} | {right.mean():.1%} | {(answers != full).sum()} "
        f"| {(before & ~right).sum()} | {(~before & right).sum()} | {views.mean():.1f} "
        f"| {passes.sum() / views.sum():.2f} | {passes.mean():.1f} | {spent.mean():.2f} "
        f"| {spent.mean() / work.of(views_in_all, views_in_all):.1%} |"
    )


def rows(study: Path, row: str, loss: float) -> Iterator[str]:
    """One line of the table a seed of a study, and one of all seeds."""
    runs = runs_of(study, row)
    work = Work(*multiply_adds_by_pass(load(runs[0], "cpu").model))
    by_seed: dict[str, list[Tested]] = defaultdict(list)
    order: list[int] = []
    for run in runs:
        test, order = read(run / "evaluation")
        by_seed[run.parent.name].append(test)
    everything: list[Answered] = []
    for seed, folds in sorted(by_seed.items()):
        parts = []
        for own, test in enumerate(folds):
            others = together(folds[:own] + folds[own + 1 :])
            parts.append(answered(test, order, calibrate(*others, order, work, loss).chosen.thresholds))
        yield line(seed.replace("-", " "), parts, work, len(order))
        everything += parts
    if len(by_seed) > 1:
        yield line("all", everything, work, len(order))


def two(run: Path, first: Path, second: Path, loss: float) -> Iterator[str]:
    """A line for the evaluation that thresholds come from, one for the other."""
    work = Work(*multiply_adds_by_pass(load(run, "cpu").model))
    (test, order), (other, same) = read(first), read(second)
    if order != same:
        raise SystemExit(f"{first} and {second} are of other views")
    chosen = calibrate(*test, order, work, loss).chosen
    for folder, each in ((first, test), (second, other)):
        yield line(folder.name, [answered(each, order, chosen.thresholds)], work, len(order))
    yield f"\n{chosen.thresholds}, losing {chosen.loss_bound:.2f} points at most (95%)"


HALVES_HEADER = (
    "| videos of | videos | bound, points | of the other halves, points | changed | views "
    "| passes a video |\n" + "|---" * 7 + "|"
)


def halves(run: Path, folders: Sequence[Path], loss: float, times: int = 5) -> Iterator[str]:
    """A line an evaluation: means over both halves of several divisions, and the standard deviation of the loss."""
    work = Work(*multiply_adds_by_pass(load(run, "cpu").model))
    for folder in folders:
        test, order = read(folder)
        count, found = len(test.labels), []
        for seed in range(times):
            places = np.random.default_rng(seed).permutation(count)
            parts = places[: count // 2], places[count // 2 :]
            for own, others in (parts, parts[::-1]):
                given = Tested(*(each[own] for each in test))
                chosen = calibrate(*given, order, work, loss, progress=False).chosen
                got = answered(Tested(*(each[others] for each in test)), order, chosen.thresholds)
                lost = (got.full == got.labels).mean() - (got.got.predicted == got.labels).mean()
                changed = (got.got.predicted != got.full).mean()
                passes = (got.got.views + 2 * got.got.stage2_views).mean()
                found.append((chosen.loss_bound, 100 * lost, changed, got.got.views.mean(), passes))
        expected, lost, changed, views, passes = np.mean(found, axis=0)
        spread = np.std([each[1] for each in found])
        yield (
            f"| {folder.name} | {count} | {expected:.2f} | {lost:.2f} ± {spread:.2f} | {changed:.1%} | {views:.1f} "
            f"| {passes:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?")
    parser.add_argument("row", nargs="?", help="a folder name, such as tcnn_xs-ODC")
    parser.add_argument("--evaluations", type=Path, nargs=2, metavar=("FROM", "ON"))
    parser.add_argument("--halves", type=Path, nargs="+")
    parser.add_argument("--run", type=Path, help="whose the evaluations are")
    parser.add_argument("--loss", type=float, default=0.2)
    asked = parser.parse_args()
    if asked.evaluations and asked.run:
        chosen_on, tried_on = asked.evaluations
        show(HEADER, two(asked.run, chosen_on, tried_on, asked.loss))
    elif asked.halves and asked.run:
        show(HALVES_HEADER, halves(asked.run, asked.halves, asked.loss))
    elif asked.study and asked.row:
        show(HEADER, rows(asked.study, asked.row, asked.loss))
    else:
        parser.error("name a study and a row, or evaluations and their run")


if __name__ == "__main__":
    main()
