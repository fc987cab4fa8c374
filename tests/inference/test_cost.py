"""Costs: convolutions counted by hand, published figures, and that a caller's network is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from peakzoom.inference import cost
from peakzoom.inference.cost import Timing, multiply_adds, parameters, time_per_clip, width_for
from peakzoom.model import BACKBONES, CellGeometry, PeakZoom
from peakzoom.model.backbones import VideoNetwork, tcnn, tcnn_16, tcnn_local, tcnn_xs
from peakzoom.utils.errors import UserError


class Small(VideoNetwork):
    """One convolution and a classifier."""

    def __init__(
        self, channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], groups: int = 1
    ) -> None:
        super().__init__()
        padding = tuple(side // 2 for side in kernel)
        self.first = nn.Conv3d(3, 6, 1, bias=False)
        self.conv = nn.Conv3d(6, channels, kernel, stride, padding, groups=groups)
        self.cells = CellGeometry(stride)
        self.num_features = channels
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, 5)

    def features(self, video: Tensor) -> Tensor:
        return self.conv(self.first(video))


def layers(network: nn.Module, frames: int, size: int) -> float:
    """A second way of counting: from the shape of what each layer gives out."""
    total = 0.0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        else:
            total += output.numel() * math.prod(module.kernel_size) * module.in_channels / module.groups

    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, frames, size, size, device=next(network.parameters()).device))
    return total / 1e9


# Multiply-adds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 3, 3), (5, 1, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_by_hand(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], groups: int
) -> None:
    frames, size, channels = 8, 20, 12
    first = 6 * 3 * frames * size**2
    places = math.ceil(frames / stride[0]) * math.ceil(size / stride[1]) * math.ceil(size / stride[2])
    second = channels * (6 // groups) * math.prod(kernel) * places
    wanted = (first + second + channels * 5) / 1e9
    assert multiply_adds(Small(channels, kernel, stride, groups), frames, size) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "build,frames,size,wanted",
    [
        (tcnn, 16, 224, 15.84),
        (tcnn_16, 16, 224, 15.758),
        (tcnn_local, 16, 224, 15.824),
        (tcnn_xs, 16, 96, 1.007),
    ],
)
def test_stated_figures(build: Callable[..., VideoNetwork], frames: int, size: int, wanted: float) -> None:
    with torch.device("meta"):
        network = build(101)
    assert multiply_adds(network, frames, size) == pytest.approx(wanted, rel=5e-4)


@pytest.mark.parametrize("name,size", [("tcnn", 64), ("tcnn_s", 80), ("tcnn_xs", 96)])
def test_networks_counted_layer_by_layer(name: str, size: int) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](7, width=0.5)
    assert multiply_adds(network, 8, size) == pytest.approx(layers(network, 8, size))


@pytest.mark.parametrize("width", [0.25, 0.5])
@pytest.mark.parametrize("branches", [("original",), ("original", "complementary"), None])
def test_branches_multiply_the_backbone(branches: tuple[str, ...] | None, width: float) -> None:
    chosen = {} if branches is None else {"branches": branches}
    network = PeakZoom("tcnn_xs", 6, width=width, **chosen)
    alone, found = multiply_adds(network.backbone, 8, 64), multiply_adds(network, 8, 64)
    assert found == multiply_adds(network, 8, 64)
    if branches == ("original",):
        assert found == alone
    else:  # a pass for the original video, and one for each zoomed video that is classified
        attention = (found - (1 + len(network.zoomed)) * alone) * 1e9 / 8  # of a frame, whatever the width
        assert 0.2e6 < attention < 2e6


def test_the_network_is_left_alone() -> None:
    for network in (tcnn_xs(4, width=0.25).double(), PeakZoom("tcnn_xs", 4, width=0.25)):
        network.train()
        network.get_submodule("dropout").eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        modes = [module.training for module in network.modules()]
        state = torch.random.get_rng_state()
        multiply_adds(network, 4, 32)
        time_per_clip({"it": network}, 4, 32, rounds=1)
        assert [module.training for module in network.modules()] == modes
        assert torch.equal(torch.random.get_rng_state(), state)
        for name, value in network.state_dict().items():
            assert value.device.type == "cpu" and torch.equal(value, before[name])
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_parameters() -> None:
    network = Small(12, (3, 3, 3), (1, 1, 1))
    assert parameters(network) == 3 * 6 + (6 * 12 * 27 + 12) + (12 * 5 + 5)
    assert parameters(nn.Sequential(network.fc, network.fc)) == 12 * 5 + 5
    with torch.device("meta"):
        assert parameters(tcnn(101)) == pytest.approx(31e6, rel=0.02)


# Widths ----------------------------------------------------------------------------------------------------------


def small(width: float) -> VideoNetwork:
    """Counted in an instant; its channels go in multiples of 8, so neighbouring widths cost the same, as a T-CNN's."""
    return Small(8 * max(1, round(8 * width)), (3, 3, 3), (1, 1, 1))


def of_width(build: Callable[[float], VideoNetwork], width: float) -> float:
    with torch.device("meta"):
        return multiply_adds(build(width), 8, 32)


@pytest.mark.parametrize("target", [0.02, 0.07, 0.2])
def test_width_for_a_cost(target: float) -> None:
    width = width_for(small, target, 8, 32)
    found = of_width(small, width)
    assert found == pytest.approx(target, rel=0.08)
    for other in (width * 0.9, width * 1.1, width - 0.01, width + 0.01):
        assert abs(of_width(small, other) - target) >= abs(found - target) * (1 - 1e-9)


def test_width_for_a_cost_that_a_width_has() -> None:
    assert width_for(lambda width: tcnn_xs(6, width=width), 1.007, 16, 96) == 1
    assert width_for(small, of_width(small, 0.5), 8, 32) == 0.5


def test_widths_are_monotone() -> None:
    costs = [of_width(lambda width: tcnn_xs(6, width=width), step / 4) for step in range(1, 9)]
    assert costs == sorted(costs) and len(set(costs)) == 8
    widths = [width_for(small, target, 8, 32) for target in (0.03, 0.05, 0.1, 0.15)]
    assert widths == sorted(widths) and len(set(widths)) == 4


def test_width_of_a_network_that_must_be_computed() -> None:
    def build(width: float) -> nn.Module:
        torch.manual_seed(0)  # the cost of the attention hangs on how many peaks the weights give
        return PeakZoom("tcnn_xs", 4, width=min(width, 0.5))

    target = multiply_adds(build(0.25), 2, 32)
    assert multiply_adds(build(width_for(build, target, 2, 32)), 2, 32) == pytest.approx(target, rel=1e-6)


@pytest.mark.parametrize("target", [0.0001, 1000.0, float("nan")])
def test_costs_out_of_reach(target: float) -> None:
    with pytest.raises(UserError, match="no width reaches"):
        width_for(lambda width: tcnn_xs(6, width=width), target, 16, 96)


# Time ------------------------------------------------------------------------------------------------------------


def test_time_is_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    calls: list[str] = []

    class Slow(nn.Module):
        def __init__(self, name: str, seconds: list[float]) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.name, self.seconds = name, seconds

        def forward(self, video: Tensor) -> Tensor:
            assert (
                video.shape == (1, 3, 4, 16, 16) and not self.training and torch.is_inference_mode_enabled()
            )
            calls.append(self.name)
            clock[0] += self.seconds.pop(0)
            return video

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    networks = {"a": Slow("a", [9, 9, 0.5, 0.1, 0.2]), "b": Slow("b", [9, 9, 1, 3, 2])}
    found = time_per_clip(networks, 4, 16, rounds=3)
    assert calls == ["a", "b"] * 5
    assert found["a"] == pytest.approx((200, 100, 500)) and found["b"] == (2000, 1000, 3000)
    assert isinstance(found["a"], Timing)


def test_time_of_real_networks() -> None:
    networks = {
        "alone": PeakZoom("tcnn_xs", 4, width=0.25, branches=("original",)),
        "all": PeakZoom("tcnn_xs", 4, width=0.25),
    }
    for timing in time_per_clip(networks, 4, 32, rounds=3).values():
        assert 0 < timing.low <= timing.median <= timing.high
