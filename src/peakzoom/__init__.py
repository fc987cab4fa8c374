"""peakzoom: video action recognition that joins temporal and spatial attention, after Zhou, Li, Wang and Li (2022)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peakzoom.explanation import explain
    from peakzoom.inference.prediction import Prediction
    from peakzoom.inference.recognizer import Recognizer, load
    from peakzoom.model import TCNN, PeakZoom
    from peakzoom.utils.errors import DecodeError, UserError
    from peakzoom.video.sampling import Views

__version__ = "0.1.0"

__all__ = [
    "TCNN",
    "DecodeError",
    "PeakZoom",
    "Prediction",
    "Recognizer",
    "UserError",
    "Views",
    "explain",
    "load",
]

_HOME = {
    "explain": "explanation",
    "DecodeError": "utils.errors",
    "UserError": "utils.errors",
    "TCNN": "model",
    "PeakZoom": "model",
    "Prediction": "inference.prediction",
    "Views": "video.sampling",
    "Recognizer": "inference.recognizer",
    "load": "inference.recognizer",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `peakzoom --help` and the processes that only decode or render need no PyTorch.
    if name in _HOME:
        return getattr(import_module(f"peakzoom.{_HOME[name]}"), name)
    raise AttributeError(f"module 'peakzoom' has no attribute {name!r}")
