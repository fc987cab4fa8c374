"""A path that has to be there and is not: what it was probably meant to be."""

from __future__ import annotations

import os
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePath

from peakzoom.utils.errors import UserError, did_you_mean

MOST_LISTED = 10_000  # names of a folder, to find what is like another
DANGLING = "a link that leads nowhere"


def alike(path: Path) -> list[str]:
    """What is here and is called much like a path that is not: the most likely one, or none."""

    def close(folder: Path, name: str) -> list[Path]:
        try:
            if os.path.lexists(folder / name):
                return [folder / name]
            with os.scandir(folder) as listed:
                names = [each.name for each in islice(listed, MOST_LISTED) if not each.name.startswith(".")]
        except (
            OSError,
            ValueError,
        ):  # it may not be looked into, or is no name: then nothing is known to be like it
            return []
        like = get_close_matches(name, names, n=3)
        return [folder / each for each in like if get_close_matches(_stem(name), [_stem(each)])]

    found = [Path(path.anchor)]
    for part in path.parts[1 if path.anchor else 0 :]:
        found = [each for folder in found for each in close(folder, part)]
    return [str(each) for each in found[:1] if each != path]


def _stem(name: str) -> str:
    """What a name is without its ending, which most files of a folder share."""
    return PurePath(name).stem


def no_such_file(path: Path) -> str:
    """Why a file that is not there cannot be opened, and what is called much like it."""
    return DANGLING if os.path.islink(path) else f"no such file{did_you_mean('', (), alike(path))}"  # noqa: PTH114 - any text


def missing(path: str | Path, expected: str) -> UserError:
    """The error about a path that is not there: what is called much like it, or what was expected."""
    state = "is a link that leads nowhere" if os.path.islink(path) else "does not exist"  # noqa: PTH114 - any text
    like = did_you_mean("", (), alike(Path(path)))
    return UserError(f"{path} {state}{like or f': expected {expected}'}")
