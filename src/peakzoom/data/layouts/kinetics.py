"""Kinetics by an official CSV, with file names as its official crawler writes them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, VideoSet, ordered, some
from peakzoom.data.layouts.files import folder_at, is_video, walk
from peakzoom.data.layouts.lists import MISSING, SPLIT_NAMES, nothing_usable, read_table, split_name
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def read_kinetics(file: str | Path, root: str | Path | None = None) -> VideoSet:
    """Kinetics by an official CSV, with columns label, youtube_id, time_start, time_end, split (docs/data.md).

    Classes are the labels of the whole file, whether their videos are there or not. The group is the YouTube video.
    ``root`` is the folder of the videos; None: the CSV's own.

    Raises:
        UserError: no such file or folder, columns missing, unknown split names, none of the videos there.
    """
    file = Path(file).expanduser()
    root = file.parent if root is None else folder_at(root)
    columns, rows = read_table(file)
    if not set(KINETICS_COLUMNS) <= set(columns):
        raise UserError(
            f"{file} has the columns {some(columns)} in its first line, expected {some(KINETICS_COLUMNS)}"
        )
    problems: list[Problem] = []
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in filter(is_video, walk(root, problems)):
        videos[path.stem].append(path)

    classes = ordered(row["label"] for _, row, _ in rows if row["label"] and row["youtube_id"])
    place = {name: label for label, name in enumerate(classes)}
    entries: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    for where, row, _ in rows:
        label, youtube, split = row["label"], row["youtube_id"], split_name(row["split"], where)
        if not label or not youtube:
            problems.append(Problem(where, "no label" if youtube else "no youtube_id"))
            continue
        try:
            stem = youtube + "".join(f"_{int(float(row[name])):06d}" for name in ("time_start", "time_end"))
        except (ValueError, OverflowError):
            problems.append(Problem(where, "time_start or time_end is not a number"))
            continue
        candidates = videos.get(stem, [])
        video = _in_place(candidates, label, root)
        if (label, stem) in seen:
            problems.append(Problem(stem, "listed again; the first row counts"))
        elif video:
            entries.append(Entry(video, place[label], split, youtube))
        elif candidates:
            problems.append(Problem(str(candidates[0]), "lies in another label's folder"))
        else:
            problems.append(Problem(f"{label}/{stem}.mp4", MISSING))
        seen.add((label, stem))
    if not entries:
        raise nothing_usable(file, problems, root)
    notes = ["read as a Kinetics list"]
    unlisted = sum(map(len, videos.values())) - len({entry.path for entry in entries})
    if unlisted:
        notes.append(f"{counted(unlisted, 'video')} under {root} left out, for the list does not name them")
    return VideoSet(classes, entries, problems, file.stem, notes)


def _in_place(candidates: list[Path], label: str, root: Path) -> Path | None:
    """The first video in the folder of its label, else the first in no label's folder."""
    own = (label.casefold(), label.casefold().replace(" ", "_"))
    fitting = [path for path in candidates if path.parent.name.casefold() in own] or [
        path for path in candidates if path.parent == root or path.parent.name.casefold() in SPLIT_NAMES
    ]
    return fitting[0] if fitting else None
