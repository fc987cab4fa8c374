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
from difflib import get_close_matches
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
# The type of every value by its key. The frame stride is the recipe's own: it may hang on the data.
KEYS = flat(get_type_hints(Recipe) | {name: get_type_hints(kind) for name, kind in TABLES.items()})
del KEYS["preprocess.stride"]


def recipe_to_toml(recipe: Recipe) -> str:
    """Every value of a recipe on a line of its own; :func:`recipe_from_toml` reads the same recipe from them."""
    values = asdict(recipe)
    lines = [f"{name} = {_written(value)}" for name, value in values.items() if name not in TABLES]
    for name in TABLES:
        keys = (key for key in values[name] if f"{name}.{key}" in KEYS)
        lines += ["", f"[{name}]", *(f"{key} = {_written(values[name][key])}" for key in keys)]
    return "\n".join(lines) + "\n"


def recipe_from_toml(text: str) -> Recipe:
    """Read a recipe; a value that is left out has its default in :mod:`peakzoom.training.recipes`.

    Raises:
        UserError: the text is no TOML, a key is unknown or missing, a value has the wrong type or is out of range.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, too many digits, lists within lists
        raise UserError(f"the recipe is no TOML: {error}") from error
    return _recipe(flat(values))


def with_values(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """A recipe with other values, as they are or as text: ``{"joint.lr": "1e-3", "preprocess.canvas": "108,108"}``.

    Raises:
        UserError: a key is unknown, a value has the wrong type or is out of range.
    """
    own = {key: value for key, value in flat(asdict(recipe)).items() if key in KEYS}
    return _recipe({**own, **values})


def check_key(key: str, known: Collection[str], whose: str) -> None:
    """UserError if a key is none of the known ones; it names the one that is meant."""
    if key not in known:
        table, _, name = key.rpartition(".")
        last = {each: each.rpartition(".")[2] for each in known}
        names = [name] if name in last.values() else get_close_matches(name, last.values(), n=1)
        like = [each for each in known if last[each] in names]
        if table:  # one of them, in the table that is most like it
            like = get_close_matches(key, like, n=1, cutoff=0.0)
        meant = did_you_mean(key, known, like)
        raise UserError(f"{whose} has no {key}{meant or '; peakzoom recipe small prints all keys'}")


def read_value(kind: Any, value: Any, key: str) -> Any:
    """A value as its dataclass has it, from TOML or from text: lists become tuples, "none" is None.

    Raises:
        UserError: it is no such value.
    """
    if NoneType in get_args(kind):
        if value in (None, NONE):
            return None
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        parts = [part.strip() for part in value.strip("[]").split(",")] if isinstance(value, str) else value
        many = inner[-1] is Ellipsis
        if not isinstance(parts, list | tuple) or not (many or len(parts) == len(inner)):
            size = "" if many else f" of {len(inner)} values"
            raise UserError(f"{key} is {value!r}, expected a list{size}")
        return tuple(read_value(inner[0], part, key) for part in parts)
    if type(value) is kind:
        return value
    if kind is float and type(value) is int and abs(value) < 10**300:  # more is no float
        return float(value)
    if isinstance(value, str):
        with suppress(ValueError, KeyError):
            return {"true": True, "false": False}[value] if kind is bool else kind(value)
    raise UserError(f"{key} is {value!r}, expected {EXPECTED[kind]}")


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe of values by key, checked."""
    given: dict[str, dict[str, Any]] = {name: {} for name in ("", *TABLES)}
    for key, value in values.items():
        check_key(key, KEYS, "a recipe")
        table, _, name = key.rpartition(".")
        given[table][name] = read_value(KEYS[key], value, key)
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
