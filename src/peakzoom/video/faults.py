"""Any error that comes while one file is decoded is that file's reason, and never the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.container import one_line


@contextmanager
def reason_of(path: str | Path, system: bool = True) -> Iterator[None]:
    """Whatever the block raises becomes a DecodeError of ``path``, with that error as its cause.

    Nobody can list the errors that FFmpeg, PyAV and what they call may raise over a file. A UserError stays what it is,
    and so does a MemoryError, which says nothing about the file. With ``system`` False an error of the operating system
    that is not FFmpeg's stays too: where a result is written, it is about the disk.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not (system or isinstance(error, av.FFmpegError)):
            raise
        raise DecodeError(path, f"cannot be decoded: {told(error)}") from error


def told(error: Exception) -> str:
    """What FFmpeg or the system says, in one line; of other errors also the kind, which may be all that helps."""
    kind = "" if isinstance(error, av.FFmpegError | OSError) else f"{type(error).__name__}: "
    return kind + one_line(error)
