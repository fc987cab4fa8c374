"""Opening a video file with PyAV, and how its frames are to be displayed: what every decode begins with."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from peakzoom.utils.errors import DecodeError

# Real pixels are at most a little over 2 wide or high (recordings at half width); a ratio beyond this is a
# slip of the program that wrote the file, and obeying it would draw the frame out into a line.
MAX_PIXEL_ASPECT = 4.0

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


@dataclass(frozen=True)
class DisplayedShape:
    """How a player shows stored frames; the fields are those of :class:`~peakzoom.video.scan.VideoInfo`."""

    height: int
    width: int
    rotation: int
    pixel_aspect: float


def displayed_shape(first: av.VideoFrame, stream: VideoStream) -> tuple[DisplayedShape, str | None]:
    """How a video is displayed, by its first frame; and one line if the file states an impossible pixel shape."""
    aspect, problem = float(stream.sample_aspect_ratio or 1), None
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        problem = f"pixels said to be {aspect:g} times as wide as high were taken for square"
        aspect = 1.0
    turns, _ = orientation(first)
    height, width = first.height, max(round(first.width * aspect), 1)
    if turns % 2:
        height, width = width, height
    return DisplayedShape(height, width, 90 * turns, aspect), problem


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """(quarter turns clockwise, upside down before them) that bring a stored frame to what is displayed.

    The display matrix (libavutil/display.h) sends a stored (x, y) to (a x + c y, b x + d y), y pointing down:
    the x axis goes to (a, b), and a negative determinant is a mirror image. An angle between two quarters
    counts as the nearer one.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return 0, False
    matrix = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]  # slip of the stubs
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)  # rows a b u, c d v, x y w
    return round(math.atan2(b, a) / (math.pi / 2)) % 4, bool(a * d - b * c < 0)


def _new_kind(kinds: type[SideDataType], number: int) -> SideDataType:
    """A kind of side data that this PyAV has no name for (EXIF, LCEVC): asked for any of a frame's, it lists all."""
    kind = object.__new__(kinds)
    vars(kind).update(_name_=f"KIND_{number}", _value_=number)
    return kind


SideDataType._missing_ = classmethod(_new_kind)  # type: ignore[method-assign,assignment]  # what enum asks


def one_line(error: BaseException) -> str:
    """What the system or FFmpeg says, without error numbers and file names."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
