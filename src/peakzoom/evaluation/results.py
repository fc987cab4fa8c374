"""Accuracies of the branches and of the fused prediction, from scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from peakzoom.data.entries import Entry, Problem
from peakzoom.display.figures import confusion_figure
from peakzoom.display.html import block_html, folded_html, name_html, row_html, table_html
from peakzoom.evaluation.stats import TOP, accuracy_interval, few_groups, groups_for_interval
from peakzoom.inference.early_exit import EarlyExit
from peakzoom.inference.prediction import Prediction
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from peakzoom.evaluation.faithfulness import Faithfulness
    from peakzoom.evaluation.pointing import Pointing
    from peakzoom.evaluation.rejection import RejectionScores


@dataclass(frozen=True)
class BranchResult:
    """Accuracies of one branch, in [0, 1]."""

    top1: float
    top5: float | None  # None of so few classes that it says nothing
    mean_class: float
    per_class: dict[str, float]  # classes with at least one video
    interval: tuple[float, float] = (0.0, 1.0)  # 95%, of top1


@dataclass(frozen=True)
class Evaluation:
    """What came out, for each branch and "fused"."""

    branches: dict[str, BranchResult]
    confusion: np.ndarray  # int64 (S, S), rows true, columns the fused prediction
    counts: dict[str, int]  # videos scored, of each class
    problems: list[Problem]
    effort: MeanEffort | None = None  # of the early exit
    faithfulness: Faithfulness | None = None  # where it was asked for
    pointing: Pointing | None = None  # where it is known where the action is
    groups: int = 0  # that the intervals draw whole; 0: Wilson's intervals, which take videos as independent
    rejection: RejectionScores | None = None  # where predictions may be rejected
    few_groups: int = 0  # of the videos, too few to draw whole; 0: enough, or none is known

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: the accuracies of every branch as text.

        Of five classes or fewer, top-5 says nothing; of one branch, neither does the row of the fused prediction.
        """
        five = len(self.counts) > TOP
        head = ["prediction", "top-1", "95% interval", *(["top-5"] if five else []), "mean class"]
        rows = []
        for name, branch in self.branches.items():
            if name == "fused" and len(self.branches) == 2:
                continue
            low, high = branch.interval
            top5 = [] if branch.top5 is None else [f"{branch.top5:.1%}"]
            rows.append(
                [name, f"{branch.top1:.1%}", f"{low:.1%} to {high:.1%}", *top5, f"{branch.mean_class:.1%}"]
            )
        return head, rows

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: the fused prediction, class by class."""
        rows = [
            [name, str(self.counts[name]), f"{share:.1%}"] for name, share in self.fused.per_class.items()
        ]
        return ["class", "videos", "accuracy"], rows

    @property
    def videos(self) -> int:
        """How many were scored."""
        return sum(self.counts.values())

    @property
    def intervals(self) -> str:
        """How the intervals were made, in words."""
        return how_intervals(self.groups, self.few_groups, "Wilson's")

    @property
    def fused(self) -> BranchResult:
        """The accuracies of the fused prediction."""
        return self.branches["fused"]

    def plot(self) -> Figure:
        """The confusion matrix, for a notebook."""
        return confusion_figure(self.confusion, list(self.counts))

    def _repr_html_(self) -> str:
        """Accuracies of every branch with their intervals, then the fused prediction's class by class."""
        videos = sum(self.counts.values())
        names, branches = self.table()
        head = row_html(names[:1], names[1:], "th")
        rows = [row_html([name_html(name)], figures) for name, *figures in branches]
        each = [
            row_html([name_html(name)], [str(self.counts[name]), f"{value:.1%}"])
            for name, value in self.fused.per_class.items()
        ]
        classes = table_html(row_html(["class"], ["videos", "fused accuracy"], "th"), each)
        lines = [f"<b>{counted(videos, 'video')}</b>; {self.intervals}"]
        if self.problems:
            lines.append(f"{counted(len(self.problems), 'file')} missing or broken, or with something wrong")
        if self.effort:
            views, closer = self.effort.views, self.effort.closer
            lines.append(f"a video took {views:.1f} views on average, {closer:.1f} of them in stage 2")
        if self.rejection:
            lines += self.rejection.said()
        return block_html(
            "<br>".join(lines), table_html(head, rows), folded_html(classes, len(each), "classes")
        )


def how_intervals(groups: int, few: int, otherwise: str) -> str:
    """How intervals were made: over so many whole groups, or otherwise, where there are too few groups or none (0)."""
    if groups:
        return f"intervals are by bootstrap over {groups} whole groups"
    said = f"intervals are {otherwise} and take videos as independent"
    if few:
        alike = f"are of {few} groups" if few > 1 else "are of one group"
        return f"{said}, but they {alike} and alike in each: the intervals are too narrow"
    return said


def measure(
    scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], groups: Sequence[str] | None = None
) -> BranchResult:
    """Accuracies from scores.

    Args:
        scores: (V, S) of V videos.
        labels: int (V,).
        classes: S names.
        groups: of the videos, drawn whole for the interval; None takes videos as independent (Wilson).
    """
    right = scores.argmax(1) == labels
    predicted, target = torch.from_numpy(scores), torch.from_numpy(labels)

    def accuracy(average: Literal["micro", "none"], top_k: int = 1) -> Tensor:
        return multiclass_accuracy(predicted, target, len(classes), average, top_k=top_k)

    each = accuracy("none")
    present = [index for index in range(len(classes)) if (labels == index).any()]
    return BranchResult(
        top1=float(accuracy("micro")),
        top5=float(accuracy("micro", TOP)) if len(classes) > TOP else None,
        mean_class=float(each[present].mean()),
        per_class={classes[index]: float(each[index]) for index in present},
        interval=accuracy_interval(right, groups),
    )


@dataclass(frozen=True)
class Scored:
    """Predictions of labelled videos, and the files that gave none or have something wrong."""

    predictions: list[Prediction]
    entries: list[Entry]  # theirs, with labels in the model's order of classes
    problems: list[Problem]


def summarise(scored: Scored, classes: Sequence[str], early_exit: EarlyExit | None = None) -> Evaluation:
    """All accuracies of scored videos, and what the early exit took where there was one.

    Raises:
        UserError: there is no prediction.
    """
    if not scored.predictions:
        raise UserError("not one of the test videos could be scored; run 'peakzoom data check' on them")
    labels = np.array([entry.label for entry in scored.entries], dtype=np.int64)
    stacked = {
        name: np.stack([each.scores[name] for each in scored.predictions])
        for name in scored.predictions[0].scores
    }
    groups = groups_for_interval([entry.group for entry in scored.entries])
    fused = torch.from_numpy(stacked["fused"].argmax(1))
    confusion = multiclass_confusion_matrix(fused, torch.from_numpy(labels), num_classes=len(classes))
    return Evaluation(
        {name: measure(scores, labels, classes, groups) for name, scores in stacked.items()},
        confusion.numpy(),
        {name: int((labels == index).sum()) for index, name in enumerate(classes)},
        list(scored.problems),
        mean_effort(scored.predictions, early_exit) if early_exit else None,
        groups=len(set(groups or ())),
        few_groups=0 if groups else few_groups([entry.group for entry in scored.entries]),
    )


@dataclass(frozen=True)
class MeanEffort:
    """What the early exit took on average."""

    views: float  # of a video
    closer: float  # of these, in stage 2
    passes_per_view: float
    multiply_adds_per_view: float  # G
    multiply_adds: float  # G, of a video
    full_multiply_adds: float  # G, of a video with every view in stage 2


def mean_effort(predictions: Sequence[Prediction], early_exit: EarlyExit) -> MeanEffort:
    """Of predictions with the early exit."""
    efforts = [each.effort for each in predictions if each.effort]
    views, closer = (np.array(each, dtype=np.float64) for each in zip(*efforts, strict=True))
    spent = np.asarray(early_exit.work.of(views, closer))
    every = early_exit.views.clips * early_exit.views.crops
    return MeanEffort(
        float(views.mean()),
        float(closer.mean()),
        float(np.sum(early_exit.work.passes(views, closer)) / views.sum()),
        float(spent.sum() / views.sum()),
        float(spent.mean()),
        float(early_exit.work.of(every, every)),
    )
