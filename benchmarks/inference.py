"""What the rewriting for inference saves: the trained form and ``InferenceNetwork`` on the same clips, in turn.

Milliseconds for a batch of clips, median (fastest to slowest) of the rounds; the last column is the ratio of the
medians. Weights are random, which changes nothing about the time.

    python benchmarks/inference.py --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from peakzoom.model import PeakZoom
from peakzoom.model.inference import InferenceNetwork
from peakzoom.video.views import Preprocess, to_input

CASES = (  # backbone, width, size, clips
    ("tcnn", 1.0, 224, 1),
    ("tcnn", 1.0, 224, 3),
    ("tcnn_xs", 1.0, 96, 1),
    ("tcnn_xs", 1.0, 96, 3),
    ("r3d_18", 1.0, 112, 1),
    ("tsm", 1.0, 112, 1),
)


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 0:
                spent[name].append(1000 * (time.perf_counter() - start))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        "| network | branches | clips | as trained, ms | for inference, ms | ratio |\n|---|---|---|---|---|---|"
    )
    for backbone, width, size, batch in CASES:
        for branches in (("original",), ("original", "discriminative", "complementary")):
            torch.manual_seed(0)
            pre = Preprocess(size=size, canvas=(size, size))
            model = PeakZoom(backbone, 101, width=width, branches=branches, preprocess=pre.to_dict()).eval()
            network = InferenceNetwork(model)
            clips = torch.randint(0, 256, (batch, pre.frames, 3, size, size), dtype=torch.uint8)
            with torch.inference_mode():
                spent = in_turn(
                    {
                        "trained": lambda m=model, c=clips, p=pre: m(*to_input(c, p)),  # type: ignore[misc]
                        "inference": lambda n=network, c=clips: n(c),  # type: ignore[misc]
                    },
                    rounds,
                )
            medians = {name: statistics.median(each) for name, each in spent.items()}
            cells = [f"{medians[n]:.0f} ({min(s):.0f} to {max(s):.0f})" for n, s in spent.items()]
            letters = "".join(name[0].upper() for name in branches)
            ratio = medians["trained"] / medians["inference"]
            print(
                f"| {backbone}, {size} | {letters} | {batch} | {cells[0]} | {cells[1]} | {ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
