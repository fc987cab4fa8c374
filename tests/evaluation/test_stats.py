"""Statistics: every sign pattern by hand, binomial sums, published examples, and how often intervals hold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from peakzoom.evaluation import stats
from peakzoom.evaluation.stats import PairedTest, bootstrap_interval


def paired_test(a: np.ndarray, b: np.ndarray, **options: Any) -> PairedTest:
    """Of accuracies in points; ``a`` and ``b`` (seeds, videos) or (videos,)."""
    return stats.paired_test(100 * (np.atleast_2d(a).mean(0) - np.atleast_2d(b).mean(0)), **options)


# Intervals -------------------------------------------------------------------------------------------------------


def binomial_quantile(n: int, p: float, q: float) -> int:
    """Smallest k with P(Binomial(n, p) <= k) >= q."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= q:
            return k
    return n


@pytest.mark.parametrize("hits,count", [(9, 10), (60, 120), (108, 120), (1, 37), (200, 1000)])
def test_bootstrap_of_one_seed_is_binomial(hits: int, count: int) -> None:
    right = np.arange(count) < hits
    low, high = bootstrap_interval(right)
    # 10,000 draws place a quantile to about a clip.
    assert low * count == pytest.approx(binomial_quantile(count, hits / count, 0.025), abs=1.01)
    assert high * count == pytest.approx(binomial_quantile(count, hits / count, 0.975), abs=1.01)


def test_bootstrap_draws_all_seeds_of_a_clip_together() -> None:
    right = np.random.default_rng(3).random(80) < 0.7
    assert bootstrap_interval(np.stack([right] * 4)) == bootstrap_interval(right)
    # Seeds that are right on opposite clips leave nothing to chance.
    assert bootstrap_interval(np.stack([right, ~right])) == (0.5, 0.5)


@pytest.mark.parametrize("seeds,videos", [(1, 7), (3, 50), (2, 333)])
def test_bootstrap_against_a_loop(seeds: int, videos: int) -> None:
    right = (np.random.default_rng(videos).random((seeds, videos)) < 0.8).astype(float)
    draws, rng = [], np.random.default_rng(99)
    for _ in range(4000):
        chosen = rng.integers(0, videos, videos)
        draws.append(np.mean([right[seed][chosen].mean() for seed in range(seeds)]))
    wanted = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(right), wanted, atol=1.01 / videos + 0.003)


def test_memory_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.random.default_rng(0).random((2, 90)) < 0.6
    other = np.random.default_rng(1).random((2, 90)) < 0.6
    monkeypatch.setattr(stats, "DRAWS", 2001)
    whole = bootstrap_interval(right, resamples=501), paired_test(right, other).p
    monkeypatch.setattr(stats, "BATCH", 700)
    assert bootstrap_interval(right, resamples=501) == whole[0]
    assert paired_test(right, other).p == pytest.approx(whole[1], abs=0.04)


def coverage(rng: np.random.Generator, groups: int, size: int, shared: float) -> tuple[float, float]:
    """How often 95% intervals by clips and by groups hold the true 0.7, if a share of each group's clips is alike."""
    names = np.repeat(np.arange(groups), size)
    hold = np.zeros(2)
    for _ in range(400):
        common = np.repeat(rng.random(groups) < 0.7, size)
        right = np.where(rng.random(groups * size) < shared, common, rng.random(groups * size) < 0.7)
        for index, units in enumerate((None, names.tolist())):
            low, high = bootstrap_interval(right, groups=units, resamples=400)
            hold[index] += low <= 0.7 <= high
    return tuple(hold / 400)


def test_coverage_of_independent_clips() -> None:
    clips, groups = coverage(np.random.default_rng(0), 30, 6, 0.0)
    assert 0.92 <= clips <= 0.98  # 0.95 less what a percentile interval lacks, three standard errors of 0.011
    assert 0.89 <= groups <= 0.98


def test_coverage_where_clips_of_a_group_are_alike() -> None:
    clips, groups = coverage(np.random.default_rng(1), 30, 6, 0.8)
    assert clips < 0.75  # too narrow, as the docstring says
    assert 0.88 <= groups <= 0.98


def test_groups_of_one_clip_are_clips() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 40)) < 0.8, rng.random((3, 40)) < 0.6
    names = [f"g{index}" for index in range(40)]
    assert bootstrap_interval(a, groups=names) == bootstrap_interval(a)
    one, two = paired_test(a, b), paired_test(a, b, groups=names)
    assert (one.p, one.interval, one.units, two.units) == (two.p, two.interval, "clips", "groups")


def test_clips_repeated_within_groups_say_nothing_new() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((1, 18)) < 0.8, rng.random((1, 18)) < 0.5
    names = np.repeat(np.arange(18), 5).tolist()
    one = paired_test(a, b)
    many = paired_test(np.repeat(a, 5, 1), np.repeat(b, 5, 1), groups=names)
    naive = paired_test(np.repeat(a, 5, 1), np.repeat(b, 5, 1))
    assert many.p == one.p and many.interval == pytest.approx(one.interval)
    assert (many.count, one.count) == (18, 18) and naive.p < one.p


# Tests -----------------------------------------------------------------------------------------------------------


def by_hand(differences: list[float]) -> float:
    """Share of all sign patterns of all differences, zeros too, at least as far from 0."""
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= seen - 1e-9 for value in sums) / len(sums)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("videos", [1, 5, 11])
def test_sign_flips_by_hand(seeds: int, videos: int) -> None:
    rng = np.random.default_rng(10 * seeds + videos)
    a, b = rng.random((seeds, videos)) < 0.8, rng.random((seeds, videos)) < 0.5
    found = paired_test(a, b)
    differences = [float(a[:, index].mean() - b[:, index].mean()) for index in range(videos)]
    assert found.exact and found.p == pytest.approx(by_hand(differences))
    assert found.difference == pytest.approx(100 * sum(differences) / videos)
    assert found.better == sum(value > 1e-9 for value in differences)
    assert found.worse == sum(value < -1e-9 for value in differences)
    assert found.better + found.equal + found.worse == videos


@pytest.mark.parametrize("sizes", [(3, 1, 4), (2, 2, 2, 2), (1, 9)])
def test_sign_flips_of_groups_by_hand(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    names = [index for index, size in enumerate(sizes) for _ in range(size)]
    a, b = rng.random((2, len(names))) < 0.8, rng.random((2, len(names))) < 0.4
    each = a.mean(0) - b.mean(0)
    sums = [
        float(sum(value for value, name in zip(each, names, strict=True) if name == index))
        for index in range(len(sizes))
    ]
    found = paired_test(a, b, groups=names)
    assert found.p == pytest.approx(by_hand(sums)) and found.count == len(sizes)


def test_darwins_maize() -> None:
    """Fisher (1935), sec. 21: 15 pairs of plants, 1,726 of 32,768 sign patterns as far from 0 as the total of 314."""
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    values = np.array([eighths]) / 100
    found = paired_test(values.clip(min=0), (-values).clip(min=0))
    assert found.p == 1726 / 32768 and found.exact
    assert (found.better, found.equal, found.worse) == (13, 0, 2)
    assert found.difference == pytest.approx(314 / 15)


def exact_mcnemar(better: int, worse: int) -> float:
    """McNemar's test (1947) in its binomial form: with one seed, the same as all sign patterns."""
    n = better + worse
    within = [k for k in range(n + 1) if abs(2 * k - n) >= abs(better - worse)]
    return sum(math.comb(n, k) for k in within) / 2**n


@pytest.mark.parametrize("better,worse,equal", [(0, 0, 4), (1, 0, 0), (7, 1, 30), (8, 8, 1), (12, 4, 100)])
def test_one_seed_is_mcnemar(better: int, worse: int, equal: int) -> None:
    a = np.repeat([True, False, True], (better, worse, equal))
    b = np.repeat([False, True, True], (better, worse, equal))
    found, back = paired_test(a, b), paired_test(b, a)
    assert found.exact and found.p == pytest.approx(exact_mcnemar(better, worse))
    assert back.p == found.p and back.difference == -found.difference


def test_published_mcnemar() -> None:
    """Armitage and Berry (1994, p. 127): 50 specimens on two media, 12 and 2 grow on one alone, P = 0.0129."""
    a = np.repeat([1, 1, 0, 0], (20, 12, 2, 16)).astype(bool)
    b = np.repeat([1, 0, 1, 0], (20, 12, 2, 16)).astype(bool)
    assert paired_test(a, b).p == pytest.approx(0.0129, abs=5e-5)


@pytest.mark.parametrize("better,worse", [(15, 10), (30, 12), (60, 60), (200, 100)])
def test_drawn_signs_against_the_binomial(better: int, worse: int) -> None:
    a = np.repeat([True, False], (better, worse))
    found, wanted = paired_test(a, ~a), exact_mcnemar(better, worse)
    assert not found.exact and found.p >= 1 / 100_001
    assert found.p == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / 100_000) + 1.1e-5)
    assert paired_test(a, ~a) == found


def test_equal_networks() -> None:
    right = np.random.default_rng(0).random((3, 60)) < 0.5
    found = paired_test(right, right[[2, 0, 1]])
    assert (found.p, found.difference, found.interval, found.equal) == (1, 0, (0, 0), 60)


def test_false_alarms_are_as_rare_as_they_claim() -> None:
    rng = np.random.default_rng(8)
    tests = [
        paired_test(rng.random((2, 11)) < 0.7, rng.random((2, 11)) < 0.7, resamples=2) for _ in range(600)
    ]
    share = np.mean([test.p <= 0.05 for test in tests])
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
