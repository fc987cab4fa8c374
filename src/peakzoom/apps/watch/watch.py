"""What happens in a video of any length, reported while it runs: windows, their scores, and events.

A thread reads the source and cuts windows from it (:mod:`peakzoom.apps.watch.source`,
:mod:`peakzoom.apps.watch.windows`); the caller's thread scores them in order and merges them into events
(:mod:`peakzoom.apps.watch.events`). Memory does not grow with the length.

A stored video is read no faster than it is scored. A live source goes on meanwhile, and windows that fall behind are
dropped (:func:`peakzoom.apps.watch.reader.drop_late`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from peakzoom.apps.watch.events import Event, Merger
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.reader import Backlog, FrameSource, Pending, Reader
from peakzoom.apps.watch.records import Break, Dropped, Ended, Record, ScoredWindow, Started
from peakzoom.apps.watch.source import open_source
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.inference.prediction import average
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.views import crop_offsets


def watch(
    recognizer: Recognizer,
    source: str | Path | FrameSource,
    options: WatchOptions | None = None,
    *,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
    """Slide windows over a video, and yield each record as soon as it is known.

    The first record is :class:`Started`, the last one :class:`Ended`. A :class:`ScoredWindow` comes once it is scored,
    an :class:`Event` once nothing that follows can change it.

    Args:
        recognizer: with any engine.
        source: what :class:`peakzoom.apps.watch.source.Source` takes, or an open source.
        options: None for the defaults of :class:`WatchOptions`.
        stop: once it is set, the window being scored is the last.
        clock: seconds, from any origin.

    Raises:
        UserError: a class to ignore is unknown; at once, before anything is read.
        DecodeError: the source cannot be opened or gives no frame; at once. While it runs: a file hangs or crashes
            the decoder.
    """
    options = options or WatchOptions()
    if unknown := [name for name in options.ignore if name not in recognizer.classes]:
        known = ", ".join(recognizer.classes[:8]) + (" ..." if len(recognizer.classes) > 8 else "")
        raise UserError(
            f"{unknown[0]!r} is to be ignored but is no class of this model: expected some of {known}"
        )
    if isinstance(source, str | Path):
        source = open_source(source, recognizer.preprocess.test_size)
    return _records(recognizer, source, options, stop or threading.Event(), clock)


def _records(
    recognizer: Recognizer,
    frames: FrameSource,
    options: WatchOptions,
    stop: threading.Event,
    clock: Callable[[], float],
) -> Iterator[Record]:
    """The records of an open source."""
    pre, live = recognizer.preprocess, options.live or frames.live
    size = pre.test_size(frames.height, frames.width)
    windows: Windows[av.VideoFrame | Tensor, Tensor] = Windows(
        pre.frames, pre.stride, pre.fps, frames.rate, options.every, lambda frame: frames.convert(frame, size)
    )
    backlog = Backlog(options.lag if live else None)
    paced = options.live and not frames.live
    reader = Reader(frames, windows, backlog, clock, paced=paced, live=live, seconds=options.seconds)
    merger, begun = Merger(options.gap), clock()
    end, scored, dropped, events = 0.0, 0, 0, 0
    yield _started(recognizer, frames, options, windows.span, windows.hop)
    try:
        reader.start()
        while (item := backlog.take(stop)) is not None:
            finished: Iterator[Event] = iter(())
            if isinstance(item, Pending):
                window = _score(recognizer, item, options, clock)
                yield window
                end, scored = window.end, scored + 1
                finished = merger.add(window.start, window.end, window.name, float(window.scores.max()))
            elif isinstance(item, Break):
                finished = merger.end()
            elif isinstance(item, Dropped):
                dropped += item.windows
            for event in finished:
                events += 1
                yield event
            if not isinstance(item, Pending):
                yield item
        for event in merger.end():
            events += 1
            yield event
    finally:
        backlog.close()
    yield Ended(end, clock() - begun, scored, dropped, events, stop.is_set())


def _started(
    recognizer: Recognizer, frames: FrameSource, options: WatchOptions, span: int, hop: int
) -> Started:
    """The first record; span of a window and steps between windows in base frames."""
    pre = recognizer.preprocess
    rate = pre.fps or frames.rate
    return Started(
        source=frames.name,
        live=options.live or frames.live,
        height=frames.height,
        width=frames.width,
        rate=frames.rate,
        classes=recognizer.classes,
        frames=pre.frames,
        stride=pre.stride,
        fps=pre.fps,
        window=span / rate if rate else None,
        every=options.every or (hop / rate if rate else None),
    )


def _score(
    recognizer: Recognizer, pending: Pending, options: WatchOptions, clock: Callable[[], float]
) -> ScoredWindow:
    clip, scores = pending.clip, score_clip(recognizer, pending.clip, options.crops)
    best = int(scores.argmax())
    name: str | None = recognizer.classes[best]
    if scores[best] < options.threshold or name in options.ignore:
        name = None
    behind = None if pending.due is None else max(clock() - pending.due, 0.0)
    return ScoredWindow(clip.start, clip.end, recognizer.classes, scores, name, clip.covered, behind)


def score_clip(recognizer: Recognizer, clip: Clip[Tensor], crops: int = 1) -> np.ndarray:
    """Fused softmax scores of a window, float64 (S,): the mean over its crops, as :meth:`Recognizer.score` computes it.

    Args:
        recognizer: with any engine.
        clip: of T frames, uint8 (H, W, 3), of the preprocessing's test size.
        crops: as in a test.
    """
    frames = torch.stack(clip.frames).permute(0, 3, 1, 2)
    side = recognizer.preprocess.source_size
    corners = crop_offsets(frames.shape[2], frames.shape[3], side, crops)
    views = torch.stack([frames[:, :, top : top + side, left : left + side] for top, left in corners])
    return average(recognizer.engine(views)["fused"].softmax(1).numpy())
