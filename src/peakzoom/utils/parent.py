"""Processes that end with the one that started them, however it ended: SIGKILL leaves nobody to tell them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

EVERY = 0.5  # seconds between looks
_watching: int | None = None  # the process that watches already; a forked one has to begin anew


def end_with_parent() -> None:
    """End this process soon after its parent, from a thread; to be called as the first thing in it.

    Nothing is tidied up then: what is written is whole or a draft (:mod:`peakzoom.utils.durable`).
    """
    global _watching
    if _watching == os.getpid():
        return
    _watching = os.getpid()
    threading.Thread(target=_watch, args=(os.getppid(),), name="end with parent", daemon=True).start()


def _watch(parent: int) -> None:
    """Unix gives an orphan another parent; Windows does not, and Python knows who started a process of its own."""
    starter = multiprocessing.parent_process()
    while os.getppid() == parent and (starter is None or starter.is_alive()):
        time.sleep(EVERY)
    os._exit(1)
