"""Spans of files: the frames that a plain decode shows in them, in lists, training, evaluation and reports.

The reference is a plain decode of everything by PyAV, and files into which the segments were cut without loss.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import longer, made
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.data.background import with_background
from peakzoom.data.cache import CachedVideo, FrameCache, fill, read_cached
from peakzoom.data.datasets import open_data, open_to_look
from peakzoom.data.doubts import doubts, parts_of
from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.data.synthetic.clips import DatasetSpec, stored_rate, write_frames
from peakzoom.data.synthetic.scene import IDLE, ClipSpec
from peakzoom.data.synthetic.untrimmed import render_untrimmed, timeline
from peakzoom.inference.recognizer import load
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.digests import digests, same_bytes
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import Segment, file_of, seconds, segment_of, stem_of, time_text, written_time
from peakzoom.video import scan as scanning
from peakzoom.video import stored as decoding
from peakzoom.video.decode import decode
from peakzoom.video.guard import guarded
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import probe, scan

RATE = 10
PLAIN = Options(val_fraction=0.2, workers=0, accelerator="cpu", progress=False)


def pictures(count: int, seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """Coarse noise, so that codecs with loss keep it apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 16, width // 16, 3), np.uint8)
    return coarse.repeat(16, 1).repeat(16, 2)


def write(path: Path, frames: np.ndarray, codec: str = "ffv1", rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        if codec == "libx264":
            stream.codec_context.gop_size = 250
            stream.codec_context.max_b_frames = 2
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module", params=["long.mkv", "long.mp4"])
def long_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames of a tenth of a second: without loss, and as H.264 with B-frames and one key frame."""
    file = tmp_path_factory.mktemp("long") / request.param
    return write(file, pictures(50), "ffv1" if file.suffix == ".mkv" else "libx264")


# Paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time"),
    [("0", 0), ("7", 7), ("7.25", 7.25), (".5", 0.5), ("1:02", 62), ("00:01:02.5", 62.5), ("2:00:00", 7200)],
)
def test_times_as_people_write_them(text: str, time: float) -> None:
    assert seconds(text) == time
    segment = segment_of(f"a b/match.mp4#t={text},9999")
    assert segment == Segment(Path("a b/match.mp4"), time, 9999)
    assert segment is not None and segment_of(segment.path) == segment


@pytest.mark.parametrize(
    "text", ["", "-1", "5 min", "1:75", "1:99:00", "a", "1e3", "nan", "5s", "1:2:3:4", "."]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UserError, match="expected seconds or h:m:s"):
        seconds(text)


def test_a_file_that_is_called_like_a_span_is_a_file(tmp_path: Path) -> None:
    odd = tmp_path / "odd.mkv#t=1,2"
    assert file_of(odd) == tmp_path / "odd.mkv"
    write(tmp_path / "odd.mkv", pictures(5)).rename(odd)
    assert segment_of(odd) is None and file_of(odd) == odd


# Frames ----------------------------------------------------------------------------------------------------------

SEGMENTS = [
    (0, 1),
    (0, None),
    (1.2, 3.45),
    (1.25, 1.35),
    (2, 3),
    (3, 5),
    (4.9, None),
    (4.85, 9),
    (0.001, 0.2),
]


def reference(file: Path, start: float, end: float | None) -> np.ndarray:
    """The frames of a plain decode that are first shown in the segment."""
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
        first = frames[0].time
        shown = [
            frame.to_ndarray(format="rgb24")
            for frame in frames
            if start <= round(frame.time - first, 6) and (end is None or round(frame.time - first, 6) < end)
        ]
    return np.stack(shown)


@pytest.mark.parametrize("hold", [0, 2**29])
@pytest.mark.parametrize("order", ["as they come", "backwards", "twice"])
def test_frames_of_segments_are_those_of_a_plain_decode(long_file: Path, hold: int, order: str) -> None:
    segments = {"as they come": SEGMENTS, "backwards": SEGMENTS[::-1], "twice": [*SEGMENTS, *SEGMENTS]}[order]
    for start, end in segments:
        path = Segment(long_file, start, end).path
        wanted = reference(long_file, start, end)
        video = decode(path, hold_bytes=hold)
        assert np.array_equal(video.frames.permute(0, 2, 3, 1).numpy(), wanted), (start, end)
        assert video.info.frames == len(wanted) and video.info.path == path
        assert video.info.duration == pytest.approx(len(wanted) / RATE)
        assert video.timestamps == pytest.approx(np.arange(len(wanted)) / RATE)
        chosen = decode(path, lambda times: np.array([len(times) - 1, 0]), hold_bytes=hold)
        assert np.array_equal(chosen.frames[-1].permute(1, 2, 0).numpy(), wanted[-1])


@pytest.mark.parametrize("hold", [0, 2**29])
def test_a_file_is_decoded_forward_however_many_its_segments(
    long_file: Path, monkeypatch: pytest.MonkeyPatch, hold: int
) -> None:
    """Once to count, and once more for the pixels where frames are not held: never anew for a segment."""
    decoded = 0

    def counting(*arguments: object) -> Iterator[av.VideoFrame]:
        nonlocal decoded
        for frame in original(*arguments):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    original = scanning.decoded_frames
    monkeypatch.setattr(scanning, "decoded_frames", counting)
    monkeypatch.setattr(decoding, "decoded_frames", counting)
    monkeypatch.setattr(scanning, "_memory", scanning._Memory())
    monkeypatch.setattr(decoding, "_cursor", decoding.Cursor())
    for start in range(5):
        decode(Segment(long_file, start, start + 1).path, hold_bytes=hold)
    assert decoded == (50 if hold else 100)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mkv", pictures(20))
    path = Segment(file, 0.5, 1).path
    before = decode(path, hold_bytes=0).frames
    write(file, pictures(30, seed=1))
    after = decode(path, hold_bytes=0).frames
    assert not np.array_equal(before, after)
    assert np.array_equal(after.permute(0, 2, 3, 1).numpy(), reference(file, 0.5, 1))


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ("#t=7,9", "holds no frame: its file lasts 5 s"),
        ("#t=1.21,1.29", "holds no frame"),
        ("#t=3,2", "starts at 3 s and ends at 2 s, expected an end after the start"),
        ("#t=3,3", "expected an end after the start"),
        ("#t=1:99,3", "expected seconds or h:m:s"),
    ],
)
def test_segments_without_a_frame(long_file: Path, fragment: str, reason: str) -> None:
    for look in (probe, lambda path: guarded(path, probe, path)):
        with pytest.raises(UserError, match=reason):
            look(f"{long_file}{fragment}")


def test_a_name_that_is_too_long_to_be_looked_for_is_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="too long"):
        probe(tmp_path / f"{'x' * 300}.mp4#t=1,2")


def test_what_is_wrong_with_the_file_is_said_of_its_segments(long_file: Path, tmp_path: Path) -> None:
    assert probe(f"{long_file}#t=4,5.05").problem is None
    assert probe(f"{long_file}#t=4,9").problem == "ends after its file, which lasts 5 s"
    with pytest.raises(DecodeError, match="no such file") as caught:
        probe(tmp_path / "none.mp4#t=1,2")
    assert caught.value.path == str(tmp_path / "none.mp4#t=1,2") or "none.mp4#t=1,2" in str(caught.value)
    with pytest.raises(DecodeError, match="more than 9 frames"):
        scan(f"{long_file}#t=0,2", most=9)


def test_the_cache_has_the_same_frames_whatever_the_order(long_file: Path, tmp_path: Path) -> None:
    paths = [Segment(long_file, start, end).path for start, end in SEGMENTS]
    for workers, turned in itertools.product((1, 2), (False, True)):
        cache = FrameCache(tmp_path / f"{workers}{turned}", (48, 64))
        found = fill(cache, paths[::-1] if turned else paths, workers)
        assert list(found) == (paths[::-1] if turned else paths)
        for path, (start, end) in zip(paths, SEGMENTS, strict=True):
            entry = found[path]
            assert isinstance(entry, CachedVideo)
            assert np.array_equal(read_cached(entry), reference(long_file, start, end))


# Lists -----------------------------------------------------------------------------------------------------------


def manifest(folder: Path, *rows: str, columns: str = "path,label,start,end") -> Path:
    (folder / "list.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder / "list.csv"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mkv", pictures(30, seed=ord(name)))
    return tmp_path


def test_rows_with_times_are_segments_of_one_group(two: Path) -> None:
    data = read_manifest(
        manifest(two, "a.mkv,kick,0,1.5", "a.mkv,wave,0:01.5,", "b.mkv,kick,,1", "b.mkv,wave,1,2")
    )
    assert [each.path.name for each in data.entries] == [
        "a.mkv#t=0,1.5",
        "a.mkv#t=1.5",
        "b.mkv#t=0,1",
        "b.mkv#t=1,2",
    ]
    assert [each.group for each in data.entries] == ["a.mkv", "a.mkv", "b.mkv", "b.mkv"]
    assert data.counts() == {"kick": 2, "wave": 2} and not data.problems and not data.own_groups
    named = manifest(two, "a.mkv,kick,0,1,ann", "a.mkv,wave,1,2,", columns="path,label,start,end,group")
    assert [each.group for each in read_manifest(named).entries] == ["ann", "a.mkv"]
    whole = read_manifest(manifest(two, "a.mkv,kick,,", "b.mkv,wave,1,2"))
    assert [(each.path.name, each.group) for each in whole.entries] == [
        ("a.mkv", None),
        ("b.mkv#t=1,2", "b.mkv"),
    ]


@pytest.mark.parametrize(
    ("rows", "place", "reason"),
    [
        (["a.mkv,kick,2,1"], 3, "starts at 2 s and ends at 1 s, expected an end after the start"),
        (["a.mkv,kick,5 min,9"], 3, "time is '5 min', expected seconds or h:m:s, as 12.5 or 1:02:03"),
        (["a.mkv,kick,-1,2"], 3, "time is '-1'"),
        (["a.mkv,kick,0,2", "a.mkv,wave,1,3"], 4, "overlaps .*, line 3, which counts"),
        (["a.mkv,kick,0,2", "a.mkv,kick,1.9,3"], 4, "overlaps .*, line 3, which counts"),
        (["a.mkv,kick,,", "a.mkv,kick,1,2"], 4, "overlaps .*, line 3, which counts"),
        (["a.mkv,kick,1,", "a.mkv,wave,7,9"], 4, "overlaps .*, line 3, which counts"),
        (["a.mkv,kick,1,2", "a.mkv,wave,1,2"], None, "listed again with another label"),
        (["c.mkv,kick,1,2"], None, "no such file"),
    ],
)
def test_rows_that_are_left_out_are_told(two: Path, rows: list[str], place: int | None, reason: str) -> None:
    data = read_manifest(manifest(two, "b.mkv,kick,0,1", *rows))
    (problem,) = data.problems
    assert len(data.entries) == len(rows)
    assert place is None or problem.path.endswith(f"list.csv, line {place}")
    assert re.search(reason, problem.reason)


def test_neighbours_do_not_overlap(two: Path) -> None:
    rows = [f"a.mkv,{'kick' if i % 2 else 'wave'},{i / 3},{(i + 1) / 3}" for i in range(9)]
    data = read_manifest(manifest(two, *rows))
    assert len(data.entries) == 9 and not data.problems


def test_segments_in_training_and_test_are_doubtful_and_copies_are_found(two: Path) -> None:
    columns = "path,label,start,end,split"
    rows = ["a.mkv,kick,0,1,train", "a.mkv,wave,1,2,test", "b.mkv,kick,0,1,train", "b.mkv,wave,1,2,train"]
    data = read_manifest(manifest(two, *rows, columns=columns))
    assert any(
        "1 file with segments in training and in test" in line
        for line in doubts(data.classes, parts_of(data), [])
    )
    assert not same_bytes(each.path for each in data.entries)
    assert len(set(digests([each.path for each in data.entries]).values())) == 4
    (two / "copy.mkv").write_bytes((two / "a.mkv").read_bytes())
    paths = [two / "copy.mkv#t=0,1", *(each.path for each in data.entries)]
    assert same_bytes(paths) == [[two / "copy.mkv#t=0,1", two / "a.mkv#t=0,1"]]
    found = digests(paths)
    assert found[paths[0]] == found[two / "a.mkv#t=0,1"] != found[two / "a.mkv#t=1,2"]


def test_a_name_that_is_no_segment_is_its_own_reason(long_file: Path) -> None:
    names = [f"{long_file}#t=0,1", f"{long_file}#t=5,3", f"{long_file}#t=1:99,2", f"{long_file}#t=4,"]
    found = each_file(probe, [Path(name) for name in names])
    reasons = [each.reason if isinstance(each, DecodeError) else each.frames for each in found.values()]
    assert reasons[0] == 10 and reasons[3] == 10
    assert "expected an end after the start" in str(reasons[1])
    assert "expected seconds or h:m:s" in str(reasons[2])
    assert stem_of(Path("a/b.mp4#t=0,0.48")) == "b#t=0,0.48" and stem_of(Path("a/b.c.mp4")) == "b.c"


# Times that are written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fps",
    [5.0, 7.3, 10.0, 12.0, 15.0, 18.0, 23.976, 24000 / 1001, 25.0, 29.97, 30000 / 1001, 30.0, 60.0, 119.88],
)
def test_each_border_read_back_is_the_frame_that_it_was_made_from(tmp_path: Path, fps: float) -> None:
    spec = ClipSpec("wave", height=32, width=32, frames=300, fps=fps)
    write_frames(pictures(300, height=32, width=32), spec, tmp_path / "a.mp4")
    rate = stored_rate(fps)
    cuts = [0, 1, *range(7, 300, 7)]
    rows = [
        f"a.mp4,{number % 2},{','.join(time_text(written_time(float(each / rate))) for each in span)}"
        for number, span in enumerate(itertools.pairwise(cuts))
    ]
    data = read_manifest(manifest(tmp_path, *rows))
    assert not data.problems
    found = [scan(entry.path) for entry in data.entries]
    assert [(each.first, each.first + each.info.frames) for each in found] == list(itertools.pairwise(cuts))


@pytest.mark.parametrize("fps", [10.0, 15.0, 25.0, 30.0, 60.0])
def test_a_time_that_a_person_writes_is_that_of_its_frame(tmp_path: Path, fps: float) -> None:
    """Every frame that is shown at a whole tenth of a second; files keep times as ticks, floats of them differ."""
    spec = ClipSpec("wave", height=32, width=32, frames=600, fps=fps)
    write_frames(pictures(600, height=32, width=32), spec, tmp_path / "a.mp4")
    times = scan(tmp_path / "a.mp4").timestamps
    for tenths in range(int(6000 / fps)):
        frame = tenths * fps / 10
        if frame.is_integer():
            assert np.searchsorted(times, seconds(f"{tenths // 10}.{tenths % 10}")) == frame


def test_rendered_events_begin_and_end_with_their_frames(tmp_path: Path) -> None:
    spec = DatasetSpec(
        train_clips=2, test_clips=1, classes=["wave", "nod"], height=32, width=32, fps=7.3, performers=4
    )
    folder = render_untrimmed(tmp_path / "long", spec, 20.0, workers=1)
    data = open_data(folder / "clips.csv")
    found = [
        (file_of(entry.path).name, data.classes[entry.label], each.first, each.first + each.info.frames)
        for entry in data.entries
        for each in [scan(entry.path)]
    ]
    assert found == [
        (Path(path).name, *each)
        for path, _, clip in replace(spec, frames=146).clips()
        for each in timeline(clip, ("wave", "nod"))
        if each[0] != IDLE
    ]


# Background ------------------------------------------------------------------------------------------------------


def test_background_shares_no_frame_with_a_row(tmp_path: Path) -> None:
    """Borders of thirds of a second, which no decimal number is."""
    write(tmp_path / "a.mkv", pictures(90, height=32, width=32), rate=3)
    cuts = [(7, 11), (16, 20), (29, 33), (41, 47), (58, 62), (71, 75)]
    rows = [
        f"a.mkv,{number % 2},{written_time(start / 3)},{written_time(end / 3)}"
        for number, (start, end) in enumerate(cuts)
    ]
    data = with_background(read_manifest(manifest(tmp_path, *rows)), "nothing")
    shown: dict[int, int] = {}
    for number, entry in enumerate(data.entries):
        each = scan(entry.path)
        for frame in range(each.first, each.first + each.info.frames):
            assert shown.setdefault(frame, number) == number
    assert len(data.entries) > len(cuts)


@pytest.mark.parametrize("gaps", [(2.0, 3.0, 1.0), (0.0, 6.0, 0.0), (0.2, 0.3, 5.5), (1.0, 1.0, 4.0)])
@pytest.mark.parametrize("rows", [1, 3])
def test_background_is_time_that_no_row_covers(tmp_path: Path, gaps: tuple[float, ...], rows: int) -> None:
    """Two labelled seconds and six others in each file of eight seconds."""
    lines = []
    for number in range(rows + 1):
        write(tmp_path / f"{number}.mkv", pictures(80, seed=number))
        first, second = gaps[0], gaps[0] + 1 + gaps[1]
        split = "train" if number else "test"
        for start, label in ((first, "kick"), (second, "wave")):
            lines.append(f"{number}.mkv,{label},{split},{start:g},{start + 1:g}")
    data = read_manifest(manifest(tmp_path, *lines, columns="path,label,split,start,end"))
    found = with_background(data, "nothing")
    assert found.classes == ["kick", "wave", "nothing"]
    added = found.entries[len(data.entries) :]
    assert found.entries[: len(data.entries)] == data.entries and {each.label for each in added} == {2}
    assert len([each for each in added if each.split == "test"]) == 1  # as many as of a class
    assert len([each for each in added if each.split == "train"]) == rows
    taken: dict[Path, list[tuple[float, float]]] = {}
    for entry in found.entries:
        segment = segment_of(entry.path)
        assert segment is not None and segment.end is not None and segment.start >= 0 and segment.end <= 8
        assert all(segment.end <= start or end <= segment.start for start, end in taken.get(segment.file, []))
        taken.setdefault(segment.file, []).append((segment.start, segment.end))
        assert entry.group == segment.file.name and (entry.split == "test") == (segment.file.name == "0.mkv")
    times = [segment_of(each.path) for each in added]
    assert all(each and each.end and round(each.end - each.start, 3) == 1 for each in times)
    assert with_background(data, "nothing") == found
    assert "are the class 'nothing'" in found.notes[-1]


def test_background_fills_a_gap_that_holds_two(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", pictures(48))
    rows = ["a.mkv,kick,0.96,1.44", "a.mkv,wave,1.44,1.92", "a.mkv,nod,2.88,3.36", "a.mkv,tap,3.36,3.84"]
    data = with_background(read_manifest(manifest(tmp_path, *rows)), "nothing")
    assert data.counts()["nothing"] == 1  # one of each class
    more = [
        f"a.mkv,kick,{start:.2f},{start + 0.24:.2f}"
        for start in (0.96, 1.2, 1.44, 1.68, 2.88, 3.12, 3.36, 3.6)
    ]
    data = with_background(read_manifest(manifest(tmp_path, *more)), "nothing")
    assert data.counts()["nothing"] == 8  # 1.92 seconds without a row before, between and behind them


def test_background_that_there_is_not(two: Path) -> None:
    covered = read_manifest(manifest(two, "a.mkv,kick,0,1.5", "a.mkv,wave,1.5,", "b.mkv,kick,,"))
    with pytest.raises(UserError, match=r"leaves no time of 1\.5 s for a class 'nothing'"):
        with_background(covered, "nothing")
    with pytest.raises(UserError, match="has a class 'kick' already"):
        with_background(covered, "kick")
    whole = read_manifest(manifest(two, "a.mkv,kick", "b.mkv,wave", columns="path,label"))
    with pytest.raises(UserError, match="no rows with start and end"):
        with_background(whole, "nothing")


def test_what_overlaps_a_row_is_no_background(two: Path) -> None:
    rows = ["a.mkv,kick,0,1", "a.mkv,wave,0.5,3", "b.mkv,wave,0,1"]
    data = with_background(read_manifest(manifest(two, *rows)), "nothing")
    (added,) = data.entries[2:]
    assert added.path == two / "b.mkv#t=1.5,2.5"  # and nothing of a.mkv


@pytest.mark.parametrize("label", ["", "-1"])
@pytest.mark.parametrize("times", ["1.0,4.0", ",", "4.0,1.0", "soon,"])
def test_what_a_row_without_a_label_names_is_no_background(two: Path, label: str, times: str) -> None:
    """Somebody saw something there; where the row does not say when, it may be anywhere in its file."""
    rows = ["a.mkv,0,0,1.0", "b.mkv,1,0,1.0", f"a.mkv,{label},{times}"]
    data = with_background(read_manifest(manifest(two, *rows)), "nothing")
    added = [segment_of(entry.path) for entry in data.entries if entry.label == 2]
    assert added and len(data.problems) >= 1
    for segment in added:
        assert segment is not None and segment.end is not None
        if times == "1.0,4.0":
            assert segment.start >= (4.0 if segment.file.name == "a.mkv" else 1.0)
        else:
            assert segment.file.name == "b.mkv"
    said = [each.path for each in data.problems if "does not say when" in each.reason]
    assert said == ([] if times == "1.0,4.0" else [str(two / "a.mkv")])


def test_background_beside_rows_that_lie_behind_their_file(two: Path) -> None:
    rows = [
        "a.mkv,kick,1000,1010",
        "a.mkv,kick,2000,2010",
        "b.mkv,kick,0,1",
        "b.mkv,wave,1,2",
        "b.mkv,wave,9,99",
    ]
    data = with_background(read_manifest(manifest(two, *rows)), "nothing")
    spans = [segment_of(each.path) for each in data.entries[5:]]
    assert spans and all(each and each.end and each.end - each.start == 1 and each.end <= 3 for each in spans)


@pytest.mark.parametrize("rows", [["a.mkv,kick,1000,1010"], ["text.mkv,kick,0,1", "text.mkv,wave,1,2"]])
def test_background_of_nothing_that_can_be_decoded(two: Path, rows: list[str]) -> None:
    (two / "text.mkv").write_text("no video")
    with pytest.raises(
        UserError, match=r"^no row of list lies in a file that can be decoded, .* says what is wrong"
    ):
        with_background(read_manifest(manifest(two, *rows)), "nothing")


# The whole way -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joined(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The synthetic clips cut without loss, and the same ones joined into long files with gaps: two lists."""
    folder = tmp_path_factory.mktemp("joined")
    cut_rows, long_rows = ["path,label,split,group"], ["path,label,split,group,start,end"]
    data = open_data(clips / "clips.csv")
    for number, some in enumerate(data.entries[i : i + 8] for i in range(0, len(data.entries), 8)):
        frames, at = [], 0
        for index, entry in enumerate(some):
            shown = reference(entry.path, 0, None)
            gap = pictures(index % 3, seed=index, height=64, width=64).reshape(-1, 64, 64, 3)
            frames += [gap, shown]
            at += len(gap)
            name = f"cut/{number}-{index}.mkv"
            write(folder / name, shown)
            label = data.classes[entry.label]
            cut_rows.append(f"{name},{label},{entry.split},{entry.group}")
            times = f"{at / RATE:g},{(at + len(shown)) / RATE:g}"
            long_rows.append(f"long{number}.mkv,{label},{entry.split},{entry.group},{times}")
            at += len(shown)
        write(folder / f"long{number}.mkv", np.concatenate(frames))
    for name, rows in (("cut.csv", cut_rows), ("long.csv", long_rows)):
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder / "cut.csv", folder / "long.csv"


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("cache", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_training_on_segments_is_training_on_files_that_were_cut(
    joined: tuple[Path, Path], tmp_path: Path, cache: str
) -> None:
    """Bit for bit, and so are the scores of the test segments."""
    runs = []
    for file in joined:
        out = tmp_path / file.stem
        runs.append(train(open_data(file), longer(2, 1), out, replace(PLAIN, cache=cache)))
    cut, segments = (
        {name: value for name, value in made(run).items() if name.endswith((".safetensors", "metrics.csv"))}
        for run in runs
    )
    assert cut == segments
    listed = [[each.path for each in open_data(file).entries if each.split == "test"] for file in joined]
    model = load(runs[0])
    for one, other in zip(*(model.predict_many(paths) for paths in listed), strict=True):
        assert not isinstance(one, DecodeError) and not isinstance(other, DecodeError)
        assert all(np.array_equal(one.scores[name], other.scores[name]) for name in one.scores)


@pytest.mark.usefixtures("no_curves")
def test_commands_take_segments(joined: tuple[Path, Path], run: Path, two: Path, tmp_path: Path) -> None:
    def command(*words: object) -> str:
        result = CliRunner().invoke(app, [str(each) for each in words])
        assert result.exit_code == 0, result.output
        return result.output

    run = shutil.copytree(run, tmp_path / "run")  # whose card an evaluation writes anew
    _, segments = joined
    out = command("data", "check", segments)
    assert "24 videos" in out and "total: seconds of the class" in out
    gaps = manifest(two, "a.mkv,kick,0,1", "b.mkv,wave,1,2")
    assert "are the class 'none'" in command("data", "check", gaps, "--background", "none")
    command("evaluate", run, segments, "--out", tmp_path / "evaluation", "--num-clips", "1", "--crops", "1")
    rows = (tmp_path / "evaluation" / "scores.csv").read_text()
    assert "long0.mkv#t=" in rows or "long2.mkv#t=" in rows
    command("report", tmp_path / "evaluation")
    first = open_to_look(segments).entries[0].path
    told = command("predict", run, first)
    assert first.name in told
    command("explain", run, first, "--out", tmp_path / "look.png")
    assert (tmp_path / "look.png").stat().st_size > 0
