"""What is remembered of a source until it is known whether an event needs it: when frames were shown, and packets.

Of a file no packet is remembered, because it can be read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.clip import StoredPacket, StreamFacts, Template, facts_of
from peakzoom.apps.watch.evidence.lately import Bound, Lately
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.trace import Cut, Mark, Trace, Wanted
from peakzoom.apps.watch.records import Break
from peakzoom.apps.watch.source import SourceItem, TimedFrame
from peakzoom.video.shape import displayed_shape

NEWEST_SECONDS = 120.0  # that are remembered in any case, as far as memory allows


@dataclass(frozen=True)
class Job:
    """An event that is to be recorded.

    Attributes:
        event: which.
        keyed: its frames from a key frame on; None where none is known.
        exact: its frames from just before it on; None where none is known.
        packets: all from the first one of ``keyed`` on, of what cannot be read again; empty for a file.
        facts: of the stream; None for a file, of which they are read when they are needed.
    """

    event: Event
    keyed: Cut | None
    exact: Cut | None
    packets: Sequence[StoredPacket] = ()
    facts: StreamFacts | None = None

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return sum(len(packet.data) for packet in self.packets)


class Memory:
    """Notes what a source gives, in the thread that reads it, and cuts out of it what an event needs, in another one.

    Args:
        options: how much is needed.
        gap: seconds that an event may bridge, so that later ones are known only after that.
        size: bytes of packets for each of two parts: what came last, and the beginning of an event that goes on.
    """

    def __init__(self, options: EvidenceOptions, gap: float, size: int) -> None:
        self._options = options
        longest = options.clip_before + options.clip_longest + options.clip_after
        self._trace = Trace(NEWEST_SECONDS + gap + options.clip_after, longest)
        self._packets: Lately[StoredPacket] = Lately(Bound(size, NEWEST_SECONDS), Bound(size, longest))
        self._stream: VideoStream | None = None  # that is read now, where it cannot be read again
        self._template: Template | None = None
        self._facts: StreamFacts | None = None
        self._lock = threading.Lock()

    def number(self, packet: Packet[VideoStream]) -> int:
        """Remember a packet of what cannot be read again."""
        with self._lock:
            if packet.stream is not self._stream or self._template is None:
                self._stream, self._facts = packet.stream, None
                self._template = Template(packet.stream)
            kept = StoredPacket(bytes(packet), packet.is_keyframe, self._template)
            return self._packets.add(kept, self._trace.now, len(kept.data))

    def noted(self, items: Iterator[SourceItem]) -> Iterator[SourceItem]:
        """The same items; when frames are shown and came is remembered."""
        for item in items:
            with self._lock:
                if isinstance(item, TimedFrame):
                    self._trace.add(item, time.time())
                    self._learn(item)
                elif isinstance(item, Break):
                    self._trace.next_part()
            yield item

    def _learn(self, frame: TimedFrame) -> None:
        """What the stream is, by its first frame."""
        if self._facts is None and self._stream is not None and isinstance(frame.frame, av.VideoFrame):
            container = self._stream.container
            assert isinstance(container, InputContainer)
            shape, _ = displayed_shape(container, self._stream, frame.frame)
            self._facts = facts_of(self._stream, shape)

    @property
    def settled(self) -> float:
        """Up to when it is known what a clip needs, in seconds since the first frame."""
        with self._lock:
            return self._trace.settled

    def let_go(self, time: float) -> None:
        """No event that is still to come begins before this time."""
        with self._lock:
            number = self._trace.let_go(time - self._options.clip_before)
            if number is not None and self._template is not None:
                self._packets.keep(number)

    def job(self, event: Event) -> Job:
        """An event, and what is remembered of it."""
        options = self._options
        wanted = Wanted(event.start, event.end, options.clip_before, options.clip_after, options.clip_longest)
        with self._lock:
            exact = self._trace.cut(wanted)
            if self._template is None:
                return Job(event, self._trace.cut(wanted, _is_key), exact)
            stretches = self._packets.stretches()
            keyed = self._trace.cut(wanted, lambda mark: _is_key(mark) and _reaches(stretches, mark, exact))
            if keyed is None:
                return Job(event, None, exact, facts=self._facts)
            packets = _from(stretches, keyed.marks[0])
            keyed = keyed.available(len(packets))
            highest = max(mark.origin.number for mark in keyed.marks if mark.origin is not None)
            return Job(event, keyed, exact, packets[: highest - keyed.origin.number + 1], self._facts)


def _is_key(mark: Mark) -> bool:
    return mark.origin is not None and mark.origin.key


def _reaches(stretches: Sequence[tuple[int, Sequence[StoredPacket]]], mark: Mark, exact: Cut | None) -> bool:
    """Whether there are packets from a key frame to the moment from which on frames are wanted, or it comes later."""
    assert mark.origin is not None
    wanted = exact.marks[0] if exact else mark
    last = mark.origin.number
    if wanted.origin is not None and wanted.time > mark.time:
        last = max(wanted.origin.number, last)
    return len(_from(stretches, mark)) > last - mark.origin.number


def _from(stretches: Sequence[tuple[int, Sequence[StoredPacket]]], mark: Mark) -> Sequence[StoredPacket]:
    """The packets from that of a frame on, as far as there is none missing and they are of one stream."""
    assert mark.origin is not None
    for first, packets in stretches:
        if first <= mark.origin.number < first + len(packets):
            found = packets[mark.origin.number - first :]
            end = next((at for at, each in enumerate(found) if each.template is not found[0].template), None)
            return found[:end]
    return []
