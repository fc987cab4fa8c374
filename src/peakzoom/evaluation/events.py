"""How well events are found in long videos: predicted ones against labelled segments.

- **Average precision** of a class at a temporal IoU: events in order of their scores, each counts as right if it
  overlaps a segment of its class in its file by at least that IoU which no better event has taken; of several it takes
  the one that it overlaps most. The area is that under the precision made non-increasing, as ActivityNet's (Heilbron et
  al., CVPR 2015) and PASCAL VOC's since 2010.
- **F1** of all events at an IoU, matched in the same way, classes together.
- **False alarms**: events that overlap no segment of their class.
- **Detected** is a segment that an event of its class overlaps; its **delay** is from its start until the first such
  event is on.
- **Frame accuracy**: the share of time at which the event that is on, or none, is what the labels say.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
COUNTED = 0.5  # the IoU of the F1 that stands first


class Interval(NamedTuple):
    """A class from when to when, in seconds, in one file; a score where it is predicted."""

    file: Hashable
    start: float
    end: float
    name: str
    score: float = 1.0


@dataclass(frozen=True)
class EventScores:
    """What :func:`score_events` found; shares are in [0, 1], None where there is nothing to measure.

    Attributes:
        average_precision: of each class that has segments, by IoU.
        mean_average_precision: its mean over the classes, by IoU.
        precision, recall, f1: of all events, by IoU.
        false_alarms: events that overlap no segment of their class.
        false_alarms_an_hour: of the files' time.
        detected: share of the segments that an event of their class overlaps.
        delay: median seconds until one is on, of the detected segments.
        frame_accuracy: share of the time.
        segments, events: how many.
        hours: of all files.
    """

    average_precision: Mapping[str, Mapping[float, float]]
    mean_average_precision: Mapping[float, float | None]
    precision: Mapping[float, float | None]
    recall: Mapping[float, float | None]
    f1: Mapping[float, float | None]
    false_alarms: int
    false_alarms_an_hour: float | None
    detected: float | None
    delay: float | None
    frame_accuracy: float | None
    segments: int
    events: int
    hours: float


def score_events(
    labelled: Sequence[Interval],
    predicted: Sequence[Interval],
    lengths: Mapping[Hashable, float],
    ious: Sequence[float] = IOUS,
) -> EventScores:
    """Compare predicted events with labelled segments.

    Args:
        labelled: segments; those of one file do not overlap.
        predicted: events with their scores; those of one file do not overlap.
        lengths: seconds of every file that was watched, also of those without either.
        ious: temporal IoUs at which an event counts as right.
    """
    names = sorted({each.name for each in labelled})
    precisions = {
        name: {iou: average_precision(_of(labelled, name), _of(predicted, name), iou) for iou in ious}
        for name in names
    }
    right = {iou: right_events(labelled, predicted, iou) for iou in ious}
    hours = sum(lengths.values()) / 3600
    delays = [delay for delay in delays_of(labelled, predicted) if delay is not None]
    false = false_alarms(labelled, predicted)
    return EventScores(
        average_precision=precisions,
        mean_average_precision={iou: _mean(precisions[name][iou] for name in names) for iou in ious},
        precision={iou: _share(right[iou], len(predicted)) for iou in ious},
        recall={iou: _share(right[iou], len(labelled)) for iou in ious},
        f1={iou: _share(2 * right[iou], len(predicted) + len(labelled)) for iou in ious},
        false_alarms=false,
        false_alarms_an_hour=_share(false, hours),
        detected=_share(len(delays), len(labelled)),
        delay=statistics.median(delays) if delays else None,
        frame_accuracy=_share(
            sum(seconds_right(labelled, predicted, file, length) for file, length in lengths.items()),
            sum(lengths.values()),
        ),
        segments=len(labelled),
        events=len(predicted),
        hours=hours,
    )


def f1_and_false_alarms(
    labelled: Sequence[Interval], predicted: Sequence[Interval], seconds: float
) -> tuple[float, float]:
    """F1 at :data:`COUNTED`, and false alarms an hour of what was watched; 0 where there is nothing."""
    right = right_events(labelled, predicted, COUNTED)
    f1 = _share(2 * right, len(predicted) + len(labelled))
    return f1 or 0.0, _share(false_alarms(labelled, predicted), seconds / 3600) or 0.0


def right_events(labelled: Sequence[Interval], predicted: Sequence[Interval], iou: float) -> int:
    """How many events take a segment at this IoU, which is above 0."""
    return sum(matched(labelled, predicted, iou))


def false_alarms(labelled: Sequence[Interval], predicted: Sequence[Interval]) -> int:
    """How many events overlap no segment of their class."""
    segments = _Places(labelled)
    return sum(not segments.overlapping(event) for event in predicted)


def delays_of(labelled: Sequence[Interval], predicted: Sequence[Interval]) -> list[float | None]:
    """Seconds from the start of each segment until an event of its class is on; None where none overlaps it."""
    events = _Places(predicted)
    found = [events.overlapping(segment) for segment in labelled]
    return [
        max(0.0, min(predicted[number].start for number in numbers) - segment.start) if numbers else None
        for segment, numbers in zip(labelled, found, strict=True)
    ]


def temporal_iou(one: Interval, other: Interval) -> float:
    """Time that both share over time that either has; 0 in different files or classes."""
    shared = _overlap(one, other)
    return shared / (one.end - one.start + other.end - other.start - shared) if shared else 0.0


def average_precision(labelled: Sequence[Interval], predicted: Sequence[Interval], iou: float) -> float:
    """Of one class, see above."""
    ordered = sorted(predicted, key=lambda each: -each.score)
    return area_under(np.array(matched(labelled, ordered, iou), bool), len(labelled))


def area_under(right: np.ndarray, segments: int) -> float:
    """The average precision of events, of which the best come first: whether each is right, bool (E,)."""
    total = np.cumsum(right)
    precision = total / np.arange(1, len(total) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    return float(highest[right].sum() / max(1, segments))


def matched(labelled: Sequence[Interval], predicted: Sequence[Interval], iou: float) -> list[bool]:
    """Whether each event takes a segment; better events choose first."""
    segments = _Places(labelled)
    taken: set[int] = set()
    found = [False] * len(predicted)
    for place in sorted(range(len(predicted)), key=lambda place: -predicted[place].score):
        event = predicted[place]
        free = [number for number in segments.overlapping(event) if number not in taken]
        best = max(free, key=lambda number: temporal_iou(event, labelled[number]), default=None)
        if best is not None and temporal_iou(event, labelled[best]) >= iou:
            taken.add(best)
            found[place] = True
    return found


def seconds_right(
    labelled: Sequence[Interval], predicted: Sequence[Interval], file: Hashable, length: float
) -> float:
    """Of a file, when the event that is on, or none, is what the labels say; exact.

    Between two neighbouring borders nothing changes.
    """
    same = 0.0
    here = [[each for each in given if each.file == file] for given in (labelled, predicted)]
    borders = {0.0, length}
    for each in (*here[0], *here[1]):
        borders |= {min(max(each.start, 0.0), length), min(max(each.end, 0.0), length)}
    for start, end in pairwise(sorted(borders)):
        middle = (start + end) / 2
        label, found = (
            next((each.name for each in given if each.start <= middle < each.end), None) for given in here
        )
        same += (end - start) * (label == found)
    return same


def _overlap(one: Interval, other: Interval) -> float:
    """Seconds that both share; 0 in different files or classes."""
    if (one.file, one.name) != (other.file, other.name):
        return 0.0
    return max(0.0, min(one.end, other.end) - max(one.start, other.start))


class _Places:
    """Intervals by file and class, found by time: among thousands, those that an event overlaps are a few."""

    def __init__(self, given: Sequence[Interval]) -> None:
        self._given = given
        places: dict[tuple[Hashable, str], list[int]] = defaultdict(list)
        for number in sorted(range(len(given)), key=lambda number: given[number].start):
            places[given[number].file, given[number].name].append(number)
        self._places = {
            place: (
                numbers,
                [given[number].start for number in numbers],
                list(accumulate((given[number].end for number in numbers), max)),  # the latest end so far
            )
            for place, numbers in places.items()
        }

    def overlapping(self, event: Interval) -> list[int]:
        """The numbers of those that share time with an event, rising."""
        numbers, starts, latest = self._places.get((event.file, event.name), ([], [], []))
        near = numbers[bisect_right(latest, event.start) : bisect_left(starts, event.end)]
        return sorted(number for number in near if self._given[number].end > event.start)


def _of(given: Sequence[Interval], name: str) -> list[Interval]:
    return [each for each in given if each.name == name]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None
