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

import numpy as np
import torch
from torch import Tensor

from peakzoom.apps.watch.events import Merger, Namer
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.reader import Backlog, Pending, Reader
from peakzoom.apps.watch.records import Break, Dropped, Ended, Record, ScoredWindow, Started
from peakzoom.apps.watch.source import Frame, Source, open_source
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.inference.prediction import average
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.views import crop_offsets


def watch(
    recognizer: Recognizer,
    source: str | Path | Source,
    options: WatchOptions | None = None,
    *,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
    """Slide windows over a video, and yield each record as soon as it is known.

    The first record is :class:`Started`, the last one :class:`Ended`. A :class:`ScoredWindow` comes once it is scored,
    an event once nothing that follows can change it.

    Args:
        recognizer: with any engine.
        source: what :func:`peakzoom.apps.watch.source.open_source` takes, or what it gives.
        options: None for the defaults of :class:`WatchOptions`.
        stop: once it is set, the window being scored is the last.
        clock: seconds, from any origin.

    Raises:
        UserError: a class to ignore is unknown, or the scores are calibrated for other views than a window's; at once,
            before anything is read.
        DecodeError: the source cannot be opened or gives no frame; at once. While it runs: a file hangs or crashes
            the decoder.
    """
    options = options or WatchOptions()
    if unknown := [name for name in options.ignore or () if name not in recognizer.classes]:
        known = ", ".join(recognizer.classes[:8]) + (" ..." if len(recognizer.classes) > 8 else "")
        raise UserError(
            f"{unknown[0]!r} is to be ignored but is no class of this model: expected some of {known}"
        )
    if recognizer.temperature is not None:
        recognizer.temperature.check_window(options.crops)
    if isinstance(source, str | Path):
        source = open_source(source, recognizer.preprocess.test_size)
    return _records(recognizer, source, options, stop or threading.Event(), clock)


def _records(
    recognizer: Recognizer,
    source: Source,
    options: WatchOptions,
    stop: threading.Event,
    clock: Callable[[], float],
) -> Iterator[Record]:
    pre, live = recognizer.preprocess, options.live or source.live
    fps = pre.fps_for(source.rate)
    windows: Windows[Frame, Tensor] = Windows(
        pre.frames, pre.stride, fps, source.rate, options.every, source.convert
    )
    backlog = Backlog(options.lag if live else None)
    reader = Reader(source, windows, backlog, options, clock)
    merger, begun = Merger(options.gap, options.shortest), clock()
    namer = Namer(recognizer.classes, options.threshold, options.keep, options.ignore or ())
    end, scored, dropped = 0.0, 0, 0
    rate = fps or source.rate
    yield Started(
        source=source.name,
        live=live,
        height=source.height,
        width=source.width,
        rate=source.rate,
        classes=recognizer.classes,
        frames=pre.frames,
        stride=pre.stride,
        fps=fps,
        window=windows.span / rate if rate else None,
        every=options.every or (windows.hop / rate if rate else None),
    )
    try:
        reader.start()
        while (item := backlog.take(stop)) is not None:
            if isinstance(item, Pending):
                window = _score(recognizer, item, namer, options.crops, clock)
                end, scored = window.end, scored + 1
                yield window
                yield from merger.add(window.start, window.end, window.name, float(window.scores.max()))
                continue
            if isinstance(item, Break):
                namer.forget()
                yield from merger.end()
            elif isinstance(item, Dropped):
                dropped += item.windows
            yield item
        yield from merger.end()
    finally:
        backlog.close()
    yield Ended(end, clock() - begun, scored, dropped, merger.count, stop.is_set())


def _score(
    recognizer: Recognizer, pending: Pending, namer: Namer, crops: int, clock: Callable[[], float]
) -> ScoredWindow:
    clip, scores = pending.clip, score_clip(recognizer, pending.clip, crops)
    name = namer.name(scores)
    behind = None if pending.due is None else max(clock() - pending.due, 0.0)
    return ScoredWindow(clip.start, clip.end, recognizer.classes, scores, name, clip.covered, behind)


def score_clip(recognizer: Recognizer, clip: Clip[Tensor], crops: int = 1) -> np.ndarray:
    """Fused softmax scores of a window, float64 (S,): the mean over its crops, as :meth:`Recognizer.score` computes it.

    The clip's T frames are uint8 (H, W, 3), of the preprocessing's test size.
    """
    frames = torch.stack(clip.frames).permute(0, 3, 1, 2)
    side = recognizer.preprocess.source_size
    corners = crop_offsets(frames.shape[2], frames.shape[3], side, crops)
    views = torch.stack([frames[:, :, top : top + side, left : left + side] for top, left in corners])
    return recognizer.tempered(average(recognizer.engine(views)["fused"].softmax(1).numpy()))
