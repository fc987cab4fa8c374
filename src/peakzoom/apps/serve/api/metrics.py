"""What Prometheus is told of the server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # bounds of the histogram


class Metrics:
    """Counts requests by path and status.

    Args:
        waiting: gives the number of requests that are not answered yet.
        jobs: gives the number of jobs in a state.
        states: of jobs.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self, waiting: Callable[[], int], jobs: Callable[[str], int], states: tuple[str, ...]
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "peakzoom_requests", "Requests, by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "peakzoom_request_seconds",
            "Seconds until a request was answered.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        gauge = Gauge(
            "peakzoom_waiting", "Requests to the API that are not answered yet.", registry=self._registry
        )
        gauge.set_function(waiting)
        kept = Gauge("peakzoom_jobs", "Jobs that are kept, by state.", ["state"], registry=self._registry)
        for state in states:
            kept.labels(state).set_function(partial(jobs, state))

    def note(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
