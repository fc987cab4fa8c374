"""All numbers of the page: of every prediction, of fewer views, of a vote, of the scores and of the classes.

Branch subsets are the paper's Table 4, but of one joint training: each branch's softmax scores, averaged without
learning. The expected calibration error is that of Guo et al. (2017), with 15 bins of equal width. What branches say
about one another is in ``branches.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.report.branches import Disagreement, SceneryRow, disagreement, scenery
from peakzoom.evaluation.report.rejections import read_rejection_scores
from peakzoom.evaluation.report.thresholds import Curves, threshold_curves
from peakzoom.evaluation.stats import Share, bootstrap, mean_class, share, share_of
from peakzoom.inference.prediction import average
from peakzoom.model import config
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

SHORT_NAMES = {**config.LETTERS, "fused": "fused"}
BINS = 15


# Branch subsets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubsetRow:
    """One prediction. ``gained`` and ``lost``: videos right here and wrong by the original branch, and the reverse."""

    name: str
    top1: Share
    mean_class: float
    mean_class_low: float
    mean_class_high: float
    gained: int | None
    lost: int | None


def subsets(scores: Scores) -> list[SubsetRow]:
    """Every subset of the branches, by the mean of their softmax scores, then the learnt fused prediction."""
    rows = []
    for size in range(1, len(scores.parts) + 1):
        for chosen in combinations(scores.parts, size):
            mean = sum((scores.means[name] for name in chosen), np.zeros(())) / size
            rows.append(("+".join(SHORT_NAMES[name] for name in chosen), mean))
    rows.append(("fused", scores.means["fused"]))
    original = scores.right("original") if "original" in scores.parts else None
    found = []
    for name, mean in rows:
        right = mean.argmax(1) == scores.labels
        low, high = bootstrap(mean_class, right, scores.labels)
        gained = None if original is None else int((right & ~original).sum())
        lost = None if original is None else int((original & ~right).sum())
        accuracy = mean_class(right, scores.labels)
        found.append(SubsetRow(name, share_of(right), accuracy, low, high, gained, lost))
    return found


# Number of views -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewsRow:
    """Accuracy from some of the views: ``clips`` times ``crops``, both counted from 1."""

    clips: list[int]
    crops: list[int]
    top1: dict[str, Share]

    @property
    def views(self) -> int:
        """How many."""
        return len(self.clips) * len(self.crops)


def spread(count: int, chosen: int) -> list[int]:
    """``chosen`` of ``count`` places, the middles of equal parts.

    >>> spread(10, 1), spread(10, 3), spread(3, 1)
    ([5], [1, 5, 8], [1])
    """
    return [(2 * place + 1) * count // (2 * chosen) for place in range(chosen)]


def choose_views(protocol: Views) -> list[tuple[list[int], list[int]]]:
    """(clips, crops) of each row, counted from 0: 1, 3 and all clips by the middle crop and by all crops.

    Ten clips of three crops make 1, 3 (three crops of the middle clip), 3 (middle crop of three clips), 9, 10 and 30.
    """
    rows = [
        (spread(protocol.clips, clips), spread(protocol.crops, crops))
        for clips in {1, min(3, protocol.clips), protocol.clips}
        for crops in {1, protocol.crops}
    ]
    return sorted(rows, key=lambda row: (len(row[0]) * len(row[1]), len(row[0])))


def by_views(scores: Scores) -> list[ViewsRow]:
    """Accuracy of every branch from fewer views."""
    rows = []
    for clips, crops in choose_views(scores.protocol):
        places = [clip * scores.protocol.crops + crop for clip in clips for crop in crops]
        found = {
            name: share_of(average(scores.views[:, place].take(places, axis=1)).argmax(1) == scores.labels)
            for place, name in enumerate(scores.branches)
        }
        rows.append(ViewsRow([clip + 1 for clip in clips], [crop + 1 for crop in crops], found))
    return rows


# Majority against mean -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VoteRow:
    """One branch. ``differ``: videos with two predictions; ``ties``: videos where the mean decided the vote."""

    branch: str
    mean: Share
    vote: Share
    differ: int
    vote_only: int
    mean_only: int
    ties: int


def majority(views: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that most of the views (V, views, S) predict, ties decided by the mean score (V, S).

    Returns:
        Class indices int (V,), and bool (V,) where there was a tie.
    """
    votes = np.zeros(mean.shape, dtype=np.int64)
    np.add.at(votes, (np.arange(len(mean))[:, None], views.argmax(2)), 1)
    best = votes == votes.max(1, keepdims=True)
    return np.where(best, mean, -1.0).argmax(1), best.sum(1) > 1


def votes(scores: Scores) -> list[VoteRow]:
    """Majority of the views against the mean of their scores, each branch and the fused prediction."""
    rows = []
    for place, name in enumerate(scores.branches):
        predicted, ties = majority(scores.views[:, place], scores.means[name])
        voted, averaged = predicted == scores.labels, scores.right(name)
        rows.append(
            VoteRow(
                name,
                share_of(averaged),
                share_of(voted),
                int((predicted != scores.means[name].argmax(1)).sum()),
                int((voted & ~averaged).sum()),
                int((averaged & ~voted).sum()),
                int(ties.sum()),
            )
        )
    return rows


# Reliability -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Videos whose prediction has a score in (low, high]; means are None without one."""

    low: float
    high: float
    videos: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """Whether the scores of one prediction mean what they say."""

    branch: str
    ece: float  # sum over the bins of videos / all * |accuracy - mean score|
    nll: float  # mean of -ln(score of the label), nats
    floored: int  # videos whose label has a score of 0, counted as the smallest positive float32 there
    score_right: float | None  # mean score of the prediction where it is right
    score_wrong: float | None
    bins: list[Bin]  # ``BINS`` of equal width


def reliability(branch: str, scores: np.ndarray, labels: np.ndarray) -> Reliability:
    """Of ``scores`` (V, S) and ``labels`` (V,)."""
    top, right = scores.max(1), scores.argmax(1) == labels
    place = (np.ceil(top * BINS).astype(int) - 1).clip(0, BINS - 1)
    bins = []
    for index in range(BINS):
        score, accuracy = _mean(top[place == index]), _mean(right[place == index])
        bins.append(Bin(index / BINS, (index + 1) / BINS, int((place == index).sum()), score, accuracy))
    of_label = scores[np.arange(len(labels)), labels]
    floored = np.maximum(of_label, np.finfo(np.float32).smallest_subnormal)
    return Reliability(
        branch,
        sum(each.videos / len(top) * abs((each.accuracy or 0) - (each.score or 0)) for each in bins),
        float(-np.log(floored).mean()),
        int((of_label <= 0).sum()),
        _mean(top[right]),
        _mean(top[~right]),
        bins,
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


# Classes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRow:
    """A class: right of its videos, right of the videos predicted as it, the commonest other prediction."""

    name: str
    found: Share
    correct: Share
    instead: str | None
    instead_videos: int


@dataclass(frozen=True)
class Mistake:
    """Videos of a class that were predicted as another one."""

    label: str
    answer: str
    videos: int


def confusion_matrix(scores: Scores) -> np.ndarray:
    """int64 (S, S): rows true classes, columns fused predictions."""
    count = len(scores.classes)
    flat = np.bincount(scores.labels * count + scores.means["fused"].argmax(1), minlength=count**2)
    return flat.reshape(count, count)


def by_class(confusion: np.ndarray, classes: Sequence[str]) -> list[ClassRow]:
    """All S classes, those without a video too."""
    rows = []
    for index, name in enumerate(classes):
        right, others = int(confusion[index, index]), confusion[index].copy()
        others[index] = 0
        found, correct = (share(right, int(part.sum())) for part in (confusion[index], confusion[:, index]))
        instead = classes[int(others.argmax())] if others.any() else None
        rows.append(ClassRow(name, found, correct, instead, int(others.max())))
    return rows


def mistakes(confusion: np.ndarray, classes: Sequence[str]) -> list[Mistake]:
    """Most frequent first, equal ones in the order of the classes."""
    rows = [
        Mistake(classes[row], classes[column], int(value))
        for (row, column), value in np.ndenumerate(confusion)
        if value and row != column
    ]
    return sorted(rows, key=lambda each: -each.videos)


# All numbers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """Everything on the page; None for the parts that need several branches and have one."""

    evaluation: str
    videos: int
    classes: int
    branches: list[str]
    protocol: Views
    problems: list[tuple[str, str]]
    subsets: list[SubsetRow]
    views: list[ViewsRow]
    votes: list[VoteRow]
    disagreement: Disagreement | None
    scenery: list[SceneryRow] | None
    calibration: list[Reliability]
    per_class: list[ClassRow]
    mistakes: list[Mistake]
    thresholds: list[Curves]
    rejection: dict[str, Any] | None  # as ``rejection.json`` has it; None where none was asked for


def measure_all(scores: Scores, thresholds: Sequence[str] = ()) -> Numbers:
    """All numbers of the page, from the evaluation's files; ``thresholds`` as :func:`threshold_curves` takes them.

    Raises:
        UserError: there is no such class, or the files of the rejections are damaged or of other videos.
    """
    rejection = read_rejection_scores(scores.folder)
    if rejection is not None and [each.path for each in rejection.labelled] != scores.paths:
        raise UserError(
            f"rejection.csv in {scores.folder} is of other videos than scores.csv: evaluate again"
        )
    confusion = confusion_matrix(scores)
    return Numbers(
        str(scores.folder),
        len(scores.labels),
        len(scores.classes),
        scores.branches,
        scores.protocol,
        scores.problems,
        subsets(scores),
        by_views(scores),
        votes(scores),
        disagreement(scores),
        scenery(scores),
        [reliability(name, scores.means[name], scores.labels) for name in reversed(scores.branches)],
        by_class(confusion, scores.classes),
        mistakes(confusion, scores.classes),
        threshold_curves(scores, thresholds),
        None if rejection is None else rejection.summary(),
    )
