"""Which of a file's video streams is its video: the one that players choose, and the next if that gives no frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from peakzoom.utils.errors import DecodeError

MANY = 5  # packets from which a stream is no single picture; FFmpeg's av_find_best_stream counts so far
FOR_FEW = Disposition.hearing_impaired | Disposition.visual_impaired


def stream_order(container: InputContainer, path: str | Path, stored: bool = True) -> list[int]:
    """Numbers of the video streams, the one to be tried first in front; cover art is none.

    As FFmpeg chooses (av_find_best_stream): by disposition, a stream marked as default first; then by the number of
    frames, up to ``MANY``; then by the bit rate, where it is stated, the size of the picture, and the order. Where
    there are several, packets of a ``stored`` file are read for that, and it has to be opened anew; of any other
    source FFmpeg's own choice is first.

    Raises:
        DecodeError: there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        cover = ", only a picture" if container.streams.video else ""
        raise DecodeError(path, f"holds no video stream{cover}")
    if len(streams) == 1:
        return [streams[0].index]
    best = None if stored else container.streams.best("video")
    packets = _count_packets(container, streams) if stored else {}
    return [
        s.index for s in sorted(streams, key=lambda s: (s is not best, *_rank(s, packets.get(s.index, 0))))
    ]


def _rank(stream: VideoStream, packets: int) -> tuple[int, ...]:
    """Sorts the better stream first."""
    context = stream.codec_context
    if context is None:  # FFmpeg has no decoder for it, which PyAV's types leave out
        return (1,)  # type: ignore[unreachable]
    mark = (not stream.disposition & FOR_FEW) + bool(stream.disposition & Disposition.default)
    pixels, bits = context.width * context.height, context.bit_rate or 0
    return 0, -mark, -min(packets, MANY), -bits, -pixels, stream.index


def _count_packets(container: InputContainer, streams: Sequence[VideoStream]) -> Mapping[int, int]:
    """How many packets each stream has, as far as ``MANY``."""
    found: Counter[int] = Counter()
    try:
        for packet in container.demux(streams):
            found[packet.stream.index] += bool(packet.size)
            if min(found[each.index] for each in streams) >= MANY:
                break
    except av.FFmpegError:
        pass  # decoding meets it again, and says so
    return found


def untried_stream(
    container: InputContainer, path: str | Path, order: Sequence[int], reasons: Sequence[str]
) -> VideoStream:
    """The first stream in order after those that gave no frame, for a reason each; DecodeError if none is left."""
    if len(reasons) == len(order):
        raise DecodeError(path, reasons[0])
    stream = container.streams[order[len(reasons)]]
    assert isinstance(stream, VideoStream)
    return stream


def choice(stream: VideoStream, order: Sequence[int], reasons: Sequence[str]) -> str | None:
    """One line on the stream that was taken; None where there was nothing to choose."""
    if len(order) == 1:
        return None
    size = f"{stream.codec_context.width} x {stream.codec_context.height}"
    failed = "".join(f"; #{number} gave no frame: {why}" for number, why in zip(order, reasons, strict=False))
    return f"of {len(order)} video streams #{stream.index} ({size}) is taken{failed}"
