"""A network without numbers has the shapes of one with them; a batch of no clips tells whether it takes its clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES, TRANSFORMERS, options_for
from peakzoom.model.outline import without_numbers
from peakzoom.model.pretrained import expect_clips
from peakzoom.model.zoom import ZoomSampler, blur_matrices
from peakzoom.utils.errors import UserError

OWN = sorted(name for name in BACKBONES if name not in TRANSFORMERS and not name.startswith(("swin", "mvit")))


def make(name: str, frames: int = 8, size: int = 64) -> PeakZoom:
    options = options_for(name, 16, frames, size)
    preprocess = {"frames": frames, "size": size, "canvas": [size, size]}
    return PeakZoom(name, 3, width=0.25, backbone_options=options, preprocess=preprocess)


@pytest.mark.parametrize("name", ["tcnn_xs", "tcnn_xs_local", "r2plus1d_18", "trn"])
def test_shapes_are_those_of_the_network(name: str) -> None:
    with without_numbers():
        outline = make(name)
    assert all(each.is_meta for each in outline.parameters())
    shapes = {key: value.shape for key, value in make(name).state_dict().items()}
    assert {key: value.shape for key, value in outline.state_dict().items()} == shapes


def test_numbers_are_drawn_again_after_the_block() -> None:
    def drawn() -> torch.Tensor:
        torch.manual_seed(0)
        return make("tcnn_xs").backbone.fc.weight

    before = drawn()
    with without_numbers():
        make("tcnn_xs")
        held = torch.zeros(3, device="cpu").normal_(generator=torch.Generator().manual_seed(0))
    assert held.abs().min() > 0 and torch.equal(drawn(), before)


@pytest.mark.parametrize("grid", [2, 7, 31])
def test_constants_of_the_zoom_are_the_same_wherever_it_is_made(grid: int) -> None:
    blur, shift = blur_matrices(grid, 13.0, 30)
    with torch.device("meta"):
        assert ZoomSampler(grid).both.is_meta
        for one, other in zip((blur, shift), blur_matrices(grid, 13.0, 30), strict=True):
            assert torch.equal(one, other) and one.device.type == "cpu"
    assert torch.equal(ZoomSampler(grid).both, torch.cat((shift, blur)).float())


@pytest.mark.parametrize("name", OWN)
def test_every_network_of_ours_is_asked_by_no_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way, on PyTorch's device without numbers, takes seconds."""

    def not_so(*_: object) -> None:
        raise AssertionError("asked by a clip without numbers")

    model = make(name)
    monkeypatch.setattr("copy.deepcopy", not_so)
    expect_clips(model, Path("config.json"))


@pytest.mark.parametrize("name", ["trn", "c3d"])
def test_a_network_says_which_clips_it_does_not_take(name: str) -> None:
    model = make(name)
    model.preprocess.update(frames=16 if name == "trn" else 0)
    with pytest.raises(UserError, match=r"^config\.json tells of no network that can be: .+"):
        expect_clips(model, Path("config.json"))
