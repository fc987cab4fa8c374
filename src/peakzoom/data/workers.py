"""Loader processes of which none is waited for in vain.

A process that cannot hand its batch over (no room in shared memory, no file handle left, a folder for temporary files
whose name is too long for a socket) prints that and goes on, and PyTorch waits for the batch for ever. Here it hands
the error over instead.
"""

from __future__ import annotations

import os
import tempfile
from multiprocessing import queues
from typing import Any, NoReturn

from torch._utils import ExceptionWrapper

from peakzoom.utils.errors import WorkerGone, first_line
from peakzoom.utils.system import LOADER_NEEDS

# A socket's address has this many bytes at most (macOS; Linux has four more), of which this many come after the folder.
LONGEST, NAME = 103, len("/pymp-12345678/listener-12345678")
SHORT = "/tmp"


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

    def hand_over(queue: Any, error: Exception, job: tuple[int, object]) -> None:
        queue.put((job[0], NotHandedOver(first_line(error))))

    # Python calls this where an object cannot be sent; it is a static method that prints the error.
    queues.Queue._on_queue_feeder_error = hand_over  # type: ignore[attr-defined]
    if len(os.fsencode(tempfile.gettempdir())) + NAME > LONGEST and os.access(SHORT, os.W_OK):
        tempfile.tempdir = SHORT
