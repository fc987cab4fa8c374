"""Intervals against published and binomial ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peakzoom.evaluation.stats import bootstrap, mean_class, share


@pytest.mark.parametrize(
    "right,videos,low,high",
    # Newcombe (1998), Statistics in Medicine 17, Table I, method 3 (Wilson's): four printed digits.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(right: int, videos: int, low: float, high: float) -> None:
    found = share(right, videos)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)
    mirror = share(videos - right, videos)
    assert (1 - mirror.high, 1 - mirror.low) == pytest.approx((found.low, found.high), abs=1e-12)
    assert share(0, 0).value is None


def test_bootstrap_of_a_share_is_near_the_binomial() -> None:
    right = np.arange(400) < 300
    low, high = bootstrap(np.mean, right)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)
    assert bootstrap(np.mean, right) == (low, high)


def test_bootstrap_of_paired_arrays() -> None:
    first, second = np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 0.0])
    assert bootstrap(lambda one, two: (one + two).sum(), first, second) == (6.0, 6.0)
    # A draw without the statistic is left out.
    assert bootstrap(lambda one: math.nan if one[0] else 2.0, first) == (2.0, 2.0)
    assert bootstrap(np.mean, first[1:2]) == (1.0, 1.0)
    assert mean_class(np.array([True, False, True]), np.array([0, 0, 4])) == 0.75
