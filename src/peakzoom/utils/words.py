"""Numbers with their nouns, in sentences and tables."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun; ``many`` where the plural is not regular.

    >>> counted(1, "video"), counted(2, "class"), counted(1200, "box"), counted(0, "category"), counted(3, "epoch")
    ('1 video', '2 classes', '1,200 boxes', '0 categories', '3 epochs')
    """
    return f"{number:,} {one if number == 1 else many or _plural(one)}"


def _plural(one: str) -> str:
    if one.endswith(("s", "x", "ch", "sh")) and one != "epoch":
        return one + "es"
    if one.endswith("y") and one[-2:-1] not in "aeiou":
        return one[:-1] + "ies"
    return one + "s"
