"""Opening a video file with PyAV: what every decode begins with.

FFmpeg can be led from one file to others: by playlists, by lists of files, by names such as ``a%d.png``. Here it gets
neither a name nor a protocol, but an open file to read from, and it may take that for a video only
(:data:`FORMATS`). So nothing else is opened, nor looked for, whatever the file says.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import av
import av.logging
from av.container import InputContainer

from peakzoom.utils.errors import DecodeError
from peakzoom.utils.missing import no_such_file
from peakzoom.video.impostors import HEAD, UNFINISHED, impostor, is_cut_off, is_mp4

# FFmpeg's names of what is read. Not among them are playlists and lists of files (hls, dash, concat, imf), pictures by
# pattern (image2), what opens files of its own (vobsub), what leads into a network (sdp, rtsp), text that FFmpeg
# "plays" (tty, bin), subtitles, and formats of old games.
FORMATS = ",".join(
    (
        *(
            "mov",
            "mp4",
            "matroska",
            "webm",
            "avi",
            "mpeg",
            "mpegts",
            "mpegtsraw",
            "mpegvideo",
            "flv",
            "live_flv",
            "kux",
        ),
        *(
            "asf",
            "asf_o",
            "ogg",
            "mxf",
            "gxf",
            "dv",
            "wtv",
            "nut",
            "nuv",
            "nsv",
            "rm",
            "ivr",
            "swf",
            "gif",
            "apng",
            "ivf",
        ),
        *(
            "h261",
            "h263",
            "h264",
            "hevc",
            "hxvs",
            "vvc",
            "evc",
            "apv",
            "av1",
            "obu",
            "m4v",
            "mjpeg",
            "mjpeg_2000",
        ),
        *(
            "mpjpeg",
            "smjpeg",
            "ingenient",
            "vc1",
            "vc1test",
            "cavsvideo",
            "avs2",
            "avs3",
            "dirac",
            "dnxhd",
            "ipu",
        ),
        *(
            "yuv4mpegpipe",
            "dhav",
            "ifv",
            "iv8",
            "luodat",
            "lvf",
            "lxf",
            "mlv",
            "mxg",
            "cine",
            "ser",
            "pva",
            "ty",
            "nc",
        ),
        *("vivo", "flic", "fits", "jpegxl_anim", "simbiosis_imx"),
        # Single pictures.
        *(
            f"{name}_pipe"
            for name in ("bmp", "dpx", "exr", "gif", "hdr", "j2k", "jpeg", "jpegls", "jpegxl", "jpegxs")
        ),
        *(
            f"{name}_pipe"
            for name in ("pam", "pbm", "pcx", "pfm", "pgm", "pgmyuv", "png", "ppm", "psd", "qoi", "sgi")
        ),
        *(f"{name}_pipe" for name in ("sunrast", "tiff", "webp", "xbm", "xpm", "xwd")),
        # Sound, of which the reason is that it holds no video.
        *(
            "mp3",
            "wav",
            "w64",
            "flac",
            "aac",
            "aiff",
            "ac3",
            "eac3",
            "dts",
            "amr",
            "au",
            "caf",
            "ape",
            "wv",
            "tta",
        ),
    )
)


class _File(io.FileIO):
    """An open file as FFmpeg sees it: without its name, of which only the ending says something."""

    def __init__(self, path: Path) -> None:
        # A pipe that has taken the file's place in the meantime does not block.
        super().__init__(
            path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        )
        ending = "".join(letter for letter in path.suffix if letter.isascii() and letter.isalnum())
        self.name = f"video.{ending}"

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As FFmpeg's own reading of files: where it may not go, its demuxer hears so and goes on without."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)

    def __del__(self) -> None:
        self.close()


def open_file(path: Path) -> InputContainer:
    """Opens a regular file and nothing else: no pipe (it would block), no address, no list of other files."""
    try:
        _check(path, path.stat())
        file = _File(path)
        _check(path, os.fstat(file.fileno()))
        head = file.read(HEAD)
    except FileNotFoundError as error:
        raise DecodeError(path, no_such_file(path)) from error
    except (OSError, ValueError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(
            path, f"cannot be opened: {one_line(error)}"
        ) from error  # ValueError: a null character
    try:
        container = _open(file)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        _refuse(path, file, head, error)
    if not container.streams.video and is_cut_off(file):
        container.close()
        raise DecodeError(path, f"is cut off before it says what it holds: {UNFINISHED}")
    return container


def _check(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "is a pipe or a device, not a video file")
    if status.st_size == 0:
        raise DecodeError(path, "is empty (zero bytes)")


def _open(file: _File) -> InputContainer:
    """Odd letters in the metadata are no reason to refuse a video."""
    file.seek(0)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": ""}
    return av.open(file, "r", container_options=options, metadata_errors="replace", io_open=_nothing_else)


def _nothing_else(url: str, flags: int, options: object) -> NoReturn:
    raise av.PermissionError(1, "a video may lead to no other file")


def _refuse(path: Path, file: _File, head: bytes, error: Exception) -> NoReturn:
    """Say why a file cannot be opened, by its beginning and by what FFmpeg logs over it."""
    if what := impostor(head):
        raise DecodeError(path, f"is {what}") from error
    with logging(av.logging.ERROR), av.logging.Capture() as logs, suppress(av.FFmpegError, ValueError):
        _open(file)  # once more, and for its log alone
    log = "".join(line for _, _, line in logs)
    if "not on whitelist" in log:
        raise DecodeError(path, "is in no format of videos that is read here") from error
    missing = ""
    if "moov atom not found" in log and is_mp4(head):  # FFmpeg looks for it in all that is called .mp4
        missing = f" (moov atom not found: its index is missing, {UNFINISHED})"
    elif isinstance(error, av.EOFError) or is_cut_off(file):
        missing = f" (it is cut off before it says what it holds: {UNFINISHED})"
    raise DecodeError(path, f"cannot be read as a video: {one_line(error)}{missing}") from error


@contextmanager
def logging(level: int) -> Iterator[None]:
    """Have FFmpeg log in this block, also what it has said before; else it is silent."""
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)
    av.logging.set_level(level)
    try:
        yield
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])


def one_line(error: BaseException) -> str:
    """What the system or FFmpeg says, without error numbers and file names."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
