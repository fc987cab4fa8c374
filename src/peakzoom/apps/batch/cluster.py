"""A connection to Ray, and how its cores are shared out between workers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from peakzoom.utils.errors import UserError
from peakzoom.video.container import one_line


@dataclass(frozen=True)
class WorkerPlan:
    """How a cluster's cores are shared out."""

    workers: int
    threads: int  # of each worker: its cores
    gpus: int  # of each worker, 0 or 1


def plan_for(nodes: Sequence[tuple[int, int]], workers: int | None, on_gpu: bool) -> WorkerPlan:
    """Workers and their cores: as many cores each as all of the workers can have.

    Args:
        nodes: cores and GPUs of each machine.
        workers: how many; None is one for each GPU, or without them one for each core.
        on_gpu: each has a GPU.

    Raises:
        UserError: there are fewer cores or GPUs than workers.

    >>> plan_for([(16, 0), (8, 0)], 6, on_gpu=False)
    WorkerPlan(workers=6, threads=4, gpus=0)
    """
    kind, have = ("GPU", [gpus for _, gpus in nodes]) if on_gpu else ("core", [cores for cores, _ in nodes])
    workers = workers or max(1, sum(have))
    if workers > sum(have):
        raise UserError(f"{workers} workers need a {kind} each, and there are {sum(have)}: ask for fewer")
    if on_gpu:
        return WorkerPlan(workers, max(1, min(cores // gpus for cores, gpus in nodes if gpus)), 1)
    threads = max(have)
    while sum(cores // threads for cores in have) < workers:
        threads -= 1
    return WorkerPlan(workers, threads, 0)


@contextmanager
def connected() -> Iterator[None]:
    """A connection to Ray without usage statistics and without its own output; its log files have everything."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray.data

    with ExitStack() as undo:
        for handler in logging.getLogger("ray.data").handlers:
            if type(handler).__name__ == "PlainRayHandler":  # writes to the terminal
                undo.callback(handler.setLevel, handler.level)
                handler.setLevel(logging.CRITICAL)
        if not ray.is_initialized():
            # Without an address Ray would also take a cluster that somebody has started on this machine.
            where: dict[str, Any] = (
                {} if "RAY_ADDRESS" in os.environ else {"address": "local", "include_dashboard": False}
            )
            # For Ray's C++ half, which writes to the terminal, and there says that it has read this setting.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            try:
                with _without_stderr():
                    ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
            except (OSError, RuntimeError, ValueError) as error:
                raise UserError(f"Ray does not start: {one_line(error)}") from error
            undo.callback(ray.shutdown)
        yield


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing is written to standard error, not even by libraries in C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
