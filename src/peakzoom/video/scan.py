"""One decode of a whole file, also for a segment: its frames counted and timed, damage noted, nothing converted.

* **Frames are counted by decoding.** Header counts are wrong or absent in many files, and seeking trusts them.
* **The order is the decoder's output order**, which FFmpeg promises to be that of presentation. Timestamps are less
  reliable: in AVI files with B-frames (UCF101 has them) they run 1, 4, 6, 5, 7, and sorting by them would shuffle the
  video. They say when a frame is shown, never which comes first (:func:`frame_times`).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import Segment, segment_of
from peakzoom.video.colour import ConversionCheck
from peakzoom.video.container import open_file
from peakzoom.video.faults import reason_of
from peakzoom.video.packets import Losses, decoded_frames
from peakzoom.video.shape import Crop, displayed_shape
from peakzoom.video.streams import choice, stream_order, untried_stream

HOLD_BYTES = 512 * 2**20  # of decoded frames, until it is known which are wanted
STATING = ("mov", "matroska", "avi", "flv")  # formats whose header states how long the video is


@dataclass(frozen=True)
class VideoInfo:
    """What a whole decode found out about a file."""

    path: Path
    frames: int  # counted by decoding
    header_frames: int  # what the header claims; 0 = nothing. For reports only
    # Frames per second by the timestamps, (n - 1) / (last - first); the header's rate for a single frame or without
    # usable timestamps; 0.0 = unknown.
    fps: float
    height: int  # pixels as displayed: turned, and made square by scaling the stored width
    width: int
    rotation: int  # degrees clockwise by which stored frames are turned for display: 0, 90, 180 or 270
    pixel_aspect: float  # width / height of a stored pixel
    # Some frame is more than one interval away from where a constant rate would put it (one frame left out is none; it
    # happens in many files).
    variable_rate: bool
    codec: str  # FFmpeg's name of it
    problem: str | None  # one line on what was wrong with the file although it gave frames

    @property
    def duration(self) -> float:
        """Seconds for which the frames are on display; 0.0 if the rate is unknown."""
        return self.frames / self.fps if self.fps else 0.0


@dataclass(frozen=True)
class Scan:
    """What one decode of a whole file found, and what is needed to read its frames again."""

    info: VideoInfo
    timestamps: np.ndarray  # float64 (info.frames,), seconds since the first frame
    stream: int  # number of the video stream among all streams of the file
    crop: Crop | None  # of its stored frames
    held: deque[av.VideoFrame] | None  # the decoded frames, given out once; None where they are not held
    first: int = 0  # number in the file of the first frame, where it is a segment of one


def probe(path: str | Path) -> VideoInfo:
    """Decodes a whole file and converts nothing; raises :class:`DecodeError` if there is no frame."""
    return scan(path).info


def scan(path: str | Path, hold_bytes: int = 0, most: int | None = None) -> Scan:
    """Decodes a whole file once: counts, times and looks for damage, and holds frames as long as they fit.

    Of several video streams the first in order that gives a frame counts (:mod:`peakzoom.video.streams`). A segment
    of a file (:mod:`peakzoom.utils.segments`) is cut out of the whole, which is remembered for the next segment.
    DecodeError if there is no frame, or more than ``most``.
    """
    try:
        segment = segment_of(path)
    except UserError as error:
        raise DecodeError(path, str(error)) from error
    if segment is None:
        return _scan_file(Path(path), hold_bytes, most)
    return _cut(Path(path), segment, _remembered(Path(path), segment.file, hold_bytes), most)


class _Memory(threading.local):
    """The file that was scanned last for a segment of it, and what it was like."""

    key: tuple[object, ...] | None = None
    whole: Scan | None = None


_memory = _Memory()


def _remembered(path: Path, file: Path, hold_bytes: int) -> Scan:
    """The scan of a whole file, with its frames if they fit; errors are those of ``path``."""
    with reason_of(path):  # a name may be too long to be looked for
        facts = file.stat() if file.exists() else None
    key = (file, hold_bytes, facts and (facts.st_size, facts.st_mtime_ns, facts.st_ino))
    if _memory.key != key or _memory.whole is None:
        _memory.key = _memory.whole = None
        try:
            _memory.whole = _scan_file(file, hold_bytes, None)
        except DecodeError as error:
            raise DecodeError(path, error.reason) from error
        _memory.key = key
    return _memory.whole


def _cut(path: Path, segment: Segment, whole: Scan, most: int | None) -> Scan:
    """What lies in a segment: frames that are first shown in it."""
    info, times = whole.info, whole.timestamps
    end = math.inf if segment.end is None else segment.end
    first, after = np.searchsorted(times, [segment.start, end]).tolist()
    if first == after:
        raise DecodeError(path, f"holds no frame: its file lasts {info.duration:.6g} s")
    if most is not None and after - first > most:
        raise DecodeError(path, f"has more than {most} frames, which is the most that is taken here")
    problems = [info.problem] if info.problem else []
    if segment.end is not None and segment.end > info.duration + 1 / (info.fps or 1):
        problems.append(f"ends after its file, which lasts {info.duration:.6g} s")
    own = times[first:after] - times[first]
    fps = info.fps
    cut = replace(
        info,
        path=path,
        frames=after - first,
        header_frames=0,
        variable_rate=bool(np.abs(own * fps - np.arange(len(own))).max() > 1),
        problem="; ".join(problems) or None,
    )
    held = None if whole.held is None else deque(islice(whole.held, first, after))
    return Scan(cut, own, whole.stream, whole.crop, held, first)


def _scan_file(path: Path, hold_bytes: int, most: int | None) -> Scan:
    """Of a whole file."""
    order: list[int] = []  # of its streams
    reasons: list[str] = []  # one for each stream that gave none
    with reason_of(path):
        while True:
            with open_file(path) as container:  # opened anew for each stream: going back would be a seek
                if not order:
                    order = stream_order(container, path)
                    if len(order) > 1:
                        continue
                stream = untried_stream(container, path, order, reasons)
                found = _scan_stream(path, container, stream, hold_bytes, most)
                if isinstance(found, Scan):
                    return _with_problem(found, choice(stream, order, reasons))
            reasons.append(found)


def _with_problem(scanned: Scan, line: str | None) -> Scan:
    if line is None:
        return scanned
    told = "; ".join(each for each in (line, scanned.info.problem) if each)
    return replace(scanned, info=replace(scanned.info, problem=told))


def _scan_stream(
    path: Path, container: InputContainer, stream: VideoStream, hold_bytes: int, most: int | None
) -> Scan | str:
    """The same of one stream; the reason if it gives no frame."""
    if stream.codec_context is None:  # which PyAV's types leave out
        return "its video is in a format that FFmpeg has no decoder for"  # type: ignore[unreachable]
    held: deque[av.VideoFrame] | None = deque()
    first: av.VideoFrame | None = None
    held_bytes, losses, check = 0, Losses(), ConversionCheck(path)
    ticks: list[tuple[int | None, int | None]] = []  # when to show, when to decode; units of the time base
    last: av.VideoFrame | None = None
    for frame in decoded_frames(container, stream, losses):
        first, last = first or frame, frame
        check.look(len(ticks), frame)
        ticks.append((frame.pts, frame.dts))
        if most is not None and len(ticks) > most:
            raise DecodeError(path, f"has more than {most} frames, which is the most that is taken here")
        held_bytes += sum(plane.buffer_size for plane in frame.planes)  # as stored, padding included
        if held is not None and held_bytes <= hold_bytes:
            held.append(frame)
        else:
            held = None
    if first is None or last is None:
        why = losses.why()
        return f"no frame can be decoded: {why}" if why else "its video stream holds no frame"
    problems = losses.lines()

    rate = float(stream.average_rate or 0)
    base = stream.time_base or Fraction(0)
    times, stated = frame_times(np.array(ticks, np.float64), rate, base)  # None -> NaN
    if not stated:
        problems.append(f"timestamps are missing or out of order, {rate:g} fps assumed")
    fps = (len(times) - 1) / float(times[-1]) if times[-1] > 0 else rate
    shown = float((getattr(last, "duration", None) or 0) * base) or (1 / fps if fps else 0)
    if stated and losses.none and (early := ends_early(container, stream, float(times[-1]) + shown)):
        problems.append(early)

    shape, slip = displayed_shape(container, stream, first)
    if slip:
        problems.append(slip)

    info = VideoInfo(
        path=path,
        frames=len(times),
        header_frames=stream.frames,
        fps=fps,
        height=shape.height,
        width=shape.width,
        rotation=shape.rotation,
        pixel_aspect=shape.pixel_aspect,
        variable_rate=bool(np.abs(times * fps - np.arange(len(times))).max() > 1),
        codec=stream.codec_context.codec.canonical_name,
        problem="; ".join(problems) or None,
    )
    return Scan(info, times, stream.index, shape.crop, held)


def ends_early(container: InputContainer, stream: VideoStream, seconds: float) -> str | None:
    """What the header promises and the file does not hold, where that is far from what its frames last."""
    if container.format.name.split(",")[0] not in STATING:
        return None
    stated = 0.0
    if stream.duration and stream.time_base:
        stated = float(stream.duration * stream.time_base)
    elif container.duration and not container.streams.audio:  # which may last longer
        stated = container.duration / av.time_base
    if stated - seconds <= max(0.5, 0.1 * stated):
        return None
    return f"ends after {seconds:.1f} s, its header states {stated:.1f} s"


def frame_times(stamps: np.ndarray, rate: float, base: Fraction = Fraction(1)) -> tuple[np.ndarray, bool]:
    """When each frame is shown, in seconds since the first.

    The presentation timestamps are believed if they never fall, otherwise the decoding ones if those never
    fall. Frames without a timestamp stand evenly between their neighbours, at the ends one nominal interval apart. With
    neither clock, frames follow each other at `rate`.

    Args:
        stamps: units of ``base`` (n, 2): presentation, decoding; NaN = not stated. Rows are in order of presentation.
        rate: frames per second stated by the header; 0 = none.
        base: seconds a unit.

    Returns:
        float64 (n,) that starts at 0 and never falls; and whether the file's own timestamps gave it. Where whole units
        gave it, each time is the float nearest to it, as a person's "7.4" is: a frame shown then is found by it.
    """
    number = np.arange(len(stamps))
    for clock in stamps.T:
        known = np.flatnonzero(~np.isnan(clock))
        stated = (clock[known] - clock[known[:1]]) * base.numerator / base.denominator
        if len(known) < 2 or stated[-1] <= stated[0] or np.diff(stated).min() < 0:
            continue
        interval = 1 / rate if rate else (stated[-1] - stated[0]) / (known[-1] - known[0])
        beyond = np.minimum(number - known[0], 0) + np.maximum(number - known[-1], 0)  # frames outside them
        times = np.interp(number, known, stated) + beyond * interval
        return times - times[0], True
    return number / (rate or math.inf), len(stamps) == 1
