"""What results look like in a notebook: plain HTML without script, readable on light and on dark pages.

Nothing sets a text or page colour, so both are the notebook's own. Every name is escaped.
"""

from __future__ import annotations

from peakzoom.display.markup import escape_html

FOLDED = 30  # a longer list is folded away
LEFT = "text-align:left;padding:.2em .6em"
RIGHT = "text-align:right;padding:.2em .6em;font-variant-numeric:tabular-nums"


def _name(text: str) -> str:
    """Long ones break anywhere."""
    return f'<span style="overflow-wrap:anywhere;white-space:normal">{escape_html(text)}</span>'


def _row(words: list[str], figures: list[str], tag: str = "td") -> str:
    cells = [f'<{tag} style="{LEFT}">{cell}</{tag}>' for cell in words]
    cells += [f'<{tag} style="{RIGHT}">{cell}</{tag}>' for cell in figures]
    return f"<tr>{''.join(cells)}</tr>"


def _table(head: str, rows: list[str]) -> str:
    top = f"<thead>{head}</thead>" if head else ""
    return f'<table style="margin:.4em 0">{top}<tbody>{"".join(rows)}</tbody></table>'


def _folded(content: str, count: int, what: str) -> str:
    if count <= FOLDED:
        return content
    return f"<details><summary>{count} {what}</summary>{content}</details>"


def _block(*parts: str) -> str:
    return "".join(f"<div>{part}</div>" for part in parts)
