"""One file, one answer: views, averaging, finding models, and every odd file of the shared data."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import peakzoom
from peakzoom.apps.watch.records import ScoredWindow
from peakzoom.apps.watch.watch import watch
from peakzoom.cli.predict import _write_table
from peakzoom.data.entries import VideoSet
from peakzoom.explanation.look import explain
from peakzoom.inference.prediction import TABLE, score_columns
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.model import PeakZoom
from peakzoom.model.load import find_model
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views, decode_ahead, decode_views
from peakzoom.video.views import Preprocess, to_input


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def file(clip_data: VideoSet) -> Path:
    return clip_data.entries[-1].path


# Views and scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height,width", [(32, 64), (64, 32), (48, 48)])
def test_thirty_views_of_one_decode(
    tmp_path: Path, make_clip: Callable[..., Path], height: int, width: int
) -> None:
    path = make_clip(tmp_path / "clip.mp4", height=height, width=width, frames=20)
    pre = Preprocess(size=32, frames=4, stride=2, canvas=(32, 32))
    views = decode_views(path, pre, Views())
    assert len(views) == 30
    whole = decode(path, None, pre.test_size(height, width))
    for number, batch in enumerate(views.batches()):
        start = number * (20 - 7) // 9
        clip = whole.frames[start : start + 7 : 2]
        for crop, view in enumerate(batch):
            room = max(whole.frames.shape[2:]) - 32
            at = [0, room // 2, room][crop]
            wanted = clip[:, :, :, at : at + 32] if width >= height else clip[:, :, at : at + 32]
            assert torch.equal(view, wanted)
    assert number == 9


def test_scores_are_averaged_softmax(recognizer: Recognizer, file: Path) -> None:
    prediction = recognizer.predict(file)
    views = decode_views(file, recognizer.preprocess, Views())
    found: dict[str, list[np.ndarray]] = {}
    for batch in views.batches():
        video, _ = to_input(batch, recognizer.preprocess)
        with torch.no_grad():
            for name, logits in recognizer.model(video).logits().items():
                found.setdefault(name, []).extend(logits.double().softmax(1).numpy())
    assert set(found) == set(prediction.scores) == {"original", "discriminative", "complementary", "fused"}
    for name, scores in prediction.scores.items():
        assert scores.dtype == np.float64 and prediction.views[name].shape == (30, 3)
        np.testing.assert_allclose(scores, np.mean(found[name], 0), atol=1e-6)
        assert scores.sum() == pytest.approx(1, abs=1e-12)


def test_the_model_does_not_move(recognizer: Recognizer, file: Path) -> None:
    before = {name: value.clone() for name, value in recognizer.model.state_dict().items()}
    one, two = recognizer.predict(file), recognizer.predict(file)
    assert not recognizer.model.training
    for name in one.scores:
        np.testing.assert_array_equal(one.scores[name], two.scores[name])
    for name, value in recognizer.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_top_and_plain_data(recognizer: Recognizer, file: Path) -> None:
    prediction = recognizer.predict(file, Views(clips=2, crops=1))
    top = prediction.top(5)
    fused = dict(zip(prediction.classes, prediction.scores["fused"].tolist(), strict=True))
    assert [name for name, _ in top] == sorted(fused, key=lambda name: -fused[name])[:5]
    assert [score for _, score in top] == sorted((score for _, score in top), reverse=True)
    line = json.loads(json.dumps(prediction.to_dict(2)))
    assert line["file"] == str(file) and (line["class"], line["score"]) == top[0]
    assert [(each["class"], each["score"]) for each in line["top"]] == top[:2]
    assert line["scores"]["fused"] == dict(
        zip(prediction.classes, prediction.scores["fused"].tolist(), strict=True)
    )
    assert line["problem"] is None


@pytest.mark.parametrize("values", [{"rule": "tsm"}, {"clips": 0}, {"crops": 0}])
def test_protocols_that_are_none(values: dict) -> None:
    with pytest.raises(UserError):
        Views(**values)


# Finding and loading ---------------------------------------------------------------------------------------------


def test_a_model_is_found_from_its_run(run: Path, tmp_path: Path) -> None:
    assert find_model(run) == run / "joint" / "best"
    assert find_model(run / "tcnn") == run / "tcnn" / "best"
    assert find_model(run / "joint" / "last").resolve() == (run / "joint" / "last").resolve()
    shutil.copytree(run / "tcnn", tmp_path / "half" / "tcnn")
    assert find_model(tmp_path / "half") == tmp_path / "half" / "tcnn" / "best"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no trained model"):
        find_model(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        find_model(tmp_path / "gone")


def test_the_package_s_own_load(run: Path, recognizer: Recognizer, file: Path) -> None:
    again = peakzoom.load(str(run)).predict(str(file))
    np.testing.assert_array_equal(again.scores["fused"], recognizer.predict(file).scores["fused"])


def test_a_folder_as_the_hub_has_it(
    run: Path, recognizer: Recognizer, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "owner" / "name"
    recognizer.model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    monkeypatch.chdir(tmp_path)
    for path in (folder, "owner/name"):  # a folder that is here comes before the hub
        loaded = load(path)
        assert loaded.classes == recognizer.classes and loaded.preprocess == recognizer.preprocess
        np.testing.assert_array_equal(
            loaded.predict(file).scores["fused"], recognizer.predict(file).scores["fused"]
        )


@pytest.mark.parametrize("name", ["nobody/nothing-at-all", "runs/frist"])
def test_no_hub_without_a_network(name: str) -> None:
    with pytest.raises(UserError, match="no folder here") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_damaged_models_are_a_sentence(run: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(run / "tcnn" / "best", tmp_path / name))

    cut = damaged("cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    bare = damaged("bare")
    (bare / "config.json").unlink()
    torn = damaged("torn")
    (torn / "config.json").write_text('{"backbone": "tcnn_xs", ')
    other = damaged("other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "backbone": "tcnn_s"}))
    newer = damaged("newer")
    (newer / "config.json").write_text(
        json.dumps({**config, "preprocess": {**config["preprocess"], "smell": 1}})
    )
    for folder in (cut, bare, torn, other, newer):
        with pytest.raises(UserError) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_devices(run: Path) -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(UserError, match="cannot be used"):
            load(run, device)


def test_precisions(run: Path, tmp_path: Path) -> None:
    half = load(run, "cpu", precision="bf16-mixed")
    assert half.precision == "bf16-mixed" and "precision: bf16-mixed" in repr(half)
    assert half.settings(Views()) != load(run, "cpu").settings(Views())  # so neither resumes the other's
    with pytest.raises(
        UserError, match=r"precision is 'bf16', expected one of 32-true, bf16-mixed, 16-mixed"
    ):
        load(run, precision="bf16")
    (tmp_path / "model.xml").touch()
    for path, engine in ((run, "onnx"), (tmp_path / "model.xml", None)):
        with pytest.raises(UserError, match="computes in 32-true, not in 16-mixed: use engine torch"):
            load(path, engine=engine, precision="16-mixed")


def test_scores_beyond_the_range_of_half_precision(run: Path, file: Path) -> None:
    model = load(run, "cpu").model
    model.backbone.get_submodule("stem")[0][1].weight.data *= 1e6  # type: ignore[index]
    assert np.isfinite(Recognizer.of(model, "cpu").predict(file, Views(clips=1)).scores["fused"]).all()
    with pytest.raises(UserError, match="no longer finite numbers in 16-mixed"):
        Recognizer.of(model, "cpu", precision="16-mixed").predict(file, Views(clips=1))


# Odd files -------------------------------------------------------------------------------------------------------


def test_files_that_give_no_frame(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video " * 99)
    for path in (tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "gone.mp4", tmp_path):
        with pytest.raises(DecodeError) as caught:
            recognizer.predict(path)
        assert caught.value.reason and "\n" not in caught.value.reason


@pytest.mark.parametrize("fps", [None, 8.0])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_videos(
    tmp_path: Path, make_clip: Callable[..., Path], frames: int, fps: float | None
) -> None:
    pre = Preprocess(size=32, frames=8, stride=4, fps=fps, canvas=(32, 32), zoom_source=2)
    model = PeakZoom("tcnn_xs", 2, width=0.25, preprocess=pre.to_dict()).eval()
    prediction = Recognizer.of(model, "cpu").predict(
        make_clip(tmp_path / "a.mp4", frames=frames), Views(clips=2)
    )
    assert prediction.views["fused"].shape == (6, 2)
    assert np.isfinite(prediction.scores["fused"]).all()


@pytest.mark.parametrize(("file_fps", "brought"), [(30.0, True), (20.0, False), (16.0, False), (8.0, True)])
def test_a_video_of_another_rate_is_brought_to_that_of_the_training(
    tmp_path: Path, make_clip: Callable[..., Path], file_fps: float, brought: bool
) -> None:
    """Within 1.2 times the rate the frames stay as they are; else all is as if that rate had been asked for."""
    like = Preprocess(size=32, frames=4, canvas=(32, 32))
    noted, asked = replace(like, trained_fps=18.0), replace(like, fps=18.0)
    path = make_clip(tmp_path / "a.mp4", frames=24, fps=file_fps)
    found, wanted = (decode_views(path, pre, Views(clips=3)) for pre in (noted, asked if brought else like))
    np.testing.assert_array_equal(found.clips, wanted.clips)
    assert torch.equal(found.video.frames, wanted.video.frames)
    assert Preprocess.from_dict(noted.to_dict()).fps_for(file_fps) == (18.0 if brought else None)
    seen = []
    for pre in (noted, asked if brought else like):
        torch.manual_seed(0)
        model = PeakZoom("tcnn_xs", 2, width=0.25, preprocess=pre.to_dict(), attention_per="clip").eval()
        recognizer = Recognizer.of(model, "cpu")
        evidence = explain(recognizer, path, views=Views(clips=1), progress=False)
        windows = [each.scores.tolist() for each in watch(recognizer, path) if isinstance(each, ScoredWindow)]
        seen.append((evidence.base.tolist(), [asdict(each) for each in evidence.peaks], windows))
    assert seen[0] == seen[1] and len(seen[0][2]) > 2


def test_extreme_shapes(tmp_path: Path, make_clip: Callable[..., Path], recognizer: Recognizer) -> None:
    for height, width in ((32, 640), (640, 32)):
        path = make_clip(tmp_path / f"{height}.mp4", height=height, width=width, frames=3)
        assert np.isfinite(recognizer.predict(path, Views(clips=1)).scores["fused"]).all()


# Decoding ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [None, 9.0])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_decoding_ahead_changes_nothing(clip_data: VideoSet, workers: int, fps: float | None) -> None:
    before = torch.get_num_threads()
    paths = [each.path for each in clip_data.entries[:7]]
    pre = Preprocess(size=32, frames=4, canvas=(32, 32), fps=fps)
    torch.set_num_threads(2)
    try:
        found = []
        for views in decode_ahead(paths, pre, Views(clips=3, crops=2), workers):
            assert torch.get_num_threads() == 2  # the network's
            found.append(views)
    finally:
        torch.set_num_threads(before)
    for path, views in zip(paths, found, strict=True):
        wanted = decode_views(path, pre, Views(clips=3, crops=2))
        assert not isinstance(views, DecodeError) and views.video.info == wanted.video.info
        assert torch.equal(views.video.frames, wanted.video.frames)
        assert views.video.frames.stride() == wanted.video.frames.stride()
        np.testing.assert_array_equal(views.video.timestamps, wanted.video.timestamps)
        np.testing.assert_array_equal(views.clips, wanted.clips)
        assert all(map(torch.equal, views.batches(), wanted.batches()))


@pytest.mark.parametrize(
    "classes", [["file", "wave", "score"], ["score:file", "file", "score:score:file"], ["problem", "class"]]
)
def test_columns_of_a_table_are_each_of_one_thing(classes: list[str], tmp_path: Path) -> None:
    """As ``csv.DictReader`` gives them, in which a later column of the same name hides an earlier one."""
    scores = [(place + 1) / 10 for place in range(len(classes))]
    line = {"file": "a.mp4", "class": classes[0], "score": 0.5, "problem": "cut off"}
    line["scores"] = {"fused": dict(zip(classes, scores, strict=True))}
    _write_table(tmp_path / "a.csv", [line, {"file": "b.mp4", "error": "is empty"}], classes)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        row, broken = csv.DictReader(stream)
    columns = score_columns(classes)
    assert [row[name] for name in TABLE] == ["a.mp4", classes[0], "0.5", "cut off"]
    assert [float(row[name]) for name in columns] == scores
    assert [broken[name] for name in (*TABLE, *columns)] == [
        "b.mp4",
        "",
        "",
        "is empty",
        *([""] * len(classes)),
    ]
    for name, column in zip(classes, columns, strict=True):
        assert column == (f"score:{name}" if name.split(":")[-1] in TABLE else name)
