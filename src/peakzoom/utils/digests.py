"""Whether two files have the same bytes, and whether one has changed: SHA-256 of what is in them.

Files of the same bytes have the same length, so only those are read that share theirs with another one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from peakzoom.utils.processors import processors
from peakzoom.utils.progress import Progress
from peakzoom.utils.segments import file_of

CHUNK = 2**20  # bytes read at once


def digests(paths: Sequence[Path], progress: Progress | None = None) -> dict[Path, str]:
    """SHA-256 of each file, in hex, of a segment with its times; empty for one that cannot be read.

    ``progress`` is called with (done, all).
    """
    files = {path: file_of(path) for path in dict.fromkeys(paths)}
    whole = dict.fromkeys(files.values(), "")  # each once, however many its segments
    with ThreadPoolExecutor(processors()) as pool:
        try:
            for done, (file, digest) in enumerate(
                zip(whole, pool.map(_digest_or_none, list(whole)), strict=True), 1
            ):
                whole[file] = digest
                if progress:
                    progress(done, len(whole))
        except BaseException:  # Ctrl-C above all: the pool would first read everything that is waiting
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    # Two segments of a file are not the same video.
    return {
        path: whole[file] and whole[file] + path.name.removeprefix(file.name) for path, file in files.items()
    }


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """Files with the same bytes, two or more each, in the order of the paths; empty files are left out.

    Of the segments of a file the first one stands for it.
    """
    firsts: dict[Path, Path] = {}
    for path in paths:
        firsts.setdefault(file_of(path), path)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in firsts:
        try:
            by_size[file.stat().st_size].append(file)
        except OSError:  # its problem is told by whoever decodes it
            continue
    alike = [file for size, files in by_size.items() if size and len(files) > 1 for file in files]
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for file, digest in digests(alike).items():
        if digest:
            by_digest[digest].append(firsts[file])
    return [files for files in by_digest.values() if len(files) > 1]


def digest_of(file: Path) -> str:
    """SHA-256 of what is in a file, in hex; OSError where it cannot be read."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_or_none(path: Path) -> str:
    try:
        facts = path.stat()
        return (
            _digest(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
            if path.is_file()
            else ""
        )
    except OSError:
        return ""


@lru_cache(maxsize=2**18)
def _digest(path: Path, *_: int) -> str:
    """Once for each file as it is, for a study trains on the same ones again and again."""
    return digest_of(path)
