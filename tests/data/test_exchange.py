"""Exchange with annotation tools: what their documented files say, and what is written is read again as it was.

The files are made up in the structure that each tool documents (:mod:`data.tools`): docs.cvat.ai, "XML annotation
format"; labelstud.io, tags TimelineLabels and VideoRectangle, "Label Studio JSON format of annotated tasks";
ox-vgg/via, ``via-3.x.y/CodeDoc.md``; activity-net.org/download.html. The frames of segments are compared with those of
a plain decode.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.files import one_sentence
from data.tools import (
    activitynet,
    as_json,
    cvat,
    even,
    frame_times,
    rectangle,
    shape,
    task,
    timeline,
    track,
    via,
    video,
)
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.data.datasets import open_data, open_to_look
from peakzoom.data.entries import VideoSet
from peakzoom.data.exchange import contents
from peakzoom.data.exchange.clock import look
from peakzoom.data.exchange.reading import read_project
from peakzoom.data.exchange.writing import FORMATS, MAIN, write_data
from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.data.places import read_places
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment, file_of, segment_of

UNEVEN = [0, 0.1, 0.15, 0.4, 0.41, 0.5, 0.9, 1.0, 1.3, 1.31, 1.32, 2.0, 2.5, 3.1]
FILES = {
    "a.mp4": even(40, 10.0),
    "b.mp4": even(40, 10.0),
    "ntsc.mp4": even(50, 30000 / 1001),
    "whole/milliseconds.mkv": even(40, 30.0),
    "whole/gap.mp4": even(20, 15.0) + [time + 2 for time in even(20, 15.0)],
    "uneven.mp4": UNEVEN,
    "one frame.mp4": [0.0],
    "odd + names/ü & #1? 100%.mp4": even(30, 10.0),
    "odd + names/like.mp4#t=1,2": even(30, 10.0),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of even, uneven and interrupted rates; a.mp4 and b.mp4 have forty frames in four seconds."""
    root = tmp_path_factory.mktemp("films")
    for name, times in FILES.items():
        video(root / "new.mkv" if "#t=" in name else root / name, times)
        if "#t=" in name:  # a file that is called like a segment
            (root / "new.mkv").rename(root / name)
    return root


def listed(data: VideoSet, root: Path) -> list[tuple[str, str, str | None, str | None]]:
    """Path, class, split and group of each entry."""
    return [
        (str(each.path.relative_to(root)), data.classes[each.label], each.split, each.group)
        for each in data.entries
    ]


def found(data: VideoSet, root: Path) -> list[tuple[str, str]]:
    return [each[:2] for each in listed(data, root)]


def reasons(data: VideoSet) -> list[str]:
    return [each.reason for each in data.problems]


def shown_frames(path: Path) -> tuple[str, tuple[int, ...]]:
    """The file, and the numbers of the frames that a plain decode shows in a segment of it."""
    segment = segment_of(path) or Segment(path)
    end = math.inf if segment.end is None else segment.end
    times = frame_times(segment.file)
    return segment.file.name, tuple(at for at, time in enumerate(times) if segment.start <= time < end)


# Written and read again --------------------------------------------------------------------------------------------


def made_up(root: Path, seed: int) -> VideoSet:
    """A list of segments, whole files and open ends; times lie on frames, between them and beyond the files."""
    rng = random.Random(seed)
    rows = ["path,label,split,group,start,end"]
    for name in FILES:
        times = frame_times(root / name)
        split, group = rng.choice(["train", "val", "test", ""]), rng.choice(["ann", "bob", ""])
        label = rng.choice(["lift", "carry, slowly", 'a "quoted" <tag> & more'])
        if len(times) < 14 or rng.random() < 0.2:
            rows.append(f'"{name}","{label.replace(chr(34), chr(34) * 2)}",{split},{group},,')
            continue
        first = 0
        while first < len(times) - 2:
            after = rng.randint(first + 1, len(times) - 1)
            label = rng.choice(["lift", "carry, slowly", 'a "quoted" <tag> & more', "été 走"])
            between = rng.choice([0.0, 0.3, 0.9])
            start = times[first] + between * (times[min(first + 1, len(times) - 1)] - times[first])
            end = "" if after == len(times) - 1 and rng.random() < 0.5 else f"{times[after]:.6f}"
            if not end or float(end) > start:
                quoted = label.replace('"', '""')
                rows.append(f'"{name}","{quoted}",{split},{group},{start:.6f},{end}')
            first = after + rng.randint(0, 3)
    (root / f"list{seed}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_manifest(root / f"list{seed}.csv")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_read_again(films: Path, tmp_path: Path, form: str, seed: int) -> None:
    """The same files, frames, classes, splits and groups; and from the second time on the same to the letter."""
    data = made_up(films, seed)
    wanted = {
        (*shown_frames(each.path), data.classes[each.label], each.split): each.group for each in data.entries
    }
    wanted = {key: group for key, group in wanted.items() if key[1]}
    assert len({frames for _, frames, *_ in wanted}) > 5
    written = write_data(data, films, form, tmp_path / "first")
    again = open_data(written.data, root=films)
    back = {(*shown_frames(each.path), again.classes[each.label], each.split) for each in again.entries}
    assert {key for key in back if key[1]} == wanted.keys()
    assert sorted(again.classes) == sorted(data.classes) and not again.problems
    for each in again.entries:
        if not shown_frames(each.path)[1]:  # between two frames; tools that count none keep it
            continue
        group = wanted[(*shown_frames(each.path), again.classes[each.label], each.split)]
        if form == "cvat":
            group = file_of(each.path).relative_to(films).as_posix() if segment_of(each.path) else None
        assert each.group == group
    if form == "cvat":
        assert "has no place for groups" in written.notes[0]
    twice = write_data(again, films, form, tmp_path / "second")
    third = open_data(twice.data, root=films)
    assert listed(third, films) == listed(again, films)
    if form in ("cvat", "label-studio"):  # what counts frames is the same at once
        for file in (tmp_path / "first").iterdir():
            assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rate", [None, 24.0, 30.0, 1000.0])
def test_frames_survive_a_players_clock(films: Path, name: str, rate: float | None) -> None:
    """Each frame, and each stretch of frames, that such a clock can tell apart."""
    clock = look(films / name)
    rate = clock.player_rate if rate is None else rate
    count = len(clock.times)
    ticks = [clock.ticks(frame, frame + 1, rate)[0] for frame in range(count)]
    if rate == clock.player_rate:
        assert len(set(ticks)) == count
    for first in range(0, count, 3):
        for after in range(first + 1, count + 1, 4):
            start, end = clock.ticks(first, after, rate)
            back = clock.ticked(start, end, rate)
            same = range(count)
            assert back[0] == next(at for at in same if ticks[at] == ticks[first])
            assert back[1] == max(at for at in same if ticks[at] == ticks[after - 1]) + 1


@pytest.mark.parametrize("name", FILES)
def test_seconds_of_frames_are_of_those_frames(films: Path, name: str) -> None:
    clock = look(films / name)
    count = len(clock.times)
    for first in range(count):
        for after in {first + 1, (first + count + 1) // 2, count}:
            start, end = clock.seconds(first, after)
            path = Segment(films / name, start, end).path
            assert shown_frames(path)[1] == tuple(range(first, after))
            assert (start == 0) == (first == 0) and (end is None) == (after == count)


# CVAT --------------------------------------------------------------------------------------------------------------


def test_tracks_of_cvat(films: Path, tmp_path: Path) -> None:
    """Frames of the file; a track that is outside for a while is two; several of one label at a time are one."""
    file = cvat(
        tmp_path / "monday.xml",
        track(0, "lift", shape(3), shape(4), shape(9, 1), shape(20), shape(25, 1)),
        track(1, "carry", shape(10), shape(15, 1)),
        track(2, "carry", shape(12), shape(18, 1)),
        track(3, "lift", shape(30)),
        subset="Validation",
    )
    data = open_data(file, root=films)
    assert listed(data, films) == [
        ("a.mp4#t=0.3,0.9", "lift", "val", "a.mp4"),
        ("a.mp4#t=1,1.8", "carry", "val", "a.mp4"),
        ("a.mp4#t=2,2.5", "lift", "val", "a.mp4"),
        ("a.mp4#t=3", "lift", "val", "a.mp4"),
    ]
    assert not data.problems and data.notes[0] == "read as CVAT's tracks"
    assert "6 boxes are places for 'evaluate --places' and not trained on" in data.notes


def test_what_cvat_says_and_peakzoom_does_not_keep_is_counted(films: Path, tmp_path: Path) -> None:
    with_attribute = shape(3).replace("</box>", '  <attribute name="hands">2</attribute>\n    </box>')
    skeleton = (
        '    <skeleton frame="5" keyframe="1" z_order="0">\n'
        '      <points label="1" outside="0" occluded="0" keyframe="1" points="112.07,258.59"></points>\n'
        '      <points label="2" outside="1" occluded="0" keyframe="1" points="127.87,333.23"></points>\n'
        "    </skeleton>\n"
        '    <skeleton frame="8" keyframe="1" z_order="0">\n'
        '      <points label="1" outside="1" occluded="0" keyframe="1" points="112.07,258.59"></points>\n'
        "    </skeleton>\n"
    )
    file = cvat(
        tmp_path / "monday.xml",
        track(0, "lift", with_attribute, shape(4, 1)),
        track(1, "carry", skeleton),
        track(2, "carry", shape(20, tag="polygon"), shape(30, 1, tag="polygon")),
        subset="evening",
    )
    data = open_data(file, root=films)
    assert found(data, films) == [
        ("a.mp4#t=0.3,0.4", "lift"),
        ("a.mp4#t=0.5,0.8", "carry"),
        ("a.mp4#t=2,3", "carry"),
    ]
    assert data.entries[0].split is None
    assert data.notes[-1] == (
        "left out, for peakzoom has no place for it: 1 attribute, 2 polygons, 2 skeletons, 1 unknown subset"
    )


PROJECT_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <project>
      <id>2</id>
      <name>week</name>
      <tasks>
        <task><id>7</id><name>a.mp4</name><subset>Train</subset><start_frame>0</start_frame><stop_frame>39</stop_frame>
        <labels><label><name>lift</name></label></labels></task>
        <task><id>8</id><name>tuesday</name><subset>Test</subset><start_frame>0</start_frame><stop_frame>19</stop_frame>
        <frame_filter>step=5</frame_filter><source>b.mp4</source></task>
      </tasks>
      <subsets>Train
Test</subsets>
    </project>
    <dumped>2024-09-25 16:05:07.134046+03:00</dumped>
  </meta>
"""


def test_a_project_of_several_tasks_in_an_archive(films: Path, tmp_path: Path) -> None:
    """As CVAT exports one; a track that does not end goes on to its task's last frame, not to the file's."""
    file = cvat(
        tmp_path / "annotations.xml",
        track(0, "lift", shape(0), shape(10, 1), more=' task_id="7" subset="Train"'),
        track(1, "carry", shape(5), shape(10), more=' task_id="8" subset="Test"'),
        track(2, "carry", shape(5), more=' task_id="9"'),
        head=PROJECT_HEAD,
    )
    with zipfile.ZipFile(tmp_path / "week.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, "annotations.xml")
        archive.writestr("images/frame_000000.png", b"")
    for path in (file, tmp_path / "week.zip"):
        data = open_data(path, root=films)
        assert listed(data, films) == [
            ("a.mp4#t=0,1", "lift", "train", "a.mp4"),
            ("b.mp4#t=0.5,2", "carry", "test", "b.mp4"),
        ]
        assert [each.path for each in data.problems] == [f"{path}, track 2 of task 9"]
        assert reasons(data) == ["its task '9' is not in the file's head"]


def test_a_folder_of_cvats_files(films: Path, tmp_path: Path) -> None:
    cvat(tmp_path / "1.xml", track(0, "lift", shape(0), shape(10, 1)))
    cvat(tmp_path / "2.xml", track(0, "carry", shape(5), shape(10, 1)), source="b.mp4")
    (tmp_path / "other.xml").write_text("<settings/>")
    data = open_data(tmp_path, root=films)
    assert found(data, films) == [("a.mp4#t=0,1", "lift"), ("b.mp4#t=0.5,1", "carry")]
    assert data.notes[1] == "from 2 files"


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ((shape("x"),), "frame is 'x', expected a whole number from 0"),
        ((shape(-1),), "frame is '-1', expected a whole number from 0"),
        ((shape(1e30),), "frame is '1e+30', expected a whole number from 0"),
        ((shape(3, edges="a,1,2,3"),), "its box in frame 3 has no xtl, ytl, xbr, ybr in numbers"),
        ((shape(3, edges="nan,1,2,3"),), "its box in frame 3 has edges that no frame has"),
        ((), "no shape"),
        ((shape(400), shape(410, 1)), "begins at frame 400, and its file has 40 frames (4 s)"),
        (
            (shape(30), shape(50, 1)),
            "ends at frame 50, and its file has 40 frames (4 s): used as far as it goes",
        ),
    ],
)
def test_tracks_that_cannot_be_used(
    films: Path, tmp_path: Path, shapes: tuple[str, ...], reason: str
) -> None:
    good = track(0, "lift", shape(0), shape(10, 1)), track(1, "carry", shape(10), shape(20, 1))
    file = cvat(tmp_path / "monday.xml", *good, track(7, "lift", *shapes), frames=1000)
    data = open_data(file, root=films)
    assert (data.problems[0].path, data.problems[0].reason) == (f"{file}, track 7", reason)
    assert found(data, films)[:2] == [("a.mp4#t=0,1", "lift"), ("a.mp4#t=1,2", "carry")]
    assert found(data, films)[2:] == ([("a.mp4#t=3", "lift")] if "as far as" in reason else [])


# Label Studio ------------------------------------------------------------------------------------------------------


def test_the_timeline_of_label_studio(films: Path, tmp_path: Path) -> None:
    """Frames count from 1 by the task's fps, or else by the file's rate, and the last one belongs to the region."""
    content = [
        task(
            1,
            {"video": "/data/local-files/?d=a.mp4", "fps": 10},
            timeline("lift", 3, 5),
            timeline("carry", 7, 7),
        ),
        task(2, {"video": "/data/upload/3/8a7f2b1c-b.mp4"}, timeline("carry", 1, 40)),
        task(3, {"video": "s3://bucket/films/ntsc.mp4", "fps": 29.97}, timeline("lift", 31, 60)),
        task(4, {"video": "https://example.org/uneven.mp4", "fps": 100}, timeline("lift", 41, 42)),
    ]
    data = open_data(as_json(tmp_path / "export.json", content), root=films)
    assert found(data, films) == [
        ("a.mp4#t=0.2,0.5", "lift"),
        ("a.mp4#t=0.6,0.7", "carry"),
        ("b.mp4", "carry"),
        ("ntsc.mp4#t=1.001", "lift"),
        ("uneven.mp4#t=0.4,0.5", "lift"),
    ]
    assert [each.reason for each in data.problems] == [
        "ends at frame 60, and its file has 50 frames (1.66833 s): used as far as it goes"
    ]


def test_rectangles_of_label_studio(films: Path, tmp_path: Path) -> None:
    """Their times tell the clock's rate; where a task has no timeline, they are the segments."""
    box = rectangle("lift", (3, 0, True), (6, 30, False), (20, 10, True), fps=20.0)
    content = [
        task(1, {"video": "a.mp4"}, box),
        task(
            2, {"video": "b.mp4"}, rectangle("lift", (1, 0, True), (9, 0, False)), timeline("carry", 11, 20)
        ),
    ]
    data = open_data(as_json(tmp_path / "export.json", content), root=films)
    assert found(data, films) == [
        ("a.mp4#t=0.1,0.3", "lift"),
        ("a.mp4#t=1", "lift"),
        ("b.mp4#t=1,2", "carry"),
    ]
    assert "5 boxes are places" in data.notes[1]


def test_which_annotation_of_a_task_counts(films: Path, tmp_path: Path) -> None:
    """The ground truth, else that which was changed last; none that was cancelled, and no prediction."""

    def annotation(label: str, updated: str, **more: bool) -> dict[str, Any]:
        return {"result": [timeline(label, 1, 10)], "updated_at": f"2024-01-{updated}", **more}

    several = [
        annotation("old", "01"),
        annotation("new", "03"),
        annotation("cancelled", "09", was_cancelled=True),
    ]
    content = [
        {"id": 1, "data": {"video": "a.mp4"}, "annotations": several},
        {
            "id": 2,
            "data": {"video": "b.mp4"},
            "annotations": [annotation("true", "01", ground_truth=True), *several],
        },
        {"id": 3, "data": {"video": "ntsc.mp4"}, "predictions": [{"result": [timeline("guess", 1, 10)]}]},
        {"id": 4, "data": {"video": "ntsc.mp4"}, "annotations": []},
        {"id": 5, "data": {"text": "no video"}, "annotations": several},
    ]
    file = as_json(tmp_path / "export.json", content)
    data = open_data(file, root=films)
    assert [label for _, label in found(data, films)] == ["new", "true"]
    assert [(each.path, each.reason) for each in data.problems] == [
        (f"{file}, task 3", "has no annotation but predictions, which nobody has submitted"),
        (f"{file}, task 4", "has no annotation"),
        (f"{file}, task 5", "its data name no video"),
    ]
    assert data.notes[-1].endswith(": 3 further annotations")


def test_a_whole_video_and_what_else_a_task_holds(films: Path, tmp_path: Path) -> None:
    """The template for video classification has choices; labels of rectangles may stand apart."""
    choice = {"type": "choices", "value": {"choices": ["lift"]}, "from_name": "ch", "to_name": "video"}
    two = {"type": "choices", "value": {"choices": ["lift", "carry"]}}
    text = {"type": "textarea", "value": {"text": ["hm"]}}
    apart = rectangle("", (1, 0, True), (9, 0, False), name="x")
    apart["value"]["labels"] = []
    label = {"id": "x", "type": "labels", "value": {"labels": ["carry"]}}
    content = [
        task(1, {"video": "a.mp4"}, choice, text),
        task(2, {"video": "ntsc.mp4"}, two),
        task(3, {"video": "b.mp4"}, apart, label),
    ]
    data = open_data(as_json(tmp_path / "export.json", content), root=films)
    assert found(data, films) == [("a.mp4", "lift"), ("b.mp4#t=0,0.9", "carry")]
    assert reasons(data) == ["2 choices, expected one"]
    assert data.notes[-1].endswith("1 textarea result")


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (timeline("lift", 0, 0), "is from 0 to 0, expected two numbers of frames from 1"),
        (timeline("lift", 9, 3), "is from 9 to 3, expected two numbers of frames from 1"),
        (timeline("lift", None, 3), "is from None to 3, expected two numbers of frames from 1"),
        (timeline("lift", float("inf"), 3), "is from inf to 3, expected two numbers of frames from 1"),
        (timeline("lift", 500, 600), "begins at frame 499, and its file has 40 frames (4 s)"),
        (timeline("  ", 1, 3), "0 labels, expected one"),
        ({"id": "r1", "type": "timelinelabels", "value": []}, "no range"),
    ],
)
def test_regions_that_cannot_be_used(
    films: Path, tmp_path: Path, region: dict[str, Any], reason: str
) -> None:
    good = timeline("lift", 1, 5, "a"), timeline("carry", 7, 9, "b")
    file = as_json(tmp_path / "export.json", [task(6, {"video": "a.mp4"}, *good, region)])
    data = open_data(file, root=films)
    assert [(each.path, each.reason) for each in data.problems] == [(f"{file}, task 6, region r1", reason)]
    assert len(data.entries) == 2


def test_a_varying_rate_needs_the_tasks_own(films: Path, tmp_path: Path) -> None:
    """Label Studio's frames are of its own clock: those of such a file are others."""
    content = [
        task(1, {"video": "uneven.mp4"}, timeline("lift", 1, 5)),
        task(2, {"video": "a.mp4"}, timeline("lift", 1, 5), timeline("carry", 6, 9)),
    ]
    data = open_data(as_json(tmp_path / "export.json", content), root=films)
    assert len(data.entries) == 2
    assert reasons(data)[0].startswith(
        "its frame rate varies, and the task does not say how many frames a second it counts (fps)"
    )


def test_json_min_is_refused(films: Path, tmp_path: Path) -> None:
    file = as_json(tmp_path / "min.json", [{"video": "a.mp4", "timelineLabels": [{"ranges": []}]}])
    with pytest.raises(UserError, match="JSON of no tool that is known") as error:
        open_data(file, root=films)
    one_sentence(error)
    with pytest.raises(UserError, match="JSON of no tool that is known"):
        read_project(file, "label-studio", films)


# VIA 3 and ActivityNet ---------------------------------------------------------------------------------------------


def test_a_project_of_via(films: Path, tmp_path: Path) -> None:
    """Options stand for their texts; an address and a path on another machine lead to the file that is called so."""
    data = open_data(as_json(tmp_path / "project.json", via()), root=films)
    assert found(data, films) == [
        ("a.mp4#t=0.5,1.25", "lift"),
        ("a.mp4#t=2,3", "carry"),
        ("b.mp4#t=1,2", "carry"),
    ]
    assert data.notes == [
        "read as a project of VIA 3",
        "the class is the attribute 'Activity'",
        "1 box are places for 'evaluate --places' and not trained on",
        "left out, for peakzoom has no place for it: 1 other value",
    ]


def test_which_attribute_of_via_is_the_class(films: Path, tmp_path: Path) -> None:
    content = via()
    content["attribute"]["3"] = {**content["attribute"]["1"], "aname": "Actor", "type": 1, "options": {}}
    content["metadata"]["-glfwaaX"]["av"]["3"] = "ann"
    assert len(open_data(as_json(tmp_path / "project.json", content), root=films).entries) == 3  # Activity
    content["attribute"]["1"]["aname"] = "What"
    with pytest.raises(
        UserError, match=r"several attributes of temporal segments \('What', 'Actor'\)"
    ) as error:
        open_data(as_json(tmp_path / "project.json", content), root=films)
    assert one_sentence(error).endswith("call that of the classes 'class'")
    del content["attribute"]["1"], content["attribute"]["3"]
    with pytest.raises(UserError, match="no attribute of temporal segments"):
        open_data(as_json(tmp_path / "project.json", content), root=films)


def test_metadata_of_via_that_cannot_be_used(films: Path, tmp_path: Path) -> None:
    content = via()
    content["file"]["3"] = {"fid": 3, "fname": "x.png", "type": 2, "loc": 1, "src": ""}
    content["view"] |= {"3": {"fid_list": [3]}, "4": {"fid_list": [1, 2]}}
    wrong = {
        "nine": ("9", [0, 1], {"1": "1"}, "its view '9' is not in the project"),
        "text": ("2", ["a"], {"1": "1"}, "its z or xy is no list of numbers, or its av no object"),
        "empty": ("2", [0, 1], {}, "no label"),
        "both": ("2", [0, 1], {"1": "1,2"}, "2 options, expected one"),
        "back": (
            "2",
            [3, 2],
            {"1": "1"},
            "it starts at 3 s and ends at 2 s, expected an end after the start",
        ),
        "minus": ("2", [-3, 2], {"1": "1"}, "time is '-3', expected seconds or h:m:s, as 12.5 or 1:02:03"),
        "over": ("2", [1.5, 2.5], {"1": "1"}, None),
    }
    for key, (view, times, values, _) in wrong.items():
        content["metadata"][key] = {"vid": view, "flg": 0, "z": times, "xy": [], "av": values}
    content["metadata"]["picture"] = {"vid": "3", "flg": 0, "z": [0, 1], "xy": [], "av": {"1": "1"}}
    file = as_json(tmp_path / "project.json", content)
    data = open_data(file, root=films)
    said = {each.path.removeprefix(f"{file}, metadata "): each.reason for each in data.problems}
    assert said == {
        **{key: reason for key, (*_, reason) in wrong.items() if reason},
        "over": f"overlaps {file}, metadata ed+wsOZZ, which counts",
    }
    assert data.notes[-1].endswith(": 1 other value, 2 other views, 1 other view's label")


def test_annotations_of_activitynet(films: Path, tmp_path: Path) -> None:
    content = activitynet()
    content["database"]["a"]["annotations"] += [
        {"segment": [5], "label": "lift"},
        {"segment": [1.75, 2], "label": ""},
        {"segment": "x", "label": "lift"},
    ]
    content["database"]["nothing"] = {"duration": 1}
    file = as_json(tmp_path / "anet.json", content)
    data = open_data(file, root=films)
    assert listed(data, films) == [
        ("a.mp4#t=0.01,1.5", "lift", "train", "a.mp4"),
        ("a.mp4#t=2.25", "carry", "train", "a.mp4"),
        ("b.mp4", "lift", "val", None),
    ]
    assert [(each.path.removeprefix(f"{file}, "), each.reason) for each in data.problems] == [
        ("video 'a', annotation 2", "its segment is not two numbers of seconds"),
        ("video 'a', annotation 3", "no label"),
        ("video 'a', annotation 4", "its segment is not two numbers of seconds"),
        ("video 'nothing'", "it has no list of annotations"),
    ]
    assert data.notes[-1].endswith("1 video without a segment")


def test_files_of_activitynet_are_called_by_their_ids(tmp_path: Path) -> None:
    for name in ("v_a.mp4", "deep/b.mkv"):
        video(tmp_path / name, even(40, 10.0))
    data = open_data(as_json(tmp_path / "anet.json", activitynet()))
    assert {file_of(each.path).name for each in data.entries} == {"v_a.mp4", "b.mkv"}
    with pytest.raises(UserError, match=r"holds predictions \('results'\), expected annotations"):
        open_data(
            as_json(tmp_path / "p.json", {"version": "VERSION 1.3", "results": {}, "external_data": {}})
        )


# Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("../secret/a.mp4", "outside {root}; pass the folder that holds all videos as root"),
        ("nowhere.mp4", "listed, but there is no such file"),
        ("x" * 300 + ".mp4", "listed, but there is no such file"),
        ("elsewhere/a.mp4", "listed, but there is no such file"),
        ("twice.mp4", "several files are called so: "),
    ],
)
def test_videos_that_are_not_found(tmp_path: Path, source: str, reason: str) -> None:
    root = tmp_path / "root"
    for name in ("cam1/a.mp4", "cam1/twice.mp4", "cam2/twice.mp4", "b.mp4", "../secret/a.mp4"):
        video(root / name, even(10, 10.0))
    good = task(1, {"video": "b.mp4"}, timeline("lift", 1, 3), timeline("carry", 4, 5))
    bad = task(2, {"video": source}, timeline("lift", 1, 3))
    file = as_json(tmp_path / "export.json", [good, bad])
    data = open_data(file, root=root)
    assert data.problems[0].path == source and len(data.entries) == 2
    assert data.problems[0].reason.startswith(reason.format(root=root))
    assert data.problems[0].reason.endswith(f"({file}, task 2)")


def test_nothing_that_can_be_used_is_one_sentence(films: Path, tmp_path: Path) -> None:
    video_less = as_json(tmp_path / "none.json", [task(1, {"video": "gone.mp4"}, timeline("lift", 1, 3))])
    with pytest.raises(UserError, match="gives no usable video under") as error:
        open_data(video_less, root=films)
    assert "1 time 'listed, but there is no such file" in one_sentence(error)
    empty = as_json(tmp_path / "empty.json", [task(1, {"video": "a.mp4"})])
    with pytest.raises(UserError, match="labels nothing in its videos"):
        open_data(empty, root=films)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotations [
 <!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">
 <!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
 <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
 <!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
]>
<annotations><meta><task><name>&d;&d;&d;&d;</name></task></meta></annotations>"""
OUTSIDE = """<!DOCTYPE annotations [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<annotations><meta><source>&x;</source></meta></annotations>"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("<annotations><meta>", "is no XML that can be read"),
        ('<?xml version="1.0" encoding="klingon"?><annotations/>', "is no XML that can be read"),
        ("<annotations>\x00</annotations>", "is no XML that can be read"),
        ("<settings/>", "begins with <settings>, expected <annotations>"),
        ("<annotations/>", "names no video"),
        ('<annotations><image id="0" name="a.jpg" width="8" height="8"/></annotations>', "is of images (1)"),
        ("{", "is no JSON that can be read"),
        ("[" * 100_000, "is no JSON that can be read: it is nested too deeply"),
        ('{"a": ' * 100_000, "is no JSON that can be read: it is nested too deeply"),
        ("[1, 2]", "is JSON of no tool that is known"),
        ("{}", "is JSON of no tool that is known"),
        ('{"_via_img_metadata": {}}', "is of VIA 2, which is for images"),
        (
            '{"project": 1, "attribute": [], "file": 3, "view": null, "metadata": ""}',
            "no attribute of temporal",
        ),
        ('{"database": []}', "holds predictions"),
        ('[{"data": 1, "annotations": 2}]', "it has no data, expected the address of a video"),
    ],
)
def test_files_that_are_of_no_tool(films: Path, tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "file"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        open_data(file, root=films)
    assert reason in str(error.value) and "\n" not in str(error.value) and str(file) in str(error.value)


def test_archives_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("labels.txt", "lift")
    (tmp_path / "torn.zip").write_bytes((tmp_path / "other.zip").read_bytes()[:30])
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", "<annotations>" + " " * 100_000 + "</annotations>")
    with pytest.raises(UserError, match=r"is an archive without annotations.xml"):
        open_data(tmp_path / "other.zip")
    with pytest.raises(UserError, match="is no XML that can be read"):
        open_data(tmp_path / "torn.zip")
    monkeypatch.setattr(contents, "MOST_BYTES", 50_000)
    with pytest.raises(UserError, match=r"annotations.xml in .* has more than 50000 bytes"):
        open_data(tmp_path / "large.zip")
    (tmp_path / "large.json").write_text("[" + " " * 60_000 + "]")
    with pytest.raises(UserError, match="has more than 50000 bytes"):
        open_data(tmp_path / "large.json")


def weird(rng: random.Random, value: Any) -> Any:
    """The value with one thing in it replaced."""
    odd = [
        None,
        -1,
        0,
        1e308,
        10**400,
        float("nan"),
        "",
        "a",
        "../x",
        "\ud800",
        [],
        {},
        [[]],
        {"a": []},
        True,
    ]
    content = copy.deepcopy(value)
    inner = content
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = rng.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.2:
            inner[key] = rng.choice(odd)
            return content
        inner = inner[key]


@pytest.mark.parametrize("tool", ["label-studio", "via", "activitynet"])
def test_any_wrong_value_is_a_sentence_or_a_problem(films: Path, tmp_path: Path, tool: str) -> None:
    """Three hundred files, each wrong in two places: never another error, and never a class that is no text."""
    rng = random.Random(7)
    made = {
        "label-studio": [
            task(1, {"video": "a.mp4", "fps": 10}, timeline("lift", 3, 5), rectangle("lift", (1, 5, True))),
            task(2, {"video": "b.mp4"}, timeline("carry", 3, 5)),
        ],
        "via": via(),
        "activitynet": activitynet(),
    }[tool]
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        file = as_json(tmp_path / "file.json", weird(rng, weird(rng, made)))
        try:
            data = open_to_look(file, root=films)
        except UserError as error:
            outcomes["in two lines" if "\n" in str(error) else "refused"] += 1
            continue
        outcomes["read"] += 1
        assert all(isinstance(name, str) and name for name in data.classes)
        for each in data.entries:
            assert file_of(each.path).is_relative_to(films) and (segment_of(each.path) or True)
    assert min(outcomes["read"], outcomes["refused"]) > 10 and not outcomes["in two lines"]


def test_any_wrong_word_in_xml_is_a_sentence_or_a_problem(films: Path, tmp_path: Path) -> None:
    """Four hundred files of CVAT, each with three values or words replaced."""
    tracks = (
        track(0, "lift", shape(3), shape(9, 1)),
        track(1, "carry", shape(20, tag="polygon"), shape(30, 1)),
    )
    text = cvat(tmp_path / "good.xml", *tracks).read_text()
    pieces = re.split(
        r'((?<=")[^"<>\n]+(?=")|(?<=>)[^<>\n]+(?=<))', text
    )  # values and words at the odd places
    odd = [
        "",
        "-1",
        "9" * 5000,
        "nan",
        "1e999",
        "0",
        "x",
        "&lt;",
        "&amp;",
        "../x",
        "\ud7ff",
        "<",
        "]]>",
        "</track>",
    ]
    rng, outcomes = random.Random(3), Counter[str]()
    for _ in range(400):
        changed = list(pieces)
        for place in rng.sample(range(1, len(pieces), 2), 3):
            changed[place] = rng.choice(odd)
        file = tmp_path / "file.xml"
        file.write_text("".join(changed), encoding="utf-8")
        try:
            data = open_to_look(file, root=films)
            if data.notes and "boxes" in str(data.notes):
                read_places(file, videos=films)
        except UserError as error:
            outcomes["in two lines" if "\n" in str(error) else "refused"] += 1
            continue
        outcomes["read"] += 1
        assert all(file_of(each.path).is_relative_to(films) for each in data.entries)
    assert min(outcomes["read"], outcomes["refused"]) > 10 and not outcomes["in two lines"]


# Converting --------------------------------------------------------------------------------------------------------


def test_convert_by_the_command_line(films: Path, tmp_path: Path) -> None:
    """There and back; a folder that holds something stays as it is."""
    runner = CliRunner()
    source = as_json(tmp_path / "project.json", via())
    for form in FORMATS:
        out = tmp_path / form
        done = runner.invoke(
            app, ["data", "convert", str(source), str(out), "--to", form, "--root", str(films)]
        )
        assert done.exit_code == 0, done.output
        assert "2 classes, 3 labels in 2 videos" in done.output
        back = open_data(out / MAIN[form], root=films)
        assert {label for _, label in found(back, films)} == {"lift", "carry"} and len(back.entries) == 3
        again = runner.invoke(app, ["data", "convert", str(source), str(out), "--to", form])
        assert again.exit_code != 0 and "not empty" in str(again.exception)
        assert len(open_data(out / MAIN[form], root=films).entries) == 3
        checked = runner.invoke(app, ["data", "check", str(out / MAIN[form]), "--root", str(films)])
        assert checked.exit_code == 0 and "missing, unreadable or damaged: 0" in checked.output


def test_what_cannot_be_written_is_said(films: Path, tmp_path: Path) -> None:
    def rows(*lines: str) -> VideoSet:
        file = films / f"{len(list(films.glob('wrong*')))}wrong.csv"
        file.write_text("\n".join(["path,label,split,group,start,end", *lines]), encoding="utf-8")
        return read_manifest(file)

    several = rows("a.mp4,lift,train,,0,1", "a.mp4,lift,test,,1,2")
    for form in FORMATS[:-1]:
        with pytest.raises(
            UserError, match=r"a.mp4 has segments of several splits \('train', 'test'\)"
        ) as error:
            write_data(several, films, form, tmp_path / form)
        one_sentence(error)
        assert not (tmp_path / form).exists()
    groups = rows("a.mp4,lift,train,ann,0,1", "a.mp4,lift,train,bob,1,2")
    with pytest.raises(UserError, match=r"has segments of several groups \('ann', 'bob'\)"):
        write_data(groups, films, "via", tmp_path / "groups")
    with pytest.raises(UserError, match="is not below"):
        write_data(groups, films / "whole", "manifest", tmp_path / "below")
    odd = rows('a.mp4,"li\x1bft",train,,0,1')
    with pytest.raises(UserError, match=r"holds '.x1b', which XML cannot hold: rename it"):
        write_data(odd, films, "cvat", tmp_path / "odd")
    assert not (tmp_path / "odd").exists() and write_data(odd, films, "via", tmp_path / "via").spans == 1
    (films / "broken.mp4").write_bytes(b"no video")
    some = rows("broken.mp4,lift,,,0,1", "a.mp4,lift,,,0,1", "a.mp4,carry,,,7,9")
    written = write_data(some, films, "cvat", tmp_path / "some")
    assert (written.videos, written.spans) == (1, 1)
    assert "holds no frame: its file lasts 4 s" in [each.reason for each in written.problems]
    assert len(written.problems) == 2
    (films / "broken.mp4").unlink()


def test_the_frame_that_stands_for_a_segment_is_no_place(films: Path, tmp_path: Path) -> None:
    """What CVAT is given where nobody knows a box."""
    source = as_json(tmp_path / "project.json", via())
    data = open_data(source, root=films)
    written = write_data(data, films, "cvat", tmp_path / "out")
    with pytest.raises(UserError, match="has no box in a labelled frame"):
        read_places(written.data, videos=films)


# Boxes -------------------------------------------------------------------------------------------------------------


def test_boxes_are_places_of_the_segments_that_hold_them(films: Path, tmp_path: Path) -> None:
    """In displayed pixels of the file, which has a tenth of the width that the task had, and evenly between keys."""
    file = cvat(
        tmp_path / "monday.xml",
        track(0, "lift", shape(3, edges="100,120,300,360"), shape(7, edges="140,120,340,360"), shape(9, 1)),
        track(1, "carry", shape(20, tag="polygon"), shape(30, 1, tag="polygon")),
    )
    data = open_data(file, root=films)
    places = read_places(file, videos=films)
    assert list(places) == [data.entries[0].path] == [films / "a.mp4#t=0.3,0.9"]
    inside = places[data.entries[0].path]
    assert sorted(inside) == [0, 1, 2, 3, 4, 5]
    for frame, left in enumerate([10, 11, 12, 13, 14, 14]):
        (place,) = inside[frame]
        assert place.part == "box"
        assert np.allclose(place[1:], (left + 10 - 0.5, 24 - 0.5, 10, 12))


def test_boxes_of_the_other_tools(films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = [
        task(1, {"video": "a.mp4"}, timeline("lift", 4, 9), rectangle("x", (3, 0, True), (5, 20, True)))
    ]
    studio = as_json(tmp_path / "export.json", content)
    (inside,) = read_places(studio, videos=films).values()
    lost = task(2, {"video": "lost.mp4"}, timeline("lift", 4, 9), rectangle("x", (3, 0, True), (5, 20, True)))
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(read_places(as_json(tmp_path / "more.json", [*content, lost]), videos=films)) == 1
    (said,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert said.startswith("1 video of ") and said.endswith("lost.mp4")
    centres = {frame: place.x for frame, (place,) in inside.items()}
    # Frames 4 to 9 of the player are 3 to 8 of the file; the rectangle stands at 20% from the fifth on.
    assert centres == pytest.approx(
        {0: 0.1 * 64 + 16 - 0.5, **dict.fromkeys(range(1, 6), 0.2 * 64 + 16 - 0.5)}
    )
    project = as_json(tmp_path / "project.json", via())
    places = read_places(project, videos=films)
    assert {
        path.name: {at: tuple(found[0][1:]) for at, found in inside.items()}
        for path, inside in places.items()
    } == {"a.mp4#t=0.5,1.25": {4: (31.5, 23.5, 16.0, 12.0)}}


def test_documents_written_for_the_tools_have_their_structure(films: Path, tmp_path: Path) -> None:
    """What each tool's own reader asks for: elements, keys and types as documented."""
    data = open_data(as_json(tmp_path / "project.json", via()), root=films)
    for form in FORMATS[:-1]:
        write_data(data, films, form, tmp_path / form)
    text = (tmp_path / "cvat" / "0001-a.xml").read_text()
    for needed in ("<version>1.1</version>", "<mode>interpolation</mode>", "<stop_frame>39</stop_frame>"):
        assert needed in text
    assert '<box frame="5" keyframe="1" outside="0" occluded="0" xtl="0.00"' in text
    labels = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert [each["name"] for each in labels] == ["carry", "lift"]
    (first, second) = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    assert first["data"] == {"video": "/data/local-files/?d=a.mp4", "fps": 10.0}
    result = first["annotations"][0]["result"][0]
    assert result["value"] == {"ranges": [{"start": 6, "end": 13}], "timelinelabels": ["lift"]}
    labelling = (tmp_path / "label-studio" / "labelling.xml").read_text()
    assert (
        'frameRate="$fps"' in labelling and f'name="{result["from_name"]}"' in labelling and second["id"] == 2
    )
    project = json.loads((tmp_path / "via" / "project.json").read_text())
    assert project["project"]["pid"] == "__VIA_PROJECT_ID__" and project["file"]["1"]["type"] == 4
    assert [each["z"] for each in project["metadata"].values()] == [[0.5, 1.25], [2, 3], [1, 2]]
    database = json.loads((tmp_path / "activitynet" / "annotations.json").read_text())
    assert database.keys() == {"version", "taxonomy", "database"}
    assert database["database"]["a"]["annotations"][0] == {"segment": [0.5, 1.25], "label": "lift"}
    assert database["database"]["a"]["duration"] == pytest.approx(4.0)
