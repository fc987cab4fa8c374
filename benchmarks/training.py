"""A training step of the T-CNN alone and of the three branches, in turn: forward, loss, backward, optimiser.

Network, attention and source of the zoomed frames are those of a recipe. uint8 clips are normalised on the device, as
in a training. On a GPU in float32 and in bfloat16 (autocast); on a CPU fewer clips, float32. GFLOP/s count three times
the multiply-adds of the forward pass as trained (forward, and backward twice), and are set against a matrix product of
the same precision. The last column is the ratio without the gradient of the two widths of Eq. 6, which alone goes back
through the zoomed frames.

    python benchmarks/training.py --rounds 5            # on a GPU where there is one; about a minute
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from timing import cell, in_turn, machine
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.memory import keep_freed_memory
from peakzoom.model import PeakZoom
from peakzoom.recipes import RECIPES
from peakzoom.train import build
from peakzoom.video.views import Preprocess, to_input

HEADER = (
    "| recipe, size | clips | precision | T-CNN step, ms | three branches, ms | ratio | T-CNN, GFLOP/s "
    "| of the matrix product's | largest memory, GB | ratio, widths fixed |\n" + "|---" * 10 + "|"
)
ON_CPU = (("paper", 224, 2), ("paper", 112, 2), ("small", 96, 8))  # recipe, size, clips
ON_GPU = (("paper", 224, 8), ("paper", 224, 24), ("small", 96, 64))
CLASSES = [str(number) for number in range(101)]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Step:
    """One training step of a model, again and again on the same clips."""

    def __init__(
        self, model: PeakZoom, preprocess: Preprocess, clips: int, device: torch.device, half: bool
    ) -> None:
        self.model, self.preprocess, self.device, self.half = (
            model.to(device).train(),
            preprocess,
            device,
            half,
        )
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        side = preprocess.source_size
        shape = (clips, preprocess.frames, 3, side, side)
        self.views = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.labels = torch.arange(clips, device=device) % len(model.classes)

    def __call__(self) -> None:
        video, source = to_input(self.views, self.preprocess)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.model.loss(self.model(video, source), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        wait(self.device)


def product(device: torch.device, half: bool) -> tuple[Callable[[], object], float]:
    """A matrix product of that precision, and its GFLOP."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (
        torch.randn(side, side, device=device, dtype=torch.bfloat16 if half else torch.float32)
        for _ in range(2)
    )

    def multiply() -> None:
        _ = left @ right
        wait(device)

    return multiply, 2 * side**3 / 1e9


def rows(rounds: int, device: torch.device) -> Iterator[str]:
    """One line a network, number of clips and precision."""
    gpu = device.type == "cuda"
    for name, size, clips in ON_GPU if gpu else ON_CPU:
        for half in (False, True) if gpu else (False,):
            torch.manual_seed(0)
            recipe = RECIPES[name]()
            if size != recipe.preprocess.size:
                recipe = replace(
                    recipe, preprocess=replace(recipe.preprocess, size=size, canvas=(size, size))
                )
            pre = recipe.preprocess
            alone, three, fixed = (build(recipe, CLASSES, joint) for joint in (False, True, True))
            fixed.attention.requires_grad_(False)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                alone.eval()(torch.zeros(1, 3, pre.frames, size, size))
            multiply, worth = product(device, half)
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            steps = {"alone": alone, "three": three, "fixed": fixed}
            spent = in_turn(
                {key: Step(model, pre, clips, device, half) for key, model in steps.items()}
                | {"product": multiply},
                rounds,
                warm=2,
            )
            medians = {key: statistics.median(each) for key, each in spent.items()}
            reached = 3 * clips * counter.get_total_flops() / 1e6 / medians["alone"]
            memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if gpu else ""
            yield (
                f"| {name}, {size} | {clips} | {'bfloat16' if half else 'float32'} | {cell(spent['alone'])} "
                f"| {cell(spent['three'])} | {medians['three'] / medians['alone']:.2f} | {reached:.0f} "
                f"| {reached / (worth / medians['product'] * 1000):.2f} | {memory} "
                f"| {medians['fixed'] / medians['alone']:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cpu":
        keep_freed_memory()  # as a training does there
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else machine())
    found = [HEADER]
    for row in rows(asked.rounds, device):
        print(row, flush=True)
        found.append(row)
    print("\n".join(found))


if __name__ == "__main__":
    main()
