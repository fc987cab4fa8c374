"""Reading a source ahead of the network, in a thread, and dropping what is too late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import av
import torch
from torch import Tensor

from peakzoom.apps.watch.records import Break, Dropped, SourceProblem
from peakzoom.apps.watch.source import SourceItem
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.video.clips import TIMESTAMP_ROUNDING

READ_AHEAD = 2  # windows of a stored video that may wait: enough to read one while another is scored
WAKE = 0.2  # seconds after which a waiting thread looks whether it is to stop
CLOCK_DRIFT = 1e-3  # by how much a camera's clock may be off without counting as lag


class FrameSource(Protocol):
    """Where frames come from; :class:`peakzoom.apps.watch.source.Source` is one."""

    name: str
    live: bool
    rate: float
    height: int
    width: int

    def __iter__(self) -> Iterator[SourceItem]:
        """Once, in order."""
        ...

    def convert(self, frame: av.VideoFrame | Tensor, size: tuple[int, int]) -> Tensor:
        """Uint8 (H, W, 3) of this (height, width)."""
        ...

    def close(self) -> None:
        """End reading."""
        ...


@dataclass(frozen=True)
class Pending:
    """A window that waits to be scored; ``due`` is when its end comes by the clock, None where nothing is live."""

    clip: Clip[Tensor]
    due: float | None


Item: TypeAlias = Pending | Dropped | Break | SourceProblem


def drop_late(waiting: deque[Item], lag: float) -> None:
    """Drop all waiting windows but the newest, once the oldest and the newest end more than ``lag`` seconds apart.

    So, while a live source runs, a prediction is at most about ``lag`` seconds old however slow scoring is, and
    stretches that were watched in full stand between those that were not. Neighbouring windows that are dropped
    become one record.

    Args:
        waiting: changed in place.
        lag: seconds between the ends of the oldest and the newest window.
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


class Closed(Exception):
    """Nothing is taken from the backlog any more."""


class Backlog:
    """A queue between the reader's thread and the one that scores.

    Args:
        lag: see :func:`drop_late`. None for a stored video, whose reader waits while ``READ_AHEAD`` windows do.
    """

    def __init__(self, lag: float | None) -> None:
        self._lag = lag
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False  # nothing more is put
        self._closed = False  # nothing more is taken
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Add an item.

        Raises:
            Closed: nothing is taken any more.
        """
        with self._changed:
            if self._lag is None:
                self._changed.wait_for(lambda: self._closed or self._windows() < READ_AHEAD)
            if self._closed:
                raise Closed
            self._waiting.append(item)
            if self._lag is not None:
                drop_late(self._waiting, self._lag)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more is put; an error is raised in :meth:`take`, after the last item."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, stop: threading.Event) -> Item | None:
        """Wait for the next item; None at the end, or once ``stop`` is set."""
        with self._changed:
            # Wakes again and again: a signal's handler cannot notify, and on Windows none runs during a long wait.
            while not (self._waiting or self._ended or stop.is_set()):
                self._changed.wait(WAKE)
            if stop.is_set():
                return None
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed

    def _windows(self) -> int:
        return sum(isinstance(item, Pending) for item in self._waiting)


class Reader:
    """Reads a source in a thread of its own, and puts windows, breaks and problems into the backlog.

    Args:
        frames: the source.
        windows: cut from its frames.
        backlog: where they are put.
        clock: seconds, from any origin.
        paced: hold back frames until they are due, as a player does.
        live: windows are due at a time.
        seconds: of video, after which to stop; None = never.
    """

    def __init__(
        self,
        frames: FrameSource,
        windows: Windows[av.VideoFrame | Tensor, Tensor],
        backlog: Backlog,
        clock: Callable[[], float],
        *,
        paced: bool,
        live: bool,
        seconds: float | None,
    ) -> None:
        self._frames, self._windows, self._backlog, self._clock = frames, windows, backlog, clock
        self._paced, self._live, self._seconds = paced, live, seconds
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
        except Closed:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised again by Backlog.take
            error = caught
        finally:
            self._frames.close()
            self._backlog.end(error)

    def _read(self) -> None:
        for item in self._frames:
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
                self._zero = self._zero if self._paced else None
                continue
            self._keep_time(item.time)
            self._put(self._windows.add(item.time, item.frame))
        self._put(self._windows.end())

    def _put(self, clips: Iterator[Clip[Tensor]]) -> None:
        for clip in clips:
            due = self._zero + clip.end if self._live and self._zero is not None else None
            self._backlog.put(Pending(clip, due))

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
