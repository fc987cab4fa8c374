"""The same work on many files, in several processes, with word of how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def each_file(
    work: Callable[[Path], Result],
    paths: Sequence[Path],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Path, Result]:
    """Do ``work`` once for every different path; results in the order of the paths.

    Args:
        work: a function that can be sent to another process; what it raises ends everything.
        paths: the files.
        workers: processes; at most 1 works in this one.
        progress: called with (done, all).
    """
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, Result] = {}

    def note(path: Path, result: Result) -> None:
        found[path] = result
        if progress:
            progress(len(found), len(wanted))

    if workers <= 1:
        for path in wanted:
            note(path, work(path))
        return found
    # spawn: a forked child of a process that has run PyTorch may hang in its thread pool.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        jobs = {pool.submit(work, path): path for path in wanted}
        try:
            for job in as_completed(jobs):
                note(jobs[job], job.result())
        except BaseException:  # Ctrl-C above all: the pool would first do everything that is waiting
            pool.shutdown(cancel_futures=True)
            raise
    return {path: found[path] for path in wanted}


def _one_thread() -> None:
    """Each process is one worker: threads of its own would wait for one another on the same cores."""
    import torch

    torch.set_num_threads(1)
