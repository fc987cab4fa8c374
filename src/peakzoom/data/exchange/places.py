"""The boxes of a tool's file as places, for ``peakzoom evaluate --places``: the ellipses that touch their sides.

Between two boxes of a track a frame's box is where the line between them leads, as the tools show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from peakzoom.data.entries import Place, Places, Problem
from peakzoom.data.exchange.clock import Clock, look_at
from peakzoom.data.exchange.project import Box, ProjectVideo, Span
from peakzoom.data.exchange.reading import found_videos, frames_of, parse
from peakzoom.data.layouts.files import folder_at
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment

PART = "box"


def project_places(path: Path, tool: str, root: Path | None = None) -> tuple[Places, list[Problem]]:
    """Where the boxes are in the frames of what is labelled, by the paths that its labels have as a data set.

    The second of the result are the videos with boxes that cannot be found or read.

    Args:
        path: the file, or a folder of CVAT's.
        tool: whose it is.
        root: folder of the videos; None: the file's own.

    Raises:
        UserError: it cannot be read, or has no box in a labelled frame of a video that is there.
    """
    root = (path if path.is_dir() else path.parent) if root is None else folder_at(root)
    project = parse(path, tool)
    project.videos = [video for video in project.videos if video.boxed]
    videos, problems = found_videos(project, root)
    clocks = look_at([file for _, file, clock in videos if clock is None])
    places: dict[Path, dict[int, list[Place]]] = {}
    for video, file, known in videos:
        clock = known or clocks[file]
        if not isinstance(clock, Clock):
            problems.append(Problem(str(file), clock.reason))
            continue
        shown: dict[int, list[Place]] = defaultdict(list)
        for span in video.boxed:
            for frame, box in _boxes(span, video, clock):
                if place := _place(box, video, clock):
                    shown[frame].append(place)
        for span in filter(lambda span: span.label, video.spans):
            first, after = frames_of(span, video, clock)
            frames = range(first, min(after, len(clock.times)))
            inside = {frame - first: shown[frame] for frame in frames if frame in shown}
            if inside:
                start, end = clock.seconds(first, min(after, len(clock.times)))
                if video.unit == "seconds":
                    start, end = span.start, span.end
                segment = Segment(file, start, end)
                places[file if start == 0 and end is None else segment.path] = inside
    if not places:
        raise UserError(f"{path} has no box in a labelled frame of the videos below {root}")
    return places, problems


def _boxes(span: Span, video: ProjectVideo, clock: Clock) -> Iterator[tuple[int, Box]]:
    """Each frame of a track, and its box."""
    if video.unit == "seconds":  # VIA: one frame, that on display
        for box in span.boxes:
            yield max(0, int(np.searchsorted(clock.times, box.at, side="right")) - 1), box
        return
    ends = [frames_of(replace(span, start=box.at, end=None), video, clock)[0] for box in span.boxes]
    after = min(frames_of(span, video, clock)[1], len(clock.times))
    for (frame, box), (following, other) in pairwise(zip(ends, span.boxes, strict=True)):
        for number in range(frame, min(following, after)):
            share = (number - frame) / (following - frame)
            yield number, Box(*(a + share * (b - a) for a, b in zip(box[:5], other[:5], strict=True)))
    for number in range(ends[-1], after):
        yield number, span.boxes[-1]


def _place(box: Box, video: ProjectVideo, clock: Clock) -> Place | None:
    """The ellipse in a box, in displayed pixels, (0, 0) the middle of the first; None for a box around the frame."""
    width, height = video.size or (clock.width, clock.height)
    across, down = clock.width / width, clock.height / height
    left, right = max(box.left * across, 0.0), min(box.right * across, clock.width)
    top, bottom = max(box.top * down, 0.0), min(box.bottom * down, clock.height)
    whole = right - left > clock.width - 1 and bottom - top > clock.height - 1
    if whole or right <= left or bottom <= top:
        return None
    x, y = (left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5
    return Place(PART, x, y, (right - left) / 2, (bottom - top) / 2)
