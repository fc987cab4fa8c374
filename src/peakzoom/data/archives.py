"""Archives unpacked safely: zip and tar by Python's own modules, RAR by rarfile.

Every file ends up in the folder, or the whole archive is refused before anything is written: no absolute path, no
``..``, no link, no device, no file twice, no more than the disk has room for, nothing that was packed to a hundredth
(videos hardly shrink, but a few bytes can be made to fill a disk). (tarfile's data filter takes away the leading slash
of a path and lets links in; that is why the names are checked here.)
"""

from __future__ import annotations

import logging
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from peakzoom.utils.durable import free_bytes
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import Progress

# The longest first: "a.tar.gz" is no ".gz".
SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip", ".rar")
UNPACKING = ".peakzoom-unpacking-"  # begins the name of a folder that is not complete yet
MOST_RATIO = 100  # of unpacked to packed; of a video it is about 1, of lists of names 10
JUDGED_FROM = 2**20  # unpacked bytes: fewer fill no disk, and a short text may well shrink so
SPARE = 64 * 2**20  # bytes that stay free on the disk
# What reading a broken archive raises; zipfile a RuntimeError where there is a password.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)

log = logging.getLogger(__name__)


def archive_stem(file: Path) -> str | None:
    """The name without the archive's suffix, lower case; None if it is no archive, judged by its name.

    >>> archive_stem(Path("UCF101.rar")), archive_stem(Path("b/clips.tar.gz")), archive_stem(Path("a.mp4"))
    ('ucf101', 'clips', None)
    """
    name = file.name.casefold()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    return name[: -len(suffix)] if suffix and name != suffix else None


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack an archive into a folder that is empty or new; after an error it may hold a part.

    ``progress`` is called with (files done, all files).

    Raises:
        UserError: no archive, broken, locked by a password; something in it is refused (see above); too little space
            on the disk; a compressed RAR file, and no tool on this system that rarfile can use.
        ModuleNotFoundError: a RAR file, and rarfile is not installed.
    """
    with _opened(archive) as files:
        size = sum(file.size for file in files.values())
        folder.mkdir(parents=True, exist_ok=True)
        if (free := free_bytes(folder)) < size + SPARE:
            raise UserError(
                f"{archive} unpacks to {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free at {folder.parent}: "
                f"make room, or unpack it elsewhere"
            )
        log.info("unpacking %s: %d files, %.2f GB", archive, len(files), size / 1e9)
        for done, (path, file) in enumerate(files.items(), 1):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as stream, target.open("xb") as copy:
                shutil.copyfileobj(stream, copy, 2**20)
            if progress:
                progress(done, len(files))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends well and is removed when it does not.

    What an interrupted unpacking has left is removed first. A UserError if ``folder`` exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: move it away, or put into it what is to be found there")
    unfinished = folder.with_name(UNPACKING + folder.name)
    if unfinished.exists():
        log.warning("an earlier unpacking into %s was interrupted; it begins anew", folder)
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    unfinished.rename(folder)


class _Member(NamedTuple):
    """What an archive lists; ``kind`` is "file", "folder", or what it is instead."""

    name: str
    size: int  # bytes; reading gives no more
    packed: int | None  # bytes in the archive, where it says so
    kind: str
    open: Callable[[], IO[bytes]]


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, _Member]]:
    """The files in an archive by their paths, all of them checked; whatever reading it raises becomes a UserError."""
    read = {".rar": _rar_members, ".zip": _zip_members}.get(archive.suffix.casefold(), _tar_members)
    try:
        with read(archive) as members:
            yield _checked(archive, members)
    except BROKEN as error:
        raise _broken(archive, error) from error


def _checked(archive: Path, members: Iterator[_Member]) -> dict[str, _Member]:
    files: dict[str, _Member] = {}
    total, length = 0, archive.stat().st_size
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))  # zip and RAR files may come with backslashes
        refused = f"{archive} is not unpacked: {member.name!r} in it"
        if path.is_absolute() or member.name[1:2] == ":" or ".." in path.parts or "\0" in member.name:
            raise UserError(f"{refused} leads out of its folder")
        if member.kind not in ("file", "folder"):
            raise UserError(f"{refused} is a {member.kind}")
        if path.as_posix() in files:
            raise UserError(f"{refused} is there twice")
        if member.kind == "file":
            files[path.as_posix()] = member
            total += member.size
            if member.packed is not None:
                _expect_ratio(f"{refused} unpacks", member.size, member.packed)
            _expect_ratio(f"{archive} is not unpacked: it unpacks", total, length)
    return files


def _expect_ratio(what: str, size: int, packed: int) -> None:
    if size > max(JUDGED_FROM, MOST_RATIO * packed):
        raise UserError(
            f"{what} to {size / max(packed, 1):,.0f} times its size ({size / 1e6:.0f} MB), which no video does: if you "
            "trust it, unpack it yourself, beside the archive"
        )


def _broken(archive: Path, error: Exception) -> UserError:
    return UserError(f"{archive} cannot be unpacked: {' '.join(str(error).split()) or 'it ends early'}")


@contextmanager
def _zip_members(archive: Path) -> Iterator[Iterator[_Member]]:
    def member(info: zipfile.ZipInfo) -> _Member:
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        kind = "folder" if info.is_dir() else "file" if plain else "link or special file"
        return _Member(info.filename, info.file_size, info.compress_size, kind, partial(zipped.open, info))

    with zipfile.ZipFile(archive) as zipped:
        yield map(member, zipped.infolist())


@contextmanager
def _tar_members(archive: Path) -> Iterator[Iterator[_Member]]:
    def member(info: tarfile.TarInfo) -> _Member:
        link = "link" if info.issym() or info.islnk() else "special file"
        kind = "folder" if info.isdir() else "file" if info.isreg() else link
        return _Member(info.name, info.size, None, kind, lambda: cast(IO[bytes], tar.extractfile(info)))

    with tarfile.open(archive) as tar:
        yield map(member, tar)


@contextmanager
def _rar_members(archive: Path) -> Iterator[Iterator[_Member]]:
    import rarfile

    def member(info: rarfile.RarInfo) -> _Member:
        # file_redir: RAR 5's links, hard links and copies of another member
        linked = info.is_symlink() or getattr(info, "file_redir", None)
        kind = "folder" if info.is_dir() else "link" if linked else "file"
        return _Member(
            info.filename or "", info.file_size or 0, info.compress_size, kind, partial(rar.open, info)
        )

    try:
        with rarfile.RarFile(archive) as rar:
            if rar.needs_password():
                raise UserError(f"{archive} is locked by a password: unpack it yourself, beside the archive")
            yield map(member, rar.infolist())
    except rarfile.RarCannotExec as error:
        raise UserError(
            f"{archive} is a compressed RAR file, which needs one of unrar, unar, 7zz, 7z and bsdtar: install one "
            f"(on Debian and Ubuntu: apt install unar), or unpack the file yourself, beside it"
        ) from error
    except rarfile.Error as error:
        raise _broken(archive, error) from error
