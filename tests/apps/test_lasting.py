"""Sources that drop out and come back: cameras over RTSP, files at addresses, and a line that is never there."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import odd_videos
import pytest
import torch
from rtsp import RATE, Camera, camera, coded

from peakzoom.apps.watch import lasting, source
from peakzoom.apps.watch.lasting import Lasting
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break, Ended, Record, ScoredWindow, SourceProblem, Started
from peakzoom.apps.watch.source import Source, SourceItem, TimedFrame, open_here
from peakzoom.apps.watch.watch import watch, watch_all
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import DecodeError
from peakzoom.video import packets
from peakzoom.video.decode import decode
from peakzoom.video.views import Preprocess

SIZE = (24, 32)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is away is asked for again soon."""
    monkeypatch.setattr(lasting, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(lasting, "LONGEST_WAIT", 0.05)


def lasting_source(address: str, patience: float, over: threading.Event | None = None) -> Lasting:
    over = over or threading.Event()
    return Lasting(address, lambda height, width: SIZE, patience, over.is_set)


@pytest.fixture(scope="module")
def network() -> Recognizer:
    torch.manual_seed(0)
    pre = Preprocess(size=32, frames=8, canvas=(32, 32))
    model = PeakZoom("tcnn_xs", 2, width=0.25, preprocess=pre.to_dict(), classes=["wave", "kick"])
    return Recognizer.of(model.eval(), "cpu")


def of(kind: type, records: list[Record]) -> list:
    return [record for record in records if isinstance(record, kind)]


# Cameras ---------------------------------------------------------------------------------------------------------


def test_a_camera_that_is_killed_and_restarted() -> None:
    """All frames that were sent come once, in order; between the two lives is one break, as long as it was."""
    frames = coded(30)
    first, port, again = Camera(frames), 0, []
    port = first.port
    opened = lasting_source(first.address, patience=30).open()
    found: list[SourceItem] = []
    when: dict[int, float] = {}
    for item in opened.items:
        found.append(item)
        if isinstance(item, TimedFrame):
            when[len(found) - 1] = time.monotonic()
            opened.convert(item.frame)
        elif isinstance(item, SourceProblem) and item.away and not again:
            first.stop()
            time.sleep(0.4)
            again.append(Camera(frames, port))
        elif isinstance(item, SourceProblem) and item.away:
            break
    again[0].stop()
    opened.close()
    assert [type(item) for item in found] == [
        *[TimedFrame] * 30,
        SourceProblem,
        Break,
        *[TimedFrame] * 30,
        SourceProblem,
    ]
    times = [item.time for item in found if isinstance(item, TimedFrame)]
    assert times[:30] == pytest.approx([number / RATE for number in range(30)])
    assert np.diff(times[30:]) == pytest.approx(1 / RATE)
    gap = found[31]
    assert isinstance(gap, Break) and gap.time == times[30]
    assert (
        times[30] - times[29] == pytest.approx(when[32] - when[29], abs=0.1) and times[30] - times[29] >= 0.4
    )


def test_windows_and_events_of_a_camera_that_comes_back(network: Recognizer) -> None:
    with camera(coded(60)) as made:
        options = WatchOptions(reconnect=30, lag=1000, threshold=0.0, gap=1000)
        stop, records = threading.Event(), []
        for record in watch(network, made.address, options, stop=stop):
            records.append(record)
            if len(of(Break, records)) == 2:
                stop.set()
    assert len(of(Started, records)) == 1 and of(Started, records)[0].began is not None
    breaks = of(Break, records)
    assert len(breaks) == 2 and all("back after" in each.reason for each in breaks)
    windows = of(ScoredWindow, records)
    for each in breaks:
        assert not [window for window in windows if window.start < each.time - 1e-6 < window.end - 1e-6]
    between = [window for window in windows if breaks[0].time <= window.start < breaks[1].time - 1e-6]
    before = [window for window in windows if window.start < breaks[0].time - 1e-6]
    assert len(between) == len(before) > 10  # the same frames
    for one, other in zip(before, between, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.start == pytest.approx(other.start - breaks[0].time)
    assert isinstance(records[-1], Ended) and records[-1].stopped


def test_a_camera_that_is_not_there_yet(network: Recognizer) -> None:
    """It is waited for, that is said once, and Ctrl-C ends the waiting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    frames, made = coded(60), []
    stop, records = threading.Event(), []
    for record in watch(
        network, f"rtsp://127.0.0.1:{port}/1", WatchOptions(reconnect=30, lag=1000), stop=stop
    ):
        records.append(record)
        if not made:
            assert isinstance(record, SourceProblem) and record.away and "Connection refused" in record.reason
            time.sleep(0.3)
            made.append(Camera(frames, port))
        elif isinstance(record, SourceProblem):
            made[0].stop()
            stop.set()
    assert [type(record) for record in records[:2]] == [SourceProblem, Started]
    assert len(of(ScoredWindow, records)) > 10 and isinstance(records[-1], Ended)

    stop.clear()
    records = []
    for record in watch(network, f"rtsp://127.0.0.1:{port}/1", WatchOptions(reconnect=1000), stop=stop):
        records.append(record)
        stop.set()
    assert [type(record) for record in records] == [SourceProblem, Ended]


def test_patience_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DecodeError, match="Connection refused"):
        lasting_source(f"rtsp://127.0.0.1:{port}/1", patience=0.2).open()
    made = Camera(coded(5))
    items = []
    opened = lasting_source(made.address, patience=0.3).open()
    for item in opened.items:
        items.append(item)
        if isinstance(item, SourceProblem) and item.away:
            made.stop()
    assert [type(item) for item in items[5:]] == [SourceProblem] * 2
    assert items[-1].reason.startswith("given up after 0.3 s") and not items[-1].away
    opened.close()


def test_a_camera_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays and nothing comes."""
    monkeypatch.setattr(source, "SILENCE", 0.3)
    with camera(coded(10), silent=True) as made:
        opened = lasting_source(made.address, patience=30).open()
        items = list(itertools.islice(opened.items, 22))
        opened.close()
    away = [item for item in items if isinstance(item, SourceProblem) and item.away]
    assert len(away) == 1 and any(
        "nothing came for 0.3 seconds" in getattr(item, "reason", "") for item in items
    )
    times = [item.time for item in items if isinstance(item, TimedFrame)]
    assert len(times) >= 18 and times[10] - times[9] >= 0.3


def test_a_camera_that_sends_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets come and never a frame of them."""
    monkeypatch.setattr(packets, "STALLED", 0.2)
    sound = coded(8)
    noise = [
        [bytes([unit[0]]) + b"\x55" * 40 for unit in units if unit[0] & 31 in (1, 5)] for units in coded(400)
    ]
    with camera([*sound, *noise]) as made:
        opened = lasting_source(made.address, patience=30).open()
        items = []
        for item in opened.items:
            items.append(item)
            if isinstance(item, Break):
                break
        opened.close()
    frames = [item for item in items if isinstance(item, TimedFrame)]
    assert 1 <= len(frames) <= 8 + 2
    reasons = [item.reason for item in items if isinstance(item, SourceProblem)]
    assert any("in a row failed" in reason or "gave no frame" in reason for reason in reasons)


def test_one_that_is_away_holds_up_no_other(network: Recognizer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path = odd_videos.write(tmp_path / "v.mp4", "libx264", 100)
    sources = [f"rtsp://127.0.0.1:{port}/1", path, tmp_path / "gone.mp4", path]
    stop: threading.Event = threading.Event()
    found: list[list[Record]] = [[] for _ in sources]
    for place, record in watch_all(network, sources, WatchOptions(reconnect=1000), stop=stop):
        found[place].append(record)
        if of(Ended, found[1]) and of(Ended, found[2]) and of(Ended, found[3]):
            stop.set()
    alone = list(watch(network, path))
    for each in (found[1], found[3]):
        assert [type(record) for record in each] == [type(record) for record in alone]
        for one, other in zip(of(ScoredWindow, each), of(ScoredWindow, alone), strict=True):
            np.testing.assert_array_equal(one.scores, other.scores)
    assert [type(record) for record in found[0]] == [SourceProblem, Ended] and found[0][1].stopped
    assert [type(record) for record in found[2]] == [SourceProblem, Ended] and found[2][0].lost


def test_turns_are_fair(network: Recognizer, tmp_path: Path) -> None:
    """While two sources have windows, neither gets two turns more than the other."""
    one = odd_videos.write(tmp_path / "one.mp4", "libx264", 200)
    two = odd_videos.write(tmp_path / "two.mp4", "libx264", 80)
    turns = []
    for place, record in watch_all(network, [one, two], WatchOptions(every=0.2)):
        if isinstance(record, ScoredWindow):
            turns.append(place)
            time.sleep(0.03)  # so that both have windows that wait
    both = turns[turns.index(1) : len(turns) - 1 - turns[::-1].index(1)]
    counts = np.cumsum([1 if place else -1 for place in both])
    assert set(turns) == {0, 1} and np.ptp(counts) <= 4


# Addresses of files ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dropping(path: Path, cuts: list[int]) -> Iterator[tuple[str, list[str]]]:
    """A server of one file that breaks off its answers after so many bytes, each in turn, and then never again.

    Gives its address, and the bytes that it is asked for.
    """
    data, asked = path.read_bytes(), []
    cuts = list(cuts)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0] or 0)
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            body = data[start:]
            cut = cuts.pop(0) if cuts else len(body)
            with contextlib.suppress(OSError):
                self.wfile.write(body[:cut])
                self.wfile.flush()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}", asked
        server.shutdown()


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_file_whose_connection_breaks_off(tmp_path: Path, suffix: str) -> None:
    """Its next byte is asked for again, so the frames are those of the whole file; without --reconnect it ends."""
    path = odd_videos.write(
        tmp_path / f"v{suffix}", "mpeg4", 400, options={"g": "5", "b": "4000000"}, size=(240, 320)
    )
    whole = decode(path, None, SIZE)
    cut = path.stat().st_size // 2

    def frames(opened: Source) -> tuple[torch.Tensor, list[SourceItem]]:
        pixels, rest = [], []
        for item in opened.items:
            if isinstance(item, TimedFrame):
                pixels.append(opened.convert(item.frame))
            else:
                rest.append(item)
        opened.close()
        return torch.stack(pixels).permute(0, 3, 1, 2), rest

    with dropping(path, [cut]) as (address, asked):
        pixels, rest = frames(open_here(address, lambda height, width: SIZE, patience=30.0))
        assert torch.equal(pixels, whole.frames) and rest == []
        assert len(asked) >= 2
    if suffix == ".mkv":  # of which FFmpeg has not read all ahead
        with dropping(path, [cut]) as (address, _):
            assert len(frames(open_here(address, lambda height, width: SIZE))[0]) < 400


# Clocks ------------------------------------------------------------------------------------------------------------


def test_timestamps_that_start_anew_after_a_day(tmp_path: Path) -> None:
    """MPEG's clock has 33 bits and starts anew after 26.5 hours; frames go on as if it did not."""
    path = tmp_path / "v.ts"
    wraps = 2**33 / 90_000
    odd_videos.write(path, "mpeg2video", 100, muxer={"output_ts_offset": str(wraps - 2)})
    opened = open_here(path, lambda height, width: SIZE)
    items = list(opened.items)
    opened.close()
    assert [type(item) for item in items] == [TimedFrame] * 100
    assert np.diff([item.time for item in items]) == pytest.approx(1 / 25, abs=1e-4)
