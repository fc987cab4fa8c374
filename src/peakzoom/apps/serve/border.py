"""Who may ask: the page itself, and no other page that happens to be open in a visitor's browser.

Any page in the world can have its visitor's browser send requests to an address on the visitor's machine. Two ways lead
here from there, and both are closed:

- a name that the other page's owner points to 127.0.0.1 after the browser has looked at it (DNS rebinding): the
  request's Host is then that name, so on a local address only local names count, and those that are allowed by hand;
- a request across origins, such as a form that sends a file: browsers say so, by Sec-Fetch-Site or Origin.

A program that is no browser sends neither of the latter, and may ask: it has no visitor's rights to misuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from peakzoom.apps.serve.refusals import refuse
from peakzoom.utils.errors import printable
from peakzoom.utils.hosts import address_of, is_local, plain

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(?::(\d+))?")
USUAL_PORTS = {"http": 80, "https": 443}


class Border:
    """Answers 403 with a sentence to requests that do not come from the page itself; a middleware.

    Args:
        app: what is behind it.
        host: address that it listens on. On one of this machine alone a request's Host must be of this machine too.
        allowed: names of hosts that count beside, as when a proxy leads here; with them, no other name does.
    """

    def __init__(self, app: ASGIApp, host: str, allowed: Iterable[str] = ()) -> None:
        self.app, self.local = app, is_local(host)
        self.allowed = {plain(name) for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        why = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if why is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await refuse(scope, receive, send, 403, why)

    def _refused(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = _HOST.fullmatch(hosts[0].strip()) if len(hosts) == 1 else None
        if host is None:
            return "The request does not say which host it is for, as every browser does."
        if not self._is_known(host[1]):
            name = printable(plain(host[1]))[:80]
            return (
                f"This page is for {'this machine' if self.local else 'other names'} and was asked for as {name}: if "
                f"that name is right, start it with --allowed-host {name}."
            )
        return None if self._is_own(scope, headers, host) else OTHER_PAGE

    def _is_known(self, name: str) -> bool:
        if is_local(name) or plain(name) in self.allowed:
            return True
        return not self.local and (not self.allowed or address_of(name) is not None)

    def _is_own(self, scope: Scope, headers: Headers, host: re.Match[str]) -> bool:
        """Whether the page itself asks, a program without a page, or somebody who opens the page."""
        site = headers.get("sec-fetch-site")
        if site in ("same-origin", "none"):
            return True
        opens = headers.get("sec-fetch-mode") == "navigate" and scope.get("method") in ("GET", "HEAD")
        if site is not None and not opens:
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            found = urlsplit(origin)
            usual = USUAL_PORTS[found.scheme]
            same = (found.hostname, found.port or usual) == (
                host[1].strip("[]").lower(),
                int(host[2] or usual),
            )
        except (KeyError, ValueError):  # "null", of a page without an address
            return False
        return same or plain(found.hostname or "") in self.allowed


OTHER_PAGE = "Another page sent this: open the page of peakzoom itself, and send the file there."
