"""How good the class maps are of networks that classify one token: against what really changes without a patch.

    python benchmarks/token_maps.py

A map says what the token read of each patch, with the factors held that all patches share
(``peakzoom.model.backbones.reading``). Here each patch in turn is taken from what the token reads (its value becomes
zero, the attention stays), or made grey in the clip, and the score of the predicted class is computed anew by the whole
network. Printed is the correlation, over the patches of a clip, of the map with the loss of score: 1 where the map
ranks patches as their loss does. Weights are random: as the network is made, and ten times as large, where the layers
behind the attention are far from linear. No trained weights could be had.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from blocks import markdown
from torch import Tensor, nn

from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES
from peakzoom.model.backbones.patches import PATCH, PatchNetwork

HEADS = {"timesformer": 12, "vivit": 12, "vjepa2_l": 16}  # at width 1
FRAMES, SIZE, CLIPS, CLASSES = 8, 96, 4, 10
AT_ONCE = 24  # patches that are taken away in a batch


def network_of(name: str, heads: int, factor: float) -> PatchNetwork:
    """Random weights, kernels ``factor`` times as large as they are made."""
    torch.manual_seed(0)
    network = BACKBONES[name](CLASSES, heads / HEADS[name], frames=FRAMES, size=SIZE, layers=3).eval()
    with torch.no_grad():
        for each in network.parameters():
            if each.dim() > 1:
                each.mul_(factor)
    assert isinstance(network, PatchNetwork)
    return network


def values_of(network: Any, name: str) -> nn.Module:
    """The layer that makes the values which the token reads."""
    if name == "vjepa2_l":
        return network.body.pooler.cross_attention_layer.cross_attn.v_proj
    return (
        network.body.layers[-1].attention.v_proj
        if name == "vivit"
        else network.body.encoder.layer[-1].attention.attention.qkv
    )


def without_value(network: PatchNetwork, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores (B, S) of B copies of a clip, in each of which the token reads nothing of one patch."""
    frames, places = FRAMES // network.tubelet, (SIZE // PATCH) ** 2

    def scores(video: Tensor, patches: Tensor) -> Tensor:
        def zero(_: nn.Module, __: Any, made: Tensor) -> Tensor:
            made, rows = made.clone(), torch.arange(len(patches))
            if (
                name == "timesformer"
            ):  # frames are clips of a batch here, and queries and keys stand before the values
                at_frame = rows * frames + patches // places
                made[at_frame, 1 + patches % places, 2 * made.shape[2] // 3 :] = 0
            else:
                made[rows, patches + (name == "vivit")] = 0
            return made

        handle = values_of(network, name).register_forward_hook(zero)
        try:
            return network(video.expand(len(patches), -1, -1, -1, -1))
        finally:
            handle.remove()

    return scores


def without_pixels(network: PatchNetwork) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores (B, S) of B copies of a clip, in each of which one patch is grey."""

    def scores(video: Tensor, patches: Tensor) -> Tensor:
        copies = video.repeat(len(patches), 1, 1, 1, 1)
        side, depth = SIZE // PATCH, network.tubelet
        for copy, patch in zip(copies, patches.tolist(), strict=True):
            t, y, x = patch // side**2 * depth, patch // side % side * PATCH, patch % side * PATCH
            copy[:, t : t + depth, y : y + PATCH, x : x + PATCH] = 0
        return network(copies)

    return scores


@torch.no_grad()
def correlations(name: str, heads: int, factor: float) -> list[list[float]]:
    """Of the map with the loss of score: for each clip, without the value and without the pixels."""
    network = network_of(name, heads, factor)
    model = PeakZoom(network, CLASSES, branches=("original",)).eval()
    found: list[list[float]] = []
    for clip in range(CLIPS):
        video = torch.randn(1, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(clip))
        whole = network(video)[0]
        best = int(whole.argmax())
        maps, _ = model.class_maps(network.features(video))
        shares, every = maps[0, best].flatten().numpy(), torch.arange(maps[0, 0].numel())
        losses = [
            np.concatenate(
                [(whole[best] - way(video, part)[:, best]).numpy() for part in every.split(AT_ONCE)]
            )
            for way in (without_value(network, name), without_pixels(network))
        ]
        found.append([float(np.corrcoef(shares, loss)[0, 1]) for loss in losses])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=4, help="of 64 channels")
    asked = parser.parse_args()
    rows = []
    for name in HEADS:
        for factor in (1.0, 10.0):
            each = np.array(correlations(name, asked.heads, factor))
            cells = [f"{part.mean():.2f} ({part.min():.2f} to {part.max():.2f})" for part in each.T]
            rows.append([f"`{name}`", f"x {factor:g}", *cells])
            print(rows[-1], flush=True)
    print("\n".join(markdown(["network", "weights", "value gone", "pixels grey"], rows)))


if __name__ == "__main__":
    main()
