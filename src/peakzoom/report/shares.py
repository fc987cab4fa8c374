"""Shares of right answers and means over classes, with their intervals.

The interval of a share is Wilson's (1927, score interval); of other numbers, where they have one, a percentile
bootstrap's over videos (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # 97.5% quantile of the normal distribution
RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Share:
    """``right`` of ``videos``, with Wilson's 95% interval; None where there is no video."""

    right: int
    videos: int
    value: float | None
    low: float | None
    high: float | None


def share(right: int, videos: int) -> Share:
    """Wilson's score interval of a share.

    >>> each = share(8, 10)
    >>> f"{each.value:.1f} {each.low:.3f} {each.high:.3f}"
    '0.8 0.490 0.943'
    """
    if videos == 0:
        return Share(0, 0, None, None, None)
    value, scale = right / videos, 1 + Z95**2 / videos
    middle = (value + Z95**2 / (2 * videos)) / scale
    half = Z95 * ((value * (1 - value) + Z95**2 / (4 * videos)) / videos) ** 0.5 / scale
    low = 0.0 if right == 0 else max(0.0, middle - half)  # exactly, not to rounding
    high = 1.0 if right == videos else min(1.0, middle + half)
    return Share(right, videos, value, low, high)


def interval(each: Share) -> str:
    """Its interval in words; nothing where there is no video."""
    return "" if each.low is None else f"{each.low:.1%} to {each.high:.1%}"


def share_of(right: np.ndarray) -> Share:
    """Of a bool array."""
    return share(int(right.sum()), len(right))


def mean_class(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes with a video of the share of right answers; both arrays (V,)."""
    counts = np.bincount(labels)
    found = np.bincount(labels, weights=right)
    return float((found[counts > 0] / counts[counts > 0]).mean())


# Not stats.bootstrap_interval: that draws means over videos. Mean class accuracy and the separation of wrong from right
# answers are no such means, both have to be counted again in every draw.
def bootstrap(
    videos: int, measure: Callable[[np.ndarray], float | None], resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """95% interval of a number: its 2.5% and 97.5% quantiles over videos drawn again with replacement.

    Args:
        videos: how many there are.
        measure: the number, from indices int (videos,); None where a draw has none, which is then left out.
        resamples: draws.
        seed: of the draws; the same for every number.
    """
    rng = np.random.default_rng(seed)
    drawn = (measure(rng.integers(videos, size=videos)) for _ in range(resamples))
    low, high = np.quantile([each for each in drawn if each is not None], (0.025, 0.975))
    return float(low), float(high)
