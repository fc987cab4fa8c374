"""One server: the API, the web page beside it, and who is let in to either."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from peakzoom.apps.serve.api.app import build_api
from peakzoom.apps.serve.api.desk import Desk
from peakzoom.apps.serve.api.guards import Admission, Measured
from peakzoom.apps.serve.bearer import Bearer, check_token
from peakzoom.apps.serve.border import Border
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.listening import listenable, listening_socket
from peakzoom.apps.serve.service import Service
from peakzoom.apps.serve.sweeper import Sweeper
from peakzoom.apps.serve.uploads import Uploads
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for
from peakzoom.utils.temporary import temporary_folder
from peakzoom.video.sampling import Views

PATIENCE = 5.0  # seconds that answers under way may take when the server ends
START = 60.0  # seconds in which it has to be there


@dataclass(frozen=True)
class Address:
    """Where a server is reached, and by whom.

    Attributes:
        host: address to listen on; "0.0.0.0" is every one of this machine.
        port: a free one from 7860 on when not given.
        allowed_hosts: other names that the server is reached by, as through a proxy; see
            :mod:`peakzoom.apps.serve.border`.
        token: that every request has to carry; None lets everybody in.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    allowed_hosts: Sequence[str] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        check_token(self.token)

    def __repr__(self) -> str:
        return f"Address({self.host!r}, {self.port}, {'with' if self.token else 'without'} a token)"


@contextmanager
def server(
    recognizer: Recognizer,
    views: Views,
    limits: Limits | None = None,
    address: Address | None = None,
    *,
    examples: Sequence[Path] = (),
    api_views: Views | None = None,
    page: bool = True,
) -> Iterator[str]:
    """The page and the API while the block lasts; gives their address. Uploads and results are removed at the end.

    Args:
        recognizer: the model.
        views: which are averaged on the page.
        limits: what is refused.
        address: where the server listens, and to whom.
        examples: videos to try on the page.
        api_views: which are averaged by the API; those of the page when not given.
        page: whether there is a page; the API alone needs no Gradio.

    Raises:
        UserError: the port is taken, the host is none of this machine's, or the page needs a package that is not there.
    """
    limits, address = limits or Limits(), address or Address()
    host = listenable(address.host)
    with ExitStack() as opened:
        folder = opened.enter_context(temporary_folder("peakzoom-serve-"))
        service = Service(recognizer, views, limits, folder)
        desk = opened.enter_context(Desk(service, api_views or views))
        app = build_api(desk, _middleware(desk, host, address), address.token is not None)
        awaited = desk.files
        if page:
            with needed_for("the web page (--api-only does without)"):
                from peakzoom.apps.serve.page import mounted
            on_page = opened.enter_context(mounted(app, service, examples))

            def awaited() -> set[Path]:
                return desk.files() | on_page()

        bound = listening_socket(host, address.port)
        opened.callback(bound.close)
        sweeper = Sweeper(service.folder, limits.minutes, limits.stored, awaited)
        sweeper.sweep(time.time())  # what fails here is seen; in the thread it would not be
        sweeper.start()
        opened.callback(sweeper.stop)
        with _running(app, bound):
            yield f"http://{host}:{bound.getsockname()[1]}/"


def _middleware(desk: Desk, host: str, address: Address) -> list[Middleware]:
    """What a request passes before it is read, the outermost first."""
    limits = desk.service.limits
    megabytes = dict.fromkeys(("/v1/predict", "/v1/explain"), limits.megabytes)
    megabytes["/v1/jobs"] = limits.job_megabytes
    return [
        Middleware(Measured, metrics=desk.metrics),
        Middleware(Border, host=host, allowed=tuple(address.allowed_hosts)),
        Middleware(Bearer, token=address.token),
        Middleware(Admission, desk=desk, paths=tuple(megabytes)),
        Middleware(Uploads, megabytes=megabytes),
    ]


@contextmanager
def _running(app: FastAPI, bound: socket.socket) -> Iterator[None]:
    """The application in a thread of its own, while the block lasts."""
    config = uvicorn.Config(
        app,
        log_config=None,  # only warnings and errors are logged: no request, and so no token
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(PATIENCE),
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([bound],), name="server", daemon=True)
    thread.start()
    limit = time.monotonic() + START
    while not running.started:
        if not thread.is_alive() or time.monotonic() > limit:
            raise UserError("the web server does not start: its log says why")
        time.sleep(0.01)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join(PATIENCE + 5.0)
