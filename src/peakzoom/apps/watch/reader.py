"""Reading a source ahead of the network, and dropping what is too late."""

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

from peakzoom.apps.watch.records import Dropped
from peakzoom.apps.watch.source import Break, Problem, Shown
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.video.clips import TIMESTAMP_ROUNDING

READ_AHEAD = 2  # windows of a stored video that may wait: reading one while another is scored takes no more


WAKE = 0.2  # seconds between two looks at whether to stop


CLOCK_DRIFT = 1e-3  # by how much a camera's clock may be off without counting as lag


class Frames(Protocol):
    """Where frames come from; :class:`peakzoom.apps.watch.source.Source` is one."""

    name: str
    live: bool
    rate: float
    height: int
    width: int

    def __iter__(self) -> Iterator[Shown | Break | Problem]:
        """Once, in order."""
        ...

    def convert(self, frame: av.VideoFrame | Tensor, size: tuple[int, int]) -> Tensor:
        """Uint8 (H, W, 3) of this (height, width)."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True)
class Timed:
    """A window that waits to be scored; ``due`` is when its end comes by the clock, None where nothing is live."""

    clip: Clip[Tensor]
    due: float | None


Item: TypeAlias = Timed | Dropped | Break | Problem


def drop_late(waiting: deque[Item], lag: float) -> None:
    """The rule for what is live: of windows that wait, only the newest is kept once they are more than ``lag`` apart.

    So, while the source runs, what is said is at most about ``lag`` seconds old however slow scoring is, and stretches
    that were watched in full stand between those that were not. What is dropped becomes one record for all neighbours.

    Args:
        waiting: changed in place.
        lag: seconds between the ends of the oldest and the newest window.
    """
    windows = [each for each in waiting if isinstance(each, Timed)]
    if not windows or windows[-1].clip.end - windows[0].clip.end <= lag + TIMESTAMP_ROUNDING:
        return
    everything = list(waiting)
    waiting.clear()
    for each in everything:
        if isinstance(each, Timed) and each is not windows[-1]:
            each = Dropped(each.clip.start, each.clip.end, 1)
        if isinstance(each, Dropped) and waiting and isinstance(last := waiting[-1], Dropped):
            waiting[-1] = Dropped(last.start, each.end, last.windows + each.windows)
        else:
            waiting.append(each)


class Backlog:
    """What was read and is not yet told, in order, between two threads.

    Args:
        lag: see :func:`drop_late`; None: whoever puts waits instead, while ``READ_AHEAD`` windows do.
    """

    def __init__(self, lag: float | None) -> None:
        self._lag = lag
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False  # nothing more is put
        self._closed = False  # nothing more is taken
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Add something; :class:`Closed` is raised where nobody takes any more."""
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
        """Nothing more is put; an error is raised where it would have been taken."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, stop: threading.Event) -> Item | None:
        """The next thing, waiting for it; None at the end, or once ``stop`` is set."""
        with self._changed:
            # Looks again and again: a signal's handler cannot notify, and on Windows none runs in a long wait.
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
        """Nothing more is taken."""
        return self._closed

    def _windows(self) -> int:
        return sum(isinstance(each, Timed) for each in self._waiting)


class Closed(Exception):
    """Nobody takes what is read any more."""


class Reader:
    """Reads a source in a thread of its own.

    Args:
        frames: the source.
        windows: made of its frames.
        backlog: where they go.
        clock: seconds.
        paced: hold back frames until they are due, as a player does.
        live: windows are due at a time.
        seconds: of video, after which to stop; None = never.
    """

    def __init__(
        self,
        frames: Frames,
        windows: Windows[av.VideoFrame | Tensor, Tensor],
        backlog: Backlog,
        clock: Callable[[], float],
        paced: bool,
        live: bool,
        seconds: float | None,
    ) -> None:
        self._frames, self._windows, self._backlog, self._clock = frames, windows, backlog, clock
        self._paced, self._live, self._seconds = paced, live, seconds
        # When time 0 is, by the clock. Of a stream it is learnt: no frame came earlier than it was due.
        self._zero: float | None = None
        self._last = 0.0

    def start(self) -> None:
        """Begin. The thread does not keep the program from ending: a silent camera may hold it for a while."""
        threads, ready = torch.get_num_threads(), threading.Event()
        threading.Thread(target=self._run, args=(ready,), name="reader", daemon=True).start()
        ready.wait()
        torch.set_num_threads(threads)  # setting it in the thread has changed it here too

    def _run(self, ready: threading.Event) -> None:
        torch.set_num_threads(1)  # resizing frames with a team of its own would fight the network's for cores
        torch.get_num_threads()  # asking makes it this thread's own
        ready.set()
        error: BaseException | None = None
        try:
            for item in self._frames:
                if self._backlog.closed:
                    break
                if isinstance(item, Problem):
                    self._backlog.put(item)
                    continue
                if self._seconds is not None and item.time >= self._seconds:
                    break
                if isinstance(item, Break):
                    self._put(self._windows.end())
                    self._backlog.put(item)
                    self._zero = self._zero if self._paced else None
                    continue
                self._arrived(item.time)
                self._put(self._windows.add(item.time, item.frame))
            self._put(self._windows.end())
        except Closed:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised again by whoever takes
            error = caught
        finally:
            self._frames.close()
            self._backlog.end(error)

    def _put(self, clips: Iterator[Clip[Tensor]]) -> None:
        for clip in clips:
            due = self._zero + clip.end if self._live and self._zero is not None else None
            self._backlog.put(Timed(clip, due))

    def _arrived(self, shown: float) -> None:
        """Note when a frame came; wait for its time where the source would run ahead."""
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
