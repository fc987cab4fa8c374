"""The space of a search against networks that are built and counted, and against all of its points."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
import torch

from peakzoom.inference.cost import multiply_adds
from peakzoom.model.backbones import backbone_factory
from peakzoom.model.backbones.architecture import plan_from_dict, plan_to_dict
from peakzoom.model.backbones.space import DILATIONS, NEAR, STEM, Space, depth, dilation, inner
from peakzoom.model.backbones.tcnn import PAPER, TCNN, Plan, Stage
from peakzoom.utils.errors import UserError

NAMES = ("tcnn", "tcnn_16", "tcnn_local", "tcnn_s", "tcnn_xs", "tcnn_s_local", "tcnn_xs_local")


def space_of(name: str, width: float = 1.0, frames: int = 8, size: int = 64) -> Space:
    with torch.device("meta"):
        network = backbone_factory(name)(7, width=width, max_stride=16)
    assert isinstance(network, TCNN)
    return Space(network, frames, size)


@pytest.mark.parametrize("name", NAMES)
def test_a_points_cost_is_what_pytorch_counts_of_the_network_itself(name: str) -> None:
    space = space_of(name, 0.5)
    for picks in (
        space.any_point(torch.Generator().manual_seed(0)),
        space.any_point(torch.Generator().manual_seed(1)),
        space.largest(),
        dict.fromkeys(space.choices, 0),
    ):
        with torch.device("meta"):
            network = TCNN(7, plan=space.plan(picks), pool=space.pool)
        counted = multiply_adds(network, 8, 64)
        assert space.cost(picks) == pytest.approx(counted, rel=1e-12)
        assert float(space.expected_cost(space.one_hot(picks))) == pytest.approx(counted, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_given_network_is_a_point_of_its_space(name: str) -> None:
    with torch.device("meta"):
        network = backbone_factory(name)(7, max_stride=32)
    assert isinstance(network, TCNN)
    space = Space(network, 16, 64)
    again = space.plan(space.point(network.plan))
    assert again.stem == network.plan.stem
    least = min(space.choices[dilation(1, 1)])
    for mine, theirs in zip(again.stages, network.plan.stages, strict=True):
        assert (mine.channels, mine.stride, mine.inner) == (theirs.channels, theirs.stride, theirs.inner)
        assert mine.dilations == tuple(max(each, least) for each in theirs.dilations)


def test_table_1_at_its_own_size_is_a_point_and_costs_what_is_printed() -> None:
    """15.78 G in the paper; 15.84 as it is read here."""
    space = space_of("tcnn", frames=16, size=224)
    with torch.device("meta"):
        space = Space(TCNN(101), 16, 224)
    assert space.cost(space.point(PAPER)) == pytest.approx(15.84, abs=0.01)


def test_the_expected_cost_is_the_mean_over_all_networks_by_their_chances() -> None:
    plan = Plan(8, (Stage(8, (1,)),), every_frame=True)
    space = Space(TCNN(3, plan=plan), 4, 16)
    draw = torch.Generator().manual_seed(0)
    chances = {
        name: torch.rand(len(values), generator=draw, dtype=torch.float64)
        for name, values in space.choices.items()
    }
    chances = {name: each / each.sum() for name, each in chances.items()}
    mean = 0.0
    for point in product(*(range(len(values)) for values in space.choices.values())):
        picks = dict(zip(space.choices, point, strict=True))
        chance = torch.stack([chances[name][index] for name, index in picks.items()]).prod()
        mean += float(chance) * space.cost(picks)
    assert float(space.expected_cost(chances)) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("name", ["tcnn", "tcnn_xs_local"])
def test_a_budget_is_kept_and_used(name: str) -> None:
    space = space_of(name, 0.5)
    low, high = space.bounds()
    for seed, share in enumerate((0.02, 0.1, 0.5, 0.9)):
        budget = low + share * (high - low)
        draw = torch.Generator().manual_seed(seed)
        chances = {
            key: torch.randn(len(values), generator=draw).mul(2).softmax(0)
            for key, values in space.choices.items()
        }
        cost = space.cost(space.within(chances, budget))
        assert (1 - 2 * NEAR) * budget <= cost <= budget
        if share == 0.1:  # elsewhere hardly any drawn network lies
            assert (1 - NEAR) * budget <= space.cost(space.draw(budget, draw)) <= budget


def test_the_likeliest_network_is_taken_where_it_fits() -> None:
    space = space_of("tcnn_xs")
    picks = space.any_point(torch.Generator().manual_seed(3))
    sure = {name: 0.9 * each + 0.01 for name, each in space.one_hot(picks).items()}
    assert space.within(sure, space.cost(picks)) == picks


def test_random_networks_are_others_each_time_and_the_same_for_a_seed() -> None:
    space = space_of("tcnn_xs", 0.5)
    budget = space.cost(space.point(space.given))
    draws = [space.draw(budget, torch.Generator().manual_seed(seed)) for seed in (0, 1, 2, 0)]
    assert draws[0] == draws[3]
    assert draws[0] != draws[1] != draws[2] != draws[0]


def test_what_may_be_chosen() -> None:
    space = space_of("tcnn_xs")
    assert space.choices[STEM] == (8, 16, 24)
    assert space.choices[depth(2)] == (1, 2, 3)
    assert space.choices[dilation(1, 1)] == DILATIONS
    assert space.choices[inner(1, 1)] == (8, 16, 24, 32, 40, 48)
    assert space_of("tcnn_xs_local").choices[dilation(1, 1)] == (1, 2, 4), "there every block sees time"


@pytest.mark.parametrize("budget", [1e-6, 1e6])
def test_a_budget_that_no_network_has_is_one_sentence(budget: float) -> None:
    with pytest.raises(UserError, match=r"--budget is .*G multiply-adds a clip, expected .*G to .*G"):
        space_of("tcnn_xs").expect_budget(budget)


def test_both_budgets_that_the_sentence_names_can_be_given() -> None:
    for name in ("tcnn_xs", "tcnn_xs_local"):
        space = space_of(name, 0.5)
        with pytest.raises(UserError) as refused:
            space.expect_budget(1e-6)
        low, high = map(float, re.findall(r"expected ([\d.]+)G to ([\d.]+)G", str(refused.value))[0])
        for budget in (low, high):
            space.expect_budget(budget)
            assert space.cost(space.within(space.uniform(), budget)) <= budget
        assert (low, high) == pytest.approx(space.bounds(), rel=0.01)


def test_strides_are_those_of_the_given_network_however_far_apart_its_cells_lie() -> None:
    stages = (Stage(8, (1,), (1, 4)), Stage(8, (2,), (1, 4)))
    with torch.device("meta"):
        network = TCNN(3, plan=Plan(8, stages, project=True), max_stride=64)
    assert network.cells.stride[2] == 64
    space = Space(network, 4, 128)
    assert space.cost(space.point(network.plan)) == pytest.approx(multiply_adds(network, 4, 128), rel=1e-12)


def test_no_network_of_a_space_is_larger_than_a_plan_may_be() -> None:
    with torch.device("meta"):
        space = Space(TCNN(2, plan=Plan(8, (Stage(4000, (1,) * 64),))), 2, 16)
    plan = space.plan(space.largest())
    assert plan_from_dict(plan_to_dict(plan, space.pool))[0] == plan


def test_only_its_very_own_plans_are_points() -> None:
    space = space_of("tcnn_xs")
    plan = space.plan(space.any_point(torch.Generator().manual_seed(0)))
    assert space.plan(space.exact_point(plan) or {}) == plan
    first, *others = plan.stages
    for changed in (
        replace(plan, stem=9),
        replace(plan, local=True),
        replace(plan, stages=tuple(others)),
        replace(plan, stages=(*plan.stages, first)),
        replace(plan, stages=(first._replace(dilations=(3,), inner=first.inner[:1]), *others)),
        replace(plan, stages=(first._replace(stride=(2, 2)), *others)),
        replace(plan, stages=(first._replace(dilations=(1,) * 9, inner=(8,) * 9), *others)),
    ):
        assert space.exact_point(changed) is None
