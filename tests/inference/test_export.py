"""Exported graphs against the trained network: every backbone traced, ONNX and OpenVINO run, files refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_inference import DEEP, trained, views
from torch import Tensor
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.data.entries import VideoSet
from peakzoom.inference.engines.base import Description, trace
from peakzoom.inference.engines.build import build_engine, open_exported
from peakzoom.inference.export import compare, export
from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom, SparseAttention
from peakzoom.model.backbones import BACKBONES, TORCHVISION
from peakzoom.model.config import BRANCHES
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess, to_input

GRAPH = pytest.mark.xdist_group("graph")
onnx = pytest.importorskip("onnx", reason="pip install '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SETTINGS = [  # backbone, frames, size, zoom_source and what else; all that differs of the engines
    pytest.param(
        *("tcnn_xs", 8, 48, 2),
        {"branches": BRANCHES[:2], "attention_per": "clip", "response": "evidence", "erase": 0.15},
        marks=pytest.mark.slow,
    ),
    ("tcnn_xs", 5, 32, 1, {"branches": ("original",)}),
    ("tcnn_xs_local", 8, 32, 1, {"branches": BRANCHES[:2]}),
    *(
        pytest.param(name, frames, 32, 1, {"branches": ("original",)}, marks=pytest.mark.slow)
        for name, frames in (("slowfast_r50", 6), ("s3d", 20))
    ),
]
SPATIAL = {"tcnn": BRANCHES, "tsm": BRANCHES[::2]}  # of the other networks the original alone
SAME_LAYERS = (
    "tcnn_s",
    "tcnn_s_local",
    "tcnn_local",
    "tsn",
    "res3d",
)  # as tcnn_xs, tcnn_xs_local, tsm and r3d_18, which have them


@torch.inference_mode()
def close(model: PeakZoom, found: dict[str, Tensor], clips: Tensor) -> None:
    expected = model(*to_input(clips, Preprocess.from_dict(model.preprocess))).logits()
    assert list(found) == list(expected)
    for name, logits in expected.items():
        scale = max(1.0, float(logits.abs().max()))
        torch.testing.assert_close(found[name], logits, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", [name for name in BACKBONES if name not in {*DEEP, *SAME_LAYERS, *TORCHVISION, "c3d"}]
)
def test_every_network_becomes_one_graph_for_any_number_of_clips(backbone: str) -> None:
    model = trained(backbone, 8, 64, branches=SPATIAL.get(backbone, BRANCHES[:1]))
    program = trace(model).module()
    for batch in (1, 2, 4):
        clips = views(batch, 8, 64)
        close(model, program(clips), clips)


@pytest.mark.parametrize("backbone,frames,size,zoom_source,options", SETTINGS)
def test_engines_answer_as_the_network(
    backbone: str, frames: int, size: int, zoom_source: int, options: dict
) -> None:
    from peakzoom.inference.engines.onnx import OnnxEngine, to_onnx
    from peakzoom.inference.engines.openvino import OpenVinoEngine, from_onnx

    model = trained(backbone, frames, size, zoom_source, **options)
    for module in model.modules():  # what the classifiers add tells classes, and clips of a batch, apart
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias)
    graph = to_onnx(model)  # takes most of the time
    for built in (OnnxEngine(graph), OpenVinoEngine(from_onnx(graph))):
        assert built.classes == model.classes and built.preprocess == Preprocess.from_dict(model.preprocess)
        for batch in (1, 2, 5):
            clips = views(batch, frames, size * zoom_source)
            close(model, built(clips), clips)
        with pytest.raises(ValueError, match=r"expected torch\.uint8"):
            built(views(1, frames + 1, size * zoom_source))
        with pytest.raises(ValueError, match=r"expected torch\.uint8"):
            built(clips.float())


def test_an_engine_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that adds a bias along the batch, as OpenVINO 2026.4.1 did, or gives no number."""
    from peakzoom.inference.engines import onnx as engines

    model = trained("tcnn_xs", 4, 32, branches=("original",))
    true = engines.OnnxEngine.__call__
    for wrong in (lambda found: found + torch.arange(len(found))[:, None], lambda found: found * torch.nan):

        def faulty(self: object, clips: Tensor, wrong: Any = wrong) -> dict[str, Tensor]:
            return {name: wrong(logits) for name, logits in true(self, clips).items()}  # type: ignore[arg-type]

        monkeypatch.setattr(engines.OnnxEngine, "__call__", faulty)
        with pytest.raises(UserError, match="engine onnx differs from the network by"):
            build_engine(model, "onnx")
    monkeypatch.undo()
    build_engine(model, "onnx")


@pytest.mark.slow
def test_a_traced_model_is_left_as_it_was() -> None:
    model = trained("tcnn_xs", 8, 48)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model)
    assert type(model.attention) is SparseAttention
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def batches(data: VideoSet, preprocess: Preprocess) -> Iterator[Tensor]:
    from peakzoom.inference.export import views_of

    return views_of([each.path for each in data.entries], preprocess, 3)


@pytest.mark.slow
@GRAPH
@pytest.mark.parametrize("to,name", [("onnx", "m.onnx"), ("openvino", "m.xml"), ("torch", "m.pt2")])
def test_written_files_are_whole(run: Path, clip_data: VideoSet, tmp_path: Path, to: str, name: str) -> None:
    recognizer = load(run, "cpu")
    made = export(recognizer.model, to, tmp_path / name, batches(clip_data, recognizer.preprocess))
    assert made.clips == 9 and made.difference < 1e-4 < made.scale
    assert sorted(tmp_path.iterdir()) == made.files  # and nothing temporary
    with pytest.raises(UserError, match=r"exists"):
        export(recognizer.model, to, tmp_path / name, [])
    file = clip_data.entries[0].path
    expected = recognizer.predict(file, Views(clips=2))
    if to == "torch":
        with pytest.raises(UserError, match="no model that can be run"):
            load(tmp_path / name)
        return
    found = load(tmp_path / name).predict(file, Views(clips=2))
    for branch, scores in expected.scores.items():
        np.testing.assert_allclose(found.scores[branch], scores, atol=1e-5)
    with pytest.raises(UserError, match="runs on engine"):
        load(tmp_path / name, engine="torch")
    with pytest.raises(UserError, match="on the CPU"):
        load(tmp_path / name, device="cuda")


@pytest.mark.slow
@GRAPH
def test_onnx_needs_nothing_of_ours(run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    """What docs/export.md promises: the file and ONNX Runtime alone."""
    recognizer = load(run, "cpu")
    (clips,) = list(batches(clip_data, recognizer.preprocess))[:1]
    export(recognizer.model, "onnx", tmp_path / "m.onnx", [clips])
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["peakzoom"])
    assert about["classes"] == recognizer.classes and about["preprocess"]["frames"] == 8
    (given,) = session.get_inputs()
    assert given.name == "views" and given.type == "tensor(uint8)" and given.shape[1:] == [8, 3, 32, 32]
    assert isinstance(given.shape[0], str)
    assert [each.name for each in session.get_outputs()] == about["outputs"]
    fused = session.run(["fused"], {"views": clips.numpy()})[0]
    np.testing.assert_allclose(fused, recognizer.engine(clips)["fused"].numpy(), atol=1e-4)


class _Off:
    """An engine whose answers are off by a little."""

    def __init__(self, model: PeakZoom, by: float) -> None:
        self.engine, self.by = build_engine(model), by

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        found = self.engine(clips)
        return {**found, "original": found["original"] + self.by}


@pytest.mark.parametrize("by", [0.01, float("nan"), float("inf")])
def test_other_answers_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: float) -> None:
    model = trained("tcnn_xs", 4, 32, branches=("original",))
    clips = [views(2, 4, 32), views(1, 4, 32)]
    difference, _, count = compare(model, _Off(model, by), clips)
    assert count == 3 and (
        difference == pytest.approx(by, rel=1e-2) or (by != by and difference != difference)
    )
    monkeypatch.setattr("peakzoom.inference.export._write", lambda model, to, file: _Off(model, by))
    with pytest.raises(UserError, match="was not kept"):
        export(model, "torch", tmp_path / "m.pt2", clips)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "to,name,reason",
    [
        ("onnx", "m.xml", "does not end in .onnx"),
        ("tflite", "m.tflite", "expected one of"),
        ("onnx", "no/m.onnx", "is no folder"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, to: str, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        export(trained("tcnn_xs", 4, 32), to, tmp_path / name, [])
    with pytest.raises(UserError, match="no clip"):
        export(trained("tcnn_xs", 4, 32, branches=("original",)), "torch", tmp_path / "m.pt2", [])


def test_files_that_are_no_model(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.xml"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(UserError, match="is no model that"):
            open_exported(tmp_path / name)
        with pytest.raises(UserError, match="does not exist"):
            open_exported(tmp_path / "b" / name)
    plain = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["views"], ["fused"])],
            "g",
            [onnx.helper.make_tensor_value_info("views", 1, [1])],
            [onnx.helper.make_tensor_value_info("fused", 1, [1])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(plain, tmp_path / "plain.onnx")
    with pytest.raises(UserError, match="that 'peakzoom export' wrote"):
        open_exported(tmp_path / "plain.onnx")
    with pytest.raises(UserError, match="expected one of torch, onnx, openvino"):
        build_engine(trained("tcnn_xs", 4, 32), "tensorrt")


def test_description_survives_json() -> None:
    about = Description(["a b", 'q"'], Preprocess(fps=12.5, zoom_source=2), ["original", "fused"])
    assert Description.from_json(about.to_json(), "x") == about
    for damaged in (None, "", "{}", "[]", '{"classes": 3}'):
        with pytest.raises(UserError, match="that 'peakzoom export' wrote"):
            Description.from_json(damaged, "x")


@pytest.mark.slow
@GRAPH
def test_from_the_command_line(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    shutil.copytree(run, home)
    call = CliRunner()
    made = call.invoke(app, ["export", str(home), "--to", "onnx"])
    assert made.exit_code == 0 and "Largest difference" in made.output, made.output
    answers = {}
    for name, arguments in {
        "torch": [str(home)],
        "onnx": [str(home / "model.onnx")],
        "openvino": [str(home), "--engine", "openvino"],
    }.items():
        result = call.invoke(app, ["evaluate", *arguments, "--num-clips", "2", "--crops", "1"])
        assert result.exit_code == 0, result.output
        folder = home / ("evaluation-test-paper" + ("" if name == "torch" else f"-{name}"))
        answers[name] = np.load(folder / "views.npz")["scores"]
    for scores in answers.values():
        np.testing.assert_allclose(scores, answers["torch"], atol=1e-5)
    refused = call.invoke(app, ["export", str(home), "--to", "onnx"])
    assert isinstance(refused.exception, UserError) and "exists" in str(refused.exception)
