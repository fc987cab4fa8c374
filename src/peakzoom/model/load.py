"""A trained model from a run folder, a saved model or the hub; the digest of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from peakzoom.model import PeakZoom
from peakzoom.model.names import is_on_hub as is_on_hub
from peakzoom.model.pretrained import WEIGHTS as WEIGHTS
from peakzoom.model.public import public_weights
from peakzoom.utils.download import hub_quiet
from peakzoom.utils.errors import UserError, did_you_mean, first_line
from peakzoom.utils.missing import missing


def digest(model: torch.nn.Module) -> str:
    """Sixteen hexadecimal digits that name a model's weights: the first of :func:`full_digest`."""
    return full_digest(model)[:16]


def full_digest(model: torch.nn.Module) -> str:
    """SHA-256 of the names and bytes of a model's weights, in hex."""
    return tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names and bytes of tensors, in hex."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def find_model(path: str | Path) -> Path:
    """The folder with the weights of a saved model, a run (stage 2 before stage 1) or one of its stages.

    Raises:
        UserError: it holds no weights, or does not exist.
    """
    folder = Path(path)
    for inner in (".", "best", "joint/best", "tcnn/best"):
        if (folder / inner / WEIGHTS).exists():
            return folder / inner
    if not folder.exists():
        raise missing(path, "a run folder of 'peakzoom train' or a saved model")
    if any(folder.glob("*/checkpoints/*.ckpt")):
        raise UserError(
            f"the training in {path} has not come to the end of its first stage, where the model is saved: the command "
            "that began it goes on with --resume"
        )
    raise UserError(f"{path} holds no trained model: no {WEIGHTS} in it, in joint/best or in tcnn/best")


def read_model(folder: Path) -> PeakZoom:
    """The saved model in a folder; UserError if it is damaged, or no model of this package."""
    try:
        model: PeakZoom = PeakZoom.from_pretrained(folder)
        return model
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise UserError(f"{folder} is damaged or no model of peakzoom: {first_line(error)}") from error


def read_from_hub(name: str) -> PeakZoom:
    """A model of the hub, "owner/name", from its cache where there is no network; UserError if it is in neither."""
    try:
        with hub_quiet():
            model: PeakZoom = PeakZoom.from_pretrained(name)
        return model
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise UserError(f"{name} is damaged or no model of peakzoom: {first_line(error)}") from error
    except (HfHubHTTPError, OSError) as error:
        reason, like = first_line(error).rstrip("."), did_you_mean(name, public_weights())
        raise UserError(
            f"{name} is no folder here and could not be had from the hub: {reason}{like}"
        ) from error
