"""Videos, or segments of them, listed in a CSV or TSV file: columns path, label, class, split, group, start and end."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from peakzoom.data.entries import SEPARATOR, Entry, Problem, VideoSet, ordered, some
from peakzoom.data.layouts.files import folder_at
from peakzoom.data.layouts.lists import MISSING, CsvRow, nothing_usable, read_table, split_name
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment, checked, seconds, segment_of
from peakzoom.utils.words import counted

# A whole number as programs write one; "3.0" is what a spreadsheet with empty cells makes of 3, "03" is a name.
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")
# What is taken for the separator of labels.
_OTHERS = re.compile(r"\s*[,|/+&]\s*")


def is_manifest(columns: list[str]) -> bool:
    """Whether these columns are a manifest's: a path, and a label or a class."""
    return "path" in columns and ("label" in columns or "class" in columns)


def read_manifest(source: str | Path, root: str | Path | None = None, multi_label: bool = False) -> VideoSet:
    """Videos listed in a CSV or TSV file (docs/data.md).

    Labels are text: ``001``, ``1e5``, ``NA`` and ``True`` are names. Only where all are whole numbers as programs write
    them (``2``, or ``2.0``) they stand in numeric order and are renumbered from 0 without gaps, and a class without a
    name is called by its number. A class all of whose files are missing keeps its place. ``root`` is the folder that
    the paths start from; None: the manifest's own.

    With a ``start`` or an ``end`` (seconds, or h:m:s) a row is a segment of its file
    (:mod:`peakzoom.utils.segments`), and a file may have several rows. Where no group is named, the file is that of its
    segments. A segment that overlaps an earlier row is left out. Of rows that give no entry the parts of files are kept
    that they name, all of a file where their times cannot be read (:attr:`~peakzoom.data.entries.VideoSet.claimed`).

    With ``multi_label`` a label is several ones where it has a ``;``, as ``run;wave``, and so is a class. Without it,
    such a text is the name of one class, and a note says so.

    Raises:
        UserError: no such file or root; not UTF-8; no column path, or neither label nor class; an unknown
            split; one label with two class names or the reverse; not one usable row.
    """
    source = Path(source).expanduser()
    root = source.parent if root is None else folder_at(root)
    columns, rows = read_table(source)
    if not is_manifest(columns):
        raise UserError(
            f"{source} has the columns {some(columns)} in its first line, expected 'path' and 'label' "
            f"(and possibly 'class', 'split', 'group', 'start', 'end')"
        )
    return read_rows(source, root, columns, rows, multi_label)


def read_rows(
    source: Path, root: Path, columns: list[str], rows: Sequence[CsvRow], multi_label: bool = False
) -> VideoSet:
    """The same of rows that are read already, from ``source``; also those that a tool's file is turned into.

    Raises:
        UserError: as :func:`read_manifest`.
    """
    problems: list[Problem] = []
    found: dict[Path, _Row] = {}
    claimed: list[Path] = []
    names: dict[str, str] = {}  # class name of each label; a class whose files are missing counts as well
    numbers = "label" in columns and all(
        _WHOLE.fullmatch(label)
        for _, values, fields in rows
        if fields <= len(columns) and values["path"]
        for label in _parts(values["label"], multi_label)
    )
    for where, values, fields in rows:
        row = _row((where, values, fields), columns, numbers, multi_label)
        if isinstance(row, Problem):
            problems.append(row)
            claimed += _claimed(root, values, whole=fields > len(columns))
            continue
        _name(names, row)
        if why := _add(found, row, root):
            problems.append(Problem(row.path, why))
    if not found:
        raise nothing_usable(source, problems, root)
    claimed += _leave_out_overlaps(found, problems)
    classes, place = _classes(source, names, numbers)
    own_groups = any(row.group for row in found.values())
    entries = [
        Entry(video, 0, row.split, row.group or (row.path if row.segment else None)).labelled(
            place[label] for label in row.labels
        )
        for video, row in found.items()
    ]
    notes = ["read as a manifest", *(_with_another(classes) if multi_label else _with_separator(classes))]
    return VideoSet(
        *(classes, entries, problems, source.stem, notes),
        own_groups=own_groups,
        multi_label=multi_label,
        claimed=claimed,
    )


def _name(names: dict[str, str], row: _Row) -> None:
    """Note the class names of a row's labels; a UserError where one was called otherwise before."""
    for label, name in row.labels.items():
        if name and (names.get(label) or name) != name:
            raise UserError(f"{row.where}: label {label} is called {name!r}, but {names[label]!r} before")
        names[label] = name or names.get(label, "")


def _parts(text: str, multi_label: bool) -> list[str]:
    """The labels in a cell, each once."""
    if not multi_label:
        return [text] if text else []
    return list(dict.fromkeys(part.strip() for part in text.split(SEPARATOR) if part.strip()))


def _with_separator(classes: list[str]) -> list[str]:
    """What is to be said where names look like several."""
    joined = [name for name in classes if SEPARATOR in name]
    if not joined:
        return []
    return [
        f"labels with a '{SEPARATOR}' are one class each: {some(joined, 3)}; --multi-label reads several a video"
    ]


def _with_another(classes: list[str]) -> list[str]:
    """What is to be said where names look like several with another separator: each part comes elsewhere too."""
    parts = {name: _OTHERS.split(name) for name in classes}
    times = Counter(part for each in parts.values() for part in set(each))
    joined = [name for name, each in parts.items() if len(each) > 1 and all(times[part] > 1 for part in each)]
    if not joined:
        return []
    separator = f"several labels are separated by '{SEPARATOR}'"
    return [f"{counted(len(joined), 'label')} made of others: {some(joined, 3)}, one class each; {separator}"]


class _Row(NamedTuple):
    path: str
    labels: dict[str, str]  # each with the name of its class, "" where none is stated
    split: str | None
    group: str | None
    segment: Segment | None  # of a file that is not found yet
    where: str


def _add(found: dict[Path, _Row], row: _Row, root: Path) -> str | None:
    """Add the video of a row to those that are found, or say why not."""
    file = within(root, row.path)
    if file is None:
        return f"outside {root}; pass the folder that holds all videos as root"
    video = file if row.segment is None else row.segment._replace(file=file).path
    if video in found:
        again = (
            "listed again"
            if found[video].labels.keys() == row.labels.keys()
            else "listed again with another label"
        )
        return f"{again}; the first row counts"
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a name is too long
        return MISSING
    found[video] = row
    return None


def _leave_out_overlaps(found: dict[Path, _Row], problems: list[Problem]) -> list[Path]:
    """A moment of a file has one label: of rows that share one, the first stays. The videos that are left out."""
    by_file: dict[Path, list[tuple[float, float, Path]]] = defaultdict(list)
    left_out: list[Path] = []
    if not any(row.segment for row in found.values()):
        return left_out
    for video, row in list(found.items()):
        segment = segment_of(video) or Segment(video)
        start, end = segment.start, math.inf if segment.end is None else segment.end
        over = next((each for each in by_file[segment.file] if start < each[1] and each[0] < end), None)
        if over is None:
            by_file[segment.file].append((start, end, video))
        else:
            del found[video]
            left_out.append(video)
            problems.append(Problem(row.where, f"overlaps {found[over[2]].where}, which counts"))
    return left_out


def _claimed(root: Path, values: Mapping[str, str], whole: bool) -> list[Path]:
    """The part of its file that a row without an entry names, all of it if its times say nothing (``whole``)."""
    file = within(root, values["path"]) if values["path"] else None
    if file is None or not os.path.isfile(file):  # noqa: PTH113 - as in _add
        return []
    try:
        segment = _segment(values)
    except UserError:
        segment = None
    return [file if whole or segment is None else segment._replace(file=file).path]


def _segment(values: Mapping[str, str]) -> Segment | None:
    """From when to when a row is about, of a file that is not found yet; None: all of it.

    Raises:
        UserError: its times cannot be read, or it ends before it begins.
    """
    if not (values["start"] or values["end"]):
        return None
    start = seconds(values["start"]) if values["start"] else 0.0
    return checked(Segment(Path(), start, seconds(values["end"]) if values["end"] else None))


def _row(row: CsvRow, columns: list[str], numbers: bool, multi_label: bool) -> _Row | Problem:
    """A row that names a video, or why it names none; a UserError for a split that there is not.

    ``numbers``: all labels are whole numbers.
    """
    where, values, fields = row
    path, split = values["path"], split_name(values["split"], where)
    names = _parts(values["class"], multi_label)
    labels = _parts(values["label"], multi_label) if "label" in columns else names
    if numbers:
        labels = [str(int(whole[1])) if (whole := _WHOLE.fullmatch(label)) else label for label in labels]
    if fields > len(columns):
        return Problem(where, "more fields than columns (a delimiter in a name?)")
    if not path or not labels:
        return Problem(path or where, "no label" if path else "no path")
    if names and len(names) != len(labels):
        return Problem(
            path,
            f"{counted(len(labels), 'label')} and {counted(len(names), 'class name')}, expected one for each",
        )
    if numbers and any(int(label) < 0 for label in labels):
        return Problem(path, "negative label")
    try:
        segment = _segment(values)
    except UserError as error:
        return Problem(where, str(error))
    named = dict(zip(labels, names or [""] * len(labels), strict=True))
    return _Row(path, named, split, values["group"] or None, segment, where)


def _classes(file: Path, names: dict[str, str], numbers: bool) -> tuple[list[str], dict[str, int]]:
    """The classes in their order, and the place there of each label, from the class name of each label."""
    labels: dict[str, list[str]] = defaultdict(list)
    for label, name in names.items():
        labels[name or label].append(label)
    for name, several in labels.items():
        if len(several) > 1:
            raise UserError(f"{file}: class {name!r} has several labels, {some(several)}, expected one")
    classes = sorted(labels, key=lambda name: int(labels[name][0])) if numbers else ordered(labels)
    return classes, {labels[name][0]: place for place, name in enumerate(classes)}


def within(root: Path, path: str) -> Path | None:
    """``path`` below ``root``, or None if it leads outside, judged by the names: links may lead anywhere."""
    base = Path(os.path.normpath(root.absolute()))
    full = Path(os.path.normpath(base / path))
    if "\\" in path and not os.path.exists(full):  # noqa: PTH110 - a list made on Windows; raises for no name
        full = Path(os.path.normpath(base / path.replace("\\", "/")))
    return full if full.is_relative_to(base) else None
