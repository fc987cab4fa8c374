"""Training steps of ``benchmarks/training.py`` with the network compiled by torch.compile, beside those without.

Compiled is what the paper's network and the small ones compute of a clip (``backbone.features``); attention and the
resampling between the passes have shapes that hang on the clip. Needs a C++ compiler on a CPU.

    python benchmarks/compiled.py --rounds 5            # on a GPU where there is one; some minutes of compiling
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from timing import cell, in_turn, show_steps
from training import CLASSES, ON_CPU, ON_GPU, Step, at_size

from peakzoom.training.start import build

HEADER = (
    "| recipe, size | clips | precision | branches | ms | compiled, ms | as fast | difference of the loss "
    "| compiling, s |\n" + "|---" * 9 + "|"
)


def rows(rounds: int, device: torch.device) -> Iterator[str]:
    """The lines of the table; each compiles anew, because shapes that change make it compile more general code."""
    half = device.type == "cuda"
    for name, size, clips in ON_GPU if half else ON_CPU:
        recipe = at_size(name, size)
        for joint in (False, True):
            torch._dynamo.reset()
            steps = {}
            for way in ("eager", "compiled"):
                torch.manual_seed(0)
                model = build(recipe, CLASSES, joint)
                steps[way] = Step(model, recipe.preprocess, clips, device, half)
            backbone = steps["compiled"].model.backbone
            backbone.features = torch.compile(backbone.features)  # type: ignore[method-assign]
            losses = {}
            for way, step in steps.items():
                start = time.perf_counter()
                torch.manual_seed(1)
                losses[way] = float(step())
                spent = time.perf_counter() - start
            found = in_turn(steps, rounds, warm=2)
            ratio = statistics.median(found["eager"]) / statistics.median(found["compiled"])
            yield (
                f"| {name}, {size} | {clips} | {'bfloat16' if half else 'float32'} | {'ODC' if joint else 'O'} "
                f"| {cell(found['eager'])} | {cell(found['compiled'])} | {ratio:.2f} "
                f"| {abs(losses['eager'] - losses['compiled']):.1g} | {spent:.0f} |"
            )
            del steps, backbone, model


def main() -> None:
    show_steps(__doc__, 5, HEADER, rows)


if __name__ == "__main__":
    main()
