"""Intervals of the figures of events, against plain draws of whole groups that are scored anew."""

from __future__ import annotations

import statistics
from collections.abc import Hashable

import numpy as np
import pytest

from peakzoom.evaluation.event_intervals import event_intervals
from peakzoom.evaluation.events import IOUS, Interval, score_events

IOU = 0.5


def some(files: int, seed: int) -> tuple[list[Interval], list[Interval], dict[Hashable, float]]:
    """Segments of two classes, and events that find them better in some files than in others."""
    draw = np.random.default_rng(seed)
    labelled, predicted, lengths = [], [], {}
    for file in map(str, range(files)):
        skill = draw.uniform(0.1, 1)
        lengths[file] = float(draw.uniform(60, 100))
        for start in range(2, 50, 12):
            name = ("kick", "wave", "nod")[int(draw.integers(2 if file != "0" else 3))]
            labelled.append(Interval(file, start, start + 6.0, name))
            if draw.random() < skill:
                first = start + draw.uniform(-2, 3) * (1.2 - skill)
                predicted.append(Interval(file, first, first + 6.0, name, float(draw.uniform(0.5, 1))))
            elif draw.random() < 0.5:
                predicted.append(
                    Interval(file, start + 7.0, start + 9.0, name, float(draw.uniform(0.3, 0.9)))
                )
    return labelled, predicted, lengths


def scored(found: object, name: str) -> float:
    value = getattr(found, name)
    value = value[IOU] if isinstance(value, dict) else value
    return float("nan") if value is None else float(value)


@pytest.mark.parametrize("of_a_group", [1, 2])
def test_they_are_those_of_plain_draws(of_a_group: int) -> None:
    labelled, predicted, lengths = some(14 * of_a_group, of_a_group)
    groups = {file: int(str(file)) // of_a_group for file in lengths}
    found = event_intervals(labelled, predicted, lengths, groups, (IOU,))
    assert found is not None and found.groups == 14
    names = [
        *("mean_average_precision", "precision", "recall", "f1"),
        *("false_alarms_an_hour", "detected", "delay", "frame_accuracy"),
    ]
    draw, draws = np.random.default_rng(7), []
    for _ in range(600):
        copies = [
            (file, f"{number} {file}")
            for number, group in enumerate(draw.integers(14, size=14))
            for file in lengths
            if groups[file] == group
        ]
        again = [
            [each._replace(file=copy) for file, copy in copies for each in given if each.file == file]
            for given in (labelled, predicted)
        ]
        one = score_events(again[0], again[1], {copy: lengths[file] for file, copy in copies}, (IOU,))
        draws.append([scored(one, name) for name in names])
    for name, values in zip(names, np.array(draws).T, strict=True):
        bounds = getattr(found, name)
        low, high = bounds[IOU] if isinstance(bounds, dict) else bounds
        spread = statistics.stdev(values)
        expected = np.nanquantile(values, [0.025, 0.975])
        np.testing.assert_allclose([low, high], expected, atol=0.35 * spread, err_msg=name)
        whole = scored(score_events(labelled, predicted, lengths, (IOU,)), name)
        assert low <= whole <= high and high - low > spread


def test_none_where_groups_are_few_or_nothing_is_there() -> None:
    labelled, predicted, lengths = some(20, 0)
    for groups, there in ((9, False), (10, True)):
        split = {file: int(str(file)) % groups for file in lengths}
        assert (event_intervals(labelled, predicted, lengths, split) is not None) == there
    alone = {file: file for file in lengths}
    assert event_intervals([], predicted, lengths, alone) is None
    assert event_intervals(labelled, [], lengths, alone) is None
    found = event_intervals(labelled, predicted, lengths, alone)
    assert found == event_intervals(labelled, predicted, lengths, alone)  # the draws are always the same
    assert found is not None and set(found.f1) == set(IOUS)
    perfect = event_intervals(labelled, labelled, lengths, alone)
    assert perfect is not None and perfect.f1[0.7] == (1, 1) == perfect.mean_average_precision[0.7]
    assert perfect.frame_accuracy == pytest.approx((1, 1)) and perfect.delay == (0, 0)
