"""The same file, the same scores, by whatever way they are asked for; the same seed, the same weights."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import begin, quick_command

from peakzoom.cli import main
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_evaluation, read_scores
from peakzoom.explanation import explain
from peakzoom.inference.export import TOLERANCE
from peakzoom.inference.prediction import Prediction, average
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import DecodeError
from peakzoom.video.sampling import Views, decode_views

SAME = Views(clips=2, crops=3)
ASKED = ["--num-clips", "2", "--crops", "3", "--device", "cpu"]
BATCH = 1e-4  # of logits: what the neighbours of a view in a batch may change


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def videos(clip_data: VideoSet) -> list[Entry]:
    return [entry for entry in clip_data.entries if entry.split == "test"][:4]


@pytest.fixture(scope="module")
def alone(run: Path, videos: list[Entry]) -> dict[str, Prediction]:
    """Each file by itself, by a model that was loaded for it."""
    return {str(entry.path): load(run, "cpu").predict(entry.path, SAME) for entry in videos}


def same(found: Prediction, expected: Prediction) -> None:
    assert list(found.scores) == list(expected.scores)
    for name, values in expected.scores.items():
        np.testing.assert_array_equal(found.scores[name], values)
        np.testing.assert_array_equal(found.views[name], expected.views[name])


# Ways to ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("order", ["as listed", "reversed", "with a broken one", "twice"])
def test_among_other_files(
    recognizer: Recognizer,
    videos: list[Entry],
    alone: dict[str, Prediction],
    tmp_path: Path,
    workers: int,
    order: str,
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 70)
    paths = [entry.path for entry in videos]
    paths = {
        "as listed": paths,
        "reversed": paths[::-1],
        "with a broken one": [paths[0], tmp_path / "broken.mp4", *paths[1:]],
        "twice": [path for path in paths for _ in range(2)],
    }[order]
    for path, found in zip(paths, recognizer.predict_many(paths, SAME, workers, progress=False), strict=True):
        if path.name == "broken.mp4":
            assert isinstance(found, DecodeError)
        else:
            assert isinstance(found, Prediction)
            same(found, alone[str(path)])


@pytest.mark.parametrize("workers", [0, 3])
def test_by_the_command_line(
    run: Path,
    videos: list[Entry],
    alone: dict[str, Prediction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    paths = [str(entry.path) for entry in videos[::-1]]
    command = ["predict", str(run), *paths, *ASKED, "--workers", str(workers)]
    monkeypatch.setattr(sys, "argv", ["peakzoom", *command, "--jsonl", str(tmp_path / "a.jsonl")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == paths
    for line in lines:
        expected = alone[line["file"]]
        for name, values in expected.scores.items():
            assert list(line["scores"][name].values()) == values.tolist()


@pytest.mark.parametrize("workers", [0, 3])
def test_by_an_evaluation(
    recognizer: Recognizer,
    clip_data: VideoSet,
    videos: list[Entry],
    alone: dict[str, Prediction],
    tmp_path: Path,
    workers: int,
) -> None:
    evaluate(
        recognizer, replace(clip_data, entries=videos[::-1]), tmp_path / "out", SAME, workers, progress=False
    )
    scores, _, _ = read_scores(tmp_path / "out" / "scores.csv")
    kept = np.load(tmp_path / "out" / "views.npz")
    assert kept["paths"].tolist() == [str(entry.path) for entry in videos[::-1]]
    for row, path in enumerate(kept["paths"].tolist()):
        for place, name in enumerate(kept["branches"].tolist()):
            np.testing.assert_array_equal(scores[name][row], alone[path].scores[name])
            np.testing.assert_array_equal(kept["scores"][row, place], alone[path].views[name])


def test_by_the_web_page(
    recognizer: Recognizer, videos: list[Entry], alone: dict[str, Prediction], tmp_path: Path
) -> None:
    pytest.importorskip("gradio")
    from peakzoom.apps.serve.limits import Limits
    from peakzoom.apps.serve.service import Service

    service = Service(recognizer, SAME, Limits(), tmp_path)
    sent = []
    for index, entry in enumerate(videos):
        sent.append(tmp_path / f"{index}.mp4")
        sent[-1].write_bytes(entry.path.read_bytes())
    _, file = service.table(sent)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row, entry in zip(rows, videos, strict=True):
        expected = alone[str(entry.path)]
        assert [float(row[name]) for name in expected.classes] == expected.scores["fused"].tolist()
    evidence, _, _ = service.explain(sent[0])
    same(evidence.prediction, alone[str(videos[0].path)])


def test_by_an_explanation(recognizer: Recognizer, videos: list[Entry], alone: dict[str, Prediction]) -> None:
    found = explain(recognizer, videos[1].path, views=SAME, progress=False)
    same(found.prediction, alone[str(videos[1].path)])


def test_by_watching_one_window(recognizer: Recognizer, videos: list[Entry]) -> None:
    """A window with the frames of a clip, in the same crops, gets the scores of that clip alone."""
    from peakzoom.apps.watch.scoring import score_window
    from peakzoom.apps.watch.windows import Clip

    views = Views(clips=1, crops=3)
    decoded = decode_views(videos[0].path, recognizer.preprocess, views)
    frames = tuple(decoded.video.take(decoded.clips[0]).permute(0, 2, 3, 1))
    found = score_window(recognizer, Clip(0.0, 1.0, frames, len(frames)), crops=3).fused
    expected = recognizer.predict(videos[0].path, views)
    np.testing.assert_array_equal(found.scores, expected.scores["fused"])
    assert found.energy == expected.energy


# Engines and batches ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.xdist_group("graph")
@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_a_view_and_its_neighbours_in_a_batch(
    recognizer: Recognizer, run: Path, videos: list[Entry], name: str
) -> None:
    """Each engine: alone, in batches of other sizes, in another place of the batch; against PyTorch's network."""
    if name != "torch":
        pytest.importorskip(name)
        pytest.importorskip("onnxruntime" if name == "onnx" else name)
        pytest.importorskip("onnxscript")
    engine = (recognizer if name == "torch" else load(run, "cpu", name)).engine
    views = torch.cat(list(decode_views(videos[0].path, recognizer.preprocess, SAME).batches()))
    assert len(views) == 6
    reference = recognizer.engine(views)
    every = engine(views)
    for branch, logits in reference.items():
        assert (every[branch] - logits).abs().max() <= TOLERANCE
    for size in (1, 2, 3, 5):
        parts = [engine(views[start : start + size]) for start in range(0, 6, size)]
        for branch, logits in every.items():
            apart = (torch.cat([part[branch] for part in parts]) - logits).abs().max()
            assert apart <= BATCH, (size, branch)
    turned = engine(views.flip(0))
    again = engine(views)
    for branch, logits in every.items():
        assert (turned[branch].flip(0) - logits).abs().max() <= BATCH
        assert torch.equal(again[branch], logits)  # and asked again, the same to the last bit


@pytest.mark.slow
@pytest.mark.xdist_group("graph")
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_engine_is_as_exact_as_pytorch_about_ways_to_ask(
    run: Path, videos: list[Entry], alone: dict[str, Prediction], name: str
) -> None:
    for needed in ("onnxscript", "onnxruntime", name):
        pytest.importorskip(needed)
    engine = load(run, "cpu", name)
    one = {str(entry.path): engine.predict(entry.path, SAME) for entry in videos}
    for found in engine.predict_many([entry.path for entry in videos[::-1]], SAME, 3, progress=False):
        assert isinstance(found, Prediction)
        same(found, one[str(found.path)])
        for branch, values in alone[str(found.path)].scores.items():
            # A softmax moves by at most half of what its logits move by.
            np.testing.assert_allclose(found.scores[branch], values, rtol=0, atol=TOLERANCE / 2)


@pytest.mark.slow
def test_half_precision_is_as_exact_about_ways_to_ask(
    run: Path, videos: list[Entry], alone: dict[str, Prediction], tmp_path: Path, clip_data: VideoSet
) -> None:
    half, videos = (
        load(run, "cpu", precision="bf16-mixed"),
        videos[:2],
    )  # without the instructions it takes long
    one = {str(entry.path): half.predict(entry.path, SAME) for entry in videos}
    for found in half.predict_many([entry.path for entry in videos[::-1]], SAME, 3, progress=False):
        assert isinstance(found, Prediction)
        same(found, one[str(found.path)])
        whole = alone[str(found.path)].scores["fused"]
        assert not np.array_equal(found.scores["fused"], whole)
        np.testing.assert_allclose(found.scores["fused"], whole, rtol=0, atol=0.05)
    evaluate(half, replace(clip_data, entries=videos), tmp_path / "half", SAME, progress=False)
    assert json.loads((tmp_path / "half" / "metrics.json").read_text())["precision"] == "bf16-mixed"
    scores = read_evaluation(tmp_path / "half")
    for place, path in enumerate(scores.paths):
        np.testing.assert_array_equal(
            scores.views[place, scores.branches.index("fused")], one[str(path)].views["fused"]
        )


# Averages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 2, 3, 30, 257])
@pytest.mark.parametrize("classes", [1, 2, 101])
def test_an_average_does_not_depend_on_the_order_of_views(views: int, classes: int) -> None:
    rng = np.random.default_rng(views + classes)
    scores = np.exp(rng.normal(0, 12, (views, classes))).astype(np.float32)
    scores /= scores.sum(1, keepdims=True)  # from 1 down to what float32 has no more
    mean = average(scores)
    assert mean.shape == (classes,) and mean.dtype == np.float64
    for seed in range(20):
        np.testing.assert_array_equal(average(np.random.default_rng(seed).permutation(scores)), mean)
    exact = [sum((Fraction(float(value)) for value in column), Fraction(0)) for column in scores.T]
    np.testing.assert_allclose(mean, [float(value / sum(exact)) for value in exact], rtol=1e-14)
    stacked = np.stack([scores, scores[::-1]])
    np.testing.assert_array_equal(average(stacked), [mean, mean])


def test_a_plain_mean_would_depend_on_it() -> None:
    """The test above can fail."""
    scores = np.random.default_rng(0).dirichlet(np.full(101, 0.05), 30).astype(np.float32)
    plain = {
        np.random.default_rng(seed).permutation(scores).astype(np.float64).mean(0).tobytes()
        for seed in range(20)
    }
    assert len(plain) > 1


def test_a_prediction_does_not_depend_on_the_order_of_its_clips(
    recognizer: Recognizer, videos: list[Entry]
) -> None:
    views = decode_views(videos[0].path, recognizer.preprocess, Views(clips=7, crops=3))
    expected = recognizer.score(views)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(7)
        found = recognizer.score(replace(views, clips=views.clips[order]))
        for name, values in expected.scores.items():
            np.testing.assert_array_equal(found.scores[name], values)


# Seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_the_same_seed_in_another_process_with_other_workers(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (
        "--size 32 --set preprocess.frames=4 --set stride=2 --set preprocess.zoom_source=1 --set width=0.25"
    )
    plain = "--epochs 2 --joint-epochs 1 --batch-size 6 --set accelerator=cpu --set cache=off"

    def command(seed: int, workers: int) -> list[str]:
        chosen = [
            "--seed",
            str(seed),
            "--workers",
            str(workers),
            "--out",
            str(tmp_path / f"{seed}-{workers}"),
        ]
        return ["train", str(clips / "clips.csv"), *small.split(), *plain.split(), *chosen]

    other = begin(quick_command, *command(3, 1))
    for seed in (3, 4):
        monkeypatch.setattr(sys, "argv", ["peakzoom", *command(seed, 0)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
    other.join()
    assert other.exitcode == 0
    here, there, different = (
        [file.read_bytes() for file in sorted((tmp_path / run).rglob("*.safetensors"))]
        for run in ("3-0", "3-1", "4-0")
    )
    assert len(here) == 4 and here == there != different
