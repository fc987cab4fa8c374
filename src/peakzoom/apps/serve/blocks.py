"""What Gradio does not give: a sentence for every error, and the files that requests wait for."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio.route_utils import FnIndexInferError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from peakzoom.apps.serve.errors import OWN_MISTAKE

UNREADABLE = "This is no request of this page: load the page anew, choose the file once more, and try again."


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


def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": UNREADABLE}, 422)


def _own_mistake(request: Request, error: Exception) -> Response:
    return PlainTextResponse(OWN_MISTAKE, 500)  # Starlette raises the error on, for the log


HANDLERS = {RequestValidationError: _unreadable, FnIndexInferError: _unreadable, Exception: _own_mistake}


def awaited_files(page: gr.Blocks) -> set[Path]:
    """The files named by requests that wait or are being served: only Gradio's queue knows those."""
    events = list(page._queue.event_ids_to_events.values())
    return {file for event in events if event.data for file in named_files(event.data.data)}


def named_files(data: Sequence[Any]) -> Iterator[Path]:
    """The files that a request names, in each place one or a list. A stranger may write anything there."""
    for part in data:
        for each in part if isinstance(part, list) else [part]:
            if isinstance(each, dict) and isinstance(each.get("path"), str):
                # No path: a null, too long, links in a circle.
                with suppress(OSError, ValueError, RuntimeError):
                    yield Path(each["path"]).resolve()
