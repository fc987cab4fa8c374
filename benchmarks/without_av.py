"""A module in the place of PyAV, where that is not installed: it can be imported and not used.

Called ``sitecustomize.py`` in a folder of PYTHONPATH, every process has it from its start (``bare.py``).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class Nothing(type):
    """A class that has every attribute and means nothing by it."""

    def __getattr__(cls, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


class Empty(ModuleType):
    """A module that has every class, errors among them."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {}) if name.endswith("Error") else Nothing(name, (), {})


class InPlaceOfPyAV:
    """Finds ``av`` and all its parts, where nothing else has found them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "av" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = Empty(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


if find_spec("av") is None:
    sys.meta_path.append(InPlaceOfPyAV())
