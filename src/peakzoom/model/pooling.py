"""How the cells of a class map make its score.

Eq. 1's maps are linear in the features, so that the mean of a class's map over the cells, and the bias, is the score
that the classifier gives to the mean features: the paper's global average pooling. An average lets any cell speak for
the whole clip, and nothing then asks a map to be high where the action is. Every other pooling here is a function of
the same maps of the same classifier, so a map still shows what makes the score:

- ``mean``: of all cells (paper).
- ``best:k``: the mean of the k highest cells of each map; ``best:10%`` of a share of them.
- ``peaks``: the mean of a map's local maxima, peak stimulation (Zhou et al., CVPR 2018; 3 x 3 windows).
- ``lse:r``: log-sum-exp, (1 / r) log mean exp(r M), between the mean (r = 0) and the highest cell.
- ``softmax:r``: the mean weighted by softmax(r M) over the cells.
- a weighted sum, such as ``0.5*mean+0.5*best:2``.

:func:`quiet_loss` goes with them: what it asks for is silence everywhere else. docs/results.md has what each does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.model.response import class_response_maps

TERM = re.compile(r"(?:(?P<weight>\d*\.?\d+)\*)?(?P<name>[a-z]+)(?::(?P<amount>\d*\.?\d+)(?P<share>%)?)?")


def _mean(maps: Tensor, amount: float) -> Tensor:
    return maps.mean((-2, -1))


def _best(maps: Tensor, amount: float) -> Tensor:
    cells = maps.flatten(-2)
    return cells.topk(min(round(amount), cells.shape[-1]), dim=-1).values.mean(-1)


def _peaks(maps: Tensor, amount: float) -> Tensor:
    flat = maps.flatten(0, -3)[:, None] if maps.dim() > 2 else maps[None, None]
    high = F.max_pool2d(flat.detach(), 3, stride=1, padding=1) == flat.detach()
    return ((flat * high).sum((-3, -2, -1)) / high.sum((-3, -2, -1))).reshape(maps.shape[:-2])


def _lse(maps: Tensor, amount: float) -> Tensor:
    cells = maps.flatten(-2)
    return (torch.logsumexp(amount * cells, dim=-1) - math.log(cells.shape[-1])) / amount


def _softmax(maps: Tensor, amount: float) -> Tensor:
    cells = maps.flatten(-2)
    return ((amount * cells).softmax(-1) * cells).sum(-1)


POOLINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": _mean,
    "best": _best,
    "peaks": _peaks,
    "lse": _lse,
    "softmax": _softmax,
}


def terms(how: str) -> list[tuple[float, str, float, bool]]:
    """Weight, name, amount, and whether that is a percentage, of each part of a pooling; ValueError if it is none."""
    found = []
    for part in how.split("+"):
        term = TERM.fullmatch(part.strip())
        if term is None or term["name"] not in POOLINGS:
            raise ValueError(f"pooling is {how!r}, expected a sum of {', '.join(POOLINGS)}, such as 'best:2'")
        amount = float(term["amount"] or 0)
        if (amount > 0) != (term["name"] in ("best", "lse", "softmax")):
            raise ValueError(
                f"pooling is {how!r}: best, lse and softmax need a number above 0, no other does"
            )
        found.append((float(term["weight"] or 1), term["name"], amount, bool(term["share"])))
    return found


def pool_cells(maps: Tensor, how: str = "mean") -> Tensor:
    """The score that a class's map makes, but for the bias: (..., h, w) -> (...).

    Args:
        maps: class response maps.
        how: see above.
    """
    parts = []
    for weight, name, amount, share in terms(how):
        if share:
            amount = max(1.0, amount / 100 * maps.shape[-2] * maps.shape[-1])
        value = POOLINGS[name](maps, amount)
        parts.append(value if weight == 1 else weight * value)
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def class_scores(features: Tensor, weight: Tensor, bias: Tensor | None, how: str = "mean") -> Tensor:
    """Logits (B, S) of a clip: the mean over its slices of what the cells of each class map make.

    Args:
        features: (B, C, T', h, w).
        weight: (S, C), the classifier's.
        bias: (S,), the classifier's, if it has one.
        how: the cells are pooled.
    """
    scores = pool_cells(class_response_maps(features, weight), how).mean(2)
    return scores if bias is None else scores + bias


def quiet_loss(maps: Tensor, bias: Tensor, target: Tensor, speakers: float = 0.25) -> Tensor:
    """How far cells that do not speak for the true class are from a score of nothing: a loss beside the classifier's.

    In each slice, the share ``speakers`` of the cells where the true class stands out most from the mean of all
    classes may say what they like. Of every other cell's own softmax the cross-entropy with equal chances is taken;
    the mean over those cells is lowest, log S, where none of them prefers a class.

    Args:
        maps: (B, S, T', h, w) class response maps, in training.
        bias: (S,), the classifier's.
        target: (B,) int64, the true classes.
        speakers: in [0, 1).
    """
    index = target[:, None, None, None, None].expand(-1, 1, *maps.shape[2:])
    speaks = (maps.gather(1, index)[:, 0] - maps.mean(1)).detach()  # (B, T', h, w)
    ordered = speaks.flatten(2).sort(dim=2).values
    level = ordered[..., int((1 - speakers) * ordered.shape[2]), None, None]
    silent = (speaks < level).to(maps.dtype)
    surprise = -(maps + bias[:, None, None, None]).log_softmax(1).mean(1)
    return (surprise * silent).sum() / silent.sum().clamp(min=1)
