"""T-CNNs that take over each other's weights: a narrower one within a wider one, and the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from peakzoom.model.backbones.space import channels, convolutions
from peakzoom.model.backbones.tcnn import TCNN


@torch.no_grad()
def copy_shared(target: TCNN, source: TCNN) -> None:
    """Give a network the weights that it shares with another one around the same plan.

    Of the blocks that both have these are, in each layer, the first channels and the middle taps; statistics of batch
    norms, where both have them.
    """
    for own, other in _pairs(target, source):
        here, there = _corners(own, other)
        own[here] = other[there].to(own)


@torch.no_grad()
def grow(target: TCNN, source: TCNN) -> None:
    """Give a wider and deeper network the weights of another one, so that it computes the same at first.

    What it has more adds nothing yet: its further channels are not read by the others, its further taps are zero, and
    its further blocks give what they are given.
    """
    copy_shared(target, source)
    for own, other in _pairs(target, source):
        if own.dim() > 1:  # of a convolution or of the classifier
            (rows, *rest), _ = _corners(own, other)
            kept = own[(rows, *rest)].clone()
            own[rows] = 0
            own[(rows, *rest)] = kept
    there = _by_place(source)
    own_tensors = target.state_dict()
    for place, name in _by_place(target).items():
        if place not in there and ".conv2." in place and place.endswith("1.weight"):
            own_tensors[name].zero_()  # of the batch norm before the sum


@torch.no_grad()
def sort_channels(network: TCNN) -> None:
    """Put the channels of every layer in the order of how much the next ones read of them, the most first.

    The network computes the same; narrower ones, which keep the first channels, lose the least.
    """
    state, last = network.state_dict(), channels(len(network.plan.stages))
    layers = [layer for layer in convolutions(network.plan) if f"{layer[0]}.0.weight" in state]
    read = {last: network.fc.weight.abs().sum(0)}
    for name, into, *_ in layers:
        if into is not None:
            read[into] = read.get(into, 0) + state[f"{name}.0.weight"].abs().sum((0, 2, 3, 4))
    for name, into, out, *_ in convolutions(network.plan):
        if into and f"{name}.0.weight" not in state:  # a shortcut that hands on: both keep their order
            read[into], read[out] = (torch.arange(len(read[each]), 0, -1) for each in (into, out))
    order = {name: each.argsort(descending=True, stable=True) for name, each in read.items()}
    for name, into, out, *_ in layers:
        weight = state[f"{name}.0.weight"]
        if into is not None:
            weight.copy_(weight[:, order[into]])
        weight.copy_(weight[order[out]])
        for each in ("weight", "bias", "running_mean", "running_var"):
            values = state[f"{name}.1.{each}"]
            values.copy_(values[order[out]])
    network.fc.weight.copy_(network.fc.weight[:, order[last]])


def _pairs(target: TCNN, source: TCNN) -> list[tuple[Tensor, Tensor]]:
    """The tensors of both that have one place."""
    there, own, other = _by_place(source), target.state_dict(), source.state_dict()
    return [
        (own[name], other[there[place]])
        for place, name in _by_place(target).items()
        if place in there and there[place] in other
    ]


def _by_place(network: TCNN) -> dict[str, str]:
    """The names of a network's tensors, by names in which a block is counted within its stage."""
    places = [
        f"{number}.{block}"
        for number, stage in enumerate(network.plan.stages, 1)
        for block in range(1, len(stage.dilations) + 1)
    ]

    def placed(name: str) -> str:
        first, _, rest = name.partition(".")
        if first != "blocks":
            return name
        index, _, rest = rest.partition(".")
        return f"{places[int(index)]}.{rest}"

    return {placed(name): name for name in network.state_dict()}


def _corners(target: Tensor, source: Tensor) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What two tensors share, in each: the first rows and columns, the middle of a kernel."""
    here: list[slice] = []
    there: list[slice] = []
    for axis, (own, other) in enumerate(zip(target.shape, source.shape, strict=True)):
        length = min(own, other)
        for places, side in ((here, own), (there, other)):
            first = (side - length) // 2 if axis > 1 else 0
            places.append(slice(first, first + length))
    return tuple(here), tuple(there)
