"""The stored predictions of a study, and paired comparisons of its rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from peakzoom.evaluation.stats import Outcome, PairedTest, compare, paired_differences
from peakzoom.utils.durable import whole
from peakzoom.utils.errors import UserError

TINY = 1e-30  # below any softmax score in float32 that is not 0


Key = tuple[str, float, str]  # network, width, letters of its branches


@dataclass(frozen=True)
class Answer:
    """What one arm answered to one test video of a fold; answers are class names, "" where it has no such branch."""

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
    score: float  # of the label, by the fused answer, in [0, 1]

    @property
    def arm(self) -> Key:
        """The row of a table that it belongs to."""
        return self.model, self.width, self.branches

    @property
    def cell(self) -> tuple[str, int]:
        """Fold and seed."""
        return self.fold, self.seed


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(file: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    with whole(file) as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_answers(file: Path) -> list[Answer]:
    """Rows of an ``answers.csv``; none when it is not there.

    Raises:
        UserError: it has other columns.
    """
    rows = _read(file)
    names = [field.name for field in fields(Answer)]
    if rows and list(rows[0]) != names:
        raise UserError(f"{file} has the columns {', '.join(rows[0])}, expected {', '.join(names)}")
    kinds = {"width": float, "seed": int, "score": float}
    return [Answer(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in rows]


def write_answers(file: Path, answers: Iterable[Answer]) -> None:
    """Write an ``answers.csv`` whole or not at all."""
    names = [field.name for field in fields(Answer)]
    _write(file, names, ({name: str(getattr(each, name)) for name in names} for each in answers))


def outcomes(answers: Iterable[Answer], arm: Key, branch: str = "fused") -> list[Outcome]:
    """Which of its test videos an arm got right, one :class:`~peakzoom.evaluation.stats.Outcome` a fold and seed."""
    found: dict[tuple[str, int], list[Answer]] = {}
    folds: dict[str, set[str]] = {}
    for answer in answers:
        if answer.arm == arm:
            found.setdefault(answer.cell, []).append(answer)
            folds.setdefault(answer.video, set()).add(answer.fold)
    return [
        Outcome(
            fold,
            seed,
            # Official splits may share test videos (HMDB51's do): such a video counts in each.
            [f"{each.video} in {fold}" if len(folds[each.video]) > 1 else each.video for each in given],
            np.array([getattr(each, branch) == each.label for each in given]),
        )
        for (fold, seed), given in sorted(found.items())
    ]


def likelihoods(answers: Iterable[Answer], arm: Key) -> dict[str, float]:
    """Logarithm of the label's score for each video of a fold, in nats, the mean over seeds; 0 is best.

    It tells two networks apart where both are right, or both wrong, and an accuracy sees no difference.
    """
    found: dict[str, list[float]] = {}
    for answer in answers:
        if answer.arm == arm:
            found.setdefault(f"{answer.video} in {answer.fold}", []).append(math.log(max(answer.score, TINY)))
    return {video: sum(values) / len(values) for video, values in sorted(found.items())}


def compare_likelihoods(kept: Sequence[Answer], one: Key, other: Key) -> PairedTest:
    """Two arms of :func:`complete` answers compared by :func:`likelihoods`: above 0 is better, in nats."""
    first, second = likelihoods(kept, one), likelihoods(kept, other)
    return paired_differences(np.array([first[video] - second[video] for video in first]))


def complete(answers: Sequence[Answer], arms: Sequence[Key]) -> list[Answer]:
    """The answers of those folds and seeds that every arm has, and every one of these seeds has every fold.

    Where a study is not finished, that leaves seeds or folds out: those, whose loss leaves the most trainings.
    """
    cells = [{answer.cell for answer in answers if answer.arm == arm} for arm in arms]
    common = set.intersection(*cells) if cells else set()
    folds = {seed: {fold for fold, other in common if other == seed} for seed in {seed for _, seed in common}}
    best: set[tuple[str, int]] = set()
    order = sorted(folds, key=lambda seed: (-len(folds[seed]), seed))
    for count in range(1, len(order) + 1):
        shared = set.intersection(*(folds[seed] for seed in order[:count]))
        if len(shared) * count >= len(best):
            best = {(fold, seed) for fold in shared for seed in order[:count]}
    return [answer for answer in answers if answer.arm in set(arms) and answer.cell in best]


def by_groups(kept: Sequence[Answer], one: Key, other: Key) -> PairedTest | None:
    """Two arms of :func:`complete` answers compared by whole groups, whose clips are alike.

    None where a video has no group, or stands in several folds.
    """
    groups = {answer.video: answer.group for answer in kept}
    if not all(groups.values()) or len(set(groups.values())) < 2:
        return None
    first, second = outcomes(kept, one), outcomes(kept, other)
    if any(video not in groups for each in first for video in each.videos):  # tested in several folds
        return None
    return compare(first, second, groups)
