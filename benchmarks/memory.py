"""What keeping freed memory is worth in a training step on a CPU (benchmarks/results.md); Linux with glibc.

Steps of the quickstart's T-CNN in fresh processes, with and without, interleaved:

    python benchmarks/memory.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def steps(keep: bool, count: int = 10) -> float:
    """Median seconds of a step."""
    import torch

    from peakzoom.model import PeakZoom
    from peakzoom.utils.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    model = PeakZoom("tcnn_xs", 10, branches=("original",), width=0.5)
    video, target = torch.randn(16, 3, 16, 96, 96), torch.zeros(16, dtype=torch.int64)
    taken = []
    for _ in range(count + 2):
        began = time.perf_counter()
        model.loss(model(video), target).backward()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=["keep", "return"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(steps(arguments.one == "keep"))
        return
    taken: dict[str, list[float]] = {"return": [], "keep": []}
    for _ in range(arguments.rounds):
        for name in taken:
            command = [sys.executable, __file__, "--one", name]
            taken[name].append(
                float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
    for name, values in taken.items():
        spread = f"{1e3 * min(values):.0f} to {1e3 * max(values):.0f}"
        print(f"{name}: {1e3 * statistics.median(values):.0f} ms a step ({spread})")
    print(f"ratio: {statistics.median(taken['keep']) / statistics.median(taken['return']):.2f}")


if __name__ == "__main__":
    main()
