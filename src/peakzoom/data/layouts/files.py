"""Files and folders of data sets: which files are videos, which are ignored; walking folders, reading text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from peakzoom.data.entries import Problem
from peakzoom.utils.errors import UserError

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
SIDE_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "license", "readme", "makefile"))


def is_video(path: Path) -> bool:
    """Judged by the extension."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def videos_below(folder: Path) -> list[Path]:
    """Every video in a folder and in those below it, sorted."""
    return sorted(file for file in folder.rglob("*") if is_video(file) and file.is_file())


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
        raise UserError(f"{path} {'is a file' if path.exists() else 'does not exist'}, expected a folder")
    return path


def subfolders(folder: Path) -> list[Path]:
    """Folders right below, in alphabetical order, hidden ones left out."""
    found = [path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name)]
    return sorted(found, key=lambda path: (path.name.casefold(), path.name))


def files_in(folder: Path) -> list[Path]:
    """Files right below, sorted, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not _hidden(path.name))


def walk(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """All files below, sorted, hidden ones left out; follows links, but enters no folder twice."""

    def unreadable(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"folder cannot be read ({error.strerror})"))

    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (Path(parent, name) for name in sorted(files) if not _hidden(name))


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


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SIDE_NAMES
