"""Reading a source ahead of the network, in a thread, and dropping what is too late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break, Dropped, SourceProblem
from peakzoom.apps.watch.source import Frame, Source
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.video.clips import TIMESTAMP_ROUNDING

READ_AHEAD = 2  # windows of a stored video that may wait: enough to read one while another is scored
WAKE = 0.2  # seconds after which a waiting thread looks whether it is to stop
CLOCK_DRIFT = 1e-3  # by how much a camera's clock may be off without counting as lag


@dataclass(frozen=True)
class Pending:
    """A window that waits to be scored; ``due`` is when its end comes by the clock, None where nothing is live."""

    clip: Clip[Tensor]
    due: float | None


Waiting: TypeAlias = Pending | Dropped | Break | SourceProblem


def drop_late(waiting: deque[Waiting | BaseException | None], lag: float) -> None:
    """Drop all waiting windows but the newest, once the oldest and the newest end more than ``lag`` seconds apart.

    So, while a live source runs, a prediction is at most about ``lag`` seconds old however slow scoring is, and
    stretches that were watched in full stand between those that were not. Neighbouring windows that are dropped
    become one record.
    """
    windows = [item for item in waiting if isinstance(item, Pending)]
    if not windows or windows[-1].clip.end - windows[0].clip.end <= lag + TIMESTAMP_ROUNDING:
        return
    items = list(waiting)
    waiting.clear()
    for item in items:
        if isinstance(item, Pending) and item is not windows[-1]:
            item = Dropped(item.clip.start, item.clip.end, 1)
        if isinstance(item, Dropped) and waiting and isinstance(last := waiting[-1], Dropped):
            waiting[-1] = Dropped(last.start, item.end, last.windows + item.windows)
        else:
            waiting.append(item)


class Backlog:
    """A queue between the reader's thread and the one that scores.

    Args:
        lag: see :func:`drop_late`. None for a stored video, whose reader waits while ``READ_AHEAD`` windows do.

    Attributes:
        closed: nothing more is taken.
    """

    def __init__(self, lag: float | None) -> None:
        self.closed = False
        self._lag = lag
        self._waiting: deque[Waiting | BaseException | None] = deque()
        self._changed = threading.Condition()

    def put(self, item: Waiting | BaseException | None) -> None:
        """Add an item; an error is raised where it is taken, and None is the end."""
        with self._changed:
            if self._lag is None:
                self._changed.wait_for(lambda: self.closed or self._windows() < READ_AHEAD)
            self._waiting.append(item)
            if self._lag is not None:
                drop_late(self._waiting, self._lag)
            self._changed.notify_all()

    def take(self, stop: threading.Event) -> Waiting | None:
        """Wait for the next item; None at the end, or once ``stop`` is set."""
        with self._changed:
            # Wakes again and again: a signal's handler cannot notify, and on Windows none runs during a long wait.
            while not (self._waiting or stop.is_set()):
                self._changed.wait(WAKE)
            item = None if stop.is_set() else self._waiting.popleft()
            self._changed.notify_all()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Nothing more is taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _windows(self) -> int:
        return sum(isinstance(item, Pending) for item in self._waiting)


class Reader:
    """Reads a source in a thread of its own, puts windows, breaks and problems into the backlog, and closes it.

    Of the options ``live`` and ``seconds`` count here; the clock gives seconds, from any origin.
    """

    def __init__(
        self,
        source: Source,
        windows: Windows[Frame, Tensor],
        backlog: Backlog,
        options: WatchOptions,
        clock: Callable[[], float],
    ) -> None:
        self._source, self._windows, self._backlog, self._clock = source, windows, backlog, clock
        self._live = options.live or source.live
        self._paced = not source.live  # hold frames back until they are due, as a player does
        self._seconds = options.seconds
        # When time 0 is, by the clock. Of a stream it is estimated: no frame came earlier than it was due.
        self._zero: float | None = None
        self._last = 0.0

    def start(self) -> None:
        """Start the thread. It does not keep the program from ending: a silent camera may hold it for a while."""
        threads, ready = torch.get_num_threads(), threading.Event()
        threading.Thread(target=self._run, args=(ready,), name="reader", daemon=True).start()
        ready.wait()
        torch.set_num_threads(threads)  # setting it in the thread has changed it here too

    def _run(self, ready: threading.Event) -> None:
        torch.set_num_threads(1)  # more threads, for resizing frames, would fight the network's for cores
        torch.get_num_threads()  # the call makes the number this thread's own
        ready.set()
        error: BaseException | None = None
        try:
            self._read()
        except BaseException as caught:  # noqa: BLE001 - raised again by Backlog.take
            error = caught
        try:
            self._source.close()
        except BaseException as caught:  # noqa: BLE001 - as above
            error = error or caught
        self._backlog.put(error)

    def _read(self) -> None:
        for item in self._source.items:
            if self._backlog.closed:
                break
            if isinstance(item, SourceProblem):
                self._backlog.put(item)
                continue
            if self._seconds is not None and item.time >= self._seconds:
                break
            if isinstance(item, Break):
                self._put(self._windows.end())
                self._backlog.put(item)
                if not self._paced:
                    self._zero = None
                continue
            self._keep_time(item.time)
            self._put(self._windows.add(item.time, item.frame))
        self._put(self._windows.end())

    def _put(self, clips: Iterator[Clip[Tensor]]) -> None:
        for clip in clips:
            self._backlog.put(Pending(clip, None if self._zero is None else self._zero + clip.end))

    def _keep_time(self, shown: float) -> None:
        """Wait until a frame is due where it came early; else note when it came."""
        if not self._live:
            return
        if self._zero is None:
            self._zero = self._clock() - shown
        elif self._paced:
            while (early := self._zero + shown - self._clock()) > 0 and not self._backlog.closed:
                time.sleep(min(early, WAKE))
        else:
            self._zero = min(self._zero + CLOCK_DRIFT * (shown - self._last), self._clock() - shown)
        self._last = shown
