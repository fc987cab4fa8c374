"""From which confidence on a prediction is given: chosen on validation videos, and measured on others.

A prediction should be kept where it is right, and rejected where it is not: it is a mistake, or the video shows none of
the classes (an *unknown* one), so that no prediction could be right. Where no unknown videos are known the mistakes
stand alone; that is selective prediction (Geifman and El-Yaniv, NeurIPS 2017).

- **AUROC**: how often a right prediction has more confidence than one that should be rejected, ties half. It chooses
  the measure of the confidence (:mod:`peakzoom.inference.rejection`).
- The **threshold** keeps a stated share of the right predictions; it lies midway to the next lower confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from peakzoom.data.entries import Entry
from peakzoom.evaluation.stats import (
    FEW,
    Share,
    accuracy_interval,
    bootstrap,
    groups_for_interval,
    separation,
    share_of,
)
from peakzoom.inference.prediction import MEASURES, NONE, Prediction
from peakzoom.inference.rejection import Rejection
from peakzoom.utils.errors import UserError

KEPT = 0.95  # of the right predictions


@dataclass(frozen=True)
class JudgedVideo:
    """One video, and what its confidence made of it; the fields are the columns of ``rejection.csv``."""

    path: str
    label: str  # "" of an unknown one
    predicted: str  # the class that would be named
    confidence: float
    rejected: bool
    right: bool
    group: str | None


@dataclass(frozen=True)
class RejectionScores:
    """How well a threshold separates; shares are in [0, 1].

    Attributes:
        measure, threshold: of the rejection.
        videos: the labelled ones in their order, then the unknown ones.
        groups: whether intervals draw whole groups; else videos count as independent.
    """

    measure: str
    threshold: float
    videos: list[JudgedVideo]
    groups: bool

    @property
    def labelled(self) -> list[JudgedVideo]:
        """The videos with a label."""
        return [each for each in self.videos if each.label]

    @property
    def unknown(self) -> Share:
        """The share of the unknown videos that is rejected."""
        return share_of(np.array([each.rejected for each in self.videos if not each.label], bool))

    @property
    def kept(self) -> Share:
        """The share of the labelled videos that is kept."""
        return share_of(np.array([not each.rejected for each in self.labelled]))

    @property
    def accuracy(self) -> float:
        """Of all labelled videos, were none rejected."""
        return float(np.mean([each.right for each in self.labelled]))

    def accuracy_of_kept(self) -> tuple[float, tuple[float, float]] | None:
        """Of the labelled videos that are kept, with its 95% interval; None where none is."""
        kept = [each for each in self.labelled if not each.rejected]
        if not kept:
            return None
        right = np.array([each.right for each in kept])
        return float(right.mean()), accuracy_interval(
            right, [str(each.group) for each in kept] if self.groups else None
        )

    def auroc(self) -> tuple[float, tuple[float, float]] | None:
        """With its 95% interval; None with fewer than ``FEW`` predictions to be kept, or to be rejected.

        An unknown video without a group is one by itself.
        """
        values = np.array([each.confidence for each in self.videos])
        wrong = np.array([not each.right for each in self.videos])
        if min(int(wrong.sum()), int((~wrong).sum())) < FEW:
            return None
        units = [each.group if each.label else (each.path,) for each in self.videos] if self.groups else None
        return separation(-values, wrong), bootstrap(separation, -values, wrong, groups=units)

    def said(self) -> list[str]:
        """What was measured, in sentences."""
        auroc, kept, unknown = self.auroc(), self.accuracy_of_kept(), self.unknown
        of = "groups" if self.groups else "videos"
        against = "wrong ones and unknown videos" if unknown.videos else "wrong ones"
        lines = [
            f"{NONE} where the {MEASURES[self.measure]} is below {self.threshold:.4g}: {self.kept.value:.1%} of "
            f"{len(self.labelled)} videos are kept",
            f"accuracy of all {self.accuracy:.1%}, "
            + (
                f"of those kept {kept[0]:.1%} (95% by {of}: {kept[1][0]:.1%} to {kept[1][1]:.1%})"
                if kept
                else "and none is kept"
            ),
            f"right predictions against {against}: "
            + (
                f"AUROC {auroc[0]:.3f} (95% by {of}: {auroc[1][0]:.3f} to {auroc[1][1]:.3f})"
                if auroc
                else f"no AUROC from fewer than {FEW} of either"
            ),
        ]
        if unknown.videos:
            lines.append(
                f"unknown videos rejected: {unknown.value:.1%} of {unknown.videos} ({unknown.interval})"
            )
        return lines

    def summary(self) -> dict[str, Any]:
        """As plain data, for ``rejection.json``."""
        auroc, kept, unknown = self.auroc(), self.accuracy_of_kept(), self.unknown
        return {
            "measure": self.measure,
            "threshold": self.threshold,
            "auroc": auroc and auroc[0],
            "auroc_interval": auroc and auroc[1],
            "videos": len(self.labelled),
            "kept": self.kept.value,
            "accuracy": self.accuracy,
            "accuracy_of_kept": kept and kept[0],
            "accuracy_of_kept_interval": kept and kept[1],
            "interval_of": "groups" if self.groups else "videos",
            "unknown_videos": unknown.videos,
            "unknown_rejected": unknown.value,
        }


def confidences(predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """The confidences of fused predictions that no temperature has changed, by measure: float64 (V,) each."""
    energies = [each.energy for each in predictions]
    return {
        "probability": np.array([each.scores["fused"].max() for each in predictions]),
        "energy": np.array(energies, np.float64),
    }


def right_ones(predictions: Sequence[Prediction], entries: Sequence[Entry]) -> np.ndarray:
    """Bool (V,): whether each fused prediction is the label."""
    pairs = zip(predictions, entries, strict=True)
    return np.array([int(each.scores["fused"].argmax()) == entry.label for each, entry in pairs], bool)


@dataclass(frozen=True)
class ChosenRejection:
    """What :func:`choose_rejection` chose: a threshold of the measure with the highest AUROC."""

    measure: str
    threshold: float
    aurocs: Mapping[str, float]  # of every measure


def choose_rejection(
    measures: Mapping[str, np.ndarray], keep: np.ndarray, share: float = KEPT
) -> ChosenRejection:
    """Choose the measure that separates best (of equals the first), and its threshold.

    Args:
        measures: confidences of V predictions, (V,) each.
        keep: bool (V,), whether a prediction should be kept.
        share: of those, that the threshold keeps at least.

    Raises:
        UserError: there are fewer than ``FEW`` predictions that should be kept, or that should not.
    """
    good, bad = int(keep.sum()), int((~keep).sum())
    if min(good, bad) < FEW:
        raise UserError(
            f"{good} predictions are right and {bad} should be rejected (wrong, or of a video of --unknown), expected "
            f"at least {FEW} of either: name videos that show none of the classes with --unknown, or more DATA; "
            "nothing was chosen"
        )
    aurocs = {name: separation(-values, ~keep) for name, values in measures.items()}
    measure = max(aurocs, key=lambda name: aurocs[name])
    values = measures[measure]
    rising = np.sort(values[keep])
    least = rising[len(rising) - math.ceil(round(share * len(rising), 9))]  # of those that are kept
    lower = values[values < least]
    return ChosenRejection(measure, float((least + lower.max()) / 2 if len(lower) else least), aurocs)


def judged(predictions: Sequence[Prediction], rejection: Rejection) -> list[Prediction]:
    """The same predictions with what a threshold makes of their confidence."""
    return [
        replace(
            each, confidence=rejection.judge(float(each.scores["fused"].max()), float(each.energy or 0.0))
        )
        for each in predictions
    ]


def measure_rejection(
    predictions: Sequence[Prediction], entries: Sequence[Entry], unknown: Sequence[Prediction] = ()
) -> RejectionScores:
    """What the confidences of predictions made of labelled and of unknown videos; each prediction has one."""
    pairs = zip(predictions, entries, right_ones(predictions, entries), strict=True)
    rows = [_row(each, each.classes[entry.label], entry.group, bool(right)) for each, entry, right in pairs]
    rows += [_row(each, "", None, False) for each in unknown]
    groups = groups_for_interval([entry.group for entry in entries])
    confidence = predictions[0].confidence
    assert confidence is not None
    return RejectionScores(confidence.measure, confidence.threshold, rows, groups is not None)


def _row(prediction: Prediction, label: str, group: str | None, right: bool) -> JudgedVideo:
    confidence = prediction.confidence
    assert confidence is not None
    return JudgedVideo(
        path=str(prediction.path),
        label=label,
        predicted=prediction.top(1)[0][0],
        confidence=confidence.value,
        rejected=confidence.rejected,
        right=right,
        group=group,
    )
