"""Folders and lists for the tests: empty files, texts, the names in official lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from peakzoom.data.entries import Entry
from peakzoom.utils.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def touch_many(root: Path, names: list[str]) -> None:
    """New files by the thousand: links to one empty file, since 13,320 files of their own can take ten seconds."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    touch(root, names[0])
    for name in names[1:]:
        (root / name).hardlink_to(root / names[0])


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.write_bytes(text.encode(encoding))
    return file


def lines(*files: Path) -> list[str]:
    return [line.split()[0] for file in files for line in file.read_text().splitlines() if line.strip()]


def names(entries: list[Entry], root: Path) -> list[tuple[str, int, str | None, str | None]]:
    return [(e.path.relative_to(root).as_posix(), e.label, e.split, e.group) for e in entries]


def one_sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text
