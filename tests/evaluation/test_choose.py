"""Which videos a model is tested on: none that it knows, under whatever name; and none that is lost without a word."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from peakzoom.cli import main
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.runs import run_videos
from peakzoom.evaluation.choose import choose_videos
from peakzoom.utils.digests import digests
from peakzoom.utils.durable import read_csv, write_csv
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment


def some_of(run: Path, split: str) -> Path:
    return next(entry.path for entry in run_videos(run).entries if entry.split == split)


@pytest.fixture(scope="module")
def other(run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other data: a copy of a training video, of a validation video and of a test video, and a new one."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("kick", "wave"):
        (folder / name).mkdir()
    for split in ("train", "val", "test"):
        shutil.copy(some_of(run, split), folder / "wave" / f"was_{split}.mp4")
    (folder / "kick" / "new.mp4").write_bytes(some_of(run, "test").read_bytes() + bytes(9))
    return folder


def test_copies_are_left_out_and_counted(run: Path, other: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of data without splits, as of a folder that was moved since."""
    data = open_data(other)
    chosen = choose_videos(data, run)
    assert {entry.path.name for entry in chosen.entries} == {"new.mp4", "was_test.mp4"}
    assert {Path(each.path).name for each in chosen.problems} == {"was_train.mp4", "was_val.mp4"}
    assert all("left out: it has the same bytes as /" in each.reason for each in chosen.problems)
    (said,) = caplog.messages
    assert ": 2, first " in said and "was_train.mp4 those of" in said and said.endswith("they are left out")
    with pytest.raises(UserError, match="no train videos"):
        choose_videos(data, run, "train")
    only = [entry for entry in data.entries if entry.path.name == "was_train.mp4"]
    with pytest.raises(UserError, match="no test videos that this run was not trained on"):
        choose_videos(replace(data, entries=only), run)


def test_copies_in_a_split_are_named(run: Path, other: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An official split is tested whole; only what the model was trained on flatters it."""
    data = open_data(other)
    for split, copies in (("test", ["was_train.mp4"]), ("train", [])):
        caplog.clear()
        marked = replace(data, entries=[replace(entry, split=split) for entry in data.entries])
        chosen = choose_videos(marked, run, split)
        assert chosen.entries == marked.entries
        assert [Path(each.path).name for each in chosen.problems] == copies
        assert len(caplog.messages) == len(copies)
        for said in caplog.messages:
            assert ": 1, first " in said and said.endswith("accuracies on them flatter the model")


def test_a_run_without_digests_or_with_none_of_these_says_nothing(
    run: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_csv(run / "videos.csv")
    columns = [name for name in rows[0] if name != "digest"]
    write_csv(tmp_path / "videos.csv", columns, ([row[name] for name in columns] for row in rows))
    assert len(choose_videos(open_data(other), tmp_path).entries) == 4
    test = choose_videos(run_videos(run), run)
    gone = replace(test, entries=[*test.entries, Entry(Path("/gone.mp4"), 0, "test")])
    assert choose_videos(gone, run).problems == [] and not caplog.messages


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_videos_that_the_training_could_not_decode_are_counted(
    run: Path, clip_data: VideoSet, tmp_path: Path, split: str
) -> None:
    """Of the run's own list and of the same data without splits; those with splits are tried again."""
    broken = some_of(run, "train")
    rows = read_csv(run / "videos.csv")
    for row in rows:
        row["split"] = "unreadable" if row["path"] == str(broken) else row["split"]
    write_csv(tmp_path / "videos.csv", list(rows[0]), (row.values() for row in rows))
    write_csv(tmp_path / "problems.csv", ["path", "reason"], [[broken, "is empty"]])
    shutil.copy(run / "config.json", tmp_path)
    bare = replace(clip_data, entries=[replace(entry, split=None) for entry in clip_data.entries])
    for data in (run_videos(tmp_path), bare):
        chosen = choose_videos(data, tmp_path, split)
        assert broken not in {entry.path for entry in chosen.entries}
        told = [(each.path, each.reason) for each in chosen.problems]
        assert told == ([] if split == "test" else [(str(broken), "is empty")])


def test_by_the_command(
    run: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = ["--num-clips", "1", "--crops", "1", "--workers", "0", "--device", "cpu", "--out"]
    run = Path(shutil.copytree(run, tmp_path / "run"))
    words = ["peakzoom", "evaluate", run / "tcnn", other, *quick, tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    assert "they are left out" in printed.err
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (summary["videos"], summary["unscored"]) == (2, 2)
    assert (
        len([row for row in read_csv(tmp_path / "out" / "problems.csv") if "same bytes" in row["reason"]])
        == 2
    )


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("tested", [False, True])
def test_what_is_chosen_on_a_runs_own_test_videos(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tested: bool, copied: bool
) -> None:
    """``calibrate RUN DATA --split test`` is refused, by path and by bytes; other data are taken."""
    (tmp_path / "data").mkdir()
    home = Path(shutil.copytree(run, tmp_path / "run"))
    rows = [("path", "label", "split")]
    for entry in run_videos(run).entries:
        if entry.split == ("test" if tested else "val"):
            place = tmp_path / "data" / entry.path.name if copied else entry.path
            if copied:
                shutil.copy(entry.path, place)
            rows.append((str(place), run_videos(run).classes[entry.label], "test"))
    for name in run_videos(run).classes:  # which the run does not know
        (tmp_path / "data" / f"{name}.mp4").write_bytes(some_of(run, "test").read_bytes() + bytes(9))
        rows.append((str(tmp_path / "data" / f"{name}.mp4"), name, "test"))
    write_csv(tmp_path / "data" / "list.csv", rows[0], rows[1:])
    quick = [
        "--root",
        "/",
        "--split",
        "test",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    for more in (["--num-clips", "1", "--crops", "1"], ["--events"]):
        words = ["peakzoom", "calibrate", home, tmp_path / "data" / "list.csv", *quick, *more]
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        monkeypatch.setattr("peakzoom.cli.calibrate.calibrate_events", lambda *_: None)
        said: list[str] = []
        monkeypatch.setattr("peakzoom.cli.say", said.append)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == (2 if tested else 0), said
        if tested:
            assert "would flatter its test" in said[-1] and ("the same as" in said[-1]) == copied
            assert not (home / "cascade").exists()


def test_segments_are_known_by_the_time_that_they_share(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same file, and of one with the same bytes: what overlaps a training segment, and nothing beside it."""
    source = some_videos(clips)
    for name in ("long", "copy"):
        (tmp_path / f"{name}.mp4").write_bytes(source.read_bytes())
    trained = [Segment(tmp_path / "long.mp4", start, start + 0.2).path for start in (0.0, 0.4)]
    found = digests(trained)
    (tmp_path / "run").mkdir()
    rows = [(path, 0, "kick", "", "train", found[path]) for path in trained]
    write_csv(tmp_path / "run" / "videos.csv", ["path", "label", "class", "group", "split", "digest"], rows)
    for name in ("long", "copy"):
        file = tmp_path / f"{name}.mp4"
        beside = [Segment(file, 0.2, 0.4).path, Segment(file, 0.6, None).path]
        shared = [
            file,
            Segment(file, 0.1, 0.3).path,
            Segment(file, 0.45, 0.5).path,
            Segment(file, 0.0, 0.2).path,
        ]
        data = VideoSet(["kick"], [Entry(path, 0) for path in beside + shared], [], name)
        chosen = choose_videos(data, tmp_path / "run")
        assert [entry.path for entry in chosen.entries] == beside
        assert len(chosen.problems) == (4 if name == "copy" else 0)  # those of the file itself are train's
        marked = replace(data, entries=[replace(entry, split="test") for entry in data.entries])
        if name == "long":
            with pytest.raises(UserError, match="4 of the 6 test videos of long are videos that"):
                choose_videos(marked, tmp_path / "run")
        else:
            caplog.clear()
            assert len(choose_videos(marked, tmp_path / "run").problems) == 4
            assert ": 4, first " in caplog.messages[0]


def some_videos(clips: Path) -> Path:
    return open_data(clips / "clips.csv").entries[0].path
