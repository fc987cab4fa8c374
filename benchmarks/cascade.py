"""A cascade on cross-validated videos: thresholds from all other folds, then replayed on the fold itself.

Takes the folder of a study (docs/studies.md) and one of its rows with all three branches. For every fold and seed, the
thresholds are chosen on the test videos of the other folds of that seed, each scored by a network that never saw it,
and what the cascade then answers to the fold's own test videos is counted. (A replay is what is done:
tests/test_cascade.py.)

    python benchmarks/cascade.py studies/ut-pre tcnn_xsx0.5-ODC --loss 0.2
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timing import runs_of, show, study_parser

from peakzoom.cascade import Work, calibrate, replay, view_order
from peakzoom.cost import multiply_adds_by_pass
from peakzoom.predict import load
from peakzoom.report.scores import read_evaluation

HEADER = (
    "| seed | videos | full | cascade | changed | lost | views | passes a view | G a view | G a video | of full |\n"
    + "|---" * 11
    + "|"
)


def rows(study: Path, row: str, loss: float) -> Iterator[str]:
    """One line of the table a seed."""
    runs = runs_of(study, row)
    work = Work(*multiply_adds_by_pass(load(runs[0], "cpu").model))
    by_seed: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
    for run in runs:
        found = read_evaluation(run / "evaluation")
        order = view_order(found.protocol.clips, found.protocol.crops)
        scores = {name: found.views[:, place] for place, name in enumerate(found.branches)}
        by_seed[run.parent.name].append((scores["original"], scores["fused"], found.labels))
    for seed, folds in sorted(by_seed.items()):
        parts = []
        for own in range(len(folds)):
            original, fused, labels = (
                np.concatenate(each) for each in zip(*(folds[:own] + folds[own + 1 :]), strict=True)
            )
            chosen = calibrate(original, fused, labels, order, work, loss).chosen.cascade
            original, fused, labels = folds[own]
            got = replay(original, fused, order, chosen)
            full = fused[:, order].astype(np.float64).sum(1).argmax(1)
            parts.append((got.answers, full, labels, got.views, got.closer))
        answers, full, labels, views, closer = (np.concatenate(each) for each in zip(*parts, strict=True))
        spent = np.asarray(work.of(views, closer))
        right, before = answers == labels, full == labels
        yield (
            f"| {seed.removeprefix('seed-')} | {len(labels)} | {before.mean():.1%} | {right.mean():.1%} "
            f"| {(answers != full).sum()} | {(before & ~right).sum()} | {views.mean():.1f} "
            f"| {(views + 2 * closer).sum() / views.sum():.2f} | {spent.sum() / views.sum():.3f} | {spent.mean():.2f} "
            f"| {spent.mean() / work.of(len(order), len(order)):.1%} |"
        )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--loss", type=float, default=0.2)
    asked = parser.parse_args()
    show(HEADER, rows(asked.study, asked.row, asked.loss))


if __name__ == "__main__":
    main()
