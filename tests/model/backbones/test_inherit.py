"""Networks that take over each other's weights: what they compute stays as it was, or as near as it can."""

from __future__ import annotations

import pytest
import torch

from peakzoom.model.backbones import backbone_factory
from peakzoom.model.backbones.inherit import grow, sort_channels
from peakzoom.model.backbones.space import Space
from peakzoom.model.backbones.tcnn import TCNN
from peakzoom.training.search.relaxed import Relaxed

NAMES = ("tcnn", "tcnn_16", "tcnn_local", "tcnn_s", "tcnn_xs", "tcnn_xs_local")


def network_of(name: str, width: float) -> TCNN:
    torch.manual_seed(0)
    network = backbone_factory(name)(4, width=width, max_stride=16, dropout=0.0)
    assert isinstance(network, TCNN)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm3d):  # statistics and factors as after a training
            for each, low, high in (
                (part.running_mean, -1, 1),
                (part.running_var, 0.5, 2),
                (part.weight, 0.5, 2),
            ):
                torch.nn.init.uniform_(each, low, high)
    return network.double()


def clip() -> torch.Tensor:
    return torch.randn((2, 3, 8, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.25, 0.3])  # at 0.25 some have a shortcut that hands on
def test_sorted_channels_compute_the_same(name: str, width: float) -> None:
    network = network_of(name, width).eval()
    before, weight = network(clip()), network.fc.weight.clone()
    sort_channels(network)
    torch.testing.assert_close(network(clip()), before, rtol=1e-9, atol=1e-11)
    assert not torch.equal(network.fc.weight, weight)
    for block in network.blocks:  # what one convolution alone reads
        if not network.plan.factored:
            assert (block.conv2[0].weight.abs().sum((0, 2, 3, 4)).diff() <= 1e-12).all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_has_grown_computes_what_it_did(name: str) -> None:
    # At half width the first shortcut of the small ones is a convolution, as in the large network.
    given = network_of(
        name, 0.5 if "xs" in name else 0.3
    ).train()  # the large network's batch norms take a batch's statistics
    space = Space(given, 8, 48)
    large = Relaxed(4, space).double()
    grow(large, given)
    own, widest = space.point(space.given), space.largest()
    for depths in (own, widest):  # its further blocks hand on, its further channels are not read
        picks = {each: (own if each.endswith("dilation") else depths)[each] for each in own}
        large.mixture = {each: chance.double() for each, chance in space.one_hot(picks).items()}
        torch.testing.assert_close(large(clip()), given(clip()), rtol=1e-9, atol=1e-11)
    assert large.fc.weight[:, given.fc.in_features :].abs().sum() == 0


def test_what_has_grown_learns_everywhere() -> None:
    """Nothing is zero on both sides, so that each weight has a gradient after some steps."""
    given = network_of("tcnn_xs_local", 0.3).train()
    space = Space(given, 8, 48)
    large = Relaxed(4, space).double()
    grow(large, given)
    step = torch.optim.SGD(large.parameters(), 0.01)
    before = {name: each.clone() for name, each in large.named_parameters()}
    for _ in range(3):
        step.zero_grad()
        torch.nn.functional.cross_entropy(large(clip()), torch.tensor([0, 1])).backward()
        step.step()
    still = [name for name, each in large.named_parameters() if torch.equal(each, before[name])]
    assert not still, still
