"""A token that every request has to carry: programs as a bearer token, browsers as the password that they ask for."""

from __future__ import annotations

import base64
import binascii
import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from peakzoom.apps.serve.refusals import FOR_PROGRAMS, refuse
from peakzoom.utils.errors import UserError

OPEN = ("/healthz",)  # supervisors ask there; it tells nothing of visitors
WANTED = (
    "This server wants its token: send it as 'Authorization: Bearer TOKEN', or in a browser as the password."
)


def check_token(token: str | None) -> None:
    """Refuse (UserError) a token that no client could send. The error never shows it."""
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UserError(
            "the token has a space or a letter beyond ASCII: choose one as 'openssl rand -hex 32' prints"
        )


class Bearer:
    """Answers 401 with a sentence to requests without the token; a middleware.

    Args:
        app: what is behind it.
        token: that is wanted; None lets everybody in.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] not in ("http", "websocket") or self._may(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": WANTED})
        else:
            way = "Bearer" if scope["path"].startswith(FOR_PROGRAMS) else 'Basic realm="peakzoom"'
            await refuse(scope, receive, send, 401, WANTED, {"www-authenticate": way})

    def _may(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in OPEN:
            return True
        sent = _sent(Headers(scope=scope).get("authorization", ""))
        return sent is not None and secrets.compare_digest(sent, self._token)


def _sent(header: str) -> bytes | None:
    """The token in a header: a bearer token, or the password of whatever user; None where there is none."""
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest.encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None
