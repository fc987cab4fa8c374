"""Every number of the page again by plain Python loops, and by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from synthetic import COMP, DISC, FUSED, ORIG, best, from_means

from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.report.numbers import (
    by_class,
    by_views,
    choose_views,
    confusion_matrix,
    majority,
    mistakes,
    reliability,
    subsets,
    votes,
)
from peakzoom.video.sampling import Views

# Subsets ---------------------------------------------------------------------------------------------------------


def class_mean(answers: list[int], labels: list[int]) -> float:
    shares = []
    for label in sorted(set(labels)):
        mine = [answer == label for answer, true in zip(answers, labels, strict=True) if true == label]
        shares.append(sum(mine) / len(mine))
    return sum(shares) / len(shares)


def test_subsets_again_by_loops(scores: Scores) -> None:
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    groups = [group for size in (1, 2, 3) for group in combinations(parts, size)]
    labels = scores.labels.tolist()
    rows = subsets(scores)
    assert len(rows) == len(groups) + 1 == 2 ** len(parts)
    assert rows[-1].name == FUSED
    original = [best(row) == label for row, label in zip(scores.means[ORIG], labels, strict=True)]
    for row, group in zip(rows, [*groups, (FUSED,)], strict=True):
        answers = []
        for video in range(len(labels)):
            total = [
                sum(float(scores.means[name][video, k]) for name in group) for k in range(len(scores.classes))
            ]
            answers.append(best(total))
        right = [answer == label for answer, label in zip(answers, labels, strict=True)]
        assert (row.top1.right, row.top1.videos) == (sum(right), len(labels))
        assert row.mean_class == pytest.approx(class_mean(answers, labels), abs=1e-12)
        assert row.mean_class_low <= row.mean_class + 1e-12 and row.mean_class <= row.mean_class_high + 1e-12
        assert row.gained == sum(mine and not theirs for mine, theirs in zip(right, original, strict=True))
        assert row.gained - row.lost == sum(right) - sum(original)


def test_a_subset_can_be_right_where_its_branches_are_wrong() -> None:
    found = from_means(
        [1],
        3,
        original=[[0.55, 0.45, 0.0]],
        discriminative=[[0.0, 0.45, 0.55]],
        fused=[[1.0, 0.0, 0.0]],
    )
    rows = {row.name: row for row in subsets(found)}
    assert [rows[name].top1.right for name in ("O", "D", "O+D", "fused")] == [0, 0, 1, 0]
    assert (rows["O+D"].gained, rows["O+D"].lost) == (1, 0)


# Views -----------------------------------------------------------------------------------------------------------


def test_the_papers_thirty_views() -> None:
    rows = choose_views(Views("paper", 10, 3))
    every = list(range(10))
    assert rows == [
        ([5], [1]),
        ([5], [0, 1, 2]),
        ([1, 5, 8], [1]),
        ([1, 5, 8], [0, 1, 2]),
        (every, [1]),
        (every, [0, 1, 2]),
    ]
    assert choose_views(Views("paper", 1, 1)) == [([0], [0])]
    assert choose_views(Views("paper", 2, 1)) == [([1], [0]), ([0, 1], [0])]
    assert choose_views(Views("paper", 3, 1)) == [([1], [0]), ([0, 1, 2], [0])]


@pytest.mark.parametrize("clips", [1, 2, 3, 4, 7, 10, 30])
@pytest.mark.parametrize("crops", [1, 2, 3, 5])
def test_chosen_views_lie_evenly(clips: int, crops: int) -> None:
    rows = choose_views(Views("paper", clips, crops))
    assert rows[-1] == (list(range(clips)), list(range(crops)))
    assert len({(tuple(one), tuple(two)) for one, two in rows}) == len(rows)
    for row in rows:
        for places, count in zip(row, (clips, crops), strict=True):
            assert sorted(set(places)) == places and places[0] >= 0 and places[-1] < count
            assert set(np.diff(places)) <= {count // len(places), -(-count // len(places))}
            for part, place in enumerate(places):  # in its own part of as many equal parts
                assert part * count / len(places) <= place <= (part + 1) * count / len(places)


def test_fewer_views_again_by_loops(scores: Scores) -> None:
    rows = by_views(scores)
    crops = scores.protocol.crops
    for row in rows:
        assert row.views == len(row.clips) * len(row.crops)
        for place, name in enumerate(scores.branches):
            right = 0
            for video, label in enumerate(scores.labels):
                total = [0.0] * len(scores.classes)
                for clip in row.clips:
                    for crop in row.crops:
                        for k, value in enumerate(scores.views[video, place, (clip - 1) * crops + crop - 1]):
                            total[k] += float(value)
                right += best(total) == label
            assert row.top1[name].right == right
    for name in scores.branches:
        assert rows[-1].top1[name].right == int(scores.right(name).sum())


def test_views_are_ordered_clip_by_clip() -> None:
    """Only crop 2 of clip 3 of 4 x 3 views is right: the row of one view is the only one to see it clearly."""
    views = np.tile(np.array([1.0, 0.0], np.float32), (1, 2, 12, 1))
    views[:, :, 2 * 3 + 1] = (0.0, 1.0)
    mean = np.array([[11 / 12, 1 / 12]])
    means = {ORIG: mean, FUSED: mean}
    found = Scores(
        Path(), ["a", "b"], ["x"], np.array([1]), [ORIG, FUSED], means, views, Views("paper", 4, 3), []
    )
    assert [row.top1[FUSED].right for row in by_views(found)] == [1, 0, 0, 0, 0, 0]


# Votes -----------------------------------------------------------------------------------------------------------


def test_votes_again_by_loops(scores: Scores) -> None:
    for row, place in zip(votes(scores), range(len(scores.branches)), strict=True):
        mean, right, ties, differ = scores.means[row.branch], 0, 0, 0
        for video, label in enumerate(scores.labels):
            counted = Counter(best(view) for view in scores.views[video, place])
            most = max(counted.values())
            tied = [k for k, count in counted.items() if count == most]
            answer = max(sorted(tied), key=lambda k: mean[video, k])
            right += answer == label
            ties += len(tied) > 1
            differ += answer != best(mean[video])
        assert (row.vote.right, row.ties, row.differ) == (right, ties, differ)
        assert row.mean.right - row.vote.right == row.mean_only - row.vote_only
        assert row.mean.right == int(scores.right(row.branch).sum())


def test_a_vote_and_a_tie_by_hand() -> None:
    views = np.array(
        [[[0.4, 0.6, 0], [0.4, 0.6, 0], [1, 0, 0]], [[0, 0.6, 0.4], [0, 0.3, 0.7], [0.5, 0.4, 0.1]]]
    )
    answers, ties = majority(views, views.mean(1))
    assert answers.tolist() == [1, 1] and ties.tolist() == [False, True]
    assert views.mean(1).argmax(1).tolist() == [0, 1]


# Calibration -----------------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    table = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.0, 1.0]])
    found = reliability(FUSED, table, np.array([0, 1, 1, 1]))
    # Bins of a fifteenth: 0.9 and 0.8 lie in (13/15, 14/15] and (11/15, 12/15]; 0.7 in (10/15, 11/15]; 1 in the last.
    assert [each.videos for each in found.bins] == [0] * 10 + [1, 1, 0, 1, 1]
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.0) / 4)
    assert found.nll == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 4)
    assert found.score_right == pytest.approx((0.9 + 0.7 + 1) / 3) and found.score_wrong == pytest.approx(0.8)
    assert found.floored == 0
    never = reliability(FUSED, table[3:], np.array([0]))
    assert never.floored == 1 and never.score_right is None
    assert never.nll == pytest.approx(149 * math.log(2))  # float32's smallest positive number is 2^-149


def test_calibration_again_by_loops(scores: Scores) -> None:
    for name in scores.branches:
        found = reliability(name, scores.means[name], scores.labels)
        error = 0.0
        for each in found.bins:
            inside = [
                (max(row), best(row) == label)
                for row, label in zip(scores.means[name].tolist(), scores.labels, strict=True)
                if each.low < max(row) <= each.high
            ]
            assert len(inside) == each.videos
            error += abs(sum(score for score, _ in inside) - sum(right for _, right in inside))
        assert found.ece == pytest.approx(error / len(scores.labels), abs=1e-12)
        assert sum(each.videos for each in found.bins) == len(scores.labels)
        logs = [-math.log(scores.means[name][video, label]) for video, label in enumerate(scores.labels)]
        assert found.nll == pytest.approx(sum(logs) / len(logs), abs=1e-9)


# Classes ---------------------------------------------------------------------------------------------------------


def test_classes_and_mistakes_by_hand() -> None:
    confusion = np.array([[3, 1, 2, 0], [0, 0, 4, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    rows = by_class(confusion, ["a", "b", "c", "d"])
    assert [(row.found.right, row.found.videos) for row in rows] == [(3, 6), (0, 4), (0, 0), (1, 1)]
    assert [(row.correct.right, row.correct.videos) for row in rows] == [(3, 3), (0, 1), (0, 6), (1, 1)]
    assert [(row.instead, row.instead_videos) for row in rows] == [("c", 2), ("c", 4), (None, 0), (None, 0)]
    assert [(each.label, each.answer, each.videos) for each in mistakes(confusion, "abcd")] == [
        ("b", "c", 4),
        ("a", "c", 2),
        ("a", "b", 1),
    ]


def test_confusion_again_by_loops(scores: Scores) -> None:
    confusion = confusion_matrix(scores)
    assert confusion.sum() == len(scores.labels)
    pairs = Counter(
        (int(label), best(row)) for label, row in zip(scores.labels, scores.means[FUSED], strict=True)
    )
    for (row, column), value in np.ndenumerate(confusion):
        assert value == pairs[row, column]
