"""What an earlier version left behind still works: runs, checkpoints, saved models, exports, evaluations, caches.

That version made everything in tests/old/03616bc.zip (tests/old/make.py says how). Its evaluation holds the scores that
it gave its own test clips, and today's must be those.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import peakzoom
from peakzoom.cli import app
from peakzoom.data.cache import FrameCache
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError

ARCHIVE = Path(__file__).parent / "old" / "03616bc.zip"
BRANCHES = ("original", "discriminative", "complementary", "fused")


def command(*words: object) -> int:
    """Run a command of today's in this process; its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


# Options of that version that are keys of --set today.
KEYS = {
    "--width": "width",
    "--frames": "preprocess.frames",
    "--stride": "stride",
    "--accelerator": "accelerator",
    "--cache": "cache",
}


AS_IT_WAS = [
    "--set",
    "quiet=0",
    "--model",
    "tcnn_xs",
    "--set",
    "faintest=0.001",
    "--set",
    "branches=original,discriminative,complementary",
]  # recipe small is another now


def as_asked_now(words: list[str]) -> list[str]:
    """The same options and values, in today's words."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return [
        each
        for option, value in pairs
        for each in (("--set", f"{KEYS[option]}={value}") if option in KEYS else (option, value))
    ]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive; do not write into it."""
    folder = tmp_path_factory.mktemp("old")
    shutil.unpack_archive(ARCHIVE, folder)
    return folder


@pytest.fixture(scope="module")
def old_scores(old: Path) -> dict[str, dict[str, np.ndarray]]:
    """By file name and branch, the scores that the old version gave."""
    (file,) = (old / "run").rglob("scores.csv")
    found: dict[str, dict[str, np.ndarray]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            scores = np.array([float(row[name]) for name in ("nod", "wave")])
            found.setdefault(Path(row["path"]).name, {})[row["branch"]] = scores
    return found


def test_a_run_predicts_what_it_predicted(old: Path, old_scores: dict[str, dict[str, np.ndarray]]) -> None:
    recognizer = peakzoom.load(old / "run", device="cpu")
    files = sorted((old / "clips").glob("*/test_*.mp4"))
    assert {file.name for file in files} == set(old_scores)
    for file in files:
        prediction = recognizer.predict(file)
        for branch in BRANCHES:
            assert prediction.scores[branch] == pytest.approx(old_scores[file.name][branch], abs=1e-5)


@pytest.mark.parametrize("name, package", [("model.onnx", "onnxruntime"), ("model.xml", "openvino")])
def test_exported_files_predict_what_they_predicted(
    old: Path, name: str, package: str, old_scores: dict[str, dict[str, np.ndarray]]
) -> None:
    pytest.importorskip(package)
    file = next((old / "clips").glob("wave/test_*.mp4"))
    prediction = peakzoom.load(old / name, device="cpu").predict(file)
    assert prediction.scores["fused"] == pytest.approx(old_scores[file.name]["fused"], abs=1e-4)


def test_an_exported_file_is_refused_the_early_exit(old: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="the early exit runs on engine torch, not on onnx: name a run"):
        peakzoom.load(old / "model.onnx", device="cpu", cascade=True)


def test_a_saved_model_loads_and_saves_again(old: Path, tmp_path: Path) -> None:
    model = PeakZoom.from_pretrained(old / "run" / "joint" / "best")
    assert model.classes == ["nod", "wave"]
    model.save_pretrained(tmp_path / "again")
    again = PeakZoom.from_pretrained(tmp_path / "again")
    for name, value in model.state_dict().items():
        assert value.equal(again.state_dict()[name])


def test_thresholds_of_the_early_exit_are_read(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((old / "clips").glob("wave/test_*.mp4"))
    assert command("predict", old / "run", file, "--cascade", "--device", "cpu", "--jsonl", "-") == 0
    assert json.loads(capsys.readouterr().out)["class"] in ("nod", "wave")


def test_an_evaluation_gives_a_report(old: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(old / "run", run)
    assert command("report", run) == 0
    assert any(run.rglob("report.html"))


class StoppedError(Exception):
    """Instead of a training."""


def stop(*_: object, **__: object) -> None:
    raise StoppedError


def test_a_killed_training_goes_on(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old version was killed in the second stage; paths have changed since, and nothing else."""
    run = tmp_path / "run"
    shutil.copytree(old / "killed", run)
    asked = [
        "train",
        old / "clips" / "clips.csv",
        *as_asked_now(json.loads((old / "asked.json").read_text())),
    ]
    with pytest.raises(UserError, match=re.escape(f"resume with {' '.join(AS_IT_WAS)}")):
        command(*asked, "--out", run, "--resume")
    asked += AS_IT_WAS
    with pytest.MonkeyPatch.context() as patch:  # what is asked is written down before the first step
        patch.setattr("peakzoom.training.train.fit_stage", stop)
        with pytest.raises(StoppedError):
            command(*asked, "--out", tmp_path / "new")
    config = json.loads((run / "config.json").read_text())
    config["data"] = json.loads((tmp_path / "new" / "config.json").read_text())["data"]
    (run / "config.json").write_text(json.dumps(config))
    caplog.clear()
    assert command(*asked, "--out", run, "--resume") == 0
    assert "anew" not in caplog.text + capsys.readouterr().err  # no checkpoint was refused
    with (run / "joint" / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        assert [float(row["epoch"]) for row in csv.DictReader(stream)] == [1, 2, 3]
    first, again = (
        PeakZoom.from_pretrained(folder / "tcnn" / "best").state_dict() for folder in (old / "killed", run)
    )
    assert all(
        value.equal(again[name]) for name, value in first.items()
    )  # the first stage was not trained again


def test_cached_frames_keep_their_names(old: Path, tmp_path: Path) -> None:
    """The digest that names an entry: another one would decode every user's videos again.

    It is version 03616bc's but for the first number, which was raised when decoding began to go on after broken packets
    and to crop as players do: frames of before would not be those of today.
    """
    video = tmp_path / "clip.mp4"
    shutil.copy(next((old / "clips").glob("wave/test_*.mp4")), video)
    stat = video.stat()
    key = (3, str(video.resolve()), stat.st_size, stat.st_mtime_ns, (36, 36), None)
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32] + ".npy"
    assert FrameCache(tmp_path, (36, 36)).file(video) == tmp_path / name
