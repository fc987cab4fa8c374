"""Evidence of events: what is written for each, and that it is never overwritten."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

pytest.importorskip("matplotlib", reason="needs matplotlib and Pillow: pip install '.[train]'")

from recording import CLASSES, HOSTILE, NAMES, SOURCE, WEIGHTS, check, events_in, filled, recorded

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.folder import EvidenceFolder, folder_name
from peakzoom.apps.watch.evidence.identity import SourceFacts, WeightsFacts, absolute
from peakzoom.explanation import explain
from peakzoom.inference.recognizer import load
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views

# What is written --------------------------------------------------------------------------------------------------


def test_all_that_is_known_of_an_event(
    run: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a trained model; figure, thumbnail and peaks are those of the same frames of the source."""
    recognizer, place = load(run, "cpu"), tmp_path / "evidence"
    classes = recognizer.classes
    names = [None, classes[1], classes[1], None, None, None, None, None, classes[2], classes[2], classes[2]]
    session = recorded(place, video, classes, names, recognizer=recognizer)
    assert (session.recorded, session.incomplete, session.missing) == (2, 0, 0)
    check(place)
    first, second = events_in(place)
    assert [(each["number"], each["class"]) for each in (first, second)] == [(1, classes[1]), (2, classes[2])]
    assert first["source"] == {
        "name": str(video),
        "sha256": hashlib.sha256(video.read_bytes()).hexdigest(),
        "bytes": video.stat().st_size,
    }
    assert first["software"]["peakzoom"] == __import__("peakzoom").__version__
    assert first["rule"]["threshold"] == 0.5 and first["absolute"] is None  # which this file does not say
    folder = place / f"000001_00h00m01s000_{classes[1]}"
    assert {each.name for each in folder.iterdir()} == {
        "clip.mp4",
        "figure.png",
        "thumbnail.jpg",
        "peaks.json",
        "event.json",
    }
    assert first["start"] == 1.0 and first["end"] == pytest.approx(3.0, abs=0.6)

    whole, clip = decode(video), decode(folder / "clip.mp4")
    begins = round(first["clip"]["start"] * 10)
    assert first["clip"]["way"] == "packets copied" and begins <= 5
    assert torch.equal(clip.frames, whole.frames[begins : begins + clip.info.frames])
    assert first["clip"]["event_begins_at"] == pytest.approx(1.0 - first["clip"]["start"], abs=1e-6)

    peaks = json.loads((folder / "peaks.json").read_text())
    seen = explain(
        recognizer,
        Segment(video, first["start"], first["end"]).path,
        classes[1],
        Views("paper", 1, 1),
        progress=False,
    )
    expected = seen.to_dict()
    assert peaks["evidence_for"] == classes[1] and peaks["file"] == "clip.mp4"
    assert peaks["times"] == pytest.approx([time + 1.0 for time in expected["times"]], abs=1e-3)
    assert len(peaks["peaks"]) == len(expected["peaks"]) > 0
    for found, wanted in zip(peaks["peaks"], expected["peaks"], strict=True):
        assert (found["x"], found["y"], found["response"]) == (wanted["x"], wanted["y"], wanted["response"])
        assert found["start"] == pytest.approx(wanted["start"] + 1.0, abs=2e-3)
        assert found["first_frame"] == wanted["first_frame"] + 10 - begins
    for name, (width, height) in first["sizes"].items():
        from PIL import Image

        with Image.open(folder / name) as picture:
            assert picture.size == (width, height)
    assert second["clip"]["start"] <= 7.5 and second["previous"] is not None


def test_the_weights_are_named_by_their_file(run: Path, video: Path, tmp_path: Path) -> None:
    from peakzoom.apps.watch.evidence.identity import weights_facts
    from peakzoom.model.load import WEIGHTS, digest, find_model, full_digest

    recognizer = load(run, "cpu")
    file = find_model(run) / WEIGHTS
    facts = weights_facts(str(run), recognizer)
    assert facts == WeightsFacts(hashlib.sha256(file.read_bytes()).hexdigest(), WEIGHTS)
    other = weights_facts("owner/name", recognizer)
    assert other.sha256 == full_digest(recognizer.model) and other.sha256[:16] == digest(recognizer.model)


@pytest.mark.parametrize("kept", [False, True], ids=["file", "stream"])
@pytest.mark.usefixtures("drawn_quickly")
def test_each_event_has_its_clip(video: Path, tmp_path: Path, kept: bool) -> None:
    session = recorded(tmp_path / "e", video, CLASSES, NAMES, kept=kept)
    assert (session.recorded, session.incomplete, session.missing, session.seconds) == (3, 0, 0, 10.0)
    check(tmp_path / "e")
    whole = decode(video)
    for facts, start in zip(events_in(tmp_path / "e"), (1.0, 5.0, 8.0), strict=True):
        assert facts["start"] == start and facts["notes"] == []
        clip = decode(next((tmp_path / "e").glob(f"{facts['number']:06d}_*/clip.mp4")))
        first = round(facts["clip"]["start"] * 10)
        assert first <= start * 10 - 5 and facts["clip"]["plays_from"] == pytest.approx(
            start - 0.5 - first / 10
        )
        assert torch.equal(clip.frames, whole.frames[first : first + clip.info.frames])
        assert facts["clip"]["end"] >= facts["end"] + 0.4
        if kept:
            assert facts["source"]["note"] and "sha256" not in facts["source"]
            assert facts["absolute"]["by"].startswith("clock of this machine")
            told = datetime.fromisoformat(facts["absolute"]["start"].replace("Z", "+00:00"))
            assert abs(told.timestamp() - time.time()) < 300


@pytest.mark.usefixtures("drawn_quickly")
def test_class_names_are_hostile_input(video: Path, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "evidence"
    names: list[str | None] = [None, *HOSTILE, None]
    assert recorded(place, video, HOSTILE, names).recorded == len(HOSTILE)
    check(place)
    assert [each["class"] for each in events_in(place)] == HOSTILE
    assert {each.name for each in tmp_path.iterdir()} == {"deep"}
    for folder in (each.name for each in place.iterdir() if each.is_dir()):
        assert len(folder.encode()) <= 120 and all(letter.isalnum() or letter == "_" for letter in folder)
    page = (place / "index.html").read_text()
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "../../up" in page and "../../up/" not in page


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("kick", "000007_01h01m02s300_kick"),
        ("open the door", "000007_01h01m02s300_open_the_door"),
        ("..", "000007_01h01m02s300_class"),
        ("a/b\\c:d*e", "000007_01h01m02s300_a_b_c_d_e"),
        ("打" * 40, "000007_01h01m02s300_" + "打" * 26),
    ],
)
def test_folder_names(name: str, folder: str) -> None:
    assert folder_name(7, Event(3662.2999, 3670.0, name, 0.9, 0.9, 1)) == folder


def test_times_by_a_clock() -> None:
    created = absolute(3.5, 4.0, "2024-02-29T23:59:58.000000Z", None)
    assert created == {
        "start": "2024-03-01T00:00:01.500Z",
        "end": "2024-03-01T00:00:02.000Z",
        "by": "creation_time of the file",
    }
    assert absolute(0.0, 1.0, "2024-01-01T02:00:00+02:00", None)["start"] == "2024-01-01T00:00:00.000Z"  # type: ignore[index]
    assert absolute(0.0, 1.0, "2024-01-01 00:00:00", None)["start"] == "2024-01-01T00:00:00.000Z"  # type: ignore[index]
    assert absolute(9.0, 10.0, None, 1e9)["start"] == "2001-09-09T01:46:40.000Z"  # type: ignore[index]
    for odd in ("yesterday", "", "99999-01-01T00:00:00Z"):
        assert absolute(0.0, 1.0, odd, None) is None
    assert absolute(1e18, 1e18, "2024-01-01T00:00:00Z", None) is None
    assert absolute(0.0, 1.0, None, 1e30) is None


@pytest.mark.usefixtures("drawn_quickly")
def test_a_file_that_says_when_it_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "dated.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = "2024-05-06T07:08:09.000000Z"
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    recorded(tmp_path / "e", path, CLASSES, [None, "wave", None])
    (facts,) = events_in(tmp_path / "e")
    start = datetime.fromisoformat("2024-05-06T07:08:09+00:00") + timedelta(seconds=facts["start"])
    assert datetime.fromisoformat(facts["absolute"]["start"].replace("Z", "+00:00")) == start


# Nothing is overwritten -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("drawn_quickly")
def test_a_folder_is_gone_on_with(video: Path, tmp_path: Path) -> None:
    place = tmp_path / "e"
    recorded(place, video, CLASSES, NAMES)
    before = {file: file.read_bytes() for file in place.glob("*/*")}
    # Of a file that is watched again, the same events are there already; others are added.
    session = recorded(place, video, CLASSES, [*NAMES[:-2], "kick", "kick"])
    assert (session.known, session.recorded) == (2, 1)
    assert [each["class"] for each in events_in(place)] == ["wave", "kick", "wave", "kick"]
    assert all(file.read_bytes() == data for file, data in before.items())
    check(place)
    sessions = json.loads((place / "sessions.json").read_text())
    assert [each["recorded"] for each in sessions] == [3, 1] and all(each["ended"] for each in sessions)


@pytest.mark.usefixtures("drawn_quickly")
def test_a_stream_is_recorded_anew_each_time(video: Path, tmp_path: Path) -> None:
    place = tmp_path / "e"
    for _ in range(2):
        assert recorded(place, video, CLASSES, NAMES, kept=True).recorded == 3
    assert [each["session"] for each in events_in(place)] == [1, 1, 1, 2, 2, 2]
    check(place)


def put(place: Path, *names: str, source: SourceFacts = SOURCE, weights: WeightsFacts = WEIGHTS) -> list[str]:
    """Add events; returns what is doubtful of those that were there."""
    with EvidenceFolder(place, source, weights) as folder:
        for number, name in enumerate(names):
            folder.record(Event(float(number), number + 1.0, name, 0.5, 0.5, 1), filled)
        folder.write_sessions(folder.sessions)
        folder.write_page("page")
        return folder.doubts


def test_another_source_or_other_weights_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "e"
    put(place, "wave")
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    for source, weights, said in (
        (SourceFacts("b.mp4", "3" * 64, 5), WEIGHTS, r"evidence of another source \(a.mp4\): name another"),
        (SourceFacts("rtsp://a.mp4"), WEIGHTS, "evidence of another source"),
        (SOURCE, WeightsFacts("4" * 64, "model.safetensors"), r"evidence by other weights \(2{16}\)"),
    ):
        with pytest.raises(UserError, match=said):
            put(place, "kick", source=source, weights=weights)
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
    put(place, "kick", source=SourceFacts("moved/a.mp4", "1" * 64, 5))  # the same file
    assert len(events_in(place)) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: place.write_text("a file"), "is a file"),
        (lambda place: [place.mkdir(), (place / "mine.txt").write_text("x")], "holds no evidence"),
        (lambda place: [place.mkdir(), (place / "evidence.json").write_text("{}")], "does not say of what"),
        (
            lambda place: [place.mkdir(), (place / "evidence.json").write_text("[" * 9000)],
            "does not say of what",
        ),
        (lambda place: [put(place), (place / "sessions.json").write_text("nothing")], "is damaged"),
        (
            lambda place: [
                put(place),
                (place / "evidence.json").write_text(
                    '{"format": 7, "source": {"name": "a"}, "weights": {"sha256": "1", "of": "b"}}'
                ),
            ],
            "its format is 7",
        ),
    ],
)
def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    place = tmp_path / "e"
    make(place)
    before = {file: file.read_bytes() for file in [place, *place.rglob("*")] if file.is_file()}
    with pytest.raises(UserError, match=said):
        put(place, "wave")
    assert {file: file.read_bytes() for file in [place, *place.rglob("*")] if file.is_file()} == before


def test_two_at_once(tmp_path: Path) -> None:
    with EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS), pytest.raises(UserError, match="another process"):
        EvidenceFolder(tmp_path / "e", SOURCE, WEIGHTS)
    put(tmp_path / "e", "wave")


def test_what_a_killed_process_leaves_is_put_in_order(tmp_path: Path) -> None:
    """A draft, half a line of checksums, and an event whose checksums it did not come to."""
    place = tmp_path / "e"
    put(place, "wave", "kick", "wave")
    (place / ".000004_00h00m03s000_kick.part").mkdir()
    (place / ".000004_00h00m03s000_kick.part" / "clip.mp4").write_bytes(b"half")
    (place / ".room.part").write_bytes(bytes(10))
    (place / "sessions.json").write_text('[{"began": "2024-01-01T00:00:00.000Z"}]')  # as at its beginning
    sums = place / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(lines[:-1]) + lines[-1][:30])
    assert put(place, "kick") == []
    assert [each["class"] for each in events_in(place)] == ["wave", "kick", "wave", "kick"]
    assert json.loads((place / "sessions.json").read_text())[0]["recorded"] == 3
    check(place)


def test_a_change_shows(tmp_path: Path) -> None:
    place = tmp_path / "e"
    put(place, "wave", "kick", "wave")
    file = place / "000001_00h00m00s000_wave" / "event.json"
    file.write_text(file.read_text().replace('"score": 0.5', '"score": 0.9'))
    assert put(place) == [
        "000002_00h00m01s000_kick does not follow the event before it: one of them was changed"
    ]
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == "000001_00h00m00s000_wave/event.json: FAILED\n"
    shutil.rmtree(place / "000002_00h00m01s000_kick")
    assert put(place) == [
        "000003_00h00m02s000_wave does not follow the event before it: one of them was changed"
    ]
    for text in (
        "no JSON",
        "{}",
        json.dumps({"number": "x"}),
        file.read_text().replace('"windows": 1', '"windows": "<b>"'),
    ):
        file.write_text(text)
        assert put(place)[0].startswith("000001_00h00m00s000_wave cannot be read")
    put(place, "kick")
    assert max(int(each.name[:6]) for each in place.iterdir() if each.is_dir()) == 4  # no number twice
