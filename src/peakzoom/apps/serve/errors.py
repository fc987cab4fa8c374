"""Every error is a sentence: what a visitor is told, and what the one who runs the server finds in the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from peakzoom.utils.durable import is_full, no_room
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.extras import MissingExtra
from peakzoom.utils.system import reason_of, sentence, system_error

log = logging.getLogger(__name__)

OWN_MISTAKE = "The server has made a mistake, which is in its log: try another file, or tell who runs it."
FULL = "The server's disk is full: try again later, or tell who runs it."


class TooLarge(DecodeError):
    """A file has more bytes than one visitor may send."""


class Busy(UserError):
    """More is asked for at once than the server takes: it can be asked again later."""


class Missing(UserError):
    """What is asked for is not there, or no longer."""


class NotReady(UserError):
    """What is asked for is not there yet."""


class Told(NamedTuple):
    """What a visitor is told of an error."""

    status: int  # of HTTP
    sentence: str  # plain text, with its full stop


STATUS: dict[type[UserError], int] = {
    TooLarge: 413,
    Busy: 503,
    Missing: 404,
    NotReady: 409,
    MissingExtra: 501,
}


def told(error: Exception) -> Told:
    """What a visitor is told. Of an error of this machine they learn no more than that; the log says the rest."""
    if isinstance(error, UserError):
        cause = error.__cause__ if isinstance(error.__cause__, DecodeError) else error
        status = next((STATUS[kind] for kind in type(cause).__mro__ if kind in STATUS), 422)
        text = str(error)
        return Told(
            status, f"{text[:1].upper()}{text[1:]}." if not isinstance(cause, DecodeError) else f"{text}."
        )
    found = system_error(error)
    if is_full(error):
        log.error("a visitor got no answer: %s", no_room(Path(), error))
        return Told(507, FULL)
    if found is None:
        log.error("a visitor got no answer, by a mistake:", exc_info=error)
        return Told(500, OWN_MISTAKE)
    log.error("a visitor got no answer: %s", sentence(found))
    said = f"The server's system refused to go on ({reason_of(found)}): try again later, or tell who runs it."
    return Told(500, said)
