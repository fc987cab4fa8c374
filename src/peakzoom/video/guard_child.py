"""The process that decodes: it takes requests from standard input and writes results to standard output.

Its parent is :mod:`peakzoom.video.guard`, which starts it by a command line, for the reasons given there.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NoReturn

from peakzoom.utils.errors import UserError
from peakzoom.utils.parent import end_with_parent
from peakzoom.video.messages import OUT_OF_MEMORY, Message, packed, received, unpacked, write


def serve(megabytes: float) -> None:
    """Work on requests until standard input ends, with that much memory beyond what the process has now."""
    end_with_parent()  # standard input ends too, but not while a process that was forked meanwhile holds it
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not come between results
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    waiting: SimpleQueue[list[bytearray]] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    # Imported only now, when nothing that it prints can reach the parent.
    import peakzoom.video.holding  # noqa: F401 - what most requests need

    memory = Memory(megabytes)
    while True:
        message = waiting.get()
        with memory.unbounded():
            request = _request(message)
        try:
            write(results, packed(("begun", None)))
            _work(request, results)
        except BrokenPipeError:  # the parent has gone, and nobody waits for the rest
            os._exit(0)


def _listen(requests: BinaryIO, waiting: SimpleQueue[list[bytearray]]) -> None:
    """In a thread, so that a process whose parent is gone ends in the middle of its work."""
    while True:
        try:
            waiting.put(received(requests))
        except EOFError:
            os._exit(0)


def _request(message: list[bytearray]) -> Any:
    """What is to be done; what it needs is imported, PyTorch above all where it needs that."""
    try:
        request = unpacked(message)
    except Exception as error:  # noqa: BLE001 - say, a function that cannot be imported here
        request = (_raise, (error,), False, None, "")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # one process is one worker
    return request


def _raise(error: Exception) -> NoReturn:
    raise error


def _work(request: Any, results: BinaryIO) -> None:
    from peakzoom.video.faults import reason_of

    work, arguments, many, folder, path = request
    try:
        if folder is not None:  # relative paths start where the caller is now
            os.chdir(folder)
        with reason_of(path, system=False):
            if many:
                for item in work(*arguments):
                    write(results, packed(("item", item)))
                message = packed(("end", None))
            else:
                message = packed(("result", work(*arguments)))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - raised in the parent
        if "DefaultCPUAllocator" in str(error):  # PyTorch's word for it
            os._exit(OUT_OF_MEMORY)
        foreseen = isinstance(error, UserError) and isinstance(error.__cause__, OSError | UserError | None)
        message = _packed_error(error, "" if foreseen else traceback.format_exc())
    write(results, message)


def _packed_error(error: Exception, trace: str) -> Message:
    """What went wrong; the traceback is empty where it helps nobody."""
    try:
        message = packed(("error", (error, trace)))
        pickle.loads(message[0], buffers=message[1])
    except Exception:  # noqa: BLE001 - exceptions need not survive it; the trace has all of it
        message = packed(("error", (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
    return message


class Memory:
    """Bounds what FFmpeg, NumPy and PyTorch allocate beyond what the process has; mapped libraries do not count."""

    def __init__(self, megabytes: float) -> None:
        self._most = 0.0  # bytes of data and stacks; 0: unbounded
        if sys.platform.startswith("linux"):
            import resource

            self._most = _data() + megabytes * 2**20
            resource.setrlimit(
                resource.RLIMIT_CORE, (0, 0)
            )  # a crash over a bad file leaves no image of the memory

    @contextmanager
    def unbounded(self) -> Iterator[None]:
        """What the block takes, which imports what the next work needs, does not count."""
        if not self._most:
            yield
            return
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        before = _data()
        yield
        self._most += max(0, _data() - before)
        soft = int(self._most) if hard == resource.RLIM_INFINITY else min(int(self._most), hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    """Bytes of data and stacks that this process has."""
    import resource

    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
