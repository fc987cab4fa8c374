"""Scores of events: hand-made cases, and a second reading that looks at every centisecond and every matching."""

from __future__ import annotations

import random
from itertools import product

import pytest

from peakzoom.evaluation.events import IOUS, Interval, average_precision, score_events, temporal_iou


def kick(start: float, end: float, score: float = 1.0, file: str = "a", name: str = "kick") -> Interval:
    return Interval(file, start, end, name, score)


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        (kick(0, 4), kick(0, 4), 1),
        (kick(0, 4), kick(2, 6), 2 / 6),
        (kick(0, 4), kick(1, 2), 1 / 4),
        (kick(0, 4), kick(4, 5), 0),
        (kick(0, 4), kick(0, 4, file="b"), 0),
        (kick(0, 4), kick(0, 4, name="wave"), 0),
    ],
)
def test_temporal_iou(one: Interval, other: Interval, iou: float) -> None:
    assert temporal_iou(one, other) == temporal_iou(other, one) == pytest.approx(iou)


SEGMENTS = [kick(0, 10), kick(20, 30), kick(40, 50), kick(60, 70)]


@pytest.mark.parametrize(
    ("events", "precision"),
    [
        ([], 0),
        (SEGMENTS, 1),
        (SEGMENTS[:2], 0.5),
        (
            [kick(0, 10, 0.9), kick(0.1, 10, 0.8), kick(20, 30, 0.7)],
            0.25 + 0.25 * 2 / 3,
        ),  # the second is a double
        ([kick(80, 90, 0.9), kick(0, 10, 0.8)], 0.25 / 2),  # a false alarm goes before
        ([kick(80, 90, 0.1), kick(0, 10, 0.8)], 0.25),  # and after
        ([kick(80, 90, 0.9), kick(0, 10, 0.8), kick(20, 30, 0.7), kick(40, 50, 0.6)], 0.75 * 3 / 4),
        ([kick(5, 12, 0.9), kick(0, 10, 0.8)], 0.25 / 2),  # IoU 5/12 is not enough
    ],
)
def test_average_precision_by_hand(events: list[Interval], precision: float) -> None:
    assert average_precision(SEGMENTS, events, 0.5) == pytest.approx(precision)


def test_a_case_by_hand() -> None:
    labelled = [kick(10, 20), kick(30, 40, name="wave"), kick(0, 5, file="b")]
    predicted = [kick(12, 20, 0.9), kick(25, 29, 0.8), kick(38, 48, 0.7, name="wave")]
    found = score_events(labelled, predicted, {"a": 100, "b": 80})
    assert found.mean_average_precision[0.1] == pytest.approx((0.5 + 1) / 2)
    assert found.mean_average_precision[0.5] == pytest.approx((0.5 + 0) / 2)
    assert found.f1[0.1] == pytest.approx(2 * 2 / 6) and found.f1[0.5] == pytest.approx(2 / 6)
    assert found.precision[0.1] == pytest.approx(2 / 3) and found.recall[0.1] == pytest.approx(2 / 3)
    assert found.false_alarms == 1 and found.false_alarms_an_hour == pytest.approx(1 / 0.05)
    assert found.detected == pytest.approx(2 / 3) and found.delay == pytest.approx((2 + 8) / 2)
    wrong = (2 + 4) + (8 + 8) + 5  # seconds
    assert found.frame_accuracy == pytest.approx(1 - wrong / 180)
    assert (found.segments, found.events, found.hours) == (3, 3, pytest.approx(0.05))


def test_nothing_to_measure() -> None:
    empty = score_events([], [], {})
    assert empty.f1[0.5] is empty.mean_average_precision[0.5] is empty.frame_accuracy is empty.delay is None
    quiet = score_events([], [], {"a": 60})
    assert quiet.frame_accuracy == 1 and quiet.false_alarms_an_hour == 0
    alarm = score_events([], [kick(0, 6)], {"a": 60})
    assert alarm.frame_accuracy == pytest.approx(0.9) and alarm.false_alarms_an_hour == pytest.approx(60)


def drawn(seed: int, scored: bool) -> list[Interval]:
    """Up to six stretches a file, in whole centiseconds, that do not overlap."""
    draw, found = random.Random(seed), []
    for file in ("a", "b"):
        borders = sorted(draw.sample(range(3000), 2 * draw.randint(0, 6)))
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            score = draw.random() if scored else 1.0
            found.append(kick(start / 100, end / 100, score, file, draw.choice(["kick", "wave"])))
    return found


def plain(labelled: list[Interval], predicted: list[Interval], iou: float) -> tuple[float, float]:
    """Mean average precision and F1, written down once more without the rest."""

    def shared(one: Interval, other: Interval) -> float:
        if one.file != other.file or one.name != other.name:
            return 0.0
        mine, its = ({*range(round(each.start * 100), round(each.end * 100))} for each in (one, other))
        return len(mine & its) / len(mine | its)

    def right(events: list[Interval], segments: list[Interval]) -> list[bool]:
        left, found = list(segments), []
        for event in sorted(events, key=lambda each: -each.score):
            best = max(left, key=lambda each: shared(event, each), default=None)
            hit = best is not None and shared(event, best) >= iou - 1e-12
            if hit and best is not None:
                left.remove(best)
            found.append(hit)
        return found

    precisions = []
    for name in {each.name for each in labelled}:
        segments = [each for each in labelled if each.name == name]
        hits = right([each for each in predicted if each.name == name], segments)
        points = [(sum(hits[:n]) / len(segments), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
        total, last = 0.0, 0.0
        for recall in sorted({point[0] for point in points}):
            total += (recall - last) * max(height for at, height in points if at >= recall)
            last = recall
        precisions.append(total)
    all_right = sum(right(predicted, labelled))
    return sum(precisions) / len(precisions), 2 * all_right / (len(labelled) + len(predicted))


@pytest.mark.parametrize("seed", range(25))
def test_against_a_second_reading(seed: int) -> None:
    labelled, predicted = drawn(seed, False), drawn(seed + 1000, True)
    lengths = {"a": 30.0, "b": 30.0}
    found = score_events(labelled, predicted, lengths)
    if labelled:
        for iou in IOUS:
            precision, f1 = plain(labelled, predicted, iou)
            assert found.mean_average_precision[iou] == pytest.approx(precision)
            assert found.f1[iou] == pytest.approx(f1)

    def on(given: list[Interval], file: str, tick: int) -> str | None:
        names = [
            each.name for each in given if each.file == file and each.start <= (tick + 0.5) / 100 < each.end
        ]
        return names[0] if names else None

    ticks = list(product(lengths, range(3000)))
    same = sum(on(labelled, *tick) == on(predicted, *tick) for tick in ticks)
    assert found.frame_accuracy == pytest.approx(same / len(ticks))
    for start in (0.0, 5.0):  # later files, the same scores
        moved = [
            [each._replace(start=each.start + start, end=each.end + start) for each in given]
            for given in (labelled, predicted)
        ]
        again = score_events(*moved, {"a": 30.0 + start, "b": 30.0 + start})
        assert (
            again.f1 == found.f1
            and again.detected == found.detected
            and again.delay == (found.delay and pytest.approx(found.delay))
        )
