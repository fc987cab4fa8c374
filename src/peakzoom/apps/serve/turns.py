"""Who computes next: the network uses all cores by itself, so requests take turns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from peakzoom.utils.memory import return_freed_memory


class Turns:
    """One turn at a time, in the order in which threads came for one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()  # the first one has its turn

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A turn. The memory it freed goes back to the system, or the heaps grow with every video."""
        mine = object()
        with self._changed:
            self._line.append(mine)
            self._changed.wait_for(lambda: self._line[0] is mine)
        try:
            yield
        finally:
            return_freed_memory()
            with self._changed:
                self._line.popleft()
                self._changed.notify_all()

    def pass_on(self) -> None:
        """Let all who wait go first; called by the one whose turn it is, from time to time in what takes long."""
        with self._changed:
            if len(self._line) > 1:
                self._line.rotate(-1)
                mine = self._line[-1]
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._line[0] is mine)
