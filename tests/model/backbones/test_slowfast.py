"""SlowFast: pytorchvideo's names, cost and logits, exact class maps of two pathways, and where its slices look."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import random_state, slowfast_table
from torch import Tensor
from torch.nn import functional as F

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.backbones.slowfast import SlowFast, repeated, slow_frames
from peakzoom.training.optimizer import blocks

CLASSES = 5


def on_meta() -> SlowFast:
    with torch.device("meta"):
        return SlowFast(400).eval()


def random_network(**options: int) -> SlowFast:
    """Batch norms that do something, so that every part matters."""
    torch.manual_seed(0)
    network = SlowFast(CLASSES, width=1 / 4, **options).eval()
    for name, value in network.state_dict().items():
        if "norm" in name and value.dim():
            value.uniform_(0.6, 0.9) if name.endswith(("var", "weight")) else value.normal_(std=0.2)
    return network


def published_logits(state: dict[str, Tensor], video: Tensor) -> Tensor:
    """What pytorchvideo computes from tensors of its names (create_slowfast, PackPathway, ResNetBasicHead)."""

    def unit(x: Tensor, conv: str, norm: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv3d(x, weight, None, stride, tuple(size // 2 for size in weight.shape[2:]))
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])

    frames = video.shape[2]
    paths = [video[:, :, torch.linspace(0, frames - 1, frames // 4).long()], video]
    for stage, count in enumerate((0, 3, 4, 6, 3)):
        for path in range(2):
            at, x = f"blocks.{stage}.multipathway_blocks.{path}", paths[path]
            if stage == 0:
                x = unit(x, f"{at}.conv", f"{at}.norm", (1, 2, 2)).relu()
                x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
            for block in range(count):
                into = f"{at}.res_blocks.{block}"
                stride = (1, 2, 2) if block == 0 and stage > 1 else (1, 1, 1)
                y = unit(x, f"{into}.branch2.conv_a", f"{into}.branch2.norm_a").relu()
                y = unit(y, f"{into}.branch2.conv_b", f"{into}.branch2.norm_b", stride).relu()
                y = unit(y, f"{into}.branch2.conv_c", f"{into}.branch2.norm_c")
                if block == 0:
                    x = unit(x, f"{into}.branch1_conv", f"{into}.branch1_norm", stride)
                x = (x + y).relu()
            paths[path] = x
        if stage < 4:
            at = f"blocks.{stage}.multipathway_fusion"
            told = unit(paths[1], f"{at}.conv_fast_to_slow", f"{at}.norm", (4, 1, 1)).relu()
            paths[0] = torch.cat([paths[0], told], 1)
    pooled = torch.cat([path.mean((2, 3, 4)) for path in paths], 1)
    return F.linear(pooled, state["blocks.6.proj.weight"], state["blocks.6.proj.bias"])


def test_published_names_and_shapes() -> None:
    network = on_meta()
    table = {name: torch.empty(shape, device="meta") for name, shape in slowfast_table().items()}
    network.load_state_dict(network.adapt_weights(table), strict=True, assign=True)
    own = network.state_dict()
    assert network.adapt_weights(own).keys() == own.keys()


def test_published_cost() -> None:
    """pytorchvideo's model zoo, SlowFast 8x8 R50: 65.71 G a view, 34.57 M."""
    network = on_meta()
    assert multiply_adds(network, frames=32, size=256) == pytest.approx(65.71, abs=0.005)
    assert parameters(network) / 1e6 == pytest.approx(34.57, abs=0.005)


@torch.no_grad()
def test_logits_are_pytorchvideo_s() -> None:
    """From tensors of its names and shapes, at full width."""
    theirs = random_state(slowfast_table())
    network = SlowFast(400).eval()
    network.load_state_dict(network.adapt_weights(theirs))
    for frames, size in ((4, (32, 32)), (16, (45, 70)), (32, (32, 64))):
        video = torch.randn(2, 3, frames, *size, generator=torch.Generator().manual_seed(frames))
        wanted = published_logits(theirs, video)
        torch.testing.assert_close(network(video), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("frames", [7, 16])
@torch.no_grad()
def test_class_maps_are_exact(frames: int) -> None:
    """Eq. 1: the mean of a class's map and its bias are its logit, of both pathways together."""
    model = PeakZoom(random_network(max_stride=16), CLASSES, branches=("original",)).eval()
    video = torch.randn(2, 3, frames, 64, 48)
    maps, _ = model.class_maps(model.backbone.features(video))
    assert maps.shape == (2, CLASSES, frames, 4, 3) and maps.flatten(2).std(-1).min() > 1e-4
    logits = maps.mean((2, 3, 4)) + model.backbone.fc.bias
    torch.testing.assert_close(logits, model(video).fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", range(4, 129, 4))
def test_slow_frames_are_pytorchvideo_s(frames: int) -> None:
    assert slow_frames(frames) == torch.linspace(0, frames - 1, frames // 4).long().tolist()


@pytest.mark.parametrize("frames", [*range(1, 20), 32, 61])
def test_repeating_leaves_the_mean(frames: int) -> None:
    """As many slices as the fusion makes, each where fast slices go with it, and the mean of all unchanged."""
    fused = F.conv3d(torch.zeros(1, 1, frames, 1, 1), torch.ones(1, 1, 7, 1, 1), None, (4, 1, 1), (3, 0, 0))
    slow = torch.rand(2, 3, len(slow_frames(frames)), 2, 2, dtype=torch.float64)
    assert fused.shape[2] == slow.shape[2]
    spread = repeated(slow, frames)
    assert spread.shape[2] == frames
    torch.testing.assert_close(spread.mean(2), slow.mean(2))
    if frames % 4 == 0:
        seen = torch.tensor(slow_frames(frames), dtype=torch.float64)
        middle = torch.arange(frames, dtype=torch.float64).view(-1, 4).mean(1)
        assert (seen - middle).abs().max() <= 2
        assert torch.equal(spread, slow.repeat_interleave(4, dim=2))


@torch.no_grad()
def test_fast_slices_are_at_their_frames() -> None:
    """A lit frame is brightest in its own slice of the fast pathway: one cell a frame, the first at frame 0."""
    network = SlowFast(2, width=1 / 8).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.fill_(0.1)
            module.weight[:, :, module.kernel_size[0] // 2] = 1
            module.weight /= module.weight[0].sum()
    assert network.cells.stride[0] == 1 and network.cells.offset[0] == 0
    slow = network.num_features * 8 // 9
    for frame in (0, 5, 11, 15):
        video = torch.zeros(1, 3, 16, 32, 32)
        video[:, :, frame] = 1
        lit = network.features(video)[:, slow:].sum((0, 1, 3, 4))
        assert int(lit.argmax()) == frame


def test_three_branches_learn_and_come_back_from_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PeakZoom("slowfast_r50", 3, width=1 / 8, backbone_options={"max_stride": 16}, dropout=0.0)
    video = torch.randn(2, 3, 8, 48, 48)
    model.train().loss(model(video), torch.tensor([0, 2])).backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(PeakZoom.from_pretrained(tmp_path)(video).fused, model(video).fused)


def test_both_pathways_are_of_one_depth() -> None:
    """Where learning rates go by depth: a stem, 16 blocks, and what goes from one pathway to the other after three."""
    parts = blocks(on_meta())
    assert len(parts) == 1 + 16 + 3
    assert sum(value.numel() for part in parts for value in part) == parameters(on_meta()) - 2305 * 400


@pytest.mark.parametrize("max_stride", [4, 8, 16, 32])
def test_shapes(max_stride: int) -> None:
    network = SlowFast(2, width=1 / 8, max_stride=max_stride).eval()
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 5, 64, 33))
    assert features.shape == (1, network.num_features, 5, 64 // max_stride, -(-33 // max_stride))
    assert network.cells.stride == (1, max_stride, max_stride)
    with pytest.raises(ValueError, match=r"expected \(B, 3, T, H, W\)"):
        network(torch.zeros(1, 1, 4, 32, 32))
