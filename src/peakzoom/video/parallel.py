"""The same work on many files, in several processes that a bad file can neither hang nor end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from peakzoom.utils.errors import DecodeError
from peakzoom.utils.progress import Progress
from peakzoom.video.guard import Guard, guards

Given = TypeVar("Given")
Result = TypeVar("Result")


def each_file(
    work: Callable[[Path], Result],
    paths: Sequence[Path],
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[Path, Result | DecodeError]:
    """Do ``work`` once for every different path; results in the order of the paths.

    ``work`` is a function that can be sent to another process. A :class:`DecodeError` is its file's result, anything
    else that it raises ends everything. ``progress`` is called with (done, all).
    """
    files = list(dict.fromkeys(paths))
    results: dict[Path, Result | DecodeError] = {}
    ordered = in_order(lambda guard, path: guard.run(path, work, path), files, workers, len(files))
    with closing(ordered):
        for path, result in zip(files, ordered, strict=True):
            results[path] = result
            if progress:
                progress(len(results), len(files))
    return results


def in_order(
    work: Callable[[Guard, Given], Result], files: Sequence[Given], workers: int, ahead: int
) -> Generator[Result | DecodeError, None, None]:
    """Results one after the other, in the order of the files; closing it early stops what is being done.

    ``work`` has a guard do something, in a thread; a :class:`DecodeError` is its file's result. Files are paths, or
    whatever ``work`` knows a file by; there are at most as many ``workers``, and up to ``ahead`` results wait.
    """
    workers = max(min(workers, len(files)), 1)
    with guards(workers) as lent, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Guard] = SimpleQueue()
        for guard in lent:
            free.put(guard)

        def do(file: Given) -> Result | DecodeError:
            guard = free.get()
            try:
                return work(guard, file)
            except DecodeError as error:
                return error
            finally:
                free.put(guard)

        pending: deque[Future[Result | DecodeError]] = deque()
        try:
            for file in files:
                pending.append(pool.submit(do, file))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:  # Ctrl-C above all: the pool would first do everything that is waiting
            pool.shutdown(wait=False, cancel_futures=True)
            for guard in lent:
                guard.close()
            raise
