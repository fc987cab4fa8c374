"""Opening a video file with PyAV: what every decode begins with."""

from __future__ import annotations

import stat
from pathlib import Path

import av
from av.container import InputContainer

from peakzoom.utils.errors import DecodeError

# FFmpeg also "plays" text files (as a terminal's screen) and lists of other files.
NOT_VIDEO_FORMATS = frozenset({"tty", "hls", "concat"})


def open_file(path: Path) -> InputContainer:
    """Opens a regular file and nothing else: no pipe (it would block), no address, no list of other files."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DecodeError(path, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DecodeError(path, f"cannot be opened: {one_line(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "is a pipe or a device, not a video file")
    if status.st_size == 0:
        raise DecodeError(path, "is empty (zero bytes)")
    try:
        # "file:" keeps a name such as "a:b.mp4" from being read as an address, and the whitelist keeps the
        # file from leading to one. Odd letters in its metadata are no reason to refuse a video.
        options = {"protocol_whitelist": "file"}
        container = av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(path, f"cannot be read as a video: {one_line(error)}") from error
    if NOT_VIDEO_FORMATS.intersection(container.format.name.split(",")):
        container.close()
        raise DecodeError(path, "is a text file or a playlist, not a video")
    return container


def one_line(error: BaseException) -> str:
    """What the system or FFmpeg says, without error numbers and file names."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
