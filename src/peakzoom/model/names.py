"""What a model's name means: a folder here, or a model of the hub; a mistyped folder is never asked of the hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from peakzoom.utils.errors import UserError, did_you_mean
from peakzoom.utils.missing import alike


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


def expect_on_hub(name: str) -> None:
    """Refuse (UserError) a name that is no folder here, and cannot be, or is not meant to be, one of the hub."""
    if not is_on_hub(name):
        like = did_you_mean("", (), alike(Path(name)))
        there = "is no folder" if Path(name).exists() else "does not exist"
        raise UserError(
            f"{name} {there}{like or ': expected the folder of a saved model, or owner/name on the hub'}"
        )
