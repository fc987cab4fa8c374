"""Files and folders of data sets: which files are videos, which are ignored; one lister of folders; reading text.

Whatever looks into a folder takes :func:`walk`: data sets, ``predict``, archives, the page's examples.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from peakzoom.data.entries import Problem
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.missing import DANGLING, missing

log = logging.getLogger(__name__)

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
))
# What data sets keep beside their videos; ignored without a problem.
SIDE_SUFFIXES = frozenset((
    ".csv", ".tsv", ".txt", ".json", ".md", ".xml", ".yaml", ".yml", ".pdf", ".html", ".log", ".srt", ".vtt",
))
# fmt: on
SIDE_FILES = frozenset(("thumbs.db", "desktop.ini", "license", "readme", "makefile"))
# What systems keep beside a user's folders: copies of attributes, previews, what was thrown away.
SIDE_FOLDERS = frozenset(
    ("__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found")
)


def is_video(path: Path) -> bool:
    """Judged by the extension."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def videos_below(folder: Path) -> list[Path]:
    """Every video that :func:`walk` finds, sorted; a warning is logged for each folder that it cannot enter."""
    problems: list[Problem] = []
    found = sorted(filter(is_video, walk(folder, problems)))
    for problem in problems:
        log.warning("%s: %s", printable(problem.path), problem.reason)
    return found


def without_videos(folder: object) -> UserError:
    """The error for a folder, on this machine or in a storage, that holds no video."""
    expected = ", ".join(sorted(VIDEO_SUFFIXES))
    return UserError(f"{folder} is a folder without videos: expected files ending in {expected}")


def videos_among(files: Iterable[Path], problems: list[Problem]) -> list[Path]:
    """The videos; other files become problems, unless they are known side files."""
    files = list(files)
    others = (file for file in files if not is_video(file) and file.suffix.lower() not in SIDE_SUFFIXES)
    problems += [Problem(str(file), "not a video, judged by its extension") for file in others]
    return list(filter(is_video, files))


def folder_at(path: str | Path) -> Path:
    """``path``, if it is a folder, with ``~`` expanded; else a UserError."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise (
            UserError(f"{path} is a file, expected a folder") if path.exists() else missing(path, "a folder")
        )
    return path


def subfolders(folder: Path) -> list[Path]:
    """Folders right below, in alphabetical order, hidden ones left out."""
    found = [path for path in folder.iterdir() if path.is_dir() and not is_passed_over((path.name, ""))]
    return sorted(found, key=lambda path: (path.name.casefold(), path.name))


def files_in(folder: Path) -> list[Path]:
    """Files right below, sorted, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not is_passed_over((path.name,)))


def is_passed_over(names: Sequence[str]) -> bool:
    """Whether a file is hidden or no user's own, by the names from the folder that is listed down to it.

    >>> is_passed_over(("clips", "._wave.mp4")), is_passed_over((".Trash-1000", "wave.mp4"))
    (True, True)
    """
    *folders, file = names
    hidden = any(name.startswith(".") for name in names)
    return hidden or file.casefold() in SIDE_FILES or any(name.casefold() in SIDE_FOLDERS for name in folders)


def walk(root: Path, problems: list[Problem]) -> list[Path]:
    """All files below a folder: of each folder its files first, both in the order of their names.

    Hidden ones and those of the system (:func:`is_passed_over`) are left out. Linked folders are followed, but none is
    listed twice: folders that lie below come before those that are linked, and a link that leads back, to the folder
    that it lies in or to one above, is not followed. What cannot be read and what is listed already is a problem each.
    """
    files: list[Path] = []
    real_root = Path(os.path.realpath(root))
    entered: dict[Path, Path] = {}  # real folders, and as what they were listed
    links: deque[Path] = deque([root])
    while links:
        link = links.popleft()
        target = Path(os.path.realpath(link))
        circles = link != root and any(
            each.is_relative_to(target) for each in (real_root, Path(os.path.realpath(link.parent)))
        )
        if circles:
            problems.append(Problem(str(link), "a link to a folder that it lies in: not followed"))
            continue
        waiting = [(link, target)]
        while waiting:
            folder, real = waiting.pop()
            if real in entered:
                problems.append(
                    Problem(str(folder), f"the same folder as {printable(entered[real])}, which is listed")
                )
                continue
            entered[real] = folder
            inside, linked, below = _listing(folder, problems)
            files += inside
            links += linked
            waiting += [(each, real / each.name) for each in below]
    return sorted(files, key=lambda file: (*((1, name) for name in file.parts[:-1]), (0, file.name)))


def _listing(folder: Path, problems: list[Problem]) -> tuple[list[Path], list[Path], list[Path]]:
    """Files, linked folders and folders right below, without those that are passed over."""
    files: list[Path] = []
    linked: list[Path] = []
    below: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(str(folder), f"folder cannot be read ({error.strerror})"))
        return files, linked, below
    for entry in found:
        path = folder / entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link in a circle
            is_folder = False
        if is_passed_over((entry.name, "") if is_folder else (entry.name,)):
            continue
        if not is_video(path) and entry.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - any error: no
            problems.append(
                Problem(str(path), DANGLING)
            )  # of one that is called as a video, decoding says so
            continue
        (files if not is_folder else linked if entry.is_symlink() else below).append(path)
    return files, linked, below


def read_text(file: Path, expected: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; a UserError if that is not what it is."""
    if not file.is_file():
        raise UserError(f"{file} is {'not a file' if file.exists() else 'missing'}, expected {expected}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
