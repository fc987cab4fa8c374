"""A run folder, read back: which videos it trained on and tests on, and how the training went.

``peakzoom.training.train`` writes the folder; docs/runs.md lists its files. None of the optional extras is needed here.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from peakzoom.data.entries import SEPARATOR, Entry, VideoSet
from peakzoom.utils.download import is_address
from peakzoom.utils.durable import read_csv
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object

STAGES = ("tcnn", "joint")
ONE_PASS = "one_pass"  # the original branch alone, of a stage whose others taught it
NAME_FILE = "data.txt"  # what the data are called
SECRET = ("--test-groups", "--fold")  # options whose values are names of groups


def run_folder(run: str | Path) -> Path | None:
    """The folder with ``videos.csv``, from a run, one of its stages or a file in it; None for what has none."""
    path = Path(run).resolve()
    if not path.exists():  # a name on the hub
        return None
    return next(
        (each for each in (path, path.parent, path.parent.parent) if (each / "videos.csv").exists()), None
    )


def run_videos(run: Path) -> VideoSet:
    """All videos that a run recorded in ``videos.csv``, each with the split that it had there."""
    classes = _classes(run)
    entries = [
        Entry(Path(row["path"]), 0, row["split"], row["group"] or None).labelled(
            map(int, row["label"].split(SEPARATOR))
        )
        for row in read_csv(run / "videos.csv")
    ]
    return VideoSet(classes, entries, [], data_name(run) or str(run), multi_label=is_multi_label(run))


def read_config(run: Path) -> dict[str, Any]:
    """What a run's ``config.json`` holds; nothing where there is none.

    Raises:
        UserError: it cannot be read, or its recipe or options are no values by name; the sentence ends with the reason.
    """
    file = run / "config.json"
    values = read_object(file) if file.exists() else {}
    if odd := [part for part in ("recipe", "options") if not isinstance(values.get(part, {}), dict)]:
        raise UserError(f"{file} is damaged: {odd[0]} holds no values by name")
    return values


def is_multi_label(run: Path) -> bool:
    """Whether a video of a run may have several labels."""
    return read_config(run).get("multi_label") is True


def _classes(run: Path) -> list[str]:
    """The names of the classes, letter by letter, from ``config.json``; from ``classes.txt`` where that has none."""
    found = read_config(run).get("classes")
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return found
    return (run / "classes.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


def data_name(run: Path) -> str | None:
    """What the data of a run are called; None for a run that did not note it."""
    file = run / NAME_FILE
    return file.read_text(encoding="utf-8").strip() or None if file.exists() else None


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``; none when it is not there."""
    return [{name: float(value) for name, value in row.items() if value} for row in read_csv(file)]


def shown_command(run: Path) -> str | None:
    """The command that trained a run, without folders and without names of groups; None where it was no command."""
    file = run / "command.txt"
    if not file.exists():
        return None
    try:
        program, *words = shlex.split(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError:
        return None
    if not program.endswith("peakzoom/__main__.py") and last_part(program).removesuffix(".exe") != "peakzoom":
        return None
    shown, before = ["peakzoom"], ""
    for word in words:
        option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if (option or before) in SECRET:
            value = "..." if sign or not option else value
        elif sign or not option:
            value = last_part(value)
        shown.append(option + sign + value)
        before = word
    return shlex.join(shown)


def last_part(path: str) -> str:
    """The last part of a path, of this system or another; of a user's home, none of it; of an address, no query.

    >>> last_part("https://user:word@host/net.pth?signature=a/b")
    'net.pth'
    """
    path = re.split(r"[?#]", path)[0] if is_address(path) else path  # there is what lets its owner in
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
    return "~" if name == Path.home().name and name != path else name
