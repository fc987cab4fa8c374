"""The space of a search: a family of T-CNNs around a given one, and what each of them costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model.backbones.architecture import CHANNELS, MOST_BLOCKS
from peakzoom.model.backbones.base import scaled
from peakzoom.model.backbones.tcnn import TCNN, Plan, Stage
from peakzoom.model.outline import without_numbers
from peakzoom.utils.errors import UserError

WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of each layer, times the given network's
DEEPER = 1  # blocks that a stage may have more than the given network's
DILATIONS = (0, 1, 2, 4)
NEAR = 0.05  # how far below its budget, as a fraction, a network may stay
DRAWS = 20_000

Picks = dict[str, int]  # of every choice, which of its candidates
STEM = "stem channels"


def channels(stage: int) -> str:
    """The choice of the channels of a stage; stages are counted from 1."""
    return f"stage {stage} channels"


def depth(stage: int) -> str:
    """The choice of how many blocks a stage has."""
    return f"stage {stage} blocks"


def inner(stage: int, block: int) -> str:
    """The choice of the channels between the two convolutions of a block; blocks are counted from 1 in their stage."""
    return f"stage {stage} block {block} channels"


def dilation(stage: int, block: int) -> str:
    """The choice of the frames that a block looks at: those so many before and after each, or none beside it (0)."""
    return f"stage {stage} block {block} dilation"


@dataclass(frozen=True)
class Layer:
    """A convolution or the classifier, and the choices that its cost depends on.

    Attributes:
        unit: multiply-adds in G, for one channel that comes in, one that goes out and one tap in time.
        into, out: the choices of its channels; None where these are given.
        taps: the choice of its dilation, where it has one.
        block: the stage and the block that it is in, where it is in one.
    """

    unit: float
    into: str | None
    out: str | None
    taps: str | None = None
    block: tuple[int, int] | None = None


class Space:
    """T-CNNs with the strides and the kernels of a given one: narrower and wider, shallower and deeper.

    Args:
        given: a network, whose plan is a point of the space.
        frames: T of a clip, for the costs.
        size: the side of a clip in pixels, for the costs.

    Attributes:
        given: its plan.
        pool: its own, of class maps.
        max_stride: pixels between its cells, and those of every network of the space.
        choices: by name, the candidates of every choice in rising order: channels, blocks, dilations.
        widest: the plan with the most of everything.
        layers: of the widest network.
    """

    def __init__(self, given: TCNN, frames: int, size: int) -> None:
        self.given, self.pool = given.plan, given.pool
        self.max_stride = given.cells.stride[2]
        self.choices = dict(_choices(given.plan))
        self.widest = self.plan(self.largest())
        self.layers = self._count(given.fc.out_features, frames, size)

    def plan(self, picks: Picks) -> Plan:
        """The plan of a point of the space."""
        value = {name: values[picks[name]] for name, values in self.choices.items()}
        stages = []
        for number, stage in enumerate(self.given.stages, 1):
            blocks = range(1, value[depth(number)] + 1)
            looks = tuple(value[dilation(number, each)] for each in blocks)
            between = tuple(value[inner(number, each)] for each in blocks)
            stages.append(Stage(value[channels(number)], looks, stage.stride, between))
        return replace(self.given, stem=value[STEM], stages=tuple(stages), project=True)

    def largest(self) -> Picks:
        """The point with the most of everything."""
        return {name: len(values) - 1 for name, values in self.choices.items()}

    def point(self, plan: Plan) -> Picks:
        """The picks that give a plan of the space; of blocks that it does not have, the last candidates.

        Raises:
            ValueError: it has what is no candidate.
            KeyError: it has more stages or blocks than any network of the space.
        """
        value = {name: values[-1] for name, values in self.choices.items()} | {STEM: plan.stem}
        for number, stage in enumerate(plan.stages, 1):
            value |= {channels(number): stage.channels, depth(number): len(stage.dilations)}
            for block, look in enumerate(stage.dilations, 1):
                value[dilation(number, block)] = max(look, self.choices[dilation(number, block)][0])
                value[inner(number, block)] = (stage.inner or (stage.channels,) * block)[block - 1]
        return {name: values.index(value[name]) for name, values in self.choices.items()}

    def exact_point(self, plan: Plan) -> Picks | None:
        """The picks that give this very plan; None where no network of the space has it."""
        try:
            picks = self.point(plan)
        except (KeyError, ValueError):
            return None
        return picks if self.plan(picks) == plan else None

    def expected_cost(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """The mean multiply-adds in G, (), of networks whose choices are drawn independently.

        Args:
            probabilities: (J,) of the J candidates of every choice; one-hot ones give a network's own cost.
        """
        chance = {name: each.cpu().double() for name, each in probabilities.items()}
        value = {name: torch.tensor(each, dtype=torch.float64) for name, each in self.choices.items()}
        total: Tensor = self._total(
            {name: chance[name] @ each for name, each in value.items()},
            {name: chance[name] @ each**2 for name, each in value.items()},
            {name: chance[name] @ (1 + 2 * (each > 0).double()) for name, each in value.items()},
            lambda stage, block: chance[depth(stage)][block - 1 :].sum(),
        )
        return total

    def cost(self, picks: Picks) -> float:
        """Multiply-adds of a point of the space, in G."""
        value = {name: values[picks[name]] for name, values in self.choices.items()}
        total: float = self._total(
            value,
            {name: each * each for name, each in value.items()},
            {name: 3 if each else 1 for name, each in value.items()},
            lambda stage, block: int(block <= value[depth(stage)]),
        )
        return total

    def _total(
        self,
        mean: Mapping[str, Any],
        square: Mapping[str, Any],
        taps: Mapping[str, Any],
        there: Callable[[int, int], Any],
    ) -> Any:
        """The sum over the layers: of channels and their squares, taps in time, and whether a block is there."""
        total: Any = 0.0
        for layer in self.layers:
            cost: Any = layer.unit
            if layer.into and layer.into == layer.out:
                cost = cost * square[layer.into]
            else:
                for name in (layer.into, layer.out):
                    cost = cost * mean[name] if name else cost
            cost = cost * taps[layer.taps] if layer.taps else cost
            total = total + (cost * there(*layer.block) if layer.block else cost)
        return total

    def one_hot(self, picks: Picks) -> dict[str, Tensor]:
        """Probabilities that are sure of a point."""
        return {name: torch.eye(len(values))[picks[name]] for name, values in self.choices.items()}

    def uniform(self) -> dict[str, Tensor]:
        """Probabilities that prefer nothing."""
        return {name: torch.full((len(values),), 1 / len(values)) for name, values in self.choices.items()}

    def bounds(self) -> tuple[float, float]:
        """Multiply-adds of the cheapest point and of the widest, in G."""
        return self.cost(dict.fromkeys(self.choices, 0)), self.cost(self.largest())

    def expect_budget(self, budget: float) -> None:
        """UserError if no network of the space costs so many G multiply-adds, or all cost less."""
        low, high = self.bounds()
        if not low <= budget <= high:
            least, most = _rounded(low, math.ceil), _rounded(high, math.floor)  # which can be given
            raise UserError(
                f"--budget is {budget:g}G multiply-adds a clip, expected {least}G to {most}G, as the smallest "
                "and the largest network around this --model cost: name another budget, --model or --set width"
            )

    def within(self, probabilities: Mapping[str, Tensor], budget: float) -> Picks:
        """A likely point that costs at most ``budget``, and nearly as much.

        From the likeliest candidate of every choice, one choice after the other is changed: always the one that takes
        the least from the logarithm of the probability for what it saves, until the budget holds; then, as long as more
        than :data:`NEAR` of that is left, for what it adds.
        """
        chance = {name: each.detach().cpu().double().log() for name, each in probabilities.items()}
        picks = {name: int(each.argmax()) for name, each in chance.items()}
        while True:
            now = self.cost(picks)
            saving = now > budget
            if (1 - NEAR) * budget <= now <= budget:
                return picks
            best: tuple[float, Picks] | None = None
            for changed, name in self._neighbours(picks):
                change = self.cost(changed) - now
                if (change >= 0) if saving else not 0 < change <= budget - now:
                    continue
                loss = float(chance[name][picks[name]] - chance[name][changed[name]]) / abs(change)
                if best is None or loss < best[0]:
                    best = loss, changed
            if best is None:  # nothing more fits
                return picks
            picks = best[1]

    def _neighbours(self, picks: Picks) -> Iterator[tuple[Picks, str]]:
        for name, values in self.choices.items():
            for index in range(len(values)):
                if index != picks[name]:
                    yield {**picks, name: index}, name

    def any_point(self, generator: torch.Generator) -> Picks:
        """A point drawn from all of them, whatever it costs."""
        return {
            name: int(torch.randint(len(values), (), generator=generator))
            for name, values in self.choices.items()
        }

    def draw(self, budget: float, generator: torch.Generator) -> Picks:
        """A point whose cost is at most :data:`NEAR` below ``budget``, all such points alike likely."""
        for _ in range(DRAWS):
            picks = self.any_point(generator)
            if (1 - NEAR) * budget <= self.cost(picks) <= budget:
                return picks
        raise UserError(f"of {DRAWS:,} networks drawn around this --model none costs about {budget:g}G")

    def _count(self, classes: int, frames: int, size: int) -> list[Layer]:
        """The layers of the widest network with their costs, as PyTorch's counter has them."""
        with without_numbers():
            network = TCNN(classes, plan=self.widest, pool=self.pool, max_stride=self.max_stride).eval()
            clip = torch.empty((1, 3, frames, size, size))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(clip)
        spent = {
            name.removeprefix("TCNN."): sum(each.values()) / 2e9
            for name, each in counter.get_flop_counts().items()
        }
        most = {name: values[-1] for name, values in self.choices.items()}
        layers, convolved = [], 0.0
        for name, into, out, taps, block in convolutions(self.widest):
            unit = spent[name] / (most.get(into or "", 1) * most[out] * (3 if taps else 1))
            layers.append(Layer(unit, into, out, taps, block))
            convolved += spent[name]
        last = channels(len(self.given.stages))
        layers.append(Layer((counter.get_total_flops() / 2e9 - convolved) / most[last], last, None))
        return layers


def convolutions(plan: Plan) -> Iterator[tuple[str, str | None, str, str | None, tuple[int, int] | None]]:
    """Name of each convolution of a network with a shortcut's in every stage, and what :class:`Layer` says of it."""
    yield "stem.0", None, STEM, None, None
    yield "stem.2", STEM, STEM, None, None
    before, index = STEM, 0
    for number, stage in enumerate(plan.stages, 1):
        for block in range(1, len(stage.dilations) + 1):
            where, name = (number, block), f"blocks.{index}"
            between, look = inner(number, block), dilation(number, block)
            yield f"{name}.conv1", before, between, None, where
            if plan.factored:
                yield f"{name}.conv2.0", between, between, None, where
            second = f"{name}.conv2.2" if plan.factored else f"{name}.conv2"
            yield second, between, channels(number), look, where
            if block == 1:
                yield f"{name}.shortcut", before, channels(number), None, where
            before, index = channels(number), index + 1


def _choices(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The choices around a plan and their candidates."""
    in_time = plan.local or plan.factored  # there every block sees time
    yield STEM, _widths(plan.stem)
    for number, stage in enumerate(plan.stages, 1):
        blocks = min(len(stage.dilations) + DEEPER, MOST_BLOCKS)
        given = max(*stage.inner, stage.channels) if stage.inner else stage.channels
        looks = tuple(sorted({each for each in (*DILATIONS, *stage.dilations) if each or not in_time}))
        yield channels(number), _widths(stage.channels)
        yield depth(number), tuple(range(1, blocks + 1))
        for block in range(1, blocks + 1):
            yield inner(number, block), tuple(sorted({*_widths(given), *(stage.inner or ())}))
            yield dilation(number, block), looks


def _rounded(cost: float, to_whole: Callable[[float], int]) -> str:
    """A cost in G with three digits, rounded up or down, as ``--budget`` takes it."""
    digits = max(0, 2 - math.floor(math.log10(cost)))
    return f"{to_whole(cost * 10**digits) / 10**digits:.{digits}f}"


def _widths(count: int) -> tuple[int, ...]:
    """Channels to choose from around a number of them."""
    return tuple(sorted({count, *filter(CHANNELS.holds, (scaled(count, width) for width in WIDTHS))}))


def described(plan: Plan) -> str:
    """A plan in words: of each stage its channels and the frames that its blocks look at."""
    stages = [
        f"stage {number}: {stage.channels} channels, dilations {', '.join(map(str, stage.dilations))}"
        for number, stage in enumerate(plan.stages, 1)
    ]
    return "; ".join([f"stem: {plan.stem} channels", *stages])
