"""C3D, R3D-18, R(2+1)D-18 and P3D-199 against published numbers, published parameter tables and plain probes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from published import Shapes, batch_norm, c3d_table, r2plus1d_table, r3d_table
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model.backbones import BACKBONES
from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.c3d import C3D
from peakzoom.model.backbones.p3d import P3D, Bottleneck
from peakzoom.model.backbones.r2plus1d import R2Plus1D
from peakzoom.model.backbones.r3d import R3D

Factory = Callable[..., VideoNetwork]
ALL: dict[str, Factory] = {"c3d": C3D, "r3d_18": R3D, "r2plus1d_18": R2Plus1D, "p3d": P3D}
NARROW = 1 / 64  # eight channels, the least, in most places


def on_meta(name: str, classes: int, **options: Any) -> VideoNetwork:
    """A network without memory for its numbers."""
    with torch.device("meta"):
        return ALL[name](classes, **options).eval()


# Published numbers ---------------------------------------------------------------------------------------------------

# Counted beside the multiply-adds of convolutions and classifier, where a published number does so (module docstrings)
NOTHING: dict[type[nn.Module], int] = {}


def multiply_adds(
    network: VideoNetwork, size: tuple[int, int, int], beside: dict[type[nn.Module], int]
) -> float:
    """In G; ``beside``: operations for each number that comes out of a module of this kind."""
    more = 0

    def note(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal more
        more += beside.get(type(module), 0) * output.numel()

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return (counter.get_total_flops() / 2 + more) / 1e9


@pytest.mark.parametrize(
    ("name", "classes", "size", "beside", "wanted", "tolerance"),
    [
        ("c3d", 101, (16, 112, 112), NOTHING, 38.57, 0.03),  # the paper's table, within 3 %
        ("r2plus1d_18", 101, (16, 112, 112), NOTHING, 41.69, 0.03),
        ("p3d", 101, (16, 160, 160), NOTHING, 18.51, 0.03),
        ("r3d_18", 400, (16, 112, 112), NOTHING, 40.697, 2e-5),  # torchvision's R3D_18_Weights
        ("r2plus1d_18", 400, (16, 112, 112), NOTHING, 40.519, 2e-5),  # and R2Plus1D_18_Weights
        ("p3d", 101, (16, 160, 160), {nn.BatchNorm3d: 2, nn.BatchNorm2d: 2}, 18.51, 3e-4),
    ],
)
def test_multiply_adds(
    name: str,
    classes: int,
    size: tuple[int, int, int],
    beside: dict[type[nn.Module], int],
    wanted: float,
    tolerance: float,
) -> None:
    assert multiply_adds(on_meta(name, classes), size, beside) == pytest.approx(wanted, rel=tolerance)


def test_c3d_multiply_adds_with_the_published_head_and_biases() -> None:
    head = (8192 * 4096 + 4096 * 4096 + 4096 * 487) / 1e9
    new_head = 512 * 487 / 1e9
    counted = multiply_adds(on_meta("c3d", 487), (16, 112, 112), {nn.Conv3d: 1})  # one addition for each bias
    assert counted - new_head + head == pytest.approx(38.57, abs=0.005)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("r3d_18", 33_371_472),  # torchvision's tables
        ("r2plus1d_18", 31_505_325),
    ],
)
def test_parameters(name: str, wanted: int) -> None:
    assert sum(p.numel() for p in on_meta(name, 400).parameters()) == wanted


def test_res3d_is_this_network() -> None:
    """Tran et al. 2017, Tables 2 and 9, 8 x 112 x 112: 33.2 M; 19.3 G, of which 1.0 is not explained."""
    with torch.device("meta"):
        network = BACKBONES["res3d"](101).eval()
    assert type(network) is R3D
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(33.2, abs=0.05)
    assert multiply_adds(network, (8, 112, 112), NOTHING) == pytest.approx(20.35, abs=0.005)


# Published parameter tables ------------------------------------------------------------------------------------------


def p3d_table() -> Shapes:
    table: Shapes = {"fc.weight": (400, 2048), "fc.bias": (400,), "conv1_custom.weight": (64, 3, 1, 7, 7)}
    table |= batch_norm("bn1", 64)
    into = 64
    for layer, blocks, inside in (
        ("layer1", 3, 64),
        ("layer2", 8, 128),
        ("layer3", 36, 256),
        ("layer4", 3, 512),
    ):
        point = (1, 1) if layer == "layer4" else (1, 1, 1)
        for block in (f"{layer}.{i}" for i in range(blocks)):
            table |= {f"{block}.conv1.weight": (inside, into, *point), **batch_norm(f"{block}.bn1", inside)}
            if layer == "layer4":
                table[f"{block}.conv_normal.weight"] = (inside, inside, 3, 3)
                table |= batch_norm(f"{block}.bn_normal", inside)
            else:
                table[f"{block}.conv2.weight"] = (inside, inside, 1, 3, 3)
                table[f"{block}.conv3.weight"] = (inside, inside, 3, 1, 1)
                table |= {**batch_norm(f"{block}.bn2", inside), **batch_norm(f"{block}.bn3", inside)}
            table[f"{block}.conv4.weight"] = (4 * inside, inside, *point)
            table |= batch_norm(f"{block}.bn4", 4 * inside)
            if block.endswith(".0"):
                table[f"{block}.downsample.0.weight"] = (4 * inside, into, *point)
                table |= batch_norm(f"{block}.downsample.1", 4 * inside)
            into = 4 * inside
    return table


@pytest.mark.parametrize(
    ("name", "table"),
    [("c3d", c3d_table()), ("r3d_18", r3d_table()), ("r2plus1d_18", r2plus1d_table()), ("p3d", p3d_table())],
    ids=list(ALL),
)
def test_published_parameter_tables(name: str, table: Shapes) -> None:
    network = on_meta(name, 400)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == table
    state = {key: torch.empty(shape, device="meta") for key, shape in table.items()}
    network.load_state_dict(state, strict=True, assign=True)


# Where the cells look ------------------------------------------------------------------------------------------------


@torch.no_grad()
def reset(network: nn.Module, taps: str) -> nn.Module:
    """In double precision: batch norms do nothing and a convolution averages its inputs' "middle" tap or "all" taps."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Conv2d):
            weight = torch.zeros_like(module.weight) if taps == "middle" else torch.ones_like(module.weight)
            weight[(..., *(size // 2 for size in module.kernel_size))] = 1.0
            module.weight.copy_(weight / weight[0].sum())
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm3d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.zero_()
            module.running_var.fill_(1.0 - module.eps)
    return network.double().eval()


CASES = [  # name, options, input, feature cells, stride and offset of (time, space)
    ("c3d", {}, (16, 112, 112), (2, 7, 7), (8, 16), (3.5, 7.5)),
    ("c3d", {}, (8, 96, 128), (1, 6, 8), (8, 16), (3.5, 7.5)),
    ("c3d", {"max_stride": 16, "width": 1 / 32}, (24, 100, 65), (3, 7, 5), (8, 16), (3.5, 7.5)),
    ("c3d", {"max_stride": 8}, (16, 64, 48), (2, 8, 6), (8, 8), (3.5, 3.5)),
    ("c3d", {"batch_norm": True}, (5, 33, 47), (1, 3, 3), (8, 16), (3.5, 7.5)),
    ("r3d_18", {}, (16, 112, 112), (2, 7, 7), (8, 16), (0, 0)),
    ("r3d_18", {"width": 1 / 32}, (8, 96, 96), (1, 6, 6), (8, 16), (0, 0)),
    ("r3d_18", {"max_stride": 16}, (20, 58, 101), (3, 4, 7), (8, 16), (0, 0)),
    ("r3d_18", {"max_stride": 8}, (9, 64, 48), (2, 8, 6), (8, 8), (0, 0)),
    ("r2plus1d_18", {}, (16, 112, 112), (2, 7, 7), (8, 16), (0, 0)),
    ("r2plus1d_18", {"max_stride": 16}, (8, 96, 96), (1, 6, 6), (8, 16), (0, 0)),
    ("r2plus1d_18", {"max_stride": 8, "width": 1 / 32}, (17, 50, 64), (3, 7, 8), (8, 8), (0, 0)),
    ("p3d", {}, (16, 160, 160), (1, 5, 5), (16, 32), (7.5, 2)),
    ("p3d", {"width": 1 / 32}, (40, 224, 97), (3, 7, 3), (16, 32), (7.5, 2)),
    ("p3d", {"max_stride": 16}, (8, 96, 96), (1, 6, 6), (16, 16), (7.5, 2)),
    ("p3d", {"max_stride": 16}, (32, 112, 130), (2, 7, 8), (16, 16), (7.5, 2)),
    ("p3d", {"max_stride": 2}, (16, 24, 16), (1, 12, 8), (16, 2), (7.5, 0)),
]


@pytest.mark.parametrize(("name", "options", "size", "cells", "stride", "offset"), CASES)
def test_every_cell_s_region_is_centred_where_cells_says(
    name: str,
    options: dict[str, Any],
    size: tuple[int, int, int],
    cells: tuple[int, int, int],
    stride: tuple[int, int],
    offset: tuple[float, float],
) -> None:
    """With middle taps alone a cell is the maximum over the region that its pools join: a video whose brightness is
    the position along an axis gives the region's last position, and one that counts backwards its first."""
    network = reset(ALL[name](2, **{"width": NARROW, **options}), "middle")
    geometry = network.cells
    assert tuple(geometry.stride) == (stride[0], stride[1], stride[1])
    assert tuple(geometry.offset) == (offset[0], offset[1], offset[1])

    def seen(video: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network.features(video.expand(1, 3, *size))

    unit = seen(torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))
    assert unit.shape == (1, network.num_features, *cells) and network.num_features == network.fc.in_features
    for axis in range(3):
        count, last = cells[axis], size[axis] - 1
        ramp = torch.arange(last + 1, dtype=torch.float64).reshape(
            [-1 if a == axis + 2 else 1 for a in range(5)]
        )
        to = (seen(ramp) / unit)[0].mean(0)
        start = last - (seen(last - ramp) / unit)[0].mean(0)
        centre = ((start + to) / 2).movedim(axis, 0).flatten(1)
        wanted = geometry.offset[axis] + geometry.stride[axis] * torch.arange(count, dtype=torch.float64)
        half = (to - start).amax() / 2  # of a whole region; one cut off by the border is checked by its start
        whole = wanted + half <= last + 1e-6
        assert whole.sum() >= count - 1
        np.testing.assert_allclose(centre[whole], wanted[whole, None].expand_as(centre[whole]), atol=1e-6)
        first = start.movedim(axis, 0).flatten(1)[~whole]
        if count > 1:
            np.testing.assert_allclose(first, (wanted[~whole, None] - half).expand_as(first), atol=1e-6)


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_kernels_are_centred_too(name: str, axis: int) -> None:
    """Networks without max pools: the pixels with a gradient to an interior cell, with all taps on."""
    network = reset(ALL[name](2, width=NARROW), "all")
    size = [8, 16, 16]
    size[axis] = (128, 288, 288)[axis]
    video = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    features = network.features(video)
    cell = [0, 0, 0]
    cell[axis] = features.shape[2 + axis] // 2
    features[(0, 0, *cell)].backward()
    assert video.grad is not None
    reached = video.grad[0, 0].movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    assert reached[0] > 0 and reached[-1] < size[axis] - 1, "the cell is not interior"
    wanted = network.cells.offset[axis] + network.cells.stride[axis] * cell[axis]
    assert (reached[0] + reached[-1]).item() / 2 == wanted


@pytest.mark.parametrize("axis", [0, 1])
def test_whole_kernels_with_pools(axis: int) -> None:
    """C3D with all taps on: the lines that change an interior cell when they are lit."""
    network = reset(C3D(2, width=NARROW), "all").float()
    size = [8, 16, 16]
    size[axis] = (96, 176)[axis]
    cell = [0, 0, 0]
    cell[axis] = size[axis] // network.cells.stride[axis] // 2
    reached = []
    for lines in torch.arange(size[axis]).split(44):
        video = torch.zeros(len(lines), 1, *size)
        video.movedim(2 + axis, 1)[torch.arange(len(lines)), lines] = 1.0
        with torch.no_grad():
            features = network.features(video.expand(-1, 3, -1, -1, -1))
        reached += [features[(slice(None), 0, *cell)] > 0]
    at = torch.cat(reached).nonzero().flatten()
    assert at[0] > 0 and at[-1] < size[axis] - 1, "the cell is not interior"
    assert (at[0] + at[-1]).item() / 2 == network.cells.offset[axis] + network.cells.stride[axis] * cell[axis]


# The network as a module ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("options", [{}, {"max_stride": 16}, {"max_stride": 8}], ids=str)
def test_gradients_reach_every_parameter(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = ALL[name](5, width=NARROW, dropout=0.0, **options).train()
    size = (32, 64, 64) if name == "p3d" else (16, 64, 48)
    F.cross_entropy(network(torch.randn(2, 3, *size)), torch.tensor([1, 4])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "size",
    list(itertools.product([8, 16], [(96, 96), (112, 112), (64, 80)])) + [(1, (32, 48)), (11, (45, 61))],
)
def test_input_shapes(name: str, size: tuple[int, tuple[int, int]]) -> None:
    """The forward pass is the classifier on the mean of the features, whatever the shape of the input."""
    torch.manual_seed(1)
    network = ALL[name](4, width=NARROW).eval()
    video = torch.randn(2, 3, size[0], *size[1])
    with torch.no_grad():
        features, logits = network.features(video), network(video)
    assert features.shape[:2] == (2, network.num_features) and features.isfinite().all()
    wanted = features.double().flatten(2).mean(2) @ network.fc.weight.double().T + network.fc.bias.double()
    torch.testing.assert_close(logits.double(), wanted.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "width", "wanted"),
    [
        ("c3d", C3D, 1.0, 512),
        ("c3d", C3D, 0.25, 128),
        ("r3d_18", R3D, 1.0, 512),
        ("r3d_18", R3D, 0.5, 256),
        ("r2plus1d_18", R2Plus1D, 0.5, 256),
        ("p3d", P3D, 1.0, 2048),
        ("p3d", P3D, 0.25, 512),
    ],
)
def test_width(name: str, kind: type, width: float, wanted: int) -> None:
    network = on_meta(name, 3, width=width)
    assert type(network) is kind and network.num_features == wanted and network.fc.weight.shape == (3, wanted)
    assert isinstance(network.dropout, nn.Dropout)
    assert network.dropout.p == (0.0 if name.startswith("r") else 0.5)
    assert on_meta(name, 3, dropout=0.3).dropout.p == 0.3


@pytest.mark.parametrize("name", ALL)
def test_wrong_shapes_are_refused(name: str) -> None:
    network = ALL[name](2, width=NARROW)
    with pytest.raises(ValueError, match=r"expected \(B, 3, T, H, W\)"):
        network(torch.zeros(2, 1, 8, 32, 32))
    with pytest.raises(ValueError, match="num_classes is 0"):
        ALL[name](0)


@pytest.mark.parametrize(("kind", "time", "wanted"), [("A", 3, 6), ("B", 3, 5), ("C", 3, 4)])
def test_p3d_bottlenecks(kind: str, time: float, wanted: float) -> None:
    """On ones, with S doubling and T multiplying by ``time`` (the authors' model description)."""
    assert p3d_bottleneck(kind, time) == pytest.approx(1 + wanted)  # the shortcut adds 1


@pytest.mark.parametrize(("kind", "wanted"), [("A", 0), ("B", 1.5), ("C", 0.5)])
def test_p3d_sums_before_its_relu(kind: str, wanted: float) -> None:
    assert p3d_bottleneck(kind, -0.5) == pytest.approx(1 + wanted)


def p3d_bottleneck(kind: str, time: float) -> float:
    block = reset(Bottleneck(4, 1, 1, False, kind), "middle")
    with torch.no_grad():
        block.conv2.weight.mul_(2)
        block.conv3.weight.mul_(time)
        return block(torch.ones(1, 4, 3, 3, 3, dtype=torch.float64))[0, 0, 1, 1, 1].item()


def test_p3d_kinds_take_turns() -> None:
    network = on_meta("p3d", 2)
    kinds = "".join(m.kind for m in network.modules() if isinstance(m, Bottleneck))
    assert kinds == "ABC" * 15 + "AB"
    # The authors' model description: sums in res2b and res2c, res3b1 and 3b2, ... and res4a halves its sum.
    assert kinds[3] == "A" and kinds[11] == "C" and kinds[46] == "B"
