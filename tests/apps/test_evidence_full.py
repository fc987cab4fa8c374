"""Evidence that cannot be written: a full disk, a folder that goes away, a recording that is behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib and Pillow: pip install '.[train]'")

from recording import CLASSES, NAMES, SOURCE, WEIGHTS, check, events_in, filled, recorded, small, window

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence import exhibit, writer
from peakzoom.apps.watch.evidence.folder import EvidenceFolder
from peakzoom.apps.watch.evidence.memory import Job
from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.evidence.recorder import Recorder
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended
from peakzoom.utils.errors import DecodeError, UserError

# Where it cannot be written ---------------------------------------------------------------------------------------


@contextmanager
def failing(number: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """From the ``number``-th time on that something is written, the disk is full; lists what was tried then."""
    count, tried = 0, list[str]()

    def guard(name: str, true: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if writes(*arguments, **named):
                count += 1
                if count >= number:
                    tried.append(name)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return true(*arguments, **named)

        return call

    def for_writing(path: Path, mode: str = "r", *_: Any, **__: Any) -> bool:
        return any(letter in mode for letter in "wax")

    patch.setattr(Path, "open", guard("open", Path.open, for_writing))
    patch.setattr(Path, "mkdir", guard("mkdir", Path.mkdir, lambda *_, **__: True))
    patch.setattr(Path, "rename", guard("rename", Path.rename, lambda *_: True))
    patch.setattr(Path, "replace", guard("replace", Path.replace, lambda *_: True))
    patch.setattr(os, "fsync", guard("fsync", os.fsync, lambda *_: True))
    yield tried


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_quickly")
def test_a_disk_that_is_full_at_any_moment(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording stops with one sentence, the watch does not, all events are counted, and what is there is whole."""
    number, stopped, refused = 1, 0, 0
    monkeypatch.setattr(writer, "PAGE_SHARE", 0)
    recognizer = small(CLASSES)
    while True:
        place = tmp_path / f"{number}"
        with monkeypatch.context() as patch, failing(number, patch) as tried:
            try:
                session = recorded(place, video, CLASSES, NAMES, kept=True, recognizer=recognizer)
            except (UserError, OSError):  # before the watch has begun; the command says it in a sentence
                refused += 1
                assert not list(place.glob("*/event.json"))
                number += 1
                continue
        shutil.rmtree(place / ".lock.part", ignore_errors=True)
        found = sorted(place.glob("0*/event.json"))
        assert session.recorded == len(found) and session.recorded + session.missing == 3
        if not tried:
            break
        assert session.stopped is not None and session.reason == "no space left on device"
        stopped += 1
        if session.recorded:
            put_again = recorded(place, video, CLASSES, NAMES, kept=True, recognizer=recognizer)
            assert put_again.recorded == 3
            check(place)  # also of what was there before
        number += 7 if number > 20 else 1
    assert refused > 3 and stopped > 5
    check(place)


@pytest.fixture
def little_room(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes; only root may."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip("only root mounts a small disk")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


@pytest.mark.parametrize("kept", [False, True], ids=["file", "stream"])
@pytest.mark.usefixtures("drawn_quickly")
def test_a_small_disk(
    video: Path, little_room: Callable[[int], Path], said: Callable[[], list[str]], kept: bool
) -> None:
    """Real writes fail, in this process and in the one that copies packets; the page can still say so."""
    place = little_room(400_000) / "e"
    many: list[str | None] = ["wave" if number % 2 else None for number in range(12)]
    session = recorded(place, video, CLASSES, many, kept=kept, clip_before=5.0, clip_after=5.0)
    assert 0 < session.recorded < 6 and session.recorded + session.missing == 6
    lines = [line for line in said() if "no longer recorded" in line]
    assert len(lines) == 1 and "no space left on device" in lines[0] and "detection goes on" in lines[0]
    check(place)
    page = (place / "index.html").read_text()
    assert (
        f"{session.missing} event" in page
        and "found and not recorded" in page
        and "recording stopped" in page
    )
    assert page.count('class="bar missed"') == session.missing
    sessions = json.loads((place / "sessions.json").read_text())
    assert sum(sessions[0]["not_recorded"].values()) == session.missing and sessions[0]["ended"]


@pytest.mark.usefixtures("drawn_quickly")
def test_a_folder_that_goes_away(video: Path, tmp_path: Path, said: Callable[[], list[str]]) -> None:
    """Say, a stick that is pulled out."""
    place, classes = tmp_path / "e", CLASSES
    recognizer = small(classes)
    with Recorder("none", recognizer, WatchOptions(), EvidenceOptions(place)) as each:
        source = each.open(video, recognizer.preprocess.test_size)
        for _ in source.items:
            pass
        shutil.rmtree(place)
        place.write_text("something else")
        for number, name in enumerate(NAMES):
            each.add(window(classes, float(number), name))
        each.add(Ended(10.0, 1.0, 10, 0, 3, False))
    assert (each.session.recorded, each.session.missing) == (0, 3)
    assert sum("no longer recorded" in line for line in said()) == 1 and place.read_text() == "something else"


class Slow:
    """Stands in for what makes an event's files, and waits."""

    incomplete = 0

    def __init__(self) -> None:
        self.gate = threading.Event()

    def fill(self, job: Job, folder: Path) -> dict[str, Any]:
        assert self.gate.wait(60)
        return filled(folder)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("wait", [False, True])
def test_recording_that_is_behind_is_counted_or_waited_for(
    tmp_path: Path, said: Callable[[], list[str]], wait: bool
) -> None:
    maker = Slow()
    with EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS) as folder:
        with writer.Writer(folder, maker, 1000) as each:  # type: ignore[arg-type]
            if wait:
                threading.Timer(0.3, maker.gate.set).start()
            for number in range(writer.WAITING + 10):
                event = Event(float(number), number + 0.5, "wave", 0.5, 0.5, 1)
                if wait:
                    each.wait_for_room()
                each.put(Job(event, None, None), wait)
            maker.gate.set()
        assert folder.session.recorded + folder.session.missing == writer.WAITING + 10
        assert folder.session.missing == (0 if wait else 10)
    assert sum("recording was behind" in line for line in said()) == folder.session.missing
    assert (
        f"{writer.WAITING + (10 if wait else 0)} events recorded"
        in (tmp_path / "e" / "index.html").read_text()
    )


@pytest.mark.usefixtures("drawn_quickly")
def test_a_figure_that_cannot_be_drawn(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Whatever is wrong with one event, its clip is there, and the next one has everything."""
    true, calls = exhibit.explain, []

    def explain_once(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the network has had enough")
        return true(*arguments, **named)

    monkeypatch.setattr(exhibit, "explain", explain_once)
    session = recorded(tmp_path / "e", video, CLASSES, NAMES)
    assert (session.recorded, session.incomplete, session.missing) == (3, 1, 0)
    first, second, _ = events_in(tmp_path / "e")
    assert first["notes"] == ["it has no figure: RuntimeError: the network has had enough"]
    assert list(first["files"]) == ["clip.mp4"] and len(second["files"]) == 4
    assert any("it has no figure" in line for line in said())
    page = (tmp_path / "e" / "index.html").read_text()
    assert "No figure." in page and "1 event recorded without a clip or without a figure" in page
    check(tmp_path / "e")


@pytest.mark.usefixtures("drawn_quickly")
def test_the_event_that_is_on_when_a_source_is_lost(video: Path, tmp_path: Path) -> None:
    place = tmp_path / "e"

    def lose_it() -> None:
        recognizer = small(CLASSES)
        with Recorder("none", recognizer, WatchOptions(), EvidenceOptions(place)) as each:
            source = each.open(video, recognizer.preprocess.test_size)
            for _ in source.items:
                pass
            for number, name in enumerate(NAMES):  # the last one is on
                each.add(window(CLASSES, float(number), name))
            raise DecodeError(video, "the decoder crashed")

    with pytest.raises(DecodeError, match="crashed"):
        lose_it()
    assert [facts["start"] for facts in events_in(place)] == [1.0, 5.0, 8.0]
    check(place)


def test_a_source_that_is_none_leaves_no_folder(tmp_path: Path) -> None:
    recognizer = small(CLASSES)
    for source in (tmp_path / "gone.mp4", "rtsp://127.0.0.1:1/x"):
        with (
            pytest.raises(UserError),
            Recorder("none", recognizer, WatchOptions(), EvidenceOptions(tmp_path / "e")) as each,
        ):
            each.open(source, recognizer.preprocess.test_size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip_before": -1.0}, "clip_before is -1"),
        ({"clip_after": float("inf")}, "clip_after is inf"),
        ({"clip_longest": 0.0}, "clip_longest is 0"),
        ({"clip_memory": 0.5}, "clip_memory is 0.5"),
        (
            {"evidence": None, "clip_before": 1.0},
            "clip_before is of clips, which are recorded with --evidence",
        ),
    ],
)
def test_options_that_are_none(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EvidenceOptions(**{"evidence": tmp_path, **values})
