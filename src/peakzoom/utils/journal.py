"""Results for many files, a line each, which a stopped process resumes.

A journal is a file of JSON Lines with the settings that it was made with beside it, ``NAME.settings.json``. A line
counts when it is whole; what a killed process left of one is cut off. One process writes at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from peakzoom.utils.durable import sync, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.lock import only_writer
from peakzoom.utils.plain import read_object


def hash_of(value: Any) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def settings_file(file: Path) -> Path:
    """Where the settings of a journal are."""
    return file.with_name(file.name + ".settings.json")


def check_journal(file: Path, settings: dict[str, Any]) -> None:
    """Refuse (UserError) a journal that was made with other settings, or does not say with which."""
    beside = settings_file(file)
    try:
        before = read_object(beside)
    except UserError as error:
        wrong = "damaged" if beside.exists() else "missing"
        raise UserError(
            f"{file} does not say how it was made ({beside.name} is {wrong}): it cannot be resumed: name another"
        ) from error
    if changed := changed_settings(before, settings):
        raise UserError(f"{file} was begun with another {changed}: resume with the same, or name another")


def changed_settings(before: dict[str, Any], settings: dict[str, Any]) -> str:
    """The names of the settings that are not what a file says of them, for a sentence; empty where all are."""
    now = json.loads(json.dumps(settings))
    return ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))


def whole_lines(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines up to the first that is not whole, and how many bytes they take.

    A power cut may leave a line of zeros with more behind it: what follows a damaged line is done again too.
    """
    lines: list[dict[str, Any]] = []
    end = 0
    for raw in data.splitlines(keepends=True):
        line = whole_line(raw)
        if line is None:
            break
        lines.append(line)
        end += len(raw)
    return lines, end


def whole_line(raw: bytes) -> dict[str, Any] | None:
    """The values of one line; None where it is damaged or does not end."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and raw.endswith(b"\n") else None


def add_line(stream: IO[bytes], line: dict[str, Any]) -> None:
    """Write a line and wait until it is on the disk: neither a kill nor a power cut right after loses it."""
    try:
        stream.write(json.dumps(line).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    except OSError as error:
        error.filename = stream.name  # so that it can be said what could not be written
        raise


def open_lines(file: Path) -> tuple[list[dict[str, Any]], IO[bytes]]:
    """The whole lines of a file, if it is there, and a stream for more; what is left of another line is cut off."""
    lines, end = whole_lines(file.read_bytes()) if file.exists() else ([], 0)
    stream = file.open("ab")
    stream.truncate(end)
    sync(file.parent)  # or a power cut takes the name, and every line with it
    return lines, stream


class Journal:
    """A journal that is being written; a context. With ``resume`` it goes on with the ``lines`` that are there.

    Raises:
        UserError: the file is there and is not to be resumed, or was made with other settings, or another process
            writes it.
    """

    def __init__(self, file: Path, settings: dict[str, Any], resume: bool = False) -> None:
        self.file = file
        with ExitStack() as held:
            held.enter_context(only_writer(file))
            beside = settings_file(file)
            if not resume and file.exists():
                raise UserError(f"{file} exists: go on with it by --resume, name another file, or remove it")
            if resume and (file.exists() or beside.exists()):
                check_journal(file, settings)
            else:
                write_text(beside, json.dumps(settings, indent=2) + "\n")
            self.lines, self._stream = open_lines(file)
            self._held = held.pop_all()

    def add(self, line: dict[str, Any]) -> None:
        """Write a line, as :func:`add_line`."""
        add_line(self._stream, line)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            try:
                self._stream.close()
            except OSError:  # the line that could not be written cannot be now, and the first error says so
                if error is None:
                    raise
