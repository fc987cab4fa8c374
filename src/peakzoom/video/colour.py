"""A frame's colours become RGB, by its own matrix or the nearest that FFmpeg's converter knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from peakzoom.utils.errors import DecodeError
from peakzoom.video.container import one_line

# Numbers are those of ITU-T H.273, which FFmpeg keeps: of the matrices that libswscale takes (0 is RGB itself,
# 2 "not stated", 4 that of NTSC in 1953, 5 and 6 BT.601, 7 SMPTE 240M), and of primaries.
KNOWN = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
NAMES = {
    8: "YCgCo",
    10: "BT.2020 of constant luminance",
    11: "Y'D'zD'x (SMPTE 2085)",
    12: "derived from primaries",
    13: "derived from primaries, of constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
WIDE = frozenset({10, 11, 14, 15})  # made for BT.2020's primaries
DERIVED = frozenset({12, 13})  # from the primaries, of which these have a matrix of their own
BY_PRIMARIES = {4: Colorspace.ITU601, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M}
# PyAV names it from 18 on, which needs Python 3.11; the converters of earlier ones take the number.
BT2020: int = getattr(Colorspace, "BT2020", 9)
TITLES: dict[int, str] = {
    Colorspace.ITU601: "BT.601",
    Colorspace.ITU709: "BT.709",
    BT2020: "BT.2020",
    Colorspace.SMPTE240M: "SMPTE 240M",
}


def nearest_matrix(frame: av.VideoFrame) -> int | None:
    """The nearest matrix that the converter knows; None where it knows the frame's own.

    Of colours made for BT.2020's primaries that is BT.2020; of those derived from primaries, the matrix of the
    primaries; of all others BT.601, which FFmpeg takes where nothing is stated.
    """
    stated = int(frame.colorspace)
    if stated in KNOWN:
        return None
    if stated in WIDE:
        return BT2020
    if stated in DERIVED:
        primaries = int(frame.color_primaries)
        return BT2020 if primaries == 9 else BY_PRIMARIES.get(primaries, Colorspace.ITU709)
    return Colorspace.ITU601


def rgb_frame(
    frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int] | None = None
) -> av.VideoFrame:
    """A frame in RGB, 8 bits, from 0 to 255, of the same or another (height, width)."""
    height, width = size or (None, None)
    with stating_nearest_matrix(frame):
        return reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation="BILINEAR",  # reaches wider as the frame shrinks; FAST_BILINEAR does not, and aliases
            dst_color_range=ColorRange.JPEG,  # RGB from 0 to 255
            threads=1,
        )


@contextmanager
def stating_nearest_matrix(frame: av.VideoFrame) -> Iterator[None]:
    """In the block the frame states the nearest matrix that the converter knows; afterwards its own again.

    ``src_colorspace`` of the converter would do without this, but PyAV before 18 takes no BT.2020 there.
    """
    stated, nearest = frame.colorspace, nearest_matrix(frame)
    if nearest is None:
        yield
        return
    frame.colorspace = nearest
    try:
        yield
    finally:
        frame.colorspace = stated


@contextmanager
def convertible(path: str | Path, number: int, frame: av.VideoFrame) -> Iterator[None]:
    """Where the block converts a frame and cannot, that is the file's DecodeError."""
    try:
        yield
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        what = f"frame {number} ({frame.format.name}) cannot be converted to RGB"
        raise DecodeError(path, f"{what}: {one_line(error)}") from error


class ConversionCheck:
    """Tries one frame of each kind that a file has, so that none is accepted that cannot be converted later."""

    def __init__(self, path: Path) -> None:
        self._path, self._reformatter = path, VideoReformatter()
        self._tried: set[tuple[str, int, int]] = set()

    def look(self, number: int, frame: av.VideoFrame) -> None:
        """DecodeError if the frame is of a kind that cannot be converted."""
        kind = frame.format.name, int(frame.colorspace), int(frame.color_range)
        if kind not in self._tried:
            with convertible(self._path, number, frame):
                rgb_frame(frame, self._reformatter, (16, 16))
            self._tried.add(kind)


def matrix_slip(frame: av.VideoFrame) -> str | None:
    """One line where a frame's colours are converted by another matrix than it states."""
    taken = nearest_matrix(frame)
    if taken is None:
        return None
    stated = int(frame.colorspace)
    return f"colours said to be {NAMES.get(stated, f'of matrix {stated}')} were taken for {TITLES[taken]}"
