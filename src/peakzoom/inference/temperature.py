"""Scores that mean what they say, as far as one number can make them: temperature scaling (Guo et al., 2017).

A model's scores say which class leads; how sure it may be is another matter. Raised to the power 1 / T and brought to
the sum 1, at the T at which they predict the labels of validation videos best, they come closer to the share of
predictions that are right. The order of the classes stays, and so does every prediction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.inference.fitted import Words, check_fitted, check_window, read_fitted, to_plain
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

FILE = "temperature.json"  # beside the thresholds of the early exit
LEAST = 1e-30  # below which a score counts as this
WORDS = Words(
    "the temperature of the scores",
    "peakzoom calibrate",
    "--calibrated",
    "cascade",
    ", from videos of which some are got wrong",
)


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
        check_fitted(self, WORDS, weights, precision, views)

    def check_window(self, crops: int) -> None:
        """UserError where it was fitted for other scores than those of single clips, the mean of so many crops."""
        check_window(self, WORDS, crops)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"temperature": self.temperature, **to_plain(self)}


def read_temperature(file: Path) -> Temperature:
    """Read what ``peakzoom calibrate`` has written; UserError if it is missing or damaged."""
    return read_fitted(file, WORDS, _made)


def _made(values: dict[str, Any], fitted: tuple[str, Views, str]) -> Temperature:
    found = Temperature(float(values["temperature"]), *fitted)
    if not 0 < found.temperature < math.inf:
        raise UserError(f"the temperature is {found.temperature:g}")
    return found
