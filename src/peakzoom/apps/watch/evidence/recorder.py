"""Recording evidence while a watch goes on.

::

    reader's thread     packets and frames  ->  memory.py: what may still be needed of them; waits for the queue
    caller's thread     records             ->  events, and what is remembered of each  ->  queue
    writer's thread     queue               ->  writer.py: clip, figure, JSON, checksums, page

The recorder merges windows into events by the same rule as the watch does, so that it knows which frames may still be
needed, and has the event that is on when a source is lost. Nothing that it does can end the watch: where evidence
cannot be written, recording stops with a sentence, events are counted, and the watch goes on. Nor does it hold up the
caller's thread, which watches other sources too: where a source can wait for its evidence, its reader does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from av.packet import Packet
from av.video.stream import VideoStream

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.folder import EVENT, EvidenceFolder, Session, event_key
from peakzoom.apps.watch.evidence.identity import source_facts, weights_facts
from peakzoom.apps.watch.evidence.making import Maker
from peakzoom.apps.watch.evidence.memory import Memory
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.writer import Writer
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import Past
from peakzoom.apps.watch.records import Break, Ended, Record, ScoredWindow, to_line
from peakzoom.apps.watch.source import SizeOf, Source, SourceItem, is_file, open_source
from peakzoom.apps.watch.tracks import tracks
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object

UNREAD = "stopped before the file was read up to it again"


class Recorder:
    """Records evidence of the events of one watch; a context.

    ::

        with Recorder("runs/first", recognizer, watching, EvidenceOptions(Path("evidence"))) as recorder:
            for record in watch(recognizer, source, watching, recording=recorder):
                recorder.add(record)  # waits for nothing
        # from here on everything is written

    Args:
        run: the model, as the user has named it.
        recognizer: that model.
        watching: how the source is watched.
        options: what is recorded, and where: ``evidence`` is a folder.

    Attributes:
        place: the folder.

    Raises:
        UserError: there is no network but an exported file.
    """

    def __init__(
        self, run: str, recognizer: Recognizer, watching: WatchOptions, options: EvidenceOptions
    ) -> None:
        assert options.evidence is not None
        self.place, self._options, self._watching = options.evidence, options, watching
        self._weights = weights_facts(run, recognizer)
        eager = isinstance(recognizer.engine, TorchEngine)
        self._recognizer = recognizer if eager else Recognizer.of(recognizer.model, "cpu")
        self._tracks = tracks(recognizer.classes, watching, recognizer.thresholds)
        size = int(options.clip_memory * 2**20)
        self._memory = Memory(options, watching.gap, size // 4)
        self._most_waiting = size // 2
        self._pending: deque[Event] = deque()  # whose last frames have yet to come
        self._held = ExitStack()
        self._folder: EvidenceFolder | None = None
        self._writer: Writer | None = None
        self._stored = self._waits = False
        self._catches_up = False  # a file is read again, and has yet to come to what was not watched before

    def number(self, packet: Packet[VideoStream]) -> int:
        """Remember a packet; see :func:`peakzoom.apps.watch.source.open_source`."""
        return self._memory.number(packet)

    def go_on(self, past: Past) -> None:
        """Hear what an earlier process has reported of the source, so that an event that was on goes on.

        Evidence of a file's earlier events that was not written is written now. Of a camera it cannot be.
        """
        for line in past.lines("window", "break"):
            if line["type"] == "break":
                self._tracks.forget()
                events = list(self._tracks.end())
            else:
                events = list(self._tracks.again(line["start"], line["end"], line))
            if past.began is None:
                self._pending += events
        self._catches_up = past.began is None

    def has_all(self) -> bool:
        """Whether there is evidence of every event of a file that was watched to its end, of which it has heard."""
        self._pending += self._tracks.end()
        there = set()
        for file in self.place.glob(f"*/{EVENT}"):
            with suppress(
                UserError, OSError, KeyError, TypeError, ValueError
            ):  # begun with, the folder says so
                facts = read_object(file)
                there.add(event_key(facts["class"], facts["start"], facts["end"]))
        return all(event_key(event.name, event.start, event.end) in there for event in self._pending)

    def open(self, source: str | Path, size: SizeOf) -> Source:
        """Open a source and :meth:`Recorder.begin`."""
        return self.begin(source, open_source(source, size, self.number))

    def begin(self, source: str | Path, opened: Source) -> Source:
        """Begin to record what a source gives.

        Raises:
            UserError: the folder holds something else than evidence of this source by this model, or there is no room.
            OSError: the folder cannot be written.
        """
        try:
            self._stored = is_file(source)
            self._waits = not (opened.live or self._watching.live)
            self._begin(opened.name, Path(source) if self._stored else None)
        except BaseException:
            opened.close()
            raise
        return replace(opened, items=self._memory.noted(self._as_there_is_room(opened.items)))

    def _as_there_is_room(self, items: Iterator[SourceItem]) -> Iterator[SourceItem]:
        """The same items; where the source can wait, none is read while as many events as may wait to be written."""
        assert self._writer is not None
        for item in items:
            if self._waits:
                self._writer.wait_for_room()
            yield item

    def _begin(self, name: str, file: Path | None) -> None:
        maker = Maker(self._recognizer, file, self._watching, self._options.clip_before)
        with ExitStack() as held, explain_full_disk(self.place, "watch again"):
            facts = source_facts(name, file)
            folder = held.enter_context(EvidenceFolder(self.place, facts, self._weights))
            self._writer = held.enter_context(Writer(folder, maker, self._most_waiting))
            self._held, self._folder = held.pop_all(), folder  # last: from then on records are heard

    def add(self, record: Record) -> None:
        """Hear what the watch reports. It waits for nothing; :meth:`Recorder.close` does, after the last record."""
        if self._folder is None:  # the source has not been there
            return
        if isinstance(record, ScoredWindow):
            self._pending += self._tracks.again(record.start, record.end, to_line(record, 1))
            self.session.seconds, self._catches_up = record.end, False
        elif isinstance(record, Break):
            self._tracks.forget()
            self._pending += self._tracks.end()
        elif isinstance(record, Ended):
            self.session.seconds = self.session.seconds or record.seconds  # of a file that only comes again
            self._catches_up &= record.stopped
            self._finish()
            return
        self._hand_over(whether_or_not=False)

    @property
    def has_begun(self) -> bool:
        """The source was there, and the folder is."""
        return self._folder is not None

    @property
    def session(self) -> Session:
        """What was recorded so far and what was not."""
        assert self._folder is not None
        return self._folder.session

    @property
    def last_digest(self) -> str | None:
        """The end of the chain: SHA-256 of the last event's ``event.json``."""
        assert self._folder is not None
        return self._folder.last

    @property
    def is_done(self) -> bool:
        """Everything is written, or can be no more; :meth:`Recorder.close` will not wait."""
        return self._writer is None or not self._writer.runs

    def close(self) -> None:
        """Record the event that is on, and wait until everything is written."""
        self._finish()
        self._held.close()

    def _finish(self) -> None:
        """Have the event that is on written as the last.

        Events of a file that was not read up to them again are left to the next watch: their clips would lack frames.
        """
        assert self._writer is not None
        self._pending += self._tracks.end()
        self._hand_over(whether_or_not=not self._catches_up)
        while self._pending:
            self._leave(self._pending.popleft())
        self._writer.finish()

    def _leave(self, event: Event) -> None:
        """Count an event that was not read up to again."""
        assert self._folder is not None and self._writer is not None
        if self._folder.holds(event.name, event.start, event.end):
            self.session.known += 1
        else:
            self._writer.miss(event, UNREAD)

    def _hand_over(self, whether_or_not: bool) -> None:
        """Have those events written whose last frames have come, or all of them."""
        assert self._folder is not None and self._writer is not None
        settled = self._memory.settled
        while self._pending and (
            whether_or_not or settled >= self._pending[0].end + self._options.clip_after
        ):
            event = self._pending.popleft()
            if self._stored and self._folder.holds(event.name, event.start, event.end):
                self.session.known += 1
            else:
                self._writer.put(self._memory.job(event), keep=self._waits or whether_or_not)
        starts = (event.start for event in self._pending)
        self._memory.let_go(min([self._tracks.since, *starts]))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:  # the source or the folder could not be opened
            return
        if isinstance(error, KeyboardInterrupt):
            self._held.__exit__(kind, error, trace)
        else:
            self.close()
