"""T3D, a reconstruction: shapes and cost of what the authors' code says, and what was decided where it says nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model.backbones.t3d import T3D, TemporalBranch, TemporalTransition


def on_meta() -> T3D:
    with torch.device("meta"):
        return T3D(400).eval()


def counted(classes: int, frames: int, size: int) -> tuple[float, int]:
    """G multiply-adds and parameters, from the numbers of the authors' code: growth 32, blocks of 6, 12, 24 and 16
    layers, a stem of 64 channels, three branches of 128 with 1, 27 and 36 taps, strides of 2 everywhere."""
    cells = (frames // 2) * (size // 2) ** 2
    weights, adds = 3 * 64 * 3 * 49, 3 * 64 * 3 * 49 * cells
    norms, channels, cells = 64, 64, cells // 8
    for block, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            taps = channels * 128 + 27 * 128 * 32
            weights, adds, norms = weights + taps, adds + taps * cells, norms + channels + 128
            channels += 32
        if block < 3:
            taps = channels * 128 * (1 + 27 + 36) + 384 * 384
            weights, adds, norms = weights + taps, adds + taps * cells, norms + 3 * channels + 384
            channels, cells = 384, cells // 8
    head = channels * classes
    return (adds + head) / 1e9, weights + 2 * (norms + channels) + head + classes


def test_cost_is_that_of_the_authors_numbers() -> None:
    network = on_meta()
    adds, numbers = counted(400, 32, 224)
    assert multiply_adds(network, frames=32, size=224) == pytest.approx(adds, rel=1e-6)
    assert parameters(network) == numbers
    assert (adds, numbers) == (pytest.approx(114.30, abs=0.005), 29_731_728)


def test_shapes_of_the_authors_code() -> None:
    """32 frames become the one slice of 7 x 7 cells that its head averages; 896 channels are classified."""
    network = on_meta()
    assert network.features(torch.empty(1, 3, 32, 224, 224, device="meta")).shape == (1, 896, 1, 7, 7)
    kinds = [tuple(m.conv.kernel_size) for m in network.modules() if isinstance(m, TemporalBranch)]
    assert kinds == [(1, 1, 1), (3, 3, 3), (4, 3, 3)] * 3
    places = [index for index, stage in enumerate(network.stages) if isinstance(stage, TemporalTransition)]
    assert places == [1, 3, 5]
    assert [len(list(stage.children())) for stage in network.stages[::2]] == [6, 12, 24, 16]


@pytest.mark.parametrize(
    ("shape", "max_stride"), [((1, 32, 32), 32), ((16, 96, 64), 16), ((33, 45, 70), 8), ((8, 64, 64), 4)]
)
@torch.no_grad()
def test_every_size_has_cells(shape: tuple[int, int, int], max_stride: int) -> None:
    network = T3D(2, width=1 / 16, max_stride=max_stride).eval()
    features = network.features(torch.rand(1, 3, *shape))
    side = [math.ceil(size / max_stride) for size in shape[1:]]
    assert tuple(features.shape) == (1, network.num_features, math.ceil(shape[0] / 32), *side)
    assert network.cells.stride == (32, max_stride, max_stride) and features.isfinite().all()


@pytest.mark.parametrize("depth", [1, 3, 4])
@torch.no_grad()
def test_branches_keep_the_size(depth: int) -> None:
    """Four slices have one in front and two behind: one that is lit reaches from two before it to one after it."""
    branch = TemporalBranch(1, 1, depth).eval()
    branch.conv.weight.fill_(1)
    video = torch.zeros(1, 1, 9, 3, 3)
    video[:, :, 4] = 1
    out = branch(video)
    assert out.shape == video.shape
    reached = out[0, 0, :, 1, 1].nonzero().flatten().tolist()
    assert reached == {1: [4], 3: [3, 4, 5], 4: [2, 3, 4, 5]}[depth]


@pytest.mark.parametrize("size", [(4, 6, 6), (5, 7, 6), (1, 1, 3)])
@torch.no_grad()
def test_transitions_average_what_is_there(size: tuple[int, int, int]) -> None:
    """On odd sizes the last window is the mean of what it has, as a pooling that rounds up makes it."""
    layer = TemporalTransition(8, 8, 2).eval()
    x = torch.randn(2, 8, *size)
    branches = torch.cat([layer.short(x), layer.middle(x), layer.long(x)], 1)
    inside = layer.conv(layer.norm(branches).relu())
    got = layer(x)
    assert got.shape == (2, 24, *(math.ceil(each / 2) for each in size))
    for cell in itertools.product(*map(range, got.shape[2:])):
        window = inside[(..., *(slice(2 * each, 2 * each + 2) for each in cell))]
        torch.testing.assert_close(got[(..., *cell)], window.mean((2, 3, 4)))


def test_gradients_reach_every_parameter() -> None:
    network = T3D(5, width=1 / 8, max_stride=16).train()
    F.cross_entropy(network(torch.randn(2, 3, 32, 64, 48)), torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
