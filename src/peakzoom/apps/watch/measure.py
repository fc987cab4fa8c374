"""Events of long videos against their labelled segments.

A video is watched once, with every window scored (:mod:`peakzoom.apps.watch.watch`). Another rule for events
(threshold, hysteresis, gaps, shortest event), fewer windows or the early exit need no further look: they are replayed
from the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break, Ended, ScoredWindow, SourceProblem, Started
from peakzoom.apps.watch.scoring import leads
from peakzoom.apps.watch.tracks import OneTrack
from peakzoom.apps.watch.watch import watch
from peakzoom.data.entries import Problem, VideoSet
from peakzoom.evaluation.event_intervals import EventIntervals
from peakzoom.evaluation.events import EventScores, Interval, f1_and_false_alarms, score_events
from peakzoom.inference.early_exit import Work
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import segment_of


@dataclass(frozen=True)
class Watched:
    """The windows of one video.

    Attributes:
        windows: in their order, with all scores.
        seconds: that the video lasts.
        window, every: seconds of a window, and between two; 0 where the video states no rate.
        problems: of the source.
        breaks: how many windows there were before each break, which no event spans.
    """

    windows: list[ScoredWindow]
    seconds: float
    window: float
    every: float
    problems: list[Problem]
    breaks: tuple[int, ...] = ()

    def parts(self) -> list[list[ScoredWindow]]:
        """The windows between two breaks; none is empty."""
        borders = [0, *self.breaks, len(self.windows)]
        return [self.windows[start:end] for start, end in pairwise(borders) if start < end]


def files_of(videos: VideoSet) -> list[Path]:
    """The files of which rows with start and end are, in their order.

    Raises:
        UserError: there are none.
    """
    found = [segment.file for entry in videos.entries if (segment := segment_of(entry.path))]
    if not found:
        raise UserError(
            f"{videos.name} has no segments: events are measured on a manifest with start and end (docs/data.md)"
        )
    return list(dict.fromkeys(found))


def labelled_in(
    videos: VideoSet, lengths: Mapping[Path, float], ignore: Sequence[str] = ()
) -> list[Interval]:
    """The segments of these files, but for those of classes that are no events; an open end is the file's."""
    found = []
    for entry in videos.entries:
        segment, name = segment_of(entry.path), videos.classes[entry.label]
        if segment is None or segment.file not in lengths or name in ignore:
            continue
        length = lengths[segment.file]
        end = length if segment.end is None else min(segment.end, length)
        if end > segment.start:
            found.append(Interval(segment.file, segment.start, end, name))
    return found


def groups_of(videos: VideoSet) -> dict[Hashable, str]:
    """The group of each file that has segments; a file of no group is one by itself."""
    found: dict[Hashable, str] = {}
    for entry in videos.entries:
        if segment := segment_of(entry.path):
            found.setdefault(segment.file, entry.group or str(segment.file))
    return found


def expect_one_label(recognizer: Recognizer) -> None:
    """UserError for a model for several labels."""
    if recognizer.multi_label:
        raise UserError(
            "events are measured, chosen and proposed where one is on at a time, and this model is for several labels "
            "a video"
        )


def watch_files(
    recognizer: Recognizer,
    files: Sequence[Path],
    options: WatchOptions,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Path, Watched]:
    """Score all windows of each file; one that cannot be opened has none, and its reason.

    Raises:
        UserError: the model is for several labels, whose events may overlap.
    """
    expect_one_label(recognizer)
    found: dict[Path, Watched] = {}
    for file in files:
        try:
            found[file] = _watched(recognizer, file, options)
        except DecodeError as error:
            found[file] = Watched([], 0.0, 0.0, 0.0, [Problem(str(file), error.reason)])
        if progress:
            progress(len(found), len(files))
    return found


def _watched(recognizer: Recognizer, file: Path, options: WatchOptions) -> Watched:
    windows, problems, breaks, started, seconds = [], [], [], None, 0.0
    for record in watch(recognizer, file, options):
        if isinstance(record, ScoredWindow):
            windows.append(record)
        elif isinstance(record, Started):
            started = record
        elif isinstance(record, SourceProblem):
            problems.append(Problem(str(file), record.reason))
        elif isinstance(record, Break):
            breaks.append(len(windows))
        elif isinstance(record, Ended):
            seconds = record.seconds
    assert started is not None
    return Watched(windows, seconds, started.window or 0.0, started.every or 0.0, problems, tuple(breaks))


def thinned(watched: Watched, nth: int = 1, lead: float | None = None, first: int = 0) -> Watched:
    """What a watch with these options sees, of a video of which every window was scored by all branches.

    Args:
        watched: with each window that there is.
        nth: each so many-th window is kept, after a break anew, and the last one before a break or the end.
        lead: the scores are those of the original branch where its best class leads by so much.
        first: this window is the first one that is kept, below ``nth``: a watch keeps window 0, one that had begun a
            moment sooner another one.
    """
    windows: list[ScoredWindow] = []
    breaks: list[int] = []
    for part in watched.parts():
        kept = part[first::nth]
        kept = kept if kept and kept[-1] is part[-1] else [*kept, part[-1]]
        windows += kept if lead is None else [_exited(each, lead) for each in kept]
        breaks.append(len(windows))
    return replace(watched, windows=windows, every=watched.every * nth, breaks=tuple(breaks[:-1]))


def _exited(window: ScoredWindow, lead: float) -> ScoredWindow:
    """As the early exit leaves it."""
    original = window.original
    early = original is not None and leads(original, lead)
    return replace(window, scores=original, early=True) if early else replace(window, early=False)  # type: ignore[arg-type]


def events_of(watched: Watched, options: WatchOptions) -> Iterator[Event]:
    """The events that a watch with the rule of these options reports of these windows."""
    for part in watched.parts():
        found = OneTrack(part[0].classes, options)
        for window in part:
            found.names(window.scores, window.confidence)
            yield from found.add(window.start, window.end, window.scores)
        yield from found.end()


def events_in(watched: Mapping[Path, Watched], options: WatchOptions) -> list[Interval]:
    """The events of all files."""
    return [
        Interval(file, event.start, event.end, event.name, event.score)
        for file, each in watched.items()
        for event in events_of(each, options)
    ]


def measure(
    watched: Mapping[Path, Watched], labelled: Sequence[Interval], options: WatchOptions
) -> tuple[EventScores, list[Interval]]:
    """How well these options find the labelled segments, and the events that they find."""
    predicted = events_in(watched, options)
    return score_events(
        labelled, predicted, {file: each.seconds for file, each in watched.items()}
    ), predicted


def f1_and_alarms(
    watched: Mapping[Path, Watched], labelled: Sequence[Interval], options: WatchOptions
) -> tuple[float, float]:
    """F1 and false alarms an hour of the events that these options find."""
    return f1_and_false_alarms(labelled, events_in(watched, options), seconds_of(watched))


def seconds_of(watched: Mapping[Path, Watched]) -> float:
    """Of all videos."""
    return sum(each.seconds for each in watched.values())


def cost_a_second(watched: Mapping[Path, Watched], work: Work, crops: int = 1) -> float | None:
    """Multiply-adds, in G, that the windows of a second of video took; None where nothing was watched.

    Args:
        watched: as it was watched: each window says whether it exited early.
        work: of a view.
        crops: of a window.
    """
    windows = [window for each in watched.values() for window in each.windows]
    full, seconds = sum(not each.early for each in windows), seconds_of(watched)
    return float(crops * work.of(len(windows), full) / seconds) if seconds else None


def plain(found: EventScores, intervals: EventIntervals | None = None) -> dict[str, Any]:
    """Scores as plain data, and their 95% intervals where there are some."""
    values = _by_iou(vars(found))
    values["average_precision"] = {
        name: {f"{iou:g}": value for iou, value in each.items()}
        for name, each in values["average_precision"].items()
    }
    return values | {"intervals": None if intervals is None else _by_iou(vars(intervals))}


def _by_iou(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values; where one has a value for each IoU, JSON's names for these."""
    names = ("mean_average_precision", "precision", "recall", "f1")
    return {
        name: {f"{iou:g}": each for iou, each in value.items()} if name in names else value
        for name, value in values.items()
    }
