"""Folders for what is needed for a while: gone at the end, or, after a kill, when the next one is made."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peakzoom.utils.errors import UserError
from peakzoom.utils.lock import only_writer

PATIENCE = 10.0  # seconds in which another process has looked whether a lock is held


@contextmanager
def temporary_folder(prefix: str, place: Path | None = None) -> Iterator[Path]:
    """A new folder with a name that begins so, in ``place`` or where the system keeps such; removed at the end.

    Its process holds a lock beside it. One whose lock nobody holds is of a killed process, and goes before a new one is
    made.
    """
    home = Path(tempfile.gettempdir()) if place is None else place
    _sweep(home, prefix)
    folder = home / f"{prefix}{uuid.uuid4().hex}"
    with only_writer(
        folder, wait=PATIENCE
    ):  # before there is a folder: one without a lock is swept by nobody
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():  # something was still written to it
                shutil.rmtree(folder)


def _sweep(home: Path, prefix: str) -> None:
    """Remove what killed processes of this user have left; what the system does not let go stays."""
    for lock in sorted(home.glob(f"{prefix}*.lock")):
        folder = lock.with_suffix("")
        if not _is_own(lock) or (os.path.lexists(folder) and not _is_own(folder)):
            continue
        with suppress(OSError, UserError), only_writer(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_own(path: Path) -> bool:
    """Whether a file or folder is this user's, and no link."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    return not path.is_symlink() and (not hasattr(os, "getuid") or facts.st_uid == os.getuid())
