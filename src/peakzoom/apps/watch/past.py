"""What an earlier process has written of a source, so that another one goes on: ``peakzoom watch --resume``.

Windows that are written are not scored again. A file is read again from its beginning, for time and frames of the next
window come of all before it; what the network would have to do is what is saved. A stream or a camera has gone on
meanwhile: there is a break, and time goes on by the clock.

Events come again from the windows, by the same rule, so one that was open when the process was killed is not lost, and
one that a stop has closed goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import whole_line

INPUTS = ("window", "dropped", "break", "problem")  # types of lines of which events are made
Line = dict[str, Any]  # of JSON


@dataclass(frozen=True)
class Past:
    """The lines of a source that are whole.

    Attributes:
        file: holds them.
        size: bytes up to the end of the last of :data:`INPUTS`; what is behind it comes again.
        source: the first line.
        inputs: how many lines of :data:`INPUTS`.
        events: how many events before ``size``.
        seconds: of video, up to the end of the last window.
        ended: it was watched to its end, and is not one that goes on.
    """

    file: Path
    size: int
    source: Line
    inputs: int
    events: int
    seconds: float
    ended: bool

    @property
    def began(self) -> datetime | None:
        """When second 0 of a live source was."""
        began = self.source.get("began")
        return None if began is None else datetime.fromisoformat(began)

    def lines(self, *types: str) -> Iterator[Line]:
        """The lines of these types, one after the other: a watch of weeks has more than memory should hold."""
        with self.file.open("rb") as stream:
            while stream.tell() < self.size:
                line = json.loads(stream.readline())
                if line["type"] in types:
                    yield line


def read_past(file: Path) -> Past | None:
    """What a file of JSON Lines says; None where it is not there, or the source has never been.

    A damaged line, as a power cut may leave it, and what is behind it come again.

    Raises:
        UserError: it is no file of a watch.
    """
    if not file.exists():
        return None
    source: Line | None = None
    size = place = inputs = events = seen = 0
    seconds, ended = 0.0, False
    with file.open("rb") as stream:
        for number, raw in enumerate(stream):
            line, place = _line(raw), place + len(raw)
            if line is None and number == 0 and raw.endswith(b"\n"):
                raise UserError(
                    f"{file} is not what 'peakzoom watch --out' writes: name a new folder with --out"
                )
            if line is None:
                break
            kind = line["type"]
            ended = kind == "end" and not line["stopped"]
            seen += kind == "event"
            if kind == "source":
                source = line
            elif kind in INPUTS:
                inputs += 1
                seconds = max(seconds, float(line.get("end") or line.get("time") or 0.0))
            if kind == "source" or kind in INPUTS:
                size, events = place, seen
    if source is None:
        return None
    return Past(file, size, source, inputs, events, seconds, ended and "began" not in source)


def _line(raw: bytes) -> Line | None:
    """A line of a watch; None where it is damaged."""
    line = whole_line(raw)
    return line if line is not None and isinstance(line.get("type"), str) else None
