"""How the cells of a class map make its score.

Eq. 1's maps are linear in the features, so that the mean of a class's map over the cells, and the bias, is the score
that the classifier gives to the mean features: the paper's global average pooling. An average lets any cell speak for
the whole clip, and nothing then asks a map to be high where the action is. The other poolings are functions of the
same maps of the same classifier, so a map still shows what makes the score (benchmarks/results.md has what each does):

- ``mean``: of all cells (paper).
- ``best:k``: the mean of the k highest cells of each map.
- ``peaks``: the mean of a map's local maxima, peak stimulation (Zhou et al., CVPR 2018; 3 x 3 windows).
- a weighted sum, such as ``0.5*mean+0.5*best:2``.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.response import class_response_maps

TERM = re.compile(r"(?:(?P<weight>\d*\.?\d+)\*)?(?:(?P<name>mean|peaks)|best:(?P<best>[1-9]\d*))")


def terms(how: str) -> list[tuple[float, str | int]]:
    """Weight, and "mean", "peaks" or the k of best:k, of each part of a pooling; ValueError if it is none."""
    found = [TERM.fullmatch(part.strip()) for part in how.split("+")]
    if None in found:
        raise ValueError(f"pooling is {how!r}, expected a sum of mean, peaks and best:k, such as 'best:2'")
    return [(float(term["weight"] or 1), term["name"] or int(term["best"])) for term in found if term]


def pool_cells(maps: Tensor, how: str = "mean") -> Tensor:
    """The score that a class's map makes, but for the bias: (..., h, w) -> (...).

    Args:
        maps: class response maps.
        how: see above.
    """
    parts = []
    for weight, kind in terms(how):
        if kind == "mean":
            value = maps.mean((-2, -1))
        elif kind == "peaks":
            value = _mean_of_peaks(maps)
        else:
            cells = maps.flatten(-2)
            value = cells.topk(min(int(kind), cells.shape[-1]), dim=-1).values.mean(-1)
        parts.append(value if weight == 1 else weight * value)
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _mean_of_peaks(maps: Tensor) -> Tensor:
    flat = maps.flatten(0, -3)[:, None] if maps.dim() > 2 else maps[None, None]
    high = F.max_pool2d(flat.detach(), 3, stride=1, padding=1) == flat.detach()
    return ((flat * high).sum((-3, -2, -1)) / high.sum((-3, -2, -1))).reshape(maps.shape[:-2])


def gather(features: Tensor, how: str) -> Tensor:
    """What a classifier reads of features (B, C, T', h, w): their means (B, C); all, where cells are chosen."""
    return features.mean((2, 3, 4)) if how == "mean" else features


def drop_channels(gathered: Tensor, dropout: nn.Module) -> Tensor:
    """Dropout of what :func:`gather` took, of a clip's channels in all cells alike."""
    if gathered.dim() == 2 or not dropout.training:
        dropped: Tensor = dropout(gathered)
        return dropped
    kept: Tensor = dropout(gathered.new_ones(gathered.shape[:2]))
    return gathered * kept[..., None, None, None]


def score(gathered: Tensor, head: nn.Linear, how: str) -> Tensor:
    """Logits (B, S) of a clip by a classifier, from what :func:`gather` took of its features."""
    if how == "mean":
        logits: Tensor = head(gathered)
        return logits
    scores = class_scores(gathered, head.weight, how)
    return scores if head.bias is None else scores + head.bias


def class_scores(features: Tensor, weight: Tensor, how: str) -> Tensor:
    """(B, C, T', h, w), (S, C) -> (B, S): the mean over the slices of what the cells of each class map make."""
    # The axis goes in a step of its own: where it goes in the mean, OpenVINO 2026.4 adds a bias that follows along B.
    return pool_cells(class_response_maps(features, weight), how).mean(2, keepdim=True).squeeze(2)


def quiet_loss(
    maps: Tensor, bias: Tensor, target: Tensor, speakers: float = 0.25, class_weight: Tensor | None = None
) -> Tensor:
    """How far cells that do not speak for the true class are from a score of nothing: a loss beside the classifier's.

    In each slice, the share ``speakers`` of the cells where the true class stands out most from the mean of all
    classes may say what they like. Of every other cell's own softmax the cross-entropy with equal chances is taken;
    the mean over those cells of a clip is lowest, log S, where none of them prefers a class. The loss is the mean over
    the clips, so that several processes share it as they share a cross-entropy.

    Args:
        maps: (B, S, T', h, w) class response maps, in training.
        bias: (S,), the classifier's.
        target: (B,) int64, the true classes.
        speakers: in [0, 1).
        class_weight: (S,), how much a clip of each class counts; as in ``torch.nn.functional.cross_entropy``.
    """
    index = target[:, None, None, None, None].expand(-1, 1, *maps.shape[2:])
    speaks = (maps.gather(1, index)[:, 0] - maps.mean(1)).detach()  # (B, T', h, w)
    ordered = speaks.flatten(2).sort(dim=2).values
    level = ordered[..., int((1 - speakers) * ordered.shape[2]), None, None]
    silent = (speaks < level).to(maps.dtype)
    surprise = -(maps + bias[:, None, None, None]).log_softmax(1).mean(1)
    clips = (surprise * silent).sum((1, 2, 3)) / silent.sum((1, 2, 3)).clamp(min=1)
    if class_weight is None:
        return clips.mean()
    weight = class_weight[target]
    return (weight * clips).sum() / weight.sum()
