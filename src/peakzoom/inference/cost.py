"""What a network costs: multiply-adds, parameters, time per clip (paper, Tables 2 and 3), and widths of equal cost.

Multiply-adds, in tables often called FLOPs, are counted by PyTorch's ``FlopCounterMode``: every convolution and matrix
product that is carried out. Norms, activations, pooling and the bilinear reading of a zoomed video (0.02 G for two
videos of 3 x 16 x 224 x 224) are not in the figure.
"""

from __future__ import annotations

import copy
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.inference.network import InferenceNetwork
from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.network import PeakZoom
from peakzoom.utils.errors import UserError

WIDTHS = (50, 4000)  # in thousandths: 8 of 2048 channels, the finest step of any network here, are 0.004


class Timing(NamedTuple):
    """Milliseconds for one clip, batch 1, forward alone: no decoding and no cropping."""

    median: float
    low: float  # fastest round
    high: float  # slowest round


def parameters(network: nn.Module) -> int:
    """Number of learned numbers; a parameter that two places share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, frames: int, size: int) -> float:
    """Multiply-adds of one clip in G (10^9), in evaluation; the network itself is left as it is.

    A :class:`VideoNetwork` is counted without computing anything. A :class:`PeakZoom` is computed on the CPU, because
    the cost of its attention hangs on how many peaks a clip has. The clip is noise from a fixed seed, so a real clip's
    figure differs a little; attention and zoom cost 1 to 8 M multiply-adds a frame, by its size.

    Args:
        network: takes (B, 3, T, H, W).
        frames: T.
        size: H and W in pixels.
    """
    device = "meta" if isinstance(network, VideoNetwork) else "cpu"
    network = copy.deepcopy(network).to(device).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(_clip(network, frames, size, device))
    return counter.get_total_flops() / 2 / 1e9


def multiply_adds_by_pass(model: PeakZoom) -> tuple[float, float]:
    """Multiply-adds in G of one view as predictions compute it: of stage 1 (the first pass), and of what stage 2 adds.

    Counted as by :func:`multiply_adds`, with batch norms folded and without the frames that are never seen. The model
    has ``preprocess``.
    """
    network = InferenceNetwork(model, fixed_shapes=True)
    view = torch.zeros((1, *network.preprocess.view_shape), dtype=torch.uint8, device=_device(network))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as first:
            passed = network.first_pass(view)
        with FlopCounterMode(display=False) as second:
            network.logits(passed)
    return first.get_total_flops() / 2e9, second.get_total_flops() / 2e9


def time_per_clip(
    networks: Mapping[str, nn.Module], frames: int, size: int, rounds: int = 7
) -> dict[str, Timing]:
    """Time one clip through each network, in turn, so that a machine's slow moments fall on all of them.

    Two rounds to warm up are not counted. Every network is timed on its device, and is left as it was.

    Args:
        networks: by name; each takes (B, 3, T, H, W).
        frames: T.
        size: H and W in pixels.
        rounds: clips timed for each network.
    """
    copies = {name: copy.deepcopy(network).eval() for name, network in networks.items()}
    clips = {name: _clip(network, frames, size, _device(network)) for name, network in copies.items()}
    spent: dict[str, list[float]] = {name: [] for name in copies}
    with torch.inference_mode():
        for turn in range(-2, rounds):
            for name, network in copies.items():
                _finish(clips[name].device)
                start = time.perf_counter()
                network(clips[name])
                _finish(clips[name].device)
                if turn >= 0:
                    spent[name].append(1000 * (time.perf_counter() - start))
    return {name: Timing(statistics.median(each), min(each), max(each)) for name, each in spent.items()}


def width_for(build: Callable[[float], nn.Module], target: float, frames: int, size: int) -> float:
    """The width factor whose multiply-adds come nearest to ``target``, from 0.05 to 4.

    Channels go in multiples of 8, so the cost goes in steps, and neighbouring widths cost the same: of these, one with
    few decimals is returned.

    Args:
        build: makes a network of a width; it is called with the meta device as default, where a
            :class:`VideoNetwork` takes no memory and no time.
        target: G multiply-adds of one clip.
        frames: T of the clip.
        size: its H and W in pixels.

    Raises:
        UserError: even the narrowest costs more, or the widest less.
    """

    @cache
    def cost(thousandths: int) -> float:
        with torch.device("meta"):
            network = build(thousandths / 1000)
        if not isinstance(network, VideoNetwork):
            network = build(thousandths / 1000)
        return multiply_adds(network, frames, size)

    low, high = WIDTHS
    if not cost(low) <= target <= cost(high):
        raise UserError(
            f"no width reaches {target:g} G multiply-adds at {frames} x {size} x {size}: widths of {low / 1000:g} to "
            f"{high / 1000:g} cost {cost(low):.3g} to {cost(high):.3g} G; name a cost between them"
        )
    above = low + bisect_right(range(low, high), target, key=cost)
    best = min((above - 1, above), key=lambda each: abs(cost(each) - target))
    for step in (1000, 500, 100, 50, 10, 5):
        rounded = round(best / step) * step
        if WIDTHS[0] <= rounded <= WIDTHS[1] and cost(rounded) == cost(best):
            return rounded / 1000
    return best / 1000


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _finish(device: torch.device) -> None:
    """Wait for work that was only handed over."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _clip(network: nn.Module, frames: int, size: int, device: torch.device | str) -> Tensor:
    """One clip of noise, the same every time, of the network's floating-point type."""
    clip = torch.randn((1, 3, frames, size, size), generator=torch.Generator().manual_seed(0), device="cpu")
    return clip.to(device, next(network.parameters()).dtype)
