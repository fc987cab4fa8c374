"""Reading a source ahead of the network, in a thread, and dropping what is too late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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


@dataclass(frozen=True)
class Opened:
    """The source is there; its windows follow."""

    source: Source
    windows: Windows[Frame, Tensor]


Waiting: TypeAlias = Opened | Pending | Dropped | Break | SourceProblem


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
    """A queue between a source's reader and the thread that scores.

    Args:
        lag: see :func:`drop_late`. None for a stored video, whose reader waits while ``READ_AHEAD`` windows do.
        changed: what the queues of several sources share, so that one thread can wait for any of them.

    Attributes:
        closed: nothing more is taken.
    """

    def __init__(self, lag: float | None, changed: threading.Condition | None = None) -> None:
        self.closed = False
        self.changed = changed or threading.Condition()
        self._lag = lag
        self._waiting: deque[Waiting | BaseException | None] = deque()

    def put(self, item: Waiting | BaseException | None) -> None:
        """Add an item; an error is raised where it is taken, and None is the end."""
        with self.changed:
            if self._lag is None:
                self.changed.wait_for(lambda: self.closed or self._windows() < READ_AHEAD)
            self._waiting.append(item)
            if self._lag is not None:
                drop_late(self._waiting, self._lag)
            self.changed.notify_all()

    def take(self) -> Waiting | None:
        """The next item, which is there already; None is the end."""
        with self.changed:
            item = self._waiting.popleft()
            self.changed.notify_all()
        if isinstance(item, BaseException):
            raise item
        return item

    @property
    def is_ready(self) -> bool:
        """Something can be taken."""
        return bool(self._waiting)

    def close(self) -> None:
        """Nothing more is taken."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _windows(self) -> int:
        return sum(isinstance(item, Pending) for item in self._waiting)


def start_beside(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread, whose PyTorch computes on one core: more would fight the network's for them."""
    threads, ready = torch.get_num_threads(), threading.Event()

    def run() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # the call makes the number this thread's own
        ready.set()
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    ready.wait()
    torch.set_num_threads(threads)  # setting it in the thread has changed it here too
    return thread


def next_turn(
    backlogs: Sequence[Backlog], last: int, stop: threading.Event, idle: Callable[[], None] = lambda: None
) -> int | None:
    """Wait until something can be taken: from which, in turns, beginning behind the last one.

    The queues share their condition. ``idle`` is called every ``WAKE`` seconds meanwhile. None once ``stop`` is set.
    """
    order = [*range(last + 1, len(backlogs)), *range(min(last + 1, len(backlogs)))]
    changed = backlogs[0].changed
    # Wakes again and again: a signal's handler cannot notify, and on Windows none runs during a long wait.
    while not stop.is_set():
        with changed:
            for place in order:
                if backlogs[place].is_ready:
                    return place
            changed.wait(WAKE)
        idle()
    return None


class Reader:
    """Opens and reads a source in a thread of its own, and puts windows, breaks and problems into the backlog.

    Args:
        opened: opens the source; it is given what takes problems until then.
        cut: what cuts windows from it.
        backlog: where they go.
        options: of which ``live`` and ``seconds`` count here.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        opened: Callable[[Callable[[SourceProblem], None]], Source],
        cut: Callable[[Source], Windows[Frame, Tensor]],
        backlog: Backlog,
        options: WatchOptions,
        clock: Callable[[], float],
    ) -> None:
        self._opened, self._cut, self._backlog, self._clock = opened, cut, backlog, clock
        self._live, self._seconds = options.live, options.seconds
        self._paced = True  # hold frames back until they are due, as a player does
        # When time 0 is, by the clock. Of a stream it is estimated: no frame came earlier than it was due.
        self._zero: float | None = None
        self._last = 0.0

    def start(self) -> None:
        """Start the thread. It does not keep the program from ending: a silent camera may hold it for a while."""
        start_beside(self._run, "reader")

    def _run(self) -> None:
        error: BaseException | None = None
        source: Source | None = None
        try:
            source = self._opened(self._backlog.put)
            self._read(source)
        except BaseException as caught:  # noqa: BLE001 - raised again by Backlog.take
            error = caught
        try:
            if source is not None:
                source.close()
        except BaseException as caught:  # noqa: BLE001 - as above
            error = error or caught
        self._backlog.put(error)

    def _read(self, source: Source) -> None:
        self._live |= source.live
        self._paced = not source.live
        windows = self._cut(source)
        self._backlog.put(Opened(source, windows))
        for item in source.items:
            if self._backlog.closed:
                break
            if isinstance(item, SourceProblem):
                self._backlog.put(item)
                continue
            if self._seconds is not None and item.time >= self._seconds:
                break
            if isinstance(item, Break):
                self._put(windows.end())
                self._backlog.put(item)
                if not self._paced:
                    self._zero = None
                continue
            self._keep_time(item.time)
            self._put(windows.add(item.time, item.frame))
        self._put(windows.end())

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
