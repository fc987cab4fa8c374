"""One clip and three through each network: as trained, and by every engine, in turn on the same clips.

Milliseconds for the batch, median (fastest to slowest) of the rounds. Weights are random, which changes nothing about
the time. GFLOP/s count what is computed after batch norms are folded and frames left out that the T-CNN never sees;
they are set against a product of two square matrices of side 2048, 8192 on a GPU, timed in turn with the rest. The last
engine is torch with its convolutions in bfloat16 (``--precision bf16-mixed``), whose answers differ a little. ONNX
Runtime and OpenVINO are left out on a GPU, which also answers 30 clips, a video's views.

    python benchmarks/inference.py --rounds 5           # on a GPU where there is one
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from timing import cell, in_turn, matrix_product, named, rate, rounds_and_device, settled, show
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.inference.cost import multiply_adds_by_pass
from peakzoom.inference.network import InferenceNetwork
from peakzoom.model import PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.video.views import Preprocess, to_input

ALONE = BRANCHES[:1]
CASES = (  # backbone, size, branches
    ("tcnn", 224, ALONE),
    ("tcnn", 224, BRANCHES),
    ("tcnn_xs_local", 96, ALONE),  # of recipe small
    ("tcnn_xs", 96, ALONE),
    ("tcnn_xs", 96, BRANCHES),
    ("r3d_18", 112, ALONE),
    ("r2plus1d_18", 112, ALONE),
    ("tsm", 224, ALONE),
    ("i3d", 224, ALONE),
)
TIMES = ("trained", "torch", "onnx", "openvino", "half")
HEADER = (
    "| network | branches | clips | G multiply-adds a clip | as trained, ms | torch, ms | onnx, ms | openvino, ms "
    "| torch in bfloat16, ms | best in float32 against as trained | its GFLOP/s | of the matrix product's "
    "| bfloat16 against as trained |\n" + "|---" * 13 + "|"
)


def trained(model: PeakZoom, preprocess: Preprocess, clips: torch.Tensor) -> object:
    """The network as it was trained."""
    return model(*to_input(clips, preprocess))


def trained_multiply_adds(model: PeakZoom, preprocess: Preprocess) -> float:
    """Of one clip through the network as it was trained, in G."""
    clip = torch.zeros((1, preprocess.frames, 3, preprocess.size, preprocess.size), dtype=torch.uint8)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        trained(model, preprocess, clip)
    return counter.get_total_flops() / 2e9


def rows(rounds: int, device: torch.device) -> Iterator[str]:
    """One line of the table a network, set of branches and batch."""
    engines = ("torch",) if device.type == "cuda" else ("torch", "onnx", "openvino")
    for backbone, size, branches in CASES:
        torch.manual_seed(0)
        pre = Preprocess(size=size, canvas=(size, size))
        model = PeakZoom(backbone, 101, branches=branches, preprocess=pre.to_dict()).eval()
        first, closer = multiply_adds_by_pass(model)
        counts = [trained_multiply_adds(model, pre), first + (closer if len(branches) > 1 else 0)]
        calls: dict[str, Callable[[torch.Tensor], object]] = {}
        if "onnx" in engines:
            from peakzoom.inference.engines.onnx import OnnxEngine, to_onnx
            from peakzoom.inference.engines.openvino import OpenVinoEngine, from_onnx

            graph = to_onnx(model)
            calls |= {"onnx": OnnxEngine(graph), "openvino": OpenVinoEngine(from_onnx(graph))}
        model = model.to(device)
        calls["trained"] = partial(trained, model, pre)
        calls["torch"] = InferenceNetwork(model)
        calls["half"] = InferenceNetwork(model, dtype=torch.bfloat16)
        for batch in (1, 3, 30) if device.type == "cuda" else (1, 3):
            clips = torch.randint(
                0, 256, (batch, pre.frames, 3, size, size), dtype=torch.uint8, device=device
            )
            with torch.inference_mode():
                spent = in_turn(
                    {name: settled(partial(call, clips), device) for name, call in calls.items()}
                    | {"product": settled(matrix_product(device), device)},
                    rounds,
                )
            most = rate(spent.pop("product"), device)
            medians = {name: statistics.median(each) for name, each in spent.items()}
            best = min(engines, key=medians.__getitem__)
            reached = 2 * counts[1] * batch / medians[best] * 1000
            letters = "".join(name[0].upper() for name in branches)
            yield (
                f"| {backbone}, {size} | {letters} | {batch} | {counts[0]:.2f} ({counts[1]:.2f} computed) | "
                + " | ".join(cell(spent[name]) if name in spent else "" for name in TIMES)
                + f" | {best}, {medians['trained'] / medians[best]:.2f} | {reached:.0f} | {reached / most:.2f} "
                f"| {medians['trained'] / medians['half']:.2f} |"
            )


def main() -> None:
    rounds, device = rounds_and_device(__doc__, 5)
    print(named(device))
    show(HEADER, rows(rounds, device))


if __name__ == "__main__":
    main()
