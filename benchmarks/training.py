"""A training step of the T-CNN alone and of the three branches, in turn: forward, loss, backward, optimiser.

Network, attention and source of the zoomed frames are those of a recipe. uint8 clips are normalised on the device, as
in a training. On a GPU in float32 and in bfloat16 (autocast); on a CPU fewer clips, float32. GFLOP/s count three times
the multiply-adds of the forward pass as trained (forward, and backward twice), and are set against a matrix product of
the same precision. The last column is the ratio without the gradient of the two widths of Eq. 6, which alone goes back
through the zoomed frames.

    python benchmarks/training.py --rounds 5            # on a GPU where there is one; about a minute
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from timing import cell, in_turn, settled, show_steps, side_of, wait
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model import PeakZoom
from peakzoom.training.recipes import RECIPES, Recipe
from peakzoom.training.start import build
from peakzoom.video.views import Preprocess, to_input

HEADER = (
    "| recipe, size | clips | precision | T-CNN step, ms | three branches, ms | ratio | T-CNN, GFLOP/s "
    "| of the matrix product's | largest memory, GB | ratio, widths fixed |\n" + "|---" * 10 + "|"
)
ON_CPU = (("paper", 224, 2), ("paper", 112, 2), ("small", 96, 8))  # recipe, size, clips
ON_GPU = (("paper", 224, 8), ("paper", 224, 24), ("small", 96, 64))
CLASSES = [str(number) for number in range(101)]


def at_size(name: str, size: int) -> Recipe:
    """A recipe whose clips are of that size."""
    recipe = RECIPES[name]()
    if size == recipe.preprocess.size:
        return recipe
    return replace(recipe, preprocess=replace(recipe.preprocess, size=size, canvas=(size, size)))


class Step:
    """A training step of a model, on the same random clips again and again, or on those it is given."""

    def __init__(
        self, model: PeakZoom, preprocess: Preprocess, clips: int, device: torch.device, half: bool
    ) -> None:
        self.model, self.preprocess, self.device, self.half = (
            model.to(device).train(),
            preprocess,
            device,
            half,
        )
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        side = preprocess.source_size
        shape = (clips, preprocess.frames, 3, side, side)
        self.views = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.labels = torch.arange(clips, device=device) % len(model.classes)

    def __call__(self, views: torch.Tensor | None = None, labels: torch.Tensor | None = None) -> torch.Tensor:
        """The loss before the step."""
        views, labels = (self.views, self.labels) if views is None or labels is None else (views, labels)
        video, source = to_input(views, self.preprocess)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.model.loss(self.model(video, source), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        wait(self.device)
        return loss.detach()


def largest_memory(step: Step) -> int:
    """Bytes on the GPU while a training takes its steps: weights, their momenta, clips, and what a step holds."""
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def product(device: torch.device, half: bool) -> tuple[Callable[[], object], float]:
    """A matrix product of that precision, and its GFLOP."""
    side = side_of(device)
    left, right = (
        torch.randn(side, side, device=device, dtype=torch.bfloat16 if half else torch.float32)
        for _ in range(2)
    )

    return settled(lambda: left @ right, device), 2 * side**3 / 1e9


def rows(rounds: int, device: torch.device) -> Iterator[str]:
    """One line a network, number of clips and precision."""
    gpu = device.type == "cuda"
    for name, size, clips in ON_GPU if gpu else ON_CPU:
        for half in (False, True) if gpu else (False,):
            torch.manual_seed(0)
            recipe = at_size(name, size)
            pre = recipe.preprocess
            three = Step(build(recipe, CLASSES, True), pre, clips, device, half)
            memory = f"{largest_memory(three) / 1e9:.1f}" if gpu else ""
            alone, fixed = (build(recipe, CLASSES, joint) for joint in (False, True))
            fixed.attention.requires_grad_(False)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                alone.eval()(torch.zeros(1, 3, pre.frames, size, size))
            multiply, worth = product(device, half)
            steps = {
                "alone": Step(alone, pre, clips, device, half),
                "three": three,
                "fixed": Step(fixed, pre, clips, device, half),
            }
            spent = in_turn({**steps, "product": multiply}, rounds, warm=2)
            medians = {key: statistics.median(each) for key, each in spent.items()}
            reached = 3 * clips * counter.get_total_flops() / 1e6 / medians["alone"]
            yield (
                f"| {name}, {size} | {clips} | {'bfloat16' if half else 'float32'} | {cell(spent['alone'])} "
                f"| {cell(spent['three'])} | {medians['three'] / medians['alone']:.2f} | {reached:.0f} "
                f"| {reached / (worth / medians['product'] * 1000):.2f} | {memory} "
                f"| {medians['fixed'] / medians['alone']:.2f} |"
            )
            del three, alone, fixed, steps, multiply  # the next row's memory is its own


def main() -> None:
    show_steps(__doc__, 5, HEADER, rows)


if __name__ == "__main__":
    main()
