"""The blocks of a page, and how they are written: as GitHub's Markdown, and as one HTML file with its pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """``level`` 1 is the page's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table; the first ``left`` columns hold words, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    fold: str = ""  # what a long table is called where the page folds it away


@dataclass(frozen=True)
class Picture:
    """A PNG beside the page."""

    file: str
    alt: str


Block = Heading | Text | Grid | Picture


def plain(text: str) -> str:
    r"""A name on one line, unprintable characters written out as \n and the like."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# Markdown --------------------------------------------------------------------------------------------------------


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as GitHub's Markdown, every letter of a name shown as it is."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            lines += ["#" * block.level + " " + escape_markdown(block.text), ""]
        elif isinstance(block, Text):
            lines += [escape_markdown(block.text), ""]
        elif isinstance(block, Picture):
            lines += [f"![{escape_markdown(block.alt)}]({block.file})", ""]
        else:
            marks = ["---" if place < block.left else "---:" for place in range(len(block.header))]
            for row in (block.header, marks, *block.rows):
                cells = row if row is marks else map(escape_markdown, row)
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """A name that shows every letter as it is, in Markdown."""
    text = plain(text)
    for letter in "\\`*_[]|~#$":
        text = text.replace(letter, "\\" + letter)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# HTML ------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2933; --muted: #616e7c; --line: #d9e0e6;
  --stripe: #f5f7fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e4e7eb; --muted: #9aa5b1; --line: #323f4b;
  --stripe: #1c232b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
.words { text-align: left; white-space: normal; min-width: 5rem; }
tbody tr:nth-child(even) { background: var(--stripe); }
summary { cursor: pointer; color: var(--muted); margin: 1rem 0 0; }
figure { margin: 1rem 0; overflow-x: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
figure img { display: block; max-width: 100%; height: auto; }
figure img.large { max-width: none; }
figcaption { padding: .3rem .7rem; font-size: .85rem; color: #616e7c; }
@media print { details > * { display: block; } figure img.large { max-width: 100%; } }
"""
FOLDED_ROWS = 30  # a longer table is folded away
WIDE_PICTURE = 1200  # pixels; a wider one is scrolled instead of made small


def to_html(blocks: Sequence[Block], pictures: Path) -> str:
    """The page as one file; ``pictures`` is the folder with the PNGs."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html_block(block, pictures) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html_block(block: Block, pictures: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape_html(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{escape_html(block.text)}</p>"
    if isinstance(block, Picture):
        content = (pictures / block.file).read_bytes()
        width = int.from_bytes(content[16:20], "big")  # of a PNG's first chunk
        kind = ' class="large"' if width > WIDE_PICTURE else ""
        alt = escape_html(block.alt)
        source = base64.b64encode(content).decode()
        return (
            f'<figure><img{kind} alt="{alt}" src="data:image/png;base64,{source}">'
            f"<figcaption>{alt}</figcaption></figure>"
        )
    rows = [_html_row(block.header, block.left, "th")] + [
        _html_row(row, block.left, "td") for row in block.rows
    ]
    table = f'<div class="scroll"><table>\n<thead>{rows[0]}</thead>\n<tbody>\n' + "\n".join(rows[1:])
    table += "\n</tbody>\n</table></div>"
    if block.fold and len(block.rows) > FOLDED_ROWS:
        return f"<details><summary>{escape_html(block.fold)}</summary>{table}</details>"
    return table


def _html_row(cells: Sequence[str], left: int, tag: str) -> str:
    kinds = [' class="words"' if place < left else "" for place in range(len(cells))]
    return (
        "<tr>"
        + "".join(
            f"<{tag}{kind}>{escape_html(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        + "</tr>"
    )


def escape_html(text: str) -> str:
    """The same in HTML."""
    return html.escape(plain(text))
