"""Events of long videos against their labelled segments: measured, and the rule for them chosen.

A video is watched once, with every window scored (:mod:`peakzoom.apps.watch.watch`). Another rule for events
(threshold, hysteresis, gaps, shortest event) or fewer windows need no further look: they are replayed from the scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended, ScoredWindow, SourceProblem, Started
from peakzoom.apps.watch.tracks import OneTrack
from peakzoom.apps.watch.watch import watch
from peakzoom.data.entries import Problem, VideoSet
from peakzoom.evaluation.events import EventScores, Interval, f1_and_false_alarms, score_events
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object
from peakzoom.utils.segments import segment_of

FOLDER, FILE = "events", "rule.json"  # in a run
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
KEEPS = (1.0, 0.8, 0.6, 0.4)  # of the threshold
GAPS = (0.0, 1.0, 2.0)  # windows' distances
SHORTEST = (0.0, 0.5, 1.0, 1.5)  # windows
COARSER = (1, 2, 3, 4)  # every so many windows
MAY_LOSE = 0.01  # of F1, for fewer windows


@dataclass(frozen=True)
class Watched:
    """The windows of one video.

    Attributes:
        windows: in their order, with all scores.
        seconds: that the video lasts.
        window, every: seconds of a window, and between two; 0 where the video states no rate.
        problems: of the source.
    """

    windows: list[ScoredWindow]
    seconds: float
    window: float
    every: float
    problems: list[Problem]


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
    """Score all windows of each file.

    Raises:
        UserError: the model is for several labels, whose events may overlap.
    """
    expect_one_label(recognizer)
    found: dict[Path, Watched] = {}
    for file in files:
        windows, problems, started, seconds = [], [], None, 0.0
        for record in watch(recognizer, file, options):
            if isinstance(record, ScoredWindow):
                windows.append(record)
            elif isinstance(record, Started):
                started = record
            elif isinstance(record, SourceProblem):
                problems.append(Problem(str(file), record.reason))
            elif isinstance(record, Ended):
                seconds = record.seconds
        assert started is not None
        found[file] = Watched(windows, seconds, started.window or 0.0, started.every or 0.0, problems)
        if progress:
            progress(len(found), len(files))
    return found


def events_of(watched: Watched, options: WatchOptions, coarser: int = 1) -> Iterator[Event]:
    """The events that a watch with these options reports, of every so many windows and the last one."""
    kept = watched.windows[::coarser]
    if watched.windows and kept[-1] is not watched.windows[-1]:
        kept.append(watched.windows[-1])
    found = OneTrack(kept[0].classes if kept else [], options)
    for window in kept:
        found.names(window.scores, window.confidence)
        yield from found.add(window.start, window.end, window.scores)
    yield from found.end()


def events_in(watched: Mapping[Path, Watched], options: WatchOptions, coarser: int = 1) -> list[Interval]:
    """The events of all files."""
    return [
        Interval(file, event.start, event.end, event.name, event.score)
        for file, each in watched.items()
        for event in events_of(each, options, coarser)
    ]


def measure(
    watched: Mapping[Path, Watched], labelled: Sequence[Interval], options: WatchOptions
) -> tuple[EventScores, list[Interval]]:
    """How well these options find the labelled segments, and the events that they find."""
    predicted = events_in(watched, options)
    return score_events(
        labelled, predicted, {file: each.seconds for file, each in watched.items()}
    ), predicted


def counted(
    watched: Mapping[Path, Watched], labelled: Sequence[Interval], options: WatchOptions, coarser: int = 1
) -> tuple[float, float]:
    """F1 and false alarms an hour of the events that these options find."""
    seconds = sum(each.seconds for each in watched.values())
    return f1_and_false_alarms(labelled, events_in(watched, options, coarser), seconds)


@dataclass(frozen=True)
class Rule:
    """What :func:`choose` chose.

    Attributes:
        threshold, keep, gap, shortest: as in :class:`~peakzoom.apps.watch.options.WatchOptions`.
        every: seconds between windows; None is half a window.
        ignore: classes that are no events.
        f1, false_alarms_an_hour: on the videos that it was chosen on.
        allowed: false alarms an hour that were allowed there.
        share: of the windows that the finest choice would have scored.
        weights: digest of the model's.
    """

    threshold: float
    keep: float
    gap: float
    shortest: float
    every: float | None
    ignore: tuple[str, ...]
    f1: float
    false_alarms_an_hour: float
    allowed: float
    share: float
    weights: str

    def options(self, options: WatchOptions) -> WatchOptions:
        """These options with what was chosen."""
        return replace(
            options,
            threshold=self.threshold,
            keep=self.keep,
            gap=self.gap,
            shortest=self.shortest,
            every=self.every,
            ignore=list(self.ignore) or None,
        )


def choose(
    watched: Mapping[Path, Watched],
    labelled: Sequence[Interval],
    options: WatchOptions,
    allowed: float,
    weights: str,
) -> Rule:
    """The rule with the best F1 among those with at most ``allowed`` false alarms an hour.

    Of rules for fewer windows, the one for the fewest whose F1 is at most a point lower. Of equals, the first: higher
    thresholds, shorter gaps.

    Raises:
        UserError: no rule has so few false alarms.
    """
    first = next(iter(watched.values()))
    window, every = first.window or 1.0, first.every or 0.5
    best: dict[int, Rule] = {}
    for coarser in COARSER:
        grid = product(reversed(THRESHOLDS), KEEPS, GAPS, SHORTEST)
        for threshold, keep, gap, shortest in grid:
            lower = round(keep * threshold, 4)
            tried = replace(
                options,
                threshold=threshold,
                keep=lower,
                gap=round(gap * every * coarser, 3),
                shortest=round(shortest * window, 3),
            )
            f1, alarms = counted(watched, labelled, tried, coarser)
            if alarms <= allowed and (coarser not in best or f1 > best[coarser].f1):
                best[coarser] = Rule(
                    threshold=threshold,
                    keep=lower,
                    gap=tried.gap,
                    shortest=tried.shortest,
                    every=options.every if coarser == 1 else round(every * coarser, 4),
                    ignore=tuple(options.ignore or ()),
                    f1=f1,
                    false_alarms_an_hour=alarms,
                    allowed=allowed,
                    share=1 / coarser,
                    weights=weights,
                )
    if not best:
        raise UserError(f"no rule has {allowed:g} false alarms an hour or fewer on these videos: allow more")
    highest = max(rule.f1 for rule in best.values())
    return next(
        best[coarser]
        for coarser in reversed(COARSER)
        if coarser in best and best[coarser].f1 >= highest - MAY_LOSE
    )


def read_rule(run: Path) -> Rule | None:
    """The rule that was chosen for a run; None where none was.

    Raises:
        UserError: the file is damaged.
    """
    file = run / FOLDER / FILE
    if not file.exists():
        return None
    values = read_object(file)
    try:
        return Rule(**{**values, "ignore": tuple(values["ignore"])})
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{file} is damaged: remove it, and run 'peakzoom calibrate --events' again"
        ) from error


def to_json(rule: Rule) -> str:
    """A rule as text."""
    return json.dumps({**vars(rule), "ignore": list(rule.ignore)}, indent=2) + "\n"


def plain(found: EventScores) -> dict[str, Any]:
    """Scores as plain data."""
    values = dict(vars(found))
    for name in ("mean_average_precision", "precision", "recall", "f1"):
        values[name] = {f"{iou:g}": value for iou, value in values[name].items()}
    values["average_precision"] = {
        name: {f"{iou:g}": value for iou, value in each.items()}
        for name, each in values["average_precision"].items()
    }
    return values
