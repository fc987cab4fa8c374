"""What happens in a video of any length, told while it runs: windows, scores, events.

A thread reads and makes windows (:mod:`peakzoom.apps.watch.source`, :mod:`peakzoom.apps.watch.windows`), the caller's
scores them in order and merges them into events (:mod:`peakzoom.apps.watch.events`). Memory does not grow with the
length.

A stored video is read no faster than it is scored. Something live goes on whether we keep up or not; the rule is
:func:`drop_late`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from peakzoom.apps.watch.events import Event, Merger
from peakzoom.apps.watch.reader import Backlog, Frames, Reader, Timed
from peakzoom.apps.watch.records import Dropped, Ended, Record, Started, Window
from peakzoom.apps.watch.source import Break, open_source
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.inference.prediction import average
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.views import crop_offsets


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
    each :class:`peakzoom.apps.watch.events.Event` once nothing can change it.

    Args:
        recognizer: with any engine.
        source: see :class:`peakzoom.apps.watch.source.Source`; or one that is open.
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
