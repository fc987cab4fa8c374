"""What is left of an upload that does not come whole: nothing, from the moment on in which its request ends.

Gradio writes an upload to a draft, which it moves where uploads lie when all has come. It removes the draft of one that
is too large, but not of one that is broken off. Drafts are known here by the audit event of Python's ``tempfile``. The
API's uploads are read by Starlette, whose drafts have no name and go with their request.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peakzoom.apps.serve.refusals import linger, refuse

STALL = 60.0  # seconds without a byte after which an upload counts as broken off
STALLED = f"Nothing more of the upload came for {STALL:g} seconds: send it again."
FORM_BYTES = 65_536  # that a form may have beside its file

_drafts: ContextVar[list[str] | None] = ContextVar("drafts", default=None)  # of the request that is served


@functools.cache
def _watch_drafts() -> None:
    """Note which drafts a request makes. Once: Python never lets such a watcher go."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "tempfile.mkstemp" and (made := _drafts.get()) is not None:
            made.append(str(arguments[0]))

    sys.addaudithook(note)


class Uploads:
    """Ends uploads that are broken off, that stall, or that are too large; a middleware.

    The connection of one that was refused is closed: otherwise the server would go on reading what is still sent, for
    ever if the sender likes.

    Args:
        app: what is behind it.
        megabytes: largest upload of each path of the API; Gradio looks after its own.
    """

    def __init__(self, app: ASGIApp, megabytes: Mapping[str, int] | None = None) -> None:
        self.app, self.megabytes = app, dict(megabytes or {})
        _watch_drafts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tidy up behind it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        multipart = headers.get("content-type", "").lower().startswith("multipart/")
        megabytes = self.megabytes.get(scope.get("path", ""))
        if not multipart and megabytes is None:
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, scope, megabytes, multipart)
        if body.too_long(headers.get("content-length", "")):
            await body.refuse()
            return
        made: list[str] = []
        token = _drafts.set(made)
        try:
            await self.app(scope, body.receive, body.send)
        except ClientDisconnect:
            if body.why is None:
                return  # nobody is there to be answered
        finally:
            _drafts.reset(token)
            for draft in made:
                with suppress(OSError):  # a whole upload has been moved; Windows keeps what is still open
                    Path(draft).unlink()
        if body.why is not None:
            await body.refuse()


class _Body:
    """A request's body while it comes: whatever the application makes of its early end, the sender learns why."""

    def __init__(
        self, receive: Receive, send: Send, scope: Scope, megabytes: int | None, multipart: bool
    ) -> None:
        self._receive, self._send, self._scope = receive, send, scope
        self._limit = float("inf") if megabytes is None else FORM_BYTES + 1e6 * megabytes * multipart
        self._too_large = f"The upload has more than {megabytes} MB: cut the video."
        self._read, self._began, self._ends, self._whole = 0, False, False, False
        self.why: tuple[int, str] | None = None  # status and sentence, where it was ended

    def too_long(self, length: str) -> bool:
        """Whether its header says that it is more than may come."""
        if length.isdecimal() and int(length) > self._limit:
            self.why = (413, self._too_large)
        return self.why is not None

    async def receive(self) -> Message:
        """The next part, or word that no more comes."""
        if self._whole:  # what comes now is word that the sender has left, however late
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), STALL)
        except asyncio.TimeoutError:
            self.why = (408, STALLED)
            return {"type": "http.disconnect"}
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            self.why = (413, self._too_large)
            return {"type": "http.disconnect"}
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """What the application answers, unless it could only answer the early end."""
        if self.why is not None and not self._began:
            return
        if message["type"] == "http.response.start":
            self._began, self._ends = True, message["status"] == 413
            if self._ends:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        elif self._ends and not self._whole and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await linger(self._receive)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self) -> None:
        """Answer in place of the application, if it has not begun to."""
        if not self._began and self.why is not None:
            await refuse(self._scope, self._receive, self._send, *self.why)
