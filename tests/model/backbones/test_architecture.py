"""Networks that are written down: the same as those by name, in every command, and nothing that cannot be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.model.backbones import TCNN
from peakzoom.model.backbones.architecture import (
    architecture,
    parse_architecture,
    plan_from_dict,
    plan_to_dict,
    read_architecture,
)
from peakzoom.utils.errors import UserError

NAMES = [name for name, make in BACKBONES.items() if name.startswith("tcnn")]


def named(name: str, width: float = 0.25) -> TCNN:
    torch.manual_seed(0)
    net = BACKBONES[name](5, width=width, max_stride=16)
    assert isinstance(net, TCNN)
    return net.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_by_its_plan_is_the_network_by_its_name(name: str) -> None:
    net = named(name)
    plan = json.loads(json.dumps(plan_to_dict(net.plan, net.pool)))
    again = architecture(5, plan=plan).eval()
    again.load_state_dict(net.state_dict())  # every layer has its name and shape
    assert (again.cells, again.num_features, again.pool) == (net.cells, net.num_features, net.pool)
    video = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again.features(video), net.features(video))


@pytest.mark.parametrize("name", ["tcnn", "tcnn_16", "tcnn_xs_local"])
def test_inner_channels_stand_between_the_two_convolutions(name: str) -> None:
    net = named(name)
    plan = plan_to_dict(net.plan, net.pool)
    for stage in plan["stages"]:
        stage["inner"] = [8 + 8 * (index % 2) for index in range(len(stage["dilations"]))]
    changed = architecture(5, plan=plan).eval()
    blocks: Any = changed.blocks
    inner = [channels for stage in plan["stages"] for channels in stage["inner"]]
    assert [block.conv1[0].out_channels for block in blocks] == inner
    wide = [stage["channels"] for stage in plan["stages"] for _ in stage["inner"]]
    last = [
        [each for each in block.conv2.modules() if isinstance(each, torch.nn.Conv3d)][-1] for block in blocks
    ]
    assert [conv.out_channels for conv in last] == wide
    video = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert changed.features(video).shape[1] == wide[-1] == changed.num_features


def test_a_stage_may_open_with_a_projection_that_it_need_not_have() -> None:
    stages = [{"channels": 8, "dilations": [1, 2]}, {"channels": 8, "dilations": [0]}]
    for project, shortcuts in ((False, [False, False, False]), (True, [True, False, True])):
        net = architecture(2, plan={"stem": 8, "stages": stages, "project": project})
        blocks: Any = net.blocks
        assert [len(list(block.shortcut.parameters())) > 0 for block in blocks] == shortcuts


GOOD = {
    "stem": 8,
    "stages": [{"channels": 8, "dilations": [1], "stride": [1, 2], "inner": [16]}],
    "pool": "mean",
}
BAD: list[tuple[tuple[Any, ...], Any]] = [
    *((("stem",), value) for value in (0, -1, 1.5, True, None, "8", 10**9, float("nan"))),
    *((("stages",), value) for value in ([], {}, None, [1], [GOOD["stages"]] * 3, [{}], [{}] * 33)),
    *((("stages", 0, "channels"), value) for value in (0, "x", 5000)),
    *((("stages", 0, "dilations"), value) for value in ([], [-1], [1.0, "2"], [65], 3, [1] * 65)),
    *((("stages", 0, "stride"), value) for value in ([1], [1, 2, 3], [0, 1], [9, 1])),
    *((("stages", 0, "inner"), value) for value in ([], [8, 8], [0])),
    (("stages", 0, "kernel"), 3),
    *((("pool",), value) for value in ("median", "", 3, None, ["mean"])),
    *((("motion",), value) for value in (1, "yes", None)),
    (("stem_stride",), 0),
    (("depth",), 3),
]


def put(path: tuple[Any, ...], value: Any) -> Any:
    changed: Any = copy.deepcopy(GOOD)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


@pytest.mark.parametrize(("path", "value"), BAD)
def test_what_cannot_be_is_one_sentence(path: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    assert plan_from_dict(GOOD)[0].stem == 8
    with pytest.raises(UserError) as refused:
        plan_from_dict(put(path, value), "net.json")
    assert "\n" not in str(refused.value) and str(refused.value).startswith("net.json")
    (tmp_path / "net.json").write_text(json.dumps(put(path, value)))
    with pytest.raises(UserError):
        read_architecture(tmp_path / "net.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"stem": 8}'])
def test_text_that_is_no_plan(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        parse_architecture(text, "architecture")
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(UserError):
        read_architecture(tmp_path / "net.json")


def test_a_model_with_a_plan_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"plan": plan_to_dict(named("tcnn_xs_local").plan, "0.5*mean+0.5*best:2")}
    model = PeakZoom("architecture", num_classes=3, backbone_options=options).eval()
    model.save_pretrained(tmp_path / "saved")
    again = PeakZoom.from_pretrained(tmp_path / "saved").eval()
    video = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(video).fused, model(video).fused)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["backbone_options"]["plan"]["stages"] = [{"channels": 4096, "dilations": [1] * 64}] * 32
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        PeakZoom.from_pretrained(tmp_path / "saved")


@pytest.mark.slow
def test_train_and_predict_with_a_file(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps(plan_to_dict(named("tcnn_xs_local").plan, "mean")))

    def call(*words: object, code: int = 0) -> str:
        found = CliRunner().invoke(app, list(map(str, words)))
        assert (
            2 if found.exception and not isinstance(found.exception, SystemExit) else found.exit_code
        ) == code
        return str(found.exception) if code else found.output

    small = ["--size", 32, "--set", "preprocess.frames=8", "--epochs", 1, "--joint-epochs", 1, "--workers", 0]
    small += ["--set", "cache=off", "--set", "accelerator=cpu", "--recipe", "spatial"]
    words = [
        "train",
        clips / "clips.csv",
        "--model",
        tmp_path / "net.json",
        *small,
        "--out",
        tmp_path / "run",
    ]
    call(*words)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["model"] == "architecture"
    assert parse_architecture(config["recipe"]["architecture"], "it")["pool"] == "mean"
    call(*words, "--resume")  # the same plan: it is done
    clip = next(clips.rglob("*.mp4"))
    call("predict", tmp_path / "run", clip, "--device", "cpu", "--num-clips", 1, "--crops", 1)
    assert "architecture" in call(*words[:2], "--model", "architecture", "--out", tmp_path / "x", code=2)
    (tmp_path / "net.json").write_text("{}")
    assert "lacks stages, stem" in call(*words[:-1], tmp_path / "y", code=2)


@pytest.mark.parametrize("name", ["small", "quickstart"])
def test_channels_of_a_plan_are_what_it_says_in_every_recipe(name: str, tmp_path: Path) -> None:
    """Quickstart halves the width of networks by name; of a plan, ``--set width`` alone changes it."""
    from peakzoom.cli.options import MachineOptions, RecipeOptions
    from peakzoom.cli.recipe import recipe_and_options

    (tmp_path / "net.json").write_text(json.dumps(GOOD))
    for settings, width in ((None, 1.0), (["width=0.5"], 0.5)):
        wanted = RecipeOptions(recipe=name, settings=settings)
        recipe, _ = recipe_and_options(wanted, MachineOptions(), str(tmp_path / "net.json"))
        assert recipe.width == width
