"""A source becomes timed frames, one after another: a file of any length, a pipe, a stream or a camera.

:mod:`peakzoom.video.decode` knows a whole file before it says anything of it; here a frame is told as soon as it is
there, and nothing is kept. Pixels and order are the same. What differs, because nobody knows what comes:

* **Time** is seconds since the first frame. Of a file the first frames say which of its clocks to believe, of a
  stream it is that of presentation (:func:`choose_clock`). Where time jumps back, or stands still for long while
  nothing comes (a camera that was away), there is a :class:`Break`: what comes before and after it is never joined.
* **Damage** does not end it: a packet that cannot be decoded is counted and left out, as players do. Only where
  reading itself fails is the end.

A file may lead to nothing else, as in decoding. An address is opened only where one is named, and may lead to other
addresses (a playlist does) but to no file.
"""

from __future__ import annotations

import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.decode import decode_on_one_thread, displayed_shape, one_line, open_file, to_rgb
from peakzoom.video.guard import streamed

# FFmpeg's protocols that may be named; true: what comes is happening now, and waiting for us loses nothing but time.
PROTOCOLS = {
    **dict.fromkeys(("http", "https"), False),
    **dict.fromkeys(("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt"), True),
}
# What those lead to underneath; "file" is not among them.
NETWORK = ",".join((*PROTOCOLS, "tls", "httpproxy", "crypto", "rtmpt", "rtmpts", "ffrtmphttp"))

SILENCE = 15.0  # seconds without a byte, after which a stream or camera counts as gone
LOOKAHEAD = 16  # frames that choose a file's clock: as far as H.264 and HEVC put frames out of order
GAP = 1.0  # seconds without a frame that are a break ...
GAP_FRAMES = 10  # ... if ten frames were due in them: slides come slowly
LONGEST_GAP = 86_400.0  # seconds; beyond it timestamps have started anew rather than waited


@dataclass(frozen=True)
class Shown:
    """A frame, as decoded or converted already, and when it is shown: seconds since the first."""

    time: float
    frame: av.VideoFrame | Tensor


@dataclass(frozen=True)
class Break:
    """Frames before and after it do not follow each other.

    Attributes:
        time: of the first frame after it, in seconds.
        reason: one line.
    """

    time: float
    reason: str


@dataclass(frozen=True)
class Problem:
    """Something was wrong with the source although it gives frames.

    Attributes:
        time: of the last frame before it, in seconds.
        reason: one line.
        lost: some of the video could not be seen.
    """

    time: float
    reason: str
    lost: bool


class Timeline:
    """When each frame is shown, told while they come.

    Args:
        rate: frames per second that the source states; 0 = none.
        clock: which timestamps are believed: 0 presentation, 1 decoding, None neither.

    Frames without a timestamp stand one nominal interval after the one before, never later than the next with one.
    """

    def __init__(self, rate: float, clock: int | None = 0) -> None:
        self.now = 0.0  # of the last frame
        self._clock = clock
        self._interval = 1 / rate if rate else 0.0
        self._origin: float | None = None  # the timestamp at which time is 0
        self._known = 0.0  # time of the last frame that had a timestamp
        self._started = False

    def place(self, stamps: Sequence[float | None]) -> tuple[float, str | None]:
        """The time of the next frame; and why it does not follow the one before, if so.

        Args:
            stamps: seconds: presentation, decoding; None = not stated.
        """
        first, self._started = not self._started, True
        follows = 0.0 if first else self.now + self._interval
        stated = None if self._clock is None else stamps[self._clock]
        if stated is None:
            self.now = follows
            return follows, None
        if self._origin is None:
            self._origin = stated - follows
        placed = stated - self._origin
        step, reason = (0.0 if first else placed - self._known), None
        if step < 0:
            reason = f"timestamps jump back by {-step:.3f} s"
        elif step > LONGEST_GAP:
            reason = f"timestamps jump ahead by {step:.3f} s"
        if reason:
            self._origin, placed = stated - follows, follows
        elif step > max(GAP, GAP_FRAMES * self._interval):
            reason = f"no frame for {step:.3f} s"
        self._known = placed
        self.now = max(self.now, placed)  # frames without a timestamp may have run ahead
        return self.now, reason


def choose_clock(stamps: Sequence[Sequence[float | None]]) -> int | None:
    """Which timestamps to believe from the first frames of a file: those that fall less often, presentation in doubt.

    AVI files with B-frames state presentation times out of order, and decoding times in order; both fall where
    time jumps back.

    Args:
        stamps: of each frame, in order of presentation, seconds: presentation, decoding; None = not stated.

    Returns:
        0 presentation, 1 decoding, None if neither ever advances.
    """
    falls: dict[int, int] = {}
    for clock in (0, 1):
        known = [value for each in stamps if (value := each[clock]) is not None]
        if len(stamps) == 1 and known:
            return clock
        if len(known) > 1 and max(known) > min(known):
            falls[clock] = sum(after < before for before, after in pairwise(known))
    return min(falls, key=lambda clock: falls[clock]) if falls else None


class Source:
    """An open source; iterate over it, once, for its frames, breaks and problems.

    Args:
        source: a file; an address of one of :data:`PROTOCOLS`; ``camera:0`` or a device such as ``/dev/video0``; ``-``
            for standard input.

    Attributes:
        name: the source as it may be shown, without a password.
        live: it happens now, whether we keep up or not: a camera or a stream.
        rate: frames per second that it states; 0 = none.
        height, width: pixels as displayed, by the first frame. Later ones of another size are resized like it.

    Raises:
        DecodeError: it cannot be opened or gives no frame; the reason is one line.
        UserError: the protocol is none of those.
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
        self._file = not (self._protocol or self._device or self._source == "-")
        self._ahead: deque[av.VideoFrame | str] = deque()
        self._frames: Iterator[av.VideoFrame | str] = iter(())
        self._container, stream, first = self._start()
        self._reformatter = VideoReformatter()
        self._base = float(stream.time_base or 0)
        self._shape, slip = displayed_shape(first, stream)
        self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.height, self.width = self._shape.height, self._shape.width
        self._slips = [slip] if slip else []
        stamps = [self._stamps(each) for each in self._ahead if isinstance(each, av.VideoFrame)]
        clock = choose_clock(stamps)
        if clock is None and len(stamps) > 1:
            if not self.rate:
                self.close()
                raise DecodeError(self.name, "does not say when its frames are shown")
            self._slips.append(f"timestamps are missing or do not advance, {self.rate:g} fps assumed")
        self._timeline = Timeline(self.rate, clock)

    def __iter__(self) -> Iterator[Shown | Break | Problem]:
        for slip in self._slips:
            yield Problem(0.0, slip, lost=False)
        try:
            for each in self._decoded():
                if isinstance(each, str):
                    yield Problem(self._timeline.now, each, lost=True)
                    continue
                now, reason = self._timeline.place(self._stamps(each))
                if reason:
                    yield Break(now, reason)
                yield Shown(now, each)
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
        """Let go of the source; iterating to the end does so too."""
        self._container.close()

    def _decoded(self) -> Iterator[av.VideoFrame | str]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._frames

    def _stamps(self, frame: av.VideoFrame) -> tuple[float | None, float | None]:
        """Presentation and decoding time in seconds."""
        pts, dts = frame.pts, frame.dts
        return None if pts is None else pts * self._base, None if dts is None else dts * self._base

    def _start(self) -> tuple[InputContainer, VideoStream, av.VideoFrame]:
        """Open at the first stream that gives a frame, with its first frames in ``_ahead``."""
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
            if not self._file:  # what else could be opened anew for the next stream?
                raise DecodeError(self.name, first)

    def _look_ahead(self, container: InputContainer, stream: VideoStream) -> av.VideoFrame | str:
        """Decode the first frames; the first of all, or the reason why there is none."""
        if stream.codec_context is None:  # which PyAV's types leave out
            return "its video is in a format that FFmpeg has no decoder for"  # type: ignore[unreachable]
        self._ahead.clear()
        self._frames = _decoded(container, stream)
        frames: list[av.VideoFrame] = []
        for each in self._frames:
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
        if self._file:
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
            # Read by Python, whose reading Ctrl-C interrupts; unbuffered, for a lock of a buffer would outlive us.
            pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - the container holds it
            return av.open(pipe, mode="r", options={"protocol_whitelist": "pipe"}, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise DecodeError(self.name, f"cannot be opened: {_reason(error)}") from error


class StoredFile:
    """A file as :class:`Source` tells it, decoded by a process that can be stopped (:mod:`peakzoom.video.guard`).

    It may be of any length; what is bounded is how long the next frame takes. Every frame is converted there, for
    which of them are needed is known here.

    Args:
        path: the file.
        size: from the displayed (height, width) to that of the frames; can be pickled.

    Attributes and errors are those of :class:`Source`. While iterating, DecodeError: it hangs or crashes the decoder.
    """

    live = False

    def __init__(self, path: str | Path, size: Callable[[int, int], tuple[int, int]]) -> None:
        self._told = streamed(path, _tell, str(path), size, each=True)
        facts = next(self._told)
        assert isinstance(facts, _Facts)
        self.name, self.rate, self.height, self.width = facts.name, facts.rate, facts.height, facts.width

    def __iter__(self) -> Iterator[Shown | Break | Problem]:
        for each in self._told:
            assert not isinstance(each, _Facts)
            yield each

    def convert(self, frame: av.VideoFrame | Tensor, size: tuple[int, int]) -> Tensor:
        """The frame, which has its size: uint8 (H, W, 3)."""
        assert isinstance(frame, Tensor) and tuple(frame.shape[:2]) == size
        return frame

    def close(self) -> None:
        """Let go of the process; iterating to the end does so too."""
        self._told.close()


@dataclass(frozen=True)
class _Facts:
    name: str
    rate: float
    height: int
    width: int


def _tell(
    source: str, size: Callable[[int, int], tuple[int, int]]
) -> Iterator[_Facts | Shown | Break | Problem]:
    """In the other process: what is known of a file, then its frames, converted, breaks and problems."""
    frames = Source(source)
    yield _Facts(frames.name, frames.rate, frames.height, frames.width)
    target = size(frames.height, frames.width)
    for each in frames:
        yield Shown(each.time, frames.convert(each.frame, target)) if isinstance(each, Shown) else each


def open_source(source: str | Path, size: Callable[[int, int], tuple[int, int]]) -> Source | StoredFile:
    """A file in a process of its own; what is live or comes through a pipe in this one. Errors as of :class:`Source`.

    A stream or a camera has no end by which it could be late: it counts as gone after ``SILENCE`` seconds without a
    byte.
    """
    text = str(source)
    if "://" in text or text == "-" or text.startswith("camera:") or _camera(text):
        return Source(source)
    return StoredFile(source, size)


def _camera(source: str) -> tuple[str, str] | None:
    """FFmpeg's name for a camera and the kind of device; None for what is none."""
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
    """Frames in order of presentation; and in between, one line each, what went wrong."""
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
            except av.EOFError:  # asked for more after the last frame
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
