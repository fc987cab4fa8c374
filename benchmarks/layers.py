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
from typing import Any

import torch
from timing import machine, matrix_product, number_from, rate, show

from peakzoom.model import PeakZoom
from peakzoom.model.inference import CONVOLUTIONS, InferenceNetwork
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
    count: dict[Any, float] = defaultdict(float)
    shapes: dict[Any, str] = {}
    started: dict[Any, float] = {}

    def before(conv: Any, inputs: Any) -> None:
        started[conv] = time.perf_counter()

    def after(conv: Any, inputs: Any, output: torch.Tensor) -> None:
        spent[conv].append(1000 * (time.perf_counter() - started[conv]))
        count[conv] += products(conv, inputs[0].shape, output.shape)
        shapes[conv] = " x ".join(str(side) for side in output.shape[2:])

    def once() -> float:
        start = time.perf_counter()
        network(views)
        return 1000 * (time.perf_counter() - start)

    product = matrix_product()
    yardstick: list[float] = []
    with torch.inference_mode():
        once()
        for module in network.modules():
            if isinstance(module, CONVOLUTIONS):
                module.register_forward_pre_hook(before)
                module.register_forward_hook(after)
        once()
        spent.clear()
        count.clear()
        whole = []
        for _ in range(ROUNDS):
            whole.append(once())
            start = time.perf_counter()
            product()
            yardstick.append(1000 * (time.perf_counter() - start))
    most, total = rate(yardstick), statistics.median(whole)
    medians = {conv: statistics.median(each) for conv, each in spent.items()}
    alike: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for conv in spent:
        kernel = " x ".join(str(size) for size in conv.kernel_size)
        strides = f", stride {conv.stride[-1]}" if conv.stride[-1] > 1 else ""
        apart = f", slices {conv.dilation[0]} apart" if conv.kernel_size[0] > 1 else ""
        name = f"{conv.in_channels} to {conv.out_channels}, {kernel}{strides}{apart}"
        alike[name, shapes[conv]].append(conv)

    def line(name: str, output: str, convs: list[Any]) -> str:
        ms = sum(medians[conv] for conv in convs)
        reached = 2 * sum(count[conv] for conv in convs) / ROUNDS / ms / 1e6
        shares = f"{ms:.1f} | {ms / total:.1%} | {reached:.0f} | {reached / most:.2f}"
        return f"| {name} | {output} | {len(convs)} | {shares} |"

    for (name, output), convs in alike.items():
        yield line(name, output, convs)
    yield line("all convolutions", "", list(spent))
    rest = total - sum(medians.values())
    yield f"| everything else | | | {rest:.1f} | {rest / total:.1%} | | |"


def main() -> None:
    clips = number_from(__doc__, "--clips", 3)
    print(machine())
    show(HEADER, rows(clips))


if __name__ == "__main__":
    main()
