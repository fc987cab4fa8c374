"""I3D: the public port's names, TensorFlow's padding, its cost, and where cells look."""

from __future__ import annotations

import math

import pytest
import torch
from published import i3d_port
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model import PeakZoom
from peakzoom.model.backbones.i3d import I3D, MaxPool, Unit3D, pad_same

WIDTH = 1 / 8
CLASSES = 5


def on_meta(classes: int) -> I3D:
    with torch.device("meta"):
        return I3D(classes).eval()


def small(**kwargs: object) -> I3D:
    torch.manual_seed(0)
    return I3D(CLASSES, **{"width": WIDTH, **kwargs}).eval()


def test_the_public_port_s_weights_load() -> None:
    network = on_meta(400)
    state = {name: torch.empty(shape, device="meta") for name, shape in i3d_port(400).items()}
    network.load_state_dict(network.adapt_weights(state), strict=True)
    own = network.state_dict()
    assert network.adapt_weights(own).keys() == own.keys()
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm3d)} == {0.001}


def test_the_classifier_means_what_it_meant() -> None:
    network, classifier = small(), nn.Conv3d(small().num_features, CLASSES, 1)
    state = {f"logits.conv3d.{name}": value for name, value in classifier.state_dict().items()}
    adapted = network.adapt_weights(state)
    x = torch.randn(2, network.num_features, 3, 4, 5)
    wanted = classifier(x).mean((2, 3, 4))
    got = F.linear(x.mean((2, 3, 4)), adapted["fc.weight"], adapted["fc.bias"])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_multiply_adds_and_parameters() -> None:
    network = on_meta(400)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, 64, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(108e9, rel=0.03)
    counted = sum(p.numel() for p in network.parameters())
    assert counted == sum(math.prod(s) for name, s in i3d_port(400).items() if "running" not in name and s)
    assert counted - network.fc.weight.numel() - 400 == pytest.approx(12.3e6, rel=0.002)


# Padding -------------------------------------------------------------------------------------------------------------


def tensorflow_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """In front and behind, as tf.nn documents "SAME"."""
    total = max(kernel - (stride if size % stride == 0 else size % stride), 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (2, 1), (3, 1), (7, 1), (1, 1)])
@pytest.mark.parametrize("size", [1, 2, 6, 7, 8, 15, 28])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    line = torch.ones(1, 1, 1, 1, size)
    padded = pad_same(line, (1, 1, kernel), (1, 1, stride)).flatten()
    before, behind = int(padded.argmax()), int(padded.flip(0).argmax())
    wanted = tensorflow_padding(size, kernel, stride)
    assert (len(padded) - kernel) // stride + 1 == math.ceil(size / stride)
    assert before + behind == sum(wanted)
    assert before == (kernel - stride) // 2  # whatever the size, so that cells stay where they are
    if size % stride == 0:
        assert (before, behind) == wanted


@torch.no_grad()
def test_first_convolution_and_pooling_against_explicit_padding() -> None:
    unit = Unit3D(3, 8, (7, 7, 7), (2, 2, 2)).eval()
    video = torch.randn(1, 3, 8, 16, 12)
    wanted = F.conv3d(F.pad(video, (2, 3, 2, 3, 2, 3)), unit.conv3d.weight, stride=2)
    wanted = torch.relu(wanted / math.sqrt(1 + 0.001))
    torch.testing.assert_close(unit(video), wanted)
    bottom = F.pad(wanted, (0, 1, 0, 1, 0, 1), value=-math.inf)
    pooled = MaxPool((3, 3, 3), (2, 2, 2))(wanted)
    torch.testing.assert_close(pooled, F.max_pool3d(bottom, 3, 2))


# Where cells look ----------------------------------------------------------------------------------------------------


def reached(network: I3D, shape: tuple[int, int, int], axis: int, cell: int) -> tuple[int, int]:
    """First and last input position along an axis that reach one slice of cells."""
    video = torch.rand(1, 3, *shape, dtype=torch.float64, requires_grad=True)
    network.features(video).select(2 + axis, cell).sum().backward()
    assert video.grad is not None
    seen = video.grad.abs().sum([dim for dim in range(5) if dim != 2 + axis]).nonzero().flatten()
    return int(seen[0]), int(seen[-1])


@pytest.mark.parametrize(
    ("axis", "size", "width", "max_stride"),
    [
        (0, 160, 1 / 8, 32),
        (0, 133, 1 / 8, 16),
        (1, 576, 1 / 8, 32),
        (2, 576, 1 / 16, 32),
        (1, 555, 1 / 8, 32),
        (1, 400, 1 / 8, 16),
        (2, 391, 1 / 4, 16),
        (1, 240, 1 / 8, 8),
    ],
)
def test_cells(axis: int, size: int, width: float, max_stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even weights and poolings that read their whole window: a cell sees all its windows reach, and only that."""

    def mean(x: Tensor, kernel: int, stride: int, padding: int = 0, *_: object, **__: object) -> Tensor:
        return F.avg_pool3d(F.pad(x, (padding,) * 6), kernel, stride)

    monkeypatch.setattr(F, "max_pool3d", mean)
    network = small(width=width, max_stride=max_stride).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.fill_(1 / module.weight[0].numel())
    shape = tuple(size if at == axis else 16 for at in range(3))
    step = 8 if axis == 0 else max_stride
    count = network.features(torch.rand(1, 3, *shape).double()).shape[2 + axis]
    assert count == math.ceil(size / step) and network.cells.stride[axis] == step
    for cell in (count // 2, count // 2 - 1):
        first, last = reached(network, shape, axis, cell)
        assert 0 < first < last < size - 1, "not an interior cell"
        assert (first + last) / 2 == network.cells.offset[axis] + step * cell


def test_cells_as_the_docstring_says() -> None:
    network = on_meta(CLASSES)
    assert [network.cells.offset[1] + 32 * cell for cell in (0, 1, 6)] == [23, 55, 215]


@pytest.mark.parametrize(
    ("shape", "max_stride"),
    [
        ((8, 96, 96), 16),
        ((16, 64, 96), 32),
        ((1, 32, 32), 32),
        ((5, 33, 50), 8),
        ((64, 32, 32), 32),
        ((3, 7, 1), 4),
    ],
)
def test_shapes(shape: tuple[int, int, int], max_stride: int) -> None:
    network = small(max_stride=max_stride)
    video = torch.rand(2, 3, *shape)
    side = [math.ceil(size / max_stride) for size in shape[1:]]
    assert tuple(network.features(video).shape) == (2, network.num_features, math.ceil(shape[0] / 8), *side)
    assert network.cells.stride == (8, max_stride, max_stride)
    with torch.no_grad():
        assert torch.equal(network(video), network(video))
        assert network(video).shape == (2, CLASSES)


def test_widths() -> None:
    with torch.device("meta"):
        sizes = {width: I3D(CLASSES, width=width).num_features for width in (1.0, 0.5, 0.25)}
    assert sizes == {1.0: 1024, 0.5: 512, 0.25: 256}


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, T, H, W\)"):
        small()(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="num_classes"):
        I3D(0)


@pytest.mark.parametrize("shape", [(8, 96, 96), (16, 64, 48)])
def test_gradients_reach_every_parameter(shape: tuple[int, int, int]) -> None:
    network = small(max_stride=16).train()
    F.cross_entropy(network(torch.randn(2, 3, *shape)), torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_order_of_frames_counts() -> None:
    network, video = small(), torch.randn(1, 3, 8, 48, 48)
    assert not torch.allclose(network(video), network(video.flip(2)))


def test_three_branches_on_it() -> None:
    network = PeakZoom(small(max_stride=16), CLASSES, grid=9).train()
    output = network(torch.randn(2, 3, 8, 64, 64), attention=True)
    network.loss(output, torch.tensor([0, 1])).backward()
    assert output.attention is not None and output.attention.q_dis.shape == (2, 8, 9, 9)
    assert output.fused.isfinite().all()
