"""Where the action shows in the frames of videos: a table of places, drawn with synthetic clips or marked by hand.

A row is one place in one frame; a frame may have several, as both hands::

    path,frame,part,x,y,radius
    wave/test_00001.mp4,0,hand,101.5,44.2,9.1

The path starts from the table's folder. Frames count from 0; x, y and the radius are pixels of the frame as displayed,
(0, 0) the middle of the top left one. The boxes in a file of an annotation tool are places too
(:mod:`peakzoom.data.exchange.places`).
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from peakzoom.data.entries import Place, Places, Problem
from peakzoom.data.exchange.places import project_places
from peakzoom.data.exchange.reading import tool_of
from peakzoom.data.layouts.lists import read_table
from peakzoom.utils.errors import UserError
from peakzoom.utils.missing import missing
from peakzoom.utils.segments import file_of
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)
COLUMNS = ("path", "frame", "part", "x", "y", "radius")


def read_places(file: str | Path, root: str | Path | None = None, videos: str | Path | None = None) -> Places:
    """Read a table of places, or the boxes in a file of an annotation tool.

    What is marked in videos that cannot be found is logged; it counts for nothing.

    Args:
        file: a CSV file with the columns above; what a tool exports.
        root: the folder that the paths of a table start from; the file's own when not given.
        videos: the same of a tool's file.

    Raises:
        UserError: no such file, a column is missing, a value is no number, or the radius is not positive; a tool's file
            has no box in a labelled frame.
    """
    file = Path(file)
    if not file.exists():
        raise missing(file, "a CSV of where the action is, or a tool's file with boxes")
    if tool := tool_of(file):
        found, problems = project_places(file, tool, None if videos is None else Path(videos))
    else:
        found = _table_places(file, file.parent if root is None else Path(root))
        problems = [
            Problem(str(path), "there is no such file") for path in found if not file_of(path).exists()
        ]
    if problems:
        first = problems[0]
        log.warning(
            f"{counted(len(problems), 'video')} of {file} cannot be used, and what is marked there is left out "
            f"({first.reason}): {first.path}"
        )
    return found


def _table_places(file: Path, root: Path) -> Places:
    columns, rows = read_table(file)
    if absent := [name for name in COLUMNS if name not in columns]:
        raise UserError(f"{file} has no column {absent[0]!r}, expected {', '.join(COLUMNS)}")
    places: dict[Path, dict[int, list[Place]]] = {}
    for where, values, _ in rows:
        try:
            frame, numbers = int(values["frame"]), [float(values[name]) for name in ("x", "y", "radius")]
        except ValueError as error:
            raise UserError(
                f"{where}: {error}; expected a frame's number, then x, y and radius in pixels"
            ) from None
        place = Place(values["part"], *numbers)
        if frame < 0:
            raise UserError(f"{where}: frame {frame}, expected a frame from 0")
        expect_place(place, where)
        places.setdefault(root / values["path"], {}).setdefault(frame, []).append(place)
    return places


def expect_place(place: Place, where: str) -> None:
    """UserError, which begins with ``where``, if a place has no finite middle or no finite radius above 0."""
    radii = [place.radius] if place.down is None else [place.radius, place.down]
    if not all(map(math.isfinite, (place.x, place.y, *radii))) or min(radii) <= 0:
        values = ", ".join(f"{each:g}" for each in (place.x, place.y, *radii))
        raise UserError(
            f"{where}: x, y and radius are {values}; expected finite numbers, and a radius above 0"
        )
