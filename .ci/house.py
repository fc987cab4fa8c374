"""Prints how the house stands, lines by room and what is over its bound: `make house`, and part of `make lint`.

The bounds are CONTRIBUTING's: a file has at most 400 lines, a public function at most 8 parameters, and a function over
60 lines stands below with its reason. No two files of tests have the same name, for pytest imports them by name alone.
Exits with 1 where a bound is broken.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[1] / "src" / "peakzoom"
TESTS = Path(__file__).resolve().parents[1] / "tests"
MOST_LINES, MOST_PARAMETERS, LONG = 400, 8, 60
# Functions over 60 lines, each with the reason why it reads better whole.
REASONS = {
    "apps.batch.label.label": "one run of an archive from top to bottom: find, skip what is done, start workers, count",
}


class Function(NamedTuple):
    where: str
    lines: int
    parameters: int
    public: bool


def functions(tree: ast.AST, where: str, public: bool = True, method: bool = False) -> Iterator[Function]:
    """All functions below a node; a class's __init__ counts as the class's own signature."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{where}.{node.name}", public and not node.name.startswith("_"), True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
            static = any(
                isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list
            )
            shown = public and (not node.name.startswith("_") or node.name == "__init__")
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            yield Function(f"{where}.{node.name}", lines, count - (method and not static), shown)
            yield from functions(node, f"{where}.{node.name}", False)
        else:
            yield from functions(node, where, public, method)


def main() -> None:
    rooms: Counter[str] = Counter()
    files: list[tuple[int, str]] = []
    found: list[Function] = []
    for file in sorted(SOURCE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        inner = file.relative_to(SOURCE)
        lines = len(text.splitlines())
        rooms[inner.parts[0] if len(inner.parts) > 1 else "(top)"] += lines
        files.append((lines, str(inner)))
        found += functions(ast.parse(text), ".".join(inner.with_suffix("").parts))
    for room, lines in rooms.most_common():
        print(f"{lines:7,}  {room}")
    print(
        f"{sum(rooms.values()):7,}  in all, {len(files)} files, the longest {max(files)[1]} with {max(files)[0]} lines"
    )

    # A command's parameters are its options, laid out for the command line by Typer.
    wrong = [
        f"{name} has {lines} lines, at most {MOST_LINES} are allowed"
        for lines, name in files
        if lines > MOST_LINES
    ]
    wrong += [
        f"{each.where} has {each.parameters} parameters, at most {MOST_PARAMETERS} are allowed"
        for each in found
        # A command's parameters are its options, which Typer lays out.
        if each.public and each.parameters > MOST_PARAMETERS and not each.where.startswith("cli.")
    ]
    long = {each.where: each.lines for each in found if each.lines > LONG}
    wrong += [
        f"{name} has {lines} lines: shorten it, or give the reason in {Path(__file__).name}"
        for name, lines in long.items()
        if name not in REASONS
    ]
    wrong += [
        f"{name} has a reason in {Path(__file__).name} and needs none" for name in REASONS if name not in long
    ]
    names = Counter(file.name for file in TESTS.rglob("test_*.py"))
    wrong += [f"{count} files of tests are named {name}" for name, count in names.items() if count > 1]
    for name in long:
        if name in REASONS:
            print(f"{long[name]:7}  {name}: {REASONS[name]}")
    for each in wrong:
        print(each, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
