"""Files that are whole or not there: written under another name, synced to the disk, then renamed.

A process that is killed, a disk that is full and a power cut then leave the old file or the new one, never a part of
one. What is left of a draft ends in ``.part``; nothing reads it, and the next attempt writes over it. A draft has one
writer at a time (:mod:`peakzoom.utils.lock`).
"""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from peakzoom.utils.errors import UserError
from peakzoom.utils.lock import lock_of, only_writer
from peakzoom.utils.system import DISK_FULL, expect_place, named, reason_of, system_error

DRAFT = ".part"
DISK_LOST = (errno.EIO, errno.EROFS)  # broken, or made read-only since
PATIENCE = 60.0  # seconds that another writer of a file may take


@contextmanager
def draft_of(file: Path, draft: Path | None = None) -> Iterator[Path]:
    """A name to write under; what is there at the end of the block is synced and becomes ``file``.

    An error in the block removes the draft and leaves ``file`` as it was. The draft lies beside it when not given, and
    of two writers the second waits.
    """
    with ExitStack() as held:
        if draft is None:
            draft = file.with_name(file.name + DRAFT)
            held.enter_context(only_writer(file, lock_of(draft), PATIENCE))
        try:
            yield draft
            sync(draft)
            draft.replace(file)
        except BaseException as error:
            name_place(error, file)
            with suppress(OSError):
                draft.unlink()
            raise
    sync(file.parent)


@contextmanager
def whole(file: Path, mode: str = "w", draft: Path | None = None) -> Iterator[IO[Any]]:
    """A stream of a draft that becomes ``file`` at the end of the block; mode "w" (UTF-8, no newlines made) or "wb".

    Names of files that are no text keep their bytes.
    """
    text: dict[str, Any] = (
        {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    )
    with draft_of(file, draft) as written, written.open(mode, **text) as stream:
        yield stream


def write_text(file: Path, text: str) -> None:
    """The whole file, in UTF-8."""
    with whole(file) as stream:
        stream.write(text)


def write_csv(file: Path, header: Sequence[object], rows: Iterable[Iterable[object]]) -> None:
    """The whole file: a line of names, then the rows."""
    with whole(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of what :func:`write_csv` wrote, by the names in its first line; none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def check_new_folder(folder: Path) -> None:
    """Refuse (UserError) a folder that cannot be written, or that something would be written over in.

    To be called before the work.
    """
    expect_place(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a new folder with --out")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: name another --out")


def by_name(folder: Path) -> Path:
    """The same folder by a name, where it is given as ``.`` or ``..``: a draft or a lock is called after it."""
    return folder.resolve() if folder.name in ("", "..") else folder


@contextmanager
def whole_folder(folder: Path, draft: Path | None = None, replace: bool = False) -> Iterator[Path]:
    """A draft to fill, which is the folder of that name when the block ends.

    The draft lies beside it when not given. What a killed process left of it is removed first. A folder that has
    something in it goes at the end where ``replace`` says so.

    Raises:
        UserError: another process writes the folder, or has written it and it is not to be replaced.
    """
    folder = by_name(folder)
    draft = draft or folder.with_name(folder.name + DRAFT)
    draft.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(folder, lock_of(draft)):
        if not replace:
            _expect_unwritten(folder)
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir()
        try:
            yield draft
            if not replace:
                _expect_unwritten(folder)
            for each in [*sorted(draft.rglob("*")), draft]:
                sync(each)
        except BaseException as error:
            name_place(error, folder)
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _put_in_place(draft, folder)


def _expect_unwritten(folder: Path) -> None:
    """Refuse (UserError) a folder that was new or empty when the work began, and no longer is."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} was written by another process in the meantime and is left as it is: name another place, or "
            "remove it"
        )


def _put_in_place(draft: Path, folder: Path) -> None:
    """Rename a draft that is on the disk to the folder; what is there under that name goes."""
    old = folder.with_name(f"{folder.name}.old{DRAFT}")
    if old.exists():
        shutil.rmtree(old)
    here = folder.exists() and folder.samefile(Path())
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    if here:  # this process works in the one that goes
        os.chdir(folder)
    sync(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def sync(path: Path) -> None:
    """Wait until what a file holds, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that a disk or a quota is full."""
    seen: BaseException | None = error
    while seen is not None:
        found = None if isinstance(seen, UserError) else system_error(seen)
        if found is not None and found.errno in DISK_FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def explain_full_disk(folder: Path, way_out: str | Callable[[], str]) -> Iterator[None]:
    """Make one UserError of a disk that is full while the block writes to ``folder``.

    ``way_out`` is what to do when there is room again; called after the error where it depends on what was written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_full(error):
            name_place(error, folder)
            raise
        out = way_out if isinstance(way_out, str) else way_out()
        raise UserError(f"{no_room(folder, error)}: make room and {out}") from error


def no_room(folder: Path, error: BaseException) -> str:
    """What could not be written, where, and how much room there is."""
    found = system_error(error) or OSError()
    place = named(found)
    place = place or folder
    folder = place if place.is_dir() else place.parent
    reason = reason_of(found) if found.errno else "no space left on device"
    return f"{place} could not be written ({reason}; {room(folder)} free in {folder})"


def name_place(error: BaseException, path: Path) -> None:
    """Note what was being written in an error that does not say it: a write to an open file names none."""
    if isinstance(error, OSError) and error.filename is None and error.errno in (*DISK_FULL, *DISK_LOST):
        error.filename = str(path)


def free_bytes(folder: Path) -> int:
    """Free disk where a folder is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def room(folder: Path) -> str:
    """Free space where a folder is or will be, such as "1.5 MB"."""
    free: float = free_bytes(folder)
    units = ["bytes", "kB", "MB", "GB"]
    while free >= 1000 and len(units) > 1:
        free /= 1000
        del units[0]
    return f"{free:.3g} {units[0]}"
