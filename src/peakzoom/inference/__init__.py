"""Everything between a trained model and a prediction."""

from __future__ import annotations
