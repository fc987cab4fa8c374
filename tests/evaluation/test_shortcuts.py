"""Shortcuts against data made so that one thing alone tells the classes, and against published floors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import write
from PIL.Image import Resampling

from peakzoom.cli import main
from peakzoom.cli.shortcuts import _cameras
from peakzoom.data.check import check
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.glimpses import GREY, PARTS, SIDE, Glimpse, glimpse
from peakzoom.evaluation.shortcuts import (
    CHANGES,
    MAJORITY,
    NUMBERS,
    SHORTCUTS,
    STILL,
    cameras_of_one_class,
    find_shortcuts,
    paired,
)
from peakzoom.utils.errors import UserError
from peakzoom.video.scan import VideoInfo

CLASSES = ["bend", "jump", "walk"]


def seen(path: Path, size: int, still: np.ndarray, background: np.ndarray, changes: np.ndarray) -> Glimpse:
    info = VideoInfo(path, size, 0, 25.0, 100, 200, 0, 1.0, False, "h264", None)
    return Glimpse(info, 1000 * size, still, background, changes)


def data_where(tells: str, videos: int = 90, groups: int = 30) -> tuple[VideoSet, dict[Path, Glimpse]]:
    """Videos in which this alone tells the class; all else is noise, another of every video."""
    rng = np.random.default_rng(5)
    marks = rng.normal(0, 60, (len(CLASSES), SIDE, SIDE, 3))
    entries, glimpses = [], {}
    for number in range(videos):
        label = int(rng.integers(len(CLASSES)))
        split = "test" if number % groups < groups // 2 else "train"
        entry = Entry(Path(f"/clips/{number}.mp4"), label, split, f"group {number % groups}")
        size = 40 + 30 * label if tells == NUMBERS else 70
        still = rng.normal(128, 40, (SIDE, SIDE, 3)) + (marks[label] if tells == STILL else 0)
        changes = rng.normal(9, 3, (PARTS, SIDE, SIDE))
        if tells == CHANGES:
            changes[label] *= 2  # this part of the video moves most
        background = rng.normal(128, 40, (SIDE, SIDE, 3))
        entries.append(entry)
        glimpses[entry.path] = seen(entry.path, size + int(rng.integers(9)), still, background, changes)
    return VideoSet(CLASSES, entries, [], "made"), glimpses


@pytest.mark.parametrize("tells", [NUMBERS, STILL, CHANGES, "nothing"])
def test_what_tells_the_classes_is_found_and_nothing_else(tells: str) -> None:
    found = find_shortcuts(*data_where(tells))
    assert [each.name for each in found.guesses] == list(SHORTCUTS) and len(found.entries) == 45
    assert found.groups is not None and len(set(found.groups)) == 15
    for each in found.guesses:
        low, high = each.interval
        assert low <= each.top1 <= high
        if each.name == tells:
            assert each.top1 > 0.9 and low > 0.6 and found.best == each
            assert paired(found, each.right, found.guess(MAJORITY).right).p < 0.01
        else:
            assert each.top1 < 0.6, each.name
    assert found.cameras == []


def test_the_most_frequent_class_of_the_training_is_guessed() -> None:
    data, glimpses = data_where("nothing")
    train = [entry.label for entry in data.entries if entry.split == "train"]
    most = max(range(3), key=train.count)
    right = [entry.label == most for entry in data.entries if entry.split == "test"]
    assert find_shortcuts(data, glimpses).guess(MAJORITY).right.tolist() == right


def test_order_of_the_videos_changes_no_guess() -> None:
    data, glimpses = data_where(STILL)
    turned = replace(data, entries=data.entries[::-1])
    one, other = find_shortcuts(data, glimpses), find_shortcuts(turned, glimpses)
    assert {each.name: each.top1 for each in one.guesses} == pytest.approx(
        {each.name: each.top1 for each in other.guesses}, abs=0.05
    )


def test_few_videos_are_enough() -> None:
    """One video a class, one class, no groups: no fold can be cut, and a guess is made all the same."""
    data, glimpses = data_where(NUMBERS)
    test = [entry for entry in data.entries if entry.split == "test"]
    train = {entry.label: entry for entry in data.entries if entry.split == "train"}
    for few in (list(train.values()), [train[0]]):
        bare = [replace(entry, group=None) for entry in [*few, *test]]
        found = find_shortcuts(replace(data, entries=bare), glimpses)
        assert found.groups is None and len(found.best.right) == len(test)


@pytest.mark.parametrize("left", ["train", "test"])
def test_both_parts_are_needed(left: str) -> None:
    data, glimpses = data_where("nothing")
    entries = [entry for entry in data.entries if entry.split == left]
    with pytest.raises(UserError, match="expected some of each"):
        find_shortcuts(replace(data, entries=entries), glimpses)


def test_cameras_that_filmed_one_class_are_named() -> None:
    """Eight videos of one camera in changing light; a camera with two classes and black backgrounds are none."""
    data, glimpses = data_where("nothing")
    rng = np.random.default_rng(1)
    wall, hall = rng.normal(128, 40, (2, SIDE, SIDE, 3))
    by_class = [[entry for entry in data.entries if entry.label == label] for label in range(3)]
    filmed = [(entry, wall) for entry in by_class[1][:8]]
    filmed += [(entry, hall) for entry in [*by_class[0][:8], *by_class[2][:8]]]
    filmed += [(entry, np.zeros((SIDE, SIDE, 3))) for entry in by_class[0][8:16]]
    for entry, place in filmed:
        background = place * rng.uniform(0.7, 1.2) + rng.normal(0, 3, place.shape)
        if not place.any():
            background = np.full(place.shape, rng.uniform(0, 20))
        glimpses[entry.path] = replace(glimpses[entry.path], background=background)
    (camera,) = cameras_of_one_class(data.entries, CLASSES, glimpses)
    assert camera.name == "jump" and camera.videos == [entry.path for entry in by_class[1][:8]]
    assert camera.tested == sum(entry.split == "test" for entry in by_class[1][:8])


def test_groups_of_a_manifest_name_what_backgrounds_do_not() -> None:
    """A camera that moves has no background; its maker knows it. Those that file names tell are of one class always."""
    data, glimpses = data_where("nothing")
    jumps = [entry for entry in data.entries if entry.label == 1]
    of = {
        entry.path: "cam\x1b7" if entry in jumps[:8] else "cam1" if entry in jumps[8:10] else "cam2"
        for entry in data.entries
    }
    data = replace(data, entries=[replace(entry, group=of[entry.path]) for entry in data.entries])
    assert find_shortcuts(data, glimpses).cameras == []
    data = replace(data, own_groups=True)
    (camera,) = find_shortcuts(data, glimpses).cameras  # two videos of cam1 are of one class by chance
    assert (camera.group, camera.name) == ("cam\x1b7", "jump")
    assert camera.videos == [entry.path for entry in jumps[:8]]
    assert camera.tested == sum(entry.split == "test" for entry in jumps[:8])
    # The wall of that camera tells nothing new, that of another one does.
    rng = np.random.default_rng(1)
    for filmed in (jumps[:8], jumps[10:18]):
        wall = rng.normal(128, 40, (SIDE, SIDE, 3))
        for entry in filmed:
            glimpses[entry.path] = replace(
                glimpses[entry.path], background=wall + rng.normal(0, 3, wall.shape)
            )
    both = find_shortcuts(data, glimpses).cameras
    assert [each.group for each in both] == ["cam\x1b7", None]
    assert both[1].videos == [entry.path for entry in jumps[10:18]]
    said = _cameras(find_shortcuts(data, glimpses).cameras)
    assert said[0].startswith("group cam\\x1b7 holds jump only: 8 videos (")
    assert said[1].startswith("a camera has filmed jump only: 8 videos (")


@pytest.mark.parametrize("columns", ["path,label", "path,label,group"])
def test_a_manifest_says_whether_groups_are_its_own(clips: Path, tmp_path: Path, columns: str) -> None:
    rows = [
        f"{entry.path},{entry.label},x"[: None if "group" in columns else -2]
        for entry in open_data(clips / "clips.csv").entries
    ]
    (tmp_path / "own.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    assert open_data(tmp_path / "own.csv", root=Path("/")).own_groups is ("group" in columns)


@pytest.mark.parametrize("frames", [1, 2, 7, 60])
def test_a_glimpse_is_what_a_plain_reading_gives(tmp_path: Path, frames: int) -> None:
    """All frames read by PyAV, resized by Pillow, subtracted in a loop."""
    path = write(tmp_path / "shown.avi", frames=frames, size=(96, 160))
    made = glimpse(path)
    with av.open(str(path)) as container:
        pictures = [
            frame.to_image().resize((SIDE, SIDE), Resampling.BILINEAR) for frame in container.decode(video=0)
        ]
    grid = np.array([np.asarray(picture) for picture in pictures], np.float64)
    assert (made.info.frames, made.bytes) == (frames, path.stat().st_size)
    np.testing.assert_allclose(made.still, grid[frames // 2], atol=3)
    apart = min(2, frames - 1)  # a tenth of a second at 25 frames a second
    first = [round(pair * (frames - 1 - apart) / 15) for pair in range(16)]
    np.testing.assert_allclose(made.background, np.median(grid[first], axis=0), atol=3)
    grey = grid @ GREY
    pairs = [np.abs(grey[number + apart] - grey[number]) for number in first]
    by_hand = [np.mean(pairs[4 * part : 4 * part + 4], axis=0) for part in range(PARTS)]
    np.testing.assert_allclose(made.changes, by_hand, atol=3)
    assert (frames == 1) == (not made.changes.any())


def test_a_run_is_told_whether_it_is_beyond(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run" / "test"
    run.mkdir(parents=True)
    test = [entry for entry in open_data(clips / "clips.csv").entries if entry.split == "test"]

    def told(predicted: str, tested: list[Entry] = test) -> tuple[str, int]:
        rows = [
            f"{each.path},{each.label},c{each.label},,fused,{predicted}{each.label},1.0" for each in tested
        ]
        text = "\n".join(["path,label,class,group,branch,predicted,c0", *rows])
        (run / "scores.csv").write_text(text + "\n", encoding="utf-8")
        words = ["peakzoom", "data", "check", clips / "clips.csv", "--against", run.parent, "--workers", 1]
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return printed.out + printed.err, int(ended.value.code or 0)

    text, code = told("c")
    assert code == 0 and all(name in text for name in SHORTCUTS) and f"({len(test)} test videos)" in text
    assert f"it is right in 100.0% of the {len(test)} videos" in text
    text, code = told("d")
    assert code == 0 and "has not been shown to be beyond" in text and "right in 0.0%" in text
    text, code = told("c", [Entry(Path("/other.avi"), 0)])
    assert code == 2 and "tested none of these videos" in text


@pytest.mark.slow
def test_floors_of_weizmann(shared_data: Path) -> None:
    """One person left out in turn; published beside the set: 13% by container numbers, 43% by one middle frame, 61%
    by a motion map, with ridge regression."""
    data = open_data(shared_data / "weizmann" / "clips.csv")
    glimpses = check(data, glimpses=True).glimpses
    right: dict[str, list[bool]] = {name: [] for name in SHORTCUTS}
    for person in sorted({str(entry.group) for entry in data.entries}):
        divided = [replace(e, split="test" if e.group == person else "train") for e in data.entries]
        for guess in find_shortcuts(replace(data, entries=divided), glimpses).guesses:
            right[guess.name] += guess.right.tolist()
    floors = {name: float(np.mean(values)) for name, values in right.items()}
    assert floors == {
        MAJORITY: pytest.approx(0.1),
        NUMBERS: pytest.approx(0.13, abs=0.08),
        STILL: pytest.approx(0.43, abs=0.08),
        CHANGES: pytest.approx(0.61, abs=0.08),
    }
