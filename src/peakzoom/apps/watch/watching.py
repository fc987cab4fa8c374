"""One source that is watched: a thread reads it, and what is scored of it becomes records."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from torch import Tensor

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import INPUTS, Line, Past
from peakzoom.apps.watch.reader import Backlog, Opened, Pending, Reader, Waiting
from peakzoom.apps.watch.records import (
    Break,
    Dropped,
    Ended,
    Record,
    ScoredWindow,
    SourceProblem,
    Started,
    to_line,
)
from peakzoom.apps.watch.scoring import score_window
from peakzoom.apps.watch.source import Frame, Source
from peakzoom.apps.watch.tracks import tracks
from peakzoom.apps.watch.windows import Windows
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError


class Watching:
    """Makes records of what a reader's thread puts into the ``backlog``.

    Args:
        recognizer: with any engine.
        opened: opens the source, in the thread; it is given what takes problems until then.
        options: ``live`` says whether the source goes on while windows are scored.
        clock: seconds, from any origin.
        changed: shared with the other sources that are watched.
        past: what an earlier process has written of the source; that is not reported again.

    Attributes:
        opened: the source has been there.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        opened: Callable[[Callable[[SourceProblem], None]], Source],
        options: WatchOptions,
        clock: Callable[[], float],
        changed: threading.Condition,
        past: Past | None = None,
    ) -> None:
        self._recognizer, self._options, self._clock, self._past = recognizer, options, clock, past
        self.backlog = Backlog(options.lag if options.live else None, changed)
        self._reader = Reader(opened, self._windows, self.backlog, options, clock)
        self._tracks = tracks(recognizer.classes, options, recognizer.thresholds)
        self._began = clock()
        self._end, self._scored, self._early, self._dropped = 0.0, 0, 0, 0
        self.opened = False
        self._known = 0 if past is None else past.events  # events that come and are reported already
        self._lines: Iterator[Line] = iter(())  # of the past that the source gives again
        self._next: Line | None = None  # the first of them

    @property
    def seconds(self) -> float:
        """Of video, up to the end of the last window."""
        return self._end

    def start(self) -> None:
        """Start the thread."""
        self._reader.start()

    def close(self) -> None:
        """End the thread, whatever it is doing."""
        self.backlog.close()

    def handle(self, item: Waiting) -> Iterator[Record]:
        """What comes of an item of the backlog, but for what the past has reported."""
        if isinstance(item, Opened):
            yield from self._open(item)
        elif self._next is not None:
            yield from self._new(self._again(item, self._next))
            self._next = next(self._lines, None)
        elif isinstance(item, Pending):
            window = self._score(item)
            yield window
            self._count(window.end, window.early)
            yield from self._new(self._tracks.add(window.start, window.end, window.scores))
        else:
            if isinstance(item, Break):  # after the events before it
                yield from self._new(self._break())
            elif isinstance(item, Dropped):
                self._dropped += item.windows
            yield item

    def end(self, stopped: bool) -> Iterator[Record]:
        """The events that are left, and the last record. What is stopped has come as far as it was before."""
        if self._past is not None and not self.opened:
            self._lines = self._past.lines(*INPUTS)
            self._next = next(self._lines, None)
        while self._next is not None:
            if not stopped and self.opened:
                raise self._other(f"it ends before {self._next.get('start', self._next.get('time')):.3f} s")
            line = self._next
            yield from self._new(self._recorded(line, line.get("start", 0.0), line.get("end", 0.0)))
            self._next = next(self._lines, None)
        yield from self._new(self._tracks.end())
        took = self._clock() - self._began
        early = None if self._options.exit_lead is None else self._early
        yield Ended(self._end, took, self._scored, self._dropped, self._tracks.count, stopped, early)

    def _windows(self, source: Source) -> Windows[Frame, Tensor]:
        pre = self._recognizer.preprocess
        fps, options = pre.fps_for(source.rate), self._options
        return Windows(
            *(pre.frames, pre.stride, fps, source.rate, options.every, source.convert), nth=options.nth
        )

    def _open(self, item: Opened) -> Iterator[Record]:
        pre, source, windows = self._recognizer.preprocess, item.source, item.windows
        fps = pre.fps_for(source.rate)
        rate = fps or source.rate
        every = self._options.every or (windows.hop / rate if rate else None)
        started = Started(
            source=source.name,
            live=self._options.live,
            height=source.height,
            width=source.width,
            rate=source.rate,
            classes=self._recognizer.classes,
            frames=pre.frames,
            stride=pre.stride,
            fps=fps,
            window=windows.span / rate if rate else None,
            every=every and every * self._options.nth,
            began=datetime.now(timezone.utc) if source.live else None,
        )
        self.opened = True
        if self._past is None:
            yield started
        elif source.live:  # what is past does not come again
            for line in self._past.lines(*INPUTS):
                yield from self._new(self._recorded(line, line.get("start", 0.0), line.get("end", 0.0)))
        else:
            now, before = json.loads(json.dumps(to_line(started))), self._past.source
            # A file may be played at its own speed now and was not before.
            if changed := [key for key in now if key != "live" and now[key] != before.get(key)]:
                raise self._other(f"its {changed[0]} is not {before.get(changed[0])}")
            self._lines = self._past.lines(*INPUTS)
            self._next = next(self._lines, None)

    def _again(self, item: Waiting, line: Line) -> Iterator[Event]:
        """An item that is recorded comes again, so its window need not be scored; its events."""
        start, end = 0.0, 0.0
        if isinstance(item, Pending):
            start, end = item.clip.start, item.clip.end
        kinds = {Pending: ("window",), Break: ("break",), SourceProblem: ("problem",), Dropped: ("dropped",)}
        same = line["type"] in kinds[type(item)]
        if not same or (
            isinstance(item, Pending) and (line["start"], line["end"]) != (round(start, 6), round(end, 6))
        ):
            raise self._other(f"{line['type']} at {line.get('start', line.get('time')):.3f} s is not there")
        return self._recorded(line, start, end)

    def _recorded(self, line: Line, start: float, end: float) -> Iterator[Event]:
        """Count what is recorded; its events."""
        if line["type"] == "window":
            self._count(end, line.get("early"))
            return self._tracks.again(start, end, line)
        if line["type"] == "break":
            return self._break()
        self._dropped += line.get("windows", 0)
        return iter(())

    def _count(self, end: float, early: bool | None) -> None:
        """Count a window."""
        self._end, self._scored, self._early = end, self._scored + 1, self._early + bool(early)

    def _break(self) -> Iterator[Event]:
        self._tracks.forget()
        return self._tracks.end()

    def _new(self, events: Iterator[Event]) -> Iterator[Event]:
        """Events but for those that are reported already."""
        for event in events:
            if self._known:
                self._known -= 1
            else:
                yield event

    def _score(self, pending: Pending) -> ScoredWindow:
        clip = pending.clip
        found = score_window(self._recognizer, clip, self._options.crops, self._options.exit_lead)
        scores, _, confidence = found.fused
        names = self._tracks.names(scores, confidence)
        behind = None if pending.due is None else max(self._clock() - pending.due, 0.0)
        classes = self._recognizer.classes
        labels = [(name, float(scores[classes.index(name)])) for name in names]
        return ScoredWindow(
            *(clip.start, clip.end, classes, scores, next(iter(names), None), clip.covered, behind),
            confidence=confidence,
            labels=labels if self._recognizer.multi_label else None,
            early=found.early,
            original=found.original,
        )

    def _other(self, how: str) -> UserError:
        assert self._past is not None
        return UserError(
            f"{self._past.source['source']} is not what {self._past.file} was written of: {how}; "
            "watch it into a new folder"
        )
