"""Tables in Markdown files, between ``<!-- NAME -->`` and ``<!-- end -->``: how they are read, made and replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = dict[str, str]  # a cell by its column's heading


@dataclass(frozen=True)
class Table:
    """A table of a log.

    Attributes:
        made: the line above it: when, on which machine and by which command it was made; "" if there is none.
        rows: from top to bottom.
    """

    made: str
    rows: list[Row]


def read_tables(text: str) -> dict[str, Table]:
    """Every table between markers, by its name."""
    found = re.findall(r"^<!-- ([\w-]+) -->\n(.*?)^<!-- end -->$", text, re.DOTALL | re.MULTILINE)
    return {name: _table(block.strip().splitlines()) for name, block in found}


def _table(lines: Sequence[str]) -> Table:
    header, _, *rows = [_cells(line) for line in lines if line.startswith("|")] or [[], []]
    made = " ".join(line for line in lines if line and not line.startswith("|"))
    return Table(made, [dict(zip(header, row, strict=True)) for row in rows])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(cell: str) -> float:
    """The first figure of a cell, such as the median of "75 (75 to 76)"."""
    found = re.search(r"-?\d+(\.\d+)?", cell)
    if not found:
        raise ValueError(f"there is no figure in {cell!r}")
    return float(found[0])


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(header), "|---" * len(header) + "|", *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with other lines in the block of that name.

    Raises:
        ValueError: it has no block of that name, or several.
    """
    pattern = re.compile(rf"(^<!-- {re.escape(name)} -->\n).*?(^<!-- end -->$)", re.DOTALL | re.MULTILINE)
    if (count := len(pattern.findall(text))) != 1:
        raise ValueError(f"{count} blocks are named {name}, and one was expected")
    block = "\n".join(["", *lines, ""])
    return pattern.sub(lambda found: f"{found[1]}{block}\n{found[2]}", text)
