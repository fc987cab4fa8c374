"""A training step of the T-CNN alone and of the three branches, in turn: forward, loss, backward, optimiser.

uint8 clips are normalised on the device, as in a training. On a GPU the paper's size, 16 x 224 x 224, in float32 and
in bfloat16 (autocast); on a CPU fewer clips, float32. GFLOP/s count three times the multiply-adds of the forward pass
as trained (forward, and backward twice), and are set against a matrix product of the same precision.

    python benchmarks/training.py --rounds 5            # on a GPU where there is one; about a minute
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from timing import cell, in_turn, machine
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model import PeakZoom
from peakzoom.model.network import BRANCHES
from peakzoom.video.views import Preprocess, to_input

HEADER = (
    "| network | clips | precision | T-CNN step, ms | three branches, ms | ratio | T-CNN, GFLOP/s "
    "| of the matrix product's | largest memory, GB |\n" + "|---" * 9 + "|"
)
ON_CPU = (("tcnn", 112, 2), ("tcnn_xs", 96, 8))  # backbone, size, clips
ON_GPU = (("tcnn", 224, 8), ("tcnn", 224, 24), ("tcnn_xs", 96, 64))


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
        shape = (clips, preprocess.frames, 3, preprocess.size, preprocess.size)
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
    for backbone, size, clips in ON_GPU if gpu else ON_CPU:
        for half in (False, True) if gpu else (False,):
            torch.manual_seed(0)
            pre = Preprocess(size=size, canvas=(size, size))
            alone, three = (
                PeakZoom(backbone, 101, branches=branches, preprocess=pre.to_dict())
                for branches in (BRANCHES[:1], BRANCHES)
            )
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                alone.eval()(torch.zeros(1, 3, pre.frames, size, size))
            multiply, worth = product(device, half)
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            spent = in_turn(
                {
                    "alone": partial(Step(alone, pre, clips, device, half)),
                    "three": partial(Step(three, pre, clips, device, half)),
                    "product": multiply,
                },
                rounds,
                warm=2,
            )
            medians = {name: statistics.median(each) for name, each in spent.items()}
            reached = 3 * clips * counter.get_total_flops() / 1e6 / medians["alone"]
            memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if gpu else ""
            yield (
                f"| {backbone}, {size} | {clips} | {'bfloat16' if half else 'float32'} | {cell(spent['alone'])} "
                f"| {cell(spent['three'])} | {medians['three'] / medians['alone']:.2f} | {reached:.0f} "
                f"| {reached / (worth / medians['product'] * 1000):.2f} | {memory} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else machine())
    found = [HEADER]
    for row in rows(asked.rounds, device):
        print(row, flush=True)
        found.append(row)
    print("\n".join(found))


if __name__ == "__main__":
    main()
