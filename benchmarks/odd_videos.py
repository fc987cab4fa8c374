"""Videos that are odd in one way each, written packet by packet; what they show is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

Change = Callable[[int, bytes], bytes]  # a packet's number and data to the data that is written


def shown(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """What frame ``number`` shows: uint8 (height, width, 3). Its quarters differ, and so do neighbouring frames."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, :, 0] = np.linspace(30, 220, width)
    picture[:, :, 1] = np.linspace(220, 60, height)[:, None]
    picture[:, :, 2] = 7 * number % 200
    left = 5 * number % (width - 8)
    picture[height // 3 : height // 3 + 8, left : left + 8] = 250
    return picture


def write(
    path: Path,
    codec: str = "mjpeg",
    frames: int = 12,
    size: tuple[int, int] = (48, 64),
    change: Change = lambda number, data: data,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """A video at 25 frames a second; ``change`` may put other data into its packets."""
    return write_streams(path, Stream(codec, frames, size, change, options or {}), muxer=muxer)


@dataclass(frozen=True)
class Stream:
    """One of several in a file; ``setup`` may mark it."""

    codec: str = "mjpeg"
    frames: int = 12
    size: tuple[int, int] = (48, 64)
    change: Change = lambda number, data: data
    options: Mapping[str, str] = field(default_factory=dict)
    setup: Callable[[VideoStream], None] = lambda stream: None


def write_streams(path: Path, *streams: Stream, muxer: Mapping[str, str] | None = None) -> Path:
    """A video with several streams, in this order; ``muxer`` are options of its format."""
    with av.open(str(path), "w", container_options=dict(muxer or {})) as container:
        made = []
        for each in streams:
            stream = container.add_stream(each.codec, rate=25, options=dict(each.options))
            assert isinstance(stream, VideoStream)
            pixels = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8"}.get(each.codec, "yuv420p")
            stream.height, stream.width, stream.pix_fmt = *each.size, pixels
            each.setup(stream)
            made.append(stream)
        for each, stream in zip(streams, made, strict=True):
            packets = []
            for number in range(each.frames):
                frame = av.VideoFrame.from_ndarray(shown(number, *each.size), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                packets += stream.encode(frame)
            for number, packet in enumerate([*packets, *stream.encode()]):
                changed = av.Packet(each.change(number, bytes(packet)))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.duration, changed.is_keyframe = packet.duration, packet.is_keyframe
                changed.stream = stream
                container.mux(changed)
    return path


def with_exif(orientation: int) -> Change:
    """JPEG with the orientation of a camera (EXIF tag 0x112, 1 to 8): side data that PyAV has no name for."""
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    segment = b"Exif\0\0" + tiff

    def change(number: int, data: bytes) -> bytes:
        assert data[:2] == b"\xff\xd8"
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]

    return change


def zero_packet(path: Path, number: int) -> Path:
    """Put zeros in the place of a packet of the first stream, in a file that stores packets whole."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        data = bytes(packets[number])
        assert sum(bytes(packet) == data for packet in packets) == 1
    stored = path.read_bytes()
    assert stored.count(data) == 1
    path.write_bytes(stored.replace(data, bytes(len(data))))
    return path


def empty_packets(path: Path, *numbers: int) -> Path:
    """Take all bytes out of these packets of an MP4 or MOV of one stream; its tables stay right."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in sorted(numbers, reverse=True):
        start, size = packets[number].pos, packets[number].size
        assert start is not None
        del data[start : start + size]
        box = data.index(b"mdat") - 4
        data[box : box + 4] = (int.from_bytes(data[box : box + 4], "big") - size).to_bytes(4, "big")
        table = data.index(b"stsz") + 16  # after version, the one size of all, which is none, and the count
        data[table + 4 * number : table + 4 * number + 4] = bytes(4)
        chunks = data.index(b"stco") + 12
        for place in range(chunks, chunks + 4 * int.from_bytes(data[chunks - 4 : chunks], "big"), 4):
            offset = int.from_bytes(data[place : place + 4], "big")
            data[place : place + 4] = (offset - size * (offset > start)).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def add_clean_aperture(path: Path, width: int, height: int, across: int = 0, down: int = 0) -> Path:
    """Have an H.264 MP4 or MOV show that part of its frames, its middle so many pixels off theirs (atom clap)."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    atom = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, across, 1, down, 1)

    def grow(start: int, stop: int) -> None:
        """The size of every box around the new one."""
        while start < stop:
            size = int.from_bytes(data[start : start + 4], "big")
            if start < end <= start + size:
                data[start : start + 4] = (size + len(atom)).to_bytes(4, "big")
                inner = 16 if data[start + 4 : start + 8] == b"stsd" else 8
                if start != entry:
                    grow(start + inner, start + size)
            start += size

    moov = data.index(b"moov") - 4
    assert moov > data.index(b"mdat")  # so that no frame moves
    grow(moov, len(data))
    data[end:end] = atom
    path.write_bytes(data)
    return path


def remux(source: Path, path: Path) -> Path:
    """The same packets in another kind of file."""
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    return path
