"""When each frame of a source was shown, and which packet it came out of: what a clip of an event is cut by.

Frames are shown in another order than their packets are stored in, where a codec has B-frames::

    packet    0 1 2 3 4 5 6 7 8      K is a key frame, with which decoding can begin
              K P B B K B B P B
    shown     0 2 3 1 5 6 4 8 7      so frames 5 and 6 come after key frame 4 in the file, and are shown before it

A clip that begins with the key frame leaves those out; one that ends at a frame has all packets that it needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

from peakzoom.apps.watch.evidence.lately import Bound, Lately
from peakzoom.apps.watch.source import LOOKAHEAD, TimedFrame
from peakzoom.video.clips import TIMESTAMP_ROUNDING
from peakzoom.video.packets import Origin

FRAMES_A_SECOND = 250  # more are not remembered for long


class Mark(NamedTuple):
    """A frame that was shown."""

    time: float  # seconds since the first frame of the source
    part: int  # frames of two parts do not follow each other
    origin: Origin | None
    came: float  # seconds since the epoch, by this machine's clock


class Wanted(NamedTuple):
    """What a clip is to show; all in seconds."""

    start: float  # of the event, since the first frame of the source
    end: float
    before: float
    after: float
    longest: float  # of the event, from its start on


@dataclass(frozen=True)
class Cut:
    """The frames of a clip.

    Attributes:
        first: number of the first one in the source, counted from 0.
        marks: of all of them, in the order in which they are shown.
        earlier: packets of frames that are shown before the first one, though stored after it.
        ends_early: the frames that follow are no longer known, or there would be too many of them.
    """

    first: int
    marks: Sequence[Mark]
    earlier: frozenset[int]
    ends_early: bool

    @property
    def start(self) -> float:
        """When the first frame is shown."""
        return self.marks[0].time

    @property
    def origin(self) -> Origin:
        """Of the first frame. ValueError where the source does not say."""
        if (origin := self.marks[0].origin) is None:
            raise ValueError("the source does not say which packet a frame came out of")
        return origin

    def came(self, time: float) -> float:
        """When the frame came that was shown at a time, in seconds since the epoch; or the first one."""
        shown = [mark.came for mark in self.marks if mark.time <= time + TIMESTAMP_ROUNDING]
        return shown[-1] if shown else self.marks[0].came

    def since(self, time: float) -> Cut:
        """The frames from a time on, at least the last one."""
        gone = sum(mark.time < time - TIMESTAMP_ROUNDING for mark in self.marks[:-1])
        return replace(self, first=self.first + gone, marks=self.marks[gone:])

    def available(self, packets: int) -> Cut:
        """The frames up to the first that needs more packets than so many, from that of the first frame on."""
        end = self.origin.number + packets
        known = list(takewhile(lambda mark: mark.origin is not None and mark.origin.number < end, self.marks))
        return replace(self, marks=known, ends_early=self.ends_early or len(known) < len(self.marks))


class Trace:
    """The frames of a source as far as events may still need them.

    Args:
        seconds: that are remembered in any case.
        longest: seconds from the beginning of an event that are remembered however long it lasts.
    """

    def __init__(self, seconds: float, longest: float) -> None:
        self._marks: Lately[Mark] = Lately(
            Bound(int(FRAMES_A_SECOND * seconds), seconds), Bound(int(FRAMES_A_SECOND * longest), longest)
        )
        self._keys: deque[tuple[float, int, int]] = deque()  # key frames: time, number of frame and packet
        self._part = 0
        self._last: deque[float] = deque([0.0], maxlen=LOOKAHEAD + 1)  # when the last frames are shown

    def add(self, frame: TimedFrame, came: float) -> None:
        """Note a frame, which came at that time by the clock."""
        self._last.append(frame.time)
        number = self._marks.add(Mark(frame.time, self._part, frame.origin, came), frame.time)
        if frame.origin is not None and frame.origin.key:
            self._keys.append((frame.time, number, frame.origin.number))

    @property
    def now(self) -> float:
        """When the last frame is shown; 0 before the first."""
        return self._last[-1]

    @property
    def settled(self) -> float:
        """Up to when so many frames have followed that the packets of a clip are known."""
        return self._last[0]

    def next_part(self) -> None:
        """The next frame does not follow the last one."""
        self._part += 1

    def let_go(self, time: float) -> int | None:
        """Only frames from the last key frame before this time on are still needed.

        Returns:
            The number of the first packet that is needed; None where that is not known.
        """
        keys = self._keys
        while len(keys) > 1 and keys[1][0] <= time:
            keys.popleft()
        if not keys:
            return None
        self._marks.keep(keys[0][1] - LOOKAHEAD)  # some before it tell which packets belong to earlier frames
        return keys[0][2]

    def cut(self, wanted: Wanted, begins: Callable[[Mark], bool] = lambda mark: True) -> Cut | None:
        """The frames of a clip; None where none of them is known any more.

        It begins with the last frame up to ``before`` seconds before the event with which it can, or the first one
        after that; ``begins`` says with which. It ends with the first frame, from ``after`` seconds after the event
        on, up to which no packet is missing. It never leaves the part of the source in which the event begins.
        """
        number, marks = self._stretch(wanted.start)
        shown = [at for at, mark in enumerate(marks) if mark.time <= wanted.start + TIMESTAMP_ROUNDING]
        part = marks[shown[-1] if shown else 0].part if marks else 0
        inside = [at for at, mark in enumerate(marks) if mark.part == part]
        until = min(wanted.end, wanted.start + wanted.longest) + wanted.after
        able = [at for at in inside if marks[at].time < until and begins(marks[at])]
        if not able:
            return None
        early = wanted.start - wanted.before + TIMESTAMP_ROUNDING
        first = max((at for at in able if marks[at].time <= early), default=able[0])
        last = max(at for at in inside if at == first or marks[at].time < until - TIMESTAMP_ROUNDING)
        earlier = frozenset(mark.origin.number for mark in marks[:first] if mark.origin is not None)
        numbers = [mark.origin and mark.origin.number for mark in marks[first : inside[-1] + 1]]
        last = first + _closed(numbers, last - first, earlier)
        missing = last == len(marks) - 1 and marks[last].time < min(self.now, until - TIMESTAMP_ROUNDING)
        longer = wanted.end > wanted.start + wanted.longest
        return Cut(number + first, marks[first : last + 1], earlier, missing or longer)

    def _stretch(self, time: float) -> tuple[int, Sequence[Mark]]:
        """What is known without a gap around a time, or else after it, and the number of its first frame."""
        stretches = self._marks.stretches()
        later = [each for each in stretches if each[1][-1].time > time - TIMESTAMP_ROUNDING]
        return (later or stretches[-1:] or [(0, [])])[0]


def _closed(numbers: Sequence[int | None], last: int, earlier: frozenset[int]) -> int:
    """Where to end: the first frame from ``last`` on, or else the last before it, that misses no packet before its own.

    Args:
        numbers: of the packets of the frames from a clip's first one on, as far as they are known.
        last: the frame with which the clip should end.
        earlier: packets of frames that were shown before the first one.
    """
    settled = max(
        (each for each in numbers[: max(len(numbers) - LOOKAHEAD, 1)] if each is not None), default=0
    )

    def whole(at: int) -> bool:
        known = {each for each in numbers[: at + 1] if each is not None}
        ahead = numbers[at + 1 : at + 1 + LOOKAHEAD]
        highest = max(known, default=-1)
        if any(each is not None and each < highest for each in ahead):
            return False
        # At the end of what is known, a frame that is still to come may be of a packet that has been read.
        return len(ahead) == LOOKAHEAD or known | earlier >= set(range(settled + 1, highest))

    ends = (*range(last, len(numbers)), *range(last - 1, -1, -1))
    return next((at for at in ends if whole(at)), last)
