"""Names as text: on one line, and every letter shown as it is, in Markdown and in HTML."""

from __future__ import annotations

import html

from peakzoom.utils.errors import printable


def escape_markdown(text: str) -> str:
    """A name for Markdown."""
    text = printable(text)
    for letter in "\\`*_[]|~#$":
        text = text.replace(letter, "\\" + letter)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_html(text: str) -> str:
    """A name for HTML."""
    return html.escape(printable(text))
