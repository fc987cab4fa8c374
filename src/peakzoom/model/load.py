"""A trained model from a run folder, a saved model or the hub; the digest of its weights."""

from __future__ import annotations

import hashlib
import os
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError

from peakzoom.model import PeakZoom
from peakzoom.model.pretrained import WEIGHTS as WEIGHTS
from peakzoom.utils.errors import UserError, did_you_mean, first_line

MOST_LISTED = 10_000  # names of a folder, to find what is like another


def digest(model: torch.nn.Module) -> str:
    """Sixteen hexadecimal digits that name a model's weights."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


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
        like = did_you_mean("", (), alike(folder))
        expected = like or ": expected a run folder of 'peakzoom train' or a saved model"
        raise UserError(f"{path} does not exist{expected}")
    raise UserError(f"{path} holds no trained model: no {WEIGHTS} in it, in joint/best or in tcnn/best")


def read_model(folder: Path) -> PeakZoom:
    """The saved model in a folder; UserError if it is damaged, or no model of this package."""
    try:
        model: PeakZoom = PeakZoom.from_pretrained(folder)
        return model
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise UserError(f"{folder} is damaged or no model of peakzoom: {first_line(error)}") from error


def is_on_hub(name: str) -> bool:
    """Whether a name can only mean a model of the hub, "owner/name".

    A mistyped path must not leave this machine: it is one where a folder here is called as the owner, or something here
    is called much like the whole.

    Raises:
        UserError: it is such a path.
    """
    path = Path(name)
    if path.exists() or name.count("/") != 1 or not name.isascii():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    like, owner = alike(path), path.parent
    if like or os.path.lexists(owner):
        meant = (
            did_you_mean("", (), like)
            or f": {owner} is here, so the hub was not asked for a model of that name"
        )
        raise UserError(f"{name} does not exist{meant}")
    return True


def alike(path: Path) -> list[str]:
    """What is here and is called much like a path that is not: the most likely one, or none."""

    def close(folder: Path, name: str) -> list[Path]:
        if os.path.lexists(folder / name):
            return [folder / name]
        try:
            with os.scandir(folder) as listed:
                names = [each.name for each in islice(listed, MOST_LISTED) if not each.name.startswith(".")]
        except OSError:  # it may not be looked into: then nothing is known to be like it
            return []
        return [folder / each for each in get_close_matches(name, names, n=3)]

    found = [Path(path.anchor)]
    for part in path.parts[1 if path.anchor else 0 :]:
        found = [each for folder in found for each in close(folder, part)]
    return [str(each) for each in found[:1] if each != path]


def read_from_hub(name: str) -> PeakZoom:
    """A model of the hub, "owner/name", from its cache where there is no network; UserError if it is in neither."""
    try:
        model: PeakZoom = PeakZoom.from_pretrained(name)
        return model
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise UserError(f"{name} is damaged or no model of peakzoom: {first_line(error)}") from error
    except (HfHubHTTPError, OSError) as error:
        reason = first_line(error)
        raise UserError(f"{name} is no folder here and could not be had from the hub: {reason}") from error
