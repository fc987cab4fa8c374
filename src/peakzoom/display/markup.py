"""Names as text: on one line, and every letter shown as it is, in Markdown and in HTML."""

from __future__ import annotations

import html


def plain(text: str) -> str:
    r"""A name on one line, unprintable characters written out as \n and the like."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def escape_markdown(text: str) -> str:
    """A name for Markdown."""
    text = plain(text)
    for letter in "\\`*_[]|~#$":
        text = text.replace(letter, "\\" + letter)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_html(text: str) -> str:
    """A name for HTML."""
    return html.escape(plain(text))
