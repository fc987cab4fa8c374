"""Which threshold is chosen, and what is measured of it, against scikit-learn and plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from peakzoom.data.entries import Entry
from peakzoom.evaluation.rejection import choose_rejection, measure_rejection
from peakzoom.evaluation.stats import bootstrap, separation
from peakzoom.inference.prediction import Confidence, Prediction
from peakzoom.utils.errors import UserError


def drawn(seed: int, count: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each prediction should be kept; the higher the likelier."""
    random = np.random.default_rng(seed)
    values = random.normal(size=count)
    if ties:
        values = values.round(0)
    return values, random.random(count) < 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [23, 40, 333])
def test_the_threshold_keeps_the_share(count: int, ties: bool, share: float) -> None:
    values, keep = drawn(count, count, ties)
    chosen = choose_rejection({"probability": values}, keep, share)
    kept = values >= chosen.threshold
    assert kept[keep].mean() >= share - 1e-12
    higher = values[values > chosen.threshold]
    # The next higher threshold that changes anything keeps too few.
    assert not len(higher) or (values[keep] > higher.min()).mean() < share
    assert chosen.aurocs["probability"] == pytest.approx(roc_auc_score(keep, values), abs=1e-12)


def test_the_measure_that_separates_better_is_taken() -> None:
    values, keep = drawn(1, 200, False)
    better = values + 2 * keep
    for measures, name in (
        ({"probability": values, "energy": better}, "energy"),
        ({"probability": better, "energy": values}, "probability"),
        ({"probability": values, "energy": values}, "probability"),
    ):
        assert choose_rejection(measures, keep).measure == name


@pytest.mark.parametrize(
    "keep", [[True] * 30, [False] * 30, [True] * 4 + [False] * 26, [True] * 26 + [False] * 4]
)
def test_too_few_to_choose(keep: list[bool]) -> None:
    with pytest.raises(
        UserError, match=r"predictions are right and \d+ should be rejected .*nothing was chosen"
    ) as error:
        choose_rejection({"energy": np.arange(30.0)}, np.array(keep))
    assert "\n" not in str(error.value)


def predictions(
    values: np.ndarray, right: np.ndarray, threshold: float, group: int | None
) -> tuple[list[Prediction], list[Entry]]:
    """Videos with these confidences; ``group`` is of so many videos each."""
    found, entries = [], []
    for number, (value, is_right) in enumerate(zip(values.tolist(), right.tolist(), strict=True)):
        path = Path(f"{number}.mp4")
        scores = {"fused": np.array([0.3, 0.7] if is_right else [0.6, 0.4])}
        confidence = Confidence("energy", value, threshold)
        found.append(Prediction(path, ["a", "b"], scores, {}, None, confidence=confidence))
        entries.append(Entry(path, 1, "test", None if group is None else str(number // group)))
    return found, entries


@pytest.mark.parametrize("group", [None, 1, 8])
def test_what_is_measured(group: int | None) -> None:
    values, right = drawn(5, 120, True)
    unknown = predictions(np.array([-3.0, -0.5, 2.0]), np.zeros(3, bool), 0.0, None)[0]
    found = measure_rejection(*predictions(values, right, 0.0, group), unknown)
    kept = values >= 0
    accuracy, auroc = found.accuracy_of_kept(), found.auroc()
    assert accuracy is not None and auroc is not None
    assert (found.kept.right, found.kept.videos) == (kept.sum(), 120) and found.accuracy == right.mean()
    assert accuracy[0] == right[kept].mean() and accuracy[1][0] < accuracy[0] < accuracy[1][1]
    every, keep = np.append(values, [-3, -0.5, 2]), np.append(right, [False] * 3)
    assert auroc[0] == pytest.approx(roc_auc_score(keep, every), abs=1e-12)
    assert auroc[1][0] < auroc[0] < auroc[1][1]
    assert (found.unknown.right, found.unknown.videos) == (2, 3)
    assert found.groups == (group is not None)
    summary = found.summary()
    assert summary["auroc"] == auroc[0] and summary["unknown_rejected"] == pytest.approx(2 / 3)
    assert all("\n" not in line for line in found.said())


def test_groups_are_drawn_whole() -> None:
    """Against a loop with the same draws; and groups of one video are no groups."""
    values, keep = drawn(9, 60, False)
    groups = [number // 5 for number in range(60)]
    low, high = bootstrap(separation, -values, ~keep, groups=groups)
    loop = []
    rng = np.random.default_rng(3)
    for _ in range(4000):
        places = np.concatenate([np.arange(5) + 5 * group for group in rng.integers(0, 12, 12)])
        loop.append(roc_auc_score(keep[places], values[places]))
    assert (low, high) == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.02)
    assert bootstrap(separation, -values, ~keep, groups=range(60)) == bootstrap(separation, -values, ~keep)


def test_where_there_is_nothing_to_measure() -> None:
    values = np.linspace(0, 1, 20)
    none_kept = measure_rejection(*predictions(values, values > 2, 5.0, None))
    assert (
        none_kept.accuracy_of_kept() is None and none_kept.auroc() is None and none_kept.unknown.value is None
    )
    assert any("none is kept" in line for line in none_kept.said())
    assert none_kept.summary()["accuracy_of_kept"] is None
