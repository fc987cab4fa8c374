"""A clip that any browser plays: packets copied as they are, or frames encoded again in H.264.

Packets are copied where a browser can play their codec and decoding can begin just before the event. Their times are
those by which the event was found, not the file's own: they always advance, and 0 is the first frame of the clip.

Files are read in the process that decodes (:mod:`peakzoom.video.guard`), forward from where the clip before has ended.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from peakzoom.apps.watch.evidence.trace import Cut
from peakzoom.utils.errors import DecodeError
from peakzoom.video.container import open_file
from peakzoom.video.cursor import Cursor
from peakzoom.video.decode import to_rgb
from peakzoom.video.encode import CLOCK, H264Writer, ticks_of
from peakzoom.video.packets import Losses, decoded_frames, stored_packets
from peakzoom.video.shape import DisplayedShape, displayed_shape

# Codecs that current browsers play without help from the system, in the container that they play them in.
COPIED = {"h264": "mp4", "vp8": "webm", "vp9": "webm", "av1": "webm"}
PIXELS = frozenset({"yuv420p", "yuvj420p"})  # of more bits or more colour, many play none
BARE = frozenset({"vp8", "vp9", "av1"})  # codecs with packets that show nothing, and that others need
SPOOL = "nut"  # FFmpeg's own container, which takes any codec
OVERLAP = 2**27  # bytes behind it that a file need not be read again for
FARTHEST = 30.0  # seconds from a key frame to the event, beyond which a file's frames are encoded again


@dataclass(frozen=True)
class StreamFacts:
    """What a stream is, as far as copying depends on it."""

    codec: str  # FFmpeg's name
    pixels: str
    upright: bool  # neither turned nor cropped by the container
    created: str | None = None  # when it was recorded, as its container says

    @property
    def suffix(self) -> str:
        """Of a file with copied packets."""
        return COPIED[self.codec]

    def why_not_copied(self) -> str | None:
        """Why a browser could not play copied packets; None where it can."""
        if self.codec not in COPIED:
            return f"not every browser plays {self.codec}"
        if self.pixels not in PIXELS:
            return f"not every browser plays {self.codec} with pixels of {self.pixels}"
        if not self.upright and self.suffix != "mp4":
            return f"{self.suffix} does not say how a picture is turned"
        return None


def facts_of(stream: VideoStream, shape: DisplayedShape) -> StreamFacts:
    """Of an open stream."""
    context, container = stream.codec_context, stream.container
    created = stream.metadata.get("creation_time") or container.metadata.get("creation_time")
    upright = shape.rotation == 0 and shape.crop is None
    return StreamFacts(context.codec.canonical_name, context.pix_fmt or "", upright, created)


def facts_of_file(path: Path, index: int) -> StreamFacts:
    """Of a stream of a file, by its first frame. DecodeError if there is none."""
    for _, shape, stream in _shown(path, index):
        return facts_of(stream, shape)
    raise DecodeError(path, "gave no frame when it was opened again; has it changed?")


class Timed(NamedTuple):
    """When a packet of a clip is decoded and shown: ticks of 1 / ``CLOCK`` seconds since the clip's first frame."""

    number: int  # of the packet in the source
    pts: int
    dts: int
    duration: int


def schedule(cut: Cut) -> list[Timed]:
    """All packets of a clip, in the order in which they are stored; those of earlier frames are left out.

    A packet that shows nothing is timed just before the next one that does. Decoding times are the latest that always
    advance and are never after a packet's own or a later one's presentation.
    """
    ticks = clip_ticks(cut)
    shown = {
        mark.origin.number: at
        for mark, at in zip(cut.marks, ticks, strict=True)
        if mark.origin is not None  # None for a decoder that does not say; its frame has no packet of its own
    }
    lasts = dict(zip(ticks, [*(after - at for at, after in pairwise(ticks)), interval(ticks)], strict=True))
    found: list[Timed] = []
    pts = dts = ticks[-1] + lasts[ticks[-1]]
    for number in range(max(shown), min(shown) - 1, -1):
        if number in cut.earlier:
            continue
        pts = shown[number] if number in shown else max(pts - 1, 0)
        dts = min(pts, dts - 1)
        found.append(Timed(number, pts, dts, lasts.get(pts, 1)))
    return found[::-1]


def clip_ticks(cut: Cut) -> list[int]:
    """When each frame of a clip is shown, in ticks since the first one."""
    times: list[int] = ticks_of(np.array([mark.time for mark in cut.marks]) - cut.start).tolist()
    return times


def interval(ticks: Sequence[int]) -> int:
    """How long the last frame stays, which nobody says."""
    return round(median(after - at for at, after in pairwise(ticks))) if len(ticks) > 1 else CLOCK // 25


def shows_all(cut: Cut, codec: str) -> bool:
    """Whether each packet of a clip gives a frame, or the codec has packets that give none on purpose."""
    numbers = {mark.origin.number for mark in cut.marks if mark.origin is not None}
    if len(numbers) < len(cut.marks):
        return False
    return codec in BARE or numbers | cut.earlier >= set(range(min(numbers), max(numbers)))


class Template:
    """What a stream's packets are to be read by, which stays when the stream is closed."""

    def __init__(self, stream: VideoStream) -> None:
        self._holder = av.open(io.BytesIO(), "w", format=SPOOL)
        self.stream = self._holder.add_stream_from_template(stream, opaque=True)


class StoredPacket(NamedTuple):
    """A packet of a stream that cannot be read again."""

    data: bytes
    key: bool
    template: Template


def mux(
    file: IO[bytes], kind: str, template: VideoStream, packets: Iterable[tuple[bytes, bool, Timed]]
) -> None:
    """Write packets as they are: their data, whether decoding can begin there, and their times."""
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream_from_template(template, opaque=True)
        stream.time_base = Fraction(1, CLOCK)
        for data, key, timed in packets:
            packet = Packet(data)
            packet.pts, packet.dts, packet.duration = timed.pts, timed.dts, timed.duration
            packet.is_keyframe, packet.time_base = key, Fraction(1, CLOCK)
            packet.stream = stream
            container.mux_one(packet)


def copy_kept(packets: Sequence[StoredPacket], timed: Sequence[Timed], kind: str, target: Path) -> None:
    """Write a new file of packets that were kept, of which the first is that of the first time."""
    first = timed[0].number
    wanted = ((packets[when.number - first], when) for when in timed)
    with target.open("xb") as file:
        mux(file, kind, packets[0].template.stream, ((each.data, each.key, when) for each, when in wanted))


# In the process that decodes -------------------------------------------------------------------------------------

# A clip may begin before the one before it ends.
_stored: Cursor[tuple[bytes, bool, VideoStream]] = Cursor(lambda item: len(item[0]), OVERLAP)
_frames: Cursor[tuple[av.VideoFrame, DisplayedShape, VideoStream]] = Cursor(
    lambda item: sum(plane.buffer_size for plane in item[0].planes), OVERLAP
)


def copy_from_file(path: Path, index: int, timed: Sequence[Timed], kind: str, target: Path) -> None:
    """Write a new file of packets that are read from a file's stream.

    Raises:
        DecodeError: they are not there.
        OSError: it cannot be written.
    """
    packets = _stored.read(path, index, lambda: _packets(path, index), timed[0].number)
    wanted = iter(timed)
    first = next(packets, None)
    if first is None:
        raise DecodeError(path, "holds fewer packets than before; has it changed?")

    def matched() -> Iterator[tuple[bytes, bool, Timed]]:
        when: Timed | None = next(wanted)
        number = timed[0].number
        packet: tuple[bytes, bool, VideoStream] | None = first
        while when is not None:
            if packet is None:
                raise DecodeError(path, "holds fewer packets than before; has it changed?")
            if number == when.number:
                yield packet[0], packet[1], when
                when = next(wanted, None)
            if when is not None:
                number, packet = number + 1, next(packets, None)

    with target.open("xb") as file:
        mux(file, kind, first[2], matched())


def encode_from_file(path: Path, index: int, first: int, ticks: Sequence[int], target: Path) -> None:
    """Write a new H.264 file of as many frames of a file's stream as there are times, from frame ``first`` on.

    They are as displayed: cropped, turned, with square pixels; an odd side loses one.

    Raises:
        DecodeError: they are not there, or one cannot be converted.
        OSError: it cannot be written.
    """
    reformatter, count = VideoReformatter(), 0
    frames = _frames.read(path, index, lambda: _shown(path, index), first)
    rate = Fraction(CLOCK, max(interval(ticks), 1)).limit_denominator(1001)
    with target.open("xb") as file, H264Writer(file, rate, threads=1) as writer:
        for ticked, (frame, shape, _) in zip(ticks, frames, strict=False):
            size = (max(shape.height // 2 * 2, 2), max(shape.width // 2 * 2, 2))
            pixels = to_rgb(frame, size, (shape.height, shape.width), reformatter, shape.crop)
            writer.add(pixels.contiguous().numpy(), ticked)
            count += 1
    if count < len(ticks):
        raise DecodeError(path, "gave fewer frames than before; has it changed?")


def let_go() -> None:
    """Close the files that are read on in."""
    _stored.forget()
    _frames.forget()


def _packets(path: Path, index: int) -> Iterator[tuple[bytes, bool, VideoStream]]:
    """A stream's packets as they are stored, in the order in which decoding counts them."""
    with open_file(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        for packet in stored_packets(container, stream, Losses()):
            if packet is not None and packet.size:
                yield bytes(packet), packet.is_keyframe, stream


def _shown(path: Path, index: int) -> Iterator[tuple[av.VideoFrame, DisplayedShape, VideoStream]]:
    """A stream's frames, and how they are displayed."""
    with open_file(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        shape: DisplayedShape | None = None
        for frame in decoded_frames(container, stream, Losses()):
            shape = shape or displayed_shape(container, stream, frame)[0]
            yield frame, shape, stream
