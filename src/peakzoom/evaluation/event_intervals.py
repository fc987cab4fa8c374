"""How sure the figures of events are: 95% intervals by bootstrap over whole groups of videos.

Events of one video share people, place and camera, so videos are drawn whole, and with them all of their group
(:mod:`peakzoom.evaluation.stats`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from peakzoom.evaluation.events import (
    IOUS,
    Interval,
    area_under,
    delays_of,
    false_alarms,
    matched,
    seconds_right,
)
from peakzoom.evaluation.stats import GROUPS, bootstrap

Bounds = tuple[float, float]


@dataclass(frozen=True)
class EventIntervals:
    """95% intervals of the figures of the same names in :class:`~peakzoom.evaluation.events.EventScores`.

    A class that has no segment in a draw is not in the draw's mean.

    Attributes:
        groups: how many were drawn from.
        mean_average_precision, precision, recall, f1: by IoU.
        false_alarms_an_hour, detected, delay, frame_accuracy: delay in seconds.
    """

    groups: int
    mean_average_precision: Mapping[float, Bounds]
    precision: Mapping[float, Bounds]
    recall: Mapping[float, Bounds]
    f1: Mapping[float, Bounds]
    false_alarms_an_hour: Bounds
    detected: Bounds
    delay: Bounds | None
    frame_accuracy: Bounds


def event_intervals(
    labelled: Sequence[Interval],
    predicted: Sequence[Interval],
    lengths: Mapping[Hashable, float],
    groups: Mapping[Hashable, Hashable],
    ious: Sequence[float] = IOUS,
) -> EventIntervals | None:
    """Intervals of what :func:`~peakzoom.evaluation.events.score_events` finds of the same.

    Args:
        labelled: as there.
        predicted: as there.
        lengths: as there.
        groups: of each file.
        ious: as there.

    Returns:
        None where there are fewer than :data:`~peakzoom.evaluation.stats.GROUPS` groups, or no segment or no event.
    """
    names = list(dict.fromkeys(groups[file] for file in lengths))
    if len(names) < GROUPS or not labelled or not predicted:
        return None
    place = {file: names.index(groups[file]) for file in lengths}

    by_group = partial(_sums, place, len(names))
    right = {iou: matched(labelled, predicted, iou) for iou in ious}
    hits = {
        iou: by_group([(event.file, hit) for event, hit in zip(predicted, right[iou], strict=True)])
        for iou in ious
    }
    events, segments = (by_group([(each.file, 1) for each in given]) for given in (predicted, labelled))
    seconds = by_group(list(lengths.items()))
    delays = delays_of(labelled, predicted)
    alarms = by_group([(file, false_alarms(_of(labelled, file), _of(predicted, file))) for file in lengths])
    found = by_group([(each.file, delay is not None) for each, delay in zip(labelled, delays, strict=True)])
    same = by_group(
        [(file, seconds_right(labelled, predicted, file, length)) for file, length in lengths.items()]
    )
    known = [
        (place[each.file], delay) for each, delay in zip(labelled, delays, strict=True) if delay is not None
    ]
    return EventIntervals(
        groups=len(names),
        mean_average_precision={
            iou: _drawn(_mean_average_precision(labelled, predicted, right[iou], place), len(names))
            for iou in ious
        },
        precision={iou: _share(hits[iou], events) for iou in ious},
        recall={iou: _share(hits[iou], segments) for iou in ious},
        f1={iou: _share(2 * hits[iou], events + segments) for iou in ious},
        false_alarms_an_hour=_share(alarms, seconds / 3600),
        detected=_share(found, segments),
        delay=_drawn(_median(known, len(names)), len(names)) if known else None,
        frame_accuracy=_share(same, seconds),
    )


def _sums(place: Mapping[Hashable, int], groups: int, values: Sequence[tuple[Hashable, float]]) -> np.ndarray:
    """Of the values of files, by the place of their group: (G,)."""
    found = np.zeros(groups)
    for file, value in values:
        found[place[file]] += value
    return found


def _share(part: np.ndarray, whole: np.ndarray) -> Bounds:
    """Of the sum of one over that of the other, both (G,)."""

    def share(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
        sums = np.asarray(wholes.sum(-1))
        return np.divide(parts.sum(-1), sums, out=np.full(sums.shape, np.nan), where=sums > 0)

    return bootstrap(share, part, whole, vectorized=True)


def _drawn(statistic: Callable[[np.ndarray], float], groups: int) -> Bounds:
    """Of a statistic of the places of the groups that are drawn."""
    return bootstrap(statistic, np.arange(groups))


def _mean_average_precision(
    labelled: Sequence[Interval],
    predicted: Sequence[Interval],
    right: Sequence[bool],
    place: Mapping[Hashable, int],
) -> Callable[[np.ndarray], float]:
    """Of the groups that are drawn. Which segment an event takes hangs on its own file alone, so that stays."""
    names = {name: number for number, name in enumerate(sorted({each.name for each in labelled}))}
    segments = np.zeros((max(place.values()) + 1, len(names)), int)
    for each in labelled:
        segments[place[each.file], names[each.name]] += 1
    groups = np.array([place[each.file] for each in predicted])
    classes = np.array([names.get(each.name, -1) for each in predicted])
    scores, hits = np.array([each.score for each in predicted]), np.array(right, bool)
    members = [np.flatnonzero(groups == group) for group in range(len(segments))]

    def statistic(drawn: np.ndarray) -> float:
        inside = np.concatenate([members[group] for group in drawn])
        inside = inside[np.argsort(-scores[inside], kind="stable")]
        counts, kinds = segments[drawn].sum(0), classes[inside]
        found = [
            area_under(hits[inside[kinds == name]], int(counts[name])) for name in np.flatnonzero(counts)
        ]
        return float(np.mean(found)) if found else float("nan")

    return statistic


def _median(values: Sequence[tuple[int, float]], groups: int) -> Callable[[np.ndarray], float]:
    """Of the values of the groups that are drawn; NaN where they have none."""
    members = [np.array([value for at, value in values if at == group]) for group in range(groups)]

    def statistic(drawn: np.ndarray) -> float:
        inside = np.concatenate([members[group] for group in drawn])
        return float(np.median(inside)) if len(inside) else float("nan")

    return statistic


def _of(given: Sequence[Interval], file: Hashable) -> list[Interval]:
    return [each for each in given if each.file == file]
