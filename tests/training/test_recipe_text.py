"""Recipes as text: what is written is read again, and mistakes are named by their key."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from peakzoom.training.recipe_text import KEYS, recipe_from_toml, recipe_to_toml, with_values
from peakzoom.training.recipes import MOST, RECIPES, Recipe, flat, small
from peakzoom.utils.errors import UserError

ALL = [make() for make in RECIPES.values()]


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_what_is_written_is_read_again(recipe: Recipe) -> None:
    again = recipe_from_toml(recipe_to_toml(recipe))
    assert again == recipe and repr(again) == repr(recipe)  # 1 is no 1.0, nor a list a tuple
    odd = replace(recipe, name='"é\\ 🙂', branches=("original",), augment=replace(recipe.augment, area=None))
    assert recipe_from_toml(recipe_to_toml(odd)) == odd


def test_what_is_left_out_has_its_default() -> None:
    stage = 'epochs = 3\noptimizer = "sgd"\nlr = 1\nfinal_lr = 0.5\n'
    recipe = recipe_from_toml(
        f'name = "mine"\nmodel = "i3d"\n[tcnn]\n{stage}[joint]\n{stage}clip_gradient = 2\n'
    )
    assert (recipe.stride, recipe.batch_size, recipe.preprocess.size) == (1, 16, 224)
    assert repr((recipe.tcnn.lr, recipe.tcnn.clip_gradient, recipe.joint.clip_gradient)) == "(1.0, None, 2.0)"


@pytest.mark.parametrize(
    "line,other,message",
    [
        ("batch_size = 16", "batchsize = 16", r"a recipe has no batchsize: did you mean batch_size\?$"),
        ("width = 1.0", "lr = 0.1", r"a recipe has no lr: did you mean tcnn.lr or joint.lr\?$"),
        ("width = 1.0", "shade = 1", "a recipe has no shade; peakzoom recipe small prints all keys$"),
        ('model = "tcnn_xs_local"', 'model = "tcnnxs"', r"model is 'tcnnxs', .* videomae_l.*: did you mean tcnn_xs\?$"),
        ('model = "tcnn_xs_local"', "", "does not say model$"),
        ("epochs = 50", "", "does not say tcnn.epochs$"),
        ("epochs = 50", "epochs = 50.0", "tcnn.epochs is 50.0, expected a whole number$"),
        ("epochs = 50", "epochs = 0", "tcnn.epochs is 0, expected 1 or more$"),
        ("epochs = 50", "epochs = true", "tcnn.epochs is True, expected a whole number$"),
        ("flip = true", 'flip = "yes"', "augment.flip is 'yes', expected true or false$"),
        ("lr = 0.002", 'lr = "fast"', "tcnn.lr is 'fast', expected a number$"),
        ("lr = 0.002", "lr = inf", "tcnn.lr is inf, expected more than 0$"),
        ("canvas = [108, 108]", "canvas = [108]", r"preprocess.canvas is \[108\], expected a list of 2 values$"),
        ("canvas = [108, 108]", "canvas = 108", "preprocess.canvas is 108, expected a list of 2 values$"),
        ("canvas = [108, 108]", "canvas = [64, 64]", r"canvas is \(64, 64\), expected two sides of at least 96"),
        ('optimizer = "adamw"', 'optimizer = "adam"', r"tcnn.optimizer is 'adam', .*: did you mean adamw\?$"),
        ('branches = ["original"]', 'branches = ["complement"]', "branches is 'complement', .* mean complementary"),
        ("[joint]", "[joint", "the recipe is no TOML: .*line"),
        ("[joint]", "[join]", "a recipe has no join.epochs: did you mean joint.epochs"),
    ],
)  # fmt: skip
def test_mistakes_are_named(line: str, other: str, message: str) -> None:
    text = recipe_to_toml(RECIPES["small"]())
    assert f"{line}\n" in text or line in text
    with pytest.raises(UserError, match=message) as caught:
        recipe_from_toml(text.replace(line, other, 1))
    assert "\n" not in str(caught.value)


def test_single_values() -> None:
    small = RECIPES["small"]()
    made = with_values(
        small,
        {
            "joint.lr": "1e-3", "batch_size": "8", "stride": "2", "preprocess.size": "64", "preprocess.fps": "12",
            "preprocess.canvas": "72, 96", "augment.flip": "false", "augment.area": "none", "name": "7",
            "branches": "original,complementary", "attention_per": "frame",
        },
    )  # fmt: skip
    assert made == replace(
        small,
        name="7",
        joint=replace(small.joint, lr=1e-3),
        preprocess=replace(small.preprocess, size=64, canvas=(72, 96), fps=12.0),
        augment=replace(small.augment, flip=False, area=None),
        batch_size=8,
        stride=2,
        branches=("original", "complementary"),
        attention_per="frame",
    )
    assert with_values(small, {}) == small and small == RECIPES["small"]()


@pytest.mark.parametrize(
    "key,text,message",
    [
        ("size", "64", r"has no size: did you mean preprocess.size\?$"),
        ("joint.rl", "1", r"has no joint.rl: did you mean joint.lr\?$"),
        ("preprocess", "1", "has no preprocess"),
        ("joint.lr", "", "joint.lr is '', expected a number"),
        ("batch_size", "none", "batch_size is 'none', expected a whole number"),
        ("augment.area", "0.5", "augment.area is .*, expected a list of 2 values"),
        ("augment.flip", "yes", "augment.flip is 'yes', expected true or false"),
        ("preprocess.size", "999", r"preprocess.canvas is \(108, 108\), expected two sides of at least 999"),
        ("dropout", "1", "dropout is 1.0, expected from 0 to less than 1"),
    ],
)
def test_single_mistakes(key: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_values(RECIPES["small"](), {key: text})


COUNTS = ("0", "-1")
ABOVE_ZERO = ("0.0", "-1.0", "nan", "inf")
NOT_NEGATIVE = ("-0.5", "nan", "inf")
SHARES = ("-0.1", "1.0", "3.0", "nan", "inf")
STAGE = {
    "epochs": COUNTS, "min_steps": ("-1",), "lr": ABOVE_ZERO, "final_lr": NOT_NEGATIVE, "warmup": SHARES,
    "weight_decay": NOT_NEGATIVE, "label_smoothing": SHARES, "clip_gradient": ABOVE_ZERO, "optimizer": ("adam", ""),
}  # fmt: skip
PAIRS = ("0.0,1.0", "-1.0,1.0", "1.0,0.5", "nan,1.0", "0.5,nan", "0.5,inf")
BAD = {
    **{f"{stage}.{key}": bad for stage in ("tcnn", "joint") for key, bad in STAGE.items()},
    **{f"preprocess.{key}": COUNTS for key in ("size", "frames", "zoom_source")},
    "preprocess.fps": ABOVE_ZERO,
    "preprocess.canvas": ("95,200", "200,95", "0,0"),
    "preprocess.mean": ("0.5,0.5,1.5", "nan,0.5,0.5"),
    "preprocess.std": ("0.0,0.5,0.5", "0.5,0.5,nan"),
    "augment.area": (*PAIRS, "0.5,1.5"),
    "augment.aspect": PAIRS,
    **{f"augment.{key}": ("-0.1", "1.5", "nan", "inf") for key in ("brightness", "contrast")},
    **dict.fromkeys(("batch_size", "max_stride", "stride"), COUNTS),
    **dict.fromkeys(("width", "reach"), ABOVE_ZERO),
    **dict.fromkeys(("dropout", "erase"), SHARES),
    "class_balance": NOT_NEGATIVE,
    **dict.fromkeys(("model", "attention_per", "response"), ("", "odd")),
    "branches": ("original,original", "original,complementary,original"),
}


@pytest.mark.parametrize("key", BAD)
def test_no_value_out_of_range_passes(key: str) -> None:
    for text in BAD[key]:
        with pytest.raises(UserError) as caught:
            with_values(RECIPES["small"](), {key: text})
        came = f"({text})" if "," in text and key != "branches" else text
        shown = (came.replace(",", ", "), f"'{text}'")
        sentence = str(caught.value)
        assert any(sentence.split(f"{key} is ")[-1].startswith(f"{each}, expected ") for each in shown), (
            sentence
        )
        assert "\n" not in sentence and len(sentence) < (
            330 if key == "model" else 220
        )  # it names all networks


@pytest.mark.parametrize("key", sorted(KEYS))
def test_any_value_of_any_key_gives_a_recipe_or_a_sentence(key: str) -> None:
    """What comes through can be made and trained with: no number is beyond what float32 can multiply."""
    numbers = ("1e38", "1e300", "1e400", "nan", "-inf", "-1", "0", 10**30, 10**400, 1e38, float("nan"), True)
    for value in (*numbers, 5000 * "9", "", "x", "[[]]", [], [None], [1e38, 1e38], {}, "1,2,3", None):
        try:
            made = flat(asdict(with_values(small(), {key: value})))[key]
        except UserError as error:
            made = str(error)
        assert "\n" not in str(made)
        assert not isinstance(made, int | float) or -1 <= made <= MOST
    for text in (f"{key} = {10**400}", f"{key} = {5000 * '['}"):
        with pytest.raises(UserError):
            recipe_from_toml(text)
