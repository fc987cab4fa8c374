"""A source becomes timed frames, one after another: a file of any length, a pipe, a stream or a camera.

:mod:`peakzoom.video.decode` reads a whole file; here each frame is passed on as soon as it is decoded, and none is
kept. Pixels and order are the same. What differs, because nobody knows what comes next:

* **Time** is seconds since the first frame. A file's first frames decide which of its clocks is believed; a stream's
  is that of presentation (:mod:`peakzoom.apps.watch.timeline`). Where time jumps back, or no frame comes for long (a
  camera that was away), there is a :class:`Break`: frames before and after it are never joined.
* **Damage** does not end it: a packet that cannot be decoded is counted and left out, as players do. Only a failure
  of reading itself is the end.

A file may refer to nothing else, as in decoding. An address is opened only where the user names one, and may refer to
other addresses (a playlist does) but to no file.
"""

from __future__ import annotations

import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from peakzoom.apps.watch.records import Break, SourceProblem
from peakzoom.apps.watch.timeline import Timeline, choose_clock
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.container import decode_on_one_thread, displayed_shape, one_line, open_file
from peakzoom.video.decode import to_rgb
from peakzoom.video.guard import streamed

# FFmpeg's protocols that may be named, and whether a source of each is live.
PROTOCOLS = {
    **dict.fromkeys(("http", "https"), False),
    **dict.fromkeys(("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt"), True),
}
# The protocols that those use underneath; "file" is not among them.
NETWORK = ",".join((*PROTOCOLS, "tls", "httpproxy", "crypto", "rtmpt", "rtmpts", "ffrtmphttp"))

SILENCE = 15.0  # seconds without a byte, after which a stream or camera counts as gone
LOOKAHEAD = 16  # frames that choose a file's clock: as far as H.264 and HEVC put frames out of order


@dataclass(frozen=True)
class TimedFrame:
    """A frame, decoded or already converted to RGB, and when it is shown: seconds since the first."""

    time: float
    frame: av.VideoFrame | Tensor


SourceItem: TypeAlias = TimedFrame | Break | SourceProblem


class Source:
    """An open source; iterate over it, once, for its frames, breaks and problems.

    Args:
        source: a file; an address of one of :data:`PROTOCOLS`; ``camera:0`` or a device such as ``/dev/video0``; ``-``
            for standard input.

    Attributes:
        name: the source as it may be shown, without a password.
        live: it goes on whether windows are scored in time or not: a camera or a stream.
        rate: frames per second that it states; 0 = none.
        height, width: pixels as displayed, by the first frame; later frames are resized to them.

    Raises:
        DecodeError: it cannot be opened or gives no frame; the reason is one line.
        UserError: the protocol is not supported.
    """

    def __init__(self, source: str | Path) -> None:
        self._source = str(source)
        self.name = re.sub(r"(?<=://)[^/\s]*@", "", self._source)
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", self._source)
        self._protocol = scheme[1].lower() if scheme else None
        if self._protocol and self._protocol not in PROTOCOLS:
            raise UserError(
                f"{self.name} is an address of {self._protocol}, expected one of {', '.join(PROTOCOLS)}; "
                "name a file by its path alone"
            )
        self._device = _camera(self._source) if not self._protocol else None
        self.live = self._device is not None or PROTOCOLS.get(self._protocol or "", False)
        self._is_file = not (self._protocol or self._device or self._source == "-")
        self._ahead: deque[av.VideoFrame | str] = (
            deque()
        )  # the first frames and faults, decoded when it was opened
        self._rest: Iterator[av.VideoFrame | str] = iter(())
        self._container, stream, first = self._start()
        self._reformatter = VideoReformatter()
        self._base = float(stream.time_base or 0)
        shape, fault = displayed_shape(first, stream)
        self.height, self.width = shape.height, shape.width
        self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        self._faults = [fault] if fault else []
        stamps = [self._stamps(each) for each in self._ahead if isinstance(each, av.VideoFrame)]
        clock = choose_clock(stamps)
        if clock is None and len(stamps) > 1:
            if not self.rate:
                self.close()
                raise DecodeError(self.name, "does not say when its frames are shown")
            self._faults.append(f"timestamps are missing or do not advance, {self.rate:g} fps assumed")
        self._timeline = Timeline(self.rate, clock)

    def __iter__(self) -> Iterator[SourceItem]:
        for fault in self._faults:
            yield SourceProblem(0.0, fault, lost=False)
        try:
            for each in self._decoded():
                if isinstance(each, str):
                    yield SourceProblem(self._timeline.now, each, lost=True)
                    continue
                now, reason = self._timeline.place(self._stamps(each))
                if reason:
                    yield Break(now, reason)
                yield TimedFrame(now, each)
        finally:
            self.close()

    def convert(self, frame: av.VideoFrame | Tensor, size: tuple[int, int]) -> Tensor:
        """A frame as displayed, in this (height, width): uint8 (H, W, 3).

        Raises:
            DecodeError: its pixels cannot be converted.
        """
        assert isinstance(frame, av.VideoFrame)
        try:
            return to_rgb(frame, size, (self.height, self.width), self._reformatter)
        except (av.FFmpegError, ValueError) as error:
            what = f"a frame ({frame.format.name}) cannot be converted to RGB"
            raise DecodeError(self.name, f"{what}: {one_line(error)}") from error

    def close(self) -> None:
        """Close the source; iterating to the end does so too."""
        self._container.close()

    def _decoded(self) -> Iterator[av.VideoFrame | str]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._rest

    def _stamps(self, frame: av.VideoFrame) -> tuple[float | None, float | None]:
        """Presentation and decoding time in seconds."""
        pts, dts = frame.pts, frame.dts
        return None if pts is None else pts * self._base, None if dts is None else dts * self._base

    def _start(self) -> tuple[InputContainer, VideoStream, av.VideoFrame]:
        """Open the first video stream that gives a frame; its first frames go to ``_ahead``."""
        reasons: list[str] = []  # one for each stream that gave none
        while True:
            container = self._open()
            try:
                streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
                if not streams:
                    cover = ", only a picture" if container.streams.video else ""
                    raise DecodeError(self.name, f"holds no video stream{cover}")
                if len(reasons) == len(streams):
                    raise DecodeError(self.name, reasons[0])
                stream = streams[len(reasons)]
                first = self._look_ahead(container, stream)
            except BaseException:
                container.close()
                raise
            if isinstance(first, av.VideoFrame):
                return container, stream, first
            reasons.append(first)
            container.close()
            if not self._is_file:  # only a file can be opened again for its next stream
                raise DecodeError(self.name, first)

    def _look_ahead(self, container: InputContainer, stream: VideoStream) -> av.VideoFrame | str:
        """Decode the first frames; return the first of all, or why there is none."""
        if stream.codec_context is None:  # which PyAV's types leave out
            return "its video is in a format that FFmpeg has no decoder for"  # type: ignore[unreachable]
        self._ahead.clear()
        self._rest = _decoded(container, stream)
        frames: list[av.VideoFrame] = []
        for each in self._rest:
            self._ahead.append(each)
            if isinstance(each, av.VideoFrame):
                frames.append(each)
            if len(frames) == (1 if self.live else LOOKAHEAD):
                break
        if frames:
            return frames[0]
        reason = next((each for each in self._ahead if isinstance(each, str)), None)
        return f"no frame can be decoded: {reason}" if reason else "its video stream holds no frame"

    def _open(self) -> InputContainer:
        if self._is_file:
            return open_file(Path(self._source))
        try:
            if self._device:
                name, kind = self._device
                return av.open(name, format=kind, timeout=SILENCE, metadata_errors="replace")
            if self._protocol:
                options = {"protocol_whitelist": NETWORK}
                if self._protocol in ("rtsp", "rtsps"):
                    options["rtsp_flags"] = "prefer_tcp"  # UDP loses packets, and firewalls stop it
                return av.open(self._source, options=options, timeout=SILENCE, metadata_errors="replace")
            # Python reads, because Ctrl-C interrupts its reading; without a buffer, whose lock the reader's thread
            # would still hold when the program ends.
            pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - the container holds it
            return av.open(pipe, mode="r", options={"protocol_whitelist": "pipe"}, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise DecodeError(self.name, f"cannot be opened: {_reason(error)}") from error


class StoredFile:
    """A file, read as :class:`Source` reads it, by a process that can be stopped (:mod:`peakzoom.video.guard`).

    The file may be of any length; what is bounded is the time until the next frame. The process converts every frame,
    because it does not know which are needed.

    Args:
        path: the file.
        size: from the displayed (height, width) to that of the frames; can be pickled.

    Attributes and errors are those of :class:`Source`. While iterating, DecodeError: the file hangs or crashes the
    decoder.
    """

    live = False

    def __init__(self, path: str | Path, size: Callable[[int, int], tuple[int, int]]) -> None:
        self._items = streamed(path, _decode_in_process, str(path), size, per_item=True)
        header = next(self._items)
        assert isinstance(header, tuple)
        self.name, self.rate, self.height, self.width = header

    def __iter__(self) -> Iterator[SourceItem]:
        for item in self._items:
            assert not isinstance(item, tuple)
            yield item

    def convert(self, frame: av.VideoFrame | Tensor, size: tuple[int, int]) -> Tensor:
        """The frame, which has its size already: uint8 (H, W, 3)."""
        assert isinstance(frame, Tensor) and tuple(frame.shape[:2]) == size
        return frame

    def close(self) -> None:
        """End the process; iterating to the end does so too."""
        self._items.close()


def _decode_in_process(
    source: str, size: Callable[[int, int], tuple[int, int]]
) -> Iterator[tuple[str, float, int, int] | SourceItem]:
    """In the other process: name, rate, height and width of a file, then its frames, converted, breaks and problems."""
    frames = Source(source)
    yield frames.name, frames.rate, frames.height, frames.width
    target = size(frames.height, frames.width)
    for item in frames:
        if isinstance(item, TimedFrame):
            item = TimedFrame(item.time, frames.convert(item.frame, target))
        yield item


def open_source(source: str | Path, size: Callable[[int, int], tuple[int, int]]) -> Source | StoredFile:
    """Open a file in a process of its own; an address, a camera or standard input in this one.

    A file has a bound on the time until its next frame; a stream or a camera counts as gone after ``SILENCE`` seconds
    without a byte.

    Args:
        source: as :class:`Source` takes it.
        size: as :class:`StoredFile` takes it.

    Raises:
        DecodeError, UserError: as :class:`Source` does.
    """
    text = str(source)
    if "://" in text or text == "-" or _camera(text):
        return Source(source)
    return StoredFile(source, size)


def _camera(source: str) -> tuple[str, str] | None:
    """FFmpeg's name for a camera and the kind of device; None where the source is no camera."""
    if source.startswith("camera:"):
        which = source.removeprefix("camera:")
        if not which:
            raise UserError("camera: has no number, expected for instance camera:0")
        if sys.platform == "darwin":
            return f"{which}:none", "avfoundation"  # no sound
        if sys.platform == "win32":
            return f"video={which}", "dshow"
        return f"/dev/video{which}", "v4l2"
    try:
        device = stat.S_ISCHR(Path(source).stat().st_mode)
    except (OSError, ValueError):
        return None
    return (source, "v4l2") if device else None


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | str]:
    """Frames in order of presentation; between them, one line for each failure."""
    decode_on_one_thread(stream)
    frames = damaged = broken = 0
    reading = True
    while reading:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.BlockingIOError:  # a camera that has no new frame yet
                time.sleep(0.005)
                break
            except av.FFmpegError as error:
                yield f"reading stopped after {frames} frames: {_reason(error)}"
                packet = None
            if packet is None:
                reading = False
                break
            try:
                for frame in packet.decode():
                    assert isinstance(frame, av.VideoFrame)
                    frames, damaged = frames + 1, damaged + frame.is_corrupt
                    yield frame
            except av.EOFError:  # the decoder has given its last frame
                continue
            except av.FFmpegError as error:
                broken += 1
                if broken == 1:
                    yield f"a packet cannot be decoded and is left out after {frames} frames: {_reason(error)}"
    if broken > 1:
        yield f"packets that could not be decoded: {broken}"
    if damaged:
        yield f"frames decoded with damage: {damaged} of {frames}"


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {SILENCE:g} seconds"
    return one_line(error)
