"""Several labels a video: lists, splits, counts, and clips that show several actions at once."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.data.check import check
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.exchange.writing import write_data
from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.data.places import read_places
from peakzoom.data.splits import split_validation
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.data.synthetic.people import ACTIONS
from peakzoom.data.synthetic.scene import ClipSpec, render_clip, telling_parts
from peakzoom.data.synthetic.untrimmed import render_untrimmed
from peakzoom.utils.errors import UserError


def listed(folder: Path, *rows: str, columns: str = "path,label", names: str = "abcdefg") -> Path:
    for name in names:
        (folder / f"{name}.mp4").touch()
    file = folder / "list.csv"
    file.write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")
    return file


def labels(data: VideoSet) -> dict[str, list[str]]:
    return {entry.path.stem: [data.classes[label] for label in entry.labels] for entry in data.entries}


def test_labels_are_separated(tmp_path: Path) -> None:
    file = listed(tmp_path, "a.mp4,run", "b.mp4,wave;run", "c.mp4, wave ; jump;wave;", "d.mp4,;", "e.mp4,")
    data = read_manifest(file, multi_label=True)
    assert data.multi_label and data.classes == ["jump", "run", "wave"]
    assert labels(data) == {"a": ["run"], "b": ["run", "wave"], "c": ["jump", "wave"]}
    assert data.counts() == {"jump": 1, "run": 2, "wave": 2}
    assert [problem.reason for problem in data.problems] == ["no label", "no label"]
    assert data.notes == ["read as a manifest"]


def test_without_the_option_it_is_one_name_and_is_said(tmp_path: Path) -> None:
    data = read_manifest(listed(tmp_path, "a.mp4,run", "b.mp4,wave;run", "c.mp4,jump"))
    assert not data.multi_label and data.classes == ["jump", "run", "wave;run"]
    assert (
        data.notes[1]
        == "labels with a ';' are one class each: 'wave;run'; --multi-label reads several a video"
    )
    assert read_manifest(listed(tmp_path, "a.mp4,run", "b.mp4,wave")).notes == ["read as a manifest"]


@pytest.mark.parametrize("separator", [",", ", ", "|", " / ", "+", "&"])
def test_another_separator_is_said(tmp_path: Path, separator: str) -> None:
    """Only of names whose parts all come elsewhere: a name may have such a character of its own."""
    rows = [
        f'a.mp4,"wave{separator}run"',
        "b.mp4,wave;jump",
        f'c.mp4,"run{separator}wave"',
        'd.mp4,"run, fast"',
    ]
    data = read_manifest(listed(tmp_path, *rows), multi_label=True)
    one, other = (separator.join(pair) for pair in (("run", "wave"), ("wave", "run")))
    assert data.classes == sorted(["jump", "run, fast", one, "wave", other])
    assert data.notes[1:] == [
        f"2 labels made of others: {one!r}, {other!r}, one class each; several labels are separated by ';'"
    ]


def test_numbers_and_names(tmp_path: Path) -> None:
    file = listed(
        tmp_path,
        *(
            "a.mp4,10;2.0,ten;two",
            "b.mp4,2,two",
            "c.mp4,7;10,seven;ten",
            "d.mp4,2;7,two",
            "e.mp4,-1;2,none;two",
        ),
        columns="path,label,class",
    )
    data = read_manifest(file, multi_label=True)
    assert data.classes == ["two", "seven", "ten"]
    assert labels(data) == {"a": ["two", "ten"], "b": ["two"], "c": ["seven", "ten"]}
    assert [problem.reason for problem in data.problems] == [
        "2 labels and 1 class name, expected one for each",
        "negative label",
    ]
    with pytest.raises(UserError, match="label 2 is called 'zwei', but 'two' before"):
        read_manifest(
            listed(tmp_path, "a.mp4,2,two", "b.mp4,1;2,one;zwei", columns="path,label,class"), None, True
        )


def test_a_file_listed_again(tmp_path: Path) -> None:
    data = read_manifest(listed(tmp_path, "a.mp4,x;y", "a.mp4,y;x", "a.mp4,x", "b.mp4,y"), multi_label=True)
    assert [problem.reason for problem in data.problems] == [
        "listed again; the first row counts",
        "listed again with another label; the first row counts",
    ]


def test_labels_by_name_in_another_order(tmp_path: Path) -> None:
    data = read_manifest(listed(tmp_path, "a.mp4,run;wave", "b.mp4,jump;wave"), multi_label=True)
    other = data.with_classes(["wave", "run", "walk", "jump"])
    assert labels(other) == {"a": ["wave", "run"], "b": ["wave", "jump"]}
    assert other.entries[1].labels == (0, 3)
    with pytest.raises(UserError, match="has classes that are not among the 2 expected: 'jump'"):
        data.with_classes(["wave", "run"])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grouped", [False, True])
def test_every_class_keeps_a_training_video(seed: int, grouped: bool) -> None:
    random = np.random.default_rng(seed)
    entries = []
    for number in range(60):
        several = random.choice(8, int(random.integers(1, 4)), replace=False, p=np.arange(8, 0, -1) / 36)
        entry = Entry(Path(f"{number}.mp4"), 0, group=f"g{number // 4}" if grouped else None)
        entries.append(entry.labelled(several.tolist()))
    train, val = split_validation(entries, 0.25, seed)
    assert len(train) + len(val) == 60 and 6 <= len(val) <= 24
    there = Counter(label for entry in entries for label in entry.labels)
    left = Counter(label for entry in train for label in entry.labels)
    assert left.keys() == there.keys()
    share = {label: 1 - left[label] / count for label, count in there.items() if count > 12}
    assert all(0.05 < each < 0.5 for each in share.values())
    if grouped:
        assert not {entry.group for entry in train} & {entry.group for entry in val}
    assert {entry.path: entry.labels for entry in (*train, *val)} == {
        each.path: each.labels for each in entries
    }


def test_the_last_video_of_a_class_stays(tmp_path: Path) -> None:
    """Each video alone could go; one holds the last of a class."""
    entries = [Entry(Path(f"{number}.mp4"), 0) for number in range(8)]
    entries[3] = entries[3].labelled((0, 1))
    for seed in range(20):
        train, _ = split_validation(entries, 0.5, seed)
        assert any(1 in entry.labels for entry in train)


# Clips -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = DatasetSpec(20, 4, height=48, width=64, frames=4, performers=6, backgrounds=4, together=3)
    return render_dataset(tmp_path_factory.mktemp("together") / "clips", spec, workers=1)


def test_a_clip_shows_actions_of_different_parts(together: Path) -> None:
    data = open_data(together / "clips.csv", multi_label=True)
    assert not data.problems and len(data.entries) == 24 and set(data.classes) <= set(ACTIONS)
    counts = Counter(len(entry.labels) for entry in data.entries)
    assert set(counts) == {1, 2, 3}
    for entry in data.entries:
        parts = [ACTIONS[data.classes[label]][1] for label in entry.labels]
        assert len(set(parts)) == len(parts)
    places = read_places(together / "places.csv")
    for entry in data.entries:
        shown = places[entry.path.resolve()] if entry.path.resolve() in places else places[entry.path]
        parts = sorted(ACTIONS[data.classes[label]][1] for label in entry.labels)
        assert sorted(place.part for place in shown[2]) == parts


def test_a_further_action_moves_its_own_part() -> None:
    one = ClipSpec("wave", height=64, width=96, frames=10, seed=4, difficulty=0.0)
    both = ClipSpec("wave", height=64, width=96, frames=10, seed=4, difficulty=0.0, also=("nod",))
    (hand,), (same, head) = telling_parts(one), telling_parts(both)
    np.testing.assert_array_equal(hand[1], same[1])
    assert head[0] == "head"
    rows, columns = np.nonzero((render_clip(one) != render_clip(both)).any((0, 1)))
    x, y = head[1].mean(0)
    assert len(rows) and (np.hypot(rows - y, columns - x) < 2.5 * head[2]).all()
    with pytest.raises(UserError, match="wave and drink move one part of the body"):
        ClipSpec("wave", also=("drink",))


def test_one_at_a_time_gives_the_clips_that_it_gave() -> None:
    spec = DatasetSpec(7, 3, performers=6, backgrounds=4)
    more = DatasetSpec(7, 3, performers=6, backgrounds=4, together=2)
    for (path, split, one), (_, _, other) in zip(spec.clips(), more.clips(), strict=True):
        assert path.startswith(f"{one.action}/{split}_") and one.also == ()
        assert (one.performer, one.background, one.seed) == (other.performer, other.background, other.seed)


def test_what_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one action at a time; leave --together out"):
        render_untrimmed(tmp_path / "long", DatasetSpec(1, 1, together=2), 10.0)
    with pytest.raises(UserError, match="0 actions are to be together"):
        DatasetSpec(together=0)


def test_data_check_counts_each_label(together: Path) -> None:
    with (together / "clips.csv").open(newline="") as stream:
        counts = Counter(name for row in csv.DictReader(stream) for name in row["label"].split(";"))
    report = check(open_data(together / "clips.csv", multi_label=True))
    assert {each.name: each.splits.total() for each in report.classes} == counts
    for arguments, said in (((), "one class each: "), (("--multi-label",), "24 videos, 10 classes")):
        words = ["data", "check", str(together / "clips.csv"), "--workers", "1", *arguments]
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0 and said in found.output


def test_tools_keep_one_label_a_segment(together: Path, tmp_path: Path) -> None:
    data = open_data(together / "clips.csv", multi_label=True)
    with pytest.raises(
        UserError, match="has several labels, and cvat keeps one a segment here: convert to a manifest"
    ):
        write_data(data, together, "cvat", tmp_path / "cvat")
    written = write_data(data, together, "manifest", tmp_path / "list")
    again = open_data(written.data, root=together, multi_label=True)
    assert labels(again) == labels(data) and again.classes == data.classes
