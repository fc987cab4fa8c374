"""Evidence of several sources: one whose recording is slow holds up no other, and loses nothing of its own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import check, events_in, small

from peakzoom.apps.watch import source
from peakzoom.apps.watch.evidence import writer
from peakzoom.apps.watch.evidence.making import Maker
from peakzoom.apps.watch.evidence.memory import Job
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.recorder import Recorder
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended, Record, ScoredWindow
from peakzoom.apps.watch.watch import watch_all
from peakzoom.inference.recognizer import Recognizer

pytestmark = pytest.mark.usefixtures("drawn_quickly")
WATCHING = WatchOptions(threshold=0.0, every=0.4)
LONG = 60  # seconds after which what waits is taken to wait for ever


@pytest.fixture(autouse=True)
def _not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes does not stand back: on a busy machine these tests would wait minutes for it."""
    monkeypatch.setattr(writer, "NICE", 0)


@pytest.fixture(scope="module")
def changing() -> Recognizer:
    """One whose predictions change from window to window."""
    recognizer = small(["wave", "kick", "nod"])
    with torch.no_grad():
        recognizer.model.backbone.fc.weight *= 200
        recognizer.model.fc_fused.weight *= 200
    return recognizer


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, no file of evidence of "slow.mp4" comes to its end."""
    gate, true = threading.Event(), Maker.fill

    def fill(self: Maker, job: Job, folder: Path) -> dict[str, Any]:
        assert not folder.parent.name.endswith(("slow", "slow.mp4")) or gate.wait(LONG)
        return true(self, job, folder)

    monkeypatch.setattr(Maker, "fill", fill)
    return gate


@contextmanager
def recorders(recognizer: Recognizer, *places: Path) -> Iterator[list[Recorder]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(Recorder("none", recognizer, WATCHING, EvidenceOptions(place, 0.5, 0.5)))
            for place in places
        ]


@pytest.mark.parametrize("waiting", [1, writer.WAITING])
def test_a_slow_recording_holds_up_no_other_source(
    waiting: int,
    changing: Recognizer,
    slow: threading.Event,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for one event its reader waits, with room for all the source ends first; the other is watched."""
    monkeypatch.setattr(writer, "WAITING", waiting)
    frames = 160 if waiting == 1 else 40  # a reader that waits must not have read all before its first event
    videos = [
        make_clip(tmp_path / "slow.mp4", frames=frames, fps=10),
        make_clip(tmp_path / "quick.mp4", frames=80, fps=10),
    ]
    places, windows, ended = [tmp_path / "slow", tmp_path / "quick"], [0, 0], list[int]()
    with recorders(changing, *places) as both:
        for at, record in watch_all(changing, videos, WATCHING, recordings=both):
            both[at].add(record)
            windows[at] += isinstance(record, ScoredWindow)
            if isinstance(record, Ended):
                ended.append(at)
                if at == 1:
                    assert not slow.is_set() and not both[0].is_done
                    slow.set()
        assert (ended == [1, 0]) == (waiting == 1)
    assert windows == [frames // 4 - 1, 19]
    for place, recorder in zip(places, both, strict=True):
        check(place)
        assert recorder.is_done and recorder.session.missing == 0 and recorder.session.ended
        assert recorder.session.recorded == len(events_in(place)) >= 2


def test_a_source_that_is_stopped_while_its_recording_is_full_loses_nothing(
    changing: Recognizer,
    slow: threading.Event,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "WAITING", 1)
    video, place, stop = (
        make_clip(tmp_path / "slow.mp4", frames=40, fps=10),
        tmp_path / "slow",
        threading.Event(),
    )
    other = make_clip(tmp_path / "other.mp4", frames=80, fps=10)
    with recorders(changing, place, tmp_path / "other") as both:
        for at, record in watch_all(changing, [video, other], WATCHING, recordings=both, stop=stop):
            both[at].add(record)
            if at == 1 and isinstance(record, Ended) and not record.stopped:
                stop.set()
                threading.Timer(0.3, slow.set).start()
    session = both[0].session
    assert session.missing == 0 and session.recorded == len(events_in(place)) >= 1
    check(place)


def test_last_lines_of_several_sources_say_what_was_recorded(
    changing: Recognizer,
    slow: threading.Event,
    by_command: Callable[..., tuple[int, str, str]],
    make_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos = [
        make_clip(tmp_path / "in" / name, frames=frames, fps=10)
        for name, frames in (("slow.mp4", 30), ("quick.mp4", 60))
    ]
    changing.model.save_pretrained(tmp_path / "model")
    true = Recorder.add

    def add(self: Recorder, record: Record) -> None:
        true(self, record)
        if self.place.name.endswith("quick.mp4") and isinstance(record, Ended):
            slow.set()

    monkeypatch.setattr(Recorder, "add", add)
    code, _, err = by_command(
        tmp_path / "model",
        *videos,
        *("--threshold", 0, "--every", 0.4, "--clip-before", 0.5, "--clip-after", 0.5),
        *("--evidence", tmp_path / "evidence", "--out", tmp_path / "out"),
    )
    assert code == 0, err
    for folder in ("slow", "quick"):
        lines = [json.loads(line) for line in next((tmp_path / "out").glob(f"*{folder}*/*.jsonl")).open()]
        (place,) = (tmp_path / "evidence").glob(f"*{folder}*")
        assert lines[-1]["type"] == "end"
        assert lines[-1]["recorded"] == len(events_in(place)) == lines[-1]["events"] >= 1
        assert lines[-1]["not_recorded"] == 0
        check(place)
    assert sum("evidence of" in line for line in err.splitlines()) == 2


def test_a_last_line_comes_while_every_other_source_is_silent(
    changing: Recognizer,
    by_command: Callable[..., tuple[int, str, str]],
    make_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server takes the connection and sends nothing until the other source's last line is there."""
    monkeypatch.setattr(source, "SILENCE", 2.0 * LONG)
    video, out, came = make_clip(tmp_path / "a.mp4", frames=30, fps=10), tmp_path / "out", list[bool]()
    changing.model.save_pretrained(tmp_path / "model")

    def last_line() -> bool:
        return any('"type": "end"' in file.read_text() for file in out.glob("*/*.jsonl"))

    def be_silent(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            until = time.monotonic() + LONG
            while not last_line() and time.monotonic() < until:
                time.sleep(0.05)
            came.append(last_line())

    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = threading.Thread(target=be_silent, args=(server,))
        silent.start()
        code, _, err = by_command(
            *(tmp_path / "model", video, f"tcp://127.0.0.1:{server.getsockname()[1]}"),
            *("--threshold", 0, "--every", 0.4, "--clip-before", 0.5, "--clip-after", 0.5),
            *("--evidence", tmp_path / "evidence", "--out", out),
        )
        silent.join()
    assert came == [True] and code == 1 and "cannot be opened" in err
    (end,) = [json.loads(line) for file in out.glob("*a.mp4*/*.jsonl") for line in list(file.open())[-1:]]
    assert end["type"] == "end" and end["recorded"] == end["events"] >= 1
