"""peakzoom: video action recognition that joins temporal and spatial attention, after Zhou, Li, Wang and Li (2022)."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = (
    False  # as typing's, whose import takes longer than all else before Ctrl-C is heard (__main__)
)
if TYPE_CHECKING:
    from typing import Any

    from peakzoom.apps.watch.watch import watch
    from peakzoom.data.datasets import open_data
    from peakzoom.evaluation.evaluate import evaluate
    from peakzoom.explanation.look import explain
    from peakzoom.inference.recognizer import Recognizer, load
    from peakzoom.model.network import PeakZoom
    from peakzoom.training.recipes import Recipe
    from peakzoom.training.train import train
    from peakzoom.utils.errors import DecodeError, UserError
    from peakzoom.video.sampling import Views

__version__ = "0.2.0"

# In the order of their use; docs/api/index.md shows them in the same one.
_HOME = {
    "load": "inference.recognizer",
    "Recognizer": "inference.recognizer",
    "Views": "video.sampling",
    "explain": "explanation.look",
    "watch": "apps.watch.watch",
    "open_data": "data.datasets",
    "Recipe": "training.recipes",
    "train": "training.train",
    "evaluate": "evaluation.evaluate",
    "PeakZoom": "model.network",
    "UserError": "utils.errors",
    "DecodeError": "utils.errors",
}

__all__ = [
    "load",
    "Recognizer",
    "Views",
    "explain",
    "watch",
    "open_data",
    "Recipe",
    "train",
    "evaluate",
    "PeakZoom",
    "UserError",
    "DecodeError",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `peakzoom --help` and the processes that only decode or render need no PyTorch.
    if name in _HOME:
        return getattr(import_module(f"peakzoom.{_HOME[name]}"), name)
    raise AttributeError(f"module 'peakzoom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
