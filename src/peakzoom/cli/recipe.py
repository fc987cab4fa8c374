"""``peakzoom recipe`` prints one as a file; and the recipe and the options of a training, from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.cli.options import MachineOptions, RecipeOptions
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.training.options import Options
    from peakzoom.training.recipes import Recipe

# What --set takes beside the keys of the recipe: options of a training that are rarely given.
OPTION_KEYS = {
    "accelerator": "auto, cpu, gpu, mps ...",
    "devices": "how many, or which; a process for each. auto: as torchrun started",
    "num_nodes": "how many machines",
    "sync_batch_norm": "true or false: whether batch norms see the clips of all GPUs",
    "cache": "auto, on or off: whether decoded frames are kept on disk",
    "patience": "epochs without a better validation after which a stage stops",
}


def recipe(
    name: Annotated[
        Literal["small", "spatial", "finetune", "paper", "quickstart"],
        typer.Argument(help="Which one.", show_default=False),
    ],
) -> None:
    """Print a recipe as TOML: all keys of --set with their values, to be edited and given as --recipe FILE.toml.

    Examples:
    - `peakzoom recipe small > kitchen.toml`
    - `peakzoom train clips/ --recipe kitchen.toml --out runs/first`
    """
    from peakzoom.training.recipe_text import recipe_to_toml
    from peakzoom.training.recipes import RECIPES

    print_result(recipe_to_toml(RECIPES[name]()))
    print_result("# --set also takes what is no part of a recipe:")
    for key, meaning in OPTION_KEYS.items():
        print_result(f"# {key}: {meaning}")


def recipe_and_options(
    wanted: RecipeOptions, machine: MachineOptions, model: str | None = None, **values: Any
) -> tuple[Recipe, Options]:
    """The recipe and the options of a training: each option stands for some of their values, ``--set`` for one.

    Raises:
        UserError: there is no such recipe, no such key, or a value is none that it can have.
    """
    from peakzoom.model.public import find_public
    from peakzoom.training.options import Options
    from peakzoom.training.recipe_text import KEYS, check_key, read_value, with_values
    from peakzoom.training.recipes import RECIPES
    from peakzoom.training.start import fitted

    public = find_public(values["weights"]) if values.get("weights") else None
    recipe = named = _named(wanted.recipe or ("finetune" if values.get("weights") else "small"))
    given = {**_changes(wanted), **_network(model)}
    if public:
        recipe = fitted(recipe, public)
        if not public.mirrors:
            given |= {"augment.flip": False} if wanted.augment else {}
        if wanted.recipe not in (None, *RECIPES):
            _say_what_is_replaced(public.name, str(wanted.recipe), named, recipe)
    stages = {"tcnn": (recipe.tcnn, wanted.epochs), "joint": (recipe.joint, wanted.joint_epochs)}
    for name, (stage, epochs) in stages.items():
        if epochs is not None:  # so many, however few the videos
            given |= {f"{name}.epochs": epochs, f"{name}.min_steps": 0}
        if wanted.lr is not None:
            given |= {f"{name}.lr": wanted.lr, f"{name}.final_lr": min(stage.final_lr, wanted.lr)}
    if wanted.size is not None:
        given["preprocess.size"] = wanted.size
    own = {*vars(wanted), *vars(machine), *values}
    for text in wanted.settings or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UserError(f"--set is {text!r}, expected KEY=VALUE, as dropout=0.2")
        if key in own and key not in (*KEYS, *OPTION_KEYS):
            raise UserError(f"--set has no {key}, which is an option: --{key.replace('_', '-')} {value}")
        check_key(key, (*KEYS, *OPTION_KEYS), "--set")
        if key == "preprocess.size" and wanted.size is not None:
            raise UserError(f"--size is {wanted.size} and --set preprocess.size is {value}: give one of them")
        if key in OPTION_KEYS:
            values[key] = read_value(get_type_hints(Options)[key], value, key)
        else:
            given[key] = value
    if "preprocess.size" in given and "preprocess.canvas" not in given:  # as large beside the input as it was
        size = read_value(int, given["preprocess.size"], "preprocess.size")
        scale = size / recipe.preprocess.size
        given["preprocess.canvas"] = [round(side * scale) for side in recipe.preprocess.canvas]
        if recipe.preprocess.short_side:
            given.setdefault("preprocess.short_side", round(recipe.preprocess.short_side * scale))
    changed = with_values(recipe, given)
    if public:
        _say_what_differs(public.name, recipe, changed)
    return changed, Options(**asdict(machine), **values)


def _network(model: str | None) -> dict[str, Any]:
    """Values of a recipe that ``--model`` stands for: a name, or a file of an architecture."""
    from peakzoom.model.backbones.architecture import ARCHITECTURE, read_architecture
    from peakzoom.model.backbones.own import allow

    if model is None:
        return {}
    if model.endswith(".json"):
        # Its channels are what it says they are.
        return {"model": ARCHITECTURE, "architecture": read_architecture(Path(model)), "width": 1.0}
    allow(model)  # who types the name of a network of their own lets it run
    return {"model": model}


def _changes(wanted: RecipeOptions) -> dict[str, Any]:
    """Values of a recipe that options with names of their own stand for, but for those of a stage."""
    from peakzoom.training.recipes import CHANGES, FROZEN_VIEWS, flat

    if wanted.freeze and wanted.lora:
        raise UserError(
            "--freeze and --lora exclude one another: the network keeps its weights, or they change"
        )
    named = {
        "batch_size": wanted.batch_size,
        "accumulate": wanted.accumulate,
        "lora": wanted.lora,
        "frozen_views": FROZEN_VIEWS if wanted.freeze else None,
        "distill": 1.0 if wanted.distill else None,
    }
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if wanted.zoom_source == "native":
        given["native_source"] = True
    elif wanted.zoom_source is not None:
        if not wanted.zoom_source.isdecimal():
            raise UserError(f"--zoom-source is {wanted.zoom_source!r}, expected a whole number, or native")
        given |= {"preprocess.zoom_source": wanted.zoom_source, "native_source": False}
    if wanted.augment is not None:
        of_clip, of_batch = CHANGES[wanted.augment]
        given |= flat({"augment": asdict(of_clip), "batch_augment": asdict(of_batch)})
    return given


def _say_what_differs(weights: str, own: Recipe, changed: Recipe) -> None:
    """What a user gives goes before what weights go with; what makes them meaningless the training refuses."""
    from peakzoom.training.recipes import flat

    there, here = flat(asdict(own)), flat(asdict(changed))
    for key, value in here.items():
        mirrors_less = key == "augment.flip" and not value  # which hurts no weights
        if value != there[key] and _is_of_weights(key) and not mirrors_less:
            say(f"{weights} goes with {key} {there[key]}; {value} was given and is taken")


def _say_what_is_replaced(weights: str, file: str, own: Recipe, fitted: Recipe) -> None:
    """What of a file's recipe is not taken, for weights bring their own."""
    from peakzoom.training.recipes import flat

    there, here = flat(asdict(own)), flat(asdict(fitted))
    if keys := [key for key, value in here.items() if value != there[key] and _is_of_weights(key)]:
        say(
            f"{weights} brings its own {', '.join(keys)}, in place of those in {file}; --set goes before both"
        )


def _is_of_weights(key: str) -> bool:
    """Whether public weights go with one value of a key."""
    return key in ("model", "width", "stride", "max_stride", "augment.flip") or key.startswith("preprocess.")


def as_set(option: str, words: Sequence[str]) -> str | None:
    """How an option that does not exist is given by ``--set``; None where that has no such key.

    Its value is looked for among the words of the command line.
    """
    from peakzoom.training.recipe_text import KEYS

    name = option.removeprefix("--").removeprefix("no-").replace("-", "_")
    keys = [key for key in (*KEYS, *OPTION_KEYS) if key.rpartition(".")[2] == name]
    after = next((word for before, word in pairwise(words) if before == option), "-")
    joined = next((word.partition("=")[2] for word in words if word.startswith(f"{option}=")), None)
    value = "false" if option.startswith("--no-") else joined or ("VALUE" if after.startswith("-") else after)
    return f"--set {min(keys, key=len)}={value}" if keys else None


def _named(name: str) -> Recipe:
    """A recipe of the package, or from a file."""
    from peakzoom.training.recipe_text import recipe_from_toml
    from peakzoom.training.recipes import RECIPES

    if name in RECIPES:
        return RECIPES[name]()
    try:
        return recipe_from_toml(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--recipe is {name!r}, expected {', '.join(RECIPES)}, or a file as 'peakzoom recipe small' prints it"
        ) from error
