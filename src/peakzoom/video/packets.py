"""A stream's packets become frames; what cannot be decoded is left out and counted, as players do.

Frames that depend on a lost one are what the decoder makes of them; it marks some of them as damaged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import av
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from peakzoom.utils.words import counted
from peakzoom.video.faults import told
from peakzoom.video.gif import ends_whole

UNREADABLE = 10  # times in a row that reading fails, after which it has ended; mpv's demux_lavf.c has it so
UNDECODABLE = 10_000  # packets in a row that cannot be decoded, after which the rest is noise
# Codecs of which a packet is a frame. Of others it may be none (MPEG-4's N-VOP) or one that is not shown (VP8).
ONE_EACH = frozenset({"h264", "hevc", "vp9", "av1"})
STALLED = 15.0  # seconds of packets that give no frame, after which a live source has ended
CAMERA_WAIT = 0.005  # seconds until a camera is asked for its next frame again


class Origin(NamedTuple):
    """The packet that a frame was decoded from."""

    stream: int  # of the container
    number: int  # as whoever asked has numbered it
    key: bool  # decoding can begin with it


Number: TypeAlias = "Callable[[Packet[VideoStream]], int]"  # told each packet once, before it is decoded


@dataclass
class Losses:
    """What came of a stream so far, and what did not."""

    frames: int = 0
    damaged: int = 0  # of them, by the decoder's own word
    packets: int = 0  # that could not be read or decoded
    silent: int = 0  # that neither gave a frame nor an error, where each should give one
    empty: int = 0  # without a byte, where that stands for no frame that was left out on purpose
    first: tuple[int, Exception] | None = None  # frames before the first of those, and what was wrong with it
    ended: tuple[int, str, Exception] | None = None  # frames before the early end, what ended, and why

    @property
    def none(self) -> bool:
        """Whether every packet gave its frame, damaged or not."""
        return not (self.packets or self.silent or self.empty or self.ended)

    def lost(self, error: Exception, packets: int = 1) -> None:
        """Count packets."""
        self.packets += packets
        self.first = self.first or (self.frames, error)

    def why(self, reason: Callable[[Exception], str] = told) -> str | None:
        """The first thing that went wrong, in one line; None if nothing did."""
        error = self.first[1] if self.first else self.ended[2] if self.ended else None
        return reason(error) if error else None

    def lines(self, reason: Callable[[Exception], str] = told) -> list[str]:
        """All that went wrong, a line each; ``reason`` says what an error means."""
        said = []
        if self.first:
            frames, error = self.first
            what = "a packet cannot be decoded and is left out"
            if self.packets > 1:
                what = f"{self.packets} packets cannot be decoded and are left out, the first"
            said.append(f"{what} after {counted(frames, 'frame')}: {reason(error)}")
        if self.empty:
            said.append(f"packets without data: {self.empty}")
        if self.silent:
            said.append(f"packets that gave no frame: {self.silent}")
        if self.ended:
            frames, what, error = self.ended
            said.append(f"{what} stopped after {counted(frames, 'frame')}: {reason(error)}")
        if self.damaged:
            said.append(f"frames decoded with damage: {self.damaged} of {self.frames}")
        return said


def decoded_frames(
    container: InputContainer,
    stream: VideoStream,
    losses: Losses,
    live: bool = False,
    number: Number | None = None,
) -> Iterator[av.VideoFrame]:
    """All frames of a freshly opened stream, in the decoder's output order; what is lost is noted in ``losses``.

    A file is read on where reading fails for a while. A ``live`` source is waited for, and ends where reading fails,
    or where packets come and no frame does.
    With ``number`` each frame's ``opaque`` is its :class:`Origin`.
    """
    decode_on_one_thread(stream)
    if number is not None:
        stream.codec_context.flags |= CodecFlags.copy_opaque
    # Cropped by the codec to the pixel; without the flag the decoder leaves up to 31 columns on the left that are none.
    stream.codec_context.flags |= CodecFlags.unaligned
    failed = good = 0
    since: float | None = None  # when the first packet came that has given no frame; silence is no packet
    in_fields = stream.codec_context.codec.canonical_name not in ONE_EACH
    for packet in stored_packets(container, stream, losses, live):
        since = time.monotonic() if since is None else since
        if number is not None and packet is not None and packet.size:
            packet.opaque = Origin(stream.index, number(packet), packet.is_keyframe)
        try:
            frames = stream.decode(packet)
        except av.EOFError:  # the decoder has given its last frame
            continue
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - counted; PyAV's own are among them
            losses.lost(error)
            failed += 1
            if failed == UNDECODABLE or (live and time.monotonic() - since > STALLED):
                losses.ended = (
                    losses.frames,
                    f"{counted(failed, 'packet')} in a row failed, so decoding",
                    error,
                )
                return
            continue
        if live and not frames and time.monotonic() - since > STALLED:
            nothing = TimeoutError(f"its packets gave no frame for {STALLED:g} seconds")
            losses.ended = losses.frames, "decoding", nothing
            return
        failed = 0 if frames else failed
        good += bool(packet and packet.size and not packet.is_discard)
        for frame in frames:
            losses.frames += 1
            losses.damaged += frame.is_corrupt
            in_fields |= frame.interlaced_frame  # of which two packets may be one frame
            yield frame
        if frames:
            since = None
    losses.silent = 0 if in_fields else max(good - losses.frames, 0)
    if "mov" in container.format.name:  # its demuxer drops some of them, and its table of samples has all
        samples = getattr(stream, "index_entries", ())  # which older PyAV does not show
        losses.empty = sum(not sample.size for sample in samples)


def stored_packets(
    container: InputContainer, stream: VideoStream, losses: Losses, live: bool = False
) -> Iterator[Packet[VideoStream] | None]:
    """Packets as they are stored; the last one, or None, has the decoder give what it holds back."""
    unread, final = 0, b""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except MemoryError:  # FFmpeg's own, which is of both kinds: it says nothing about the file
            raise
        except av.FFmpegError as error:
            packets = container.demux(stream)
            if live and isinstance(error, av.BlockingIOError):  # a camera that has no new frame yet
                time.sleep(CAMERA_WAIT)
                continue
            unread += 1
            if live or unread == UNREADABLE:
                losses.ended = losses.frames, "reading", error
                yield None
                return
            failure = error
            continue
        if packet is None:
            if container.format.name == "gif" and not losses.ended and not ends_whole(final):
                losses.ended = losses.frames, "reading", OSError("what follows is damaged or cut off")
            return
        final = bytes(packet) if packet.size and container.format.name == "gif" else final
        if unread and packet.size:
            losses.lost(failure, unread)
        elif unread:  # nothing has come after it
            losses.ended = losses.frames, "reading", failure
        unread = 0
        last = packet.pts is packet.dts is packet.pos is None
        if packet.size or last:  # an empty one would end the decoder
            yield packet
        elif container.format.name != "avi":  # there a recorder had no time for a frame
            losses.empty += 1


def decode_on_one_thread(stream: VideoStream) -> None:
    """Workers decode many files at once, small frames gain nothing from more threads, and AUTO threading can hang."""
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1  # for decoders with threads of their own (dav1d)
