"""One class as an alarm: what it finds and what it reports falsely at each threshold of its score.

A video is reported as the class where the fused score of that class is at least the threshold, whatever the other
classes have. With two classes that is all there is to choose; with more, another rule than the highest score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peakzoom.data.entries import some
from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.stats import Share, share
from peakzoom.utils.errors import UserError, did_you_mean, printable

RECALLS = (0.5, 0.8, 0.9, 0.95, 1.0)  # of the rows of the table


@dataclass(frozen=True)
class Alarm:
    """What comes of one threshold; all intervals are Wilson's."""

    threshold: float
    recall: Share  # of the class's videos, those reported
    precision: Share  # of the reported videos, those of the class
    false_alarms: Share  # of the other videos, those reported


@dataclass(frozen=True)
class Curves:
    """One class against all others; the four lists have a value for each different score, from high to low."""

    name: str
    videos: int  # of the class
    others: int
    average_precision: float  # mean precision over the recalls, by steps
    auroc: float  # how often a video of the class scores higher than another one, ties counted half
    rows: list[Alarm]  # the highest threshold of each recall in ``RECALLS``
    thresholds: list[float]
    recall: list[float]
    precision: list[float]
    false_alarms: list[float]


def threshold_curves(scores: Scores, wanted: Sequence[str] = ()) -> list[Curves]:
    """Of the classes that are wanted; of both where there are two and none is named.

    Raises:
        UserError: as :func:`curves_of`.
    """
    targets = scores.labels[:, None] == np.arange(len(scores.classes))
    usual = scores.classes if len(scores.classes) == 2 and not wanted else []
    possible = [name for name, there in zip(scores.classes, targets.T, strict=True) if 0 < there.mean() < 1]
    usual = [name for name in usual if name in possible]
    return curves_of(scores.classes, scores.means["fused"], targets, wanted or usual)


def curves_of(
    classes: Sequence[str], fused: np.ndarray, targets: np.ndarray, wanted: Sequence[str]
) -> list[Curves]:
    """Of the classes that are wanted.

    Args:
        classes: S names.
        fused: scores (V, S).
        targets: bool (V, S), whether a video is of a class.
        wanted: names among the classes.

    Raises:
        UserError: no class has such a name, or all test videos are of it, or none is.
    """
    found = []
    for name in dict.fromkeys(wanted):
        if name not in classes:
            known = did_you_mean(name, classes) or f", expected one of {some(classes)}"
            raise UserError(f"no class is called {printable(name)}{known}")
        at = list(classes).index(name)
        of_class = targets[:, at]
        if of_class.all() or not of_class.any():
            raise UserError(
                f"{int(of_class.sum())} of {len(of_class)} test videos are of class {printable(name)}: its thresholds "
                "need some of it and some others"
            )
        found.append(_curves(name, fused[:, at], of_class))
    return found


def _curves(name: str, score: np.ndarray, of_class: np.ndarray) -> Curves:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    false_rate, recall, thresholds = (
        each[1:] for each in roc_curve(of_class, score, drop_intermediate=False)
    )
    videos, others = int(of_class.sum()), int((~of_class).sum())
    right, false = (recall * videos).round().astype(int), (false_rate * others).round().astype(int)
    rows = []
    for wanted in RECALLS:
        place = int(np.argmax(recall >= wanted - 1e-9))
        found, wrong = int(right[place]), int(false[place])
        rows.append(
            Alarm(
                float(thresholds[place]),
                share(found, videos),
                share(found, found + wrong),
                share(wrong, others),
            )
        )
    return Curves(
        name,
        videos,
        others,
        float(average_precision_score(of_class, score)),
        float(roc_auc_score(of_class, score)),
        rows,
        *(each.tolist() for each in (thresholds, recall, right / (right + false), false_rate)),
    )
