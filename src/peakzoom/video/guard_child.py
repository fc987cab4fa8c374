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
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NoReturn

from peakzoom.utils.errors import UserError
from peakzoom.utils.parent import end_with_parent
from peakzoom.video.messages import OUT_OF_MEMORY, Message, packed, read, write


def serve(megabytes: float) -> None:
    """Work on requests until standard input ends, with that much memory beyond what the process has now."""
    end_with_parent()  # standard input ends too, but not while a process that was forked meanwhile holds it
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not come between results
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    waiting: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    # Imported only now, when nothing that they print can reach the parent, and before the first file's time counts.
    import torch

    import peakzoom.video.decode  # noqa: F401 - what every request needs

    torch.set_num_threads(1)  # one process is one worker
    _bound_memory(megabytes)
    write(results, packed(("ready", None)))
    while True:
        try:
            _work(waiting.get(), results)
        except BrokenPipeError:  # the parent has gone, and nobody waits for the rest
            os._exit(0)


def _listen(requests: BinaryIO, waiting: SimpleQueue[Any]) -> None:
    """In a thread, so that a process whose parent is gone ends in the middle of its work."""
    while True:
        try:
            waiting.put(read(requests))
        except EOFError:
            os._exit(0)
        except Exception as error:  # noqa: BLE001 - say, a function that cannot be imported here
            waiting.put((_raise, (error,), False, None, ""))


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


def _bound_memory(megabytes: float) -> None:
    """What FFmpeg, NumPy and PyTorch allocate, but not the libraries that are mapped."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # data and stacks
    most = pages * resource.getpagesize() + int(megabytes * 2**20)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash over a bad file leaves no image of the memory
