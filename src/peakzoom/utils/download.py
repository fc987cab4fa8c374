"""A file from an address, once: kept in the cache, resumed after a break, checked, fetched by one process at a time."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from huggingface_hub.file_download import http_get

from peakzoom.utils.digests import digest_of
from peakzoom.utils.durable import is_full
from peakzoom.utils.errors import UserError, first_line, printable
from peakzoom.utils.folders import cache_home

HOST = re.compile(r"[\w-]+(\.[\w-]+)*")  # with its port
BEYOND = 416  # what a server says of bytes after the last one


def is_address(text: str) -> bool:
    """Whether it is the address of a file, http or https."""
    return text.lower().startswith(("http://", "https://"))


def cached_file(address: str) -> Path:
    """Where the file of an address is kept: ``weights/HOST/PATH`` in the cache.

    What stands behind a question mark may choose another file, so each such query has a folder of its own.
    """
    parts = urlsplit(address)
    inside = [part for part in unquote(parts.path).split("/") if part not in ("", ".", "..")]
    host = parts.netloc.rpartition("@")[2].replace(":", "_")
    if not HOST.fullmatch(host) or not inside or not address.isprintable():
        raise UserError(f"{printable(address)} is no address of a file, expected https://HOST/PATH/FILE")
    *folders, name = inside
    queried = [hashlib.sha256(parts.query.encode()).hexdigest()[:8]] if parts.query else []
    return cache_home() / "weights" / Path(host, *folders, *queried, name)


def fetch(address: str, digits: str = "", check: Callable[[Path], object] | None = None) -> Path:
    """The file of an address, from the cache where it is there.

    A download that breaks off is gone on with by the next one; a file that is not whole or not the right one is never
    left under its name.

    Args:
        address: http or https.
        digits: the first hexadecimal digits of its SHA-256; none are compared where it is empty.
        check: raises UserError for what was fetched and is no file of the kind that is wanted, as a page that says
            sorry; the draft that it is given ends as the file does.

    Raises:
        UserError: it cannot be had, or is another file than the digits say.
        OSError: the cache cannot be written.
    """
    file = cached_file(address)
    if file.exists():
        _expect(file, digits, f"remove it, so that it is fetched from {address} again")
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():  # another process may have fetched it meanwhile
            part = file.with_name(f"{file.stem}.part{file.suffix}")
            _download(address, part, file)
            try:
                _expect(part, digits, f"ask who publishes {address}")
                if check:
                    check(part)
            except UserError as error:
                part.unlink()
                raise UserError(f"what {address} gave was not kept: {error}") from error
            part.replace(file)
    return file


def _download(address: str, part: Path, file: Path) -> None:
    """Fetch what is missing of the draft, with a bar on standard error."""
    try:
        with part.open("ab") as stream, hub_quiet():
            http_get(address, stream, resume_size=stream.tell(), displayed_filename=file.name)
    except Exception as error:  # of the client, whose kinds differ between releases
        if isinstance(error, OSError) and error.errno is not None and (error.filename or is_full(error)):
            error.filename = error.filename or str(part)
            raise  # of this machine: no room, no right
        if getattr(getattr(error, "response", None), "status_code", None) == BEYOND and part.stat().st_size:
            part.unlink()  # the draft is as long as the file: what it holds is not known
            return _download(address, part, file)
        raise _unreachable(address, file, error) from error


@contextmanager
def hub_quiet() -> Iterator[None]:
    """Keep huggingface_hub from telling of every try; the last one's error is raised."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _unreachable(address: str, file: Path, error: Exception) -> UserError:
    reason = first_line(error).rstrip(".")
    return UserError(
        f"{address} could not be had ({reason}): try again where there is a network, or put the file at {file}"
    )


def _expect(file: Path, digits: str, way_out: str) -> None:
    """UserError if the SHA-256 of a file does not begin with these digits."""
    if not digits:
        return
    found = digest_of(file)
    if not found.startswith(digits):
        raise UserError(
            f"{file} is damaged or another file: its SHA-256 begins with {found[: len(digits)]}, expected {digits}; "
            f"{way_out}"
        )
