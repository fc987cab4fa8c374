"""What attention and zoom cost: beside the network they serve, and beside the way they were published.

First table: the three branches at the paper's size, one clip, on a GPU also 30, as predictions run them, and how much
of it lies between the two passes (responses, gate, peaks, both attentions, both resamplings). Second, always on the
CPU: 32 maps by the loops of S3N (Ding et al., 2019) and the 61 x 61 convolutions of the saliency sampler (Recasens et
al., 2018), written afresh here from their description, and by peakzoom; the same attention and the same grid come out.

    python benchmarks/attention_cost.py --rounds 7      # on a GPU where there is one
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from timing import cell, in_turn, named, rounds_and_device, show, wait
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.inference.network import FirstPass, InferenceNetwork
from peakzoom.model import PeakZoom
from peakzoom.model.attention import SparseAttention
from peakzoom.model.response import find_peaks, normalise
from peakzoom.model.zoom import ZoomSampler
from peakzoom.video.views import Preprocess

GRID, PADDING, FWHM = 31, 30, 13.0
MANY = 50  # runs of the fast way a turn, so that it lasts as long as the slow one
READING = 4  # multiply-adds of one bilinear reading, which the counter does not see
CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (  # backbone, size, settings
    ("tcnn", 224, {}),
    ("tcnn", 224, {"attention_per": "clip", "response": "evidence", "erase": 0.15}),
    ("tcnn_xs", 96, {"attention_per": "clip", "response": "evidence", "erase": 0.15}),
)


def timed(network: InferenceNetwork, clip: Tensor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round of the whole, and of what it spent between the passes."""
    spent: dict[str, list[float]] = {"all": [], "between": []}
    marks: list[float] = []
    zoom = network.zoom

    def mark() -> None:
        wait(clip.device)
        marks.append(time.perf_counter())

    def marked(first: FirstPass) -> Tensor:
        mark()
        zoomed = zoom(first)
        mark()
        return zoomed

    network.zoom = marked  # type: ignore[method-assign]
    for turn in range(-2, rounds):
        marks.clear()
        mark()
        network(clip)
        mark()
        if turn >= 0:
            start, first, last, end = marks
            spent["all"].append(1000 * (end - start))
            spent["between"].append(1000 * (last - first))
    return spent


def shares(rounds: int, device: torch.device) -> Iterator[str]:
    for backbone, size, settings in CASES:
        torch.manual_seed(0)
        pre = Preprocess(size=size, canvas=(size, size))
        model = PeakZoom(backbone, 101, preprocess=pre.to_dict(), **settings).eval()
        network = InferenceNetwork(model.to(device))
        for number in (1, 30) if device.type == "cuda" else (1,):
            shape = (number, pre.frames, 3, size, size)
            clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
            with torch.inference_mode():
                seen = network.first_pass(clips)
                with FlopCounterMode(display=False) as counter:
                    network.zoom(seen)
                read = READING * 2 * 3 * (pre.frames // network.step) * size * size
                macs = counter.get_total_flops() / 2e9 / number + read / 1e9
                spent = timed(network, clips, rounds)
            share = statistics.median(spent["between"]) / statistics.median(spent["all"])
            how = "evidence, further peaks, per clip" if settings else "paper: gate, per frame"
            named_so = f"{backbone}, {size}" + (f", {number} clips" if number > 1 else "")
            yield (
                f"| {named_so} | {how} | {cell(spent['all'], '.1f')} | {cell(spent['between'], '.1f')} "
                f"| {share:.1%} | {macs:.3f} |"
            )


def published_attention(
    response: Tensor, peaks: Tensor, phi: Tensor, betas: tuple[float, float], base: float
) -> tuple[Tensor, Tensor]:
    """S3N's way: one map after the other, one peak after the other, a whole Gaussian for each of them."""
    side = response.shape[1]
    line = torch.arange(side, dtype=response.dtype) / side
    q_dis, q_com = [], []
    for one, here, draw in zip(response, peaks, phi, strict=True):
        dis, com = torch.full_like(one, base), torch.full_like(one, base)
        for y, x in here.nonzero().tolist():
            value = one[y, x]
            distance = (line - line[y])[:, None] ** 2 + (line - line[x]) ** 2
            if value >= draw[y, x]:
                dis += value * torch.exp(-distance / (value * betas[0] ** 2))
            else:
                com += 1 / value * torch.exp(-distance / (value * betas[1] ** 2))
        q_dis.append(dis)
        q_com.append(com)
    return torch.stack(q_dis), torch.stack(q_com)


def window() -> Tensor:
    """The 61 x 61 Gaussian."""
    line = torch.arange(-PADDING, PADDING + 1, dtype=torch.float32)
    return torch.exp(-4 * math.log(2) * (line[:, None] ** 2 + line**2) / FWHM**2)[None, None]


def published_grid(attention: Tensor, kernel: Tensor) -> Tensor:
    """The saliency sampler's way: the attention continued over 30 cells, three convolutions of 61 x 61."""
    padded = F.pad(attention[:, None], (PADDING,) * 4, mode="replicate")
    line = (torch.arange(GRID + 2 * PADDING, dtype=attention.dtype) - PADDING) / (GRID - 1)
    weight = F.conv2d(padded, kernel)
    x = F.conv2d(padded * line, kernel) / weight
    y = F.conv2d(padded * line[:, None], kernel) / weight
    return (2 * torch.cat((x, y), dim=1) - 1).clamp(-1, 1).permute(0, 2, 3, 1)


def side_by_side(rounds: int, maps: int = 32) -> Iterator[str]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((maps, 1, 7, 7), generator=generator)
    response = normalise(
        F.interpolate(coarse, (GRID, GRID), mode="bicubic", align_corners=True)[:, 0].clamp(-3, 3)
    )
    peaks = find_peaks(response)
    phi = torch.rand(response.shape, generator=generator)
    ours, sampler, kernel = SparseAttention(), ZoomSampler(GRID, FWHM, PADDING), window()
    betas = (float(ours.beta_dis.detach()), float(ours.beta_com.detach()))

    def published() -> tuple[Tensor, ...]:
        both = published_attention(response, peaks, phi, betas, ours.base)
        return (*both, *(published_grid(each, kernel) for each in both))

    def peakzoom() -> tuple[Tensor, ...]:
        both = ours(response, peaks, phi, mode="sample")
        return (*both, *sampler.grid(torch.cat(both)).chunk(2))

    with torch.inference_mode():
        expected, found = published(), peakzoom()
        apart = [float((one - other).abs().max()) for one, other in zip(expected, found, strict=True)]
        scale = [float(each.abs().max()) for each in expected]
        spent = in_turn(
            {"published": published, "peakzoom": lambda: [peakzoom() for _ in range(MANY)]}, rounds
        )
    spent["peakzoom"] = [each / MANY for each in spent["peakzoom"]]
    ratio = statistics.median(spent["published"]) / statistics.median(spent["peakzoom"])
    yield (
        f"| {maps} | {int(peaks.sum())} | {cell(spent['published'], '.1f')} | {cell(spent['peakzoom'], '.2f')} "
        f"| {ratio:.0f} | {max(a / s for a, s in zip(apart[:2], scale[:2], strict=True)):.1e} | {max(apart[2:]):.1e} |"
    )


SHARE_HEADER = (
    "| network | attention | three branches, ms | between the passes, ms | share | G multiply-adds |\n"
    + "|---" * 6
    + "|"
)
PUBLISHED_HEADER = (
    "| maps | peaks | published, ms | peakzoom, ms | ratio | attention, relative difference | grid, difference |\n"
    + "|---" * 7
    + "|"
)


def main() -> None:
    rounds, device = rounds_and_device(__doc__, 7)
    print(named(device))
    show(SHARE_HEADER, shares(rounds, device))
    print()
    show(PUBLISHED_HEADER, side_by_side(rounds))


if __name__ == "__main__":
    main()
