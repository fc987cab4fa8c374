"""How well several labels a video are predicted: average precision, F1 at a threshold, and thresholds chosen by it.

All of it is of one class at a time; "macro" is the mean over the classes that it can be said of. Average precision is
the area under precision against recall by steps, sum_n (R_n - R_(n-1)) P_n, equal scores as one step (as scikit-learn's
and torchmetrics'; the events' in :mod:`peakzoom.evaluation.events` is interpolated, as ActivityNet's).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np

from peakzoom.evaluation.stats import FEW

HALF = 0.5  # the threshold of a class that too few videos tell one of


def targets_of(labels: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """Bool (V, S) from the labels of each of V videos."""
    found = np.zeros((len(labels), classes), bool)
    for row, each in zip(found, labels, strict=True):
        row[list(each)] = True
    return found


def average_precision(scores: np.ndarray, target: np.ndarray) -> float:
    """Of one class, see above: scores float (V,), target bool (V,); NaN where no video is of it."""
    right, reported = _steps(scores, target)[1:]
    if not target.any():
        return nan
    return float((np.diff(right, prepend=0) * right / reported).sum() / target.sum())


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Macro mAP from (V, S) each; NaN where no class has a video."""
    each = [average_precision(*pair) for pair in zip(scores.T, targets.T, strict=True)]
    return float(np.nanmean(each)) if targets.any() else nan


def _steps(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different scores from high to low, and for each the right and all videos that have it or a higher one."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    return falling[last], target[order].cumsum()[last], last + 1


def f1(predicted: np.ndarray, target: np.ndarray) -> float:
    """2 right / (reported + there), bool (V,) each; NaN where no video is of the class."""
    if not target.any():
        return nan
    return float(2 * (predicted & target).sum() / (predicted.sum() + target.sum()))


def choose_thresholds(scores: np.ndarray, targets: np.ndarray) -> list[float]:
    """For each class the threshold with the highest F1; of equals that nearest to a half.

    Thresholds lie midway between neighbouring scores. A class with fewer than ``FEW`` videos of it, or of others, keeps
    ``HALF``.

    Args:
        scores: (V, S) in [0, 1].
        targets: bool (V, S).
    """
    return [_threshold(*pair) for pair in zip(scores.T, targets.T, strict=True)]


def told(targets: np.ndarray) -> np.ndarray:
    """Bool (S,): whether there are videos enough to tell a threshold of each class, from bool (V, S)."""
    there = targets.sum(0)
    return np.asarray(np.minimum(there, len(targets) - there) >= FEW)


def _threshold(scores: np.ndarray, target: np.ndarray) -> float:
    if not told(target[:, None])[0]:
        return HALF
    values, right, reported = _steps(scores, target)
    quality = 2 * right / (reported + target.sum())
    lower = np.append(values[1:], 0.0)
    best = np.flatnonzero(quality == quality.max())
    # Any threshold between a score and the next lower one reports the same videos: HALF where it is one.
    middles = [HALF if lower[at] < HALF < values[at] else float(lower[at] + values[at]) / 2 for at in best]
    return min(middles, key=lambda middle: abs(middle - HALF))
