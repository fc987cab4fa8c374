"""How sure an accuracy is, and whether one network is better than another on the same clips.

An experiment has folds (each clip is tested in one of them) and seeds (everything is trained again). Its clips are
pooled over the folds, so an accuracy is one matrix: ``right`` (seeds, videos). From it come

- the accuracy, and how far apart the seeds are;
- a percentile interval by bootstrap over clips (Efron 1979), all seeds of a clip together;
- a paired test of two networks by sign flips (Fisher 1935, The Design of Experiments, sec. 21).

The computing is ``scipy.stats``'s. What these numbers do not say: clips of one sequence, or of one long video, share
people and scenery and are not independent; taken one by one they make intervals too narrow and p-values too small.
Given ``groups``, intervals draw whole groups (cluster bootstrap) and the test flips the signs of whole groups; a result
says by its ``units`` which it was. With few groups the cluster bootstrap is still somewhat too narrow. Neither way
knows of other training clips: networks tested on different folds shared most of their training data, and the interval
is about which clips were tested.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from peakzoom.utils.errors import UserError

DRAWS = 100_000  # sign patterns of a paired test, where there are more
BATCH = 4_000_000  # numbers that are drawn at once, for memory
RESAMPLES, SEED = 1000, 0  # of the intervals in an evaluation's report


@dataclass(frozen=True)
class Outcome:
    """What one trained network got right on the test clips of one fold."""

    fold: str
    seed: int
    videos: list[str]  # paths
    right: np.ndarray  # bool (videos,)


@dataclass(frozen=True)
class Pooled:
    """All folds together: every clip once for each seed."""

    videos: list[str]  # sorted
    seeds: list[int]  # sorted
    right: np.ndarray  # float64 (seeds, videos), 0 or 1


@dataclass(frozen=True)
class Accuracy:
    """Pooled cross-validated accuracy in [0, 1]."""

    mean: float  # over seeds
    spread: float | None  # sample standard deviation (n - 1) over seeds; None for one seed
    seeds: tuple[float, ...]  # of each
    videos: int


@dataclass(frozen=True)
class PairedTest:
    """Network a against network b on the same clips.

    Of accuracies, the difference is in points (hundredths); of another figure, in its own unit.
    """

    difference: float  # a's mean less b's
    interval: tuple[float, float]  # of the difference, by bootstrap
    p: float  # two-sided
    better: int  # clips where a's figure is higher than b's: of accuracies, where it is right more often over the seeds
    equal: int
    worse: int
    units: str  # "clips" or "groups": what was drawn and whose signs were flipped
    count: int  # of units
    exact: bool  # all sign patterns, not drawn ones


def pool(outcomes: Sequence[Outcome]) -> Pooled:
    """Bring the test clips of all folds together, one row a seed.

    Raises:
        UserError: there are no outcomes, a clip was tested twice with a seed, or not with every seed.
    """
    if not outcomes:
        raise UserError("there is nothing to average: no evaluation has finished, run the missing ones first")
    found: dict[int, dict[str, bool]] = {}
    for outcome in outcomes:
        if len(outcome.videos) != len(outcome.right):
            raise ValueError(f"{len(outcome.videos)} videos with {len(outcome.right)} predictions")
        row = found.setdefault(outcome.seed, {})
        for video, right in zip(outcome.videos, outcome.right, strict=True):
            if video in row:
                raise UserError(
                    f"{video} was tested twice with seed {outcome.seed}: every clip belongs into one fold"
                )
            row[video] = bool(right)
    seeds, videos = sorted(found), sorted(set().union(*found.values()))
    for seed in seeds:
        missing = [video for video in videos if video not in found[seed]]
        if missing:
            raise UserError(
                f"{len(missing)} clips were tested with other seeds but not with seed {seed}, such as {missing[0]}: "
                "finish its folds, or leave the seed out"
            )
    right = np.array([[found[seed][video] for video in videos] for seed in seeds], dtype=np.float64)
    return Pooled(videos, seeds, right)


def accuracy(outcomes: Sequence[Outcome]) -> Accuracy:
    """Accuracy over the test clips of all folds, for each seed, and its mean and spread over the seeds.

    >>> first = [Outcome("a", 0, ["x", "y"], np.array([True, False])), Outcome("b", 0, ["z"], np.array([True]))]
    >>> again = [Outcome("a", 1, ["x", "y"], np.array([True, True])), Outcome("b", 1, ["z"], np.array([True]))]
    >>> accuracy(first + again).seeds
    (0.6666666666666666, 1.0)
    """
    pooled = pool(outcomes)
    each = pooled.right.mean(1)
    spread = float(each.std(ddof=1)) if len(each) > 1 else None
    return Accuracy(float(each.mean()), spread, tuple(each.tolist()), len(pooled.videos))


def bootstrap_interval(
    right: np.ndarray,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the accuracy by bootstrap over clips, or over whole groups.

    Args:
        right: (seeds, videos) or (videos,), bool or float in [0, 1]; all seeds of a clip are drawn together.
        groups: (videos,) what each clip belongs to; whole groups are drawn then, and the accuracy of a draw is that of
            all clips in it.
        resamples: draws.
        seed: of the draws: the same numbers give the same interval.
        level: share of the draws within the interval.

    Returns:
        (low, high) in [0, 1].
    """
    return _interval(_checked(right).mean(0), groups, resamples, seed, level)


def paired_test(
    a: np.ndarray,
    b: np.ndarray,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Two-sided paired permutation test of "a and b are equally good", by sign flips.

    The statistic is the sum over clips of the difference of accuracies, each averaged over the seeds. Were a and b
    alike, every clip's difference could as well have the other sign. With at most 16 differences other than 0, whose
    sign patterns are no more than ``DRAWS``, p is the share of all patterns whose sum is at least as far from 0; with
    more, of drawn patterns, the one that was seen counted with them (Phipson and Smyth 2010), so that p is never 0.

    Args:
        a: (seeds, videos) or (videos,), bool or float in [0, 1].
        b: as ``a``, of the same videos in the same order; the number of seeds may differ.
        groups: (videos,) what each clip belongs to; signs are flipped and the interval's draws made for whole groups.
        resamples: draws of the interval, see :func:`bootstrap_interval`.
        seed: of these draws and of the sign patterns.
    """
    a, b = _checked(a), _checked(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} videos and b has {b.shape[1]}: expected the same ones")
    difference = 100 * (a.mean(0) - b.mean(0))
    return paired_differences(difference, groups=groups, resamples=resamples, seed=seed)


def paired_differences(
    difference: np.ndarray,
    *,
    groups: Sequence[object] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """:func:`paired_test` of any figure that two networks have for every clip, in its own unit.

    Args:
        difference: float (videos,), a's figure less b's.
        groups: see :func:`paired_test`, as for the others.
        resamples: see there.
        seed: see there.
    """
    difference = np.array(difference, dtype=np.float64)
    if difference.ndim != 1 or not difference.size or not np.isfinite(difference).all():
        raise ValueError(f"difference has shape {difference.shape}, expected finite numbers (videos,)")
    # Thirds of a clip do not cancel to the last digit.
    difference[np.abs(difference) < 1e-12 * max(1.0, np.abs(difference).max())] = 0
    sums, _ = _by_unit(difference, groups)
    p, exact = _sign_flips(sums, seed)
    return PairedTest(
        difference=float(difference.mean()),
        interval=_interval(difference, groups, resamples, seed, 0.95),
        p=p,
        better=int((difference > 0).sum()),
        equal=int((difference == 0).sum()),
        worse=int((difference < 0).sum()),
        units="clips" if groups is None else "groups",
        count=len(sums),
        exact=exact,
    )


def compare(
    a: Sequence[Outcome], b: Sequence[Outcome], groups: Mapping[str, object] | None = None
) -> PairedTest:
    """:func:`paired_test` of two sets of outcomes; ``groups`` names the group of every video, where wanted.

    Raises:
        UserError: they were not tested on the same clips.
    """
    first, second = pool(a), pool(b)
    if first.videos != second.videos:
        other = set(first.videos) ^ set(second.videos)
        raise UserError(
            f"{len(other)} clips were tested with one network only, such as {min(other)}: compare the same folds"
        )
    named = None if groups is None else [groups[video] for video in first.videos]
    return paired_test(first.right, second.right, groups=named)


def _checked(right: np.ndarray) -> np.ndarray:
    """As float64 (seeds, videos)."""
    values = np.asarray(right, dtype=np.float64)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"right has shape {np.shape(right)}, expected (seeds, videos), at least one of each")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"right lies in [{values.min():g}, {values.max():g}], expected 0 (wrong) to 1 (right)"
        )
    return values


def _by_unit(values: np.ndarray, groups: Sequence[object] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of the clips of every unit: each clip for itself, or each group."""
    if groups is None:
        return values, np.ones_like(values)
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups for {len(values)} videos, expected one each")
    place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    of = np.array([place[group] for group in groups])
    sums = np.bincount(of, weights=values)
    sums[np.abs(sums) < 1e-12] = 0
    return sums, np.bincount(of).astype(np.float64)


def _interval(
    values: np.ndarray, groups: Sequence[object] | None, resamples: int, seed: int, level: float
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values`` (videos,)."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}, expected within (0, 1) and at least 1")

    def mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.asarray(sums.sum(-1) / counts.sum(-1))

    units = _by_unit(values, groups)
    return bootstrap(mean, *units, resamples=resamples, seed=seed, level=level, vectorized=True)


def bootstrap(
    statistic: Callable[..., Any],
    *data: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = 0.95,
    vectorized: bool = False,
) -> tuple[float, float]:
    """Percentile interval of any statistic of paired arrays, their entries drawn together with replacement.

    Args:
        statistic: of as many arrays (n,); NaN where a draw has none, which is then left out.
        data: arrays (n,).
        resamples: draws.
        seed: of the draws: the same numbers give the same interval.
        level: share of the draws within the interval.
        vectorized: the statistic takes many draws at once, arrays (draws, n).
    """
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
            rng=seed,
        )
    low, high = np.nanquantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flips(sums: np.ndarray, seed: int) -> tuple[float, bool]:
    """Two-sided p and whether it is exact. A unit without a difference has no sign and is left out."""
    sums = sums[sums != 0]
    if len(sums) < 2:  # both signs of one are as far from 0
        return 1.0, True

    # Sums in another order differ in the last digits, and as far from 0 as was seen means that far, too.
    def distance(sums: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.abs(sums.sum(axis)).round(9)

    def flipped(size: tuple[int, int]) -> np.ndarray:
        return np.asarray((2.0 * rng.integers(0, 2, size, dtype=np.int8) - 1) * sums)

    sums, rng = sums / np.abs(sums).sum(), np.random.default_rng(seed)
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


def upper_bound(count: int, of: int, confidence: float = 0.95) -> float:
    """One-sided exact bound of a share (Clopper and Pearson, 1934), of which ``count`` of ``of`` were seen."""
    return float(stats.binomtest(count, of, alternative="less").proportion_ci(confidence).high)


def interval(each: Share) -> str:
    """Its interval in words; nothing where there is no video."""
    return "" if each.low is None else f"{each.low:.1%} to {each.high:.1%}"


def share_of(right: np.ndarray) -> Share:
    """Of a bool array."""
    return share(int(right.sum()), len(right))


def mean_class(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes with a video of the share of right predictions; both arrays (V,)."""
    counts = np.bincount(labels)
    found = np.bincount(labels, weights=right)
    return float((found[counts > 0] / counts[counts > 0]).mean())
