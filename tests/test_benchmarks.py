"""The programs beside the package, which nothing else runs: each name that they import from it is there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from peakzoom.utils.extras import missing_extra

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "benchmarks", ROOT / "scripts", ROOT / "docs" / "make", ROOT / ".ci")
PROGRAMS = sorted(file for folder in FOLDERS for file in folder.rglob("*.py"))


def imported(file: Path) -> list[tuple[str, str | None]]:
    """Modules of peakzoom that a file imports anywhere in it, and the name from each; None for the module itself."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "peakzoom":
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names if alias.name.split(".")[0] == "peakzoom"]
    return found


def is_there(module: str, name: str | None) -> bool:
    """Whether a module has a name or a submodule of it; true where an extra that the module needs is missing."""
    try:
        if name is None or not hasattr(importlib.import_module(module), name):
            importlib.import_module(module if name is None else f"{module}.{name}")
        return True
    except ModuleNotFoundError as error:
        return missing_extra(error, module) is not None


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_program_imports_is_there(file: Path) -> None:
    missing = [
        module if name is None else f"{module}.{name}"
        for module, name in imported(file)
        if not is_there(module, name)
    ]
    assert not missing


def test_a_name_that_is_not_there_is_found(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        "from peakzoom.apps.batch.table import row_without_answer, schema\nimport peakzoom.gone\n"
    )
    assert [is_there(*each) for each in imported(file)] == [False, True, False]
