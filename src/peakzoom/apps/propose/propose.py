"""What a model finds in videos, as proposals for a person: events, boxes, and how uncertain each is.

The uncertainty of a window is one less the margin between its two best classes (margin sampling: Scheffer, Decomain and
Wrobel, Active hidden Markov models for information extraction, IDA 2001). That of an event is the mean over the windows
that overlap it, that of a video the mean over all its windows, also those without an event: what was missed teaches
too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from peakzoom.apps.propose.boxes import Moment, WindowTime, boxes_of, look_at_windows, network_of
from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.measure import Watched, events_of, watch_files
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import ScoredWindow
from peakzoom.data.entries import Problem
from peakzoom.data.exchange.clock import Clock, look
from peakzoom.data.exchange.label_studio import label_studio_task
from peakzoom.data.exchange.project import ProjectVideo, Span
from peakzoom.data.exchange.writing import relative, write_cvat, write_label_studio
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import check_new_folder, explain_full_disk, whole_folder, write_csv
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import time_text
from peakzoom.video.guard import guarded

EVENTS = "events.csv"  # in the folder that is written: a manifest with two columns more
COLUMNS = ("path", "label", "start", "end", "score", "uncertainty")


@dataclass(frozen=True)
class Proposal:
    """A predicted event, and how uncertain it is: from 0 to 1."""

    span: Span
    uncertainty: float


@dataclass(frozen=True)
class Proposed:
    """What was found in a video.

    Attributes:
        file: the video.
        clock: of its frames.
        events: in the order of time.
        uncertainty: of all its windows, from 0 to 1.
        problems: of the video, although it gives frames.
    """

    file: Path
    clock: Clock
    events: list[Proposal]
    uncertainty: float
    problems: list[Problem]


def uncertainty(scores: np.ndarray) -> float:
    """One less the margin between the two best of S >= 2 scores that sum to 1.

    >>> uncertainty(np.array([0.5, 0.3, 0.2]))
    0.8
    """
    second, best = np.sort(scores)[-2:]
    return float(1 - (best - second))


def propose(
    recognizer: Recognizer,
    files: Sequence[Path],
    options: WatchOptions | None = None,
    boxes: bool = True,
    progress: Callable[[int, int], None] | None = None,
    known: Sequence[Proposed | Problem] = (),
    note: Callable[[Proposed | Problem], None] | None = None,
) -> tuple[list[Proposed], list[Problem]]:
    """Watch each file, and look at each event for where it is.

    Args:
        recognizer: on PyTorch where boxes are wanted.
        files: videos.
        options: what makes windows and events; None for the defaults.
        boxes: around the peaks of the class's response.
        progress: called with (done, all) files.
        known: what was found in the first files already; they are not looked at again.
        note: called with what is found in each other file.

    Returns:
        What was found, in the order of the files, and the files that cannot be decoded.

    Raises:
        UserError: as :func:`peakzoom.apps.watch.watch.watch`; boxes are wanted of an exported file.
    """
    options = options or WatchOptions()
    if boxes:
        network_of(recognizer)  # refuses before the work
    results = list(known)
    for done, file in enumerate(files[len(known) :], len(known) + 1):
        try:
            results.append(_propose(recognizer, file, options, boxes))
        except DecodeError as error:
            results.append(Problem(str(file), error.reason))
        if note:
            note(results[-1])
        if progress:
            progress(done, len(files))
    return (
        [each for each in results if isinstance(each, Proposed)],
        [each for each in results if isinstance(each, Problem)],
    )


def _propose(recognizer: Recognizer, file: Path, options: WatchOptions, boxes: bool) -> Proposed:
    watched = watch_files(recognizer, [file], options)[file]
    clock = guarded(file, look, file)
    events = [(event, _windows_of(watched, event)) for event in events_of(watched, options)]
    moments: Mapping[WindowTime, list[Moment]] = {}
    if boxes and events:
        wanted = {
            (window.start, window.end): event.name
            for event, over in events
            for window in over
            if window.name == event.name
        }
        moments = look_at_windows(recognizer, file, options, wanted)
    found = []
    for event, over in events:
        first, after = clock.frames(event.start, event.end)
        if first < after:
            inside = [each for window in over for each in moments.get((window.start, window.end), ())]
            where = boxes_of(inside, clock, first, after)
            span = Span(event.name, *clock.seconds(first, after), score=event.score, boxes=where)
            found.append(Proposal(span, _mean_uncertainty(over)))
    return Proposed(file, clock, found, _mean_uncertainty(watched.windows), watched.problems)


def _windows_of(watched: Watched, event: Event) -> list[ScoredWindow]:
    """Those that overlap an event."""
    return [each for each in watched.windows if each.start < event.end and event.start < each.end]


def _mean_uncertainty(windows: Sequence[ScoredWindow]) -> float:
    return float(np.mean([uncertainty(each.scores) for each in windows])) if windows else 0.0


def uncertain_first(found: Sequence[Proposed]) -> list[Proposed]:
    """The same, the least certain video first, and in each the least certain event."""
    return [
        replace(each, events=sorted(each.events, key=lambda event: -event.uncertainty))
        for each in sorted(found, key=lambda each: -each.uncertainty)
    ]


def write_proposals(
    found: Sequence[Proposed], classes: Sequence[str], root: Path, tool: str, out: Path, version: str
) -> Path:
    """Write proposals, in their order, into a new folder, and beside them ``events.csv``.

    Args:
        found: of videos below ``root``.
        classes: those that a person may choose from.
        root: folder that the paths of the videos start from.
        tool: "cvat" or "label-studio".
        out: new or empty folder, which is returned.
        version: of the model, as Label Studio shows it.

    Raises:
        UserError: the folder is not empty, a video is not below the root, nothing was found, a name cannot be written,
            or the disk is full.
    """
    check_new_folder(out)
    if not found:
        raise UserError("no video gives a frame: there is nothing to propose")
    videos = [
        ProjectVideo((relative(each.file, root),), tuple(event.span for event in each.events))
        for each in found
    ]
    clocks = [each.clock for each in found]
    with explain_full_disk(out, "propose again"), whole_folder(out) as draft:
        if tool == "cvat":
            write_cvat(draft, videos, clocks, classes)
        else:
            tasks = [
                label_studio_task(video, each.clock, number, version, round(1 - each.uncertainty, 4))
                for number, (video, each) in enumerate(zip(videos, found, strict=True), 1)
            ]
            write_label_studio(draft, tasks, classes, boxes=True)
        rows = [
            (video.names[0], *_row(event))
            for video, each in zip(videos, found, strict=True)
            for event in each.events
        ]
        write_csv(draft / EVENTS, COLUMNS, rows)
    return out


def _row(event: Proposal) -> tuple[str, str, str, str, str]:
    span = event.span
    end = "" if span.end is None else time_text(span.end)
    return span.label, time_text(span.start), end, f"{span.score or 0:.4f}", f"{event.uncertainty:.4f}"
