"""Every error is a sentence: what a visitor is told, and what the one who runs the server finds in the log."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio.route_utils import FnIndexInferError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from peakzoom.utils.durable import is_full, no_room
from peakzoom.utils.errors import UserError
from peakzoom.utils.system import reason_of, sentence, system_error

log = logging.getLogger(__name__)

UNREADABLE = "This is no request of this page: load the page anew, choose the file once more, and try again."
OWN_MISTAKE = "The server has made a mistake, which is in its log: try another file, or tell who runs it."
FULL = "The server's disk is full: try again later, or tell who runs it."


class Page(gr.Blocks):
    """Gradio's page, which would answer what it cannot read with no word at all."""

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> Any:
        """As Gradio does; whatever it cannot read, such as a file that was not uploaded, is one sentence."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error as error:  # of one of its parts, which says what it expected
            said = html.escape(error.message.strip().rstrip("."), quote=False)
            raise gr.Error(f"{said}.", print_exception=False) from error
        except Exception as error:
            raise gr.Error(UNREADABLE, print_exception=False) from error


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error of the block in a box, which takes HTML: names of files and classes are text.

    A visitor learns nothing of this machine: of an error of its own, or of the system, the log says more.
    """
    try:
        yield
    except UserError as error:
        raise gr.Error(sentence_of(error), print_exception=False) from error
    except Exception as error:
        raise gr.Error(sentence_of(error), print_exception=False) from error


def sentence_of(error: Exception) -> str:
    """What a visitor is told of an error, as HTML; where it is not theirs, the log says more."""
    if isinstance(error, UserError):
        return html.escape(str(error), quote=False) + "."
    found = system_error(error)
    if is_full(error):
        log.error("a visitor got no answer: %s", no_room(Path(), error))
        return FULL
    if found is None:
        log.error("a visitor got no answer, by a mistake:", exc_info=error)
        return OWN_MISTAKE
    log.error("a visitor got no answer: %s", sentence(found))
    reason = html.escape(reason_of(found), quote=False)
    return f"The server's system refused to go on ({reason}): try again later, or tell who runs it."


def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": UNREADABLE}, 422)


def _own_mistake(request: Request, error: Exception) -> Response:
    return PlainTextResponse(OWN_MISTAKE, 500)  # Starlette raises the error on, for the log


HANDLERS = {RequestValidationError: _unreadable, FnIndexInferError: _unreadable, Exception: _own_mistake}
