"""The prediction for one video: scores of each branch, averaged over its views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from peakzoom.data.entries import SEPARATOR
from peakzoom.display.html import block_html, name_html, row_html, table_html
from peakzoom.display.markup import escape_html
from peakzoom.utils.errors import printable
from peakzoom.utils.extras import needed_for
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


TABLE = ("file", "class", "score", "problem")  # the first columns of a table of predictions
ESCAPE = "score:"


def score_columns(classes: Sequence[str], others: Sequence[str] = TABLE) -> list[str]:
    """The columns behind ``others`` of a table, one a class: its name, or ``score:NAME`` where that is taken.

    No two are alike: a class that is itself called so gets one more in front.

    >>> score_columns(["wave", "file", "score:file"])
    ['wave', 'score:file', 'score:score:file']
    """
    return [ESCAPE + name if _plain(name) in others else name for name in classes]


def classes_of(columns: Sequence[str], others: Sequence[str] = TABLE) -> list[str]:
    """The classes whose columns :func:`score_columns` has named."""
    return [name.removeprefix(ESCAPE) if _plain(name) in others else name for name in columns]


def _plain(name: str) -> str:
    while name.startswith(ESCAPE):
        name = name.removeprefix(ESCAPE)
    return name


class Effort(NamedTuple):
    """What a prediction with the early exit took (:mod:`peakzoom.inference.early_exit`)."""

    views: int
    stage2_views: int  # of these, those whose zoomed videos were seen too; files call them "closer"


BAR = "#3b82f6"  # of a notebook's table, seen on white and on black
UNSURE = 0.2  # above guessing; below it is no more than a guess: of two classes a score under 0.6, of ten under 0.28
NONE = "none of these"  # in place of a class where a prediction is rejected
MEASURES = {"probability": "largest probability", "energy": "energy"}  # of a confidence, and their names


class Confidence(NamedTuple):
    """How much a model knows of what a video shows (:mod:`peakzoom.inference.rejection`)."""

    measure: str  # one of MEASURES
    value: float
    threshold: float

    @property
    def rejected(self) -> bool:
        """Whether that is too little for a prediction to be given."""
        return self.value < self.threshold

    @property
    def said(self) -> str:
        """In words, as "largest probability 0.4312, below 0.5213"."""
        side = "below" if self.rejected else "not below"
        return f"{MEASURES[self.measure]} {self.value:.4f}, {side} {self.threshold:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a line of JSON."""
        return {"confidence": self.value, "rejected": self.rejected}


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        path: the file.
        classes: S names.
        scores: for each branch and "fused", float64 (S,) probabilities averaged over the views; they sum to 1, unless
            a video may be of several classes.
        views: for each branch, float32 (V, S) probabilities of the views, clip by clip; empty with the early exit.
        problem: what was wrong with the file although it gave frames; None = nothing.
        effort: what the early exit took, which gives fused scores alone; None without it.
        energy: of the fused logits, see :func:`mean_energy`; None with the early exit, and of several labels.
        confidence: what decides whether a class is named; None where nothing is rejected.
        thresholds: (S,) from which score on a class is named, where a video may be of several; None: the best one is.
    """

    path: Path
    classes: list[str]
    scores: dict[str, np.ndarray]
    views: dict[str, np.ndarray]
    problem: str | None
    effort: Effort | None = None
    energy: float | None = None
    confidence: Confidence | None = None
    thresholds: tuple[float, ...] | None = None

    def score_of(self, name: str) -> float:
        """The fused score of a class."""
        return float(self.scores["fused"][self.classes.index(name)])

    @property
    def names(self) -> list[str]:
        """The classes that the model names, best first; none where it rejects all of them, or none reaches its own."""
        if self.thresholds is not None:
            return self.reached("fused")
        return [] if self.confidence and self.confidence.rejected else [self.top(1)[0][0]]

    def reached(self, branch: str) -> list[str]:
        """The classes whose score in a branch reaches their thresholds, best first; of several labels."""
        scores, thresholds = self.scores[branch], self.thresholds or ()
        every = best_classes(self.classes, scores, len(scores))
        limits = dict(zip(self.classes, thresholds, strict=True))
        return [name for name, score in every if score >= limits[name]]

    @property
    def labels(self) -> list[tuple[str, float]]:
        """The same with their fused scores."""
        return [(name, self.score_of(name)) for name in self.names]

    @property
    def name(self) -> str | None:
        """The best class that the model names, if it names one."""
        return next(iter(self.names), None)

    @property
    def unsure(self) -> bool:
        """Whether the best class is near what guessing gives, of a model that always names one."""
        if self.confidence is not None or self.thresholds is not None:
            return False
        return above_guessing(self.top(1)[0][1], len(self.classes)) < UNSURE

    @property
    def label(self) -> str:
        """All that the model names in one text, as a list of labelled videos has it; or that it names none."""
        return SEPARATOR.join(self.names) or NONE

    @property
    def shown_branches(self) -> list[str]:
        """The branches beside "fused"; none where there is one alone, whose scores are the fused ones."""
        branches = [name for name in self.scores if name != "fused"]
        return branches if len(branches) > 1 else []

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k best classes by their fused scores, best first; ties in the order of the classes."""
        return best_classes(self.classes, self.scores["fused"], k)

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain data for one line of JSON: the best k, then all scores of all branches."""
        return {
            "file": str(self.path),
            "class": self.name,
            **({} if self.thresholds is None else {"labels": to_objects(self.labels)}),
            "score": self.top(1)[0][1],
            "top": to_objects(self.top(k)),
            "scores": {
                branch: dict(zip(self.classes, values.tolist(), strict=True))
                for branch, values in self.scores.items()
            },
            "problem": self.problem,
            **({"views": self.effort.views, "closer": self.effort.stage2_views} if self.effort else {}),
            **(self.confidence.to_dict() if self.confidence else {}),
        }

    def __str__(self) -> str:
        """Three lines: the file and what it shows, the best three classes, what was looked at and what was wrong."""
        named = f"{printable(self.path)}: {printable(self.label)}"
        if self.confidence is not None:
            named += f" ({self.confidence.said})"
        elif self.unsure:
            named += " (not sure: hardly above a guess)"
        best = ", ".join(f"{printable(name)} {score:.3f}" for name, score in self.top(3))
        if self.effort is not None:
            seen = f"{counted(self.effort.views, 'view')}, {self.effort.stage2_views} of them in stage 2"
        else:
            seen = f"{max(map(len, self.views.values()), default=0)} views"
        if self.shown_branches:
            seen += f", branches {', '.join(self.shown_branches)}"
        return "\n".join([named, f"  {best}", f"  {seen}{f'; {self.problem}' if self.problem else ''}"])

    def plot(self, k: int = 5) -> Figure:
        """Scores of the best k classes by every branch, for a notebook.

        Raises:
            UserError: matplotlib is not installed.
        """
        with needed_for("Prediction.plot()"):
            from peakzoom.display.figures import scores_figure
        names = [name for name, _ in self.top(k)]
        places = [self.classes.index(name) for name in names]
        branches = ["fused", *self.shown_branches]
        return scores_figure(self.path.name, names, {name: self.scores[name][places] for name in branches})

    def _repr_html_(self) -> str:
        """The best five classes: a bar and the fused score, then the score of every branch."""
        branches = self.shown_branches
        rows = []
        for name, score in self.top():
            place = self.classes.index(name)
            bar = (
                f'<div style="width:12em;border:1px solid rgba(128,128,128,.4)"><div style="width:{score:.1%};'
                f'height:.8em;background:{BAR}"></div></div>'
            )
            figures = [f"{score:.3f}", *(f"{self.scores[branch][place]:.3f}" for branch in branches)]
            rows.append(row_html([name_html(name), bar], figures))
        head = row_html(["class", ""], ["score", *branches], "th")
        lines = [f"<b>{escape_html(self.path.name)}</b>"]
        if self.confidence and self.confidence.rejected:
            lines.append(f"<b>{NONE}</b>: {self.confidence.said}")
        if self.thresholds is not None:
            lines.append(f"<b>{escape_html(self.label)}</b>")
        if self.problem:
            lines.append(f"but: {escape_html(self.problem)}")
        if self.effort:
            lines.append(
                f"{counted(self.effort.views, 'view')}, {self.effort.stage2_views} of them in stage 2"
            )
        return block_html("<br>".join(lines), table_html(head, rows))


def above_guessing(score: float, classes: int) -> float:
    """How far a score lies above that of a guess among so many classes, from 0 to 1; of one class a guess is 0.

    >>> above_guessing(0.75, 2), above_guessing(0.25, 4), above_guessing(0.1, 4), above_guessing(1.0, 10)
    (0.5, 0.0, 0.0, 1.0)
    """
    guess = 1 / classes if classes > 1 else 0.0
    return max(0.0, (score - guess) / (1 - guess))


def best_classes(classes: Sequence[str], scores: np.ndarray, k: int) -> list[tuple[str, float]]:
    """The k best classes and their scores, best first; ties in the order of the classes."""
    return [(classes[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")[:k]]


def to_objects(scored: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Classes and their scores as JSON has them."""
    return [{"class": name, "score": score} for name, score in scored]


def average(views: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Mean probabilities over views, float (..., V, S) -> float64 (..., S), with sum 1 unless of several labels.

    The same to the last bit in whatever order the views come: rounding depends on the order of a sum, so each class's
    values are added in the order of their size.
    """
    mean = np.sort(views, axis=-2).astype(np.float64).mean(-2)
    return np.asarray(mean if multi_label else mean / mean.sum(-1, keepdims=True))


def mean_energy(logits: Tensor) -> float:
    """Mean over views of ln sum_s exp(y_s), logits (V, S) of any float type; in whatever order the views come."""
    return float(np.sort(logits.double().logsumexp(1).numpy()).mean())
