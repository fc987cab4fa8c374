"""Loader processes: as many as there is room for, and none that is waited for in vain.

Batches come through shared memory, of which a container may have 64 MB (Docker's default). A process that cannot hand
its batch over (no room there after all, no file handle left, a folder for temporary files whose name is too long for a
socket) prints that and goes on, and PyTorch waits for the batch for ever. Here it hands the error over instead.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from multiprocessing import queues
from pathlib import Path
from typing import Any, NoReturn

from torch._utils import ExceptionWrapper

from peakzoom.utils.errors import WorkerGone, first_line
from peakzoom.utils.parent import end_with_parent
from peakzoom.utils.system import LOADER_NEEDS

# A socket's address has this many bytes at most (macOS; Linux has four more), of which this many come after the folder.
LONGEST, NAME = 103, len("/pymp-12345678/listener-12345678")
SHORT = "/tmp"
SHARED_MEMORY = Path("/dev/shm")  # where there is none, as on macOS, nothing bounds it
AHEAD = 2  # batches that PyTorch has a process load ahead, its default
HELD = 3  # others: one that is trained on, one that Lightning has taken already, one of a validation

log = logging.getLogger(__name__)


def affordable(workers: int, batch_bytes: int, trainings: int = 1) -> int:
    """As many loader processes, of those asked for, as shared memory has room for; a log line says when it is fewer.

    Args:
        workers: asked for.
        batch_bytes: that one batch takes.
        trainings: processes that train on this machine, each of which has so many loaders.
    """
    free = room_to_share()
    if free is None:
        return workers
    most = (free // (max(1, batch_bytes) * trainings) - HELD) // AHEAD
    fitting = max(0, min(workers, most, workers if batch_bytes <= longest_file() else 0))
    if fitting < workers:
        needed = (AHEAD * workers + HELD) * batch_bytes * trainings
        by = f"by {fitting}" if fitting else "without any"
        log.warning(
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, and {workers} loader processes may need "
            f"{needed / 1e6:.0f}: clips are loaded {by} (in Docker --shm-size=2g gives it more)"
        )
    return fitting


def room_to_share() -> int | None:
    """Free bytes of shared memory; None where nothing says so."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def longest_file() -> float:
    """How many bytes a file may have (``ulimit -f``), and so each piece of shared memory."""
    if sys.platform == "win32":
        return float("inf")
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return float("inf") if most == resource.RLIM_INFINITY else most


class NotHandedOver(ExceptionWrapper):
    """What comes to the trainer in place of a batch; a text, since an exception's arguments may not be picklable."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def reraise(self) -> NoReturn:
        """Raise :class:`WorkerGone`."""
        raise WorkerGone(
            f"a process that loads clips could not hand over a batch ({self.reason}): {LOADER_NEEDS}"
        )


def begin_worker(number: int) -> None:
    """The ``worker_init_fn`` of a ``DataLoader``: called in each of its processes before the first batch."""
    end_with_parent()

    def hand_over(queue: Any, error: Exception, job: tuple[int, object]) -> None:
        queue.put((job[0], NotHandedOver(first_line(error))))

    # Python calls this where an object cannot be sent; it is a static method that prints the error.
    queues.Queue._on_queue_feeder_error = hand_over  # type: ignore[attr-defined]
    if len(os.fsencode(tempfile.gettempdir())) + NAME > LONGEST and os.access(SHORT, os.W_OK):
        tempfile.tempdir = SHORT
