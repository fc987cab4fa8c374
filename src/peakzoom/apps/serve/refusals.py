"""A refusal is one sentence with a status: problem details (RFC 9457) for programs, plain text for the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

PROBLEM = "application/problem+json"
LINGER_SECONDS, LINGER_BYTES = 2.0, 16_000_000
FOR_PROGRAMS = ("/v1/", "/healthz", "/metrics", "/openapi.json")


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of problem details of no further type: ``detail`` is the sentence."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The same as an answer."""
    return Response(json.dumps(problem(status, detail)), status, dict(headers or {}), PROBLEM)


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request whose body is not wanted: the connection ends with it.

    The answer goes out at once. Then so much of the body is read as a small upload has: a sender that is still at it
    when the connection ends would never see the answer.
    """
    ending = {**(headers or {}), "connection": "close"}
    if str(scope.get("path", "")).startswith(FOR_PROGRAMS):
        answer = problem_response(status, detail, ending)
    else:
        answer = PlainTextResponse(detail, status, ending)
    await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    await linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def linger(receive: Receive) -> None:
    """Read on for a moment what nobody wants, before the connection ends."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_read_on(receive), LINGER_SECONDS)


async def _read_on(receive: Receive) -> None:
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
