"""The relaxation against discrete networks that are built for themselves, and its probabilities."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from peakzoom.model.backbones import backbone_factory
from peakzoom.model.backbones.inherit import copy_shared
from peakzoom.model.backbones.space import Space, depth, dilation
from peakzoom.model.backbones.tcnn import TCNN, Plan, Stage
from peakzoom.training.search.relaxed import Choices, Relaxed

NAMES = ("tcnn", "tcnn_16", "tcnn_local", "tcnn_s", "tcnn_xs", "tcnn_xs_local")


def space_of(name: str) -> Space:
    network = backbone_factory(name)(4, width=0.125, max_stride=16)
    assert isinstance(network, TCNN)
    return Space(network, 8, 48)


@pytest.mark.parametrize("name", NAMES)
def test_sure_of_a_network_it_is_that_network(name: str) -> None:
    """In double precision: in single precision, two orders of one sum lie apart as the processor likes."""
    space = space_of(name)
    relaxed = Relaxed(4, space).double()
    video = torch.randn((2, 3, 8, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = {**space.largest(), **space.point(space.given)}
    for picks in (
        given,
        space.largest(),
        dict.fromkeys(space.choices, 0),
        space.any_point(torch.Generator().manual_seed(1)),
        space.any_point(torch.Generator().manual_seed(2)),
    ):
        alone = TCNN(4, dropout=0.0, plan=space.plan(picks), pool=space.pool).double().train()
        copy_shared(alone, relaxed)
        relaxed.mixture = {name: each.double() for name, each in space.one_hot(picks).items()}
        with torch.no_grad():
            torch.testing.assert_close(relaxed(video), alone(video), rtol=1e-9, atol=1e-11)


def test_the_weights_of_a_network_reach_the_one_that_it_is_part_of() -> None:
    space = space_of("tcnn_xs")
    picks = space.any_point(torch.Generator().manual_seed(5))
    small = TCNN(4, dropout=0.0, plan=space.plan(picks), pool=space.pool).double().train()
    relaxed = Relaxed(4, space).double()
    copy_shared(relaxed, small)
    relaxed.mixture = {name: each.double() for name, each in space.one_hot(picks).items()}
    video = torch.randn(2, 3, 8, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(relaxed(video), small(video), rtol=1e-9, atol=1e-11)


def test_a_mixture_of_one_blocks_dilations_is_the_mixture_of_its_convolutions() -> None:
    """Of one block, before anything that is not linear: the mean of what each dilation gives."""
    from peakzoom.training.search.relaxed import convolve_mixed

    conv = torch.nn.Conv3d(2, 3, 3, padding=1, bias=False)
    x, weights = torch.randn(1, 2, 9, 5, 5), torch.tensor([0.1, 0.2, 0.3, 0.4])
    mixed = convolve_mixed(x, conv, (0, 1, 2, 4), weights)
    middle = F.conv2d(x[0].transpose(0, 1), conv.weight[:, :, 1], padding=1).transpose(0, 1)[None]
    for t in range(9):  # by hand, slice by slice
        expected = weights[0] * middle[:, :, t]
        for look, weight in zip((1, 2, 4), weights[1:], strict=True):
            expected = expected + weight * sum(
                F.conv2d(x[:, :, t + (tap - 1) * look], conv.weight[:, :, tap], padding=1)
                for tap in range(3)
                if 0 <= t + (tap - 1) * look < 9
            )
        torch.testing.assert_close(mixed[:, :, t], expected)


def test_gradients_reach_every_probability() -> None:
    space = space_of("tcnn_xs")
    relaxed, choices = Relaxed(4, space), Choices(space)
    video, label = torch.randn(4, 3, 8, 48, 48), torch.arange(4)
    draw = torch.Generator().manual_seed(0)
    reached = {name: torch.zeros(len(values)) for name, values in space.choices.items()}
    for _ in range(24):
        relaxed.mixture = choices.draw(1.0, draw)
        choices.zero_grad()
        F.cross_entropy(relaxed(video), label).backward()
        for name, each in choices.logits.items():
            reached[name] += 0 if each.grad is None else each.grad.abs()
    assert not [name for name, each in reached.items() if not each.all()]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_two_candidates_are_drawn_by_their_probabilities_and_weighed_by_the_temperature(
    temperature: float,
) -> None:
    """The first by its probability, the second by its share of what is left (Plackett and Luce)."""
    space = space_of("tcnn_xs")
    choices, name = Choices(space), dilation(1, 1)
    chance = torch.tensor([0.5, 0.2, 0.2, 0.1])
    choices.logits = torch.nn.ParameterDict({name: chance.log() + 3.0})  # a constant changes nothing
    draw, draws = torch.Generator().manual_seed(0), 6000
    found, pulled = torch.zeros(4, 4), []
    for _ in range(draws):
        weights = choices.draw(temperature, draw)[name].detach()
        (top, second), (first, other) = weights.topk(2)
        assert int((weights > 0).sum()) <= 2 and float(weights.sum()) == pytest.approx(1)
        found[first, other] += 1
        pulled.append(float((top / second).log()) * temperature if second else float("nan"))
    expected = chance[:, None] * chance / (1 - chance[:, None]) * (1 - torch.eye(4))
    torch.testing.assert_close(found / draws, expected, atol=0.025, rtol=0)
    apart = torch.tensor(pulled)  # between the two largest noisy numbers, whatever the temperature
    assert float(apart.nanmedian()) == pytest.approx(_apart(chance), rel=0.12)


def _apart(chance: torch.Tensor) -> float:
    """The median distance between the two largest of the logits with Gumbel noise, drawn another way."""
    noise = -torch.empty(20_000, len(chance)).exponential_(generator=torch.Generator().manual_seed(1)).log()
    top = (chance.log() + noise).topk(2).values
    return float((top[:, 0] - top[:, 1]).median())


@pytest.mark.parametrize("seed", [0, 1])
def test_actions_that_only_one_dilation_tells_apart_are_decided_for_it(seed: int) -> None:
    """Which frames to compare, learned by gradients alone, with weights learned beside it.

    A dot flashes twice, two frames apart or three; with one block, only a dilation of 2 sees both flashes at once.
    """
    torch.manual_seed(seed)
    plan = Plan(8, (Stage(16, (1,)),), stem_stride=1)
    space = Space(TCNN(2, plan=plan), 8, 16)
    space.choices = {
        name: values[-1:] if name != dilation(1, 1) else values for name, values in space.choices.items()
    }
    space.choices[depth(1)] = (1,)
    space.widest = space.plan({name: len(values) - 1 for name, values in space.choices.items()})
    relaxed, choices = Relaxed(2, space), Choices(space)
    weights = torch.optim.Adam(relaxed.parameters(), 1e-2)
    chances = torch.optim.Adam(choices.parameters(), 5e-2)
    draw = torch.Generator().manual_seed(seed)
    for step in range(240):
        video, label = _flashes(16, draw)
        relaxed.mixture = choices.draw(1.0, draw)
        for optimiser in (weights, chances):
            optimiser.zero_grad()
        F.cross_entropy(relaxed(video), label).backward()
        (chances if step % 2 and step > 60 else weights).step()
    found = choices.probabilities()[dilation(1, 1)]
    assert space.choices[dilation(1, 1)][int(found.argmax())] == 2, found


def _flashes(clips: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    video, label = torch.zeros(clips, 3, 8, 16, 16), torch.arange(clips) % 2
    for clip, apart in enumerate((2 + label).tolist()):
        first = int(torch.randint(8 - apart, (), generator=draw))
        for frame in (first, first + apart):
            video[clip, :, frame, 4:12, 4:12] = 1
    return video + 0.05 * torch.randn(video.shape, generator=draw), label


def test_every_mixture_of_depths_is_the_mean_of_the_networks_of_these_depths() -> None:
    space = space_of("tcnn_xs")
    relaxed = Relaxed(4, space)
    video = torch.randn(2, 3, 8, 48, 48)
    last = len(space.widest.stages)
    with torch.no_grad():
        outputs = []
        for blocks in range(len(space.choices[depth(last)])):
            relaxed.mixture = space.one_hot({**space.largest(), depth(last): blocks})
            outputs.append(relaxed.features(video))
        relaxed.mixture[depth(last)] = torch.full((len(outputs),), 1 / len(outputs))
        torch.testing.assert_close(relaxed.features(video), torch.stack(outputs).mean(0))


def test_all_networks_of_a_small_space_are_within_the_large_one() -> None:
    """Every one of them, not some that were drawn."""
    plan = Plan(8, (Stage(8, (1,)),), every_frame=True, motion=True)
    space = Space(TCNN(3, plan=plan), 4, 16)
    relaxed = Relaxed(3, space)
    video = torch.randn(2, 3, 4, 16, 16)
    for point in product(*(range(len(values)) for values in space.choices.values())):
        picks = dict(zip(space.choices, point, strict=True))
        alone = TCNN(3, dropout=0.0, plan=space.plan(picks)).train()
        copy_shared(alone, relaxed)
        relaxed.mixture = space.one_hot(picks)
        with torch.no_grad():
            torch.testing.assert_close(relaxed(video), alone(video), rtol=1e-4, atol=1e-5)
