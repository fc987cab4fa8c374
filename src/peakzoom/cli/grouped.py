"""Options in groups: a command takes a dataclass as one parameter, and its fields are options of the command.

Typer reads a command's options from its signature. :func:`grouped` gives the command a signature in which every group
is replaced by its fields, and makes the groups again from the values that come in.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its dataclass parameters as options of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not dataclasses.is_dataclass(kind := hints[name]):
            flat[name] = parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY)
            continue
        assert isinstance(kind, type)
        groups[name] = kind
        inner = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            assert field.name not in flat, f"two options are called {field.name}"
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            flat[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=inner[field.name]
            )

    def call(**values: Any) -> None:
        filled = {
            name: kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **filled)

    call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
    call.__annotations__ = {name: parameter.annotation for name, parameter in flat.items()}
    call.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]
    return call
