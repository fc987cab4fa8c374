"""HMDB51 by its official lists.

File names as in its README:
``<film>_<class>_<visible body>_<camera motion>_np<people>_<viewpoint>_<quality>_<number>.avi``.
"""

from __future__ import annotations

import re
from pathlib import Path

from peakzoom.data.entries import Entry, VideoSet, ordered
from peakzoom.data.layouts.files import folder_at
from peakzoom.data.layouts.lists import find_listed, find_lists, read_lines
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

_USES = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(root: str | Path, splits: str | Path | None = None, split: int = 1) -> VideoSet:
    """HMDB51 by its official lists, one a class: <class>_test_splitN.txt, lines "<file> 1|2|0" (docs/data.md).

    The group is the source film: what stands before the last ``_<class>_`` that the seven fixed attributes follow, as
    ``How_to_do_a_Cartwheel`` of ``How_to_do_a_Cartwheel_cartwheel_f_nm_np1_le_med_1.avi``. A name of another form has
    none.

    Args, Raises: as :func:`~peakzoom.data.layouts.ucf101.read_ucf101`.
    """
    root = folder_at(root)
    lists = find_lists(root, splits, f"*_test_split{split}.txt")
    classes, listed = list_hmdb51(lists, split)
    entries, problems = find_listed(listed, root, lists)
    unused = len({entry.path for entry in listed if entry.split is None})
    notes = [
        f"read as HMDB51 by the lists in {lists}",
        f"{counted(unused, 'video')} marked 0, not used by split {split}",
    ]
    return VideoSet(classes, entries, problems, f"HMDB51 split {split}", notes)


def list_hmdb51(lists: Path, split: int) -> tuple[list[str], list[Entry]]:
    """Classes and entries that the lists name, with paths <class folder>/<file>, there or not; split None: unused."""
    ending = f"_test_split{split}.txt"
    classes = ordered(file.name.removesuffix(ending) for file in lists.glob(f"*{ending}"))
    listed: list[Entry] = []
    for label, name in enumerate(classes):
        film = re.compile(rf"(.+)_{re.escape(name)}_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$", re.IGNORECASE)
        for where, text in read_lines(lists / f"{name}{ending}"):
            file, _, use = text.rpartition(" ")
            if use not in _USES or not file:
                raise UserError(f"{where}: {text!r}, expected '<file> 0', '<file> 1' or '<file> 2'")
            path = Path(name, file.strip())
            match = film.match(path.stem)
            listed.append(Entry(path, label, _USES[use], match[1] if match else None))
    return classes, listed
