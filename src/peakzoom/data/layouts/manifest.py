"""Videos listed in a CSV or TSV file with columns path, label, class, split and group."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, VideoSet, ordered, some
from peakzoom.data.layouts.files import folder_at
from peakzoom.data.layouts.lists import MISSING, nothing_usable, read_table, split_name
from peakzoom.utils.errors import UserError

_WHOLE = re.compile(r"(-?\d+)(\.0+)?$")  # "3.0" is what a spreadsheet with empty cells makes of 3


def is_manifest(columns: list[str]) -> bool:
    """Whether these columns are a manifest's: a path, and a label or a class."""
    return "path" in columns and ("label" in columns or "class" in columns)


def read_manifest(file: str | Path, root: str | Path | None = None) -> VideoSet:
    """Videos listed in a CSV or TSV file.

    The first line names the columns, in any order, case ignored; the delimiter (comma, tab, semicolon or bar)
    is the one that makes sense of it. UTF-8, with or without a byte order mark, any line ends::

        path,label,class,split,group          path: relative to ``root``
        punch/a.avi,4,punching,train,1        label: a class index or a class name
        hug/b.avi,1,hugging,test,2            class: the label's name; split, group: all three optional

    Without a label column the class column is the label. Where all labels are whole numbers the classes stand
    in numeric order and are renumbered from 0 without gaps; a class without a name is called by its number.
    A class all of whose files are missing keeps its place, with no videos.

    Problems, counted and left out: files that are not there, rows without path or label, negative labels,
    rows with more fields than the header, paths that leave ``root`` (symbolic links may), paths listed
    before.

    ``root`` is the folder that the paths start from; None: the manifest's own.

    Raises:
        UserError: no such file or root; not UTF-8; no column path, or neither label nor class; an unknown
            split; one label with two class names or the reverse; not one usable row.
    """
    file = Path(file).expanduser()
    root = file.parent if root is None else folder_at(root)
    columns, rows = read_table(file)
    if not is_manifest(columns):
        raise UserError(
            f"{file} has the columns {some(columns)} in its first line, expected 'path' and 'label' "
            f"(and possibly 'class', 'split', 'group')"
        )
    problems: list[Problem] = []
    found: dict[Path, tuple[str, str | None, str | None]] = {}  # label, split, group
    called: dict[str, str] = {}  # class name of each label; a class whose files are missing counts as well
    for where, row, fields in rows:
        path, name, split = row["path"], row["class"], split_name(row["split"], where)
        label = row["label"] if "label" in columns else name
        if whole := _WHOLE.match(label):
            label = str(int(whole[1]))
        if fields > len(columns):
            problems.append(Problem(where, "more fields than columns (a delimiter in a name?)"))
            continue
        if not path or not label:
            problems.append(Problem(path or where, "no label" if path else "no path"))
            continue
        if whole and int(label) < 0:
            problems.append(Problem(path, "negative label"))
            continue
        if name and (called.get(label) or name) != name:
            raise UserError(f"{where}: label {label} is called {name!r}, but {called[label]!r} before")
        called[label] = name or called.get(label, "")
        place = _within(root, path)
        if place is None:
            problems.append(Problem(path, f"outside {root}; pass the folder that holds all videos as root"))
        elif place in found:
            again = "listed again" if found[place][0] == label else "listed again with another label"
            problems.append(Problem(path, f"{again}; the first row counts"))
        elif not os.path.isfile(place):  # noqa: PTH113 - Path.is_file raises where a name is too long
            problems.append(Problem(path, MISSING))
        else:
            found[place] = label, split, row["group"] or None
    if not found:
        raise nothing_usable(file, problems, root)
    labels: dict[str, list[str]] = defaultdict(list)
    for label, name in called.items():
        labels[name or label].append(label)
    for name, several in labels.items():
        if len(several) > 1:
            raise UserError(f"{file}: class {name!r} has several labels, {some(several)}, expected one")
    numeric = all(label.isdecimal() for label in called)
    classes = sorted(labels, key=lambda name: int(labels[name][0])) if numeric else ordered(labels)
    place_of = {labels[name][0]: position for position, name in enumerate(classes)}
    entries = [Entry(path, place_of[label], split, group) for path, (label, split, group) in found.items()]
    return VideoSet(classes, entries, problems, file.stem, ["read as a manifest"])


def _within(root: Path, path: str) -> Path | None:
    """``path`` below ``root``, or None if it leads outside, judged by the names: links may lead anywhere."""
    base = Path(os.path.normpath(root.absolute()))
    full = Path(os.path.normpath(base / path))
    if "\\" in path and not full.exists():  # a list made on Windows
        full = Path(os.path.normpath(base / path.replace("\\", "/")))
    return full if full.is_relative_to(base) else None
