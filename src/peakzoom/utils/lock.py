"""One writer at a time: a lock beside a file or folder. It goes with the process that holds it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peakzoom.utils.errors import UserError


def lock_of(file: Path) -> Path:
    """Where the lock of a file or folder is, unless it is said otherwise."""
    return file.with_name(file.name + ".lock")


@contextmanager
def only_writer(file: Path, lock_file: Path | None = None, wait: float = 0.0) -> Iterator[None]:
    """Lock a file or folder, which need not be there yet, against other processes and threads that would write it.

    The lock is ``file`` with ``.lock`` behind it when ``lock_file`` is not given; its folder has to be there. ``wait``
    is how many seconds another writer may take to end.

    Raises:
        UserError: one writes it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file or lock_of(file))
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise UserError(f"{file} is being written by another process: wait for it") from error
    except OSError as error:
        error.filename = str(file)  # it is that which cannot be written
        raise
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file, and filelock does it there
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def is_written(file: Path) -> bool:
    """Whether another writer has the lock of a file now."""
    if not lock_of(file).exists():
        return False
    try:
        with only_writer(file):
            return False
    except UserError:
        return True
