"""What an evaluation of several labels a video gives: mAP and F1, of every branch and class by class.

Beside the files that every evaluation leaves (:mod:`peakzoom.evaluation.files`), the columns of ``scores.csv`` called
label, class and predicted hold several ones, separated by ``;``; ``views.npz`` has ``targets``, bool (videos, S), in
place of labels; ``per_class.csv`` has a row a class with a video; and there is no confusion matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peakzoom.data.entries import SEPARATOR, Problem
from peakzoom.display.html import block_html, folded_html, name_html, row_html, table_html
from peakzoom.evaluation.files import write_json, write_pointing, write_score_rows
from peakzoom.evaluation.multi_label import average_precision, f1, mean_average_precision, targets_of
from peakzoom.evaluation.results import Scored, how_intervals
from peakzoom.evaluation.stats import bootstrap, few_groups, groups_for_interval
from peakzoom.utils.durable import write_csv
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from peakzoom.evaluation.pointing import Pointing


@dataclass(frozen=True)
class LabelScores:
    """One class in the fused prediction, in [0, 1]; the last three are at its threshold."""

    name: str
    videos: int
    average_precision: float
    threshold: float
    precision: float | None  # None where no video is reported
    recall: float
    f1: float


@dataclass(frozen=True)
class MultiLabelBranch:
    """One branch, in [0, 1]; means are over the classes with a video."""

    mean_average_precision: float
    f1: float  # macro, at the thresholds of the classes
    per_class: dict[str, float]  # average precision
    interval: tuple[float, float] = (0.0, 1.0)  # 95%, of the mAP


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What came out, for each branch and "fused"."""

    branches: dict[str, MultiLabelBranch]
    labels: list[LabelScores]  # classes with a video
    counts: dict[str, int]  # videos scored, of each class
    videos: int
    problems: list[Problem]
    pointing: Pointing | None = None  # where it is known where the action is
    groups: int = 0  # that the intervals draw whole; 0: videos
    few_groups: int = 0  # of the videos, too few to draw whole; 0: enough, or none is known

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: the figures of every branch as text; of one branch, not of the fused prediction again."""
        rows = [
            [
                name,
                f"{each.mean_average_precision:.1%}",
                "{:.1%} to {:.1%}".format(*each.interval),
                f"{each.f1:.1%}",
            ]
            for name, each in self.branches.items()
            if name != "fused" or len(self.branches) != 2
        ]
        return ["prediction", "mAP", "95% interval", "F1 (macro)"], rows

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: the fused prediction, class by class."""
        head = ["class", "videos", "average precision", "threshold", "precision", "recall", "F1"]
        return head, [
            [
                *(each.name, str(each.videos), f"{each.average_precision:.1%}", f"{each.threshold:.2f}"),
                *("none" if each.precision is None else f"{each.precision:.1%}", f"{each.recall:.1%}"),
                f"{each.f1:.1%}",
            ]
            for each in self.labels
        ]

    @property
    def fused(self) -> MultiLabelBranch:
        """The figures of the fused prediction."""
        return self.branches["fused"]

    @property
    def intervals(self) -> str:
        """How the intervals were made, in words."""
        return how_intervals(self.groups, self.few_groups, "by bootstrap over videos")

    def _repr_html_(self) -> str:
        """The figures of every branch, then the fused prediction's class by class."""
        tables = []
        for names, rows in (self.table(), self.class_table()):
            head = row_html(names[:1], names[1:], "th")
            tables.append(table_html(head, [row_html([name_html(name)], figures) for name, *figures in rows]))
        title = f"<b>{counted(self.videos, 'video')}</b>; {self.intervals}"
        return block_html(title, tables[0], folded_html(tables[1], len(self.labels), "classes"))


def summarise_labels(
    scored: Scored, classes: Sequence[str], thresholds: Sequence[float]
) -> MultiLabelEvaluation:
    """All figures of scored videos.

    Raises:
        UserError: there is no prediction.
    """
    if not scored.predictions:
        raise UserError("not one of the test videos could be scored; run 'peakzoom data check' on them")
    targets = targets_of([entry.labels for entry in scored.entries], len(classes))
    stacked = {
        name: np.stack([each.scores[name] for each in scored.predictions])
        for name in scored.predictions[0].scores
    }
    owners = [entry.group for entry in scored.entries]
    groups = groups_for_interval(owners)
    return MultiLabelEvaluation(
        {
            name: measure_labels(scores, targets, classes, thresholds, groups)
            for name, scores in stacked.items()
        },
        label_scores(stacked["fused"], targets, classes, thresholds),
        dict(zip(classes, targets.sum(0).tolist(), strict=True)),
        len(targets),
        list(scored.problems),
        groups=len(set(groups or ())),
        few_groups=0 if groups else few_groups(owners),
    )


def measure_labels(
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    thresholds: Sequence[float],
    groups: Sequence[str] | None = None,
) -> MultiLabelBranch:
    """Figures of one branch.

    Args:
        scores: (V, S).
        targets: bool (V, S).
        classes: S names.
        thresholds: (S,).
        groups: of the videos, drawn whole for the interval; None draws videos.
    """
    there = np.flatnonzero(targets.any(0)).tolist()
    on = scores >= np.asarray(thresholds)
    return MultiLabelBranch(
        mean_average_precision(scores, targets),
        float(np.mean([f1(on[:, at], targets[:, at]) for at in there])),
        {classes[at]: average_precision(scores[:, at], targets[:, at]) for at in there},
        bootstrap(mean_average_precision, scores, targets, groups=groups),
    )


def label_scores(
    scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], thresholds: Sequence[float]
) -> list[LabelScores]:
    """One prediction class by class, those that have a video; arguments as of :func:`measure_labels`."""
    found = []
    for at in np.flatnonzero(targets.any(0)).tolist():
        score, target = scores[:, at], targets[:, at]
        on = score >= thresholds[at]
        right = int((on & target).sum())
        found.append(
            LabelScores(
                name=classes[at],
                videos=int(target.sum()),
                average_precision=average_precision(score, target),
                threshold=float(thresholds[at]),
                precision=right / int(on.sum()) if on.any() else None,
                recall=right / int(target.sum()),
                f1=f1(on, target),
            )
        )
    return found


def write_labels_evaluation(
    out: Path,
    result: MultiLabelEvaluation,
    scored: Scored,
    about: Mapping[str, Any],
    thresholds: Sequence[float],
) -> None:
    """Write the files of an evaluation into a folder; ``about`` as for the evaluation of one label a video."""
    branches, classes = list(result.branches), list(result.counts)
    rows = _score_rows(scored, branches, classes, thresholds)
    write_score_rows(out / "scores.csv", classes, rows)
    np.savez(
        out / "views.npz",
        scores=np.stack([np.stack([each.views[name] for name in branches]) for each in scored.predictions]),
        branches=np.array(branches),
        targets=targets_of([entry.labels for entry in scored.entries], len(classes)),
        paths=np.array([str(each.path) for each in scored.predictions]),
    )
    head = ["class", "videos", "average_precision", "threshold", "precision", "recall", "f1"]
    parts = [name for name in branches if name != "fused"]
    write_csv(
        out / "per_class.csv",
        [*head, *(f"average_precision_{name}" for name in parts)],
        (
            [*asdict(each).values(), *(result.branches[name].per_class[each.name] for name in parts)]
            for each in result.labels
        ),
    )
    write_csv(
        out / "problems.csv", ["path", "reason"], ((each.path, each.reason) for each in result.problems)
    )
    summary = {
        "videos": len(scored.predictions),
        "unscored": sum(not each.reason.startswith("scored, but") for each in result.problems),
        **about,
        "multi_label": True,
        "thresholds": list(thresholds),
        "branches": {
            name: {"map": each.mean_average_precision, "interval": each.interval, "f1": each.f1}
            for name, each in result.branches.items()
        },
        "intervals_of": "groups" if result.groups else "videos",
    }
    write_json(out / "metrics.json", summary)
    if result.pointing is not None:
        write_pointing(out, result.pointing)


def _score_rows(
    scored: Scored, branches: Sequence[str], classes: Sequence[str], thresholds: Sequence[float]
) -> Iterable[list[Any]]:
    limits = np.asarray(thresholds)
    named = partial(map, classes.__getitem__)
    for each, entry in zip(scored.predictions, scored.entries, strict=True):
        for name in branches:
            on = np.flatnonzero(each.scores[name] >= limits).tolist()
            yield [
                *(each.path, SEPARATOR.join(map(str, entry.labels)), entry.named(classes)),
                *(entry.group or "", name, SEPARATOR.join(named(on))),
                *map(repr, each.scores[name].tolist()),
            ]
