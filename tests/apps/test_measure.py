"""Events of long videos: replayed as a watch reports them, measured against labels, and the rule for them chosen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from peakzoom.apps.watch.events import Event, Merger, Namer
from peakzoom.apps.watch.measure import (
    Watched,
    events_in,
    events_of,
    labelled_in,
    thinned,
    watch_files,
)
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import ScoredWindow
from peakzoom.apps.watch.rule import Rule, Setting, choose, read_rule, to_json
from peakzoom.apps.watch.watch import watch
from peakzoom.cli import app
from peakzoom.data.datasets import open_data
from peakzoom.data.synthetic.clips import DatasetSpec
from peakzoom.data.synthetic.scene import IDLE, Scene, draw_frame
from peakzoom.data.synthetic.untrimmed import render_untrimmed, timeline, untrimmed_frames
from peakzoom.evaluation.events import COUNTED, Interval, false_alarms, right_events
from peakzoom.inference.early_exit import Work
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.rejection import Rejection
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import segment_of
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess

CLASSES = ["wave", "nod", "kick"]
SPEC = DatasetSpec(
    train_clips=4, test_clips=2, classes=CLASSES, height=64, width=64, fps=10.0, difficulty=0.2, performers=8
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of fifteen seconds, each with two or three actions, and their list."""
    return render_untrimmed(tmp_path_factory.mktemp("untrimmed") / "long", SPEC, 15.0, workers=1)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """One whose predictions change from window to window, and whose scores are from 0.5 to 1."""
    torch.manual_seed(2)
    pre = Preprocess(size=32, frames=4, stride=2, canvas=(32, 32)).to_dict()
    model = PeakZoom("tcnn_xs", 3, width=0.25, branches=("original",), preprocess=pre, classes=CLASSES)
    with torch.no_grad():
        model.backbone.fc.weight *= 50
    return Recognizer.of(model.eval(), "cpu")


# Long synthetic videos ---------------------------------------------------------------------------------------------


def test_untrimmed_videos_show_what_their_list_says(long: Path) -> None:
    data = open_data(long / "clips.csv")
    assert data.splits().keys() == {"train", "test"} and not data.problems
    _, _, clip = next(iter(replace(SPEC, frames=150).clips()))
    shown = timeline(clip, tuple(CLASSES))
    assert shown[0][0] == shown[-1][0] == IDLE and shown[-1][2] == 150
    assert all(one[2] == other[1] for one, other in itertools.pairwise(shown))
    assert all((name == IDLE) == (place % 2 == 0) for place, (name, _, _) in enumerate(shown))
    first = [
        each
        for each in data.entries
        if (found := segment_of(each.path)) and found.file.name == "train_00000.mp4"
    ]
    listed = [(data.classes[each.label], segment_of(each.path)) for each in first]
    assert [(name, round(at.start * 10), round((at.end or 0) * 10)) for name, at in listed if at] == [
        each for each in shown if each[0] != IDLE
    ]
    video = decode(long / "train_00000.mp4")
    frames = list(untrimmed_frames(clip, shown))
    assert len(frames) == video.info.frames == 150
    still = Scene(replace(clip, action=IDLE))
    for name, start, end in shown:
        scene = still if name == IDLE else Scene(replace(clip, action=name))
        for t in (start, (start + end) // 2, end - 1):
            assert np.array_equal(frames[t], draw_frame(scene, t))
            stored = video.frames[t].permute(1, 2, 0).numpy().astype(int)
            assert np.abs(stored - frames[t]).mean() < 6  # as far as H.264 keeps it
        moved = [np.abs(frames[t].astype(int) - draw_frame(still, t)).max() for t in range(start, end)]
        assert (max(moved) > 30) == (name != IDLE)


def test_a_video_without_room_for_an_action(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no room for an action; give more seconds"):
        render_untrimmed(tmp_path / "short", SPEC, 3.0, workers=1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        render_untrimmed(tmp_path, SPEC, 15.0, workers=1)


# From windows to events --------------------------------------------------------------------------------------------


def test_a_class_goes_on_down_to_a_lower_score() -> None:
    namer = Namer(["a", "b"], 0.8, 0.5)
    names = [namer.name(np.array([score, 1 - score])) for score in (0.7, 0.8, 0.6, 0.5, 0.45, 0.6, 0.1, 0.45)]
    assert names == [None, "a", "a", "a", None, None, "b", "b"]
    namer.go_on(None)
    assert namer.name(np.array([0.45, 0.55])) is None
    assert [
        Namer(["a", "b"], 0.5, None, {"a"}).name(np.array(each)) for each in ((0.9, 0.1), (0.1, 0.9))
    ] == [None, "b"]


@pytest.mark.parametrize("shortest", [0.0, 1.0, 2.5, 4.0])
def test_events_that_are_too_short_are_none(shortest: float) -> None:
    def events(merger: Merger) -> Iterator[Event]:
        for start, name in enumerate("aabbbccccaX"):
            yield from merger.add(float(start), start + 1.0, None if name == "X" else name, 0.9)
        yield from merger.end()

    every, some = list(events(Merger(0.0))), Merger(0.0, shortest)
    assert list(events(some)) == [each for each in every if each.end - each.start >= shortest]
    assert some.count == len([each for each in every if each.end - each.start >= shortest])
    assert [round(each.end - each.start) for each in every] == [2, 3, 4, 1]


@pytest.mark.parametrize(("threshold", "keep"), [(0.55, None), (0.7, 0.2), (0.8, 0.6)])
@pytest.mark.parametrize("rest", [{}, {"gap": 1.0, "shortest": 0.6}, {"ignore": ["kick"]}])
def test_replayed_events_are_those_of_a_watch(
    long: Path, recognizer: Recognizer, threshold: float, keep: float | None, rest: dict[str, object]
) -> None:
    options = WatchOptions(threshold=threshold, keep=keep, **rest)  # type: ignore[arg-type]
    files = [long / "train_00000.mp4", long / "test_00001.mp4"]
    seen = watch_files(recognizer, files, WatchOptions())
    found = 0
    for file in files:
        reported = [each for each in watch(recognizer, file, options) if isinstance(each, Event)]
        assert list(events_of(seen[file], options)) == reported
        found += len(reported)
        assert seen[file].seconds == pytest.approx(15) and seen[file].window == pytest.approx(0.7)
    assert found


@pytest.mark.parametrize("nth", [2, 3, 4])
def test_fewer_windows_are_those_of_a_watch_that_looks_less_often(
    long: Path, recognizer: Recognizer, nth: int
) -> None:
    file = long / "train_00001.mp4"
    seen = watch_files(recognizer, [file], WatchOptions())[file]
    for options in (
        WatchOptions(threshold=0.6, nth=nth),
        WatchOptions(threshold=0.6, every=round(seen.every * nth, 4)),
    ):
        reported = [each for each in watch(recognizer, file, options) if isinstance(each, Event)]
        assert list(events_of(thinned(seen, nth), options)) == reported != []


# The rule ------------------------------------------------------------------------------------------------------------


def made_up(scores: list[tuple[float, float]], every: float = 1.0) -> Watched:
    """A video of windows of two seconds with these scores of "kick" and "wave"; the rest is for "none"."""
    windows = [
        ScoredWindow(
            *(place * every, place * every + 2.0),
            ["kick", "wave", "none"],
            np.array([*each, 1 - sum(each)]),
            None,
            8,
            None,
        )
        for place, each in enumerate(scores)
    ]
    return Watched(windows, len(scores) * every + 1.0, 2.0, every, [])


def some_video(seed: int) -> tuple[Watched, list[Interval]]:
    """Kicks that are seen well, with faint moments in them, and false ones that are fainter and shorter."""
    draw = np.random.default_rng(seed)
    scores = np.full((120, 2), 0.02) + draw.uniform(0, 0.02, (120, 2))
    labelled = []
    for start in (10, 40, 70, 100):
        scores[start : start + 8, 0] = draw.uniform(0.85, 0.95, 8)
        scores[start + 4, 0] = 0.6
        labelled.append(Interval(seed, start + 0.5, start + 8.5, "kick"))
    for start in (25, 55, 85):
        scores[start, 0] = 0.75
    return made_up([(float(one), float(two)) for one, two in scores]), labelled


@pytest.mark.parametrize("allowed", [0.0, 10.0, 1000.0])
def test_the_best_rule_within_the_alarms_that_are_allowed(allowed: float) -> None:
    videos = {seed: some_video(seed) for seed in range(3)}
    watched = {Path(str(seed)): each for seed, (each, _) in videos.items()}
    labelled = [each._replace(file=Path(str(seed))) for seed, (_, found) in videos.items() for each in found]
    options = WatchOptions(ignore=["none"])
    rule = choose(watched, labelled, options, allowed, "weights", Work(1.0, 0.0, 0))
    hours = sum(each.seconds for each in watched.values()) / 3600
    assert rule.full is not None and rule.chosen.exit_lead is None
    for each in (rule.chosen, rule.full):
        starts = [
            {file: thinned(video, each.nth, first=first) for file, video in watched.items()}
            for first in range(each.nth)
        ]
        found = [events_in(seen, each.options(options)) for seen in starts]
        alarms = sum(false_alarms(labelled, events) for events in found) / each.nth
        assert alarms / hours == pytest.approx(each.false_alarms_an_hour)
        assert each.false_alarms_an_hour <= allowed
        f1s = [2 * right_events(labelled, some, COUNTED) / (len(labelled) + len(some)) for some in found]
        assert sum(f1s) / each.nth == pytest.approx(each.f1)
        windows = sum(len(video.windows) for video in starts[0].values())
        assert each.share == windows / sum(len(video.windows) for video in watched.values())
        assert each.multiply_adds_a_second == pytest.approx(windows / hours / 3600)
    assert rule.chosen.f1 >= rule.full.f1 - 0.01 and rule.cost == pytest.approx(rule.chosen.share)
    plain = events_in(watched, options)
    assert (
        false_alarms(labelled, plain) == 9 and rule.full.f1 == 1.0
    )  # hysteresis and thresholds tell them apart


def test_no_rule_is_quiet_enough() -> None:
    video = made_up([(0.999, 0.0)] * 50)
    with pytest.raises(UserError, match=r"no rule has 0\.5 false alarms an hour or fewer"):
        choose({Path("a"): video}, [Interval(Path("b"), 0, 1, "kick")], WatchOptions(), 0.5, "", Work(1, 1))


# Commands ------------------------------------------------------------------------------------------------------------


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in words])
    if code:
        assert isinstance(result.exception, UserError), result.output
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_calibrate_and_watch(long: Path, run: Path, tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "run"
    shutil.copytree(run, own)
    said = command("evaluate", own, long / "clips.csv", "--events", "--out", tmp_path / "before")
    fewer = "95% intervals: none, for 2 groups of videos: fewer than 10"
    for word in ("mean AP", "F1", "false alarms", "detected", "right at any time", fewer):
        assert word in said
    written = json.loads((tmp_path / "before" / "events.json").read_text())
    data = open_data(long / "clips.csv")
    lengths = {long / f"test_0000{number}.mp4": 15.0 for number in (0, 1)}
    assert written["segments"] == len(labelled_in(data, lengths)) and written["hours"] == pytest.approx(
        30 / 3600
    )
    rows = (tmp_path / "before" / "events.csv").read_text().splitlines()
    assert len(rows) == written["events"] + 1 and all("test_0000" in row for row in rows[1:])
    command("evaluate", own, long / "clips.csv", "--events", "--out", tmp_path / "before", code=2)

    told = command(
        "calibrate", own, long / "clips.csv", "--events", "--split", "test", "--false-alarms", "1e5"
    )
    assert "chosen: F1" in told
    rule = read_rule(own)
    assert rule is not None and rule.allowed == 1e5
    file = long / "test_00000.mp4"
    assert f"threshold {rule.chosen.threshold}" in command("watch", own, file)
    refused = command("watch", own, file, "--threshold", "0.51")
    assert "by the rule" not in refused and "is left out, for --threshold is given" in refused
    assert "by the rule" not in command("watch", own, file, "--no-rule")
    shown = command("evaluate", own, long / "clips.csv", "--events", "--out", tmp_path / "after")
    assert "by the rule" in shown and "is taken as it is given" not in shown
    measured = json.loads((tmp_path / "after" / "events.json").read_text())
    assert measured["multiply_adds_a_second"] == pytest.approx(rule.chosen.multiply_adds_a_second)
    assert f"cost: {rule.chosen.multiply_adds_a_second:.4g} G multiply-adds a second of video" in shown
    assert told.count("G multiply-adds a second of video") == 1 + (rule.chosen != rule.full)
    dearer = command(
        "evaluate", own, long / "clips.csv", "--events", "--full-cost", "--out", tmp_path / "full"
    )
    measured = json.loads((tmp_path / "full" / "events.json").read_text())
    assert rule.full is not None and measured["rule"]["nth"] == 1 and "by the rule" in dearer
    assert measured["f1"]["0.5"] == pytest.approx(rule.full.f1)
    assert measured["multiply_adds_a_second"] == pytest.approx(rule.full.multiply_adds_a_second)
    ignoring = command(
        *("evaluate", own, long / "clips.csv", "--events", "--ignore", "wave", "--out", tmp_path / "no-wave")
    )
    assert "--ignore is taken as it is given; the rule was chosen without it" in ignoring
    assert json.loads((tmp_path / "no-wave" / "events.json").read_text())["rule"]["ignore"] == ["wave"]
    assert "wave" not in (tmp_path / "no-wave" / "events.csv").read_text()
    assert "remove it to calibrate again" in command(
        "calibrate", own, long / "clips.csv", "--events", "--split", "test", code=2
    )
    (own / "events" / "rule.json").write_text("{}")
    assert "is damaged" in command("watch", own, file, code=2)


def test_a_full_cost_that_is_not_there(long: Path, run: Path) -> None:
    words = ("evaluate", run, long / "clips.csv", "--full-cost")
    assert "has no rule for events, at its full cost or any other" in command(*words, "--events", code=2)
    assert "--full-cost is about events: add --events" in command(*words, code=2)


def test_a_rule_whose_early_exit_cannot_be(long: Path, run: Path, tmp_path: Path) -> None:
    """With --reject, and on another engine, the rule for the full cost is taken, and that is said."""
    import shutil

    own, file = tmp_path / "run", long / "test_00000.mp4"
    shutil.copytree(run, own)
    weights = str(load(own, "cpu").weights)
    full = Setting(0.4, 0.4, 0.0, 0.0, None, 0.5, 0.0, 1.0, multiply_adds_a_second=6.0)
    rule = Rule(
        replace(full, threshold=0.35, keep=0.35, nth=2, exit_lead=0.0, early=1.0), full, (), 1.0, weights
    )
    (own / "events").mkdir()
    (own / "events" / "rule.json").write_text(to_json(rule))
    said = command("watch", own, file, "--out", tmp_path / "early")
    assert "threshold 0.35" in said and "nth 2, exit_lead 0.0" in said
    lines = [json.loads(line) for line in (tmp_path / "early" / "windows.jsonl").read_text().splitlines()]
    windows = [each for each in lines if each["type"] == "window"]
    assert windows and all(each["early"] is True for each in windows)
    assert f"{len(windows)} windows ({len(windows)} by the original branch alone)" in said
    (own / "rejection").mkdir()
    rejection = Rejection("probability", 0.0, weights, Views(clips=1, crops=1))
    (own / "rejection" / "rejection.json").write_text(json.dumps(rejection.to_dict()))
    said = command("watch", own, file, "--reject", "--out", tmp_path / "whole")
    assert "the rule's early exit does not go with --reject: the rule for the full cost is taken" in said
    assert "threshold 0.4" in said and '"early"' not in (tmp_path / "whole" / "windows.jsonl").read_text()
    assert "--full-cost is for the run's rule" in command(
        "watch", own, file, "--full-cost", "--no-rule", code=2
    )
    assert "threshold 0.4" in command("watch", own, file, "--full-cost")


def test_files_that_cannot_be_watched(long: Path, run: Path, tmp_path: Path) -> None:
    """A broken file among others, and one that ends early: the rest is measured, and what is left out is counted."""
    for file in long.glob("*.mp4"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "test_00000.mp4").write_bytes(b"no video" * 100)
    rows = (long / "clips.csv").read_text()
    (tmp_path / "clips.csv").write_text(rows)
    lost = sum(row.startswith("test_00000.mp4") for row in rows.splitlines())
    words = ("evaluate", run, tmp_path / "clips.csv", "--events")
    said = " ".join(command(*words, "--out", tmp_path / "one").split())
    data = open_data(tmp_path / "clips.csv")
    left = labelled_in(data, {tmp_path / "test_00001.mp4": 15.0})
    assert f"{lost} of {lost + len(left)} segments lie where nothing could be decoded: left out" in said
    assert "test_00000.mp4: " in said
    written = json.loads((tmp_path / "one" / "events.json").read_text())
    assert written["segments"] == len(left) and written["hours"] == pytest.approx(15 / 3600)
    (tmp_path / "test_00001.mp4").write_bytes(b"")
    assert "none of the 2 videos can be decoded" in command(*words, "--out", tmp_path / "two", code=2)


@pytest.mark.parametrize(
    "given",
    ["--cascade", "--reject", "--faithfulness", "--resume", "--shard 1/2", "--places {list}", "--crops 1"],
)
def test_what_plays_no_part_for_events(given: str, clips: Path, run: Path, tmp_path: Path) -> None:
    words = given.format(list=clips / "clips.csv").split()
    said = command("evaluate", run, "--events", *words, "--out", tmp_path / "none", code=2)
    assert words[0] in said and "plays no part" in said
    if given == "--crops 1":
        for more in (words, ["--loss", "1"]):
            assert f"{more[0]} plays no part" in command("calibrate", run, "--events", *more, code=2).replace(
                "--clips, --num-clips or --crops", "--crops"
            )
        for name in ("evaluate", "calibrate"):
            assert "add --events" in command(name, run, "--ignore", "wave", code=2)


def test_events_need_segments(clips: Path, run: Path, tmp_path: Path) -> None:
    said = command("evaluate", run, clips / "clips.csv", "--events", "--out", tmp_path / "none", code=2)
    assert "has no segments" in said
