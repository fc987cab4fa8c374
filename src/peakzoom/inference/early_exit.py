"""The early exit: a prediction from fewer views and passes where the scores allow it (docs/cascade.md).

The paper averages 30 views, each of which goes through the network three times. With the early exit, views come one
after the other in the order of :func:`view_order`, in two stages:

- **Stage 1** is the original branch alone, one pass a view, for at most ``stage1_views`` views. Their scores add up,
  and once the best class leads the second by the threshold ``stage1_lead``, it is the prediction.
- **Stage 2** is all branches, by two further passes for each of the same views and then for further ones. The fused
  scores add up until the best class leads by the threshold ``stage2_lead``.

A view adds 1 to the scores in all, so a lead of 1.5 takes two views at least. Thresholds come from
:func:`peakzoom.evaluation.calibrate.calibrate`, which replays them on the scores of a full test.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from peakzoom.inference.engines.base import Engine
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.network import FirstPass
from peakzoom.inference.prediction import Effort
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.plain import read_object
from peakzoom.utils.words import counted
from peakzoom.video.sampling import DecodedViews, Views

FILE = "cascade.json"
FOLDER = "cascade"  # of a run, with that file
MOST_VIEWS = 10_000  # of a video: no file shall keep a reader busy for ever
OLD_KEYS = {  # of files written before 0.1.0
    **{"thresholds": "cascade", "stage1_views": "glances", "stage1_lead": "clear", "stage2_lead": "settled"},
    **{"stage1": "first", "stage2": "closer"},
}


@dataclass(frozen=True)
class Thresholds:
    """When to stop.

    Attributes:
        stage1_views: how many views stage 1 takes at most; 0 leaves stage 1 out, and as many as there are leaves
            stage 2 out.
        stage1_lead: how far the best class must lead in stage 1, in views; 0 stops after the first view.
        stage2_lead: how far it must lead in stage 2; infinity takes all views.
    """

    stage1_views: int = 0
    stage1_lead: float = math.inf
    stage2_lead: float = math.inf

    def __post_init__(self) -> None:
        if not (self.stage1_views >= 0 and self.stage1_lead >= 0 and self.stage2_lead >= 0):
            raise UserError(
                f"views of stage 1 and thresholds are {self.stage1_views}, {self.stage1_lead:g} and "
                f"{self.stage2_lead:g}, expected 0 or more"
            )


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one view, in G, and passes through the network."""

    stage1: float
    stage2: float  # of the zoomed videos, beside stage 1
    zoomed: int = 2  # how many those are

    def passes(self, views: np.ndarray | float, stage2_views: np.ndarray | float) -> np.ndarray | float:
        """Of a video: one a view, and one for each zoomed video."""
        return views + self.zoomed * stage2_views

    def of(self, views: np.ndarray | float, stage2_views: np.ndarray | float) -> np.ndarray | float:
        """Of a video."""
        return self.stage1 * views + self.stage2 * stage2_views


@dataclass(frozen=True)
class EarlyExit:
    """Calibrated thresholds, for one model and one choice of views.

    Attributes:
        thresholds: when to stop.
        work: what a view costs.
        weights: digest of the model's state.
        views: which views the thresholds were calibrated on.
        precision: in which the model computed then.
        file: which the thresholds were read from, for messages; None where they were not.
    """

    thresholds: Thresholds
    work: Work
    weights: str
    views: Views
    precision: str = FULL
    file: Path | None = field(default=None, compare=False)

    def check(self, weights: str | None, precision: str) -> None:
        """UserError for a model of other weights or in another precision than the thresholds were calibrated for."""
        if self.weights != weights:
            raise UserError(f"{self._name} was calibrated for other weights: run 'peakzoom calibrate' again")
        if self.precision != precision:
            raise UserError(
                f"{self._name} was calibrated for precision {self.precision}, and {precision} was chosen: choose the "
                "same, or calibrate again"
            )

    def check_views(self, views: Views) -> None:
        """UserError for other views than the thresholds were calibrated for."""
        if views != self.views:
            known = self.views
            raise UserError(
                f"{self._name} was calibrated for {known.clips} x {known.crops} views of rule {known.rule}, and "
                f"{views.clips} x {views.crops} of rule {views.rule} were chosen: choose the same, or calibrate again"
            )

    @property
    def _name(self) -> str:
        return str(self.file or "the early exit")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``cascade.json``; infinity is None there."""
        thresholds = asdict(self.thresholds)
        return {
            "thresholds": {key: None if math.isinf(value) else value for key, value in thresholds.items()},
            "work": asdict(self.work),
            "weights": self.weights,
            **asdict(self.views),
            "precision": self.precision,
        }


def read_early_exit(file: Path) -> EarlyExit:
    """Read ``cascade.json``, which ``peakzoom calibrate`` writes; UserError if it is missing or damaged."""
    if not file.exists():
        raise UserError(f"{file} does not exist: 'peakzoom calibrate RUN' makes it")
    try:
        values = read_object(file)
        key = {name: name if "thresholds" in values else old for name, old in OLD_KEYS.items()}
        limits, work = values[key["thresholds"]], values["work"]
        leads = (limits[key[name]] for name in ("stage1_lead", "stage2_lead"))
        return EarlyExit(
            Thresholds(
                int(limits[key["stage1_views"]]),
                *(math.inf if lead is None else float(lead) for lead in leads),
            ),
            Work(float(work[key["stage1"]]), float(work[key["stage2"]]), int(work.get("zoomed", 2))),
            str(values["weights"]),
            _views(values),
            str(values["precision"]),
            file,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file} is damaged or of an older version ({first_line(error)}): remove {file.parent} and run "
            "'peakzoom calibrate' again"
        ) from error


def _views(values: dict[str, Any]) -> Views:
    views = Views(str(values["rule"]), int(values["clips"]), int(values["crops"]))
    if views.clips * views.crops > MOST_VIEWS:
        raise UserError(
            f"{counted(views.clips, 'clip')} of {counted(views.crops, 'crop')} are more than {MOST_VIEWS} views"
        )
    return views


def only_torch(engine: str) -> UserError:
    """Another engine cannot stop after the first pass."""
    return UserError(
        f"the early exit runs on engine torch, not on {engine}: name a run and leave --engine out"
    )


def two_stages(engine: Engine) -> TorchEngine:
    """The same engine; UserError if it cannot stop after the first pass, or its model has no original branch."""
    if not isinstance(engine, TorchEngine):
        raise only_torch(engine.name)
    if "original" not in engine.network.model.branches:
        raise UserError("the early exit starts with the original branch, and this model has none")
    return engine


def view_order(clips: int, crops: int) -> list[int]:
    """In which order views are taken, as indices of the views clip by clip.

    Middle crops come first, then those beside them; of each crop the clips in the order of van der Corput's sequence,
    so that however few are taken, they are spread over the video.
    """
    spread = sorted(
        range(clips), key=lambda clip: f"{clip:064b}"[::-1]
    )  # by its binary digits from the last on
    middle = (crops - 1) / 2
    return [
        clip * crops + crop
        for crop in sorted(range(crops), key=lambda at: abs(at - middle))
        for clip in spread
    ]


def lead_of(total: np.ndarray) -> np.ndarray:
    """How far the best class leads the second: (..., S) -> (...); infinity where there is but one class."""
    if total.shape[-1] == 1:
        return np.full(total.shape[:-1], math.inf)
    best = np.partition(total, -2, axis=-1)
    return best[..., -1] - best[..., -2]


def score_in_stages(
    engine: TorchEngine, decoded: DecodedViews, early_exit: EarlyExit
) -> tuple[np.ndarray, Effort]:
    """Scores of a decoded video, float64 (S,) with sum 1, and what they took.

    Args:
        engine: one that :func:`two_stages` lets through.
        decoded: the views that the early exit was calibrated for.
        early_exit: when to stop.
    """
    thresholds, views = early_exit.thresholds, early_exit.views
    order = view_order(views.clips, views.crops)
    if len(decoded) != len(order):
        raise ValueError(
            f"the video has {counted(len(decoded), 'view')}, expected the {len(order)} of the early exit"
        )
    most = min(thresholds.stage1_views, len(order))
    passed: list[FirstPass] = []  # of stage 1, for stage 2 to go on from
    total = np.zeros(len(engine.classes))
    for count, index in enumerate(order[:most], start=1):
        logits, first = engine.stage1(decoded.view(index))
        total += _softmax(logits)
        if lead_of(total) >= thresholds.stage1_lead or count == len(order):
            return total / total.sum(), Effort(count, 0)
        if most < len(order):
            passed.append(first)
    total = np.zeros(len(engine.classes))
    for count, index in enumerate(order, start=1):
        first = passed[count - 1] if count <= most else engine.stage1(decoded.view(index))[1]
        total += _softmax(engine.stage2(first))
        if lead_of(total) >= thresholds.stage2_lead:
            break
    return total / total.sum(), Effort(max(most, count), count)


def _softmax(logits: Tensor) -> np.ndarray:
    """Softmax of one view's logits (1, S) -> float64 (S,)."""
    return logits.softmax(1)[0].numpy().astype(np.float64)
