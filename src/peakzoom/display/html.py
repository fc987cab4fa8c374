"""What results look like in a notebook: plain HTML without script, readable on light and on dark pages.

Nothing sets a text or page colour, so both are the notebook's own. Every name is escaped.
"""

from __future__ import annotations

from peakzoom.display.markup import escape_html

FOLDED = 30  # a longer list is folded away
LEFT = "text-align:left;padding:.2em .6em"
RIGHT = "text-align:right;padding:.2em .6em;font-variant-numeric:tabular-nums"


def name_html(text: str) -> str:
    """A name as text; a long one breaks anywhere."""
    return f'<span style="overflow-wrap:anywhere;white-space:normal">{escape_html(text)}</span>'


def row_html(words: list[str], figures: list[str], tag: str = "td") -> str:
    """A row of a table: cells of HTML, words to the left and figures to the right."""
    cells = [f'<{tag} style="{LEFT}">{cell}</{tag}>' for cell in words]
    cells += [f'<{tag} style="{RIGHT}">{cell}</{tag}>' for cell in figures]
    return f"<tr>{''.join(cells)}</tr>"


def table_html(head: str, rows: list[str]) -> str:
    """A table of rows; without a head where that is empty."""
    top = f"<thead>{head}</thead>" if head else ""
    return f'<table style="margin:.4em 0">{top}<tbody>{"".join(rows)}</tbody></table>'


def folded_html(content: str, count: int, what: str) -> str:
    """HTML that is folded away where it lists more than ``FOLDED`` things."""
    if count <= FOLDED:
        return content
    return f"<details><summary>{count} {what}</summary>{content}</details>"


def block_html(*parts: str) -> str:
    """Pieces of HTML, one below the other."""
    return "".join(f"<div>{part}</div>" for part in parts)
