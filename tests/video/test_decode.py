"""Decoding: files written here with known contents, and the odd files of three projects' decoder tests."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import odd_videos
import pytest
import torch
import torch.nn.functional as F
from av.filter import Graph
from av.stream import Disposition
from av.video.stream import VideoStream

from peakzoom.utils.errors import DecodeError
from peakzoom.video import shape
from peakzoom.video import stored as module
from peakzoom.video.decode import Video, decode
from peakzoom.video.scan import frame_times, probe

# (red, green) of the quarters of the test picture, top left, top right, bottom left, bottom right: its eight
# turned and mirrored versions all differ. Blue counts the frames.
QUARTERS = np.array([[[220, 40], [40, 200]], [[120, 120], [20, 20]]], np.uint8)
BLUE_STEP = 8


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """What frame `number` shows: uint8 (height, width, 3)."""
    quarters = np.concatenate([QUARTERS, np.full((2, 2, 1), BLUE_STEP * number, np.uint8)], axis=2)
    return quarters.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def write(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = (48, 64),
    pts: Sequence[int] | None = None,
    setup: Callable[[VideoStream], None] = lambda stream: None,
) -> Path:
    """A lossless RGB video. `pts` in milliseconds, 40 apart by default."""
    codec, pixels = ("ffv1", "bgr0") if path.suffix == ".mkv" else ("png", "rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        setup(stream)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = pts[number] if pts else 40 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(video: Video) -> list[int]:
    """The frame number that each picture shows."""
    return [round(float(blue) / BLUE_STEP) for blue in video.frames[:, 2].float().mean((1, 2))]


def plain_loop(path: Path, stop: int | None = None) -> tuple[np.ndarray, bool]:
    """The plainest decode there is: RGB frames (n, H, W, 3) of FFmpeg's best video stream; and whether it broke off."""
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            best = container.streams.best("video")
            assert best is not None
            for frame in container.decode(best):
                assert isinstance(frame, av.VideoFrame)
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == stop:
                    break
    except av.FFmpegError:
        return np.stack(frames), True
    return np.stack(frames), False


def channels_last(frames: torch.Tensor) -> np.ndarray:
    return frames.movedim(-3, -1).numpy()


# -- Written files


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".avi"])
def test_frames_and_facts(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a b:c%03d{suffix}")
    video = decode(path)
    np.testing.assert_array_equal(channels_last(video.frames), np.stack([picture(k) for k in range(12)]))
    np.testing.assert_allclose(video.timestamps, np.arange(12) * 0.04, atol=1e-9)
    assert video.frames.shape == (12, 3, 48, 64) and video.frames.dtype == torch.uint8
    assert video.index.tolist() == list(range(12)) and video.index.dtype == np.int64
    info = video.info
    assert (info.path, info.frames, info.height, info.width, info.rotation) == (path, 12, 48, 64, 0)
    assert (info.pixel_aspect, info.variable_rate, info.problem) == (1.0, False, None)
    assert info.codec == ("ffv1" if suffix == ".mkv" else "png")
    assert info.fps == pytest.approx(25) and info.duration == pytest.approx(0.48)
    assert probe(path) == info


def test_variable_rate_is_measured(tmp_path: Path) -> None:
    milliseconds = [0, 40, 80, 120, 320, 360, 400, 1000]
    video = decode(write(tmp_path / "v.mov", 8, pts=milliseconds))
    np.testing.assert_allclose(video.timestamps, np.array(milliseconds) / 1000, atol=1e-9)
    assert video.info.variable_rate and video.info.fps == pytest.approx(7)
    assert shown(video) == list(range(8))


def test_timestamps_rounded_to_milliseconds_are_a_constant_rate(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "v.mkv", 30, pts=[round(k * 1001 / 30) for k in range(30)]))
    assert not info.variable_rate and info.fps == pytest.approx(30 / 1.001, rel=2e-3)


def test_timestamps_start_at_zero(tmp_path: Path) -> None:
    video = decode(write(tmp_path / "v.mkv", 3, pts=[5000, 5040, 5080]))
    np.testing.assert_allclose(video.timestamps, [0, 0.04, 0.08], atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [None, "hflip", "vflip"])
def test_display_matrix(tmp_path: Path, degrees: int, mirror: str | None) -> None:
    def turn(stream: VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=mirror == "hflip", vflip=mirror == "vflip")

    path = write(tmp_path / "v.mov", 2, setup=turn)
    video = decode(path)
    with av.open(str(path)) as container:  # the reference applies the matrix to pixel centres, one by one
        frame = next(container.decode(video=0))
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    a, b, c, d = (np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]] // 2**16).tolist() if matrix else (1, 0, 0, 1)
    stored = picture(0)
    y, x = np.mgrid[:48, :64]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros_like(stored if degrees % 180 == 0 else stored.swapaxes(0, 1))
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored
    np.testing.assert_array_equal(channels_last(video.frames[0]), expected)
    assert (video.info.height, video.info.width) == expected.shape[:2]
    small = decode(path, size=(10, 30)).frames  # the size is that of the upright picture
    assert small.shape == (2, 3, 10, 30)
    corners = expected[:: expected.shape[0] - 1, :: expected.shape[1] - 1]
    np.testing.assert_array_equal(channels_last(small[0])[::9, ::29], corners)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_beside_side_data_that_pyav_does_not_know(tmp_path: Path, orientation: int) -> None:
    """EXIF says where the stored picture's first row and column are on display (its table of eight)."""
    path = odd_videos.write(tmp_path / "v.avi", change=odd_videos.with_exif(orientation))
    plain = odd_videos.write(tmp_path / "plain.avi")
    stored = channels_last(decode(plain).frames)
    across = stored.swapaxes(1, 2)
    expected = {
        1: stored,
        2: stored[:, :, ::-1],
        3: stored[:, ::-1, ::-1],
        4: stored[:, ::-1],
        5: across,
        6: across[:, :, ::-1],
        7: across[:, ::-1, ::-1],
        8: across[:, ::-1],
    }[orientation]
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert any(kind.type.name.startswith("KIND_") for kind in frame.side_data)
    video = decode(path)
    assert video.info.problem is None and video.info.frames == 12
    np.testing.assert_array_equal(channels_last(video.frames), expected)


def test_pixels_are_made_square(tmp_path: Path) -> None:
    def wide(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    video = decode(write(tmp_path / "v.mov", setup=wide))
    assert video.info.pixel_aspect == 1.5 and video.frames.shape == (12, 3, 48, 96)
    np.testing.assert_array_equal(channels_last(video.frames[3])[:, ::95], picture(3)[:, ::63])


def test_absurd_pixels_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    monkeypatch.setattr(shape, "MAX_PIXEL_ASPECT", 1.2)
    info = probe(write(tmp_path / "v.mov", setup=wide))
    assert (info.width, info.pixel_aspect) == (64, 1.0) and "1.5 times as wide" in (info.problem or "")


@pytest.mark.parametrize("hold_bytes", [1, 2**29])
def test_size_changes_mid_stream(tmp_path: Path, hold_bytes: int) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24"
        for number, size in enumerate([(48, 64), (48, 64), (96, 100), (20, 30)]):
            encoder = av.CodecContext.create("png", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *size, "rgb24"
            encoder.time_base = Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number
            for packet in encoder.encode(frame):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                container.mux(packet)
    video = decode(path, hold_bytes=hold_bytes)
    assert (video.info.height, video.info.width) == (48, 64) and shown(video) == [0, 1, 2, 3]
    for number in range(4):
        corners = channels_last(video.frames[number])[::47, ::63]
        np.testing.assert_array_equal(corners, picture(number)[::47, ::63])


def test_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mkv", 20, size=(240, 320))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    video, reference = decode(cut), plain_loop(cut)[0]
    assert 8 <= video.info.frames < 20 and video.info.frames == len(reference)
    np.testing.assert_array_equal(channels_last(video.frames), reference)


def test_stream_without_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "v.h264"  # no container, hence no timestamps and B-frames out of order
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    video = decode(path)
    assert shown(video) == list(range(20))
    np.testing.assert_allclose(np.diff(video.timestamps), 0.04, atol=1e-6)


def test_first_stream_that_decodes(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        bad, good = (container.add_stream("png", rate=25) for _ in range(2))
        for stream in (bad, good):
            stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24"
        for number in range(3):
            for packet in good.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")):
                rubbish = av.Packet(b"rubbish" * 20)
                rubbish.stream, rubbish.time_base = bad, Fraction(1, 25)
                rubbish.pts = rubbish.dts = number
                container.mux([rubbish, packet])
    assert plain_loop_fails(path)
    assert shown(decode(path)) == shown(decode(path, hold_bytes=0)) == [0, 1, 2]


def plain_loop_fails(path: Path) -> bool:
    with av.open(str(path)) as container, pytest.raises(av.FFmpegError):
        next(container.decode(video=0))
    return True


# -- Choice of frames, memory


def test_select_take_and_two_passes(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mov")
    seen = []

    def select(timestamps: np.ndarray) -> np.ndarray:
        seen.append(timestamps)
        return np.array([[9, 2, 2], [5, 9, 0]], np.int32)

    one, two = decode(path, select, (24, 40)), decode(path, select, (24, 40), hold_bytes=1)
    assert [len(timestamps) for timestamps in seen] == [12, 12] and one.index.tolist() == [0, 2, 5, 9]
    assert one.info == two.info and torch.equal(one.frames, two.frames) and shown(one) == [0, 2, 5, 9]
    for wanted in ([[9, 2, 2], [5, 9, 0]], 5, [0], np.zeros((2, 0, 3), int)):
        indices = np.array(wanted)
        taken = one.take(indices)
        assert taken.shape == (*indices.shape, 3, 24, 40) and taken.dtype == torch.uint8
        blue = taken.float()[..., 2, :, :].mean((-2, -1)).numpy() / BLUE_STEP
        np.testing.assert_array_equal(blue.round(), indices)


def test_empty_choice(tmp_path: Path) -> None:
    video = decode(write(tmp_path / "v.mov"), lambda timestamps: np.array([], int), (5, 6))
    assert video.frames.shape == (0, 3, 5, 6) and video.info.frames == 12


def test_held_memory_is_counted_in_native_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.mov")
    with av.open(str(path)) as container:
        native = sum(plane.buffer_size for frame in container.decode(video=0) for plane in frame.planes)
    passes = []
    read = module._read

    def counted(path: Path, stream: int) -> Iterator[av.VideoFrame]:
        passes.append(stream)
        return read(path, stream)

    monkeypatch.setattr(module, "_read", counted)
    decode(path, hold_bytes=native)
    assert not passes
    decode(path, hold_bytes=native - 1)
    assert len(passes) == 1


def test_file_that_shrinks_between_the_passes(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv")

    def select(timestamps: np.ndarray) -> np.ndarray:
        write(path, frames=3)
        return np.arange(len(timestamps))

    with pytest.raises(DecodeError, match="gave 12 frames, fewer when read again"):
        decode(path, select, hold_bytes=0)


# -- Size and colour


@pytest.mark.parametrize("stored", [(240, 320), (720, 960)])
@pytest.mark.parametrize("size", [(224, 224), (64, 90), (900, 1200)])
def test_resize_is_antialiased_bilinear(
    tmp_path: Path, stored: tuple[int, int], size: tuple[int, int]
) -> None:
    # Grey: libswscale keeps the colours of RGB sources (which large videos are not) at half width.
    noise = np.random.default_rng(0).integers(0, 256, (*stored, 1), np.uint8).repeat(3, axis=2)
    path = tmp_path / "v.png"
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    frame.save(path)
    got = decode(path, size=size).frames.float()
    image = torch.from_numpy(noise).permute(2, 0, 1)[None].double()
    expected = F.interpolate(image, size, mode="bilinear", antialias=True)
    error = (got - expected).abs()
    if stored[0] < module.LARGE_SHORT_SIDE:
        assert error.max() <= 1.01  # torch rounds once per axis
    else:
        assert (
            error.mean() <= 0.5
        )  # up to 13 at the borders of white noise; FAST_BILINEAR is 40 off on average


def test_size_by_function_of_the_displayed_size(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mov", setup=lambda stream: stream.set_display_rotation(90))
    asked: list[tuple[int, int]] = []

    def half(height: int, width: int) -> tuple[int, int]:
        asked.append((height, width))
        return height // 2, width // 2

    assert decode(path, size=half).frames.shape == (12, 3, 32, 24) and asked == [(64, 48)]


COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [128, 128, 128], [200, 100, 50]]
)
# Kr, Kb of the colour matrices by their number in ISO/IEC 23091-2 (H.273): BT.709, BT.601 (625, 525), BT.2020
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_by_the_published_formula(tmp_path: Path, pixels: str, full: bool, matrix: int) -> None:
    kr, kb = MATRICES[matrix]
    bits = 10 if "10" in pixels else 8
    red, green, blue = COLOURS.T / 255
    y = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)]
    top, step = 2**bits - 1, 2 ** (bits - 8)
    ranges = (top, 0, top) if full else (219 * step, 16 * step, 224 * step)
    levels = [ranges[0] * y + ranges[1], *(ranges[2] * c + 128 * step for c in chroma)]

    frame = av.VideoFrame(32 * len(COLOURS), 32, pixels)
    for plane, level in zip(frame.planes, levels, strict=True):
        sample = np.dtype(np.uint8 if bits == 8 else np.uint16)
        row = level.round().clip(0, top).astype(sample).repeat(plane.width // len(COLOURS))
        rows = np.zeros((plane.height, plane.line_size // sample.itemsize), sample)
        rows[:, : plane.width] = row
        plane.update(rows.tobytes())
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
        stream.codec_context.colorspace = frame.colorspace = matrix
        stream.codec_context.color_range = frame.color_range = 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    got = channels_last(decode(path).frames[0])[16, 16::32]
    np.testing.assert_allclose(got, COLOURS, atol=3)  # two roundings, and libswscale's dither of 10 bits


# -- Files that give no frame


def write_audio(path: Path, cover: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        if cover:
            art = container.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = 64, 48, "rgb24"
            art.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
        if cover:
            container.mux(art.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
            container.mux(art.encode())
    return path


def unusable(kind: str, folder: Path) -> Path:
    """A path that no frame can come from."""
    path = folder / "v.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "playlist":
        path = folder / "v.ffconcat"
        path.write_text(f"ffconcat version 1.0\nfile '{write(folder / 'other.mov').name}'\n")
    elif kind == "audio":
        write_audio(path)
    elif kind == "audio with cover":
        write_audio(path, cover=True)
    elif kind == "unknown codec":
        path = write(folder / "v.avi")
        path.write_bytes(path.read_bytes().replace(b"MPNG", b"ZZZZ"))
    elif kind == "header only":
        path = write(folder / "v.mkv", frames=0)
    elif kind == "forbidden":
        write(folder / "v.mov").rename(path)
        path.chmod(0)
    elif kind == "null character":
        path = folder / "a\0b.mp4"
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "is empty"),
        ("folder", "is a folder"),
        ("pipe", "is a pipe"),
        ("text", "is a text, not a video"),
        ("playlist", "is a playlist, not a video"),
        ("audio", "holds no video stream"),
        ("audio with cover", "holds no video stream, only a picture"),
        ("unknown codec", "no decoder"),
        ("header only", ""),
        ("null character", "cannot be opened"),
        ("forbidden", "ermission denied"),
    ],
)
def test_unusable_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, reason: str) -> None:
    if kind == "forbidden" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = unusable(kind, tmp_path)
    for function in (probe, decode):
        with pytest.raises(DecodeError) as caught:
            function(path)
        assert reason in caught.value.reason and caught.value.path == path
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# -- Timestamps

GAP = np.nan


@pytest.mark.parametrize(
    ("presentation", "decoding", "rate", "expected", "stated"),
    [
        ([3, 4, 6, 9], [0, 1, 2, 3], 1, [0, 1, 3, 6], True),
        ([1, 4, 6, 5, 7], [3, 4, 5, 6, GAP], 1, [0, 1, 2, 3, 4], True),  # B-frames in AVI
        ([1, 1, 2], [GAP, GAP, GAP], 1, [0, 0, 1], True),
        ([GAP, 2, GAP, GAP, 5, GAP], [GAP] * 6, 2, [0, 0.5, 1.5, 2.5, 3.5, 4], True),
        ([GAP, 2, GAP, 6], [GAP] * 4, 0, [0, 2, 4, 6], True),
        ([5, 4, 3], [9, 8, 7], 10, [0, 0.1, 0.2], False),
        ([0, 0, 0], [0, 0, 0], 10, [0, 0.1, 0.2], False),
        ([GAP, GAP], [GAP, GAP], 0, [0, 0], False),
        ([7], [GAP], 25, [0], True),
    ],
)
def test_timeline(
    presentation: list[float], decoding: list[float], rate: float, expected: list[float], stated: bool
) -> None:
    times, used = frame_times(np.array([presentation, decoding], float).T, rate)
    np.testing.assert_allclose(times, expected, atol=1e-12)
    assert used is stated


# -- Real files


@pytest.mark.slow
def test_odd_files_of_three_projects(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = (shared_data / "nasty" / "report.txt").read_text().splitlines()
    assert len(lines) == 58
    for line in lines:
        report = dict(field.split("=", 1) for field in line.split(" | "))
        path = shared_data / "nasty" / report["file"]
        if "n" not in report:
            with pytest.raises(DecodeError) as caught:
                decode(path)
            assert "\n" not in str(caught.value)
            continue
        one, two = decode(path, size=(48, 64)), decode(path, size=(48, 64), hold_bytes=1)
        assert one.info == two.info == probe(path) and torch.equal(one.frames, two.frames), path
        several = (one.info.problem or "").startswith("of 2 video streams")
        # The report's tool took the first stream, and stopped at the first packet that cannot be decoded.
        other = {"corrupted.mp4": 49, "nasa_13013.mp4": 390}
        count = other.get(path.name, int(report["n"]))
        assert len(one.frames) == one.info.frames == count, path
        assert one.info.rotation == -int(report["rot"]) % 360, path
        assert one.info.header_frames == (390 if several else int(report["hdr"])), path
        assert several is (path.name == "nasa_13013.mp4"), path
        assert bool(one.info.problem) == ("err" in report or "weird_aspect" in path.name or several), one.info
        assert (np.diff(one.timestamps) >= 0).all() and len(one.timestamps) == one.info.frames, path
    assert capfd.readouterr() == ("", "")


def test_odd_files_frame_by_frame(shared_data: Path) -> None:
    """Where nothing is turned or stretched, pixels are those of the plainest loop."""
    for path in sorted((shared_data / "nasty").glob("*/*")):
        try:
            video = decode(path, lambda timestamps: np.arange(min(len(timestamps), 8)))
        except DecodeError:
            continue
        if video.info.rotation == 0 and video.info.pixel_aspect == 1:
            expected = plain_loop(path, stop=8)[0]
            np.testing.assert_array_equal(channels_last(video.frames), expected, err_msg=str(path))


def test_turned_phone_recordings(shared_data: Path) -> None:
    """Four recordings of one keyboard (not the same picture), each held another way."""
    for degrees in (0, 90, 180, 270):
        path = shared_data / f"nasty/decord/video_{degrees}.mov"
        video = decode(path)
        assert video.info.rotation == degrees and video.info.problem is None
        turned = np.rot90(plain_loop(path)[0], -degrees // 90, axes=(1, 2))
        np.testing.assert_array_equal(channels_last(video.frames), turned)


@pytest.mark.parametrize(
    "name", ["bt601_full_range.mp4", "bt601_limited_range.mp4", "bt709_full_range.mp4", "transparent.gif"]
)
def test_colours_of_ffmpeg_filters(shared_data: Path, name: str) -> None:
    path = shared_data / "nasty" / "torchcodec" / name
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    graph = Graph()
    rgb = frame.format.is_rgb
    tags = f"colorspace={0 if rgb else int(frame.colorspace)}:range={2 if rgb else int(frame.color_range)}"
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/25"
    filters = [("buffer", f"{size}:{tags}"), ("scale", "flags=bilinear"), ("format", "rgb24")]
    nodes = [graph.add(*each) for each in filters] + [graph.add("buffersink")]
    for left, right in itertools.pairwise(nodes):
        left.link_to(right)
    graph.configure()
    graph.push(frame)
    got = decode(path, lambda timestamps: np.array([0])).frames[0]
    np.testing.assert_array_equal(channels_last(got), graph.pull().to_ndarray())


def test_interaction_clips_are_counted_and_in_order(shared_data: Path) -> None:
    """MPEG-4 in AVI, with B-frames and wrong header counts: UCF101's kind of file."""
    folder = shared_data / "ut_interaction"
    with (folder / "clips.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 120
    wrong_headers = 0
    for number, row in enumerate(rows):
        info = probe(folder / row["path"])
        assert [info.frames, info.height, info.width] == [int(row[k]) for k in ("frames", "height", "width")]
        assert info.problem is None and not info.variable_rate
        assert info.fps == pytest.approx(30, rel=0.02)  # ten leave one frame out
        wrong_headers += info.header_frames != info.frames
        if number % 12 == 0:
            video, (reference, _) = decode(info.path), plain_loop(info.path)
            np.testing.assert_array_equal(channels_last(video.frames), reference)
    assert wrong_headers == 119


def test_single_clips(shared_data: Path) -> None:
    paths = sorted((shared_data / "clips").iterdir())
    assert len(paths) == 12
    for path in paths:
        info = probe(path)
        assert info.problem is None and not info.variable_rate and info.frames > 100, info
    ucf = decode(shared_data / "clips" / "ucf101_v_ApplyEyeMakeup_g01_c01.avi")
    assert ucf.info.frames == 164 and ucf.info.fps == pytest.approx(25)
    np.testing.assert_array_equal(channels_last(ucf.frames), plain_loop(ucf.info.path)[0])
