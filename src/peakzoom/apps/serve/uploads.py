"""What is left of an upload that does not come whole: nothing, from the moment on in which its request ends.

Gradio writes an upload to a draft, which it moves where uploads lie when all has come. It removes the draft of one that
is too large, but not of one that is broken off. Drafts are known here by the audit event of Python's ``tempfile``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STALL = 60.0  # seconds without a byte after which an upload counts as broken off
STALLED = f"Nothing more of the upload came for {STALL:g} seconds: send it again."

_drafts: ContextVar[list[str] | None] = ContextVar("drafts", default=None)  # of the request that is served


@functools.cache
def _watch_drafts() -> None:
    """Note which drafts a request makes. Once: Python never lets such a watcher go."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "tempfile.mkstemp" and (made := _drafts.get()) is not None:
            made.append(str(arguments[0]))

    sys.addaudithook(note)


class Uploads:
    """Ends uploads that are broken off, that stall, or that were refused as too large; a middleware.

    The connection of one that was refused is closed: Gradio refuses at once, but the server would go on reading what is
    still sent, for ever if the sender likes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        _watch_drafts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tidy up behind it."""
        kind = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        if not kind.lower().startswith("multipart/"):
            await self.app(scope, receive, send)
            return
        stalled = False

        async def receive_in_time() -> Message:
            nonlocal stalled
            try:
                return await asyncio.wait_for(receive(), STALL)
            except asyncio.TimeoutError:
                stalled = True
                return {"type": "http.disconnect"}

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 413:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        made: list[str] = []
        token = _drafts.set(made)
        try:
            await self.app(scope, receive_in_time, send_and_close)
        except ClientDisconnect:
            if stalled:
                await PlainTextResponse(STALLED, 408, {"connection": "close"})(scope, receive, send)
        finally:
            _drafts.reset(token)
            for draft in made:
                with suppress(OSError):  # a whole upload has been moved; Windows keeps what is still open
                    Path(draft).unlink()
