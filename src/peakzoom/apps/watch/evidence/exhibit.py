"""What the network saw in an event: a figure, a thumbnail, and every peak as JSON, all from the event's clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peakzoom.apps.watch.events import Event, clock_time
from peakzoom.apps.watch.evidence.folder import FIGURE, PEAKS, THUMBNAIL
from peakzoom.display.figures import INK, shortened
from peakzoom.display.fonts import with_fonts
from peakzoom.explanation.draw import draw_figure
from peakzoom.explanation.evidence import Evidence
from peakzoom.explanation.look import explain
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import write_text
from peakzoom.utils.segments import Segment
from peakzoom.video.encode import CLOCK
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import Views

MOST_SECONDS = 60.0  # of an event that are explained; a figure of more shows too little of each
MOMENTS = 6  # in the figure
ACROSS, QUALITY = 320, 85  # pixels and JPEG quality of a thumbnail
DPI = 100


@dataclass(frozen=True)
class ClipTimes:
    """A clip and when its frames are shown.

    Attributes:
        file: the clip.
        start: of its first frame, in seconds since the first frame of the source.
        ticks: of each frame since that one.
    """

    file: Path
    start: float
    ticks: Sequence[int]

    def part(self, event: Event) -> tuple[int, float, float]:
        """The number of the first frame of what is explained of an event, and from when to when, in the clip's time."""
        seconds = np.asarray(self.ticks) / CLOCK
        end = min(event.end, event.start + MOST_SECONDS) - self.start
        first = int(np.searchsorted(seconds, event.start - self.start - 0.5 / CLOCK))
        first = min(first, max(int(np.searchsorted(seconds, end)) - 1, 0), len(seconds) - 1)
        return first, float(seconds[first]), max(end, float(seconds[first]) + 1 / CLOCK)


def write_exhibit(
    recognizer: Recognizer, clip: ClipTimes, event: Event, crops: int, folder: Path
) -> dict[str, tuple[int, int]]:
    """Write figure, thumbnail and peaks of an event into a folder; returns the pictures' (width, height).

    Raises:
        DecodeError: the clip cannot be decoded.
        OSError: they cannot be written.
    """
    first, start, end = clip.part(event)
    # Half a tick earlier, so that rounding leaves out no frame.
    video = HeldVideo(Segment(clip.file, max(start - 0.5 / CLOCK, 0.0), end).path)
    views = (
        Views(clips=1, crops=crops) if recognizer.temperature is None else None
    )  # None: those it was fitted for
    with video:
        evidence = explain(recognizer, video, event.name, views, progress=False)
        _write_figure(evidence, event, folder / FIGURE)
        _write_thumbnail(evidence, folder / THUMBNAIL)
        peaks = _in_time_of_source(evidence.to_dict(), first, clip.start + start)
        peaks["file"] = clip.file.name
        write_text(folder / PEAKS, json.dumps(peaks, allow_nan=False) + "\n")
    sizes = {}
    for name in (FIGURE, THUMBNAIL):
        with Image.open(folder / name) as picture:
            sizes[name] = picture.size
    return sizes


def _in_time_of_source(found: dict[str, Any], first: int, start: float) -> dict[str, Any]:
    """Times in seconds since the source's first frame, frames counted in the clip."""
    found["times"] = [round(time + start, 4) for time in found["times"]]
    found["frames_from"] = first
    for peak in found["peaks"]:
        peak |= {"first_frame": peak["first_frame"] + first, "last_frame": peak["last_frame"] + first}
        peak |= {"start": round(peak["start"] + start, 3), "end": round(peak["end"] + start, 3)}
    return found


def _write_figure(evidence: Evidence, event: Event, file: Path) -> None:
    figure = draw_figure(evidence, MOMENTS)
    times = f"{clock_time(event.start)} to {clock_time(event.end)}"
    title = f"{shortened(event.name, 40)}  {event.score:.2f}   ·   {times}, seconds below from its start"
    figure.suptitle(title, fontsize=12, color=INK, parse_math=False)
    with_fonts(figure).savefig(file, dpi=DPI)


def _write_thumbnail(evidence: Evidence, file: Path) -> None:
    """The frame with the highest score of the event's class."""
    info = evidence.info
    best = int(evidence.scores[:, evidence.prediction.classes.index(evidence.target)].argmax())
    size = (max(round(info.height * ACROSS / info.width), 1), ACROSS)
    for _, pixels in evidence.video.frames(np.array([best]), size):
        Image.fromarray(pixels.contiguous().numpy()).save(file, "JPEG", quality=QUALITY)
