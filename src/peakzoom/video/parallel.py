"""The same work on many files, in several processes that a bad file can neither hang nor end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from peakzoom.utils.errors import DecodeError
from peakzoom.video.guard import Guard, guards

Given = TypeVar("Given")
Result = TypeVar("Result")
Submit = Callable[[Given], "Future[Result | DecodeError]"]


def each_file(
    work: Callable[[Path], Result],
    paths: Sequence[Path],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Path, Result | DecodeError]:
    """Do ``work`` once for every different path; results in the order of the paths.

    Args:
        work: a function that can be sent to another process. A :class:`DecodeError` is its file's result, anything
            else that it raises ends everything.
        paths: the files.
        workers: processes, at least 1.
        progress: called with (done, all).
    """
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, Result | DecodeError] = {}

    def one(guard: Guard, path: Path) -> Result:
        return guard.run(path, work, path)

    with _pool(one, min(workers, len(wanted))) as submit:
        jobs = {submit(path): path for path in wanted}
        for job in as_completed(jobs):
            found[jobs[job]] = job.result()
            if progress:
                progress(len(found), len(wanted))
    return {path: found[path] for path in wanted}


def in_order(
    work: Callable[[Guard, Given], Result], files: Sequence[Given], workers: int, ahead: int
) -> Iterator[Result | DecodeError]:
    """Results one after the other, in the order of the files.

    Args:
        work: what to have a guard do; runs in a thread.
        files: paths, or whatever ``work`` knows a file by.
        workers: processes, at least 1.
        ahead: results that may wait.
    """
    pending: deque[Future[Result | DecodeError]] = deque()
    with _pool(work, workers) as submit:
        for file in files:
            pending.append(submit(file))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _pool(work: Callable[[Guard, Given], Result], workers: int) -> Iterator[Submit[Given, Result]]:
    """Threads that each drive a guard; where the block is left early, what they do is stopped."""
    workers = max(workers, 1)
    with guards(workers) as lent, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Guard] = SimpleQueue()
        for guard in lent:
            free.put(guard)

        def one(file: Given) -> Result | DecodeError:
            guard = free.get()
            try:
                return work(guard, file)
            except DecodeError as error:
                return error
            finally:
                free.put(guard)

        try:
            yield lambda file: pool.submit(one, file)
        except BaseException:  # Ctrl-C above all: the pool would first do everything that is waiting
            pool.shutdown(wait=False, cancel_futures=True)
            for guard in lent:
                guard.close()
            raise
