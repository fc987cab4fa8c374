"""What a training starts from: the package's weights where they fit, and nothing else without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peakzoom.data.entries import VideoSet
from peakzoom.hub.card import model_card
from peakzoom.model import PeakZoom, starts
from peakzoom.model.starts import start_of
from peakzoom.training import start
from peakzoom.training.check import check_settings
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import build, resolved, set_start, without_start
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_curves")

Said = Callable[[], list[str]]  # the fixture: what has been logged
NAME = "tcnn_xs_local-0.5"
TCNN = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False, steps=("tcnn",))
SCRATCH = replace(TCNN, init="none")
CLASSES = ["kick", "nod", "wave"]


@pytest.fixture(scope="module")
def fitting(tiny: Recipe) -> Recipe:
    """A recipe whose network has a start, and whose one epoch leaves the weights as they are."""
    still = replace(tiny.tcnn, lr=1e-30, final_lr=1e-30)
    preprocess = replace(tiny.preprocess, frames=4)
    return replace(tiny, model="tcnn_xs_local", width=0.5, tcnn=still, preprocess=preprocess)


@pytest.fixture(scope="module")
def started(clip_data: VideoSet, fitting: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by default."""
    return train(clip_data, fitting, tmp_path_factory.mktemp("started") / "run", TCNN)


def built(recipe: Recipe, seed: int = 0) -> PeakZoom:
    """The network as seed and recipe give it, its heads not yet equal."""
    torch.manual_seed(seed)
    return build(recipe, CLASSES, joint=False)


def trained(run: Path) -> dict[str, torch.Tensor]:
    return dict(PeakZoom.from_pretrained(str(run / "tcnn" / "last")).backbone.named_parameters())


def config(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())["options"]


# Which weights ----------------------------------------------------------------------------------------------------


def test_by_default_the_start_that_fits_is_taken_and_said(started: Path, fitting: Recipe, said: Said) -> None:
    start = start_of(NAME)
    assert start is not None
    model = built(fitting)
    head = model.backbone.fc.weight.detach().clone()
    options = resolved(TCNN, fitting)
    set_start(model, options, None, fitting.preprocess)
    assert said() == [
        f"starts from {NAME}, which comes with peakzoom and was trained on generated clips only "
        "(--init none: from scratch)"
    ]
    stored = load_file(start.file)
    for name, value in model.backbone.state_dict().items():
        expected = head if name == "fc.weight" else stored.get(name)
        assert expected is None or torch.equal(value, expected.to(value.dtype)), name
    for name, value in trained(started).items():  # a whole run begins with the same
        assert torch.allclose(value, dict(model.backbone.named_parameters())[name], rtol=0, atol=1e-25), name


def test_a_run_says_which_start_it_had(started: Path) -> None:
    assert config(started)["init"] == NAME
    card = str(model_card(started))
    assert (
        f"It started from {NAME}, weights that come with peakzoom and were trained on generated clips only."
        in card
    )
    assert f"| init | {NAME} |" in card.replace("\\", "")


def test_from_scratch_is_what_seed_and_recipe_give(
    clip_data: VideoSet, fitting: Recipe, tmp_path: Path, said: Said
) -> None:
    for seed in (0, 3):
        plain, model = built(fitting, seed), built(fitting, seed)
        plain.start_heads_from_original()
        set_start(model, resolved(SCRATCH, fitting), None, fitting.preprocess)
        assert all(map(torch.equal, plain.state_dict().values(), model.state_dict().values()))
    assert said() == ["starts from scratch"] * 2
    out = train(clip_data, fitting, tmp_path / "run", SCRATCH)
    assert not any("start weights" in line for line in said())  # who asked for it needs no reason
    assert config(out)["init"] is None and "It started from" not in str(model_card(out))
    own = dict(built(fitting).backbone.named_parameters())
    assert all(torch.allclose(value, own[name], rtol=0, atol=1e-25) for name, value in trained(out).items())


@pytest.mark.parametrize("changes", [{"width": 0.75}, {"model": "tcnn"}, {"mean": (0.5, 0.5, 0.5)}])
def test_a_network_without_a_start_begins_from_scratch(fitting: Recipe, changes: dict) -> None:
    recipe = fitting
    if "mean" in changes:
        recipe = replace(fitting, preprocess=replace(fitting.preprocess, **changes))
    else:
        recipe = replace(fitting, **changes)
    options = resolved(TCNN, recipe)
    assert options == replace(TCNN, init="none") and options.recorded()["init"] is None


@pytest.mark.parametrize(
    ("changes", "mean", "expected"),
    [
        ({"model": "tcnn_s"}, None, "has no start weights for tcnn_s ('peakzoom weights' lists"),
        (
            {"model": "tcnn_xs", "width": 1.0},
            None,
            "for tcnn_xs are of width 0.5, not 1 (--set width=0.5 starts from them)",
        ),
        ({"width": 0.75}, None, "are of width 0.5 and 1, not 0.75 (--set width=1 starts from them)"),
        (
            {"model": "architecture", "architecture": "{}"},
            None,
            "no start weights for a network of this plan",
        ),
        ({}, (0.5, 0.5, 0.5), "were trained with another preprocess.mean and preprocess.std (left out"),
    ],
)
def test_why_no_start_fits(fitting: Recipe, changes: dict, mean: tuple | None, expected: str) -> None:
    recipe = replace(fitting, **changes)
    if mean:
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, mean=mean))
    assert resolved(TCNN, recipe).init == "none" and expected in without_start(recipe)


def test_a_training_says_why_no_start_fits(
    clip_data: VideoSet, fitting: Recipe, tmp_path: Path, said: Said
) -> None:
    narrow = replace(fitting, width=0.25)
    train(clip_data, narrow, tmp_path / "run", TCNN)
    lines = said()
    assert lines.count(without_start(narrow)) == lines.count("starts from scratch") == 1
    assert lines.index(without_start(narrow)) < lines.index("starts from scratch")


def test_from_scratch_needs_no_cards(
    fitting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FOLDER", tmp_path)
    starts.starts.cache_clear()
    try:
        with pytest.raises(UserError, match=r"cards\.json is missing .* --init none"):
            resolved(TCNN, fitting)
        options = resolved(SCRATCH, fitting)
        check_settings(fitting, options, CLASSES, validates=False)
        set_start(built(fitting), options, None, fitting.preprocess)
    finally:
        starts.starts.cache_clear()


def test_what_is_resolved_is_resolved_once(fitting: Recipe) -> None:
    assert resolved(TCNN, fitting) == resolved(resolved(TCNN, fitting), fitting) == replace(TCNN, init=NAME)
    for options in (SCRATCH, replace(TCNN, weights="w.pth"), replace(TCNN, steps=("joint",))):
        assert resolved(options, fitting) == options


def test_a_folder_goes_before_a_start_of_its_name(
    started: Path, fitting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    shutil.copytree(started, tmp_path / "tcnn_xs_local-1")  # a model at width 0.5, called like one at width 1
    monkeypatch.chdir(tmp_path)
    options = resolved(replace(TCNN, init="tcnn_xs_local-1"), fitting)
    check_settings(fitting, options, CLASSES, validates=False)
    model = built(fitting)
    set_start(model, options, None, fitting.preprocess)
    assert said() == [] and options.init == "./tcnn_xs_local-1"
    own = dict(model.backbone.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in trained(started).items())
    # By default it is the package's, whatever the folder is called.
    shutil.copytree(started, tmp_path / NAME)
    assert resolved(TCNN, fitting).init == NAME


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"init": "tcnn_xs_local-1"},
            "is of tcnn_xs_local at width 1, .* tcnn_xs_local at width 0.5; give --model",
        ),
        ({"init": "tcnn_s_local-1"}, "give --model tcnn_s_local --set width=1, or --init none"),
        (
            {"init": "tcnn_s-1"},
            "tcnn_s-1 does not exist: expected a run, a saved model, or .* 'peakzoom weights' lists$",
        ),
        ({"init": NAME, "weights": "w.pth"}, "--init and --weights exclude one another"),
        ({"init": "none", "weights": "w.pth"}, "--init and --weights exclude one another"),
        ({"steps": ("joint",)}, "stage 2 starts from a trained T-CNN: give one with --init"),
        ({"steps": ("joint",), "init": "none"}, "stage 2 starts from a trained T-CNN: give one with --init"),
    ],
)
def test_starts_that_are_refused_before_a_folder_is_made(
    clip_data: VideoSet, fitting: Recipe, tmp_path: Path, said: Said, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(clip_data, fitting, tmp_path / "run", replace(TCNN, **changes))
    assert "\n" not in str(caught.value) and said() == [] and not (tmp_path / "run").exists()


def test_damaged_weights_are_refused_before_a_folder_is_made(
    clip_data: VideoSet, fitting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FOLDER", tmp_path)  # where none are; the cards have been read
    with pytest.raises(
        UserError, match=r"safetensors cannot be read .*: install peakzoom again, or .* --init none"
    ):
        train(clip_data, fitting, tmp_path / "run", TCNN)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["here", "hub"])
def test_another_network_is_refused_before_a_folder_is_made(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    other = PeakZoom("tcnn_s", 3, width=0.25, branches=("original",))
    other.save_pretrained(tmp_path / "other")
    monkeypatch.setattr(start, "read_from_hub", lambda name: other)
    init = str(tmp_path / "other") if where == "here" else "somebody/other"
    with pytest.raises(UserError, match=r"other is another network than this one .* name its --model"):
        train(clip_data, tiny, tmp_path / "run", replace(TCNN, init=init))
    assert not (tmp_path / "run").exists()


# Going on ---------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_its_own_start_alone(
    started: Path, clip_data: VideoSet, fitting: Recipe, tmp_path: Path, said: Said
) -> None:
    def go_on(run: Path, options: Options) -> None:
        train(clip_data, fitting, run, options, resume=True)

    go_on(started, TCNN)
    go_on(started, replace(TCNN, init=NAME))
    assert said().count("tcnn: done before") == 2
    with pytest.raises(
        UserError, match=rf"options: --init {NAME} there, --init none here; resume with --init {NAME}"
    ):
        go_on(started, SCRATCH)

    old = Path(shutil.copytree(started, tmp_path / "old"))  # as a version wrote it that had no starts
    whole = json.loads((old / "config.json").read_text())
    whole["options"]["init"] = None
    (old / "config.json").write_text(json.dumps(whole))
    with pytest.raises(
        UserError, match=rf"--init none there, --init {NAME} here; resume with --init none, or use"
    ):
        go_on(old, TCNN)
    go_on(old, SCRATCH)
    with pytest.raises(
        UserError, match="begun with another options; resume with the same, or use another --out"
    ):
        go_on(old, replace(SCRATCH, seed=1))

    whole["options"]["weights"] = "w.pth"
    (old / "config.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"resume with --weights w\.pth, or use another --out"):
        go_on(old, TCNN)
