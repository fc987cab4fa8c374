"""UCF101 by its official lists, and the groups that its file names tell."""

from __future__ import annotations

import re
from pathlib import Path

from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.layouts.files import folder_at
from peakzoom.data.layouts.lists import find_listed, find_lists, read_lines
from peakzoom.utils.errors import UserError

_NAME = re.compile(r"v_.+_g(\d+)_c\d+$", re.IGNORECASE)


def recording(class_name: str, file: Path) -> str | None:
    """The group: class and recording, as in ``Archery_g07``; None if the file is not named v_..._gNN_cNN."""
    match = _NAME.match(file.stem)
    return f"{class_name}_g{match[1]}" if match else None


def read_ucf101(root: str | Path, splits: str | Path | None = None, split: int = 1) -> VideoSet:
    """UCF101 by its official lists: classInd.txt, trainlist0N.txt and testlist0N.txt (docs/data.md).

    Case and extension of a file may differ from the list. Classes stand in classInd.txt's order, all of them, present
    or not. ``splits`` is the folder of the lists; None: looked for in ``root``. ``split`` is 1, 2 or 3.

    Raises:
        UserError: folders or lists missing, a malformed list, none of the videos there.
    """
    root = folder_at(root)
    lists = find_lists(root, splits, "classInd.txt")
    classes, listed = list_ucf101(lists, split)
    videos = root / "UCF-101"
    entries, problems = find_listed(listed, videos if videos.is_dir() else root, lists)
    notes = [f"read as UCF101 by the lists in {lists}"]
    return VideoSet(classes, entries, problems, f"UCF101 split {split}", notes)


def list_ucf101(lists: Path, split: int) -> tuple[list[str], list[Entry]]:
    """Classes and entries that the lists name, with paths <class folder>/<file>, there or not."""
    classes: list[str] = []
    for where, text in read_lines(lists / "classInd.txt"):
        number, _, name = text.partition(" ")
        if number != str(len(classes) + 1) or not name:
            raise UserError(f"{where}: {text!r}, expected '{len(classes) + 1} <class>'")
        classes.append(name.strip())
    place = {name.casefold(): label for label, name in enumerate(classes)}

    listed: list[Entry] = []
    for part in ("train", "test"):
        for where, text in read_lines(lists / f"{part}list{split:02d}.txt"):
            name, _, number = text.partition(" ")  # no path of UCF101 has a space; test lists have no numbers
            path = Path(name.replace("\\", "/"))
            label = place.get(path.parent.as_posix().casefold())
            group = None if label is None else recording(classes[label], path)
            if label is None or group is None or number.strip() not in ("", str(label + 1)):
                raise UserError(
                    f"{where}: {text!r} does not fit classInd.txt, expected '<class>/v_..._gNN_cNN.avi'"
                )
            listed.append(Entry(path, label, part, group))
    return classes, listed
