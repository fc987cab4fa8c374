"""What list files share: tables (manifests, Kinetics), and the official lists of UCF101 and HMDB51."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, some
from peakzoom.data.layouts.files import files_in, is_video, read_text, subfolders
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Where the official lists are looked for when no folder is named; the second and third are the archives' own names.
LIST_FOLDERS = (".", "ucfTrainTestlist", "testTrainMulti_7030_splits", "splits", "annotations")
DELIMITERS = (",", "\t", ";", "|")
REASONS, NAMED = (
    8,
    3,
)  # of a list without a usable video: reasons that are said, and files that are named for each
_LINE_END = re.compile(r"\r\n|\r|\n")  # and no other: a name may hold U+2028 and the like
MISSING = "listed, but there is no such file"

# "<file>, line <n>"; values by column, "" where none; number of fields.
CsvRow = tuple[str, dict[str, str], int]


def read_table(file: Path) -> tuple[list[str], list[CsvRow]]:
    """Columns (lower case) and rows of a CSV file, whose delimiter is the one most frequent in the first line."""
    text = read_text(file, "a CSV file")
    if not text.strip():
        raise UserError(f"{file} is empty, expected a first line with column names")
    header = _LINE_END.split(text.lstrip(), 1)[0]
    delimiter = max(DELIMITERS, key=header.count)  # the first, a comma, where none occurs
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        lines = [(reader.line_num, [value.strip() for value in line]) for line in reader]
    except csv.Error as error:
        raise UserError(f"{file} is not a table that can be read: {error}") from None
    lines = [(number, line) for number, line in lines if any(line)]
    columns = [name.casefold() for name in lines[0][1]] if lines else []
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UserError(f"{file} has more than one column {twice[0]!r} in its first line; rename all but one")
    return columns, [
        (f"{file}, line {number}", defaultdict(str, zip(columns, line, strict=False)), len(line))
        for number, line in lines[1:]
    ]


def split_name(text: str, where: str) -> str | None:
    """One of "train", "val", "test", or None for no text; a UserError that names ``where`` for anything else."""
    if text and text.casefold() not in SPLIT_NAMES:
        raise UserError(f"{where}: split is {text!r}, expected train, val or test (or nothing)")
    return SPLIT_NAMES.get(text.casefold())


def list_folders(root: Path, splits: str | Path | None) -> list[Path]:
    """Where official lists may lie: ``splits`` if it is named, else the places in ``root``."""
    return [root / name for name in LIST_FOLDERS] if splits is None else [Path(splits).expanduser()]


def find_lists(root: Path, splits: str | Path | None, pattern: str) -> Path:
    """The first of :func:`list_folders` with a file that fits ``pattern``; a UserError if there is none."""
    folders = list_folders(root, splits)
    for folder in folders:
        if next(folder.glob(pattern), None):
            return folder
    raise UserError(
        f"no {pattern} in {some(map(str, folders))}; pass the folder of the official lists as splits"
    )


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Place ("<file>, line <n>") and text of each line of an official list that is not blank."""
    for number, text in enumerate(_LINE_END.split(read_text(file, "an official list beside the others")), 1):
        if text.strip():
            yield f"{file}, line {number}", text.strip()


def find_listed(listed: list[Entry], root: Path, lists: Path) -> tuple[list[Entry], list[Problem]]:
    """The listed entries with the paths of their files, and what is missing, listed again or not listed.

    Case and extension may differ from the files below ``root``. Entries without a split are in the list but not used,
    and left out without a problem. A UserError, which names ``lists``, if no file is there.
    """
    problems: list[Problem] = []
    videos = videos_by_key(root, problems)
    entries: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    for entry in listed:
        key = list_key(entry.path)
        if key in seen:
            problems.append(Problem(entry.path.as_posix(), "listed again; the first line counts"))
        elif entry.split and key in videos:
            entries.append(replace(entry, path=videos[key]))
        elif entry.split:
            problems.append(Problem(entry.path.as_posix(), MISSING))
        seen.add(key)
    problems += [
        Problem(str(path), "in no list of this split") for key, path in videos.items() if key not in seen
    ]
    if not entries:
        raise nothing_usable(lists, problems, root)
    return entries, problems


def nothing_usable(source: Path, problems: list[Problem], root: Path) -> UserError:
    """The error for a list that gives no video: each reason with its count and first cases, the most frequent first."""
    if not problems:
        return UserError(f"{source} lists no videos, expected one a line")
    cases: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        cases[problem.reason].append(problem.path)
    by_count = sorted(cases.items(), key=lambda item: -len(item[1]))
    said = [
        f"{counted(len(paths), 'time')} {reason!r} ({some(paths, NAMED)})"
        for reason, paths in by_count[:REASONS]
    ]
    if rest := sum(len(paths) for _, paths in by_count[REASONS:]):
        said.append(f"{counted(rest, 'time')} something else")
    return UserError(
        f"{source} gives no usable video under {root}: {'; '.join(said)}; check the rows and the folder of the videos"
    )


def videos_by_key(root: Path, problems: list[Problem]) -> dict[tuple[str, str], Path]:
    """The videos in the folders right below ``root`` by :func:`list_key`; a second one of a key is a problem."""
    videos: dict[tuple[str, str], Path] = {}
    for path in filter(is_video, chain.from_iterable(map(files_in, subfolders(root)))):
        taken = videos.setdefault(list_key(path), path)
        if taken is not path:
            problems.append(Problem(str(path), f"same name as {taken.name}, which is taken"))
    return videos


def list_key(path: Path) -> tuple[str, str]:
    """What a listed video and its file have in common: class folder and name, without case and extension."""
    return path.parent.name.casefold(), path.stem.casefold()
