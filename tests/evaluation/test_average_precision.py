"""mAP, F1 and thresholds of several labels a video, against torchmetrics, scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torchmetrics.functional.classification import multilabel_average_precision

from peakzoom.evaluation.multi_label import (
    average_precision,
    choose_thresholds,
    f1,
    mean_average_precision,
    targets_of,
    told,
)
from peakzoom.evaluation.multi_label_results import label_scores, measure_labels


def drawn(seed: int, videos: int, classes: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.random((videos, classes))
    if ties:
        scores = (scores * 4).round() / 4
    return scores, random.random((videos, classes)) < scores * random.random(classes)


GRID = [
    (seed, videos, classes, ties)
    for seed in range(4)
    for videos, classes in ((6, 2), (40, 5), (300, 9))
    for ties in (False, True)
]


@pytest.mark.parametrize(("seed", "videos", "classes", "ties"), GRID)
def test_average_precision_is_that_of_others(seed: int, videos: int, classes: int, ties: bool) -> None:
    scores, targets = drawn(seed, videos, classes, ties)
    there = targets.any(0)
    for place in range(classes):
        found = average_precision(scores[:, place], targets[:, place])
        if there[place]:
            assert found == pytest.approx(
                average_precision_score(targets[:, place], scores[:, place]), abs=1e-12
            )
        else:
            assert math.isnan(found)
    if there.sum() > 1:  # torchmetrics wants two
        other = multilabel_average_precision(
            torch.from_numpy(scores[:, there]),
            torch.from_numpy(targets[:, there]).long(),
            int(there.sum()),
            average="macro",
        )
        assert mean_average_precision(scores, targets) == pytest.approx(float(other), abs=1e-6)


def test_nothing_to_measure() -> None:
    assert math.isnan(mean_average_precision(np.ones((3, 2)), np.zeros((3, 2), bool)))
    assert math.isnan(f1(np.ones(3, bool), np.zeros(3, bool)))
    assert f1(np.zeros(3, bool), np.array([True, False, False])) == 0


def test_targets() -> None:
    assert targets_of([(0,), (1, 2)], 3).tolist() == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize(("seed", "videos", "classes", "ties"), GRID)
def test_no_threshold_has_a_higher_f1(seed: int, videos: int, classes: int, ties: bool) -> None:
    scores, targets = drawn(seed, videos, classes, ties)
    for place, threshold in enumerate(choose_thresholds(scores, targets)):
        score, target = scores[:, place], targets[:, place]
        if min(target.sum(), (~target).sum()) < 5:
            assert threshold == 0.5 and not told(targets)[place]
            continue
        best = f1_score(target, score >= threshold)
        values = np.unique(np.append(score, 0.0))
        quality = {}
        for tried in (0.5, *((values[1:] + values[:-1]) / 2)):
            right = sum((score >= tried) & target)
            quality[float(tried)] = 2 * right / (sum(score >= tried) + sum(target))
        assert best >= max(quality.values()) - 1e-12
        # None that is as good lies nearer to a half.
        near = min(abs(tried - 0.5) for tried, value in quality.items() if value >= best - 1e-12)
        assert abs(threshold - 0.5) <= near + 1e-12 or 0.5 in values
        assert 0 <= threshold <= 1
        reported = (score >= threshold).sum()
        gap = np.diff(np.sort(np.unique(np.append(score, 0.0)))).max()
        assert abs(threshold - 0.5) <= near + gap and 0 <= threshold <= 1
        assert threshold == 0 or reported == (score >= threshold + 1e-9).sum()  # no score lies on it


def test_a_half_stays_where_it_is_as_good() -> None:
    scores = np.array([[0.1]] * 6 + [[0.9]] * 6)
    targets = scores > 0.5
    assert choose_thresholds(scores, targets) == [0.5]
    assert choose_thresholds(scores * 0.5, targets) == [pytest.approx(0.25)]


@pytest.mark.parametrize("groups", [None, 12])
def test_what_is_measured_of_a_branch(groups: int | None) -> None:
    scores, targets = drawn(7, 60, 4, False)
    targets[:, 3] = False  # a class without a video
    thresholds, names = [0.3, 0.5, 0.7, 0.5], ["a", "b", "c", "d"]
    owners = None if groups is None else [str(number % groups) for number in range(60)]
    found = measure_labels(scores, targets, names, thresholds, owners)
    assert set(found.per_class) == {"a", "b", "c"}
    each = [average_precision_score(targets[:, at], scores[:, at]) for at in range(3)]
    assert found.mean_average_precision == pytest.approx(np.mean(each))
    on = scores >= np.array(thresholds)
    assert found.f1 == pytest.approx(f1_score(targets[:, :3], on[:, :3], average="macro"))
    assert found.interval[0] < found.mean_average_precision < found.interval[1]
    rows = label_scores(scores, targets, names, thresholds)
    assert [row.name for row in rows] == ["a", "b", "c"]
    for at, row in enumerate(rows):
        right = int((on[:, at] & targets[:, at]).sum())
        assert row.recall == right / targets[:, at].sum() and row.precision == right / on[:, at].sum()
    (none,) = label_scores(scores[:, :1], targets[:, :1], ["a"], [1.1])
    assert none.precision is None and none.recall == 0
