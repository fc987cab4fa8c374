"""Whether attention lies on the acting part: the pointing game on rendered clips, whose acting part is known.

A frame is hit where the highest place of its response lies within the acting part's radius plus half a feature cell.
Controls: the middle of the frame, a place drawn at random (its expectation, computed), and the place that moves most.

    python benchmarks/pointing.py RUN CLIPS             # a trained model; CLIPS as benchmarks/held.py makes them
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from held import CLASSES, PRE, TEST_DIFFICULTIES, Clips, normalised, read
from torch import Tensor
from torch.nn import functional as F

from peakzoom.inference.recognizer import load
from peakzoom.model.attention import SparseAttention
from peakzoom.model.geometry import CellGeometry, place_response
from peakzoom.model.response import evidence_map, find_peaks, further_peaks, normalise
from peakzoom.model.zoom import ZoomSampler

GRID, ERASE, BEST = 31, 0.15, 3
STARTS = (0, 8)  # of the two test clips in 24 frames
STRICT = 4.0  # pixels of slack that networks of every cell size get alike


class Truth:
    """Where the acting part is in each frame of each view: centres (V, T, 2) and radii (V, 1, 2), as (x, y)."""

    def __init__(self, clips: Clips) -> None:
        device = clips.frames.device
        centres = torch.tensor([row["centres"] for row in clips.rows], device=device)
        radii = torch.tensor([row["radii"] for row in clips.rows], device=device)
        self.centres = torch.cat([centres[:, start : start + PRE.frames] for start in STARTS])
        self.radii = radii.repeat(len(STARTS), 1)[:, None]
        self.parts = [row["part"] for row in clips.rows] * len(STARTS)
        self.labels = clips.labels.repeat(len(STARTS))

    def held(self, places: Tensor, slack: float) -> Tensor:
        """Whether places (V, T, K, 2) in pixels lie on the part: bool (V, T, K)."""
        off = (places - self.centres[:, :, None]) / (self.radii[:, :, None] + slack)
        return off.square().sum(-1) <= 1


def views_of(clips: Clips) -> Tensor:
    """Both test clips of every video, the first of all, then the second: uint8 (V, T, 3, s, s)."""
    return torch.cat([clips.frames[:, start : start + PRE.frames] for start in STARTS])


def movement(views: Tensor) -> Tensor:
    """How much moves around each place of the attention grid, [0, 1]: (V, T, 3, s, s) -> (V, T, g, g)."""
    frames = views.float()
    moves = (frames - frames.mean(1, keepdim=True)).abs().mean(2)
    around = F.avg_pool2d(moves, 9, stride=1, padding=4)
    return normalise(F.interpolate(around, (GRID, GRID), mode="bilinear", align_corners=True))


def highest(response: Tensor, best: int = 1, peaks: Tensor | None = None) -> Tensor:
    """Places (V, T, K, 2) in pixels of the highest responses, of the peaks alone where they are given.

    Where there are fewer than K peaks, the last places lie far outside.
    """
    found = (response if peaks is None else response.masked_fill(~peaks, -1)).flatten(2).topk(best, dim=2)
    line = torch.linspace(0, PRE.size - 1, GRID, device=response.device)
    places = torch.stack((line[found.indices % GRID], line[found.indices // GRID]), -1)
    return places.masked_fill(found.values[..., None] < 0, -1e6)


def magnified(response: Tensor, peaks: Tensor, truth: Truth) -> tuple[float, float]:
    """By how much both zoomed videos enlarge the acting part, in area: medians over frames."""
    attention, sampler = SparseAttention(mode="expected").to(response.device), ZoomSampler(GRID)
    sampler = sampler.to(response.device)
    medians = []
    for side in attention(*(each.flatten(0, 1) for each in (response, peaks))):
        grid = sampler.grid(side)  # (N, g, g, 2), where each place of the result reads
        spacing = 2 / (GRID - 1)
        down = torch.diff(grid, dim=1)[:, :, :-1] / spacing
        right = torch.diff(grid, dim=2)[:, :-1] / spacing
        area = (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).abs().flatten(1)
        at = (truth.centres / (PRE.size - 1) * 2 - 1).flatten(0, 1)[:, None]
        nearest = (grid[:, :-1, :-1].flatten(1, 2) - at).square().sum(-1).argmin(1, keepdim=True)
        medians.append(float((1 / area.gather(1, nearest).clamp(min=1e-3)).median()))
    return medians[0], medians[1]


@torch.no_grad()
def pointing(response: Tensor, cells: CellGeometry, truth: Truth, moves: Tensor) -> dict[str, float]:
    """Shares in percent, by part and class, and with one attention a clip.

    Args:
        response: (V, T', h, w), not normalised, of the views of :func:`views_of`.
        cells: where the cells sit in the input.
        truth: where the acting part is.
        moves: of :func:`movement`.
    """
    slack, size = cells.stride[1] / 2, (PRE.size, PRE.size)
    found: dict[str, float] = {}
    for per in ("frame", "clip"):
        placed = place_response(response, cells, PRE.frames, size, GRID, average=per == "clip")
        placed = normalise(placed).expand(-1, PRE.frames, -1, -1)
        at = highest(placed)
        hit = truth.held(at, slack)[..., 0].float()
        found[per] = 100 * float(hit.mean())
        found[f"{per} strict"] = 100 * float(truth.held(at, STRICT).float().mean())
        peaks = find_peaks(placed)
        found[f"{per} best {BEST}"] = 100 * float(
            truth.held(highest(placed, BEST, peaks), slack).any(-1).float().mean()
        )
        for part in sorted(set(truth.parts)):
            here = torch.tensor([each == part for each in truth.parts], device=hit.device)
            found[f"{per} {part}"] = 100 * float(hit[here].mean())
        if per == "frame":
            for number, name in enumerate(CLASSES):
                found[f"class {name}"] = 100 * float(hit[truth.labels == number].mean())
            with_movement = highest(placed * moves)
            found["times movement"] = 100 * float(truth.held(with_movement, slack).float().mean())
        else:
            found["D"], found["C"] = magnified(*further_peaks(placed, peaks, ERASE), truth)
    return found


@torch.no_grad()
def controls(truth: Truth, moves: Tensor, slack: float) -> dict[str, float]:
    """The same shares for places that no network chose."""
    line = torch.linspace(0, PRE.size - 1, GRID, device=moves.device)
    every = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(1, 1, -1, 2)
    centre = torch.full((1, 1, 1, 2), (PRE.size - 1) / 2, device=moves.device)
    return {
        "middle": 100 * float(truth.held(centre, slack).float().mean()),
        "random": 100 * float(truth.held(every, slack).float().mean()),
        "movement alone": 100 * float(truth.held(highest(moves), slack).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("clips", type=Path)
    asked = parser.parse_args()
    model = load(asked.run).model.eval()
    backbone, device = model.backbone, next(model.parameters()).device
    for difficulty in TEST_DIFFICULTIES:
        clips = read(asked.clips, f"test-{difficulty}", device)
        views, truth = views_of(clips), Truth(clips)
        moves, responses = movement(views), []
        for part in views.split(50):
            with torch.no_grad():
                features = backbone.features(normalised(part.float()))
                responses.append(evidence_map(*model.class_maps(features)))
        found = pointing(torch.cat(responses), backbone.cells, truth, moves)
        found |= controls(truth, moves, backbone.cells.stride[1] / 2)
        print(f"difficulty {difficulty}")
        for name, value in found.items():
            print(f"  {name}: {value:.1f}")


if __name__ == "__main__":
    main()
