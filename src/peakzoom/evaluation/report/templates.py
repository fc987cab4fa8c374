"""The templates of the pages, and what they write values with."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from peakzoom.display.figures import BRANCH_COLOURS
from peakzoom.display.templates import templates
from peakzoom.evaluation.report.numbers import SHORT_NAMES
from peakzoom.utils.words import counted

NARROW, WIDE = (
    620,
    1200,
)  # pixels; a narrow picture always fits the page, a wide one is scrolled at its own size


def environment() -> jinja2.Environment:
    """The templates of this folder, with their filters; every value is escaped and stays on one line."""
    found = templates("peakzoom.evaluation.report")
    found.filters.update(
        percent=lambda value: "-" if value is None else f"{value:.1%}",
        number=lambda value: "-" if value is None else f"{value:.3f}",
        interval=lambda each: "-" if each.value is None else f"{each.low:.1%} - {each.high:.1%}",
        bounds=lambda each: "" if each is None else f"{each[0]:.1%} - {each[1]:.1%}",
        letter=SHORT_NAMES.get,
        counted=counted,
        places=_places,
        tail=lambda path: "/".join(Path(path).parts[-2:]),
    )
    found.globals["colours"] = {SHORT_NAMES[name].lower(): value for name, value in BRANCH_COLOURS.items()}
    return found


def embedded(file: Path) -> dict[str, str]:
    """A PNG as a page holds it: "data" in base 64, and its "size", "narrow", "wide" or empty."""
    content = file.read_bytes()
    width = int.from_bytes(content[16:20], "big")  # of a PNG's first chunk
    size = "wide" if width > WIDE else "narrow" if width <= NARROW else ""
    return {"data": base64.b64encode(content).decode(), "size": size}


def _places(places: Sequence[int], name: str) -> str:
    if len(places) == 1:
        return f"{name} {places[0]}"
    if len(places) > 3:  # all that there are
        return f"{name}s {places[0]} to {places[-1]}"
    return f"{name}s {', '.join(map(str, places[:-1]))} and {places[-1]}"
