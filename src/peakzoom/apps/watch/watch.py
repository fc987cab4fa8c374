"""What happens in videos of any length, reported while they run: windows, their scores, and events.

A thread reads each source and cuts windows from it (:mod:`peakzoom.apps.watch.source`,
:mod:`peakzoom.apps.watch.windows`); the caller's thread scores them in order, a window of each source in turn, and
merges them into events (:mod:`peakzoom.apps.watch.events`). Memory does not grow with the length.

A stored video is read no faster than it is scored. A live source goes on meanwhile, and windows that fall behind are
dropped (:func:`peakzoom.apps.watch.reader.drop_late`). One that drops out is asked for again where that is wanted
(:mod:`peakzoom.apps.watch.lasting`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Protocol

from av.packet import Packet
from av.video.stream import VideoStream

from peakzoom.apps.watch.lasting import Lasting, moved
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import Past
from peakzoom.apps.watch.reader import next_turn
from peakzoom.apps.watch.records import Record, SourceProblem
from peakzoom.apps.watch.scoring import expect_exit
from peakzoom.apps.watch.source import SizeOf, Source, is_elsewhere, is_live, open_here, open_source
from peakzoom.apps.watch.watching import Watching
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.packets import Number


class Recording(Protocol):
    """Keeps what evidence may need of a source, in the thread that reads it."""

    def number(self, packet: Packet[VideoStream]) -> int:
        """As :func:`peakzoom.apps.watch.source.open_source` takes it."""
        ...

    def begin(self, source: str | Path, opened: Source) -> Source:
        """The open source, whose items are noted. What this raises ends the watch, and the source is closed."""
        ...


@dataclass(frozen=True)
class _One:
    """One of the sources."""

    source: str | Path | Source
    past: Past | None
    recording: Recording | None
    opened: Source | None = None

    @property
    def number(self) -> Number | None:
        """What packets are told to."""
        return None if self.recording is None else self.recording.number


def watch(
    recognizer: Recognizer,
    source: str | Path | Source,
    options: WatchOptions | None = None,
    *,
    past: Past | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
    recording: Recording | None = None,
) -> Iterator[Record]:
    """Slide windows over a video, and yield each record as soon as it is known.

    The first record is :class:`~peakzoom.apps.watch.records.Started`, the last one
    :class:`~peakzoom.apps.watch.records.Ended`, also where a file hangs or crashes the decoder, which is a
    :class:`~peakzoom.apps.watch.records.SourceProblem` before it. A
    :class:`~peakzoom.apps.watch.records.ScoredWindow` comes once it is
    scored, an event once nothing that follows can change it.

    Args:
        recognizer: with any engine.
        source: what :func:`peakzoom.apps.watch.source.open_source` takes, or what it gives.
        options: None for the defaults of :class:`WatchOptions`.
        past: what an earlier process has written of the source with the same options; no record of it, nor
            :class:`~peakzoom.apps.watch.records.Started`, comes again.
        stop: once it is set, the window being scored is the last.
        clock: seconds, from any origin.
        recording: keeps what evidence needs of a source that is given by its name.

    Raises:
        UserError: a class to ignore is unknown, what is calibrated is for other views than a window's, or the model
            cannot exit early; at once, before anything is read. While it runs: the file is not the one of the ``past``.
        DecodeError: the source cannot be opened or gives no frame; at once, unless it is to be tried again.
    """
    options = options or WatchOptions()
    check(recognizer, [source], options)
    one = _One(source, past, recording)
    if isinstance(source, str | Path) and not (options.reconnect and is_elsewhere(source)):
        one = replace(one, opened=open_source(source, recognizer.preprocess.test_size, one.number))
    return _alone(_turns(recognizer, [one], options, stop or threading.Event(), clock, alone=True))


def watch_all(
    recognizer: Recognizer,
    sources: Sequence[str | Path | Source],
    options: WatchOptions | None = None,
    *,
    pasts: Sequence[Past | None] | None = None,
    recordings: Sequence[Recording | None] | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Record]]:
    """:func:`watch` several sources with one model, a window of each in turn; records come with the source's place.

    A source that cannot be opened has a :class:`~peakzoom.apps.watch.records.SourceProblem` for it and ends; the others
    go on. While no source has anything, the next record may be long in coming: ``idle`` is called again and again.

    Raises:
        UserError: as :func:`watch`.
    """
    options = options or WatchOptions()
    check(recognizer, sources, options)
    nothing = [None] * len(sources)
    ones = map(_One, sources, pasts or nothing, recordings or nothing)
    return _turns(recognizer, list(ones), options, stop or threading.Event(), clock, idle)


def check(recognizer: Recognizer, sources: Sequence[str | Path | Source], options: WatchOptions) -> None:
    """Refuse what is known to be wrong before anything is opened or written.

    Raises:
        UserError: a class to ignore is unknown, the scores are calibrated for other views than a window's, the model
            cannot exit early, or a source is at an address of a protocol that is not supported.
    """
    if unknown := [name for name in options.ignore or () if name not in recognizer.classes]:
        known = ", ".join(recognizer.classes[:8]) + (" ..." if len(recognizer.classes) > 8 else "")
        raise UserError(
            f"{unknown[0]!r} is to be ignored but is no class of this model: expected some of {known}"
        )
    for fitted in (recognizer.temperature, recognizer.rejection):
        if fitted is not None:
            fitted.check_window(options.crops)
    if options.exit_lead is not None:
        expect_exit(recognizer)
    for source in sources:
        _is_live(source)


def _is_live(source: str | Path | Source) -> bool:
    return is_live(source) if isinstance(source, str | Path) else source.live


def _alone(turns: Iterator[tuple[int, Record]]) -> Iterator[Record]:
    with closing(turns):  # type: ignore[type-var]  # it is a generator
        for _, record in turns:
            yield record


def _turns(
    recognizer: Recognizer,
    ones: Sequence[_One],
    options: WatchOptions,
    stop: threading.Event,
    clock: Callable[[], float],
    idle: Callable[[], None] = lambda: None,
    alone: bool = False,
) -> Iterator[tuple[int, Record]]:
    """Records of the sources in turn. One that is ``alone`` and cannot be opened raises that error."""
    changed, left, size = threading.Condition(), threading.Event(), recognizer.preprocess.test_size

    def is_over() -> bool:
        return stop.is_set() or left.is_set()

    watched: list[Watching] = []
    for one in ones:
        live = options.live or _is_live(one.source)
        opened = partial(_open, one, size, options, is_over, clock)
        watched.append(Watching(recognizer, opened, replace(options, live=live), clock, changed, one.past))
    running, last = list(range(len(watched))), -1
    try:
        for each in watched:
            each.start()
        while running:
            turn = next_turn([watched[place].backlog for place in running], last, stop, idle)
            if turn is None:
                break
            place, last = running[turn], turn
            try:
                item = watched[place].backlog.take()
                if item is not None:
                    yield from ((place, record) for record in watched[place].handle(item))
                    continue
            except DecodeError as error:
                if alone and not watched[place].opened:
                    raise
                yield place, SourceProblem(watched[place].seconds, error.reason, lost=True)
            yield from ((place, record) for record in watched[place].end(stopped=False))
            running.remove(place)
            last = turn - 1
        for place in running:
            yield from ((place, record) for record in watched[place].end(stopped=True))
    finally:
        left.set()
        for each in watched:
            each.close()


def _open(
    one: _One,
    size: SizeOf,
    options: WatchOptions,
    is_over: Callable[[], bool],
    clock: Callable[[], float],
    tell: Callable[[SourceProblem], None],
) -> Source:
    """Open a source, in its reader's thread; ``tell`` takes what is wrong before it is there."""
    source, past, patience = one.source, one.past, options.reconnect
    seconds = 0.0 if past is None else past.seconds
    if one.opened is not None:
        opened = one.opened
    elif not isinstance(source, str | Path):
        opened = source
    elif not patience or not is_elsewhere(source):
        opened = open_source(source, size, one.number)
    elif is_live(source) or options.live:
        late = partial(replace, time=seconds)
        lasting = Lasting(
            str(source), size, patience, is_over, lambda problem: tell(late(problem)), clock, one.number
        )
        opened = lasting.open()
    else:  # a file elsewhere, of which each byte can be asked for again
        opened = open_here(source, size, one.number, patience)
    if past is not None and opened.live:
        assert past.began is not None  # the same source was live
        now = max((datetime.now(timezone.utc) - past.began).total_seconds(), seconds)
        opened = moved(opened, now, f"nobody watched for {now - seconds:.3f} s")
    if one.recording is None or not isinstance(source, str | Path):
        return opened
    return one.recording.begin(source, opened)
