"""Plain data from JSON files, which may be damaged or come from anyone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peakzoom.utils.errors import UserError, first_line

MOST_BYTES = 2**26  # a million names


def read_object(file: Path) -> dict[str, Any]:
    """The values by name in a JSON file.

    Raises:
        UserError: it is missing, is no regular file, cannot be read, is no JSON, or holds something else; the sentence
            ends with the reason, for the caller to add a way out to.
    """
    try:
        if not file.is_file():
            raise UserError("it is no file" if file.exists() else "it does not exist")
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"it has more than {MOST_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
    # RecursionError: lists within lists within lists; a UserError and text that is not UTF-8 are ValueErrors.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or missing: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} is damaged: it holds a {type(values).__name__}, expected values by name")
    return values
