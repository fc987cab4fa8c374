"""A user's own network by name: from training to prediction, and never run because a file asks for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from peakzoom import load
from peakzoom.cli import app
from peakzoom.data.entries import VideoSet
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.backbones import backbone_factory, is_network, is_own
from peakzoom.model.backbones.own import ALLOWED, allow, expect_features
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

# What a user writes beside their videos, with a trace of every import.
SOURCE = '''
import pathlib
from torch import nn
from peakzoom.model import CellGeometry

with (pathlib.Path(__file__).parent / "imported.txt").open("a") as trace:
    trace.write("x")


class Plain(nn.Module):
    def __init__(self, num_classes, width=1.0, dropout=0.0, max_stride=32):
        super().__init__()
        channels = max(8, round(16 * width))
        self.body = nn.Sequential(
            nn.Conv3d(3, channels, (1, 4, 4), stride=(1, 4, 4)), nn.BatchNorm3d(channels), nn.ReLU()
        )
        self.cells = CellGeometry((1, 1, 1)).then((1, 4, 4), (1, 4, 4))
        self.num_features = channels
        self.fc = nn.Linear(channels, num_classes)

    def features(self, video):
        return self.body(video)


class Flat(Plain):
    def features(self, video):
        return self.body(video).mean(2)


class Fails(Plain):
    def features(self, video):
        raise RuntimeError("no such size\\nand more")


class OtherClasses(Plain):
    def __init__(self, num_classes, **options):
        super().__init__(num_classes + 1, **options)


class NoCells(Plain):
    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)
        self.cells = None


class Leaves(Plain):
    def __init__(self, num_classes, **options):
        raise SystemExit(2)


class Wider(Plain):
    """Whose cells lie half as far apart as it says."""

    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)
        self.cells = CellGeometry((1, 1, 1)).then((1, 8, 8), (1, 8, 8))


class Unsaid(Plain):
    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)
        self.cells = CellGeometry((1, 1, 1))


class NoMeta(Plain):
    """Which reads its own numbers while it is made, as some do."""

    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)
        assert float(self.fc.weight.detach().abs().sum()) > 0


def bare(num_classes):
    return Plain(num_classes)


def linear(num_classes, **options):
    return nn.Linear(3, num_classes)


number = 7
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the user's module, of which nothing is allowed."""
    folder = tmp_path / "mine"
    (folder / "pack").mkdir(parents=True)
    for name in ("mynet.py", "pack/__init__.py"):
        (folder / name).write_text(SOURCE)
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    (folder / "odd.py").write_text("1 / 0\n")
    (folder / "script.py").write_text("import sys; sys.exit(3)\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(ALLOWED, raising=False)
    for name in ("mynet", "pack"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def imported(place: Path) -> bool:
    return (place / "imported.txt").exists()


def saved(folder: Path, name: str) -> Path:
    model = PeakZoom(name, 3, width=0.5, preprocess={"size": 32, "frames": 4, "canvas": [32, 32]})
    model.save_pretrained(folder)
    return folder


# Permission ------------------------------------------------------------------------------------------------------


def test_a_saved_model_never_imports_by_itself(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_data: VideoSet
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(ALLOWED, "mynet:Plain")
        model = saved(tmp_path / "model", "mynet:Plain")
    (place / "imported.txt").unlink()
    monkeypatch.delitem(sys.modules, "mynet")
    file = str(clip_data.entries[0].path)
    for attempt in (
        ("predict", str(model), file),
        ("explain", str(model), file),
        ("watch", str(model), file),
        ("serve", str(model)),
        ("export", str(model), "--to", "onnx"),
        ("evaluate", str(model), file),
    ):
        result = CliRunner().invoke(app, attempt)
        assert isinstance(result.exception, UserError), attempt
        said = str(result.exception)
        assert f"{model}/config.json names the network mynet:Plain, which is Python code" in said
        assert f"{ALLOWED}=mynet:Plain" in said and "\n" not in said
    for other in ("mynet", "mynet:", ":Plain", "mynet:Plai", "mynet:Plain2", "*", "my*"):
        monkeypatch.setenv(ALLOWED, other)
        with pytest.raises(UserError, match="is not run"):
            load(model, "cpu")
    assert not imported(place) and "mynet" not in sys.modules
    monkeypatch.setenv(ALLOWED, "other:x , mynet:Plain")
    assert load(model, "cpu").model.backbone_name == "mynet:Plain" and imported(place)


@pytest.mark.parametrize(
    "name",
    ["os", ":", "os:", ":system", "os:system()", "os:a.b", "../x:y", "a/b:c", "a.:b", ".a:b", "a..b:c", "a b:c",
     "a:b:c", "a:b\n", "\x1b[31m:x", "é:b", "a:" + 300 * "b", "1a:b", "-m:x"],
)  # fmt: skip
def test_what_is_no_name(name: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, name)
    assert not is_own(name) and not is_network(name)
    allow(name)
    with pytest.raises(UserError, match=r"or a network of your own as package\.module:factory"):
        backbone_factory(name)
    (tmp_path / "config.json").write_text(json.dumps({"backbone": name, "num_classes": 3}))
    with pytest.raises(
        UserError, match=r"tells of no model of peakzoom: backbone is .* expected one of"
    ) as error:
        load(_with_weights(tmp_path), "cpu")
    assert "\n" not in str(error.value)


def _with_weights(folder: Path) -> Path:
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("Plain", None),
        ("Wider", "its height are centred on pixels 3.5 to 59.5 of 32"),
        ("Unsaid", "its width are centred on pixels 0 to 7 of 32"),
    ],
)
def test_cells_beside_the_middle_of_a_frame_are_doubted(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    network: str,
    said: str | None,
) -> None:
    monkeypatch.setenv(ALLOWED, f"mynet:{network}")
    expect_features("net", backbone_factory(f"mynet:{network}")(3), 4, 32)
    assert caplog.text.count("the zoom looks beside the action") == (2 if said else 0)
    assert said is None or said in caplog.text


def test_names_of_the_package_need_no_permission() -> None:
    assert all(is_network(name) and not is_own(name) for name in BACKBONES)
    assert backbone_factory("tcnn_xs") is BACKBONES["tcnn_xs"]
    with pytest.raises(UserError, match=r"did you mean tcnn_xs\?"):
        backbone_factory("tcnxs")


def test_a_recipe_file_is_no_permission(place: Path, clips: Path, tmp_path: Path) -> None:
    """It may come from anyone, too."""
    result = CliRunner().invoke(
        app,
        ["train", str(clips / "clips.csv"), "--set", "model=mynet:Plain", "--out", str(tmp_path / "run")],
    )
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("the network mynet:Plain is Python code")
    assert not imported(place)


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Net", r"is a network of no module here \(No module named 'nowhere'\): name the folder .* PYTHONPATH"),
        ("pack.inner:Net", "is a network of no module here .*PYTHONPATH"),
        ("mynet:Plane", "mynet:Plane is no network: mynet has no function or class Plane"),
        ("mynet:number", "mynet:number is no network: mynet has no function or class number"),
        ("broken:Net", "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("odd:Net", "cannot be imported: ZeroDivisionError"),
        ("script:Net", "cannot be imported: SystemExit: 3"),
        ("mynet:Leaves", "makes no network of .*: SystemExit: 2"),
        ("mynet:bare", "makes no network of num_classes=3, width=0.5, .*: TypeError: .*unexpected keyword argument"),
        ("mynet:linear", r"a Linear came, expected a module with features\(video\), cells, num_features and fc"),
        ("mynet:NoCells", "its cells are a NoneType, expected a CellGeometry"),
        ("mynet:OtherClasses", r"its fc has a weight of \(4, 8\), expected \(3, 8\)"),
    ],
)  # fmt: skip
def test_one_sentence_for_a_mistake(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv(ALLOWED, name)
    with pytest.raises(UserError, match=said) as error:
        backbone_factory(name)(3, width=0.5, dropout=0.1, max_stride=16)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mynet:Flat", r"has features of shape \(1, 8, 8, 8\) for a clip of 8 frames of 32 x 32 pixels, expected"),
        ("mynet:Fails", "fails on clips of 8 frames of 32 x 32 pixels: RuntimeError: no such size$"),
    ],
)  # fmt: skip
def test_features_are_tried_before_a_training(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    clip_data: VideoSet,
    tiny: Recipe,
    tmp_path: Path,
    name: str,
    said: str,
) -> None:
    monkeypatch.setenv(ALLOWED, name)
    recipe = replace(tiny, model=name, width=0.5)
    with pytest.raises(UserError, match=said):
        train(clip_data, recipe, tmp_path / "run", Options(workers=0, accelerator="cpu", progress=False))
    assert not (tmp_path / "run" / "tcnn").exists()


# The whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(
    place: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_curves: None
) -> Path:
    """Trained by the command, for which naming the network is permission enough; then nothing is allowed again."""
    out = tmp_path / "run"
    monkeypatch.setenv(ALLOWED, "")  # restored afterwards, whatever the command allows
    words = [
        "--model",
        "mynet:NoMeta",
        "--recipe",
        "spatial",
        "--size",
        "32",
        "--epochs",
        "1",
        "--joint-epochs",
        "1",
    ]
    words += [
        "--set",
        "preprocess.frames=8",
        "--set",
        "width=0.5",
        "--set",
        "accelerator=cpu",
        "--workers",
        "0",
    ]
    result = CliRunner().invoke(app, ["train", str(clips / "clips.csv"), *words, "--out", str(out)])
    assert result.exit_code == 0, result.exception
    assert os.environ[ALLOWED] == "mynet:NoMeta"  # for processes that the training starts
    monkeypatch.setenv(ALLOWED, "")
    return out


def test_a_run_is_used_by_every_command(
    trained: Path, place: Path, clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = clip_data.entries[-1].path
    assert json.loads((trained / "joint" / "best" / "config.json").read_text())["backbone"] == "mynet:NoMeta"
    with pytest.raises(UserError, match="is not run"):
        load(trained, "cpu")
    monkeypatch.setenv(ALLOWED, "mynet:NoMeta")
    recognizer = load(trained, "cpu")
    assert recognizer.model.backbone.num_features == 8 and recognizer.model.branches[-1] == "complementary"
    views = Views(clips=2, crops=1)
    wanted = recognizer.predict(file, views)
    quick = ("--num-clips", "2", "--crops", "1", "--device", "cpu")
    commands = {
        "predict": (str(file), *quick, "--jsonl", str(tmp_path / "out.jsonl")),
        "explain": (str(file), *quick, "--out", str(tmp_path / "seen")),
        "evaluate": (*quick, "--workers", "0", "--out", str(tmp_path / "tested")),
        "watch": (str(file), "--device", "cpu", "--out", str(tmp_path / "watched")),
    }
    for command, words in commands.items():
        result = CliRunner().invoke(app, [command, str(trained), *words])
        assert result.exit_code == 0, (command, result.exception, result.output)
    line = json.loads((tmp_path / "out.jsonl").read_text())
    np.testing.assert_allclose(list(line["scores"]["fused"].values()), wanted.scores["fused"], atol=1e-6)
    assert json.loads((tmp_path / "tested" / "metrics.json").read_text())["videos"] == 6
    assert "mynet:NoMeta" in (trained / "joint" / "best" / "README.md").read_text()

    # A copy of the run with weights of another network is refused as always.
    other = Path(shutil.copytree(trained / "joint" / "best", tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "width": 2.0}))
    with pytest.raises(UserError, match=r"does not fit config.json: backbone\.body\.0\.(bias|weight) is"):
        load(other, "cpu")


def test_a_process_of_its_own_finds_it_on_pythonpath(
    place: Path, tmp_path: Path, clip_data: VideoSet
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOWED, "pack:Plain")
        model = saved(tmp_path / "model", "pack:Plain")
    environment = {**os.environ, ALLOWED: "pack:Plain"}
    environment["PYTHONPATH"] = os.pathsep.join([str(place), environment.get("PYTHONPATH", "")])
    code = f"import peakzoom; print(peakzoom.load({str(model)!r}, 'cpu').model.backbone_name)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "pack:Plain", done.stderr


def test_studies_take_it_by_name(place: Path) -> None:
    from peakzoom.cli.study import _networks, _width
    from peakzoom.studies.arms import Arm
    from peakzoom.training.recipes import small

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOWED, "")
        wanted, also = _networks("tcnn_xs, mynet:Plain", "all")
        assert list(wanted) == also == ["tcnn_xs", "mynet:Plain"]
        assert 0 < _width("mynet:Plain", wanted["mynet:Plain"], 0.01, small()) < 64
    assert Arm("mynet:Plain", width=0.5).folder == "mynet-Plainx0.5"
    with pytest.raises(UserError, match=r"--models has 'tcn', expected one of .* or a network of your own"):
        _networks("tcn", "all")


def test_features_of_a_network_that_trains_stay_in_its_mode(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, "mynet:Plain")
    network = backbone_factory("mynet:Plain")(3, width=0.5, dropout=0.0, max_stride=16).train()
    expect_features("mynet:Plain", network, 4, 32)
    assert network.training and float(network.body[1].running_mean.abs().sum()) == 0  # type: ignore[index]
