"""S3D: torchvision's names, cost and logits without torchvision, exact class maps, and where cells look."""

from __future__ import annotations

import math

import pytest
import torch
from published import random_state, s3d_table
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.backbones.s3d import S3D

CLASSES = 5
POOLS = {  # by place in torchvision's sequence: window, stride, padding
    1: ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    4: ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    7: ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    13: ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
}


def on_meta() -> S3D:
    with torch.device("meta"):
        return S3D(400).eval()


def random_network(**options: float) -> S3D:
    torch.manual_seed(0)
    network = S3D(CLASSES, **{"width": 1 / 8, **options}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.2)
    return network


def published_logits(state: dict[str, Tensor], video: Tensor) -> Tensor:
    """What torchvision's s3d computes from tensors of its names."""

    def unit(x: Tensor, at: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = state[f"{at}.0.weight"]
        x = F.conv3d(x, weight, None, stride, tuple(size // 2 for size in weight.shape[2:]))
        mean, var = state[f"{at}.1.running_mean"], state[f"{at}.1.running_var"]
        return F.batch_norm(x, mean, var, state[f"{at}.1.weight"], state[f"{at}.1.bias"], eps=0.001).relu()

    x = video
    for place in range(16):
        at = f"features.{place}"
        if place in POOLS:
            x = F.max_pool3d(x, *POOLS[place])
        elif place in (0, 3):
            step = 2 if place == 0 else 1
            x = unit(unit(x, f"{at}.0", (1, step, step)), f"{at}.1", (step, 1, 1))
        elif place == 2:
            x = unit(x, at)
        else:
            branches = [unit(x, f"{at}.branch0")]
            for branch in (f"{at}.branch1", f"{at}.branch2"):
                branches.append(unit(unit(unit(x, f"{branch}.0"), f"{branch}.1.0"), f"{branch}.1.1"))
            branches.append(unit(F.max_pool3d(x, 3, 1, 1), f"{at}.branch3.1"))
            x = torch.cat(branches, 1)
    x = F.avg_pool3d(x, (2, 7, 7), stride=1)
    return F.conv3d(x, state["classifier.1.weight"], state["classifier.1.bias"]).mean((2, 3, 4))


def test_published_names_and_shapes() -> None:
    network = on_meta()
    table = {name: torch.empty(shape, device="meta") for name, shape in s3d_table().items()}
    network.load_state_dict(network.adapt_weights(table), strict=True, assign=True)
    own = network.state_dict()
    assert network.adapt_weights(own).keys() == own.keys()
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm3d)} == {0.001}


def test_published_cost() -> None:
    """torchvision's S3D_Weights: 17.98 G of 16 x 224 x 224, 8,320,048 parameters."""
    network = on_meta()
    assert parameters(network) == 8_320_048
    assert multiply_adds(network, frames=16, size=224) == pytest.approx(17.98, abs=0.005)


@torch.no_grad()
def test_logits_are_torchvision_s() -> None:
    """From tensors of its names and shapes, at full width; of three slices, one counts twice."""
    theirs = random_state(s3d_table())
    network = S3D(400).eval()
    network.load_state_dict(network.adapt_weights(theirs))
    video = torch.randn(1, 3, 24, 224, 224, generator=torch.Generator().manual_seed(1))
    wanted = published_logits(theirs, video)
    torch.testing.assert_close(network(video), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("frames", [8, 16, 40])
@torch.no_grad()
def test_class_maps_are_exact(frames: int) -> None:
    """Eq. 1: the mean of a class's map and its bias are its logit."""
    model = PeakZoom(random_network(max_stride=16), CLASSES, branches=("original",)).eval()
    video = torch.randn(2, 3, frames, 64, 48)
    maps, _ = model.class_maps(model.backbone.features(video))
    assert maps.shape == (2, CLASSES, frames // 8, 4, 3) and maps.flatten(2).std(-1).min() > 1e-4
    logits = maps.mean((2, 3, 4)) + model.backbone.fc.bias
    torch.testing.assert_close(logits, model(video).fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "max_stride"),
    [((1, 7, 5), 32), ((8, 96, 96), 16), ((20, 33, 50), 8), ((128, 32, 32), 32), ((9, 64, 64), 2)],
)
def test_shapes(shape: tuple[int, int, int], max_stride: int) -> None:
    network = random_network(max_stride=max_stride, width=1 / 16)
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, *shape))
    side = [math.ceil(size / max_stride) for size in shape[1:]]
    assert tuple(features.shape) == (2, network.num_features, math.ceil(shape[0] / 8), *side)
    assert network.cells.stride == (8, max_stride, max_stride)


def test_cells_as_the_docstring_says() -> None:
    cells = on_meta().cells
    assert [cells.offset[1] + 32 * cell for cell in (0, 1, 6)] == [8, 40, 200]
    assert [cells.offset[0] + 8 * cell for cell in (0, 1, 2)] == [2, 10, 18]


def test_gradients_reach_every_parameter() -> None:
    network = S3D(CLASSES, width=1 / 16, max_stride=16, dropout=0.0).train()
    F.cross_entropy(network(torch.randn(2, 3, 16, 64, 48)), torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    with pytest.raises(ValueError, match=r"expected \(B, 3, T, H, W\)"):
        network(torch.rand(1, 3, 32, 32))
