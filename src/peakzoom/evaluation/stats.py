"""How sure an accuracy is, and whether one network is better than another on the same clips.

The figures of a clip, over all seeds of a training, are averaged first. Then come

- a percentile interval by bootstrap over clips (Efron 1979);
- a paired test of two networks by sign flips (Fisher 1935, The Design of Experiments, sec. 21).

The computing is ``scipy.stats``'s. What these numbers do not say: clips of one sequence, or of one long video, share
people and scenery and are not independent; taken one by one they make intervals too narrow and p-values too small.
Given ``groups``, intervals draw whole groups (cluster bootstrap) and the test flips the signs of whole groups. With few
groups the cluster bootstrap is still somewhat too narrow. Neither way knows of other training clips: networks tested on
different folds shared most of their training data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 100_000  # sign patterns of a paired test, where there are more
BATCH = 4_000_000  # numbers that are drawn at once, for memory
LEVEL = 0.95  # of every interval
RESAMPLES, SEED = 1000, 0  # of the intervals in an evaluation's report
TOP = 5  # of as few classes or fewer, top-5 says nothing
FEW = 5  # fewer videos, or fewer right or wrong predictions, and no conclusion is drawn
GROUPS = 10  # at least, for an interval over whole groups: with fewer a bootstrap is much too narrow


@dataclass(frozen=True)
class PairedTest:
    """Network a against network b on the same clips, in the unit of the figure that is compared."""

    difference: float  # a's mean less b's
    interval: tuple[float, float]  # of the difference, by bootstrap
    p: float  # two-sided
    better: int  # clips where a's figure is higher than b's
    equal: int
    worse: int
    units: str  # "clips" or "groups": what was drawn and whose signs were flipped
    count: int  # of units
    exact: bool  # all sign patterns, not drawn ones


def paired_test(
    difference: np.ndarray, groups: Sequence[object] | None = None, resamples: int = 10_000
) -> PairedTest:
    """Two-sided paired permutation test of "a and b are equally good", by sign flips.

    The statistic is the sum over clips. Were a and b alike, every clip's difference could as well have the other sign.
    With at most 16 differences other than 0, whose sign patterns are no more than ``DRAWS``, p is the share of all
    patterns whose sum is at least as far from 0; with more, of drawn patterns, the one that was seen counted with them
    (Phipson and Smyth 2010), so that p is never 0.

    Args:
        difference: float (videos,), a's figure less b's, each averaged over the seeds.
        groups: (videos,) what each clip belongs to; signs are flipped and the interval's draws made for whole groups.
        resamples: draws of the interval.
    """
    difference = np.array(difference, dtype=np.float64)
    # Thirds of a clip do not cancel to the last digit.
    difference[np.abs(difference) < 1e-12 * max(1.0, np.abs(difference).max())] = 0
    sums, _ = _by_unit(difference, groups)
    p, exact = _sign_flips(sums)
    return PairedTest(
        difference=float(difference.mean()),
        interval=bootstrap_interval(difference, groups, resamples),
        p=p,
        better=int((difference > 0).sum()),
        equal=int((difference == 0).sum()),
        worse=int((difference < 0).sum()),
        units="clips" if groups is None else "groups",
        count=len(sums),
        exact=exact,
    )


def bootstrap_interval(
    values: np.ndarray, groups: Sequence[object] | None = None, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile interval (95%) of a mean, such as an accuracy, by bootstrap over clips, or over whole groups.

    Args:
        values: (seeds, videos) or (videos,), bool or float; all seeds of a clip are drawn together.
        groups: (videos,) what each clip belongs to; whole groups are drawn then, and the mean of a draw is that of
            all clips in it.
        resamples: draws.
    """

    def mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.asarray(sums.sum(-1) / counts.sum(-1))

    units = _by_unit(np.atleast_2d(values).mean(0, dtype=np.float64), groups)
    return bootstrap(mean, *units, resamples=resamples, vectorized=True)


def _by_unit(values: np.ndarray, groups: Sequence[object] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of the clips of every unit: each clip for itself, or each group."""
    if groups is None:
        return values, np.ones_like(values)
    place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    of = np.array([place[group] for group in groups])
    sums = np.bincount(of, weights=values)
    sums[np.abs(sums) < 1e-12] = 0
    return sums, np.bincount(of).astype(np.float64)


def bootstrap(
    statistic: Callable[..., Any],
    *data: np.ndarray,
    resamples: int = RESAMPLES,
    vectorized: bool = False,
    groups: Sequence[object] | None = None,
) -> tuple[float, float]:
    """Percentile interval (95%) of any statistic of paired arrays, their entries drawn together with replacement.

    Args:
        statistic: of as many arrays (n,); NaN where a draw has none, which is then left out.
        data: arrays (n,).
        resamples: draws, always the same.
        vectorized: the statistic takes many draws at once, arrays (draws, n).
        groups: (n,) what each entry belongs to; whole groups are drawn then. Not with ``vectorized``.
    """
    if groups is not None:
        members: dict[object, list[int]] = {}
        for place, group in enumerate(groups):
            members.setdefault(group, []).append(place)
        each = list(members.values())

        def of_groups(drawn: np.ndarray) -> Any:
            places = np.concatenate([each[group] for group in drawn.tolist()])
            return statistic(*(values[places] for values in data))

        return bootstrap(of_groups, np.arange(len(each)), resamples=resamples)
    units = len(data[0])
    if units == 1:  # every draw is the same, and SciPy refuses it
        return (float(statistic(*data)),) * 2

    def of_drawn(places: np.ndarray, axis: int = -1) -> Any:
        return statistic(*(each[places] for each in data))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # what it says of a NaN
        found = stats.bootstrap(
            (np.arange(units),),
            of_drawn,
            n_resamples=resamples,
            batch=max(1, BATCH // units),
            vectorized=vectorized,
            method="percentile",
            rng=SEED,
        )
    low, high = np.nanquantile(found.bootstrap_distribution, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _sign_flips(sums: np.ndarray) -> tuple[float, bool]:
    """Two-sided p and whether it is exact. A unit without a difference has no sign and is left out."""
    sums = sums[sums != 0]
    if len(sums) < 2:  # both signs of one are as far from 0
        return 1.0, True

    # Sums in another order differ in the last digits, and as far from 0 as was seen means that far, too.
    def distance(sums: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.abs(sums.sum(axis)).round(9)

    def flipped(size: tuple[int, int]) -> np.ndarray:
        return np.asarray((2.0 * rng.integers(0, 2, size, dtype=np.int8) - 1) * sums)

    sums, rng = sums / np.abs(sums).sum(), np.random.default_rng(SEED)
    exact = 2 ** len(sums) <= DRAWS
    options: dict[str, Any] = {
        "alternative": "greater",
        "n_resamples": DRAWS,
        "batch": max(1, BATCH // len(sums)),
    }
    if exact:
        found = stats.permutation_test((sums,), distance, permutation_type="samples", **options)
    else:  # permutation_test draws signs by sorting, ten times slower
        found = stats.monte_carlo_test(sums, flipped, distance, **options)
    return float(found.pvalue), exact


@dataclass(frozen=True)
class Share:
    """``right`` of ``videos``, with Wilson's 95% interval; None where there is no video."""

    right: int
    videos: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def interval(self) -> str:
        """In words; nothing where there is no video."""
        return "" if self.low is None else f"{self.low:.1%} to {self.high:.1%}"


def share(right: int, videos: int) -> Share:
    """Wilson's score interval of a share.

    >>> each = share(8, 10)
    >>> f"{each.value:.1f} {each.low:.3f} {each.high:.3f}"
    '0.8 0.490 0.943'
    """
    if videos == 0:
        return Share(0, 0, None, None, None)
    low, high = stats.binomtest(right, videos).proportion_ci(method="wilson")
    return Share(right, videos, right / videos, float(low), float(high))


def upper_bound(count: int, of: int) -> float:
    """One-sided exact 95% bound of a share (Clopper and Pearson, 1934), of which ``count`` of ``of`` were seen."""
    return float(stats.binomtest(count, of, alternative="less").proportion_ci().high)


def share_of(right: np.ndarray) -> Share:
    """Of a bool array."""
    return share(int(right.sum()), len(right))


def groups_for_interval(groups: Sequence[str | None]) -> list[str] | None:
    """The groups of all videos, where each has one and there are enough for an interval that draws them whole."""
    known = [group for group in groups if group is not None]
    return known if len(known) == len(groups) and len(set(known)) >= GROUPS else None


def few_groups(groups: Sequence[str | None]) -> int:
    """Of how few groups all videos are, where each has one, some have several, and there are too few to draw whole."""
    count = len(set(groups))
    return count if None not in groups and 0 < count < GROUPS and count < len(groups) else 0


def accuracy_interval(right: np.ndarray, groups: Sequence[str] | None) -> tuple[float, float]:
    """95% interval of the share of right predictions, bool (V,): over whole groups, or Wilson's without groups."""
    if groups:
        return bootstrap_interval(right, groups)
    wilson = share_of(right)
    return wilson.low or 0.0, wilson.high or 0.0


def separation(values: np.ndarray, wrong: np.ndarray) -> float:
    """P(value of a wrong one > value of a right one) + P(equal) / 2; NaN without a pair. Both arrays (V,).

    It is the area under the ROC curve of telling wrong ones by a high value. 0.5 means that the values say nothing of
    right and wrong.
    """
    right = np.sort(values[~wrong])
    if len(right) in (0, len(values)):
        return float("nan")
    below = np.searchsorted(right, values[wrong], "left") + np.searchsorted(right, values[wrong], "right")
    return float(below.mean() / (2 * len(right)))


def mean_class(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes with a video of the share of right predictions; both arrays (V,)."""
    counts = np.bincount(labels)
    found = np.bincount(labels, weights=right)
    return float((found[counts > 0] / counts[counts > 0]).mean())
