"""The stored predictions of a study, and what they say of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np

from peakzoom.evaluation.stats import PairedTest, paired_test
from peakzoom.model.config import BRANCHES
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

    @property
    def training(self) -> tuple[object, ...]:
        """The training that it is of: network, width, letters, fold and seed."""
        return (*self.arm, *self.cell)


PREDICTION_COLUMNS = [field.name for field in fields(ArmPrediction)]


def read_predictions(file: Path) -> list[ArmPrediction]:
    """Rows of an ``answers.csv``; none when it is not there.

    Raises:
        UserError: it has other columns.
    """
    rows = read_csv(file)
    if rows and list(rows[0]) != PREDICTION_COLUMNS:
        raise UserError(
            f"{file} has the columns {', '.join(rows[0])}, expected {', '.join(PREDICTION_COLUMNS)}"
        )
    kinds = {"width": float, "seed": int, "score": float}
    return [
        ArmPrediction(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in rows
    ]


def write_predictions(file: Path, predictions: Iterable[ArmPrediction]) -> None:
    """Write an ``answers.csv`` whole or not at all."""
    write_csv(file, PREDICTION_COLUMNS, map(astuple, predictions))


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


@dataclass(frozen=True)
class ArmResult:
    """What the networks of one arm predicted, all folds together: every video once for each seed.

    Official splits may share test videos (HMDB51's do): such a video counts in each of its folds.
    """

    runs: int  # trained networks, folds x seeds
    right: dict[str, np.ndarray]  # of each branch and "fused", float64 (seeds, videos): 1 right, 0 wrong
    logs: np.ndarray  # float64 (videos,): logarithm of the label's fused score, the mean over seeds
    groups: list[str]  # of the videos, "" where unknown

    def compare(self, other: ArmResult, by_groups: bool = False) -> PairedTest:
        """How many points this arm is more accurate than another one of the same :func:`results`."""
        difference = 100 * (self.right["fused"].mean(0) - other.right["fused"].mean(0))
        return paired_test(difference, self.groups if by_groups else None)

    def compare_likelihoods(self, other: ArmResult) -> PairedTest:
        """By how many nats the labels are likelier than by another arm.

        It tells two networks apart where both are right, or both wrong, and an accuracy sees no difference.
        """
        return paired_test(self.logs - other.logs)


def results(kept: Sequence[ArmPrediction]) -> dict[Key, ArmResult]:
    """The arms of :func:`complete` predictions, on the same videos in the same order.

    Raises:
        UserError: a video was tested by some of the networks only.
    """
    found = {(each.arm, each.seed, (each.video, each.fold)): each for each in kept}
    arms, seeds, videos = (sorted(set(part)) for part in zip(*found, strict=True))
    for arm, seed, video in product(arms, seeds, videos):
        if (arm, seed, video) not in found:
            raise UserError(
                f"{FILE} has no prediction of {arm[0]} {arm[2]} with seed {seed} for {video[0]} in fold {video[1]}: "
                "remove the other lines of this network, seed and fold, and go on with the same command"
            )
    runs = len({each.cell for each in kept})
    made = {}
    for arm in arms:
        rows = [[found[arm, seed, video] for video in videos] for seed in seeds]
        right = {
            name: np.array([[getattr(each, name) == each.label for each in row] for row in rows], float)
            for name in (*BRANCHES, "fused")
        }
        logs = np.log([[max(each.score, TINY) for each in row] for row in rows]).mean(0)
        made[arm] = ArmResult(runs, right, logs, [each.group for each in rows[0]])
    return made
