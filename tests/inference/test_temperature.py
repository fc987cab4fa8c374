"""Temperature scaling: what it leaves, what it finds, what it was not made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peakzoom.evaluation.calibrate import best_temperature, fitted_temperature, surprise
from peakzoom.inference.early_exit import EarlyExit, Thresholds, Work
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.temperature import Temperature, read_temperature, tempered
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

VIEWS = Views(clips=2, crops=1)


def drawn(temperature: float, videos: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are right as often as they would be at another temperature."""
    random = np.random.default_rng(0)
    scores = random.dirichlet([0.5] * 4, videos)
    true = tempered(scores, temperature)
    return scores, (true.cumsum(1) > random.random((videos, 1))).argmax(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature: float) -> None:
    scores, labels = drawn(temperature)
    found = fitted_temperature(scores, labels)
    assert found == best_temperature(scores, labels) == pytest.approx(temperature, rel=0.12)
    at = tempered(scores, found)
    assert surprise(at, labels) <= surprise(scores, labels)
    top = at.max(1)
    assert top.mean() == pytest.approx((at.argmax(1) == labels).mean(), abs=0.02)  # it means what it says


def test_what_is_left_as_it_was() -> None:
    scores, _ = drawn(1.0, 50)
    assert np.allclose(tempered(scores, 1.0), scores, atol=1e-12)
    for temperature in (0.05, 0.7, 5.0):
        at = tempered(scores, temperature)
        assert np.allclose(at.sum(1), 1) and (at.argsort(1) == scores.argsort(1)).all()
    assert tempered(np.array([0.0, 1.0]), 0.05).tolist() == [0.0, 1.0]


def test_videos_that_cannot_tell_one() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert fitted_temperature(scores, scores.argmax(1)) is None
    assert fitted_temperature(scores, scores.argmin(1)) is None


def test_the_fused_scores_alone_change(run: Path, clips: Path) -> None:
    plain = load(run, "cpu")
    fitted = Temperature(0.5, str(plain.weights), VIEWS)
    calibrated = Recognizer(plain.engine, plain.model, temperature=fitted)
    file = next(clips.rglob("test_*.mp4"))
    before, after = plain.predict(file, VIEWS), calibrated.predict(file)
    assert after.scores["fused"].tolist() == tempered(before.scores["fused"], 0.5).tolist()
    assert after.scores["original"].tolist() == before.scores["original"].tolist()
    assert [name for name, _ in after.top()] == [name for name, _ in before.top()]
    assert calibrated.settings(VIEWS) == {**plain.settings(VIEWS), "temperature": 0.5}
    with pytest.raises(UserError, match="fitted for other views"):
        calibrated.predict(file, Views(clips=3, crops=1))
    for other in (replace(fitted, weights="others"), replace(fitted, precision="16-mixed")):
        with pytest.raises(
            UserError, match=r"fitted for other (weights|precision): run 'peakzoom calibrate' again"
        ):
            Recognizer(plain.engine, plain.model, temperature=other)
    early = EarlyExit(Thresholds(1, 0.0), Work(1, 2), str(plain.weights), VIEWS)
    with pytest.raises(UserError, match="one of --calibrated and --cascade"):
        Recognizer(plain.engine, plain.model, early_exit=early, temperature=fitted)


@pytest.mark.parametrize(
    "harm",
    [
        lambda values: [], lambda values: {**values, "temperature": 0}, lambda values: {**values, "temperature": "x"},
        lambda values: {**values, "clips": None}, lambda values: {**values, "rule": "none"},
        lambda values: {**values, "temperature": 1e999},
    ],
)  # fmt: skip
def test_a_damaged_file(tmp_path: Path, harm: Callable[[dict[str, object]], object]) -> None:
    file, good = tmp_path / "temperature.json", Temperature(0.7, "a", VIEWS)
    with pytest.raises(UserError, match="'peakzoom calibrate RUN' makes it"):
        read_temperature(file)
    file.write_text(json.dumps(good.to_dict()))
    assert read_temperature(file) == good
    file.write_text(json.dumps(harm(good.to_dict())))
    with pytest.raises(UserError, match=r"is damaged.*run 'peakzoom calibrate' again") as error:
        read_temperature(file)
    assert "\n" not in str(error.value)
