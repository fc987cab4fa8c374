"""Swin3D, MViT, and our copies of torchvision's networks beside its own; in an environment where torchvision imports.

python -m venv tv && tv/bin/pip install torch torchvision av safetensors huggingface_hub pytest ...
PYTHONPATH=src tv/bin/python -m pytest -q tests/model/backbones/test_torchvision.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES, TORCHVISION, VideoNetwork, options_for
from peakzoom.model.backbones.depth import StochasticDepth
from peakzoom.model.public import public_weights
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess, crop_offsets, to_input

try:
    from torchvision import models as image_models
    from torchvision.models import video as published
except (ImportError, RuntimeError, OSError, AttributeError) as error:  # a wheel for another PyTorch
    pytest.skip(f"torchvision does not import ({error})", allow_module_level=True)

NAMES = sorted(TORCHVISION)
SHAPES = {"mvit_v2_s": (4, 64)}  # frames and size of the small ones here
CELLS = {"swin3d_t": 15.5, "swin3d_s": 15.5, "swin3d_b": 15.5, "mvit_v2_s": 0.0}


def options(name: str) -> dict[str, int]:
    frames, size = SHAPES.get(name, (4, 64))
    return options_for(name, 32, frames, size)


def theirs(name: str, monkeypatch: pytest.MonkeyPatch, classes: int = 5) -> nn.Module:
    """torchvision's own with random weights; MViT for clips smaller than its builder allows."""
    if name == "mvit_v2_s":
        build = published.mvit._mvit
        small = {"spatial_size": (64, 64), "temporal_size": 4}

        def builder(block_setting: Any, **settings: Any) -> Any:
            return build(block_setting, **{**settings, **small})

        monkeypatch.setattr(published.mvit, "_mvit", builder)
    torch.manual_seed(0)
    network = getattr(published, name)(num_classes=classes).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.1)
    return network


def same_as(network: nn.Module, name: str) -> VideoNetwork:
    ours = BACKBONES[name](5, **options(name)).eval()
    assert isinstance(ours, VideoNetwork)
    ours.load_state_dict(ours.adapt_weights(network.state_dict()))
    return ours


@pytest.mark.parametrize(("name", "shape"), [(n, (4, 64, 64)) for n in NAMES] + [("swin3d_t", (5, 70, 45))])
def test_logits_are_those_of_torchvision(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = theirs(name, monkeypatch)
    ours, video = same_as(network, name), torch.randn(2, 3, *shape)
    model = PeakZoom(ours, 5, branches=("original",)).eval()
    with torch.no_grad():
        wanted = network(video)
        assert torch.allclose(ours(video), wanted, atol=1e-5 * float(wanted.abs().max()))
        maps, _ = model.class_maps(ours.features(video))
        logits = maps.mean((2, 3, 4)) + ours.fc.bias
        assert torch.allclose(logits, wanted, atol=1e-4 * float(maps.abs().max()))
        assert maps.flatten(2).std(-1).min() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_published_names_shapes_and_cost(name: str) -> None:
    weights = getattr(
        published, {"mvit_v2_s": "MViT_V2_S_Weights"}.get(name, f"Swin3D_{name[-1].upper()}_Weights")
    ).KINETICS400_V1
    with torch.device("meta"):
        network, library = BACKBONES[name](400), getattr(published, name)()
    adapted = network.adapt_weights(library.state_dict())
    assert {key: value.shape for key, value in adapted.items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }
    assert parameters(network) == weights.meta["num_params"]
    # torchvision counts 16 frames; in the last block of MViT only the class token attends here.
    cost = multiply_adds(network, frames=16, size=224)
    assert cost == pytest.approx(weights.meta["_ops"], rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_three_branches_learn_and_come_back_from_disk(name: str, tmp_path: Path) -> None:
    frames, size = SHAPES.get(name, (4, 64))
    torch.manual_seed(0)
    model = PeakZoom(name, 3, width=1 / 3, backbone_options=options(name))
    video = torch.randn(2, 3, frames, size, size)
    model.train().loss(model(video), torch.tensor([0, 2])).backward()
    missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(PeakZoom.from_pretrained(tmp_path).eval()(video).fused, model(video).fused)


@pytest.mark.parametrize("name", NAMES)
def test_stochastic_depth_is_the_training_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None as the network is made; set, evaluation stays, and each draw of a training is another."""
    frames, size = SHAPES.get(name, (4, 64))
    ours, video = same_as(theirs(name, monkeypatch), name), torch.randn(2, 3, frames, size, size)
    with torch.no_grad():
        before = ours(video)
        assert torch.equal(ours.train()(video), before)
        assert ours.leave_out_blocks(0.0) and torch.equal(ours(video), before)
        assert ours.leave_out_blocks(0.5)
        rates = [m.rate for m in ours.modules() if isinstance(m, StochasticDepth)]
        assert rates == pytest.approx([0.5 * n / (len(rates) - 1) for n in range(len(rates))])
        assert not torch.allclose(ours(video), before) and torch.equal(ours.eval()(video), before)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_where_their_patches_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no patch attends to others, what changes around a cell's centre changes that cell most."""
    network = theirs(name, monkeypatch)
    ours = same_as(network, name)
    assert ours.cells.stride == (2, 32, 32) and ours.cells.offset[1:] == (CELLS[name],) * 2
    assert ours.cells.offset[0] == (0.0 if name == "mvit_v2_s" else 0.5)
    if name == "mvit_v2_s":
        return
    with torch.no_grad():
        for module in ours.modules():
            if type(module).__name__ == "ShiftedWindowAttention3d":
                module.proj.weight.zero_()
        video = torch.randn(1, 3, 4, 64, 64)
        before = ours.features(video)
        for t, i, j in ((0, 0, 0), (1, 1, 0), (0, 0, 1)):
            changed = video.clone()
            y, x = (round(CELLS[name] + 32 * n) for n in (i, j))
            changed[:, :, 2 * t, y, x] += 3
            moved = (ours.features(changed) - before).abs().sum(1)[0]
            assert moved.nonzero().tolist() == [[t, i, j]]


def test_what_mvit_cannot_be_made_for() -> None:
    for wrong in ({"frames": 3}, {"size": 48}, {"frames": 0}):
        with pytest.raises(UserError, match="mvit_v2_s takes an even number of frames"):
            BACKBONES["mvit_v2_s"](3, **wrong)
    for name in NAMES:
        with pytest.raises(UserError, match="has feature cells 32 pixels apart: max_stride is 16"):
            BACKBONES[name](3, max_stride=16)
    with pytest.raises(ValueError, match="expected"):
        BACKBONES["mvit_v2_s"](3, width=1 / 6, frames=4, size=64)(torch.zeros(1, 3, 4, 32, 32))


# The table, and our copies -------------------------------------------------------------------------------------------

ENTRIES = {
    "kinetics400/r3d_18": "R3D_18_Weights.KINETICS400_V1",
    "kinetics400/r2plus1d_18": "R2Plus1D_18_Weights.KINETICS400_V1",
    "kinetics400/s3d": "S3D_Weights.KINETICS400_V1",
    "kinetics400/swin3d_t": "Swin3D_T_Weights.KINETICS400_V1",
    "kinetics400/swin3d_s": "Swin3D_S_Weights.KINETICS400_V1",
    "kinetics400/swin3d_b": "Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1",
    "kinetics400/mvit_v2_s": "MViT_V2_S_Weights.KINETICS400_V1",
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_table_says_what_torchvision_says(name: str) -> None:
    kind, version = ENTRIES[name].split(".")
    weights, entry = getattr(getattr(published, kind), version), public_weights()[name]
    assert entry.address == weights.url and list(entry.classes) == weights.meta["categories"]
    assert entry.accuracy == pytest.approx(weights.meta["_metrics"]["Kinetics-400"]["acc@1"], abs=0.06)
    made, clips = weights.transforms(), entry.preprocess
    assert (clips["mean"], clips["std"]) == (list(made.mean), list(made.std))
    assert [clips["size"]] * 2 == made.crop_size
    assert clips.get("canvas", [clips.get("short_side")]) in (made.resize_size, [max(made.resize_size)])
    said = weights.meta["_docs"]
    assert f"`frame_rate={clips['fps']:g}`" in said and f"`clip_len={clips['frames']}`" in said


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "s3d"])
def test_our_copies_answer_as_torchvision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each one's preprocessing, of frames that need no resizing: torchvision resizes without antialiasing."""
    kind, version = ENTRIES[f"kinetics400/{name}"].split(".")
    entry = public_weights()[f"kinetics400/{name}"]
    pre = Preprocess.from_dict(dict(entry.preprocess))
    torch.manual_seed(0)
    network = getattr(published, name)().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = BACKBONES[name](400).eval()
    adapt = getattr(ours, "adapt_weights", dict)
    ours.load_state_dict(adapt(network.state_dict()))
    height, width = pre.stored_canvas if pre.test_canvas else (256, 340)
    assert pre.test_size(height, width) == (height, width)
    frames = torch.randint(0, 256, (16, 3, height, width), dtype=torch.uint8)
    transform = getattr(getattr(published, kind), version).transforms()
    made = transform(frames)[None]  # (1, 3, T, s, s)
    (top, left), *_ = crop_offsets(height, width, pre.size, 1)
    if (width - pre.size) % 2:  # an odd room is split the other way there
        left += 1
    video, _ = to_input(frames[None, :, :, top : top + pre.size, left : left + pre.size], pre)
    assert torch.allclose(video, made, atol=1e-5)
    with torch.no_grad():
        wanted = network(made)
        assert torch.allclose(ours(video), wanted, atol=2e-5 * float(wanted.abs().max()))


def test_resnet50_is_torchvision_s() -> None:
    with torch.device("meta"):
        library: dict[str, Tensor] = image_models.resnet50().state_dict()
    from published import torchvision_resnet50

    assert {key: tuple(value.shape) for key, value in library.items()} == torchvision_resnet50()
