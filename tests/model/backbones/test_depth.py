"""Stochastic depth: what is left out in training, and that nothing changes in evaluation or at a rate of 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES
from peakzoom.model.backbones.depth import StochasticDepth, leave_out
from peakzoom.model.backbones.patches import PatchNetwork
from peakzoom.training.recipes import finetune, paper, small
from peakzoom.training.start import leave_out_blocks

pytest.importorskip("transformers")
SMALL: dict[str, dict[str, Any]] = {  # with two blocks that can be left out, or four
    "videomae_s": {"width": 1 / 6},
    "timesformer": {"width": 1 / 12, "layers": 3},
    "vivit": {"width": 1 / 12, "layers": 3},
    "vjepa2_l": {"width": 1 / 16, "layers": 2},
}


def network_of(name: str) -> PatchNetwork:
    """Weights far from those that it is made with, so that every block matters."""
    torch.manual_seed(0)
    network = BACKBONES[name](3, frames=4, size=32, **SMALL[name])
    assert isinstance(network, PatchNetwork)
    if name == "videomae_s":
        del network.body.encoder.layer[2:]
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.2)
    return network


def clips(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(4000,), (4000, 3), (4000, 2, 5)])
def test_a_clip_goes_without_or_adds_so_much_more(rate: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(rate)
    given = torch.rand(shape) + 1
    got = layer(given)
    factor = (got / given).flatten(1) if len(shape) > 1 else (got / given)[:, None]
    assert torch.allclose(factor, factor[:, :1].expand_as(factor))
    kept = factor[:, 0] > 0
    assert torch.allclose(factor[kept, 0], torch.full((int(kept.sum()),), 1 / (1 - rate)))
    assert float(kept.float().mean()) == pytest.approx(1 - rate, abs=0.03)  # four standard errors
    assert layer.eval()(given) is given and StochasticDepth(0.0)(given) is given


@pytest.mark.parametrize("name", SMALL)
def test_nothing_changes_in_evaluation_and_at_rate_0(name: str) -> None:
    network, video = network_of(name), clips()
    names = list(network.state_dict())
    with torch.no_grad():
        evaluated, trained = network.eval()(video), network.train()(video)
        assert network.leave_out_blocks(0.0)
        assert torch.equal(network.train()(video), trained)
        assert network.leave_out_blocks(0.9)
        assert torch.equal(network.eval()(video), evaluated)
    assert list(network.state_dict()) == names
    copied = copy.deepcopy(network)
    assert torch.equal(copied(video), evaluated)


@pytest.mark.parametrize("name", SMALL)
def test_a_clip_without_a_block_is_one_of_a_network_that_lacks_it(name: str) -> None:
    """At a rate near 1 the last block adds nothing, the first everything; no two clips of a batch are mixed up."""
    network, video = network_of(name), clips(3)
    if name == "timesformer":  # whose temporal branch ends in a layer that has a bias
        nn.init.zeros_(network.body.encoder.layer[1].temporal_dense.bias)
    shorter = copy.deepcopy(network).eval()
    layers = {"vivit": lambda body: body.layers, "vjepa2_l": lambda body: body.vjepa2.encoder.layer}
    del layers.get(name, lambda body: body.encoder.layer)(shorter.body)[1]
    network.leave_out_blocks(1 - 1e-7)
    torch.manual_seed(0)
    with torch.no_grad():
        whole, without, got = network.eval()(video), shorter(video), network.train()(video)
    assert torch.allclose(got, without, rtol=1e-4, atol=1e-5 * float(without.abs().max()))
    assert not torch.allclose(whole, without, rtol=1e-2)


@pytest.mark.parametrize("name", SMALL)
def test_each_draw_is_another_and_the_seed_s(name: str) -> None:
    network, video = network_of(name).train(), clips(4)
    network.leave_out_blocks(0.5)
    seen = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        with torch.no_grad():
            seen.append(network(video))
    assert torch.equal(seen[0], seen[1])
    assert not all(torch.allclose(seen[0], each) for each in seen[2:])


@pytest.mark.parametrize("name", SMALL)
def test_gradients_from_checkpoints_leave_out_the_same(name: str) -> None:
    network, video = network_of(name).train(), clips()
    network.leave_out_blocks(0.5)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            network.checkpoint_gradients()
        torch.manual_seed(5)
        network.zero_grad()
        network(video).square().sum().backward()
        gradients.append([each.grad.clone() for each in network.parameters() if each.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, rtol=1e-3, atol=1e-4 * float(plain.abs().max() + 1))


def test_rates_rise_from_block_to_block() -> None:
    blocks = [
        nn.ModuleDict({"end": nn.Identity(), "inner": nn.ModuleDict({"end": nn.Identity()})})
        for _ in range(5)
    ]
    leave_out(blocks, ("end", "inner.end"), 0.4)
    rates = [[m.rate for m in block.modules() if isinstance(m, StochasticDepth)] for block in blocks]
    assert rates == [[pytest.approx(0.1 * n)] * 2 for n in range(5)]
    with pytest.raises(AttributeError):
        leave_out(blocks, ("gone",), 0.4)


def test_the_recipe_for_public_weights_sets_it_and_a_network_without_blocks_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (finetune().stochastic_depth, small().stochastic_depth, paper().stochastic_depth) == (0.1, 0, 0)
    with caplog.at_level("INFO"):
        leave_out_blocks(PeakZoom(network_of("videomae_s"), 3), 0.1)
        assert not caplog.messages
        leave_out_blocks(PeakZoom("tsm", 3, width=0.125), 0.1)
    assert caplog.messages == ["stochastic_depth 0.1 plays no part: tsm has no blocks that it leaves out"]
