"""When each frame of a file is shown, by its own timestamps: frame numbers become seconds, and seconds frame numbers.

A tool that counts frames says which frames are meant. What a file's frames are is decoded, never taken from its header.
The rule, which keeps the frames whatever is written and read how often:

* the first frame's time is the start, rounded down to a microsecond, and nothing where it is the file's first;
* the time of the frame after the last is the end, rounded so too, and nothing where the file ends there.

A time between two frames thus becomes that of the frame after it: the same frames begin there
(:mod:`peakzoom.utils.segments`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peakzoom.utils.errors import DecodeError
from peakzoom.utils.processors import processors
from peakzoom.utils.segments import written_time
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import scan

OFF = 0.25  # of a frame by which an even rate may be missed: files that keep whole milliseconds do
FASTEST = 1000.0  # frames a second of a player's clock


@dataclass(frozen=True)
class Clock:
    """The frames of a file in time.

    Attributes:
        times: when each is shown, float64 (N,), seconds since the first.
        fps: frames a second, by the timestamps; 0 unknown.
        width, height: of the frame as displayed, in pixels.
    """

    times: np.ndarray
    fps: float
    width: int
    height: int

    @property
    def duration(self) -> float:
        """Seconds, to the microsecond."""
        return round(len(self.times) / self.fps, 6) if self.fps else 0.0

    @property
    def even(self) -> bool:
        """Each frame is shown when its number says, but for a quarter of a frame."""
        return bool(np.abs(self.times * self.fps - np.arange(len(self.times))).max() < OFF)

    @property
    def player_rate(self) -> float:
        """Frames a second of a clock at which no two frames of the file fall together: its own where it is even."""
        if self.even and self.fps:
            return round(self.fps, 6)
        steps = np.diff(self.times)
        steps = steps[steps > 0]
        return min(FASTEST, math.ceil(1 / steps.min())) if len(steps) else self.fps or 1.0

    def frames(self, start: float, end: float | None) -> tuple[int, int]:
        """The first frame that is shown from ``start`` on and before ``end``, and the one after the last."""
        first, after = np.searchsorted(self.times, [start, math.inf if end is None else end])
        return int(first), int(after)

    def ticks(self, first: int, after: int, rate: float) -> tuple[int, int]:
        """The same of some frames by a player's clock, whose frame n, from 0, is shown from n / ``rate`` on."""
        shown = self.times[[first, after - 1]] * rate + OFF
        return int(shown[0]), int(shown[1]) + 1

    def ticked(self, start: float, end: float | None, rate: float) -> tuple[int, int]:
        """The frames that :meth:`ticks` is of."""
        return self.frames((start - OFF) / rate, None if end is None else (end - OFF) / rate)

    def seconds(self, first: int, after: int) -> tuple[float, float | None]:
        """From when to when frames are shown, by the rule above; ``end`` is None where the file ends."""
        begin = written_time(float(self.times[first])) if first else 0.0
        return begin, written_time(float(self.times[after])) if after < len(self.times) else None


def look(path: Path) -> Clock:
    """Decode a file and note when its frames are shown."""
    scanned = scan(path)
    info = scanned.info
    return Clock(scanned.timestamps, info.fps, info.width, info.height)


def look_at(files: list[Path]) -> dict[Path, Clock | DecodeError]:
    """The clock of each file, or why it has none; on all cores."""
    return each_file(look, files, processors())
