"""Removing visitors' uploads when they are no longer needed.

Gradio's own ``delete_cache`` goes by age alone: it would take a file away from a request that still waits for its turn.
"""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Sweeper(threading.Thread):
    """Removes old files every half minute, but those that were there at the start, the examples.

    Args:
        folder: of uploads and results.
        minutes: how old a file may get; older if a request waits for it.
        megabytes: that may lie there. Above, the oldest files go first, whatever their age, and after them those that
            requests wait for, the newest first: requests that came early are served sooner.
        awaited: gives the files of requests that are not served yet.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float,
        megabytes: float = float("inf"),
        awaited: Callable[[], set[Path]] = set,
    ) -> None:
        super().__init__(daemon=True)
        self.folder, self.seconds, self.bytes = folder, 60 * minutes, 1e6 * megabytes
        self.awaited = awaited
        self.kept = {each for each in folder.rglob("*") if each.is_file()}
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Until :meth:`stop`."""
        while not self._stop_now.wait(30):
            self.sweep(time.time())

    def stop(self) -> None:
        """Let the thread end."""
        self._stop_now.set()

    def sweep(self, now: float) -> None:
        """Remove what is too old at that time, in seconds since 1970."""
        files: list[tuple[float, int, Path]] = []
        folders: list[tuple[float, Path]] = []
        for each in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # gone already
                state = each.lstat()
                if stat.S_ISDIR(state.st_mode):
                    folders.append((state.st_mtime, each))
                else:
                    files.append((state.st_mtime, state.st_size, each))
        awaited, total = self.awaited(), sum(size for _, size, _ in files)
        oldest_first = sorted(file for file in files if file[2] not in self.kept)
        free = [file for file in oldest_first if file[2] not in awaited]
        bound = [file for file in reversed(oldest_first) if file[2] in awaited]
        for changed, size, each in [*free, *bound]:
            if total > self.bytes or (now - changed > self.seconds and each not in awaited):
                each.unlink(missing_ok=True)
                total -= size
        for changed, each in reversed(folders):  # the inner ones first
            if now - changed > self.seconds:
                with suppress(OSError):  # it is not empty
                    each.rmdir()
