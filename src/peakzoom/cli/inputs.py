"""What the words of a command line stand for: videos, names, numbers, files to write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peakzoom.cli.options import DataOptions
from peakzoom.utils.errors import UserError
from peakzoom.utils.lock import only_writer
from peakzoom.utils.system import expect_place

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet


def videos_to_score(run: str, data: Path | None, reading: DataOptions, split: str) -> VideoSet:
    """The videos of a split of DATA, or of the run where none is named, that the run was not trained on.

    Raises:
        UserError: neither knows such videos.
    """
    from peakzoom.data.runs import run_folder, run_videos
    from peakzoom.evaluation.choose import choose_videos

    home = run_folder(run)
    if data is not None:
        videos = reading.videos(data, reading.split_number)
    elif home is not None:
        videos = run_videos(home)
    else:
        raise UserError(f"{run} does not know its {split} videos: name the DATA to test on")
    return choose_videos(videos, home, split)


def whole_numbers(text: str, option: str) -> list[int]:
    """Each of "0,1,2" once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{option} is {text!r}, expected whole numbers, as 0,1,2")
    return [int(part) for part in dict.fromkeys(parts)]


def names_of(text: str) -> list[str]:
    """The names in "ann, bob", without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def find_videos(files: Iterable[Path]) -> Iterator[Path]:
    """Files as they are named, and the videos in folders, sorted.

    Raises:
        UserError: a folder has none.
    """
    from peakzoom.data.layouts.files import videos_below, without_videos

    for file in files:
        if not os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            yield file
            continue
        inside = videos_below(file)
        if not inside:
            raise without_videos(file)
        yield from inside


def beside(run: str) -> Path:
    """The folder to put results into: the run, or that of an exported file; here for a model of the hub."""
    path = Path(run)
    return path if path.is_dir() else path.parent if path.is_file() else Path()


def check_apart(places: Mapping[str, Iterable[Path]]) -> None:
    """Refuse (UserError) outputs that are one place, however it is spelled; ``places`` has those of each option."""
    taken: dict[Path, str] = {}
    for option, files in places.items():
        for place in dict.fromkeys(file.resolve() for file in files):
            if place in taken:
                raise UserError(
                    f"{taken[place]} and {option} would both write {place}: name another file for {option}"
                )
            taken[place] = option


def check_new(file: Path, option: str, way_out: str = "remove it") -> None:
    """Refuse a file to write that is there, before the work and not after it; ``way_out`` ends the sentence."""
    if file.parent.is_dir():
        expect_place(file)
    if file.exists():
        raise UserError(f"{file} exists: name another file for {option}, or {way_out}")
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is no folder: make it first, or name another file for {option}")


@contextmanager
def new_file(file: Path | None, option: str) -> Iterator[None]:
    """Keep a new file, which is written when the work of the block is done, for this process; None: there is none.

    Raises:
        UserError: as :func:`check_new`, or another process is to write it.
    """
    if file is None:
        yield
        return
    check_new(file, option)
    with only_writer(file):
        check_new(file, option)  # another process may just have written it
        yield
