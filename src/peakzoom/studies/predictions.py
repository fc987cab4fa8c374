"""The stored predictions of a study, and paired comparisons of its rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from peakzoom.evaluation.stats import Outcome, PairedTest, compare, paired_differences
from peakzoom.utils.durable import read_csv, write_csv
from peakzoom.utils.errors import UserError

FILE = "answers.csv"
TINY = 1e-30  # below any softmax score in float32 that is not 0

Key = tuple[str, float, str]  # network, width, letters of its branches


@dataclass(frozen=True)
class ArmPrediction:
    """The prediction of one arm for one test video of a fold: class names, "" where it has no such branch."""

    model: str
    width: float
    branches: str  # letters
    fold: str
    seed: int
    video: str  # path from the folder that holds all of them
    group: str
    label: str
    original: str
    discriminative: str
    complementary: str
    fused: str
    score: float  # fused score of the label, in [0, 1]

    @property
    def arm(self) -> Key:
        """The row of a table that it belongs to."""
        return self.model, self.width, self.branches

    @property
    def cell(self) -> tuple[str, int]:
        """Fold and seed."""
        return self.fold, self.seed


COLUMNS = [field.name for field in fields(ArmPrediction)]


def read_predictions(file: Path) -> list[ArmPrediction]:
    """Rows of an ``answers.csv``; none when it is not there.

    Raises:
        UserError: it has other columns.
    """
    rows = read_csv(file)
    if rows and list(rows[0]) != COLUMNS:
        raise UserError(f"{file} has the columns {', '.join(rows[0])}, expected {', '.join(COLUMNS)}")
    kinds = {"width": float, "seed": int, "score": float}
    return [
        ArmPrediction(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in rows
    ]


def write_predictions(file: Path, predictions: Iterable[ArmPrediction]) -> None:
    """Write an ``answers.csv`` whole or not at all."""
    write_csv(file, COLUMNS, map(astuple, predictions))


def outcomes(predictions: Iterable[ArmPrediction], arm: Key, branch: str = "fused") -> list[Outcome]:
    """Which of its test videos an arm got right, one :class:`~peakzoom.evaluation.stats.Outcome` a fold and seed."""
    cells: dict[tuple[str, int], list[ArmPrediction]] = {}
    folds: dict[str, set[str]] = {}
    for prediction in predictions:
        if prediction.arm == arm:
            cells.setdefault(prediction.cell, []).append(prediction)
            folds.setdefault(prediction.video, set()).add(prediction.fold)
    return [
        Outcome(
            fold,
            seed,
            # Official splits may share test videos (HMDB51's do): such a video counts in each.
            [f"{each.video} in {fold}" if len(folds[each.video]) > 1 else each.video for each in tested],
            np.array([getattr(each, branch) == each.label for each in tested]),
        )
        for (fold, seed), tested in sorted(cells.items())
    ]


def likelihoods(predictions: Iterable[ArmPrediction], arm: Key) -> dict[str, float]:
    """Logarithm of the label's score for each video of a fold, in nats, the mean over seeds; 0 is best.

    It tells two networks apart where both are right, or both wrong, and an accuracy sees no difference.
    """
    logs: dict[str, list[float]] = {}
    for each in predictions:
        if each.arm == arm:
            logs.setdefault(f"{each.video} in {each.fold}", []).append(math.log(max(each.score, TINY)))
    return {video: sum(values) / len(values) for video, values in sorted(logs.items())}


def compare_likelihoods(kept: Sequence[ArmPrediction], one: Key, other: Key) -> PairedTest:
    """Two arms of :func:`complete` predictions compared by :func:`likelihoods`: above 0 is better, in nats."""
    first, second = likelihoods(kept, one), likelihoods(kept, other)
    return paired_differences(np.array([first[video] - second[video] for video in first]))


def complete(predictions: Sequence[ArmPrediction], arms: Sequence[Key]) -> list[ArmPrediction]:
    """The predictions of folds and seeds that every arm has, such that every one of these seeds has every fold.

    Where a study is not finished, seeds or folds are left out: those without which the most trainings are left.
    """
    cells = [{each.cell for each in predictions if each.arm == arm} for arm in arms]
    common = set.intersection(*cells) if cells else set()
    folds = {seed: {fold for fold, other in common if other == seed} for seed in {seed for _, seed in common}}
    best: set[tuple[str, int]] = set()
    order = sorted(folds, key=lambda seed: (-len(folds[seed]), seed))
    for count in range(1, len(order) + 1):
        shared = set.intersection(*(folds[seed] for seed in order[:count]))
        if len(shared) * count >= len(best):
            best = {(fold, seed) for fold in shared for seed in order[:count]}
    return [each for each in predictions if each.arm in set(arms) and each.cell in best]


def by_groups(kept: Sequence[ArmPrediction], one: Key, other: Key) -> PairedTest | None:
    """Two arms of :func:`complete` predictions compared by whole groups, whose videos are alike.

    None where a video has no group, or is tested in several folds.
    """
    groups = {each.video: each.group for each in kept}
    if not all(groups.values()) or len(set(groups.values())) < 2:
        return None
    first, second = outcomes(kept, one), outcomes(kept, other)
    if any(video not in groups for each in first for video in each.videos):  # tested in several folds
        return None
    return compare(first, second, groups)
