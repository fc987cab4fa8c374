"""Upload of a saved model and its card to the Hugging Face hub (docs/export.md)."""

from __future__ import annotations

import logging
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from peakzoom.hub.card import FILE, UNFILLED, is_untouched, update_card
from peakzoom.model.load import WEIGHTS, find_model, read_model
from peakzoom.utils.errors import UserError, first_line

# Some versions of the hub's client send requests by one library, others by another; this is the base of their errors.
CLIENT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
log = logging.getLogger(__name__)


def push(run: str | Path, name: str, private: bool = False) -> str:
    """Upload a model: weights, configuration and card, in one commit. A missing card is written first.

    Args:
        run: run folder, stage or saved model.
        name: "owner/name"; the repository is created if it does not exist.
        private: only its owner sees a repository that is created here. An existing one stays as it is.

    Returns:
        Address of the commit.

    Raises:
        UserError: no model, an invalid name, no network, not logged in, or the hub refuses.
    """
    try:
        validate_repo_id(name)
        valid = name.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UserError(
            f"{name!r} is no name of a model on the hub, expected owner/name of letters, digits, '-', '_' and '.'"
        )
    folder = find_model(run)
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be put on the hub: unset it and push again")
    if get_token() is None:
        raise UserError(
            "you are not logged in to the hub: run 'hf auth login', or set HF_TOKEN to your token"
        )
    card = folder / FILE
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else None
    if text is None or UNFILLED.match(text):
        update_card(folder)
    elif not is_untouched(text):
        log.info("%s was edited: it goes to the hub as it is", card)
    read_model(folder)  # a damaged model is not uploaded
    api = HfApi()
    try:
        api.create_repo(name, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Push a model of peakzoom",
            allow_patterns=[WEIGHTS, "config.json", FILE],
        )
        return str(commit)
    except (CLIENT_ERROR, OSError, ValueError) as error:  # ValueError: the hub refuses the head of the card
        raise UserError(_refusal(name, error)) from error


def _refusal(name: str, error: Exception) -> str:
    """Why an upload failed, in one sentence with the way out where one is known."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = first_line(error)
    if status == 401:
        return f"the hub does not know your token: run 'hf auth login' anew, or correct HF_TOKEN ({reason})"
    if status == 403:
        return f"your token may not write to {name}: take one with write access, or another owner ({reason})"
    return f"{name} could not be put on the hub: {reason}"
