"""``print(prediction)``: three lines, whatever is known of the video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peakzoom.inference.prediction import Confidence, Effort, Prediction

SCORES = np.array([0.1, 0.7, 0.2])
VIEWS = np.tile(SCORES.astype(np.float32), (6, 1))
PLAIN = Prediction(Path("a/b.mp4"), ["nod", "wave", "kick"], {"fused": SCORES}, {"fused": VIEWS}, None)
BRANCHES = {"original": SCORES, "discriminative": SCORES, "fused": SCORES}
SURE = Confidence("probability", 0.7, 0.6)


@pytest.mark.parametrize(
    "prediction,first,last",
    [
        (PLAIN, "a/b.mp4: wave", "6 views"),
        (replace(PLAIN, scores=BRANCHES), "a/b.mp4: wave", "6 views, branches original, discriminative"),
        (replace(PLAIN, problem="breaks off"), "a/b.mp4: wave", "6 views; breaks off"),
        (replace(PLAIN, views={}, effort=Effort(4, 2)), "a/b.mp4: wave", "4 views, 2 of them in stage 2"),
        (
            replace(PLAIN, confidence=SURE),
            "a/b.mp4: wave (largest probability 0.7000, not below 0.6000)",
            "6 views",
        ),
        (
            replace(PLAIN, confidence=SURE._replace(threshold=0.8)),
            "a/b.mp4: none of these (largest probability 0.7000, below 0.8000)",
            "6 views",
        ),
        (replace(PLAIN, thresholds=(0.9, 0.5, 0.2)), "a/b.mp4: wave;kick", "6 views"),
        (replace(PLAIN, path=Path("a\nb.mp4")), "a\\nb.mp4: wave", "6 views"),
    ],
)
def test_three_lines(prediction: Prediction, first: str, last: str) -> None:
    assert str(prediction).split("\n") == [first, "  wave 0.700, kick 0.200, nod 0.100", f"  {last}"]


def test_a_guess_is_called_one() -> None:
    unsure = replace(PLAIN, scores={"fused": np.array([0.3, 0.36, 0.34])})
    assert str(unsure).split("\n")[0] == "a/b.mp4: wave (not sure: hardly above a guess)"
