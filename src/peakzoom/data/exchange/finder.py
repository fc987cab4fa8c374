"""Videos below a folder, by what annotation tools know of them: often a name alone, or a path on another machine."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from peakzoom.data.entries import some
from peakzoom.data.layouts.files import is_video, walk
from peakzoom.data.layouts.lists import MISSING
from peakzoom.data.layouts.manifest import within

ELSEWHERE = re.compile(r"[\\/]|[A-Za-z]:")  # where a path begins that is from no folder of ours


class Finder:
    """Finds the videos below a root; their folder is listed when a name alone is first looked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, names: Sequence[str]) -> Path | str:
        """The file that the first fitting name leads to; why none does.

        A name is a path from the root. Where nothing is there, it is that of a file below the root whose path ends as
        the name does, or the name as the path does: ``/home/ann/films/cam1/a.mp4`` and ``a`` are ``cam1/a.mp4``, and
        ``cam2/a.mp4`` is not. A later name that is the end of an earlier one says nothing new.
        """
        names = [
            name
            for place, name in enumerate(names)
            if not any(earlier.endswith(f"/{name}") for earlier in names[:place])
        ]
        for name in names:
            file = within(self._root, name)
            if file is None and not ELSEWHERE.match(name):
                return f"outside {self._root}; pass the folder that holds all videos as root"
            if file is not None and os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a name is too long
                return file
        for name in names:
            wanted = PurePosixPath(name.replace("\\", "/")).parts
            found = [
                file
                for file, parts in self._by_name.get(wanted[-1] if wanted else "", [])
                if _agree(wanted, parts)
            ]
            if len(found) > 1:
                return f"several files are called so: {some(map(str, found), 3)}"
            if found:
                return found[0]
        return MISSING

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
        """Videos and their paths in parts, by their names, with and without ending."""
        found: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
        for file in filter(is_video, walk(self._root, [])):
            path = file.relative_to(self._root)
            found[path.name].append((file, path.parts))
            if path.stem != path.name:
                found[path.stem].append((file, path.with_suffix("").parts))
        return found


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one path ends as the other, as far as the shorter goes."""
    least = min(len(one), len(other))
    return tuple(one[-least:]) == tuple(other[-least:])
