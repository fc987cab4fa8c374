"""Watching: scores of windows against the same frames cut out, what is dropped and when, and what is written."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from peakzoom.apps.watch import reader as reading
from peakzoom.apps.watch.events import Event, Merger, clock_time
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.reader import Backlog, Pending, drop_late
from peakzoom.apps.watch.records import (
    Break,
    Dropped,
    Ended,
    Record,
    ScoredWindow,
    SourceProblem,
    Started,
    to_line,
)
from peakzoom.apps.watch.source import TimedFrame
from peakzoom.apps.watch.watch import watch
from peakzoom.apps.watch.windows import Clip
from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import clip_indices, clip_span, resample
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess, crop_offsets, to_input


def small(**fields: object) -> Recognizer:
    """An untrained network for clips of 32 x 32 pixels."""
    torch.manual_seed(0)
    pre = Preprocess(**{"size": 32, "frames": 8, "canvas": (32, 32), **fields})  # type: ignore[arg-type]
    model = PeakZoom("tcnn_xs", 3, width=0.25, preprocess=pre.to_dict(), classes=["wave", "kick", "nod"])
    return Recognizer.of(model.eval(), "cpu")


def of(kind: type, records: list[Record]) -> list:
    return [each for each in records if isinstance(each, kind)]


# Scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("fps", [None, 5.0])
def test_one_window_is_one_clip_of_predict(
    tmp_path: Path, make_clip: Callable[..., Path], fps: float | None, stride: int, crops: int
) -> None:
    """To the last digit; and so does a video that is shorter, down to one frame."""
    recognizer = small(fps=fps, stride=stride, zoom_source=2)
    span = clip_span(8, stride)
    whole = span if fps is None else 2 * span  # clips are rendered at 10 frames a second
    for frames in (whole, whole - 3, 1):
        path = make_clip(tmp_path / f"{frames}.mp4", frames=frames, fps=10)
        wanted = recognizer.predict(path, Views(clips=1, crops=crops)).scores["fused"]
        records = list(watch(recognizer, path, WatchOptions(crops=crops)))
        (window,) = of(ScoredWindow, records)
        np.testing.assert_array_equal(window.scores, wanted)
        assert window.start == 0 and window.end == pytest.approx(frames / 10, abs=0.11)
        assert (window.covered == span) == (frames == whole)
        assert window.behind is None


@pytest.mark.parametrize(
    "name,fps,stride",
    [
        ("ucf101_v_BaseballPitch_g01_c01.avi", None, 3),
        ("ucf101_v_BaseballPitch_g01_c01.avi", 7.5, 1),
        pytest.param("decord_kinetics_flipping_a_pancake.mkv", 7.5, 1, marks=pytest.mark.slow),
        pytest.param("mmskeleton_ta_chi.mp4", 7.5, 3, marks=pytest.mark.slow),
    ],
)
def test_windows_of_real_clips(shared_data: Path, name: str, fps: float | None, stride: int) -> None:
    """Against the frames cut out of a whole decode, and the network itself."""
    recognizer = small(fps=fps, stride=stride)
    path = shared_data / "clips" / name
    records = list(watch(recognizer, path, WatchOptions(crops=2, seconds=6)))
    found = of(ScoredWindow, records)
    video = decode(path, None, recognizer.preprocess.test_size)
    times = video.timestamps[video.timestamps < 6]
    base = np.arange(len(times)) if fps is None else resample(times, fps)
    span = clip_span(8, stride)
    starts = list(range(0, len(base) - span + 1, span // 2))
    if starts[-1] + span < len(base):
        starts.append(len(base) - span)
    assert len(found) == len(starts) >= 2
    views = []
    for start in starts:
        frames = video.take(base[clip_indices(start, len(base), 8, stride)])
        corners = crop_offsets(frames.shape[2], frames.shape[3], 32, 2)
        views.append(torch.stack([frames[:, :, y : y + 32, x : x + 32] for y, x in corners]))
    for window, crops in zip(found, views, strict=True):
        alone = recognizer.engine(crops)["fused"].softmax(1).double().mean(0)
        np.testing.assert_array_equal(window.scores, (alone / alone.sum()).numpy())
    with torch.no_grad():
        logits = recognizer.model(to_input(torch.cat(views), recognizer.preprocess)[0]).logits()["fused"]
    direct = logits.double().softmax(1).unflatten(0, (len(starts), 2)).mean(1)
    np.testing.assert_allclose([window.scores for window in found], direct.numpy(), atol=1e-6)
    assert [window.start for window in found] == pytest.approx(
        [times[s] if fps is None else s / fps for s in starts], abs=1e-9
    )


def test_records_say_what_happened(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    recognizer = small()
    path = make_clip(tmp_path / "a.mp4", frames=42, fps=10)
    records = list(watch(recognizer, path, WatchOptions(threshold=0.0)))
    started, ended, windows = records[0], records[-1], of(ScoredWindow, records)
    assert isinstance(started, Started) and isinstance(ended, Ended)
    assert (started.window, started.every, started.live) == (0.8, 0.4, False)
    assert [window.start for window in windows] == pytest.approx([*np.arange(0, 3.4, 0.4), 3.4])
    assert windows[-1].end == pytest.approx(4.2) and ended.seconds == windows[-1].end
    assert (ended.windows, ended.dropped, ended.stopped) == (len(windows), 0, False)
    merger = Merger()
    events = [
        event
        for window in windows
        for event in merger.add(window.start, window.end, window.name, window.scores.max())
    ]
    assert of(Event, records) == events + list(merger.end()) and ended.events == len(of(Event, records)) > 0
    for window in windows:
        assert window.name == recognizer.classes[int(window.scores.argmax())] == window.top(3)[0][0]
    # A class that is ignored is no event, and the second best does not take its place.
    best = windows[0].name
    assert best is not None
    silent = list(watch(recognizer, path, WatchOptions(threshold=0.0, ignore=[best])))
    assert [each.name for each in of(ScoredWindow, silent)] == [
        None if each.name == best else each.name for each in windows
    ]
    assert best not in {event.name for event in of(Event, silent)}
    highest = max(window.scores.max() for window in windows)
    assert not of(Event, list(watch(recognizer, path, WatchOptions(threshold=np.nextafter(highest, 1)))))
    assert len(of(Event, list(watch(recognizer, path, WatchOptions(threshold=highest))))) == 1


@pytest.mark.parametrize(
    "values,said",
    [
        ({"every": 0.0}, "every is 0"),
        ({"every": float("nan")}, "every is nan"),
        ({"crops": 0}, "crops is 0"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"gap": -1.0}, "gap is -1"),
        ({"gap": float("nan")}, "gap is nan"),
        ({"gap": float("inf")}, "gap is inf"),
        ({"lag": -1.0}, "lag is -1"),
        ({"seconds": 0.0}, "seconds is 0"),
        ({"ignore": ["wave", "nothing"]}, "'nothing' is to be ignored .* some of wave, kick, nod"),
    ],
)
def test_arguments_that_are_none(values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        watch(small(), "/nowhere.mp4", WatchOptions(**values))


# Live ------------------------------------------------------------------------------------------------------------


@dataclass
class Camera:
    """Stands in for a source: frame n, grey n, is shown at n / 10 seconds and comes when ``gate`` lets it."""

    count: int
    live: bool = True
    gate: Callable[[int], None] = lambda number: None
    between: dict[int, Break | SourceProblem | Exception] = field(default_factory=dict)
    name: str = "camera"
    rate: float = 10.0
    height: int = 32
    width: int = 32

    @property
    def items(self) -> Iterator[TimedFrame | Break | SourceProblem]:
        for number in range(self.count):
            self.gate(number)
            other = self.between.get(number)
            if isinstance(other, Exception):
                raise other
            if other is not None:
                yield other
            yield TimedFrame(number / 10, number)  # type: ignore[arg-type]
        self.gate(self.count)

    def convert(self, frame: object) -> Tensor:
        assert isinstance(frame, int)
        return torch.full((32, 32, 3), frame % 256, dtype=torch.uint8)

    def close(self) -> None:
        pass


@dataclass
class Engine:
    """Says "wave" of everything; ``work`` is done for each window, which is told by its first frame."""

    work: Callable[[int], None] = lambda first: None
    name: str = "fake"
    classes: list[str] = field(default_factory=lambda: ["wave", "kick"])
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=32, frames=8, canvas=(32, 32)))
    thresholds: tuple[float, ...] | None = None

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        self.work(int(views[0, 0, 0, 0, 0]))
        return {"fused": torch.tensor([[3.0, 0.0]]).repeat(len(views), 1)}


class Simulation:
    """Two threads in lockstep on one clock: while a window is scored exactly the frames due meanwhile arrive."""

    def __init__(self, count: int, service: float) -> None:
        self.now, self.service = 0.0, service
        self.released, self.asked = 9, 0  # the first window, and the frame that completes it
        self.closed = False
        self.changed = threading.Condition()
        self.camera = Camera(count, gate=self.gate)
        self.camera.close = self.close  # type: ignore[method-assign]  # once everything is put
        self.engine = Engine(self.work)

    def gate(self, number: int) -> None:
        with self.changed:
            self.asked = number
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: number < self.released, timeout=60)
            if number < self.camera.count:
                self.now = number / 10

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def work(self, first: int) -> None:
        with self.changed:
            done = self.now + self.service
            self.released = max(int(done * 10 + 1e-6) + 1, self.released)
            last = self.released >= self.camera.count
            self.released += last  # lets the source end
            self.changed.notify_all()
            assert self.changed.wait_for(
                lambda: self.closed if last else self.asked >= self.released, timeout=60
            )
            self.now = done


@pytest.mark.parametrize("service", [0.45, 0.8, 1.3, 3.7])
@pytest.mark.parametrize("lag", [0.0, 0.5, 2.0, 1000.0])
def test_what_cannot_be_kept_up_with_is_dropped(service: float, lag: float) -> None:
    """Against a plain list: windows of 8 frames every 4, at 10 frames a second, scored too slowly."""
    simulation = Simulation(200, service)
    records = list(
        watch(
            Recognizer(simulation.engine),
            simulation.camera,
            WatchOptions(lag=lag),
            clock=lambda: simulation.now,
        )
    )
    starts = [4 * k for k in range(49)]  # the last one ends at frame 200
    comes = {start: (start + 8) / 10 for start in starts}  # with the next frame
    now, waiting, wanted = 0.8, [], []
    coming = deque(starts)
    gone: list[int] = []
    while coming or waiting:
        while coming and (comes[coming[0]] <= now + 1e-6 or (coming[0] == 192 and now >= 19.9 - 1e-6)):
            waiting.append(coming.popleft())
            if (waiting[-1] - waiting[0]) / 10 > lag + 1e-9:
                gone += waiting[:-1]
                waiting = waiting[-1:]
        if gone:
            wanted.append(("dropped", gone[0], gone[-1] + 8, len(gone)))
            gone = []
        if not waiting:
            break
        start = waiting.pop(0)
        now += service
        wanted.append(("window", start, start + 8, max(now - (start + 8) / 10, 0.0)))
    found = [
        ("window", round(each.start * 10), round(each.end * 10), pytest.approx(each.behind, abs=1e-6))
        if isinstance(each, ScoredWindow)
        else ("dropped", round(each.start * 10), round(each.end * 10), each.windows)
        for each in records
        if isinstance(each, ScoredWindow | Dropped)
    ]
    assert found == wanted
    ended = records[-1]
    assert isinstance(ended, Ended) and ended.windows + ended.dropped == len(starts)
    if lag != 2.0 or service > 1:
        assert (ended.dropped > 0) == (lag < 1000)
    # What is said is never older than the lag, a window's step with one frame, and what scoring takes ...
    for each in of(ScoredWindow, records):
        if each.end + each.behind - service < 19.9:  # ... while there is a newer one to come
            assert each.behind <= lag + 0.5 + service + 1e-6


def timed(start: float) -> Pending:
    return Pending(Clip(start, start + 2.0, (), 0), None)


def test_the_dropping_rule() -> None:
    problem, gap = SourceProblem(0, "p", False), Break(0, "b")
    waiting: deque = deque([timed(0), timed(1), problem, timed(2)])
    drop_late(waiting, 2.0)
    assert list(waiting) == [timed(0), timed(1), problem, timed(2)]
    waiting.append(timed(3))
    drop_late(waiting, 2.0)
    assert list(waiting) == [Dropped(0, 3, 2), problem, Dropped(2, 4, 1), timed(3)]
    waiting += [gap, timed(4), timed(9)]
    drop_late(waiting, 2.0)
    assert list(waiting) == [Dropped(0, 3, 2), problem, Dropped(2, 5, 2), gap, Dropped(4, 6, 1), timed(9)]
    drop_late(waiting, 0.0)
    assert waiting[-1] == timed(9) and len(waiting) == 6


def test_who_keeps_up_drops_nothing_and_is_not_behind() -> None:
    now = [0.0]

    def gate(number: int) -> None:
        now[0] = number / 10

    camera = Camera(100, gate=gate)
    records = list(watch(Recognizer(Engine()), camera, WatchOptions(lag=1000.0), clock=lambda: now[0]))
    assert len(of(ScoredWindow, records)) == 24 and not of(Dropped, records)


def test_a_stored_video_is_read_no_faster_than_scored() -> None:
    read = [0]

    def gate(number: int) -> None:
        read[0] = number

    def work(first: int) -> None:
        scored.append(first)
        # This window, READ_AHEAD that wait, and the one that waits to be put: each 4 frames after the last.
        assert read[0] <= 4 * (len(scored) - 1) + 8 + 4 * (reading.READ_AHEAD + 1) + 1

    scored: list[int] = []
    records = list(watch(Recognizer(Engine(work)), Camera(200, live=False, gate=gate), WatchOptions(lag=0.0)))
    assert scored == [4 * k for k in range(49)] and not of(Dropped, records)
    assert all(window.behind is None for window in of(ScoredWindow, records))


def test_a_file_played_live_keeps_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only sleeping moves: no frame is taken before it is due."""
    now, taken = [50.0], []

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= reading.WAKE
        now[0] += seconds

    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=sleep))
    camera = Camera(60, live=False)
    plain = camera.convert
    camera.convert = lambda frame: taken.append((frame, now[0])) or plain(frame)  # type: ignore
    list(watch(Recognizer(Engine()), camera, WatchOptions(live=True, lag=1000.0), clock=lambda: now[0]))
    # A frame is converted when the next one has come.
    assert [frame for frame, _ in taken] == list(range(60))
    for frame, at in taken:
        assert at == pytest.approx(50 + min(frame + 1, 59) / 10, abs=1e-6)


def test_a_slow_clock_is_no_lag_and_a_burst_is_not_the_beginning() -> None:
    """A camera whose seconds are 0.05 % long, and whose first ten frames come at once."""
    now, zero = [0.0], []

    def comes(number: int) -> float:
        return max(number, 10) / 10 * 1.0005

    def gate(number: int) -> None:
        now[0] = comes(number)

    def add(time: float, frame: object) -> tuple[()]:
        zero.append(reader._zero)
        return ()

    windows = SimpleNamespace(add=add, end=lambda: ())
    reader = reading.Reader(
        lambda tell: Camera(40_000, gate=gate),  # type: ignore[arg-type,return-value]
        lambda source: windows,  # type: ignore[arg-type,return-value]
        Backlog(1.0),
        WatchOptions(),
        lambda: now[0],
    )
    reader._run()
    assert zero[9] == pytest.approx(0.1, abs=0.01)  # ten frames in, time 0 is where it belongs
    late = [comes(number) - number / 10 - zero[number] for number in range(10, 40_000)]
    assert max(late) < 0.01  # it would be two seconds in the end, were it not for CLOCK_DRIFT


def test_nothing_is_joined_over_a_break() -> None:
    gap = Break(3.0, "no frame for 9.000 s")
    records = list(
        watch(Recognizer(Engine()), Camera(50, live=False, between={30: gap}), WatchOptions(gap=100.0))
    )
    windows = of(ScoredWindow, records)
    assert not [window for window in windows if window.start < 2.95 < window.end - 0.05]
    assert [window.end for window in windows if window.start < 2.95][-1] == pytest.approx(3.0)
    at = records.index(gap)
    assert [event.end for event in of(Event, records[:at])] == [pytest.approx(3.0)]
    assert [event.start for event in of(Event, records[at:])] == [pytest.approx(3.0)]


def test_what_goes_wrong_in_the_reader() -> None:
    """A source that is lost ends in order, with what was on; an error of the program is raised."""
    error = DecodeError("camera", "a frame cannot be converted to RGB")
    found = list(watch(Recognizer(Engine()), Camera(50, live=False, between={30: error})))
    windows, (problem, event, ended) = of(ScoredWindow, found), found[-3:]
    assert problem == SourceProblem(windows[-1].end, error.reason, lost=True)
    assert isinstance(event, Event) and event.end == windows[-1].end < 3.0
    assert isinstance(ended, Ended) and (ended.events, ended.stopped) == (1, False)
    with pytest.raises(KeyError, match="a bug"):
        list(watch(Recognizer(Engine()), Camera(50, live=False, between={30: KeyError("a bug")})))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reader"]


def test_stopping() -> None:
    for live in (False, True):
        stop = threading.Event()
        records: list[Record] = []
        threads = torch.get_num_threads()
        for record in watch(Recognizer(Engine()), Camera(10**9, live=live), WatchOptions(lag=1e9), stop=stop):
            records.append(record)
            if len(of(ScoredWindow, records)) == 3:
                stop.set()
        ended = records[-1]
        assert isinstance(ended, Ended) and ended.stopped and ended.windows == 3
        assert isinstance(records[-2], Event) and records[-2].end == ended.seconds
        for thread in readers():
            thread.join(60)
        assert not readers() and torch.get_num_threads() == threads


def test_leaving_half_way_ends_the_reader() -> None:
    records = watch(Recognizer(Engine()), Camera(10**9, live=False))
    assert isinstance(next(records), Started) and isinstance(next(records), ScoredWindow)
    records.close()  # type: ignore[attr-defined]
    for thread in readers():
        thread.join(60)
    assert not readers()


def test_lines_are_plain_data() -> None:
    window = ScoredWindow(0.1 + 0.2, 1.0, ["wave", "kick"], np.array([0.25, 0.75]), "kick", 8, 0.12345)
    line = to_line(window, 1)
    assert line == {
        "type": "window",
        "start": 0.3,
        "end": 1.0,
        "class": "kick",
        "top": [{"class": "kick", "score": 0.75}],
        "frames": 8,
        "behind": 0.123,
    }
    assert to_line(Event(1, 2, "kick", 0.5, 0.75, 3)) == {
        "type": "event",
        "start": 1,
        "end": 2,
        "class": "kick",
        "score": 0.5,
        "peak": 0.75,
        "windows": 3,
    }
    assert to_line(Dropped(1, 2, 3)) == {"type": "dropped", "start": 1, "end": 2, "windows": 3}
    assert to_line(Break(1.5, "why")) == {"type": "break", "time": 1.5, "reason": "why"}
    assert to_line(SourceProblem(1.5, "why", True)) == {
        "type": "problem",
        "time": 1.5,
        "reason": "why",
        "lost": True,
    }
    assert to_line(Ended(2, 1.0004, 3, 4, 5, False))["type"] == "end"


# The command -----------------------------------------------------------------------------------------------------


def as_json(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_on_standard_output(
    by_command: Callable[..., tuple[int, str, str]], run: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=40, fps=10)
    code, out, err = by_command(run, path, "--threshold", 0, "--every", 0.3, "--crops", 3, "--top", 2)
    records = list(watch(load(run, "cpu"), path, WatchOptions(threshold=0.0, every=0.3, crops=3)))
    lines, wanted = as_json(out), [to_line(record, 2) for record in records]
    assert code == 0 and lines[:-1] == json.loads(json.dumps(wanted[:-1]))
    assert lines[-1]["windows"] == len(of(ScoredWindow, records)) and lines[-1]["type"] == "end"
    assert len(err.splitlines()) == 1 and "times real time" in err and " 0 dropped" in err


def test_a_folder_with_all_files(
    by_command: Callable[..., tuple[int, str, str]], run: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = make_clip(tmp_path / "a.mp4", frames=60, fps=10), tmp_path / "deep" / "watched"
    code, said, err = by_command(run, path, "--threshold", 0, "--out", out, "--gap", 0.2)
    assert code == 0 and {file.name for file in out.iterdir()} == {
        "windows.jsonl",
        "windows.jsonl.settings.json",
        "events.csv",
        "chapters.vtt",
    }
    lines = as_json((out / "windows.jsonl").read_text())
    assert [line["type"] for line in lines[:2]] == ["source", "window"] and lines[-1]["type"] == "end"
    events = [line for line in lines if line["type"] == "event"]
    with (out / "events.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(said.splitlines()) == len(events) == lines[-1]["events"] > 0
    chapters = (out / "chapters.vtt").read_text().split("\n\n")[1:-1]
    for event, row, shown, chapter in zip(events, rows, said.splitlines(), chapters, strict=True):
        start, end = clock_time(event["start"]), clock_time(event["end"])
        assert shown == f"{start}  {end}  {event['class']}  {event['score']:.4f}"
        assert chapter == f"{start} --> {end}\n{event['class']}"
        assert (float(row["start"]), row["class"], int(row["windows"])) == (
            pytest.approx(event["start"], abs=5e-4),
            event["class"],
            event["windows"],
        )
    before = {file: file.read_bytes() for file in out.iterdir()}
    code, _, err = by_command(run, path, "--out", out)
    assert code == 2 and "not empty" in err
    assert {file: file.read_bytes() for file in out.iterdir()} == before


def test_damage_is_said_and_written(
    by_command: Callable[..., tuple[int, str, str]], run: Path, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "nasty" / "decord" / "corrupted.mp4"
    code, _, err = by_command(run, path, "--out", tmp_path / "out")
    lines = as_json((tmp_path / "out" / "windows.jsonl").read_text())
    problems = [line for line in lines if line["type"] == "problem"]
    assert code == 1 and len(problems) == 2 and all(problem["reason"] in err for problem in problems)
    # Frames are taken at the rate of the model, so the last one ends up to 1/15 of a second later.
    assert lines[-1]["seconds"] == pytest.approx(5.0, abs=0.07) and not lines[-1]["stopped"]


@pytest.mark.parametrize(
    "arguments,said",
    [
        ("{tmp}/gone.mp4 --out {new}", "no such file"),
        ("{text} --out {new}", "is a text, not a video"),
        ("rtsp://127.0.0.1:1/x --out {new}", "cannot be opened"),
        ("ftp://127.0.0.1/x.mp4", "expected one of http"),
        ("{clip} --ignore nothing --out {new}", "no class of this model"),
        ("{clip} --every 0 --out {new}", "every is 0"),
        ("{clip} --seconds -1 --out {new}", "seconds is -1"),
        ("{clip} --threshold 2", "--threshold"),
        ("{clip} --crops 0", "--crops"),
        ("{clip} --out {clip}", "is a file"),
        ("{clip} --out {tmp}", "not empty"),
    ],
)
def test_mistakes_are_one_sentence(
    by_command: Callable[..., tuple[int, str, str]],
    run: Path,
    clip_data: VideoSet,
    tmp_path: Path,
    arguments: str,
    said: str,
) -> None:
    (tmp_path / "text.mp4").write_text("no video " * 99)
    places = {"tmp": tmp_path, "new": tmp_path / "new", "text": tmp_path / "text.mp4"}
    places["clip"] = clip_data.entries[0].path
    code, out, err = by_command(run, *[word.format(**places) for word in arguments.split()])
    assert code == 2 and out == "" and len(err.splitlines()) == 1, err
    assert err.startswith("error: ") and said in err and not (tmp_path / "new").exists()


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """``peakzoom watch`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from peakzoom.cli import main; main()", "watch", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.slow
def test_a_reader_who_has_seen_enough(run: Path, make_clip: Callable[..., Path], tmp_path: Path) -> None:
    child = start(run, make_clip(tmp_path / "a.mp4", frames=30), "--every", 0.001, "--device", "cpu")
    assert child.stdout is not None and child.stderr is not None
    assert json.loads(child.stdout.readline())["type"] == "source"
    child.stdout.close()
    assert (child.wait(60), child.stderr.read()) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_it_properly(
    run: Path, make_clip: Callable[..., Path], tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """A pipe that never ends: the lines so far are whole, the open event is closed, the code says what stopped it."""
    path, out = make_clip(tmp_path / "a.mkv", frames=60, fps=10), tmp_path / "out"
    child = start(run, "-", "--threshold", 0, "--gap", 1000, "--device", "cpu", "--out", out)
    assert child.stdin is not None and child.stderr is not None
    child.stdin.write(path.read_bytes())
    child.stdin.flush()
    file = out / "windows.jsonl"
    while child.poll() is None and not (file.exists() and file.read_text().count('"window"') >= 2):
        time.sleep(0.05)
    child.send_signal(sent)
    err = child.stderr.read().decode()
    child.stdin.close()
    assert child.wait(60) == code, err
    lines = as_json(file.read_text())
    assert lines[-1]["type"] == "end" and lines[-1]["stopped"] and "stopped after" in err
    assert lines[-2]["type"] == "event" and lines[-2]["end"] == lines[-1]["seconds"]
    assert len((out / "events.csv").read_text().splitlines()) == 1 + lines[-1]["events"]
    assert "Traceback" not in err and "--resume" not in err
