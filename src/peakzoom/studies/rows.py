"""The rows of a study's table: accuracies, paired comparisons and costs of its arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peakzoom.evaluation.stats import accuracy, bootstrap_interval, compare, pool
from peakzoom.inference.cost import Timing, multiply_adds, parameters, time_per_clip
from peakzoom.studies.arms import Arm
from peakzoom.studies.predictions import ArmPrediction, Key, complete, likelihoods, outcomes
from peakzoom.studies.tables import Row
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import build
from peakzoom.utils.errors import UserError


@dataclass(frozen=True)
class Cost:
    """What one arm's network costs for one clip."""

    macs: float  # G multiply-adds
    parameters: int
    timing: Timing


def costs(arms: Sequence[Arm], recipe: Recipe, classes: Sequence[str], rounds: int = 7) -> dict[Key, Cost]:
    """Multiply-adds, parameters and measured time of each arm, untrained, on this machine."""
    frames, size = recipe.preprocess.frames, recipe.preprocess.size
    networks = {arm.key: build(arm.recipe(recipe), classes, joint=True) for arm in arms}
    timings = time_per_clip({repr(key): network for key, network in networks.items()}, frames, size, rounds)
    return {
        key: Cost(multiply_adds(network, frames, size), parameters(network), timings[repr(key)])
        for key, network in networks.items()
    }


def table(
    predictions: Sequence[ArmPrediction],
    arms: Sequence[Arm],
    names: Mapping[Key, str],
    baselines: Mapping[Key, Key],
    measured: Mapping[Key, Cost] | None = None,
) -> list[Row]:
    """One row an arm, over the folds and seeds that all of them have.

    Args:
        predictions: of the study.
        arms: the rows, in this order.
        names: what to call them.
        baselines: for an arm, the one that it is compared with, video by video.
        measured: what they cost, where that was measured.

    Raises:
        UserError: no fold and seed has every row yet.
    """
    kept = complete(predictions, [arm.key for arm in arms])
    if not kept:
        raise UserError("no fold has every row of the table yet: go on with the same command")
    rows = []
    for arm in arms:
        own, baseline = outcomes(kept, arm.key), baselines.get(arm.key)
        pooled = accuracy(own)
        test = compare(own, outcomes(kept, baseline)) if baseline else None
        cost = (measured or {}).get(arm.key)
        rows.append(
            Row(
                label=names[arm.key],
                model=arm.model,
                branches=arm.branches,
                runs=len(own),
                accuracy=pooled.mean,
                spread=pooled.spread,
                interval=bootstrap_interval(pool(own).right),
                branch_accuracies={
                    name: accuracy(outcomes(kept, arm.key, name)).mean for name in (*arm.branches, "fused")
                },
                nll=-float(np.mean(list(likelihoods(kept, arm.key).values()))),
                macs=cost.macs if cost else None,
                parameters=cost.parameters if cost else None,
                ms=cost.timing.range if cost else None,
                difference=test.difference if test else None,
                difference_interval=test.interval if test else None,
                p=test.p if test else None,
                baseline=names[baseline] if baseline else None,
            )
        )
    return rows
