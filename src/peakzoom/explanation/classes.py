"""Which class speaks when and where: what an explanation asks of a network beyond its forward pass (paper, Eq. 1-3).

Every function takes the features (B, C, T', h, w) of the original video, of which the clip has ``frames`` frames T of
``size`` (H, W) pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peakzoom.model import PeakZoom
from peakzoom.model.geometry import CellGeometry, axis_matrix
from peakzoom.model.numerics import exact
from peakzoom.model.response import class_probabilities, evidence_weights, speaking, top_k_entropy


@torch.no_grad()
def frame_probabilities(model: PeakZoom, features: Tensor, frames: int) -> Tensor:
    """Probabilities of Eq. 1's class scores at every input frame: (B, S, T), linear in time between feature slices."""
    with exact(features):
        chances = class_probabilities(model.class_maps(features)[1], model.multi_label)  # (B, S, T')
        return chances @ _slices(model, features, frames).T.to(chances)


@torch.no_grad()
def speaking_classes(model: PeakZoom, features: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    """The class that adds most to the response at each place of the attention grid: int64 (B, T, g, g).

    Where one attention serves a clip, so does one map of classes.
    """
    config = model.config
    with exact(features):
        maps, scores = model.class_maps(features)
        if model.multi_label:
            shares = speaking_shares(maps, scores, model.backbone.fc.bias)
        elif config.response == "evidence":
            shares = class_shares(maps, evidence_weights(scores))
        else:
            shares = class_shares(maps, gate_weights(scores, config.delta, config.top))
        if config.averages:
            over = _slices(model, features, frames).mean(0).to(shares)  # (T',), how much each slice counts
            never = shares.isinf().all(2, keepdim=True)
            shares = torch.einsum("bsthw,t->bshw", shares.nan_to_num(neginf=0.0), over)[:, :, None]
            shares = shares.masked_fill(never, -torch.inf)
        cells = model.cells(shares.shape[2], frames)
        return place_labels(shares.argmax(1), cells, frames, size, config.grid)


def gate_weights(scores: Tensor, delta: float = 0.2, top: int = 5) -> Tensor:
    """How often Eq. 3 counts each class's map: (B, S, T') of 0 and 1.

    Arguments as of :func:`~peakzoom.model.response.response_map`.
    """
    best = scores.topk(min(top, scores.shape[1]), dim=1).indices
    sure = (top_k_entropy(scores, top) < delta)[:, None]  # (B, 1, T')
    first = torch.zeros_like(scores).scatter(1, best[:, :1], 1.0)
    return torch.where(sure, first, torch.zeros_like(scores).scatter(1, best, 1.0))


def class_shares(maps: Tensor, weights: Tensor) -> Tensor:
    """What each class adds to a response at each place, w_s (M_s - mean of all M): (B, S, T', h, w).

    The mean map is taken off because only differences between class maps mean anything. Classes that the response
    does not count (w_s <= 0) get minus infinity, so that the largest share names a class that speaks for the place.

    Args:
        maps: (B, S, T', h, w) class response maps.
        weights: (B, S, T'), of :func:`gate_weights` or :func:`~peakzoom.model.response.evidence_weights`.
    """
    shares = weights[..., None, None] * (maps - maps.mean(1, keepdim=True))
    return shares.masked_fill((weights <= 0)[..., None, None], -torch.inf)


def speaking_shares(maps: Tensor, scores: Tensor, bias: Tensor | None) -> Tensor:
    """What each class says of each place where there may be several, its logit there: (B, S, T', h, w).

    Classes that do not speak in a slice (:func:`~peakzoom.model.response.speaking`) get minus infinity.

    Args:
        maps: (B, S, T', h, w) class response maps.
        scores: (B, S, T') logits of each slice.
        bias: (S,), the classifier's, if it has one.
    """
    says = maps if bias is None else maps + bias[:, None, None, None]
    return says.masked_fill(~speaking(scores)[..., None, None], -torch.inf)


def place_labels(
    labels: Tensor, cells: CellGeometry, frames: int, size: tuple[int, int], grid: int = 31
) -> Tensor:
    """Bring labels (B, T', h, w) of cells onto the attention grid, (B, T, g, g): each place takes the nearest."""
    axes = ((frames - 1, frames), (size[0] - 1, grid), (size[1] - 1, grid))
    for axis, (last, steps) in enumerate(axes):
        positions = torch.linspace(0, last, steps, dtype=torch.float64, device=labels.device)
        near = ((positions - cells.offset[axis]) / cells.stride[axis]).round()
        labels = labels.index_select(axis + 1, near.clamp(0, labels.shape[axis + 1] - 1).long())
    return labels


def _slices(model: PeakZoom, features: Tensor, frames: int) -> Tensor:
    """(T, T') float64: from feature slices to input frames."""
    slices = features.shape[2]
    cells = model.cells(slices, frames)
    where = cells.stride[0], cells.offset[0]
    return axis_matrix(frames - 1, frames, slices, *where, torch.float64, features.device)
