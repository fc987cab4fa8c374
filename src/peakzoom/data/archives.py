"""Archives unpacked safely: zip and tar by Python itself, RAR by a tool that the system has.

A file ends up in its folder or the whole archive is refused before anything is written: no absolute path, no ``..``,
no link, no file twice. It is unpacked under another name and renamed when all is there, so an interrupted unpacking
cannot be taken for a whole one.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from peakzoom.utils.errors import UserError

# The longest first: "a.tar.gz" is no ".gz".
SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip", ".rar")
# What unpacks RAR, the best first: bsdtar knows all of today's RAR but not all that old files make use of.
RAR_TOOLS = {
    "unrar": ("x", "-idq", "-p-", "-o-", "{archive}", "{folder}/"),
    "unar": ("-quiet", "-no-directory", "-force-skip", "-output-directory", "{folder}", "{archive}"),
    "7zz": ("x", "-bd", "-y", "-o{folder}", "{archive}"),
    "7z": ("x", "-bd", "-y", "-o{folder}", "{archive}"),
    "bsdtar": ("-x", "-k", "-f", "{archive}", "-C", "{folder}"),
}
UNPACKING = ".peakzoom-unpacking-"  # begins the name of a folder that is not whole yet
SPARE = 64 * 2**20  # bytes that stay free on the disk

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path, with "/" between the parts, its size in bytes, and of a RAR file its CRC-32."""

    path: str
    size: int
    crc: int | None = None


def archive_stem(file: Path) -> str | None:
    """The name without the archive's suffix, lower case; None if it is no archive, judged by its name.

    >>> archive_stem(Path("UCF101.rar")), archive_stem(Path("b/clips.tar.gz")), archive_stem(Path("a.mp4"))
    ('ucf101', 'clips', None)
    """
    name = file.name.casefold()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    return name[: -len(suffix)] if suffix and name != suffix else None


def members(archive: Path) -> list[Member]:
    """The files in an archive.

    Raises:
        UserError: no archive, broken, locked by a password, or something in it is not to be unpacked (see above).
        ModuleNotFoundError: rarfile is not installed, which reads the names in a RAR file.
    """
    found: dict[str, Member] = {}
    with _reading(archive) as items:
        for item in items:
            path = _inside(archive, item.name)
            if item.kind == "folder":
                continue
            if item.kind != "file":
                raise _refused(archive, item.name, f"is a {item.kind}")
            if path in found:
                raise _refused(archive, item.name, "is there twice")
            found[path] = Member(path, item.size, item.crc)
    return list(found.values())


def unpack(archive: Path, folder: Path, say: Say, progress: Progress | None = None) -> None:
    """Unpack an archive into a folder that is empty or new.

    Args:
        archive: one of :data:`SUFFIXES`.
        folder: made where it does not exist. After an error it may hold a part.
        say: told one line at a time.
        progress: called with (files done, all files); not for RAR, whose tools do not say.

    Raises:
        UserError: as :func:`members`; too little space on the disk; for RAR also: no tool, or none that succeeds.
    """
    listed = members(archive)
    size = sum(member.size for member in listed)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise UserError(
            f"{archive} unpacks to {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free at {folder.parent}: "
            f"make room, or unpack it elsewhere"
        )
    say(f"unpacking {archive}: {len(listed)} files, {size / 1e9:.2f} GB")
    if archive.name.casefold().endswith(".rar"):
        _unpack_rar(archive, folder, listed, say)
        return
    done = 0
    with _reading(archive) as items:
        for item in items:
            if item.kind == "folder":
                continue
            target = folder / _inside(archive, item.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with item.read() as stream, target.open("xb") as file:
                shutil.copyfileobj(stream, file, 2**20)
            done += 1
            if progress:
                progress(done, len(listed))


@contextmanager
def new_folder(folder: Path, say: Say) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends well and is removed when it does not.

    What an earlier block left that was not allowed to end, by a power cut say, is removed first.

    Raises:
        UserError: ``folder`` exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: move it away, or put into it what is to be found there")
    unfinished = folder.with_name(UNPACKING + folder.name)
    if unfinished.exists():
        say(f"an earlier unpacking into {folder} was interrupted; it begins anew")
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    unfinished.rename(folder)


def _refused(archive: Path, name: str, why: str) -> UserError:
    return UserError(f"{archive} is not unpacked: {name!r} in it {why}")


def _inside(archive: Path, name: str) -> str:
    """The path of a member, which must stay in its folder; zip and RAR files may come with backslashes."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise _refused(archive, name, "leads out of its folder")
    return path.as_posix()


class _Item(NamedTuple):
    """What an archive lists; ``kind`` is "file", "folder", or what it is instead."""

    name: str
    size: int
    kind: str
    read: Callable[[], IO[bytes]]
    crc: int | None = None  # where it is not checked by reading


@contextmanager
def _reading(archive: Path) -> Iterator[Iterator[_Item]]:
    """What is in an archive, in its order; what goes wrong while it is read is told in one sentence."""
    # RuntimeError: zipfile, where there is a password.
    broken = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
    try:
        if archive.name.casefold().endswith(".rar"):
            yield _rar_items(archive)
        elif archive.name.casefold().endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_items(zipped)
        else:
            with tarfile.open(archive) as tar:
                yield _tar_items(tar)
    except (*broken, OSError) as error:
        reason = " ".join(str(error).split()) or "it ends early"
        raise UserError(f"{archive} cannot be unpacked: {reason}") from error


def _zip_items(zipped: zipfile.ZipFile) -> Iterator[_Item]:
    for info in zipped.infolist():
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        kind = "folder" if info.is_dir() else "file" if plain else "link or special file"
        yield _Item(info.filename, info.file_size, kind, partial(zipped.open, info))


def _tar_items(tar: tarfile.TarFile) -> Iterator[_Item]:
    def read(info: tarfile.TarInfo) -> IO[bytes]:
        stream = tar.extractfile(info)
        assert stream is not None  # it is a regular file
        return stream

    for info in tar:
        link = "link" if info.issym() or info.islnk() else "special file"
        kind = "folder" if info.isdir() else "file" if info.isreg() else link
        yield _Item(info.name, info.size, kind, partial(read, info))


def _rar_items(archive: Path) -> Iterator[_Item]:
    import rarfile

    try:
        with rarfile.RarFile(archive) as rar:
            if rar.needs_password():
                raise UserError(f"{archive} is locked by a password: unpack it yourself, beside the archive")
            for info in rar.infolist():
                # file_redir: RAR 5's links, hard links and copies of another member
                linked = info.is_symlink() or getattr(info, "file_redir", None)
                kind = "folder" if info.is_dir() else "link" if linked else "file"
                yield _Item(info.filename or "", info.file_size or 0, kind, partial(rar.open, info), info.CRC)
    except rarfile.Error as error:
        raise UserError(f"{archive} cannot be unpacked: {' '.join(str(error).split())}") from error


def _unpack_rar(archive: Path, folder: Path, listed: list[Member], say: Say) -> None:
    """By the first of :data:`RAR_TOOLS` that is there and succeeds; success is that every listed file is there."""
    tools = [name for name in RAR_TOOLS if shutil.which(name)]
    if not tools:
        raise UserError(
            f"{archive} is a RAR file, which needs one of {', '.join(RAR_TOOLS)}: install one "
            f"(on Debian and Ubuntu: apt install unar), or unpack the file yourself, beside it"
        )
    reasons = []
    for tool in tools:
        target = folder / f"{UNPACKING}{tool}"
        target.mkdir()
        command = [
            tool,
            *(part.format(archive=archive.absolute(), folder=target.absolute()) for part in RAR_TOOLS[tool]),
        ]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        wrong = _wrong_files(target, listed)
        if not done.returncode and not wrong:
            for each in target.iterdir():
                each.rename(folder / each.name)
            target.rmdir()
            return
        spoken = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        reason = (spoken[:1] + [wrong or f"exit code {done.returncode}"])[0]
        reasons.append(f"{tool}: {reason}")
        say(f"{tool} did not unpack {archive}: {reason}")
        shutil.rmtree(target)
    raise UserError(
        f"{archive} could not be unpacked ({'; '.join(reasons)}): fetch it again if it is not whole, or install "
        f"another of {', '.join(RAR_TOOLS)}"
    )


def _wrong_files(folder: Path, listed: list[Member]) -> str | None:
    """What is not as the archive lists it; of names that are not ASCII, which tools read differently, the size."""
    found: Counter[tuple[str, int]] = Counter()
    for path in folder.rglob("*"):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode):
            found[_plain(path.relative_to(folder).as_posix()), state.st_size] += 1
        elif not stat.S_ISDIR(state.st_mode):
            return f"{path.name!r} became a link or special file"
    wanted = Counter((_plain(member.path), member.size) for member in listed)
    wrong = sorted(name for name, _ in (wanted - found) + (found - wanted))
    wrong = wrong or [each.path for each in listed if each.path.isascii() and not _intact(folder, each)]
    return f"{wrong[0]!r} is not as the archive lists it" if wrong else None


def _plain(path: str) -> str:
    return path if path.isascii() else "a name that is not ASCII"


def _intact(folder: Path, member: Member) -> bool:
    """By the archive's checksum: bsdtar does not look at it."""
    if member.crc is None:
        return True
    crc = 0
    with (folder / member.path).open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc == member.crc
