"""Scores that mean what they say, as far as one number can make them: temperature scaling (Guo et al., 2017).

A model's scores say which class leads; how sure it may be is another matter. Raised to the power 1 / T and brought to
the sum 1, at the T at which they predict the labels of validation videos best, they come closer to the share of
predictions that are right. The order of the classes stays, and so does every prediction.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.plain import read_object
from peakzoom.video.sampling import Views

FILE = "temperature.json"  # beside the thresholds of the early exit
LEAST = 1e-30  # below which a score counts as this


def tempered(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Scores (..., S) at another temperature, float64 with sum 1; 1 leaves them as they are."""
    logs = np.log(np.maximum(scores.astype(np.float64), LEAST))
    powers = np.exp((logs - logs.max(-1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(-1, keepdims=True))


@dataclass(frozen=True)
class Temperature:
    """The temperature of one model's fused scores, averaged over one choice of views."""

    temperature: float
    weights: str  # digest of the model's state
    views: Views
    precision: str = FULL

    def check(self, weights: str | None, precision: str, views: Views | None = None) -> None:
        """UserError for another model, precision or choice of views than it was fitted for."""
        for what, known, given in (
            ("weights", self.weights, weights),
            ("precision", self.precision, precision),
            ("views", self.views, views or self.views),
        ):
            if known != given:
                raise UserError(
                    f"the temperature of the scores was fitted for other {what}: run 'peakzoom calibrate' again, or "
                    "leave --calibrated out"
                )

    def check_window(self, crops: int) -> None:
        """UserError where it was fitted for other scores than those of single clips, the mean of so many crops."""
        if (self.views.clips, self.views.crops) != (1, crops):
            raise UserError(
                f"the temperature was fitted for means of {self.views.clips} x {self.views.crops} views, and a window "
                f"is one clip of {crops} crops: remove the folder cascade in the run and calibrate with --num-clips 1 "
                f"--crops {crops}, or leave --calibrated out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "temperature": self.temperature,
            "weights": self.weights,
            **asdict(self.views),
            "precision": self.precision,
        }


def read_temperature(file: Path) -> Temperature:
    """Read what ``peakzoom calibrate`` has written; UserError if it is missing or damaged."""
    if not file.exists():
        raise UserError(
            f"{file} does not exist: 'peakzoom calibrate RUN' makes it, from videos of which some are got wrong"
        )
    try:
        values = read_object(file)
        found = Temperature(
            float(values["temperature"]),
            str(values["weights"]),
            Views(str(values["rule"]), int(values["clips"]), int(values["crops"])),
            str(values["precision"]),
        )
        if not 0 < found.temperature < math.inf:
            raise UserError(f"the temperature is {found.temperature:g}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): run 'peakzoom calibrate' again") from error
    return found
