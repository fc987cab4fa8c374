"""A segment of a file as a path: ``match.mp4#t=12.5,20`` is what the file shows from 12.5 to 20 seconds.

It is the temporal fragment of W3C's Media Fragments URI 1.0: a start that is left out is 0, an end that is left out
is the file's own, and times are seconds or [h:]m:s. So whatever knows a video by its path knows a segment by its own:
lists, caches, scores. Only those who open a file ask which one it is (:func:`file_of`).
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

from peakzoom.utils.errors import UserError

FRAGMENT = re.compile(r"#t=(?P<start>[\d:.]*)(?:,(?P<end>[\d:.]*))?$")
CLOCK = re.compile(r"(?:(?:(?P<h>\d+):)?(?P<m>\d{1,2}):)?(?P<s>\d+(?:\.\d*)?|\.\d+)")


class Segment(NamedTuple):
    """What a file shows from ``start`` on, before ``end``; both in seconds since its first frame."""

    file: Path
    start: float = 0.0
    end: float | None = None  # None: the file's own

    @property
    def path(self) -> Path:
        """The segment as a path."""
        return Path(
            f"{self.file}#t={time_text(self.start)}" + ("" if self.end is None else f",{time_text(self.end)}")
        )


def segment_of(path: str | Path) -> Segment | None:
    """The segment that a path names; None where it names a whole file, also one that is called like a segment.

    Raises:
        UserError: its times cannot be read, or it ends before it begins.
    """
    found = FRAGMENT.search(str(path))
    if found is None or os.path.lexists(path):
        return None
    file, start, end = Path(str(path)[: found.start()]), found["start"], found["end"]
    return checked(Segment(file, seconds(start) if start else 0.0, seconds(end) if end else None))


def file_of(path: str | Path) -> Path:
    """The file that a path is, or is a segment of; of a segment that cannot be read, the path itself."""
    try:
        segment = segment_of(path)
    except UserError:
        return Path(path)
    return Path(path) if segment is None else segment.file


def times_of(path: str | Path) -> tuple[float, float]:
    """From when to when of its file a path is about, in seconds; all of it, 0 to infinity, where it is no segment.

    Raises:
        UserError: as :func:`segment_of`.
    """
    segment = segment_of(path)
    if segment is None:
        return 0.0, math.inf
    return segment.start, math.inf if segment.end is None else segment.end


def stem_of(path: Path) -> str:
    """The name of a file without its ending, with the times of a segment: what is made of it is called so."""
    file = file_of(path)
    return file.stem + path.name.removeprefix(file.name)


def seconds(text: str) -> float:
    """A time as people write it: seconds, m:s or h:m:s; 60 or more of a part that has one above it is a mistake.

    >>> seconds("12.5"), seconds("1:02:03.25")
    (12.5, 3723.25)

    Raises:
        UserError: it is none.
    """
    found = CLOCK.fullmatch(text.strip())
    parts = found and [float(found[name] or 0) for name in "hms"]
    if found is None or parts is None or (found["m"] and parts[2] >= 60) or (found["h"] and parts[1] >= 60):
        raise UserError(f"time is {text!r}, expected seconds or h:m:s, as 12.5 or 1:02:03")
    return parts[0] * 3600 + parts[1] * 60 + parts[2]


def written_time(time: float) -> float:
    """A time rounded down to a microsecond, as lists keep it: a frame shown from ``time`` on is not left out.

    >>> written_time(2 / 3), written_time(7.4)
    (0.666666, 7.4)
    """
    rounded = round(time, 6)
    return rounded if rounded <= time else round(rounded - 1e-6, 6)


def checked(segment: Segment) -> Segment:
    """The segment itself; UserError where it ends before it begins."""
    if segment.end is not None and segment.end <= segment.start:
        raise UserError(
            f"it starts at {segment.start:g} s and ends at {segment.end:g} s, expected an end after the start"
        )
    return segment


def time_text(time: float) -> str:
    """Seconds as they stand in a path: to the microsecond, without digits that say nothing.

    >>> time_text(12.5), time_text(2 / 3)
    ('12.5', '0.666667')
    """
    return f"{time:.6f}".rstrip("0").rstrip(".")
