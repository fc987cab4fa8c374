"""Names as text: on one line, and every letter shown as it is, in Markdown and in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table; the first ``left`` columns hold words, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def plain(text: str) -> str:
    r"""A name on one line, unprintable characters written out as \n and the like."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def to_markdown(grids: Sequence[Grid]) -> str:
    """Tables as GitHub's Markdown."""
    lines: list[str] = []
    for grid in grids:
        marks = ["---" if place < grid.left else "---:" for place in range(len(grid.header))]
        for row in (grid.header, marks, *grid.rows):
            cells = row if row is marks else map(escape_markdown, row)
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """A name for Markdown."""
    text = plain(text)
    for letter in "\\`*_[]|~#$":
        text = text.replace(letter, "\\" + letter)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_html(text: str) -> str:
    """A name for HTML."""
    return html.escape(plain(text))
