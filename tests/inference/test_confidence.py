"""The confidence below which no class is named: what it is, and what its file must be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peakzoom.inference.early_exit import EarlyExit, Thresholds, Work
from peakzoom.inference.prediction import mean_energy
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.rejection import Rejection, read_rejection
from peakzoom.inference.temperature import Temperature
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

VIEWS = Views(clips=2, crops=1)


@pytest.mark.parametrize("shape", [(1, 2), (7, 3), (30, 101)])
@pytest.mark.parametrize("scale", [0.1, 5.0, 200.0])
def test_the_energy_is_the_mean_of_log_sums(shape: tuple[int, int], scale: float) -> None:
    logits = scale * torch.randn(shape, generator=torch.Generator().manual_seed(3))
    found = []
    for row in logits.tolist():
        most = max(row)
        found.append(most + math.log(sum(math.exp(each - most) for each in row)))
    assert mean_energy(logits) == pytest.approx(sum(found) / len(found), rel=1e-12, abs=1e-12)
    assert mean_energy(logits.flip(0)) == mean_energy(logits)  # in whatever order the views come


@pytest.mark.parametrize("measure", ["probability", "energy"])
def test_a_class_is_named_from_the_threshold_on(run: Path, clips: Path, measure: str) -> None:
    plain = load(run, "cpu")
    file = next(clips.rglob("test_*.mp4"))
    before = plain.predict(file, VIEWS)
    assert before.confidence is None and before.name == before.top(1)[0][0]
    assert "confidence" not in before.to_dict()
    value = {"probability": before.scores["fused"].max(), "energy": before.energy}[measure]
    for threshold, rejected in ((value, False), (np.nextafter(value, np.inf), True)):
        given = Rejection(measure, float(threshold), str(plain.weights), VIEWS)
        rejecting = Recognizer(plain.engine, plain.model, rejection=given)
        after = rejecting.predict(file)  # of the views that it is for
        assert after.confidence is not None and after.confidence.rejected is rejected
        assert after.name == (None if rejected else before.name)
        for name, scores in before.scores.items():
            np.testing.assert_array_equal(after.scores[name], scores)
        line = json.loads(json.dumps(after.to_dict()))
        expected = {"class": after.name, "confidence": value, "rejected": rejected}
        assert line == {**before.to_dict(), **expected}
        assert ("none of these" in after._repr_html_()) is rejected
        assert rejecting.settings(VIEWS) == {
            **plain.settings(VIEWS),
            "rejection": [measure, float(threshold)],
        }


def test_a_temperature_changes_no_rejection(run: Path, clips: Path) -> None:
    plain = load(run, "cpu")
    fitted = Temperature(0.05, str(plain.weights), VIEWS)
    for file in sorted(clips.rglob("test_*.mp4"))[:2]:
        found = plain.predict(file, VIEWS)
        given = Rejection("probability", float(found.scores["fused"].max()), str(plain.weights), VIEWS)
        both = Recognizer(plain.engine, plain.model, temperature=fitted, rejection=given).predict(file)
        assert both.confidence is not None and both.confidence.value == given.threshold
        assert both.scores["fused"].max() > found.scores["fused"].max()


def test_what_a_threshold_is_not_for(run: Path, clips: Path) -> None:
    plain = load(run, "cpu")
    file = next(clips.rglob("test_*.mp4"))
    given = Rejection("energy", 0.0, str(plain.weights), VIEWS)
    rejecting = Recognizer(plain.engine, plain.model, rejection=given)
    with pytest.raises(
        UserError,
        match=r"fitted for other views \(. x . of rule paper, not 3 x 1 of rule paper\): run",
    ):
        rejecting.predict(file, Views(clips=3, crops=1))
    for other in (replace(given, weights="others"), replace(given, precision="16-mixed")):
        with pytest.raises(
            UserError, match=r"other (weights|precision): run 'peakzoom calibrate --reject' again"
        ):
            Recognizer(plain.engine, plain.model, rejection=other)
    early = EarlyExit(Thresholds(1, 0.0), Work(1, 2), str(plain.weights), VIEWS)
    with pytest.raises(UserError, match="one of --reject and --cascade"):
        Recognizer(plain.engine, plain.model, early_exit=early, rejection=given)
    with pytest.raises(UserError, match=r"'peakzoom calibrate --reject RUN' makes it"):
        load(run, "cpu", reject=True)


@pytest.mark.parametrize(
    "harm",
    [
        lambda values: [], lambda values: {**values, "threshold": "x"}, lambda values: {**values, "measure": "guess"},
        lambda values: {**values, "clips": None}, lambda values: {**values, "threshold": 1e999},
        lambda values: {key: value for key, value in values.items() if key != "weights"},
    ],
)  # fmt: skip
def test_a_damaged_file(tmp_path: Path, harm: Callable[[dict[str, object]], object]) -> None:
    file, good = tmp_path / "rejection.json", Rejection("energy", -0.7, "a", VIEWS)
    file.write_text(json.dumps(good.to_dict()))
    assert read_rejection(file) == good
    file.write_text(json.dumps(harm(good.to_dict())))
    with pytest.raises(UserError, match=r"is damaged.*run 'peakzoom calibrate --reject' again") as error:
        read_rejection(file)
    assert "\n" not in str(error.value)
