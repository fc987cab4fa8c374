"""How long a training still takes: of both stages, and before an epoch has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peakzoom.data.entries import Entry
from peakzoom.data.loading import ClipDataset, ViewMaker
from peakzoom.model.config import BRANCHES
from peakzoom.training import time_left
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.stage import StageRun, _later
from peakzoom.training.time_left import TimeLeft


@pytest.mark.parametrize(("later", "first"), [(0, "4 min left"), (120, "8 min left for both stages")])
def test_it_is_said_once_in_the_first_epoch_and_then_falls(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], later: int, first: str
) -> None:
    """40 batches an epoch, 2 seconds each; one epoch of four was done before."""
    now = 0.0
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now)
    trainer: Any = SimpleNamespace(
        max_epochs=4, current_epoch=1, num_training_batches=40, is_global_zero=True
    )
    left = TimeLeft("tcnn", later)
    left.on_train_start(trainer, None)
    seconds = []
    for number in range(120):
        now += 2.0
        left.on_train_batch_end(trainer, None, None, None, number)
        seconds.append(left.seconds)
        assert len(said()) == (now >= time_left.FIRST_SAID)
    assert said() == [f"tcnn: about {first}"]
    assert seconds == pytest.approx([2.0 * (120 - done + later) for done in range(1, 121)])


def test_a_training_of_short_epochs_says_it_in_their_lines_alone(said: Callable[[], list[str]]) -> None:
    trainer: Any = SimpleNamespace(max_epochs=1, current_epoch=0, num_training_batches=3, is_global_zero=True)
    left = TimeLeft("joint", 0)
    left.on_train_start(trainer, None)
    for number in range(3):
        left.on_train_batch_end(trainer, None, None, None, number)
    assert said() == [] and left.said == "about 0 s left"


def test_what_stage_2_comes_to(tiny: Recipe) -> None:
    """Each branch is a pass; few videos make more epochs of it."""
    videos = ClipDataset([Entry(Path("a.mp4"), 0)] * 13, ViewMaker(tiny.preprocess))
    recipe = replace(tiny, joint=replace(tiny.joint, epochs=5), branches=BRANCHES)

    def batches(name: str = "tcnn", recipe: Recipe = recipe, **options: Any) -> int:
        return _later(StageRun(name, Path(), recipe, Options(**options), videos, None), steps=3)

    assert batches() == 5 * 3 * 3
    assert batches(recipe=replace(recipe, branches=BRANCHES[:1])) == 5 * 3
    assert batches(recipe=replace(recipe, joint=replace(recipe.joint, min_steps=31))) == 11 * 3 * 3
    assert batches("joint") == batches(steps=("tcnn",)) == 0
