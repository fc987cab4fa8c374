"""How many clips should pass a network at once on a CPU: a batch in parts of several sizes, in turn.

Milliseconds a clip, median (fastest to slowest) of the rounds, one branch, by the built-in engine with its weights laid
out for parts of the size; then how many pages of memory, of 4 KiB each, the system had to hand out a clip. How many
clips the engine takes by itself (``clips_together``) is named beside. Needs 2 GB: each size has its engine.

    python benchmarks/parts.py --rounds 5
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from functools import partial

import torch
from timing import cell, in_turn, show_by_number

from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.packed import PackedConv
from peakzoom.model import PeakZoom
from peakzoom.video.views import Preprocess

CASES = (("tcnn", 224, 12), ("tcnn_s", 128, 12), ("tcnn_xs", 96, 24), ("r3d_18", 112, 4), ("i3d", 224, 4))
SIZES = (1, 2, 3, 4, 6, 12, 24)
HEADER = (
    "| network | clips | taken | "
    + " | ".join(f"{'one' if size == 1 else size} at once, ms; pages" for size in SIZES)
    + " |\n"
    + "|---" * (3 + len(SIZES))
    + "|"
)


def rows(rounds: int) -> Iterator[str]:
    for backbone, size, batch in CASES:
        torch.manual_seed(0)
        pre = Preprocess(size=size, canvas=(size, size))
        model = PeakZoom(backbone, 101, branches=("original",), preprocess=pre.to_dict()).eval()
        taken = InferenceNetwork(model).together
        ways = {each: in_parts(model, each) for each in SIZES if batch % each == 0}
        clips = torch.randint(0, 256, (batch, pre.frames, 3, size, size), dtype=torch.uint8)
        with torch.inference_mode():
            spent = in_turn({str(each): partial(way, clips) for each, way in ways.items()}, rounds)
            pages = {each: pages_of(partial(way, clips)) / batch for each, way in ways.items()}
        cells = {
            each: f"{cell([ms / batch for ms in spent[str(each)]], '.1f')}; {pages[each]:.0f}"
            for each in ways
        }
        yield (
            f"| {backbone}, {size} | {batch} | {taken} | "
            + " | ".join(cells.get(each, "") for each in SIZES)
            + " |"
        )


def in_parts(model: PeakZoom, together: int) -> InferenceNetwork:
    """An engine's network that takes so many clips at once."""
    network = InferenceNetwork(model)
    assert network.together is not None
    for module in network.modules():
        if isinstance(module, PackedConv):
            clips, *shape = module.packed_for
            module.packed_for = [clips // network.together * together, *shape]
            module.lay_out()
    network.together = together
    return network


def pages_of(call: Callable[[], object]) -> int:
    """Pages that the system hands out during a call that follows one like it."""
    call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    show_by_number(__doc__, "--rounds", 5, HEADER, rows)
