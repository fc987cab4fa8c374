"""A trained model from a run folder, a saved model or the hub; the digest of its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError

from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError


def digest(model: torch.nn.Module) -> str:
    """A short name of a model's weights."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


WEIGHTS = "model.safetensors"


def find_model(path: str | Path) -> Path:
    """The folder with the weights: a saved model, a run folder (joint before T-CNN), or one of its phases.

    Raises:
        UserError: nothing is there.
    """
    folder = Path(path)
    for inner in (".", "best", "joint/best", "tcnn/best"):
        if (folder / inner / WEIGHTS).exists():
            return folder / inner
    if not folder.exists():
        raise UserError(f"{path} does not exist: expected a run folder of 'peakzoom train' or a saved model")
    raise UserError(f"{path} holds no trained model: no {WEIGHTS} in it, in joint/best or in tcnn/best")


def read_model(folder: Path) -> PeakZoom:
    """The saved model in a folder; UserError if it is damaged."""
    try:
        return PeakZoom.from_pretrained(str(folder))
    except (SafetensorError, json.JSONDecodeError, RuntimeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} is damaged or no model of peakzoom: {reason}") from error


def read_from_hub(name: str) -> PeakZoom:
    """A model of the Hugging Face hub, or of its cache; UserError where there is none, or it is no peakzoom model."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return PeakZoom.from_pretrained(name)
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{name} is no folder here and could not be had from the hub: {reason}") from error
