"""Scores at the temperature that ``peakzoom calibrate`` found, in every command that shows scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from peakzoom.apps.serve.about import about, averaged
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.service import Service
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import ScoredWindow, to_line
from peakzoom.apps.watch.watch import watch
from peakzoom.cli import app
from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import load
from peakzoom.inference.temperature import tempered
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

ONE = Views(clips=1, crops=1)  # what a window of `watch` is, too
QUICK = ("--num-clips", "1", "--crops", "1")


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


@pytest.fixture(scope="module")
def sure(run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model that is far too sure, calibrated by the command on videos of which some are got wrong; what it said."""
    folder = tmp_path_factory.mktemp("calibrated")
    model = load(run, "cpu").model
    with torch.no_grad():
        for layer in (model.backbone.fc, *model.heads.values(), model.fc_fused):
            layer.weight.mul_(60)  # type: ignore[union-attr, operator]
    model.save_pretrained(folder / "model")
    plain = load(folder / "model", "cpu")
    files = [entry.path for entry in clip_data.entries[:9]]
    rows = ["path,label,split"]
    for number, file in enumerate(files):
        prediction = plain.predict(file, ONE)
        rows.append(f"{file},{prediction.top(2)[number % 3 == 0][0]},val")
    (folder / "val.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    said = call("calibrate", folder / "model", folder / "val.csv", "--root", "/", *QUICK)
    return folder / "model", said


def test_a_temperature_is_found_and_makes_the_scores_less_sure(
    sure: tuple[Path, str], clip_data: VideoSet, tmp_path: Path
) -> None:
    run, said = sure
    found = re.search(
        r"temperature (\S+); expected calibration error on these videos (\S+)%, with it (\S+)%; mean of "
        r"-ln\(score of the label\) (\S+), with it (\S+);",
        said,
    )
    assert found is not None, said
    temperature, _, _, before, after = (float(each) for each in found.groups())
    assert temperature > 1 and after < before
    exact = json.loads((run / "cascade" / "temperature.json").read_text())["temperature"]
    assert exact == pytest.approx(temperature, rel=0.06)

    files = [entry.path for entry in clip_data.entries[:6]]
    lines = []
    for name, more in (("plain", ()), ("calibrated", ("--calibrated",))):
        call("predict", run, *files, *QUICK, *more, "--top", 3, "--jsonl", tmp_path / name)
        lines.append([json.loads(line) for line in (tmp_path / name).read_text().splitlines()])
    for plain, calibrated in zip(*lines, strict=True):
        one, other = (np.array(list(each["scores"]["fused"].values())) for each in (plain, calibrated))
        assert plain["class"] == calibrated["class"] and (one.argsort() == other.argsort()).all()
        assert calibrated["score"] < plain["score"] and other == pytest.approx(tempered(one, exact))


def test_other_ways_in_show_the_same_scores(
    sure: tuple[Path, str], clip_data: VideoSet, tmp_path: Path
) -> None:
    run, _ = sure
    file = clip_data.entries[-1].path
    plain, calibrated = load(run, "cpu"), load(run, "cpu", calibrated=True)
    wanted = calibrated.predict(file)  # of the views that it is for, where none are given
    assert wanted.scores["fused"].max() < plain.predict(file, ONE).scores["fused"].max()

    call("explain", run, file, *QUICK, "--calibrated", "--device", "cpu", "--out", tmp_path / "seen")
    seen = json.loads((tmp_path / "seen" / "evidence.json").read_text())
    assert wanted.to_dict(3)["scores"]["fused"] in _dicts(seen)

    call("watch", run, file, "--calibrated", "--device", "cpu", "--out", tmp_path / "watched")
    watched = [json.loads(line) for line in (tmp_path / "watched" / "windows.jsonl").read_text().splitlines()]
    windows = [each for each in watch(calibrated, file) if isinstance(each, ScoredWindow)]
    raw = [each for each in watch(plain, file) if isinstance(each, ScoredWindow)]
    assert windows and len(windows) == len(raw)
    temperature = calibrated.temperature
    assert temperature is not None
    for one, other in zip(windows, raw, strict=True):
        assert one.scores.tolist() == tempered(other.scores, temperature.temperature).tolist()
        assert json.loads(json.dumps(to_line(one, 5))) in watched

    service = Service(calibrated, calibrated.choose_views(None), Limits(), tmp_path)
    assert "at the temperature" in about(service) and "as those of 'peakzoom predict'" in averaged(service)
    assert "are not calibrated" in about(Service(plain, ONE, Limits(), tmp_path))


def _dicts(value: object) -> list[object]:
    """All objects in JSON."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(found for each in inner for found in _dicts(each))]


def test_views_that_the_temperature_is_not_for(sure: tuple[Path, str], clip_data: VideoSet) -> None:
    run, _ = sure
    file = clip_data.entries[-1].path
    with pytest.raises(UserError, match="fitted for other views"):
        call("explain", run, file, "--calibrated", "--device", "cpu")
    with pytest.raises(UserError, match="fitted for other views"):
        call("serve", run, "--calibrated", "--num-clips", 3, "--device", "cpu")
    with pytest.raises(
        UserError, match=r"means of 1 x 1 views, and a window is one clip of 3 crops: remove"
    ) as error:
        watch(load(run, "cpu", calibrated=True), file, WatchOptions(crops=3))
    assert "\n" not in str(error.value)


def test_what_was_not_calibrated(run: Path, clip_data: VideoSet) -> None:
    file = clip_data.entries[-1].path
    for command in (("explain", run, file), ("watch", run, file), ("serve", run)):
        with pytest.raises(UserError, match=r"'peakzoom calibrate RUN' makes it"):
            call(*command, "--calibrated")


def test_too_few_videos_are_refused_before_they_are_scored(
    sure: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sure[0]
    monkeypatch.setattr("peakzoom.evaluation.calibrate.FEWEST", 20)
    monkeypatch.setattr("peakzoom.evaluation.evaluate.score_videos", None)
    kept = (model / "cascade" / "cascade.json").read_bytes()
    (model / "cascade").rename(model / "elsewhere")
    try:
        with pytest.raises(
            UserError, match=r"^9 videos came, expected at least 20 to choose on, so nothing was chan"
        ):
            call("calibrate", model, model.parent / "val.csv", "--root", "/", *QUICK)
        assert not (model / "cascade").exists()
    finally:
        (model / "elsewhere").rename(model / "cascade")
    assert (model / "cascade" / "cascade.json").read_bytes() == kept
