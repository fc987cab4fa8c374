"""Recipes: the paper's numbers as printed, and recipes that can be built and written down."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.training.recipes import RECIPES, Recipe, paper
from peakzoom.video.views import Preprocess

ALL = {name: make() for name, make in RECIPES.items()}


def test_the_paper_s_recipe_is_section_3_1() -> None:
    recipe = paper()
    for stage in (recipe.tcnn, recipe.joint):
        assert (stage.optimizer, stage.epochs, stage.lr, stage.final_lr) == ("sgd", 150, 0.1, 1e-4)
        assert stage.weight_decay == 4e-5
        assert (stage.warmup, stage.label_smoothing, stage.min_steps) == (0, 0, 0)
        assert stage.clip_gradient is None
    assert (recipe.model, recipe.batch_size, recipe.dropout, recipe.stride) == ("tcnn_local", 16, 0.5, 1)
    assert recipe.preprocess == Preprocess()
    assert recipe.augment.area is None and recipe.augment.flip
    assert (recipe.augment.brightness, recipe.augment.contrast) == (0, 0)
    assert recipe.class_balance == 0 and not recipe.same_rate
    assert (recipe.attention_per, recipe.response, recipe.erase) == ("frame", "gate", 0)
    assert recipe.branches == BRANCHES


@pytest.mark.parametrize("name", ALL)
def test_recipes_hold_together(name: str) -> None:
    recipe = ALL[name]
    assert recipe.name == name
    assert recipe.model in BACKBONES
    pre = recipe.preprocess
    assert min(pre.canvas) >= pre.size
    for stage in (recipe.tcnn, recipe.joint):
        assert stage.epochs >= 1 and 0 < stage.final_lr <= stage.lr and 0 <= stage.warmup < 1
    json.dumps(asdict(recipe))  # it goes into config.json
    model = PeakZoom(recipe.model, 2)  # docs/choices.md: at least 6 x 6 cells
    assert pre.size // model.backbone.cells.stride[1] >= 6


def test_recipes_are_made_anew() -> None:
    for make in RECIPES.values():
        assert isinstance(make(), Recipe) and make() == make()
