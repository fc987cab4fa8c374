"""What a request to the API passes: it is counted, and it is let in only where there is room for its work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peakzoom.apps.serve.api.desk import Desk
from peakzoom.apps.serve.api.metrics import Metrics
from peakzoom.apps.serve.refusals import refuse

RETRY_AFTER = 5  # seconds after which it is worth another try
FULL_LINE = "As many requests wait as this server lets wait: ask again in some seconds."
PATHS = ("/v1/predict", "/v1/explain", "/v1/jobs", "/v1/model", "/healthz", "/metrics")
CLIENT_LEFT = 499  # as nginx counts requests whose sender did not wait for the answer


class Measured:
    """Counts requests by the route that answers them; a middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), CLIENT_LEFT

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            self._metrics.note(_counted(scope), int(status), time.monotonic() - began)


def _counted(scope: Scope) -> str:
    """What a request is counted as: no text of a sender's, of which there are as many as they like."""
    route = getattr(scope.get("route"), "path", "")
    for path in (route, scope["path"]):  # what is refused before it comes to a route has only the latter
        if path in PATHS:
            return str(path)
    if isinstance(route, str) and route.startswith("/v1/jobs/"):
        return route  # with {job} in place of an identifier
    return "other" if scope["path"].startswith("/v1/") else "page"


class Admission:
    """Answers 503 where as many requests wait as may, before anything of an upload is read; a middleware.

    Args:
        app: what is behind it.
        desk: counts those that are let in.
        paths: of requests that mean work.
    """

    def __init__(self, app: ASGIApp, desk: Desk, paths: Sequence[str]) -> None:
        self.app, self._desk, self._paths = app, desk, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http" or scope["path"] not in self._paths or scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif self._desk.is_full:
            headers = {"retry-after": str(RETRY_AFTER)}
            await refuse(scope, receive, send, 503, FULL_LINE, headers)
        else:
            with self._desk.let_in():
                await self.app(scope, receive, send)
