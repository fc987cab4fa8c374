"""What happens in a video of any length, told while it runs: windows, scores, events.

A thread reads and makes windows (:mod:`peakzoom.video.live`, :mod:`peakzoom.video.windows`), the caller's scores them
in order and merges them into events (:mod:`peakzoom.events`). Memory does not grow with the length.

A stored video is read no faster than it is scored. Something live goes on whether we keep up or not; the rule is
:func:`drop_late`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import av
import numpy as np
import torch
from torch import Tensor

from peakzoom.errors import UserError
from peakzoom.events import Event, Merger
from peakzoom.predict import Recognizer, average
from peakzoom.video.clips import TIMESTAMP_ROUNDING
from peakzoom.video.live import Break, Problem, Shown, open_source
from peakzoom.video.views import crop_offsets
from peakzoom.video.windows import Clip, Windows

READ_AHEAD = 2  # windows of a stored video that may wait: reading one while another is scored takes no more
WAKE = 0.2  # seconds between two looks at whether to stop
CLOCK_DRIFT = 1e-3  # by how much a camera's clock may be off without counting as lag


@dataclass(frozen=True)
class Started:
    """What is watched, and how.

    Attributes:
        source: its name.
        live: it goes on whether we keep up or not.
        height, width: of the frames as displayed, in pixels.
        rate: frames per second that the source states; 0 = none.
        classes: S names.
        frames, stride, fps: of a window's clip; fps None = frames as they are stored.
        window: seconds from a window's first frame to the last one's end, and ...
        every: ... from the start of one to that of the next, by the rate stated; None = no rate is.
    """

    source: str
    live: bool
    height: int
    width: int
    rate: float
    classes: list[str]
    frames: int
    stride: int
    fps: float | None
    window: float | None
    every: float | None


@dataclass(frozen=True)
class Window:
    """What the model says of one window.

    Attributes:
        start, end: seconds since the first frame.
        classes: S names.
        scores: float64 (S,) fused softmax scores, averaged over the crops; they sum to 1.
        name: the class it speaks for; None where none reaches the threshold, or the best one is ignored.
        covered: frames from its first to its last; fewer than usual where a short video was repeated to fill it.
        behind: seconds by which its scores came after its last frame was due; None where nothing is live.
    """

    start: float
    end: float
    classes: list[str]
    scores: np.ndarray
    name: str | None
    covered: int
    behind: float | None

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k best classes and their scores, best first; ties in the order of the classes."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.classes[index], float(self.scores[index])) for index in best]


@dataclass(frozen=True)
class Dropped:
    """Windows that were not scored, because scoring did not keep up; ``start`` of the first, ``end`` of the last."""

    start: float
    end: float
    windows: int


@dataclass(frozen=True)
class Ended:
    """The last record.

    Attributes:
        seconds: of video, up to the end of the last window.
        took: seconds, by the clock.
        windows, dropped, events: how many.
        stopped: by request, not because the source ended.
    """

    seconds: float
    took: float
    windows: int
    dropped: int
    events: int
    stopped: bool

    @property
    def speed(self) -> float:
        """Seconds of video in a second."""
        return self.seconds / self.took if self.took > 0 else math.inf


Record: TypeAlias = Started | Window | Event | Dropped | Break | Problem | Ended


class Frames(Protocol):
    """Where frames come from; :class:`peakzoom.video.live.Source` is one."""

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


def watch(
    recognizer: Recognizer,
    source: str | Path | Frames,
    *,
    every: float | None = None,
    crops: int = 1,
    threshold: float = 0.5,
    ignore: Sequence[str] = (),
    gap: float = 0.0,
    live: bool = False,
    lag: float = 2.0,
    seconds: float | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
    """Slide over a video and yield what there is to say, as soon as it is known.

    The first record is :class:`Started`, the last one :class:`Ended`. Each :class:`Window` comes once it is scored,
    each :class:`peakzoom.events.Event` once nothing can change it.

    Args:
        recognizer: with any engine.
        source: see :class:`peakzoom.video.live.Source`; or one that is open.
        every: seconds between the starts of windows; half a window when not given.
        crops: crops of a window whose scores are averaged; one is the middle.
        threshold: score from which on a window speaks for its best class.
        ignore: classes for which none does ("nothing").
        gap: seconds of other classes, or of none, that an event goes over.
        live: play a stored video at its own speed, and drop what does not keep up. Cameras and streams are live.
        lag: seconds of windows that may wait before some are dropped.
        seconds: of video, after which to stop.
        stop: once it is set, the window being scored is the last.
        clock: seconds, from any origin.

    Raises:
        UserError: an argument is none of these; at once, before anything is read.
        DecodeError: the source cannot be opened or gives no frame; at once. While it runs: a file hangs or crashes
            the decoder.
    """
    if unknown := [name for name in ignore if name not in recognizer.classes]:
        known = ", ".join(recognizer.classes[:8]) + (" ..." if len(recognizer.classes) > 8 else "")
        raise UserError(
            f"{unknown[0]!r} is to be ignored but is no class of this model: expected some of {known}"
        )
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold is {threshold:g}, expected a score between 0 and 1")
    if crops < 1:
        raise UserError(f"{crops} crops make no window, expected at least 1")
    for option, value in (("every", every), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise UserError(f"{option} is {value:g}, expected a number above 0")
    if not lag >= 0:
        raise UserError(f"lag is {lag:g}, expected seconds of 0 or more")
    merger = Merger(gap)
    pre = recognizer.preprocess
    frames = open_source(source, pre.test_size) if isinstance(source, str | Path) else source
    size = pre.test_size(frames.height, frames.width)
    windows: Windows[av.VideoFrame | Tensor, Tensor] = Windows(
        pre.frames, pre.stride, pre.fps, frames.rate, every, lambda frame: frames.convert(frame, size)
    )
    rate = pre.fps or frames.rate
    started = Started(
        source=frames.name,
        live=live or frames.live,
        height=frames.height,
        width=frames.width,
        rate=frames.rate,
        classes=recognizer.classes,
        frames=pre.frames,
        stride=pre.stride,
        fps=pre.fps,
        window=windows.span / rate if rate else None,
        every=every or (windows.hop / rate if rate else None),
    )
    backlog = Backlog(lag if started.live else None)
    reader = Reader(
        frames, windows, backlog, clock, paced=live and not frames.live, live=started.live, seconds=seconds
    )

    def say(item: Timed) -> Window:
        clip, scores = item.clip, score_clip(recognizer, item.clip, crops)
        best = int(scores.argmax())
        name: str | None = recognizer.classes[best]
        if scores[best] < threshold or name in ignore:
            name = None
        behind = None if item.due is None else max(clock() - item.due, 0.0)
        return Window(clip.start, clip.end, recognizer.classes, scores, name, clip.covered, behind)

    return _records(started, reader, backlog, say, merger, stop or threading.Event(), clock)


def _records(
    started: Started,
    reader: Reader,
    backlog: Backlog,
    say: Callable[[Timed], Window],
    merger: Merger,
    stop: threading.Event,
    clock: Callable[[], float],
) -> Iterator[Record]:
    """The records of a watch whose arguments are checked."""
    begun = clock()
    end, windows, dropped, events = 0.0, 0, 0, 0
    yield started
    try:
        reader.start()
        while (item := backlog.take(stop)) is not None:
            settled: Iterator[Event] = iter(())
            if isinstance(item, Timed):
                window = say(item)
                yield window
                end, windows = window.end, windows + 1
                settled = merger.add(window.start, window.end, window.name, float(window.scores.max()))
            elif isinstance(item, Break):
                settled = merger.end()
            elif isinstance(item, Dropped):
                dropped += item.windows
            for event in settled:
                events += 1
                yield event
            if not isinstance(item, Timed):
                yield item
        for event in merger.end():
            events += 1
            yield event
    finally:
        backlog.close()
    yield Ended(end, clock() - begun, windows, dropped, events, stop.is_set())


def score_clip(recognizer: Recognizer, clip: Clip[Tensor], crops: int = 1) -> np.ndarray:
    """Fused softmax scores of a window, float64 (S,): the mean over its crops, as :meth:`Recognizer.score` has it.

    Args:
        recognizer: with any engine.
        clip: of T frames, uint8 (H, W, 3), of the preprocessing's test size.
        crops: as in a test.
    """
    frames = torch.stack(clip.frames).permute(0, 3, 1, 2)
    side = recognizer.preprocess.source_size
    corners = crop_offsets(frames.shape[2], frames.shape[3], side, crops)
    views = torch.stack([frames[:, :, top : top + side, left : left + side] for top, left in corners])
    scores = average(recognizer.engine(views)["fused"].softmax(1).numpy())
    return scores / scores.sum()


# Reading ahead and falling behind --------------------------------------------------------------------------------


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


def to_line(record: Record, top: int = 5) -> dict[str, Any]:
    """Plain data for one line of JSON; times in seconds, to the microsecond.

    Args:
        record: any.
        top: classes of a window to name.
    """
    kind = type(record).__name__.lower()
    if isinstance(record, Started):
        return {"type": "source", **vars(record)}
    if isinstance(record, Window):
        best = record.top(top)
        line = {
            "type": kind,
            "start": round(record.start, 6),
            "end": round(record.end, 6),
            "class": record.name,
            "top": [{"class": name, "score": score} for name, score in best],
            "frames": record.covered,
        }
        return line if record.behind is None else {**line, "behind": round(record.behind, 3)}
    values = {name: round(value, 6) if name in TIMES else value for name, value in vars(record).items()}
    if isinstance(record, Event):
        values = {"class" if name == "name" else name: value for name, value in values.items()}
    if isinstance(record, Ended):
        kind, values = "end", {**values, "took": round(record.took, 3)}
    return {"type": kind, **values}


TIMES = frozenset({"start", "end", "time", "seconds"})
