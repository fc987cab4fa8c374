"""How a watch that runs for weeks fares, over HTTP: ``/healthz`` for a supervisor, ``/metrics`` for Prometheus."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.past import Past
from peakzoom.apps.watch.records import Break, Dropped, Ended, Record, ScoredWindow, SourceProblem, Started
from peakzoom.utils.errors import UserError

LATE = 60.0  # seconds without a scored window, and at least three windows' worth, after which a source is not well


@dataclass
class Fare:
    """How one source fares.

    Attributes:
        name: as it may be shown.
        state: "starting" until it is there, "again" while a file is read up to where an earlier watch was, "watched",
            "away" where it is asked for again, "ended".
        last: when its last window was scored, or it began, by the clock.
        late: seconds after which the next window is missed.
    """

    name: str
    last: float
    state: str = "starting"
    late: float = LATE
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("windows", "dropped", "events"), 0))

    def is_well(self, now: float) -> bool:
        """Windows of it are scored or were already, or it has come to its end."""
        return self.state in ("again", "ended") or (self.state == "watched" and now - self.last <= self.late)


class Health:
    """Counts what comes of each source.

    Args:
        names: of the sources, as they may be shown.
        classes: of the model; each has a counter of events from the beginning.
        clock: seconds, from any origin.
    """

    def __init__(
        self, names: Sequence[str], classes: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._fares = [Fare(name, clock()) for name in names]
        self.registry = CollectorRegistry()
        # The place tells two sources of one name apart.
        of = ["place", "source"]

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"peakzoom_{name}", text, [*of, *more], registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"peakzoom_{name}", text, of, registry=self.registry)

        self._windows = counter("windows", "Windows that were scored.")
        self._dropped = counter("dropped_windows", "Windows that were not, because scoring fell behind.")
        self._breaks = counter("breaks", "Places where frames do not follow each other.")
        self._problems = counter("problems", "Times that some of the video was lost.")
        self._events = counter("events", "Events, by class.", "class")
        self._behind = gauge("behind_seconds", "From when a window's last frame was due until its scores.")
        self._seconds = gauge("video_seconds", "Seconds of video up to the last window's end.")
        self._last = gauge("last_window_timestamp_seconds", "When the last window was scored, Unix time.")
        self._up = gauge("up", "1 where windows are scored, or were already by an earlier watch; else 0.")
        for place, name in enumerate(names):
            for each in (self._windows, self._dropped, self._breaks, self._problems):
                each.labels(place, name)
            for kind in classes:
                self._events.labels(place, name, kind)
            self._up.labels(place, name).set_function(partial(self._is_up, place))

    def go_on(self, pasts: Sequence[Past | None]) -> None:
        """Hear which sources have a past, whose records do not come again."""
        for fare, past in zip(self._fares, pasts, strict=True):
            if past is None:
                continue
            fare.late = max(LATE, 3 * (past.source.get("window") or 0.0))
            if past.ended:
                fare.state = "ended"
            elif past.began is None:  # a camera has yet to be there
                fare.state = "again"

    def note(self, place: int, record: Record) -> None:
        """Count a record of a source."""
        with self._lock:
            self._note(place, record)

    def _note(self, place: int, record: Record) -> None:
        fare = self._fares[place]
        of = (place, fare.name)
        if isinstance(record, Started | Break | ScoredWindow):
            fare.state, fare.last = "watched", self._clock()
        if isinstance(record, Started):
            fare.late = max(LATE, 3 * (record.window or 0.0))
        elif isinstance(record, ScoredWindow):
            fare.counts["windows"] += 1
            self._windows.labels(*of).inc()
            self._seconds.labels(*of).set(record.end)
            self._last.labels(*of).set(time.time())
            if record.behind is not None:
                self._behind.labels(*of).set(record.behind)
        elif isinstance(record, Dropped):
            fare.counts["dropped"] += record.windows
            self._dropped.labels(*of).inc(record.windows)
        elif isinstance(record, Break):
            self._breaks.labels(*of).inc()
        elif isinstance(record, SourceProblem):
            self._problems.labels(*of).inc(record.lost)
            if record.away:
                fare.state = "away"
        elif isinstance(record, Event):
            fare.counts["events"] += 1
            self._events.labels(*of, record.name).inc()
        elif isinstance(record, Ended):
            fare.state = "ended"

    def _is_up(self, place: int) -> float:
        fare = self._fares[place]
        return float(fare.state != "ended" and fare.is_well(self._clock()))

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and plain data that says of what."""
        now = self._clock()
        with self._lock:
            well = all(fare.is_well(now) for fare in self._fares)
            sources = [
                {
                    "source": fare.name,
                    "state": fare.state,
                    "well": fare.is_well(now),
                    "seconds_since_window": round(now - fare.last, 3),
                    **fare.counts,
                }
                for fare in self._fares
            ]
        return well, {"well": well, "sources": sources}


@contextmanager
def served(health: Health, host: str, port: int) -> Iterator[str]:
    """Answer requests from a thread of its own; gives the address.

    Raises:
        UserError: the address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds that a visitor may keep a thread waiting

        def do_GET(self) -> None:
            """Answer one of the two paths."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(health.registry))
            elif path == "/healthz":
                well, data = health.report()
                self._answer(200 if well else 503, "application/json", json.dumps(data).encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"here are /healthz and /metrics\n")

        do_HEAD = do_GET

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a request every few seconds is no news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--health {host}:{port} cannot be had: {reason}") from error
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        yield f"http://{host}:{server.server_address[1]}"
        server.shutdown()
