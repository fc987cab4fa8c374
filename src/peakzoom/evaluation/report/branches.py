"""What one branch says about another: where they disagree, and what the complementary one finds alone.

The Jensen-Shannon divergence is Lin's (1991), in bits, the mean over all pairs of branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np
from scipy import stats
from scipy.special import rel_entr

from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.stats import FEW, Share, bootstrap, separation, share, share_of

SURE, ENOUGH = 0.95, 20  # of so many other videos that are predicted as surely, the share that is right
MOST_DOUBTS = 20
LABEL_DOUBTFUL, UNSURE, WEAK = "label doubtful", "unsure", "agreed"


# Disagreement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Videos on which the branches give so many different predictions, and the fused accuracy on them."""

    answers: int
    top1: Share


@dataclass(frozen=True)
class Pair:
    """Two branches: videos with the same prediction from both, and their mean divergence in bits."""

    one: str
    two: str
    same: int
    divergence: float


@dataclass(frozen=True)
class Quantile:
    """Videos by divergence: least and greatest in bits, and the fused accuracy."""

    low: float
    high: float
    top1: Share


@dataclass(frozen=True)
class Doubt:
    """A video whose fused prediction is not its label; ``scores`` are those of what each branch predicts."""

    path: str
    label: str
    answers: dict[str, str]
    scores: dict[str, float]
    divergence: float
    kind: str


@dataclass(frozen=True)
class Disagreement:
    """How often branches differ, and what that says."""

    levels: list[Level]
    pairs: list[Pair]
    quantiles: list[Quantile]
    separation: (
        float | None
    )  # see :func:`separation`; None with fewer than ``FEW`` right or wrong predictions
    separation_low: float | None
    separation_high: float | None
    kinds: dict[str, int]
    doubts: list[Doubt]


def divergence(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over all pairs of (V, S), rows of sum 1, of the Jensen-Shannon divergence in bits, [0, 1]: float64 (V,)."""
    pairs = [_jensen_shannon(one, two) for one, two in combinations(distributions, 2)]
    return np.asarray(np.mean(pairs, axis=0))


def _jensen_shannon(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    middle = (one + two) / 2
    nats = (rel_entr(one, middle) + rel_entr(two, middle)).sum(1) / 2
    return np.asarray((nats / log(2)).clip(0, 1))


def disagreement(scores: Scores) -> Disagreement | None:
    """Where the branches differ; None with a single branch."""
    if len(scores.parts) < 2:
        return None
    right = scores.right("fused")
    predicted = np.stack([scores.means[name].argmax(1) for name in scores.parts], axis=1)
    different = np.array([len(set(row)) for row in predicted.tolist()])
    levels = [Level(count, share_of(right[different == count])) for count in range(1, len(scores.parts) + 1)]
    pairs = []
    for one, two in combinations(scores.parts, 2):
        first, second = scores.means[one], scores.means[two]
        same = int((first.argmax(1) == second.argmax(1)).sum())
        pairs.append(Pair(one, two, same, float(divergence([first, second]).mean())))
    apart = divergence([scores.means[name] for name in scores.parts])
    # Five parts where each gets FEW videos, fewer parts otherwise.
    parts = np.array_split(np.argsort(apart, kind="stable"), max(1, min(5, len(apart) // FEW)))
    quantiles = [
        Quantile(float(apart[part[0]]), float(apart[part[-1]]), share_of(right[part])) for part in parts
    ]
    value = low = high = None
    if min(int(right.sum()), int((~right).sum())) >= FEW:
        value = separation(apart, ~right)
        low, high = bootstrap(separation, apart, ~right)
    kinds, doubts = _doubts(scores, apart)
    return Disagreement(levels, pairs, quantiles, value, low, high, kinds, doubts)


def believed(scores: Scores) -> np.ndarray:
    """Whether predictions as sure as each video's are nearly always right, bool (V,).

    A prediction is as sure as the lowest of its branches' highest scores, where all branches and the fused prediction
    agree. It is believed where, of at least ``ENOUGH`` other videos that are predicted as surely or more so, the share
    ``SURE`` is right. A model that guesses has no such scores, however high they are.
    """
    stacked = np.stack([scores.means[name] for name in (*scores.parts, "fused")])
    agree = (stacked.argmax(2) == stacked.argmax(2)[0]).all(0)
    surety = np.where(agree, stacked.max(2).min(0), -1.0)
    right = scores.right("fused")
    found = np.zeros(len(surety), dtype=bool)
    for video in np.flatnonzero(agree).tolist():
        others = surety >= surety[video]
        others[video] = False
        found[video] = others.sum() >= ENOUGH and right[others].mean() >= SURE
    return found


def _doubts(scores: Scores, apart: np.ndarray) -> tuple[dict[str, int], list[Doubt]]:
    """Videos whose fused prediction is not the label: counts by kind, and those to look at first."""
    doubts, sure = [], believed(scores)
    for video in np.flatnonzero(~scores.right("fused")).tolist():
        rows = {name: scores.means[name][video] for name in (*scores.parts, "fused")}
        answers = {name: scores.classes[int(row.argmax())] for name, row in rows.items()}
        tops = {name: float(row.max()) for name, row in rows.items()}
        kind = LABEL_DOUBTFUL if sure[video] else WEAK
        if len(set(answers.values())) > 1:
            kind = UNSURE
        label = scores.classes[int(scores.labels[video])]
        doubts.append(Doubt(scores.paths[video], label, answers, tops, float(apart[video]), kind))
    surest = sorted(doubts, key=lambda each: -min(each.scores.values()))
    doubtful = [each for each in surest if each.kind == LABEL_DOUBTFUL]
    weak = [each for each in surest if each.kind == WEAK]
    unsure = sorted((each for each in doubts if each.kind == UNSURE), key=lambda each: -each.divergence)
    # Half of the list is kept for the videos on which branches differ, as far as there are any.
    kept = max(MOST_DOUBTS - len(unsure), MOST_DOUBTS // 2)
    counts = {LABEL_DOUBTFUL: len(doubtful), UNSURE: len(unsure), WEAK: len(weak)}
    return counts, [*doubtful[:kept], *unsure, *weak][:MOST_DOUBTS]


# Scenery ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneryRow:
    """A class with videos, and what the right predictions of each branch hint at."""

    name: str
    videos: int
    right: dict[str, int]
    hint: str  # "scenery?", "few videos" (fewer than ``FEW``, no conclusion) or empty


def _is_worse(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the first is right less often than the second, beyond chance; bool (V,) each."""
    lost, won = int((other & ~one).sum()), int((one & ~other).sum())
    return lost > won and float(stats.binomtest(lost, lost + won).pvalue) < 0.05


def scenery(scores: Scores) -> list[SceneryRow] | None:
    """Classes that the complementary view alone predicts as well as every other branch; None without that branch.

    "scenery?" means: at least ``FEW`` videos, as many right predictions by C as by each of the others, so many that
    guessing (one in S) lies below Wilson's interval, and C is worse than the fused prediction in the other classes (p
    below 0.05, sign test): where it is not, C sees what the others see, and says nothing about any class.
    """
    if "complementary" not in scores.parts or len(scores.parts) < 2:
        return None
    right = {name: scores.right(name) for name in scores.branches}
    rows = []
    for index in np.unique(scores.labels).tolist():
        here = scores.labels == index
        counts = {name: int(each[here].sum()) for name, each in right.items()}
        alone = share(counts["complementary"], int(here.sum()))
        hint = ""
        if alone.videos < FEW:
            hint = "few videos"
        elif (
            alone.right >= max(counts.values())
            and (alone.low or 0.0) > 1 / len(scores.classes)
            and _is_worse(right["complementary"][~here], right["fused"][~here])
        ):
            hint = "scenery?"
        rows.append(SceneryRow(scores.classes[index], alone.videos, counts, hint))
    return rows
