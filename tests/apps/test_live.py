"""Sources: the same frames and times as a whole decode gives, pipes and addresses, and what is no source."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from peakzoom.apps.watch import source as live
from peakzoom.apps.watch.records import Break, SourceProblem
from peakzoom.apps.watch.source import Source, SourceItem, TimedFrame, open_here
from peakzoom.apps.watch.timeline import Timeline, choose_clock
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.decode import decode
from peakzoom.video.scan import frame_times, probe

SIZE = (24, 32)


def opened(source: str | Path) -> Source:
    """In this process, frames of 24 x 32 pixels."""
    return open_here(source, lambda height, width: SIZE)


def read(source: str | Path) -> tuple[list[float], torch.Tensor, list[SourceItem]]:
    """Times, pixels uint8 (n, 3, 24, 32), and all that is no frame."""
    found = opened(source)
    times, pixels, rest = [], [], []
    for item in found.items:
        if isinstance(item, TimedFrame):
            times.append(item.time)
            pixels.append(found.convert(item.frame))
        else:
            rest.append(item)
    return times, torch.stack(pixels).permute(0, 3, 1, 2), rest


def write(path: Path, milliseconds: list[int], first: int = 0) -> Path:
    """Grey frames, each brighter than the one before, shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if path.suffix == ".ts" else "ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, shown in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(
                np.full((72, 64), first + 3 * number, np.uint8), format="yuv420p"
            )
            frame.pts, frame.time_base = shown, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# Files -----------------------------------------------------------------------------------------------------------


def test_files_are_what_a_whole_decode_gives(shared_data: Path) -> None:
    """Odd files and the two of UCF101, in which B-frames make presentation times run backwards."""
    files = sorted(
        path
        for path in [*(shared_data / "nasty").rglob("*"), *(shared_data / "clips").glob("ucf101*")]
        if path.is_file() and path.stat().st_size < 340_000
    )
    equal = refused = 0
    for path in files:
        try:
            whole = decode(path, None, SIZE)
        except DecodeError as error:
            with pytest.raises(DecodeError, match=f"{re.escape(str(error))}$"):
                opened(path)
            refused += 1
            continue
        times, pixels, rest = read(path)
        np.testing.assert_array_equal(times, whole.timestamps, err_msg=str(path))
        assert torch.equal(pixels, whole.frames), path
        assert "; ".join(item.reason for item in rest) == (whole.info.problem or ""), path
        equal += 1
    assert equal > 35 and refused == 3


def test_what_a_source_says_of_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a b:c%03d.mkv", [0, 40, 80])
    source, info = opened(path), probe(path)
    assert (source.name, source.live, source.rate) == (str(path), False, 25.0)
    assert (source.height, source.width) == (info.height, info.width) == (48, 64)
    source.close()


@pytest.mark.parametrize("suffix", [".mkv", ".h264"])
def test_streams_without_timestamps(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mkv":
        path = write(tmp_path / "v.mkv", [40] * 5)  # they do not advance
    else:
        path = tmp_path / "v.h264"
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "3"})
            assert isinstance(stream, VideoStream)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), format="yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    times, _, rest = read(path)
    whole = decode(path)
    np.testing.assert_allclose(times, whole.timestamps, atol=1e-12)
    assert whole.info.problem is not None and len(rest) == 1
    assert isinstance(rest[0], SourceProblem) and "25 fps assumed" in rest[0].reason and not rest[0].lost


def test_a_gap_and_a_jump_back_are_breaks(tmp_path: Path) -> None:
    times, _, rest = read(write(tmp_path / "gap.mkv", [0, 40, 80, 6080, 6120]))
    assert times == pytest.approx([0, 0.04, 0.08, 6.08, 6.12])
    assert [(type(item), round(item.time, 6)) for item in rest] == [(Break, 6.08)]
    assert "no frame for 6.000 s" in rest[0].reason

    one = write(tmp_path / "one.ts", [40 * k for k in range(30)])
    two = write(tmp_path / "two.ts", [40 * k for k in range(20)], first=100)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    times, pixels, rest = read(both)
    assert len(times) == 50 and times == pytest.approx([0.04 * k for k in range(50)], abs=1e-4)
    breaks = [item for item in rest if isinstance(item, Break)]
    assert len(breaks) == 1 and "jump back by 1.1" in breaks[0].reason
    assert times.index(breaks[0].time) == 30  # where the second file's first frame is
    brightness = pixels.float().mean((1, 2, 3))
    assert brightness[30] > brightness[29] + 8


# Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stamps",
    [
        [(0, 0), (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)],
        [(7, 6), (7.1, 6.1), (7.1, 6.2), (7.9, 6.3)],
        [(1, 1), (4, 2), (6, 3), (5, 4), (7, 5)],  # B-frames in AVI: the decoding times are in order
        [(None, 0.5), (None, 0.6), (None, 0.7)],
        [(0, None), (0.1, None), (None, None), (None, None)],
        [(None, None), (None, None), (None, None)],
        [(3, 3)],
    ],
)
def test_times_are_those_of_a_whole_decode(stamps: list[tuple[float | None, float | None]]) -> None:
    timeline = Timeline(10.0, choose_clock(stamps))
    placed = [timeline.place(each) for each in stamps]
    wanted, _ = frame_times(np.array(stamps, float), 10.0)
    np.testing.assert_allclose([time for time, _ in placed], wanted, atol=1e-12)


def test_frames_without_a_time_never_pass_the_next_one() -> None:
    timeline = Timeline(10.0)
    stamps = [0.0, None, None, 0.15, 0.3, None, 0.5]
    assert [timeline.place((each, None)) for each in stamps] == [
        (pytest.approx(time), None) for time in (0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5)
    ]


@pytest.mark.parametrize(
    "rate,stamps,times,said",
    [
        (10, [50, 50.1, 20, 20.1], [0, 0.1, 0.2, 0.3], {2: "jump back by 30.1"}),
        (10, [0, 0.1, 1.05], [0, 0.1, 1.05], {}),
        (10, [0, 0.1, 1.2], [0, 0.1, 1.2], {2: "no frame for 1.1"}),
        (0.2, [0, 5, 40, 95], [0, 5, 40, 95], {3: "no frame for 55"}),  # slides come slowly
        (10, [0, 0.1, 2e6, 2e6 + 0.1], [0, 0.1, 0.2, 0.3], {2: "jump ahead"}),
        (0, [0, 0.1, -5, -4.9], [0, 0.1, 0.1, 0.2], {2: "jump back"}),
    ],
)
def test_breaks(rate: float, stamps: list[float], times: list[float], said: dict[int, str]) -> None:
    timeline = Timeline(rate)
    placed = [timeline.place((each, each)) for each in stamps]
    assert [time for time, _ in placed] == pytest.approx(times)
    for number, (_, reason) in enumerate(placed):
        assert said[number] in (reason or "") if number in said else reason is None


# Pipes and addresses ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """Bytes on file descriptor 0, through a pipe."""
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(data)

    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address at which the files of ``tmp_path`` are."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_standard_input(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv", [0, 30, 100, 140, 200])
    times, pixels, rest = read(path)
    with standard_input(path.read_bytes()):
        piped = read("-")
    assert piped[0] == times and torch.equal(piped[1], pixels) and piped[2] == rest == []
    for inside in (f"file://{path}", path):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{inside}\n#EXT-X-ENDLIST\n"
        with standard_input(playlist.encode()), pytest.raises(DecodeError):
            opened("-")
    with standard_input(b""), pytest.raises(DecodeError, match="-: cannot be opened"):
        opened("-")


def test_addresses(tmp_path: Path, served: str) -> None:
    path = write(tmp_path / "v.mkv", [0, 30, 100, 140, 200])
    times, pixels, _ = read(path)
    fetched = read(f"{served}/v.mkv")
    assert fetched[0] == times and torch.equal(fetched[1], pixels)
    with pytest.raises(DecodeError, match="Not Found"):
        opened(f"{served}/gone.mkv")


def test_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "v.ts", [40 * k for k in range(40)])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(path.read_bytes())

        thread = threading.Thread(target=send)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        source = opened(address)
        assert source.live
        shown = [item.time for item in source.items if isinstance(item, TimedFrame)]
        thread.join()
    assert shown == pytest.approx([0.04 * k for k in range(40)], abs=1e-4)


def test_no_list_leads_to_a_file(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A playlist may lead to other addresses, never to what is on this machine; a file leads nowhere."""
    path = write(tmp_path / "v.ts", [40 * k for k in range(40)])
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n"
    (tmp_path / "good.m3u8").write_text(f"{head}v.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "bad.m3u8").write_text(f"{head}file://{path}\n#EXT-X-ENDLIST\n")
    assert len(read(f"{served}/good.m3u8")[0]) == 40
    for source in (f"{served}/bad.m3u8", tmp_path / "good.m3u8", tmp_path / "bad.m3u8"):
        with pytest.raises(DecodeError):
            opened(source)
    monkeypatch.setattr(live, "NETWORK", f"{live.NETWORK},file")  # the list itself was sound
    assert len(read(f"{served}/bad.m3u8")[0]) == 40


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    "source,said",
    [
        ("{tmp}/gone.mp4", "no such file"),
        ("{tmp}", "is a folder"),
        ("rtsp://ann:s3cret@127.0.0.1:{port}/1", "cannot be opened: Connection refused"),
        ("http://127.0.0.1:{port}/a.mp4", "cannot be opened: Connection refused"),
        ("file:///etc/passwd", "expected one of http, https, rtsp"),
        ("lavfi://testsrc", "expected one of http, https, rtsp"),
        ("lavfi:testsrc", "no such file"),
        ("concat:a.ts|b.ts", "no such file"),
        ("camera:", "expected for instance camera:0"),
        ("camera:77", "cannot be opened"),
        ("/dev/null", "cannot be opened"),
    ],
)
def test_no_source_is_one_sentence(tmp_path: Path, source: str, said: str) -> None:
    source = source.format(tmp=tmp_path, port=closed_port())
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        opened(source)
    text = str(caught.value)
    assert "\n" not in text and "s3cret" not in text and "ann" not in text.replace("cannot", "")


def test_a_silent_stream_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE", 0.2)
    said = pytest.raises(DecodeError, match=r"nothing came for 0\.2 seconds")
    with socket.create_server(("127.0.0.1", 0)) as server, said:
        opened(f"tcp://127.0.0.1:{server.getsockname()[1]}")


# Devices: what FFmpeg is asked for; there is no camera here ---------------------------------------------------------


@pytest.mark.parametrize(
    "platform,asked",
    [
        ("linux", ("/dev/video0", "v4l2")),
        ("darwin", ("0:none", "avfoundation")),
        ("win32", ("video=0", "dshow")),
    ],
)
def test_cameras_by_number(monkeypatch: pytest.MonkeyPatch, platform: str, asked: tuple[str, str]) -> None:
    monkeypatch.setattr(live.sys, "platform", platform)
    assert live._camera("camera:0") == asked


def test_a_camera_without_a_new_frame_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a camera: a file whose reader says "not yet" before every third packet."""
    path = write(tmp_path / "v.mkv", [40 * k for k in range(12)])
    asked = 0

    class Camera:
        def __init__(self, container: av.container.InputContainer) -> None:
            self.inner, self.format = container, container.format
            self.packets = container.demux(video=0)

        def demux(self, stream: VideoStream) -> Iterator[av.Packet]:
            nonlocal asked
            for packet in self.packets:
                asked += 1
                yield packet
                if asked % 3 == 0:
                    raise av.BlockingIOError(11, "not yet")

    decoded: Callable = live._decoded
    monkeypatch.setattr(
        live,
        "_decoded",
        lambda container, stream, losses, _, number: decoded(Camera(container), stream, losses, True, number),
    )
    times, _, rest = read(path)
    assert times == pytest.approx([0.04 * k for k in range(12)]) and rest == [] and asked > 12
