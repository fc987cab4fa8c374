"""Pages of one file from Jinja2's templates: the report, and what a watch leaves as evidence."""

from __future__ import annotations

from typing import Any

import jinja2

from peakzoom.utils.errors import printable


def templates(package: str) -> jinja2.Environment:
    """The templates that lie in a package; every value is escaped and stays on one line, a missing one is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        finalize=_on_one_line,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _on_one_line(value: Any) -> Any:
    """Whatever the template shows: names of files and classes may hold line breaks and the like."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
