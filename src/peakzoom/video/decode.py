"""A video file becomes frames: one honest decode with PyAV (FFmpeg's libraries), for whatever file comes.

What it rests on, each point seen in real files and kept by a test:

* **Frames are counted by decoding.** Header counts are wrong or absent in many files, and seeking trusts
  them: so nothing is sized by a header count and nothing seeks.
* **The order is the decoder's output order**, which FFmpeg promises to be that of presentation. Timestamps
  are less reliable: in AVI files with B-frames (UCF101 has them) they run 1, 4, 6, 5, 7, and sorting by them
  would shuffle the video. They say when a frame is shown, never which comes first (:func:`_timeline`).
* **Frames are what a player shows**: turned and mirrored by the display matrix, with square pixels, in the
  colour matrix and range that the file states; where it states none, BT.601 and limited range, as FFmpeg has
  it. HDR transfer curves are not tone-mapped, interlaced lines are not separated, transparency is dropped
  (FFmpeg paints the transparent parts of a GIF white).
* **Memory is bounded.** Which frames are wanted depends on their count, which is known only at the end. Until
  then they are held as the decoder gave them (4:2:0 takes half the bytes of RGB); above `hold_bytes` they are
  dropped and a second decode converts the wanted ones as they come. Both routes give the same pixels.
"""

from __future__ import annotations

import math
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError

# From the timestamps of all frames, float64 (n,), to the wanted frame numbers: any shape, duplicates allowed.
Select = Callable[[np.ndarray], np.ndarray]

# (height, width) of the frames, or a function from the displayed (height, width) to it; None = as displayed.
Size = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None

# From this displayed short side on, libswscale resizes while it converts: turning every pixel of a large
# frame into RGB for torch to throw most of them away costs more. Below it, torch's resize keeps up.
LARGE_SHORT_SIDE = 720

# Real pixels are at most a little over 2 wide or high (recordings at half width); a ratio beyond this is a
# slip of the program that wrote the file, and obeying it would draw the frame out into a line.
MAX_PIXEL_ASPECT = 4.0

HOLD_BYTES = 512 * 2**20  # of decoded frames, until it is known which are wanted

# FFmpeg also "plays" text files (as a terminal's screen) and lists of other files.
NOT_VIDEO_FORMATS = frozenset({"tty", "hls", "concat"})


@dataclass(frozen=True)
class VideoInfo:
    """What a whole decode found out about a file.

    Attributes:
        path: the file.
        frames: number of frames, counted by decoding.
        header_frames: what the header claims; 0 = nothing. For reports only.
        fps: frames per second by the timestamps, (n - 1) / (last - first); the header's rate for a single
            frame or without usable timestamps; 0.0 = unknown.
        height, width: pixels as displayed: turned, and made square by scaling the stored width.
        rotation: degrees clockwise by which stored frames are turned for display: 0, 90, 180 or 270.
        pixel_aspect: width / height of a stored pixel.
        variable_rate: some frame is more than one interval away from where a constant rate would put it (one
            frame left out is none; it happens in many files).
        codec: FFmpeg's name of the codec.
        problem: one line on what was wrong with the file although it gave frames; None = nothing.
    """

    path: Path
    frames: int
    header_frames: int
    fps: float
    height: int
    width: int
    rotation: int
    pixel_aspect: float
    variable_rate: bool
    codec: str
    problem: str | None

    @property
    def duration(self) -> float:
        """Seconds for which the frames are on display; 0.0 if the rate is unknown."""
        return self.frames / self.fps if self.fps else 0.0


@dataclass(frozen=True)
class Video:
    """The frames of a video that were asked for.

    Attributes:
        info: about the whole file.
        frames: uint8 (K, 3, H, W), RGB, 0 to 255; channels-last in memory.
        index: int64 (K,), sorted and unique: the frame numbers of `frames`.
        timestamps: float64 (info.frames,), seconds since the first frame, of all frames of the file.
    """

    info: VideoInfo
    frames: Tensor
    index: np.ndarray
    timestamps: np.ndarray

    def take(self, indices: np.ndarray) -> Tensor:
        """Frames by number: integers of any shape, in any order, with duplicates -> uint8 (*shape, 3, H, W).

        Raises:
            UserError: a number is not an integer, or that frame was not kept.
        """
        indices = _frame_numbers(indices, self.info)
        missing = np.setdiff1d(indices, self.index)
        if missing.size:
            raise UserError(
                f"{self.info.path}: frame {missing[0]} is not among the {len(self.index)} kept frames; "
                "have `select` return it when the video is decoded"
            )
        slots = torch.from_numpy(np.asarray(np.searchsorted(self.index, indices)))
        return self.frames.movedim(1, -1)[slots].movedim(-1, -3)  # channels last: one copy of whole frames


@dataclass(frozen=True)
class Scan:
    """What one decode of a whole file found, and what is needed to read its frames again.

    Attributes:
        info: about the file.
        timestamps: float64 (info.frames,), seconds since the first frame.
        stream: number of the video stream among all streams of the file.
        held: the decoded frames, given out once; None where they are not held.
    """

    info: VideoInfo
    timestamps: np.ndarray
    stream: int
    held: deque[av.VideoFrame] | None


def probe(path: str | Path) -> VideoInfo:
    """Decodes a whole file and converts nothing; raises :class:`DecodeError` if there is no frame."""
    return scan(path).info


def scan(path: str | Path, hold_bytes: int = 0, most: int | None = None) -> Scan:
    """Decodes a whole file once: counts, times and looks for damage, and holds frames as long as they fit.

    The first video stream that gives a frame counts.

    Args:
        path: as of :func:`decode`.
        hold_bytes: memory for decoded frames; 0 holds none.
        most: frames; a longer file is refused as soon as it shows. None takes any.

    Raises:
        DecodeError: there is no frame, or more than ``most``.
    """
    path = Path(path)
    reasons: list[str] = []  # one for each stream that gave none
    while True:
        with open_file(path) as container:  # opened anew for each stream: going back would be a seek
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                cover = ", only a picture" if container.streams.video else ""
                raise DecodeError(path, f"holds no video stream{cover}")
            if len(reasons) == len(streams):
                raise DecodeError(path, reasons[0])
            found = _scan_stream(path, container, streams[len(reasons)], hold_bytes, most)
        if isinstance(found, Scan):
            return found
        reasons.append(found)


def frames_of(
    scanned: Scan, wanted: np.ndarray | None = None, size: Size = None
) -> Iterator[tuple[int, Tensor]]:
    """The wanted frames of a scanned file, one after the other: what a file of any length needs no memory for.

    Args:
        scanned: the file.
        wanted: int64, sorted and unique frame numbers; None = all.
        size: see `Size`.

    Yields:
        Frame number, and uint8 (H, W, 3), RGB.

    Raises:
        DecodeError: a frame cannot be converted, or the file gives fewer frames than when it was scanned.
    """
    info = scanned.info
    target = _target_size(size, info)
    numbers = deque((np.arange(info.frames) if wanted is None else wanted).tolist())
    reformatter = VideoReformatter()  # keeps libswscale's tables from frame to frame
    source = _read(info.path, scanned.stream) if scanned.held is None else _release(scanned.held)
    for number, frame in enumerate(source):
        if not numbers:
            break
        if number != numbers[0]:
            continue
        numbers.popleft()
        try:
            pixels = to_rgb(frame, target, (info.height, info.width), reformatter)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            what = f"frame {number} ({frame.format.name}) cannot be converted to RGB"
            raise DecodeError(info.path, f"{what}: {one_line(error)}") from error
        yield number, pixels
    if numbers:
        raise DecodeError(info.path, f"gave {info.frames} frames, fewer when read again; has it changed?")


def decode(
    path: str | Path, select: Select | None = None, size: Size = None, hold_bytes: int = HOLD_BYTES
) -> Video:
    """Decodes a file and converts the wanted frames to RGB.

    Args:
        path: a file in any format that FFmpeg reads; its first video stream that gives a frame counts, cover
            art does not.
        select: the frames to keep, given the timestamps of all (see `Select`); None = all.
        size: of the frames (see `Size`). One bilinear, antialiased resize leads from stored to wanted pixels.
            A frame whose stored size differs from the first one's (it may change mid-stream) comes out like
            the others.
        hold_bytes: memory for decoded frames until the choice is known; above it the file is decoded twice.

    Raises:
        DecodeError: there is no frame, or one cannot be converted; the reason is one line.
        UserError: `select` names a frame that does not exist, or `size` is not positive.
    """
    scanned = scan(path, hold_bytes)
    info = scanned.info
    wanted = np.arange(info.frames) if select is None else select(scanned.timestamps)
    index = np.unique(_frame_numbers(wanted, info))
    height, width = _target_size(size, info)
    frames = torch.empty((len(index), height, width, 3), dtype=torch.uint8)
    for slot, (_, pixels) in enumerate(frames_of(scanned, index, (height, width))):
        frames[slot] = pixels
    return Video(info, frames.permute(0, 3, 1, 2), index, scanned.timestamps)


def _scan_stream(
    path: Path, container: InputContainer, stream: VideoStream, hold_bytes: int, most: int | None
) -> Scan | str:
    """Decodes, counts, times and (within `hold_bytes`) holds every frame; the reason if there is none."""
    if stream.codec_context is None:  # which PyAV's types leave out
        return "its video is in a format that FFmpeg has no decoder for"  # type: ignore[unreachable]
    held: deque[av.VideoFrame] | None = deque()
    first: av.VideoFrame | None = None
    held_bytes = damaged = 0
    ticks: list[tuple[int | None, int | None]] = []  # when to show, when to decode; units of the time base
    problems: list[str] = []
    try:
        for frame in _frames(container, stream):
            first = first or frame
            ticks.append((frame.pts, frame.dts))
            if most is not None and len(ticks) > most:
                raise DecodeError(path, f"has more than {most} frames, which is the most that is taken here")
            damaged += frame.is_corrupt
            held_bytes += sum(plane.buffer_size for plane in frame.planes)  # as stored, padding included
            if held is not None and held_bytes <= hold_bytes:
                held.append(frame)
            else:
                held = None
    except MemoryError:  # FFmpeg's own, which is of both kinds: it says nothing about the file
        raise
    except av.FFmpegError as error:
        problems.append(f"decoding stopped after {len(ticks)} frames: {one_line(error)}")
    if first is None:
        return f"no frame can be decoded: {problems[0]}" if problems else "its video stream holds no frame"
    if damaged:
        problems.append(f"frames decoded with damage: {damaged} of {len(ticks)}")

    rate = float(stream.average_rate or 0)
    times, stated = _timeline(np.array(ticks, np.float64) * float(stream.time_base or 0), rate)  # None -> NaN
    if not stated:
        problems.append(f"timestamps are missing or out of order, {rate:g} fps assumed")
    fps = (len(times) - 1) / float(times[-1]) if times[-1] > 0 else rate

    shape, slip = displayed_shape(first, stream)
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
    return Scan(info, times, stream.index, held)


@dataclass(frozen=True)
class DisplayedShape:
    """How a player shows stored frames; the fields are those of :class:`VideoInfo`."""

    height: int
    width: int
    rotation: int
    pixel_aspect: float


def displayed_shape(first: av.VideoFrame, stream: VideoStream) -> tuple[DisplayedShape, str | None]:
    """How a video is displayed, by its first frame; and what was wrong with what the file says of that."""
    aspect, problem = float(stream.sample_aspect_ratio or 1), None
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        problem = f"pixels said to be {aspect:g} times as wide as high were taken for square"
        aspect = 1.0
    turns, _ = _orientation(first)
    height, width = first.height, max(round(first.width * aspect), 1)
    if turns % 2:
        height, width = width, height
    return DisplayedShape(height, width, 90 * turns, aspect), problem


def open_file(path: Path) -> InputContainer:
    """Opens a regular file and nothing else: no pipe (it would block), no address, no list of other files."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DecodeError(path, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DecodeError(path, f"cannot be opened: {one_line(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "is a pipe or a device, not a video file")
    if status.st_size == 0:
        raise DecodeError(path, "is empty (zero bytes)")
    try:
        # "file:" keeps a name such as "a:b.mp4" from being read as an address, and the whitelist keeps the
        # file from leading to one. Odd letters in its metadata are no reason to refuse a video.
        options = {"protocol_whitelist": "file"}
        container = av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(path, f"cannot be read as a video: {one_line(error)}") from error
    if NOT_VIDEO_FORMATS.intersection(container.format.name.split(",")):
        container.close()
        raise DecodeError(path, "is a text file or a playlist, not a video")
    return container


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """All frames of a freshly opened stream, in the decoder's output order."""
    decode_on_one_thread(stream)
    yield from container.decode(stream)


def decode_on_one_thread(stream: VideoStream) -> None:
    """Workers decode many files at once, small frames gain nothing from more threads, and AUTO threading can hang."""
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1  # for decoders with threads of their own (dav1d)


def _read(path: Path, stream: int) -> Iterator[av.VideoFrame]:
    """Second pass: the same frames again, up to where the first pass broke off."""
    with open_file(path) as container:
        try:
            yield from _frames(container, next(s for s in container.streams.video if s.index == stream))
        except (av.FFmpegError, StopIteration):
            return  # the first pass has reported it; frames missing since then are noticed by the caller


def _release(held: deque[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Held frames in order, each let go when the next one is asked for."""
    while held:
        yield held.popleft()


def _timeline(stamps: np.ndarray, rate: float) -> tuple[np.ndarray, bool]:
    """When each frame is shown, in seconds since the first.

    The presentation timestamps are believed if they never fall, otherwise the decoding ones if those never
    fall (equal neighbours stay equal). Frames without a timestamp stand evenly between their neighbours, at
    the ends one nominal interval apart. With neither clock, frames follow each other at `rate`. FFmpeg's own
    guess weighs the same two clocks against each other frame by frame; here one clock holds for the whole
    file.

    Args:
        stamps: seconds (n, 2): presentation, decoding; NaN = not stated. Rows are in order of presentation.
        rate: frames per second stated by the header; 0 = none.

    Returns:
        float64 (n,) that starts at 0 and never falls; and whether the file's own timestamps gave it.
    """
    number = np.arange(len(stamps))
    for clock in stamps.T:
        known = np.flatnonzero(~np.isnan(clock))
        stated = clock[known]
        if len(known) < 2 or stated[-1] <= stated[0] or np.diff(stated).min() < 0:
            continue
        interval = 1 / rate if rate else (stated[-1] - stated[0]) / (known[-1] - known[0])
        beyond = np.minimum(number - known[0], 0) + np.maximum(number - known[-1], 0)  # frames outside them
        times = np.interp(number, known, stated) + beyond * interval
        return times - times[0], True
    return number / (rate or math.inf), len(stamps) == 1


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
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


def _target_size(size: Size, info: VideoInfo) -> tuple[int, int]:
    """(height, width) to convert to."""
    if size is None:
        return info.height, info.width
    height, width = size(info.height, info.width) if callable(size) else size
    if height < 1 or width < 1:
        raise UserError(f"frame size is {height} x {width} (height x width), expected two positive numbers")
    return int(height), int(width)


def to_rgb(
    frame: av.VideoFrame, size: tuple[int, int], displayed: tuple[int, int], reformatter: VideoReformatter
) -> Tensor:
    """A decoded frame as displayed, in the wanted (height, width): uint8 (H, W, 3).

    Args:
        frame: as the decoder gave it.
        size: (height, width) wanted.
        displayed: (height, width) at which the video is displayed, by its first frame.
        reformatter: the same one for all frames of a video.

    Raises:
        av.FFmpegError, ValueError: the pixel format cannot be converted.
    """
    turns, upside_down = _orientation(frame)
    height, width = size[::-1] if turns % 2 else size  # before the turn
    large = min(displayed) >= LARGE_SHORT_SIDE
    rgb = reformatter.reformat(
        frame,
        width=width if large else None,
        height=height if large else None,
        format="rgb24",
        interpolation="BILINEAR",  # reaches wider as the frame shrinks; FAST_BILINEAR does not, and aliases
        dst_color_range=ColorRange.JPEG,  # RGB from 0 to 255
        threads=1,
    )
    pixels = torch.from_numpy(rgb.to_ndarray())
    if pixels.shape[:2] != (height, width):
        image = pixels.permute(2, 0, 1)[None]  # channels-last: the fast case of torch's uint8 resize
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
        pixels = image[0].permute(1, 2, 0)
    if upside_down:
        pixels = pixels.flip(0)
    return torch.rot90(pixels, -turns)


def _frame_numbers(numbers: np.ndarray, info: VideoInfo) -> np.ndarray:
    """The numbers as int64, checked to be whole and within the video."""
    numbers = np.asarray(numbers)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"{info.path}: frame numbers are of type {numbers.dtype}, expected integers")
    outside = numbers[(numbers < 0) | (numbers >= info.frames)]
    if outside.size:
        raise UserError(f"{info.path}: frame {outside[0]} does not exist, expected 0 to {info.frames - 1}")
    return numbers.astype(np.int64)


def one_line(error: Exception) -> str:
    """What the system or FFmpeg says, without error numbers and file names."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
