"""Proposals for annotation tools: what they hold, in which order, and that corrected ones go back into training."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.tools import even, video
from explanation.colours import NAMES, middle_of, write_squares
from explanation.colours import recognizer as looks_at_colours
from tiny import longer
from typer.testing import CliRunner

from peakzoom.apps.propose.boxes import Moment, boxes_of, look_at_windows
from peakzoom.apps.propose.propose import (
    Proposal,
    Proposed,
    propose,
    uncertain_first,
    uncertainty,
    write_proposals,
)
from peakzoom.apps.watch.measure import events_of, watch_files
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.cli import app
from peakzoom.data.datasets import open_data
from peakzoom.data.exchange.clock import Clock, look
from peakzoom.data.exchange.project import Box, Span
from peakzoom.data.places import read_places
from peakzoom.data.synthetic.clips import DatasetSpec
from peakzoom.data.synthetic.untrimmed import render_untrimmed
from peakzoom.explanation.look import explain
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.utils.segments import Segment, segment_of
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess

CLASSES = ["wave", "nod", "kick"]
SPEC = DatasetSpec(
    train_clips=4, test_clips=2, classes=CLASSES, height=64, width=80, fps=10.0, difficulty=0.2, performers=8
)
LOW = WatchOptions(threshold=0.34, every=0.4)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of twelve seconds with known events."""
    return render_untrimmed(tmp_path_factory.mktemp("untrimmed") / "films", SPEC, 12.0, workers=1)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """One whose predictions change from window to window."""
    torch.manual_seed(9)
    pre = Preprocess(size=32, frames=4, stride=2, canvas=(32, 32)).to_dict()
    model = PeakZoom("tcnn_xs", 3, width=0.25, branches=("original",), preprocess=pre, classes=CLASSES)
    with torch.no_grad():
        model.backbone.fc.weight *= 50
    return Recognizer.of(model.eval(), "cpu")


@pytest.fixture(scope="module")
def found(recognizer: Recognizer, films: Path) -> list[Proposed]:
    proposed, problems = propose(recognizer, sorted(films.glob("test*.mp4")), LOW)
    assert not problems
    return proposed


# Boxes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (64, 64)])
@pytest.mark.parametrize("options", [{}, {"attention_per": "clip", "size": 64}, {"test_canvas": True}])
def test_boxes_are_around_what_the_class_is(
    size: tuple[int, int], options: dict[str, object], tmp_path: Path
) -> None:
    """A network that looks at colours: the box of red holds the red square and is never beyond the frame."""
    squares = [("red", 0.35, 0.4), ("blue", 0.65, 0.6)]
    file = write_squares(tmp_path / "two.mov", lambda _: squares, size=size, frames=24)
    pixels = decode(file).frames[0].permute(1, 2, 0).numpy()
    model, clock, seen = looks_at_colours(**options), look(file), []  # type: ignore[arg-type]
    windows = watch_files(model, [file], WatchOptions())[file].windows
    for name in ("red", "blue"):
        assert name in NAMES
        wanted = {(each.start, each.end): name for each in windows}
        found = look_at_windows(model, file, WatchOptions(), wanted)
        assert found.keys() == wanted.keys()
        boxes = boxes_of([each for inside in found.values() for each in inside], clock, 0, 24)
        seen.append(boxes)
        x, y = middle_of(name, pixels)
        assert boxes and [box.at for box in boxes] == sorted({box.at for box in boxes})
        for box in boxes:
            assert 0 <= box.at < 24 and box.score is not None and 0 <= box.score <= 1
            assert box.left < x + 0.5 < box.right and box.top < y + 0.5 < box.bottom
            assert 0 <= box.left < box.right <= size[1] and 0 <= box.top < box.bottom <= size[0]
            assert (box.right - box.left) * (box.bottom - box.top) < 0.6 * size[0] * size[1]
    assert seen[0] != seen[1]


def test_moments_are_those_of_an_explanation(tmp_path: Path) -> None:
    """The response, the highest peak and the score that ``explain`` finds in the frames of the same clip."""
    file = write_squares(tmp_path / "red.mov", lambda at: [("red", 0.3 + 0.02 * at, 0.5)], frames=8)
    model = looks_at_colours(frames=8)
    evidence = explain(model, file, "red", Views(clips=1, crops=1), progress=False)
    (window,) = watch_files(model, [file], WatchOptions())[file].windows
    found = look_at_windows(model, file, WatchOptions(), {(window.start, window.end): "red"})
    (inside,) = found.values()
    assert [each.time for each in inside] == pytest.approx(evidence.times)
    label = NAMES.index("red")
    for frame, moment in enumerate(inside):
        _, peaks, _ = evidence.attention(frame)
        row, column = peaks[peaks[:, 2].argmax(), :2]
        grid = evidence.model.config.grid
        x, y = evidence.region.place(row, column, grid, model.preprocess.size)
        left, top, right, bottom = moment.edges
        assert left <= x + 0.5 <= right and top <= y + 0.5 <= bottom
        assert moment.score == pytest.approx(evidence.scores[frame, label], abs=1e-5)


def test_boxes_of_half_a_second_are_one() -> None:
    """By their medians, from the first frame of it that has a moment; where nothing changes there is none."""
    clock = Clock(np.arange(30) / 10, 10.0, 64, 48)
    at = [(0.2, 1), (0.3, 3), (0.4, 20), (0.7, 5), (1.2, 5), (2.9, 9), (0.1, 90), (1.6, 90)]
    found = [Moment(time, np.array((left, 2, left + 5, 8.0)), left / 100) for time, left in at]
    boxes = boxes_of(found, clock, 2, 16)
    assert [(box.at, box.left, box.right, box.score) for box in boxes] == [
        (2, 3, 8, pytest.approx(0.08)),
        (7, 5, 10, 0.05),
    ]
    assert boxes_of(found, clock, 16, 20)[0].left == 90 and boxes_of(found, clock, 20, 25) == ()


# Events and their order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "wanted"), [((0.5, 0.5), 1), ((1, 0, 0), 0), ((0.2, 0.7, 0.1), 0.5), ((0.25,) * 4, 1)]
)
def test_uncertainty_is_one_less_the_margin(scores: tuple[float, ...], wanted: float) -> None:
    assert uncertainty(np.array(scores)) == pytest.approx(wanted)


def test_proposals_are_the_events_of_a_watch(
    recognizer: Recognizer, films: Path, found: list[Proposed]
) -> None:
    """On the frames of the file, with the uncertainty of the windows that overlap them."""
    for each in found:
        watched = watch_files(recognizer, [each.file], LOW)[each.file]
        events = list(events_of(watched, LOW))
        assert len(events) == len(each.events) > 1
        margins = [1 - np.diff(np.sort(window.scores)[-2:])[0] for window in watched.windows]
        assert each.uncertainty == pytest.approx(np.mean(margins))
        for event, proposal in zip(events, each.events, strict=True):
            span = proposal.span
            assert (span.label, span.score) == (event.name, event.score)
            assert abs(span.start - event.start) < 0.101 and (
                span.end is None or abs(span.end - event.end) < 0.101
            )
            over = [
                margin
                for margin, window in zip(margins, watched.windows, strict=True)
                if window.start < event.end and event.start < window.end
            ]
            assert proposal.uncertainty == pytest.approx(np.mean(over))
            first, after = each.clock.frames(span.start, span.end)
            assert span.boxes and all(first <= box.at < after for box in span.boxes)


def test_the_least_certain_come_first(found: list[Proposed]) -> None:
    ordered = uncertain_first([found[1], found[0], replace(found[0], uncertainty=0.0, events=[])])
    assert [each.uncertainty for each in ordered] == sorted(
        (each.uncertainty for each in [*found, ordered[-1]]), reverse=True
    )
    for each in ordered:
        assert [event.uncertainty for event in each.events] == sorted(
            (event.uncertainty for event in each.events), reverse=True
        )
    assert sum(len(each.events) for each in ordered) == sum(len(each.events) for each in found)


# Files -------------------------------------------------------------------------------------------------------------


def test_proposals_for_cvat(found: list[Proposed], films: Path, tmp_path: Path) -> None:
    """A file a video in the order given; read as data they are the events, and their boxes are places."""
    ordered = uncertain_first(found)
    write_proposals(ordered, CLASSES, films, "cvat", tmp_path / "out", "run")
    names = [f"{at:04d}-{each.file.stem}.xml" for at, each in enumerate(ordered, 1)]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [*names, "events.csv", "labels.json"]
    data = open_data(tmp_path / "out", root=films)
    spans = {
        (each.file, span.start, span.end, span.label)
        for each in found
        for span in (event.span for event in each.events)
    }
    got = {
        (*(segment_of(each.path) or Segment(each.path)), data.classes[each.label]) for each in data.entries
    }
    assert got == spans and not data.problems
    text = (tmp_path / "out" / names[0]).read_text()
    scores = [float(each) for each in re.findall(r'<attribute name="score">([\d.]+)', text)]
    assert set(scores) == {round(event.span.score or 0, 4) for event in ordered[0].events}
    assert 'source="auto"' in text and '<attribute name="box_score">' in text
    places = read_places(tmp_path / "out", videos=films)
    assert places.keys() == {each.path for each in data.entries}
    with (tmp_path / "out" / "events.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [each.file.name for each in ordered for _ in each.events]
    assert len(open_data(tmp_path / "out" / "events.csv", root=films).entries) == len(rows)


def test_proposals_for_label_studio(found: list[Proposed], films: Path, tmp_path: Path) -> None:
    """Predictions, surer ones later by their scores; not yet data, for nobody has looked at them."""
    ordered = uncertain_first(found)
    out = write_proposals(ordered, CLASSES, films, "label-studio", tmp_path / "out", "runs/first")
    tasks = json.loads((out / "tasks.json").read_text())
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores) == [round(1 - each.uncertainty, 4) for each in ordered]
    for task, each in zip(tasks, ordered, strict=True):
        prediction = task["predictions"][0]
        assert prediction["model_version"] == "runs/first" and task["data"]["video"].endswith(each.file.name)
        lines = [result for result in prediction["result"] if result["type"] == "timelinelabels"]
        rectangles = [result for result in prediction["result"] if result["type"] == "videorectangle"]
        assert len(lines) == len(rectangles) == len(each.events)
        for line, rectangle, event in zip(lines, rectangles, each.events, strict=True):
            (at,) = line["value"]["ranges"]
            first, after = each.clock.frames(event.span.start, event.span.end)
            assert (at["start"], at["end"]) == (first + 1, after) and line["score"] == round(
                event.span.score or 0, 4
            )
            sequence = rectangle["value"]["sequence"]
            assert sequence[-1]["frame"] == after and not sequence[-1]["enabled"]
            assert all(0 <= key["x"] <= 100 and key["x"] + key["width"] <= 100.001 for key in sequence)
    with pytest.raises(UserError, match="has no annotation but predictions, which nobody has submitted"):
        open_data(out / "tasks.json", root=films)
    # What Label Studio exports once a person has submitted the predictions as they are.
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"], "was_cancelled": False}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    data = open_data(tmp_path / "export.json", root=films)
    assert len(data.entries) == sum(len(each.events) for each in found) and not data.problems
    labelling = (out / "labelling.xml").read_text()
    assert all(f'name="{name}"' in labelling for name in ("events", "box", "video"))


def test_what_cannot_be_proposed(recognizer: Recognizer, films: Path, tmp_path: Path) -> None:
    """Unreadable files are named and the others done; a folder that holds something stays as it is."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    video(tmp_path / "in" / "short.mp4", even(3, 10.0))
    found, problems = propose(
        recognizer, sorted((tmp_path / "in").iterdir()), replace(LOW, threshold=1.0), boxes=False
    )
    assert [Path(each.path).name for each in problems] == ["broken.mp4"]
    assert [(each.file.name, each.events) for each in found] == [("short.mp4", [])]
    write_proposals(found, CLASSES, tmp_path, "cvat", tmp_path / "out", "run")
    assert "<track" not in (tmp_path / "out" / "0001-short.xml").read_text()
    with pytest.raises(UserError, match="is not empty"):
        write_proposals(found, CLASSES, tmp_path, "cvat", tmp_path / "out", "run")
    with pytest.raises(UserError, match="is not below"):
        write_proposals(found, CLASSES, tmp_path / "out", "cvat", tmp_path / "other", "run")
    with pytest.raises(UserError, match="no video gives a frame"):
        write_proposals([], CLASSES, tmp_path, "cvat", tmp_path / "other", "run")
    assert not (tmp_path / "other").exists()


def test_a_box_stays_where_a_span_has_several(tmp_path: Path) -> None:
    """Boxes of a span that begin after it, or lie in one frame, make a track that CVAT can read."""
    file = video(tmp_path / "a.mp4", even(20, 10.0))
    span = Span("wave", 0.5, 1.5, score=0.5, boxes=(Box(8, 1, 2, 3, 4, 0.5), Box(12, 2, 3, 4, 5, 0.6)))
    proposed = Proposed(file, look(file), [Proposal(span, 0.5)], 0.5, [])
    out = write_proposals([proposed], CLASSES, tmp_path, "cvat", tmp_path / "out", "run")
    text = (out / "0001-a.xml").read_text()
    frames = re.findall(r'<box frame="(\d+)" keyframe="1" outside="(\d)".* xtl="([\d.]+)"', text)
    assert frames == [("5", "0", "1.00"), ("8", "0", "1.00"), ("12", "0", "2.00"), ("15", "1", "2.00")]


class Killed(BaseException):
    """No handler of errors takes it."""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_was_killed_goes_on(
    recognizer: Recognizer, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The files are those of a command that nobody killed, and no video is looked at twice."""
    recognizer.model.save_pretrained(tmp_path / "model")
    videos, looked = tmp_path / "videos", []
    videos.mkdir()
    for file in sorted(films.glob("train*.mp4"))[:3]:
        (videos / file.name).write_bytes(file.read_bytes())
    (videos / "broken.mp4").write_bytes(b"no video")

    def go(out: str, *more: str, left: int = 9) -> Any:
        def watch_some(*given: Any) -> Any:
            if len(looked) == left:
                raise Killed
            looked.append(given[1])
            return watch_files(*given)

        looked.clear()
        words = ["propose", tmp_path / "model", videos, "--to", "label-studio", "--order", "uncertain"]
        words += ["--threshold", 0.34, "--every", 0.8, "--device", "cpu", "--out", tmp_path / out, *more]
        with monkeypatch.context() as patch:
            patch.setattr("peakzoom.apps.propose.propose.watch_files", watch_some)
            return CliRunner().invoke(app, [str(each) for each in words])

    done = go("whole")
    assert done.exit_code == 1 and "broken.mp4" in done.output and len(looked) == 4  # one cannot be decoded
    part = tmp_path / "killed.rest.part"
    with pytest.raises(Killed):
        go("killed", left=after)
    assert part.exists() and not (tmp_path / "killed").exists()
    if after:
        journal = part / "rest.jsonl"
        assert journal.read_bytes().count(b"\n") == after
        assert "go on with --resume, or remove it" in str(go("killed").exception)
        assert "begun with another every" in str(go("killed", "--resume", "--every", "0.7").exception)
        journal.write_bytes(journal.read_bytes()[:-9])  # half a line, as a power cut leaves it
    done = go("killed", "--resume")
    assert done.exit_code == 1 and "broken.mp4" in done.output and not part.exists()
    assert len(looked) == 4 - max(after - 1, 0)
    files = [
        each.relative_to(tmp_path / "whole") for each in (tmp_path / "whole").rglob("*") if each.is_file()
    ]
    assert files
    for file in files:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_from_proposals_to_a_training_on_what_was_corrected(films: Path, tmp_path: Path) -> None:
    """Train, propose for videos that nobody has labelled, correct the file as a person would, and train on it."""
    runner = CliRunner()
    options = Options(val_fraction=0, workers=0, accelerator="cpu", progress=False)
    train(open_data(films / "clips.csv"), longer(1, 1), tmp_path / "run", options)
    new = tmp_path / "new"
    new.mkdir()
    for file in films.glob("test*.mp4"):
        (new / file.name).write_bytes(file.read_bytes())
    command = ["propose", str(tmp_path / "run"), str(new), "--to", "cvat", "--order", "uncertain"]
    done = runner.invoke(
        app, [*command, "--out", str(tmp_path / "out"), "--threshold", "0.1", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "in 2 videos" in done.output and f"Paths start from: {new}" in done.output
    again = runner.invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert "is not empty" in str(again.exception)
    with (films / "clips.csv").open(newline="") as stream:
        true = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    for file in (tmp_path / "out").glob(
        "*.xml"
    ):  # a person takes all tracks away and draws those that are there
        text = file.read_text()
        name = re.search(r"<source>(.*)</source>", text)[1]  # type: ignore[index]
        tracks = [
            f'<track id="{at}" label="{row["label"]}" source="manual">'
            f'<box frame="{round(float(row["start"]) * 10)}" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
            f'<box frame="{round(float(row["end"]) * 10)}" keyframe="1" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>'
            "</track>"
            for at, row in enumerate(each for each in true if each["path"] == name)
        ]
        file.write_text(re.sub(r"<track.*</track>", "".join(tracks), text, flags=re.DOTALL))
    corrected = open_data(tmp_path / "out", root=new)
    assert sorted(
        (corrected.classes[each.label], at.file.name, round(at.start * 10), round((at.end or 0) * 10))
        for each in corrected.entries
        if (at := segment_of(each.path))
    ) == sorted(
        (row["label"], row["path"], round(float(row["start"]) * 10), round(float(row["end"]) * 10))
        for row in true
    )
    train(corrected, longer(1, 1), tmp_path / "second", options)
    assert (tmp_path / "second" / "model.safetensors").exists() or list(
        (tmp_path / "second").rglob("*.safetensors")
    )
