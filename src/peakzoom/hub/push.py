"""A saved model and its card onto the Hugging Face hub (docs/hub.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from peakzoom.hub.card import FILE, UNFILLED, is_untouched, update_card
from peakzoom.model.load import find_model, read_model
from peakzoom.utils.errors import UserError

# The hub's client asks by one library in some versions and by another in others; this is the base of its errors.
CLIENT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


def push(run: str | Path, name: str, private: bool = False, say: Callable[[str], None] = print) -> str:
    """Upload a model: weights, configuration and card, in one commit.

    Args:
        run: run folder, phase or saved model.
        name: "owner/name"; made if it is not there.
        private: a repository that is made here is seen by its owner alone. One that is there stays as it is.
        say: told one line at a time.

    Returns:
        Where the commit is.

    Raises:
        UserError: no model, a name that cannot be one, no network, not logged in, or the hub refuses.
    """
    _check_name(name)
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
        say(f"{card} was edited: it goes to the hub as it is")
    model = read_model(folder)
    try:
        return str(
            model.push_to_hub(name, private=private or None, commit_message="Push a model of peakzoom")
        )
    except UserError:
        raise
    except (
        CLIENT_ERROR,
        OSError,
        ValueError,
    ) as error:  # ValueError: the hub does not take the head of the card
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if status == 401:
            raise UserError(
                f"the hub does not know your token: run 'hf auth login' anew, or correct HF_TOKEN ({reason})"
            ) from error
        if status == 403:
            raise UserError(
                f"your token may not write to {name}: take one with write access, or another owner ({reason})"
            ) from error
        raise UserError(f"{name} could not be put on the hub: {reason}") from error


def _check_name(name: str) -> None:
    try:
        validate_repo_id(name)
        valid = name.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UserError(
            f"{name!r} is no name of a model on the hub, expected owner/name of letters, digits, '-', '_' and '.'"
        )
