"""Recipes as text: TOML that is printed, changed and read back, and single values such as ``joint.lr=1e-3``.

A recipe is flat: numbers, words and lists of them, some in the tables ``preprocess``, ``augment``, ``tcnn`` and
``joint``. Every value has one key, ``batch_size`` or ``joint.lr``. TOML knows no null; the word "none" stands for None.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from peakzoom.training.recipes import Recipe, check_recipe, flat
from peakzoom.utils.errors import UserError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NONE = "none"
EXPECTED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
TABLES: dict[str, Any] = {name: kind for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)}
# The type of every value by its key.
KEYS = flat(get_type_hints(Recipe) | {name: get_type_hints(kind) for name, kind in TABLES.items()})


def recipe_to_toml(recipe: Recipe) -> str:
    """Every value of a recipe on a line of its own; :func:`recipe_from_toml` reads the same recipe from them."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in asdict(recipe).items():
        if name in TABLES:
            tables += ["", f"[{name}]", *(f"{key} = {_written(each)}" for key, each in value.items())]
        else:
            lines.append(f"{name} = {_written(value)}")
    return "\n".join(lines + tables) + "\n"


def recipe_from_toml(text: str) -> Recipe:
    """Read a recipe; a value that is left out has its default in :mod:`peakzoom.training.recipes`.

    Raises:
        UserError: the text is no TOML, a key is unknown or missing, a value has the wrong type or is out of range.
    """
    try:
        return _recipe(flat(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the recipe is no TOML: {error}") from error


def with_values(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """A recipe with other values, given as text: ``{"joint.lr": "1e-3", "preprocess.canvas": "108,108"}``.

    Raises:
        UserError: a key is unknown, a value has the wrong type or is out of range.
    """
    changed = {key: _from_text(KEYS.get(key), text) for key, text in values.items()}
    return _recipe(flat(asdict(recipe)) | changed)


def check_key(key: str, known: Collection[str], whose: str) -> None:
    """UserError if a key is none of the known ones; it names the one that is meant."""
    if key not in known:
        same = [each for each in known if each.rpartition(".")[2] == key]
        raise UserError(f"{whose} has no {key}{did_you_mean(key, known, same)}")


def read_value(kind: Any, text: str, key: str) -> Any:
    """A value of a type from its text; UserError if it is none."""
    return _checked(kind, _from_text(kind, text), key)


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe of values by key, checked."""
    given: dict[str, dict[str, Any]] = {name: {} for name in ("", *TABLES)}
    for key, value in values.items():
        check_key(key, KEYS, "a recipe")
        table, _, name = key.rpartition(".")
        given[table][name] = _checked(KEYS[key], value, key)
    tables = {name: _filled(kind, given[name], f"{name}.") for name, kind in TABLES.items()}
    recipe: Recipe = _filled(Recipe, given[""] | tables)
    check_recipe(recipe)
    return recipe


def _filled(kind: type[Any], values: dict[str, Any], table: str = "") -> Any:
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"the recipe does not say {table}{field.name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(str(error)) from error


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if value is None or isinstance(value, str | bool):
        return json.dumps(NONE if value is None else value, ensure_ascii=False)
    return repr(value)


def _checked(kind: Any, value: Any, key: str) -> Any:
    """A value as its dataclass has it: lists become tuples, whole numbers do for numbers, "none" is None."""
    if NoneType in get_args(kind):
        return None if value in (None, NONE) else _checked(_without_none(kind), value, key)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        many = inner[-1] is Ellipsis
        if not isinstance(value, list | tuple) or not (many or len(value) == len(inner)):
            raise UserError(
                f"{key} is {value!r}, expected a list{'' if many else f' of {len(inner)} values'}"
            )
        return tuple(_checked(inner[0], each, key) for each in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{key} is {value!r}, expected {EXPECTED[kind]}")
    return value


def _without_none(kind: Any) -> Any:
    return next(each for each in get_args(kind) if each is not NoneType)


def _from_text(kind: Any, text: str) -> Any:
    """A value as TOML would have it; text that is none of its type stays text, which the check then refuses."""
    if NoneType in get_args(kind):
        kind = _without_none(kind)
    if text == NONE or kind in (str, None):
        return text
    if get_origin(kind) is tuple:
        return [_from_text(get_args(kind)[0], part.strip()) for part in text.strip("[]").split(",")]
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    with suppress(ValueError):
        return kind(text)
    return text
