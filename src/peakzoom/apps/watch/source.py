"""A source becomes timed frames, one after another: a file of any length, a pipe, a stream or a camera.

:mod:`peakzoom.video.decode` reads a whole file; here each frame is passed on as soon as it is decoded, and none is
kept. Pixels and order are the same. What differs, because nobody knows what comes next:

* **Time** is seconds since the first frame. A file's first frames decide which of its clocks is believed; a stream's
  is that of presentation (:mod:`peakzoom.apps.watch.timeline`). Where time jumps back, or no frame comes for long (a
  camera that was away), there is a :class:`Break`: frames before and after it are never joined.
* **Damage** is said when the first packet is lost, and not only at the end. A stream or a camera ends where reading it
  fails.

A file may refer to nothing else, as in decoding. An address is opened only where the user names one, and may refer to
other addresses (a playlist does) but to no file.
"""

from __future__ import annotations

import math
import re
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import av
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from peakzoom.apps.watch.records import Break, SourceProblem
from peakzoom.apps.watch.timeline import Timeline, choose_clock
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import segment_of
from peakzoom.video.container import FORMATS, one_line, open_file
from peakzoom.video.decode import to_rgb
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import streamed
from peakzoom.video.packets import Losses, Number, Origin, decoded_frames
from peakzoom.video.scan import ends_early
from peakzoom.video.shape import displayed_shape
from peakzoom.video.streams import choice, stream_order, untried_stream

# FFmpeg's protocols that may be named, and whether a source of each is live.
PROTOCOLS = {
    **dict.fromkeys(("http", "https"), False),
    **dict.fromkeys(("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt"), True),
}
# The protocols that those use underneath; "file" is not among them.
NETWORK = ",".join((*PROTOCOLS, "tls", "httpproxy", "crypto", "rtmpt", "rtmpts", "ffrtmphttp"))

SILENCE = 15.0  # seconds without a byte, after which a stream or camera counts as gone
LONGEST_DELAY = 30.0  # seconds between two requests for the next byte of a file elsewhere
LOOKAHEAD = 16  # frames that choose a file's clock: as far as H.264 and HEVC put frames out of order


Frame: TypeAlias = av.VideoFrame | Tensor
Decoded: TypeAlias = av.VideoFrame | str  # a frame, or one line on what went wrong


@dataclass(frozen=True)
class TimedFrame:
    """A frame, and when it is shown: seconds since the first.

    ``origin`` is the packet that it was decoded from, where the source was opened with ``number``.
    """

    time: float
    frame: Frame
    origin: Origin | None = None


SourceItem: TypeAlias = TimedFrame | Break | SourceProblem
SizeOf: TypeAlias = Callable[[int, int], tuple[int, int]]  # of converted frames, from that displayed


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        name: the source as it may be shown, without a password.
        live: it goes on whether windows are scored in time or not: a camera or a stream.
        rate: frames per second that it states; 0 = none.
        height, width: pixels as displayed, by the first frame; later frames are resized to them.
        items: frames, breaks and problems, once, in order. Iterating raises DecodeError where a file hangs or crashes
            the decoder.
        convert: a frame as displayed, of the wanted size, uint8 (H, W, 3); raises DecodeError where that fails.
        close: ends reading.
    """

    name: str
    live: bool
    rate: float
    height: int
    width: int
    items: Iterator[SourceItem]
    convert: Callable[[Frame], Tensor]
    close: Callable[[], None]


def is_file(source: str | Path) -> bool:
    """Whether a source is a file that can be read again, and not an address, a camera or standard input."""
    return _place(source).is_file


def open_source(source: str | Path, size: SizeOf, number: Number | None = None) -> Source:
    """Open a file in a process of its own (:mod:`peakzoom.video.guard`); anything else in this one.

    A file may be of any length; what is bounded is the time until its next frame. The process converts every frame,
    because it does not know which are needed. A stream or a camera counts as gone after ``SILENCE`` seconds without a
    byte.

    Args:
        source: a file; an address of one of :data:`PROTOCOLS`; ``camera:0`` or a device such as ``/dev/video0``; ``-``
            for standard input.
        size: of converted frames; can be pickled.
        number: is told each packet before it is decoded, and gives it a number, which frames then have. Packets of a
            file stay in its process, and those of each stream are counted from 0.

    Raises:
        DecodeError: it cannot be opened or gives no frame; the reason is one line.
        UserError: the protocol is not supported, or it is a segment of a file.
    """
    if not _place(source).is_file:
        return open_here(source, size, number)
    items = streamed(source, _in_process, source, size, number is not None, per_item=True)
    facts = next(items)
    assert isinstance(facts, tuple)
    return Source(*facts, cast("Iterator[SourceItem]", items), torch.as_tensor, items.close)


def _in_process(
    source: str | Path, size: SizeOf, numbered: bool
) -> Iterator[tuple[str, bool, float, int, int] | SourceItem]:
    """In the other process: what a file says of itself, then its items with frames converted."""
    numbers: dict[int, Iterator[int]] = defaultdict(count)  # of each stream that is tried
    opened = open_here(source, size, (lambda each: next(numbers[each.stream_index])) if numbered else None)
    yield opened.name, opened.live, opened.rate, opened.height, opened.width
    with closing(opened):
        for item in opened.items:
            yield replace(item, frame=opened.convert(item.frame)) if isinstance(item, TimedFrame) else item


def open_here(
    source: str | Path, size: SizeOf, number: Number | None = None, patience: float = 0.0
) -> Source:
    """:func:`open_source` in this process, whatever it is; frames are converted when that is asked for.

    Where the connection to a file at an ``http`` address is lost, its next byte is asked for again, for up to
    ``patience`` seconds.
    """
    place = _place(source)
    with reason_of(place.name):
        return _source_at(place, size, number, patience)


def is_live(source: str | Path) -> bool:
    """Whether a source goes on while nobody looks: a camera or a stream.

    Raises:
        UserError: the protocol is not supported.
    """
    return _place(source).live


def is_elsewhere(source: str | Path) -> bool:
    """Whether a source is asked for at an address or a device, so that it may come back once it is gone."""
    place = _place(source)
    return bool(place.protocol or place.device)


def shown_name(source: str | Path) -> str:
    """A source as it may be shown, without a password."""
    return _place(source).name


def _source_at(place: _Place, size: SizeOf, number: Number | None, patience: float) -> Source:
    container, stream, losses, ahead, rest, chosen = _open_stream(place, number, patience)
    frames = [each for each in ahead if isinstance(each, av.VideoFrame)]
    base = stream.time_base or Fraction(0)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    shape, fault = displayed_shape(container, stream, frames[0])
    problems = [SourceProblem(0.0, line, lost=False) for line in (chosen, fault) if line]
    clock = choose_clock([_stamps(frame) for frame in frames]) if base else None
    if clock is None and len(frames) > 1:
        if not rate:
            container.close()
            raise DecodeError(place.name, "does not say when its frames are shown")
        reason = f"timestamps are missing or do not advance, {rate:g} fps assumed"
        problems.append(SourceProblem(0.0, reason, lost=False))
    target, displayed = size(shape.height, shape.width), (shape.height, shape.width)
    reformatter = VideoReformatter()

    def convert(frame: Frame) -> Tensor:
        assert isinstance(frame, av.VideoFrame)
        with reason_of(place.name):
            try:
                return to_rgb(frame, target, displayed, reformatter, shape.crop)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError) as error:
                what = f"a frame ({frame.format.name}) cannot be converted to RGB"
                raise DecodeError(place.name, f"{what}: {one_line(error)}") from error

    def items() -> Iterator[SourceItem]:
        with reason_of(place.name):
            yield from problems
            timeline = Timeline(rate, clock, base)
            yield from _timed(chain(ahead, rest), timeline)
            end = timeline.now + (1 / rate if rate else 0.0)
            if (
                place.is_file
                and clock is not None
                and losses.none
                and (early := ends_early(container, stream, end))
            ):
                yield SourceProblem(timeline.now, early, lost=True)

    return Source(place.name, place.live, rate, *displayed, items(), convert, container.close)


def _timed(decoded: Iterator[Decoded], timeline: Timeline) -> Iterator[SourceItem]:
    """What was decoded, with its times."""
    for each in decoded:
        if isinstance(each, str):
            yield SourceProblem(timeline.now, each, lost=True)
            continue
        now, reason = timeline.place(_stamps(each))
        if reason:
            yield Break(now, reason)
        yield TimedFrame(now, each, each.opaque if isinstance(each.opaque, Origin) else None)


def _stamps(frame: av.VideoFrame) -> tuple[int | None, int | None]:
    """Presentation and decoding time, in units of the stream."""
    return frame.pts, frame.dts


class _Place(NamedTuple):
    """What the user has named."""

    text: str
    name: str  # without a password
    protocol: str  # of an address, else empty
    device: tuple[str, str] | None  # a camera as FFmpeg names it, and its kind of device
    is_file: bool
    live: bool


def _place(source: str | Path) -> _Place:
    text = str(source)
    name = re.sub(r"(?<=://)[^/\s]*@", "", text)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    protocol = scheme[1].lower() if scheme else ""
    if protocol and protocol not in PROTOCOLS:
        raise UserError(
            f"{name} is an address of {protocol}, expected one of {', '.join(PROTOCOLS)}; "
            "name a file by its path alone"
        )
    device = None if protocol else _camera(text)
    is_file = not (protocol or device or text == "-")
    if is_file and (segment := segment_of(text)):
        raise UserError(f"{name} is a segment, and whole files are watched: name {segment.file}")
    return _Place(text, name, protocol, device, is_file, PROTOCOLS.get(protocol, device is not None))


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


class _Opened(NamedTuple):
    """A source of which a stream gives frames."""

    container: InputContainer
    stream: VideoStream
    losses: Losses
    ahead: list[Decoded]  # its first frames, and what came between them
    rest: Iterator[Decoded]
    choice: str | None  # a line on which stream of several it is


def _open_stream(place: _Place, number: Number | None, patience: float) -> _Opened:
    """Open the first video stream in order that gives a frame."""
    order: list[int] = []  # of its streams
    reasons: list[str] = []  # one for each stream that gave none
    while True:
        with ExitStack() as opened:
            container = opened.enter_context(_open(place, patience))
            if not order:
                order = stream_order(container, place.name, place.is_file)
                if place.is_file and len(order) > 1:
                    continue
            stream = untried_stream(container, place.name, order, reasons)
            if stream.codec_context is None:  # which PyAV's types leave out
                reason = "its video is in a format that FFmpeg has no decoder for"  # type: ignore[unreachable]
            else:
                losses = Losses()
                rest = _decoded(container, stream, losses, not place.is_file, number)
                ahead = _look_ahead(rest, 1 if place.live else LOOKAHEAD)
                if any(isinstance(each, av.VideoFrame) for each in ahead):
                    opened.pop_all()
                    return _Opened(container, stream, losses, ahead, rest, choice(stream, order, reasons))
                reason = "its video stream holds no frame"
                if why := losses.why(_reason):
                    reason = f"no frame can be decoded: {why}"
        if not place.is_file:  # only a file can be opened again for its next stream
            raise DecodeError(place.name, reason)
        reasons.append(reason)


def _look_ahead(decoded: Iterator[Decoded], count: int) -> list[Decoded]:
    """So many frames, if there are, and the faults before and between them."""
    ahead: list[Decoded] = []
    for each in decoded:
        ahead.append(each)
        count -= isinstance(each, av.VideoFrame)
        if not count:
            break
    return ahead


def _open(place: _Place, patience: float) -> InputContainer:
    if place.is_file:
        return open_file(Path(place.text))
    try:
        if place.device:
            name, kind = place.device
            return av.open(name, format=kind, timeout=SILENCE, metadata_errors="replace")
        if place.protocol:
            options = {"protocol_whitelist": NETWORK}
            silence = SILENCE
            if place.protocol in ("rtsp", "rtsps"):
                options["rtsp_flags"] = "prefer_tcp"  # UDP loses packets, and firewalls stop it
            elif place.protocol in ("http", "https") and patience:
                silence += patience  # in which FFmpeg asks again
                options |= {
                    "rw_timeout": str(round(SILENCE * 1e6)),
                    "reconnect": "1",
                    "reconnect_on_network_error": "1",
                }
                options["reconnect_delay_max"] = str(math.ceil(min(patience, LONGEST_DELAY)))
            return av.open(place.text, options=options, timeout=(SILENCE, silence), metadata_errors="replace")
        # Python reads, because Ctrl-C interrupts its reading; without a buffer, whose lock the reader's thread
        # would still hold when the program ends.
        pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - the container holds it
        options = {"protocol_whitelist": "", "format_whitelist": FORMATS}
        return av.open(pipe, mode="r", container_options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(place.name, f"cannot be opened: {_reason(error)}") from error


def _decoded(
    container: InputContainer, stream: VideoStream, losses: Losses, live: bool, number: Number | None
) -> Iterator[Decoded]:
    """Frames in order of presentation; between them a line where the first is lost, and at the end all that was."""
    said: list[str] = []
    for frame in decoded_frames(container, stream, losses, live, number):
        if losses.first and not said:
            said = losses.lines(_reason)[:1]
            yield from said
        yield frame
    yield from (line for line in losses.lines(_reason) if line not in said)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {SILENCE:g} seconds"
    return one_line(error)
