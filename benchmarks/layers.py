"""Where the built-in engine's time goes in the paper's T-CNN, convolution by convolution, on a CPU.

Convolutions alike are one line. GFLOP/s count only products of which no factor is a zero beyond the clip's ends; they
are set against a product of two 2048-square matrices, timed in turn. The last lines are all convolutions together, and
what is left of the whole.

    python benchmarks/layers.py --clips 3
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from timing import in_turn, matrix_product, rate, show_by_number

from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.rewrite import CONVOLUTIONS
from peakzoom.model import PeakZoom
from peakzoom.video.views import Preprocess

ROUNDS = 15
HEADER = (
    "| convolution | output | alike | ms | of the whole | GFLOP/s | of the matrix product's |\n"
    + "|---" * 7
    + "|"
)


def products(conv: Any, read: torch.Size, made: torch.Size) -> float:
    """Multiply-adds of a convolution, those with a zero beyond the ends left out."""
    total = made[0] * made[1] * (read[1] // conv.groups)
    for axis in range(len(conv.kernel_size)):
        total *= sum(
            0 <= at * conv.stride[axis] - conv.padding[axis] + tap * conv.dilation[axis] < read[axis + 2]
            for at in range(made[axis + 2])
            for tap in range(conv.kernel_size[axis])
        )
    return total


def rows(clips: int) -> Iterator[str]:
    torch.manual_seed(0)
    pre = Preprocess()
    model = PeakZoom("tcnn", 101, branches=("original",), preprocess=pre.to_dict()).eval()
    network = InferenceNetwork(model)
    views = torch.randint(0, 256, (clips, pre.frames, 3, pre.size, pre.size), dtype=torch.uint8)
    spent: dict[Any, list[float]] = defaultdict(list)
    shapes: dict[Any, tuple[torch.Size, torch.Size]] = {}
    started: dict[Any, float] = {}

    def before(conv: Any, inputs: Any) -> None:
        started[conv] = time.perf_counter()

    def after(conv: Any, inputs: Any, output: torch.Tensor) -> None:
        spent[conv].append(1000 * (time.perf_counter() - started[conv]))
        shapes[conv] = inputs[0].shape, output.shape

    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    with torch.inference_mode():
        turns = in_turn({"whole": partial(network, views), "product": matrix_product()}, ROUNDS, warm=2)
    most, total = rate(turns["product"]), statistics.median(turns["whole"])
    medians = {conv: statistics.median(each[-ROUNDS:]) for conv, each in spent.items()}
    alike: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for conv in spent:
        kernel = " x ".join(str(size) for size in conv.kernel_size)
        strides = f", stride {conv.stride[-1]}" if conv.stride[-1] > 1 else ""
        apart = f", slices {conv.dilation[0]} apart" if conv.kernel_size[0] > 1 else ""
        name = f"{conv.in_channels} to {conv.out_channels}, {kernel}{strides}{apart}"
        alike[name, " x ".join(str(side) for side in shapes[conv][1][2:])].append(conv)

    def line(name: str, output: str, convs: list[Any]) -> str:
        ms = sum(medians[conv] for conv in convs)
        reached = 2 * sum(products(conv, *shapes[conv]) for conv in convs) / ms / 1e6
        shares = f"{ms:.1f} | {ms / total:.1%} | {reached:.0f} | {reached / most:.2f}"
        return f"| {name} | {output} | {len(convs)} | {shares} |"

    for (name, output), convs in alike.items():
        yield line(name, output, convs)
    yield line("all convolutions", "", list(spent))
    rest = total - sum(medians.values())
    yield f"| everything else | | | {rest:.1f} | {rest / total:.1%} | | |"


if __name__ == "__main__":
    show_by_number(__doc__, "--clips", 3, HEADER, rows)
