"""Disagreement and the complementary view again by entropies, plain Python loops, and by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from synthetic import COMP, DISC, FUSED, ORIG, best, from_means

from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.report.branches import disagreement, divergence, scenery
from peakzoom.evaluation.stats import separation

# Disagreement ----------------------------------------------------------------------------------------------------


def entropy(row: list[float]) -> float:
    return -sum(value * math.log2(value) for value in row if value > 0)


def test_divergence_again_by_entropies(scores: Scores) -> None:
    """JSD = H of the mean less the mean of the H (Lin 1991): another form than the code's."""
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    if len(parts) < 2:
        assert disagreement(scores) is None
        return
    found = divergence([scores.means[name] for name in parts])
    for video in range(len(scores.labels)):
        pairs = []
        for one, two in combinations(parts, 2):
            p, q = scores.means[one][video].tolist(), scores.means[two][video].tolist()
            middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
            pairs.append(entropy(middle) - (entropy(p) + entropy(q)) / 2)
        assert found[video] == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_divergence_by_hand() -> None:
    one = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    two = np.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    assert divergence([one, two]) == pytest.approx([1.0, 0.0, 0.31127812445913283], abs=1e-15)
    found = disagreement(
        from_means([0] * 3, 2, original=one.tolist(), discriminative=two.tolist(), fused=one.tolist())
    )
    assert found is not None and found.pairs[0].divergence == pytest.approx(1.311278124459133 / 3)
    assert divergence([one, two, two])[0] == pytest.approx(2 / 3)


def test_levels_and_quantiles_again_by_loops(scores: Scores) -> None:
    found = disagreement(scores)
    if found is None:
        return
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    seen: dict[int, list[bool]] = {level: [] for level in range(1, len(parts) + 1)}
    for video, label in enumerate(scores.labels):
        different = {best(scores.means[name][video]) for name in parts}
        seen[len(different)].append(best(scores.means[FUSED][video]) == label)
    for level in found.levels:
        assert (level.top1.right, level.top1.videos) == (sum(seen[level.answers]), len(seen[level.answers]))
    assert sum(each.top1.videos for each in found.quantiles) == len(scores.labels)
    sizes = [each.top1.videos for each in found.quantiles]
    assert max(sizes) - min(sizes) <= 1 and len(sizes) == max(1, min(5, len(scores.labels) // 5))
    edges = [edge for each in found.quantiles for edge in (each.low, each.high)]
    assert edges == sorted(edges)
    right = [best(row) == label for row, label in zip(scores.means[FUSED], scores.labels, strict=True)]
    assert sum(each.top1.right for each in found.quantiles) == sum(right)
    apart = divergence([scores.means[name] for name in parts])
    if min(sum(right), len(right) - sum(right)) < 5:
        assert found.separation is None
    else:
        pairs = [
            1.0 if apart[i] > apart[j] else 0.5 if apart[i] == apart[j] else 0.0
            for i in range(len(right))
            for j in range(len(right))
            if not right[i] and right[j]
        ]
        assert found.separation == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
        assert found.separation_low < found.separation < found.separation_high


def test_separation_by_hand() -> None:
    values = np.array([0.1, 0.2, 0.2, 0.9])
    assert separation(values, np.array([False, False, True, True])) == 3.5 / 4
    assert math.isnan(separation(values, np.array([True] * 4)))
    assert math.isnan(separation(values, np.array([False] * 4)))


def test_doubts_by_hand() -> None:
    sure, fair, other = [0.1, 0.9, 0.0], [0.3, 0.45, 0.25], [0.0, 0.2, 0.8]
    surer, right = [0.02, 0.98, 0.0], [1.0, 0.0, 0.0]
    rows = {
        ORIG: [sure, fair, sure, surer, right, right],
        DISC: [sure, fair, other, surer, other, right],
        COMP: [sure, fair, sure, surer, sure, right],
        FUSED: [sure, fair, sure, surer, sure, right],
    }
    alone = disagreement(from_means([0] * 6, 3, **rows))
    assert alone is not None  # nobody knows how often such scores are right
    assert alone.kinds == {"label doubtful": 0, "unsure": 2, "agreed": 3}
    # As sure as the surer of the two: 25 others, all right. As sure as the other one: 26 right of 27.
    known = {name: [*values, *[[0.99, 0.01, 0.0]] * 24] for name, values in rows.items()}
    found = disagreement(from_means([0] * 30, 3, **known))
    assert found is not None
    assert [(each.path, each.kind) for each in found.doubts] == [
        ("3.mp4", "label doubtful"),
        ("0.mp4", "label doubtful"),
        ("4.mp4", "unsure"),  # three answers, wider apart than the two of the next one
        ("2.mp4", "unsure"),
        ("1.mp4", "agreed"),
    ]
    assert found.kinds == {"label doubtful": 2, "unsure": 2, "agreed": 1}
    assert found.doubts[2].answers == {ORIG: "class 0", DISC: "class 2", COMP: "class 1", FUSED: "class 1"}
    assert found.doubts[2].scores == {ORIG: 1.0, DISC: 0.8, COMP: 0.9, FUSED: 0.9}
    assert [(each.one, each.two, each.same) for each in found.pairs] == [
        (ORIG, DISC, 28),
        (ORIG, COMP, 29),
        (DISC, COMP, 28),
    ]
    assert [each.top1.videos for each in found.levels] == [28, 1, 1]
    assert [each.top1.right for each in found.levels] == [25, 0, 0]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_of_a_model_that_guesses_no_label_is_doubtful_and_no_class_scenery(classes: int) -> None:
    """However sure it is: with two classes every wrong prediction has a score above 0.5."""
    rng = np.random.default_rng(classes)
    for sharpness in (1.0, 0.05):
        labels = rng.integers(0, classes, 200).tolist()
        shared = rng.dirichlet(np.full(classes, sharpness), 200)
        rows = {name: shared.tolist() for name in (ORIG, DISC, COMP, FUSED)}
        scores = from_means(labels, classes, **rows)
        found, marks = disagreement(scores), scenery(scores)
        assert found is not None and found.kinds["label doubtful"] == 0 and found.kinds["agreed"] > 50
        assert marks is not None and not any(row.hint for row in marks)


@pytest.mark.parametrize("right,doubtful", [(18, 0), (19, 1), (30, 1)])
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_as_sure_as_what_is_nearly_always_right(right: int, wrong: int, doubtful: int) -> None:
    """One video is predicted wrongly with 0.8; of the others, all as sure, so many are right and wrong with 0.9."""
    means = [[0.2, 0.8], *[[0.9, 0.1]] * right, *[[0.05, 0.95]] * wrong]
    rows = dict.fromkeys((ORIG, DISC, FUSED), means)
    found = disagreement(from_means([0] * len(means), 2, **rows))
    assert found is not None
    expected = right + wrong >= 20 and right / (right + wrong) >= 0.95
    kinds = {each.path: each.kind for each in found.doubts}
    assert (kinds["0.mp4"] == "label doubtful") == expected
    assert expected == (doubtful == 1 and right + wrong >= 20 and wrong <= (right + wrong) // 20)


@pytest.mark.parametrize("doubtful,unsure,listed", [(30, 30, (10, 10)), (30, 3, (17, 3)), (2, 30, (2, 18))])
def test_at_most_twenty_doubts_of_both_kinds(doubtful: int, unsure: int, listed: tuple[int, int]) -> None:
    wrong, other = [0.1, 0.9, 0.0], [0.0, 0.2, 0.8]
    rows = {
        ORIG: [wrong] * (doubtful + unsure),
        DISC: [wrong] * doubtful + [other] * unsure,
        FUSED: [wrong] * (doubtful + unsure),
    }
    known = {name: [*values, *[[0.95, 0.05, 0.0]] * 600] for name, values in rows.items()}
    found = disagreement(from_means([0] * (doubtful + unsure + 600), 3, **known))
    assert found is not None
    kinds = [each.kind for each in found.doubts]
    assert kinds == ["label doubtful"] * listed[0] + ["unsure"] * listed[1]


# Scenery ---------------------------------------------------------------------------------------------------------


def answer_rows(answers: list[int], s: int) -> list[list[float]]:
    return [[1.0 if k == answer else 0.0 for k in range(s)] for answer in answers]


def test_scenery_by_hand() -> None:
    labels = [0] * 6 + [1] * 9 + [2] * 3 + [3] * 6
    good = answer_rows(labels, 5)
    # Class 0: C as good as all; 1: C misses six, so it does lose something; 2: few videos; 3: nobody knows it.
    complementary = answer_rows([0] * 6 + [1] * 3 + [4] * 6 + [2] * 3 + [4] * 6, 5)
    others = answer_rows([0] * 6 + [1] * 9 + [2] * 3 + [4] * 6, 5)
    found = scenery(
        from_means(
            labels, 5, original=others, discriminative=others, complementary=complementary, fused=others
        )
    )
    assert found is not None
    assert [(row.name, row.videos, row.hint) for row in found] == [
        ("class 0", 6, "scenery?"),
        ("class 1", 9, ""),
        ("class 2", 3, "few videos"),
        ("class 3", 6, ""),
    ]
    assert found[1].right == {ORIG: 9, DISC: 9, COMP: 3, FUSED: 9}
    # Five of them are too few for p below 0.05: C may see what the others see.
    nearly = answer_rows([0] * 6 + [1] * 4 + [4] * 5 + [2] * 3 + [4] * 6, 5)
    rows = scenery(
        from_means(labels, 5, original=others, discriminative=others, complementary=nearly, fused=others)
    )
    assert rows is not None and [row.hint for row in rows] == ["", "", "few videos", ""]
    assert scenery(from_means(labels, 5, original=good, discriminative=good, fused=good)) is None
    assert scenery(from_means(labels, 5, complementary=good, fused=good)) is None


def test_scenery_again_by_loops(scores: Scores) -> None:
    found = scenery(scores)
    if found is None:
        assert COMP not in scores.branches
        return
    assert [row.name for row in found] == [scores.classes[k] for k in sorted(set(scores.labels.tolist()))]
    for row in found:
        index = scores.classes.index(row.name)
        videos = [video for video, label in enumerate(scores.labels) if label == index]
        assert row.videos == len(videos)
        for name in scores.branches:
            assert row.right[name] == sum(best(scores.means[name][video]) == index for video in videos)
