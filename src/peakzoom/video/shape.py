"""How a player shows stored frames: which part of them, turned and mirrored how, and with pixels of which shape."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from peakzoom.video.colour import matrix_slip
from peakzoom.video.container import logging

# Real pixels are at most a little over 2 wide or high (recordings at half width); a ratio beyond this is a
# slip of the program that wrote the file, and obeying it would draw the frame out into a line.
MAX_PIXEL_ASPECT = 4.0


@dataclass(frozen=True)
class Crop:
    """How many rows and columns of a stored frame are not shown, by the container (MP4's clean aperture, Matroska)."""

    left: int
    right: int
    top: int
    bottom: int

    def fits(self, height: int, width: int) -> bool:
        """Whether something is left of a frame."""
        return self.left + self.right < width and self.top + self.bottom < height

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is shown of a frame."""
        return height - self.top - self.bottom, width - self.left - self.right


def container_crop(container: InputContainer, stream: VideoStream) -> Crop | None:
    """What the container says of a stream. PyAV gives it in FFmpeg's description of the file only (libavformat/dump.c).

    What the codec says itself (H.264's and HEVC's cropping) the decoder has obeyed.
    """
    with logging(av.logging.INFO):  # as which FFmpeg describes; nothing else happens in the meantime
        text: str = container.dumps_format()  # type: ignore[attr-defined]  # which the stubs leave out
    _, *streams = re.split(r"^  Stream #\d+:(?=\d+)", text, flags=re.MULTILINE)
    for each in streams:
        found = re.search(r"^      Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)\s*$", each, re.MULTILINE)
        if found and int(re.split(r"\D", each, maxsplit=1)[0]) == stream.index:
            crop = Crop(*map(int, found.groups()))
            return crop if crop != Crop(0, 0, 0, 0) else None
    return None


@dataclass(frozen=True)
class DisplayedShape:
    """How a player shows stored frames; the fields are those of :class:`~peakzoom.video.scan.VideoInfo`."""

    height: int
    width: int
    rotation: int
    pixel_aspect: float
    crop: Crop | None  # of stored frames, before everything else


def displayed_shape(
    container: InputContainer, stream: VideoStream, first: av.VideoFrame
) -> tuple[DisplayedShape, str | None]:
    """How a video is displayed, by its first frame; and a line if what the file states of it is not obeyed."""
    aspect, slips = float(stream.sample_aspect_ratio or 1), list[str]()
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        slips.append(f"pixels said to be {aspect:g} times as wide as high were taken for square")
        aspect = 1.0
    turns, _ = orientation(first)
    if slip := matrix_slip(first):
        slips.append(slip)
    crop = container_crop(container, stream)
    if crop is not None and not crop.fits(first.height, first.width):
        slips.append("cropping that would leave nothing of a frame was not done")
        crop = None
    height, width = (first.height, first.width) if crop is None else crop.inside(first.height, first.width)
    width = max(round(width * aspect), 1)
    if turns % 2:
        height, width = width, height
    return DisplayedShape(height, width, 90 * turns, aspect, crop), "; ".join(slips) or None


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
