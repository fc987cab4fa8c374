"""Testing a trained model: scores, accuracies, calibration, faithfulness, and the report of them."""

from __future__ import annotations
