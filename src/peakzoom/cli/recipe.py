"""``peakzoom recipe`` prints one as a file; and the recipe and the options of a training, from a command line."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peakzoom.cli.console import answer
from peakzoom.cli.options import MachineOptions, NetworkOptions, RecipeOptions
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.training.options import Options
    from peakzoom.training.recipes import Recipe

# Options of a training that --set takes beside the keys of the recipe, because they are rarely needed; and what each
# expects.
OPTION_KEYS = {
    "cache": "auto, on or off: whether decoded frames are kept on disk",
    "patience": "after how many epochs without a better validation to stop, 1 or more",
    "num_nodes": "a number of machines, 1 or more",
    "sync_batch_norm": "true or false: whether batch norms see the clips of all processes",
}


def recipe(
    name: Annotated[Literal["small", "paper"], typer.Argument(help="Which one.", show_default=False)],
) -> None:
    """Print a recipe as TOML: all its values, to be edited and given back as --recipe FILE.toml.

    Example: `peakzoom recipe small > kitchen.toml`, then `peakzoom train clips/ --recipe kitchen.toml --out runs/first`
    """
    from peakzoom.training.recipe_text import recipe_to_toml
    from peakzoom.training.recipes import RECIPES

    answer(recipe_to_toml(RECIPES[name]()).rstrip())


def chosen_recipe(wanted: RecipeOptions, network: NetworkOptions | None = None) -> Recipe:
    """The recipe with what the command line changes: each option stands for some of its values, ``--set`` for one.

    Raises:
        UserError: there is no such recipe, no such key, or a value is none that the recipe can have.
    """
    from peakzoom.training.recipe_text import with_values

    recipe, network = _named(wanted.recipe), network or NetworkOptions()
    given: dict[str, object] = {
        "model": network.model,
        "width": network.width,
        "batch_size": wanted.batch_size,
        "stride": wanted.stride,
        "preprocess.frames": wanted.frames,
        "augment.flip": None if wanted.flip is None else str(wanted.flip).lower(),
        "tcnn.epochs": wanted.epochs,
        "joint.epochs": wanted.joint_epochs,
    }
    if wanted.epochs is not None:
        given["tcnn.min_steps"] = 0  # this many epochs, however few the videos
    if wanted.joint_epochs is not None:
        given["joint.min_steps"] = 0
    if wanted.lr is not None:
        for name, stage in (("tcnn", recipe.tcnn), ("joint", recipe.joint)):
            given |= {f"{name}.lr": wanted.lr, f"{name}.final_lr": min(stage.final_lr, wanted.lr)}
    if wanted.size is not None:
        pre = recipe.preprocess
        given["preprocess.size"] = wanted.size
        given["preprocess.canvas"] = ",".join(
            str(round(side * wanted.size / pre.size)) for side in pre.canvas
        )
    values = {key: str(value) for key, value in given.items() if value is not None}
    return with_values(
        recipe, values | {key: text for key, text in _pairs(wanted).items() if key not in OPTION_KEYS}
    )


def chosen_options(wanted: RecipeOptions, machine: MachineOptions, **values: Any) -> Options:
    """The options of a training: the machine's, those among ``--set``, and ``values``.

    Raises:
        UserError: ``--set`` has another value than expected.
    """
    from peakzoom.training.options import Options

    rare: dict[str, Any] = {
        key: _option(key, text) for key, text in _pairs(wanted).items() if key in OPTION_KEYS
    }
    return Options(**asdict(machine), **values, **rare)


def _option(key: str, text: str) -> str | int | bool:
    if key == "cache" and text in ("auto", "on", "off"):
        return text
    if key == "sync_batch_norm" and text in ("true", "false"):
        return text == "true"
    if key in ("patience", "num_nodes") and text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UserError(f"--set {key} is {text!r}, expected {OPTION_KEYS[key]}")


def _named(name: str) -> Recipe:
    """A recipe of the package, or from a file."""
    from peakzoom.training.recipe_text import recipe_from_toml
    from peakzoom.training.recipes import RECIPES

    if name in RECIPES:
        return RECIPES[name]()
    file = Path(name)
    if not file.is_file():
        raise UserError(
            f"--recipe is {name!r}, expected {', '.join(RECIPES)}, or a file, as 'peakzoom recipe small' prints it"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text: {error}") from error
    return recipe_from_toml(text)


def _pairs(wanted: RecipeOptions) -> dict[str, str]:
    """What ``--set`` gives, by its keys; the last of a key counts."""
    pairs = {}
    for text in wanted.settings or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set is {text!r}, expected KEY=VALUE, as dropout=0.2")
        key = key.strip()
        if key not in OPTION_KEYS and (meant := get_close_matches(key, OPTION_KEYS, n=1, cutoff=0.8)):
            raise UserError(f"--set knows no {key}: did you mean {meant[0]}?")
        pairs[key] = value.strip()
    return pairs
