"""Folders and lists for the tests: empty files, texts, the names in official lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peakzoom.errors import UserError
from peakzoom.video.entries import Entry


def touch(root: Path, *names: str) -> None:
    folders: set[Path] = set()
    for name in names:
        path = root / name
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        os.close(os.open(path, os.O_CREAT))


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
