"""Class response maps, the entropy gate and peaks (paper, Eq. 1-4; docs/method.md, section 2).

Reads in the order of the equations: features and classifier weights give one map per class and slice (Eq. 1); the
entropy of a slice's five best scores (Eq. 2) decides whether the best class or the best five make up its response
(Eq. 3); a response is scaled to [0, 1] (Eq. 4) and its local maxima are the peaks.

Where a clip may be of several classes, a sigmoid stands in the place of the softmax, and the classes that speak make up
the response (:func:`several_classes_map`).

Two functions are not the paper's (docs/method.md, section 7). :func:`evidence_map` is for few classes, where the best
five are nearly all of them. :func:`further_peaks` is for few feature cells, where a response has but one peak and
nothing is left for the complementary branch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Closer than this, as a share of their map's range, responses are a tie: 128 roundings of float32.
TIE = 2.0**-16


def class_response_maps(features: Tensor, weight: Tensor) -> Tensor:
    """Eq. 1: M_s = sum_c W[s, c] X_c, for each slice. The bias would shift a map by a constant that Eq. 4 removes.

    Args:
        features: (B, C, T', h, w).
        weight: (S, C), the classifier's.

    Returns:
        (B, S, T', h, w).
    """
    if features.dim() != 5 or weight.dim() != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features {tuple(features.shape)} and weight {tuple(weight.shape)} do not fit, "
            "expected (B, C, T', h, w) and (S, C)"
        )
    return (weight @ features.flatten(2)).unflatten(2, features.shape[2:])


def frame_scores(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Class scores of each slice alone: y = GAP(slice) W^T + b (Sec. 2.1), as the paper writes them.

    The classifier is linear, so they are the means of the class maps and the bias: the network takes them from its maps
    (:meth:`~peakzoom.model.network.PeakZoom.class_maps`).

    Args:
        features: (B, C, T', h, w).
        weight: (S, C), the classifier's.
        bias: (S,), the classifier's, if it has one.

    Returns:
        (B, S, T') logits.
    """
    return F.linear(features.mean((3, 4)).transpose(1, 2), weight, bias).transpose(1, 2)


def top_k_entropy(scores: Tensor, k: int = 5) -> Tensor:
    """Eq. 2: H = -sum p log p over the k largest of all S softmax probabilities, natural log, not renormalised.

    Args:
        scores: (B, S, T') logits.
        k: how many; min(k, S) when there are fewer classes.

    Returns:
        (B, T') in nats.
    """
    log_prob = F.log_softmax(scores, dim=1).topk(min(k, scores.shape[1]), dim=1).values
    return -(log_prob.exp() * log_prob).sum(1)


def response_map(maps: Tensor, scores: Tensor, delta: float = 0.2, top: int = 5) -> Tensor:
    """Eq. 3: the map of the best class where H < delta, elsewhere the sum of the best five.

    Args:
        maps: (B, S, T', h, w) class response maps.
        scores: (B, S, T') logits of each slice.
        delta: threshold on the entropy in nats (0.2: the published value of Ding et al., 2019).
        top: how many classes an uncertain slice brings together, and the k of Eq. 2.

    Returns:
        (B, T', h, w), not normalised.
    """
    best = scores.topk(min(top, scores.shape[1]), dim=1).indices  # (B, k, T')
    maps = maps.gather(1, best[..., None, None].expand(*best.shape, *maps.shape[3:]))  # (B, k, T', h, w)
    certain = top_k_entropy(scores, top) < delta
    return torch.where(certain[..., None, None], maps[:, 0], maps.sum(1))


def evidence_weights(scores: Tensor) -> Tensor:
    """p_s - 1 / S, by which :func:`evidence_map` counts each class's map: (B, S, T'), sums to 0 over the classes."""
    return scores.softmax(1) - 1 / scores.shape[1]


def evidence_map(maps: Tensor, scores: Tensor) -> Tensor:
    """In place of Eq. 3: sum_s (p_s - 1 / S) M_s, what speaks for the likely classes and not for all alike.

    Only differences between class maps mean anything, for the softmax takes away what they have in common. One map
    alone, or the sum of nearly all, shows mostly that common part; where five of six classes are summed it is the
    sixth class's map upside down. With label smoothing and few classes Eq. 2's entropy seldom falls below delta, so
    that this is the rule and not the exception. Here every class counts by how probable it is, and the mean map is
    taken off. A network that knows nothing (p_s = 1 / S) gives a flat map, which has no peaks.

    Args:
        maps: (B, S, T', h, w) class response maps.
        scores: (B, S, T') logits of each slice.

    Returns:
        (B, T', h, w), not normalised.
    """
    return torch.einsum("bst,bsthw->bthw", evidence_weights(scores), maps)


def class_probabilities(logits: Tensor, multi_label: bool, dim: int = 1) -> Tensor:
    """Softmax over the classes; sigmoids, each by itself, where a clip may be of several. Same shape as the logits."""
    return logits.sigmoid() if multi_label else logits.softmax(dim)


def speaking(scores: Tensor) -> Tensor:
    """Which classes speak in a slice, where it may be of several: bool (B, S, T') from logits (B, S, T').

    Each that is likelier than not; the likeliest where none is. How many speak the sigmoids say, and Eq. 2's entropy
    need not.
    """
    return (scores >= 0) | (scores == scores.amax(1, keepdim=True))


def several_classes_map(maps: Tensor, scores: Tensor, bias: Tensor | None, response: str) -> Tensor:
    """In the place of Eq. 3 where a clip may be of several classes.

    - "gate": the sum of the maps M_s of the classes that speak (:func:`speaking`), as Eq. 3 sums its five.
    - "evidence": sum_s p_s sigmoid(M_s + b_s), p_s the slice's probability and the other factor that of the place
      alone. Nothing is taken off, for all classes may speak at once; and a class that denies a place, as one does where
      another acts, takes nothing from that one. (In sum_s p_s M_s it does; docs/choices.md has what that costs.)

    Args:
        maps: (B, S, T', h, w) class response maps.
        scores: (B, S, T') logits of each slice.
        bias: (S,), the classifier's, if it has one.
        response: "gate" or "evidence".

    Returns:
        (B, T', h, w), not normalised.
    """
    if response == "gate":
        return torch.einsum("bst,bsthw->bthw", speaking(scores).to(maps.dtype), maps)
    places = maps if bias is None else maps + bias[:, None, None, None]
    return torch.einsum("bst,bsthw->bthw", scores.sigmoid(), places.sigmoid())


def _flat(response: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest value, range, and whether that range is no more than rounding; each (..., 1, 1)."""
    low, high = response.amin((-2, -1), keepdim=True), response.amax((-2, -1), keepdim=True)
    rounding = 8 * torch.finfo(response.dtype).eps * torch.maximum(low.abs(), high.abs())
    return low, high - low, (high - low) <= rounding


def normalise(response: Tensor) -> Tensor:
    """Eq. 4: min-max to [0, 1] over the last two dimensions. A map that is flat but for rounding becomes zeros."""
    low, extent, flat = _flat(response)
    return torch.where(flat, 0.0, (response - low) / torch.where(flat, 1.0, extent))


def find_peaks(response: Tensor) -> Tensor:
    """Local maxima of each map (Sec. 2.1; docs/method.md, section 2).

    A peak equals the maximum of its 3 x 3 window, is not below the mean of its map, and on a tie is the first in
    row-major order: no earlier neighbour may equal it. A flat map has none.

    Values are equal where they differ by at most ``TIE`` of their map's range. Beyond the outermost feature cells a
    placed response is constant, and to the bit its rounding would choose the peak there: another batch size, device
    or precision would zoom elsewhere. (Rounding to common levels would not do: it splits ties on the edge of a level.)

    Args:
        response: (..., g, g).

    Returns:
        bool mask of the same shape.
    """
    columns = response.shape[-1]
    _, extent, flat = _flat(response)
    above, below = response + TIE * extent, response - TIE * extent
    padded = F.pad(response, (1, 1, 1, 1), value=-torch.inf)
    left, here, right = (padded[..., first : first + columns] for first in range(3))
    three = torch.maximum(torch.maximum(left, here), right)  # the highest of three in a row
    earlier = torch.maximum(three[..., :-2, :], left[..., 1:-1, :])
    later = torch.maximum(three[..., 2:, :], right[..., 1:-1, :])
    high = above >= response.mean((-2, -1), keepdim=True)
    return high & ~flat & (below > earlier) & (above >= later)


def further_peaks(response: Tensor, peaks: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """More peaks: those of what is left of a response where its peaks are erased.

    Around each peak of response R_i the response is multiplied by 1 - R_i exp(-d^2 / (2 reach^2)); the peaks of that
    are added, and they carry what was left of the response where they stand. So the first peaks keep their response,
    up to 1, and a further one has less the nearer it is to them: by Eq. 5 it falls mostly to the complementary branch.
    (Erasing the best place to find the next best is Wei et al.'s idea, CVPR 2017, there by training anew.)

    Args:
        response: (..., g, g) in [0, 1].
        peaks: (..., g, g) bool, of that response.
        reach: standard deviation of the Gaussian that a peak erases, as a fraction of the grid side.

    Returns:
        (..., g, g), the response, lowered at the further peaks; (..., g, g) bool, all peaks.
    """
    side = response.shape[-1]
    line = torch.arange(side, dtype=response.dtype, device=response.device) / side
    bell = torch.exp(-(line[:, None] - line).square() / (2 * reach**2))  # (g, g)
    # The highest of all peaks' bells at each cell; a bell is a product, so first along rows, then along columns.
    along = ((response * peaks)[..., None] * bell).amax(-2)  # (..., i, j, 1) x (j, j') -> (..., i, j')
    erased = (along.transpose(-1, -2)[..., None] * bell).amax(-2).transpose(-1, -2)
    left = response * (1 - erased)
    further = find_peaks(left) & ~peaks
    return torch.where(further, left, response), peaks | further
