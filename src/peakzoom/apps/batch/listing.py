"""Which videos an archive has: files and folders of this machine, and whatever fsspec opens (``s3://``, ``gs://`` ...).

A video is known by its address, and by what its storage says that changes with its content: size, and entity tag or
time of change. Nothing is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peakzoom.data.layouts.files import is_passed_over, is_video, videos_below, without_videos
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.extras import needed_for
from peakzoom.utils.missing import missing
from peakzoom.utils.segments import FRAGMENT, file_of, times_of
from peakzoom.video.container import one_line

# What storages call that which changes with the content, the surest first.
MARKS = (
    *("ETag", "etag", "md5Hash", "md5", "checksum", "mtime", "LastModified", "last_modified", "updated"),
    *("modified", "modified_at", "created"),
)


@dataclass(frozen=True)
class ListedVideo:
    """A video of an archive."""

    path: str  # absolute path on this machine, or address with its protocol
    size: int | None  # in bytes; None where the storage does not say
    changed: str  # entity tag or time of change (local files: ns since 1970); "" where it tells neither

    @property
    def shown(self) -> str:
        """The path as Parquet can keep it: bytes of a name that are no text are escaped."""
        return self.path.encode("utf-8", "backslashreplace").decode()


def to_json(items: Sequence[ListedVideo]) -> str:
    """One line, whatever bytes the names have."""
    return json.dumps([asdict(item) for item in items])


def from_json(text: str) -> list[ListedVideo]:
    """What :func:`to_json` wrote."""
    return [ListedVideo(**each) for each in json.loads(text)]


def digest(items: Sequence[ListedVideo]) -> str:
    """A name for these videos with this content."""
    return hashlib.sha256(to_json(items).encode()).hexdigest()[:32]


def is_address(text: str) -> bool:
    """Whether fsspec is to open it, and not this machine's file system.

    >>> is_address("s3://bucket/a.mp4"), is_address("/videos/a.mp4"), is_address("C:/videos/a.mp4")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.\-]+(://|::)", text) is not None


def open_storage(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and its path in there.

    Raises:
        UserError: there is no such protocol, or what it needs is not installed.
    """
    with needed_for("reading addresses"):
        import fsspec
    try:
        storage, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise UserError(f"{printable(address)} cannot be opened: {one_line(error)}") from error
    return storage, path


def find_items(addresses: Iterable[str | Path]) -> list[ListedVideo]:
    """Every video under files, folders and addresses, each once, in their order.

    A file is taken whatever its name is; in folders, files that end as videos do (``VIDEO_SUFFIXES``) and are not
    passed over (:func:`~peakzoom.data.layouts.files.walk`).

    Raises:
        UserError: an address is not there, cannot be read, or holds no video.
    """
    found: dict[str, ListedVideo] = {}
    for address in map(str, addresses):
        items = _remote(address) if is_address(address) else _local(Path(address))
        inside = {item.path: item for item in items}
        if not inside:
            raise without_videos(printable(address))
        found |= inside
    return list(found.values())


def _local(path: Path) -> Iterator[ListedVideo]:
    times_of(path)  # refuses a segment that cannot be
    if not file_of(path).exists():
        raise missing(file_of(path), "a video file, a folder or an address")
    for file in videos_below(path) if path.is_dir() else [path]:
        address = os.path.abspath(file)  # noqa: PTH100 - follows no link
        try:
            facts = file_of(file).stat()
        except OSError:  # a link that leads nowhere, above all: its row says so
            yield ListedVideo(address, None, "")
            continue
        yield ListedVideo(address, facts.st_size, str(facts.st_mtime_ns))


def _remote(address: str) -> Iterator[ListedVideo]:
    storage, start = open_storage(address)
    if "file" in ([storage.protocol] if isinstance(storage.protocol, str) else storage.protocol):
        yield from _local(Path(start))
        return
    if FRAGMENT.search(address):
        raise UserError(
            f"{printable(address)} is a segment, which is taken of files on a disk only: copy the file to one, or name "
            "all of it"
        )
    try:
        facts = _facts(storage, start)
    except Exception as error:  # each storage has errors of its own
        raise UserError(f"{printable(address)} cannot be read: {one_line(error)}") from error
    if not facts:
        raise UserError(f"{printable(address)} does not exist or is empty")
    for path, fact in sorted(facts.items()):
        names = path.removeprefix(start).strip("/").split("/")
        if path == start or (_ends_as_video(path) and not is_passed_over(names)):
            mark = next((fact[name] for name in MARKS if fact.get(name) is not None), "")
            yield ListedVideo(storage.unstrip_protocol(path), fact.get("size"), str(mark))


def _facts(storage: Any, start: str) -> dict[str, dict[str, Any]]:
    """What a storage says of each file under a path, by path."""
    if _ends_as_video(start):  # asked first: over HTTP, looking for files below would fetch all of it
        fact = storage.info(start)
        if fact["type"] == "file":
            return {start: fact}
    return dict(storage.find(start, detail=True))


def _ends_as_video(path: str) -> bool:
    return is_video(Path(path.split("?")[0]))  # an address may have a query behind it
