"""None of these: a prediction that is not given where a model knows too little of what a video shows.

A model names one of its classes whatever it sees. How much it knows is told by one number of its fused prediction,
which is compared with a threshold. There are two, and ``peakzoom calibrate --reject`` takes the one that separates
better on validation videos (:mod:`peakzoom.evaluation.rejection`):

- **probability**: the largest class score, of the mean over the views (Hendrycks and Gimpel, 2017);
- **energy**: the mean over the views of ln sum_s exp(y_s) of the logits y, the negative of what Liu et al. (NeurIPS
  2020) call so. The softmax forgets how large all logits are together; this does not.

Both are of the scores as the model computes them, with and without a temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peakzoom.inference.fitted import Words, check_fitted, check_window, read_fitted, to_plain
from peakzoom.inference.prediction import MEASURES, Confidence
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

FOLDER, FILE = "rejection", "rejection.json"  # in a run
WORDS = Words("the rejection threshold", "peakzoom calibrate --reject", "--reject", FOLDER)


@dataclass(frozen=True)
class Rejection:
    """From which confidence on a model's prediction is given, averaged over one choice of views.

    Attributes:
        measure: of the confidence, one of :data:`~peakzoom.inference.prediction.MEASURES`.
        threshold: below it nothing is predicted.
        weights: digest of the model's state.
        views: whose scores are averaged.
        precision: in which the model computed.
    """

    measure: str
    threshold: float
    weights: str
    views: Views
    precision: str = FULL

    def check(self, weights: str | None, precision: str, views: Views | None = None) -> None:
        """UserError for another model, precision or choice of views than it was chosen for."""
        check_fitted(self, WORDS, weights, precision, views)

    def check_window(self, crops: int) -> None:
        """UserError where it was chosen for other scores than those of single clips, the mean of so many crops."""
        check_window(self, WORDS, crops)

    def judge(self, probability: float, energy: float) -> Confidence:
        """What is made of one fused prediction.

        Args:
            probability: the largest score of the mean over the views, before any temperature.
            energy: as :func:`peakzoom.inference.prediction.mean_energy` computes it.
        """
        value = {"probability": probability, "energy": energy}[self.measure]
        return Confidence(self.measure, value, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"measure": self.measure, "threshold": self.threshold, **to_plain(self)}


def read_rejection(file: Path) -> Rejection:
    """Read what ``peakzoom calibrate --reject`` has written; UserError if it is missing or damaged."""
    return read_fitted(file, WORDS, _made)


def _made(values: dict[str, Any], fitted: tuple[str, Views, str]) -> Rejection:
    found = Rejection(str(values["measure"]), float(values["threshold"]), *fitted)
    if found.measure not in MEASURES or not math.isfinite(found.threshold):
        raise UserError(f"the threshold is {found.threshold:g} of {found.measure!r}")
    return found
