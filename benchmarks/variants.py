"""What ``localise.py`` tries: networks, poolings and losses, each named by what it changes of ``tcnn_xs``.

A name is a list such as ``field=local,stride=8,pool=best:2``; what it does not mention is as in the quickstart before
it took the local network ("today"): half the width, cells 16 pixels apart, the full field, motion in the input, the
mean of all cells and of all slices. Every one keeps Eq. 1: the logits are a pooling of the class maps of one linear
classifier, and the same maps are looked at.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones import tcnn_xs
from peakzoom.model.backbones.tcnn import TCNN, ConvBN
from peakzoom.model.geometry import CellGeometry
from peakzoom.model.pooling import pool_cells, quiet_loss
from peakzoom.model.response import class_response_maps, evidence_map
from peakzoom.training.recipes import quickstart, small

# As all rows of benchmarks/results.md were trained: what the quickstart's recipe was then, in batches of 16.
RECIPE = replace(
    small(),
    width=0.5,
    dropout=0.2,
    augment=quickstart().augment,
    tcnn=replace(small().tcnn, epochs=10, min_steps=0),
)
L, B, M = "field=local,stride=8", "pool=best:2", "0.5*mean+0.5*best:2"
GRID = [  # the most telling first
    "today", f"{L},pool={M},extra=quiet:1", f"{L},pool=peaks,extra=quiet:0.3", f"{L},pool=peaks",
    f"{L},pool={M}", f"{L},{B}", "weigh=0.1", f"{L},weigh=0.1", f"{L},{B},weigh=0.1",
    f"{L},{B},context=wide,forget=0.5", f"{L},{B},anneal=0.6", "field=late,stride=8,weigh=0.1",
    "stride=8,weigh=0.1", f"{L},pool=shared:2", f"{L},{B},extra=quiet:0.3", f"{L},pool=softmax:1",
    f"{L},pool=best:4", f"{L},{B},hide=0.3", f"{L},{B},context=gate", f"{L},{B},time=flat",
    f"{L},{B},weigh=0.5", f"{L},{B},time=clip", f"{L},{B},lr=0.004", f"field=late,stride=8,{B}",
    f"field=full,stride=8,{B}", f"field=local,stride=16,{B}", L, f"{L},pool=lse:2", "field=local",
    f"field=full,stride=16,{B}", "stride=8", f"{L},pool=best:1", f"{L},pool=best:8", f"{L},pool=shared:4",
    f"{L},{B},context=se", f"{L},{B},extra=two:0.5", f"{L},{B},context=wide", f"{L},{B},extra=cell:0.3",
    f"{L},pool=best:10%", f"{L},{B},extra=tv:0.1", f"{L},{B},extra=quiet:1", f"field=late,stride=8,pool={M}",
    f"{L},pool=0.5*mean+0.5*peaks", f"{L},pool=peaks,weigh=0.5", f"{L},pool=0.5*peaks+0.5*best:2",
    "field=late,stride=8,pool=0.5*mean+0.5*peaks", "field=late,stride=8,pool=peaks",
    f"{L},pool=peaks,context=gate", f"{L},pool=0.5*mean+0.5*best:1", f"{L},pool=0.3*mean+0.7*best:2",
    f"{L},pool=0.5*mean+0.5*best:10%", "pool=peaks", f"{L},pool={M},weigh=0.5", f"{L},pool=peaks,smoothing=0",
    f"{L},pool=peaks,lr=0.004", f"{L},pool=peaks,motion=0", f"pool={M}", "stride=8,pool=peaks",
    f"stride=8,pool={M}", f"{L},pool=peaks,time=best", f"{L},pool=peaks,context=wide,forget=0.5",
    f"{L},pool=peaks,width=0.75", f"{L},pool={M},motion=0", f"{L},pool=peaks,weigh=0.1",
    f"{L},pool=peaks,padding=replicate", f"{L},pool=lse:8", f"{L},pool=softmax:4",
]  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What differs.

    Attributes:
        field: of the network: full, local, or late, local from stage 4 on.
        stride: of the cells, in pixels.
        pool: of the cells, see :func:`pool_map`; or ``shared:k``, the k cells where any class stands out.
        time: mean of the slices' scores; best, the mean of the two best; clip, cells pooled over the whole clip;
            flat, the maps averaged over time first.
        anneal: share of the training in which best:k begins with all cells and comes down to k.
        context: gate or se, channels weighed by the clip's mean at the end or after each block; wide, a branch of the
            last stages with full field and stride 16, whose mean stands beside the features of every cell.
        forget: probability that a clip's wide context is hidden in training.
        weigh: below 1, features are weighed by how much moves in a cell, and this is the share that all cells keep.
        hide: share of the cells that are hidden in training.
        extra: weight of another loss, as ``name:weight``: two, of the mean of all cells; cell, of every cell alone; tv,
            entropy, of the map of the true class; quiet, of cells that are not among the upper quarter and yet
            answer.
        motion, padding, width, smoothing, dropout, lr: as their names say.
    """

    field: str = "full"
    stride: int = 16
    pool: str = "mean"
    time: str = "mean"
    anneal: float = 0.0
    context: str = ""
    forget: float = 0.0
    weigh: float = 1.0
    hide: float = 0.0
    extra: str = ""
    motion: int = 1
    padding: str = "zeros"
    width: float = RECIPE.width
    smoothing: float = RECIPE.tcnn.label_smoothing
    dropout: float = RECIPE.dropout
    lr: float = RECIPE.tcnn.lr


def parse(name: str) -> Variant:
    """From its name; "today" changes nothing."""
    kinds = {key: type(value) for key, value in asdict(Variant()).items()}
    if name == "today":
        return Variant()
    pairs = (part.split("=", 1) for part in name.split(","))
    return Variant(**{key: kinds[key](value) for key, value in pairs})


class Gate(nn.Module):
    """Channels weighed by what the clip's mean says (Hu et al., 2018): it cannot tell one cell from another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, channels // 4)
        self.weigh = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.weigh(x.mean((2, 3, 4))))
        return x * (2 * gate)[..., None, None, None]


class Wide(nn.Module):
    """Local features, and beside them the mean over the cells of a branch that sees everything."""

    def __init__(self, local: TCNN, shared: int, forget: float) -> None:
        super().__init__()
        full = tcnn_xs(1, width=RECIPE.width, max_stride=16)
        self.near, self.far = local.blocks[shared:], full.blocks[shared:]
        local.blocks = nn.Sequential(*list(local.blocks)[:shared])
        self.trunk, self.forget = local, forget
        self.cells: CellGeometry = local.cells
        self.motion = local.motion
        self.num_features = local.num_features + full.num_features
        self.fc = nn.Linear(self.num_features, local.fc.out_features)

    def features(self, video: Tensor) -> Tensor:
        x = self.trunk.features(video)
        near, far = self.near(x), self.far(x).mean((3, 4), keepdim=True)
        if self.training and self.forget:
            far = far * (torch.rand_like(far[:, :1, :1]) >= self.forget)
        return torch.cat((near, far.expand(-1, -1, -1, *near.shape[3:])), 1)


class Weighed(nn.Module):
    """A network whose features count by how much moves in their cell: its class maps show what each cell adds."""

    def __init__(self, net: Any, share: float) -> None:
        super().__init__()
        self.net, self.share = net, share
        self.cells, self.fc = net.cells, net.fc

    def features(self, video: Tensor) -> Tensor:
        time, space, _ = self.cells.stride
        moves = (video - video.mean(2, keepdim=True)).abs().mean(1, keepdim=True)
        kernel, padding = (time + 1, space + 1, space + 1), (time // 2, space // 2, space // 2)
        around = F.avg_pool3d(moves, kernel, self.cells.stride, padding, count_include_pad=False)
        weights = around / around.mean((3, 4), keepdim=True).clamp(min=1e-6)
        return self.net.features(video) * (self.share + (1 - self.share) * weights)


def network(variant: Variant, classes: int) -> Any:
    """Untrained."""
    net = unweighed(variant, classes)
    return net if variant.weigh == 1 else Weighed(net, variant.weigh)


def unweighed(variant: Variant, classes: int) -> Any:
    """Without the weight of what moves."""
    net = tcnn_xs(
        classes,
        width=variant.width,
        dropout=variant.dropout,
        max_stride=variant.stride,
        local=variant.field != "full",
        motion=bool(variant.motion),
    )
    blocks: Any = net.blocks
    if variant.field == "late":
        for block, dilation in zip(blocks[:3], (1, 1, 4), strict=True):
            channels = block.conv2[0].out_channels
            block.conv2 = ConvBN(channels, channels, dilation=dilation)
    if variant.padding == "replicate":
        for module in net.modules():
            if not isinstance(module, nn.Conv3d):
                continue
            padding = module.padding
            if isinstance(padding, tuple) and any(padding):
                module.padding_mode = "replicate"
                module._reversed_padding_repeated_twice = [p for p in padding[::-1] for _ in (0, 1)]
    if variant.context == "se":
        gated = [nn.Sequential(block, Gate(block.conv2[0].out_channels)) for block in blocks]
        net.blocks = nn.Sequential(*gated)
    if variant.context == "gate":
        net.blocks = nn.Sequential(*blocks, Gate(net.num_features))
    if variant.context == "wide":
        return Wide(net, 3, variant.forget)
    return net


def dropped(features: Tensor, share: float) -> Tensor:
    """Channels of whole clips left out, as dropout before the classifier leaves them out of the mean."""
    kept = F.dropout(features.new_ones(features.shape[:2]), share)
    return features * kept[..., None, None, None]


def pooled(maps: Tensor, variant: Variant, weights: Tensor | None = None) -> Tensor:
    """(B, S, T', h, w) -> (B, S, T'), each slice by itself.

    Args:
        maps: without the bias.
        variant: whose pooling.
        weights: (h w,) of the cells from the highest to the lowest, in place of the pooling.
    """
    if weights is not None:
        return maps.flatten(3).sort(dim=3, descending=True).values @ weights
    if variant.pool.startswith("shared"):
        stands_out = (maps - maps.mean(1, keepdim=True)).amax(1, keepdim=True).flatten(3)
        cells = stands_out.topk(int(variant.pool.split(":")[1]), dim=3).indices
        return maps.flatten(3).gather(3, cells.expand(-1, maps.shape[1], -1, -1)).mean(3)
    return pool_map(maps, variant.pool)


def pool_map(maps: Tensor, how: str) -> Tensor:
    """(..., h, w) -> (...), as ``peakzoom.model.pooling``; also ``lse:r``, ``softmax:r``, ``best:10%``."""
    cells = maps.flatten(-2)
    if how.startswith("lse:"):
        sharpness = float(how.removeprefix("lse:"))
        return (torch.logsumexp(sharpness * cells, dim=-1) - math.log(cells.shape[-1])) / sharpness
    if how.startswith("softmax:"):
        return ((float(how.removeprefix("softmax:")) * cells).softmax(-1) * cells).sum(-1)
    return pool_cells(maps, how.replace("10%", str(max(1, round(0.1 * cells.shape[-1])))))


def answered(maps: Tensor, variant: Variant, weights: Tensor | None = None) -> Tensor:
    """(B, S, T', h, w) -> (B, S), logits without the bias."""
    if variant.time == "clip":
        return pool_map(maps.flatten(2, 3), variant.pool)
    if variant.time == "flat":
        return pool_map(maps.mean(2), variant.pool)
    slices = pooled(maps, variant, weights)
    return slices.topk(2, dim=2).values.mean(2) if variant.time == "best" else slices.mean(2)


def extra_loss(maps: Tensor, bias: Tensor, labels: Tensor, kind: str, smoothing: float) -> Tensor:
    """Another loss on maps (B, S, T', h, w) that carry no bias."""
    if kind == "two":
        return F.cross_entropy(maps.mean((2, 3, 4)) + bias, labels, label_smoothing=smoothing)
    if kind == "cell":
        cells = maps.flatten(2).transpose(1, 2).flatten(0, 1) + bias
        every = labels.repeat_interleave(maps.shape[2] * maps.shape[3] * maps.shape[4])
        return F.cross_entropy(cells, every, label_smoothing=smoothing)
    if kind == "quiet":
        return quiet_loss(maps, bias, labels)
    true = maps.gather(1, labels[:, None, None, None, None].expand(-1, 1, *maps.shape[2:]))[:, 0]
    speaks = true - maps.mean(1)  # (B, T', h, w)
    if kind == "tv":
        return speaks.diff(dim=2).abs().mean() + speaks.diff(dim=3).abs().mean()
    if kind == "entropy":
        log_share = speaks.flatten(2).log_softmax(2)
        return -(log_share.exp() * log_share).sum(2).mean()
    raise ValueError(f"no loss is called {kind!r}")


def loss_of(
    net: Any, variant: Variant, video: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The loss of a batch in training."""
    features = net.features(video)
    maps = class_response_maps(dropped(features, variant.dropout), net.fc.weight)
    shown = maps
    if variant.hide:
        shown = maps.masked_fill(torch.rand_like(maps[:, :1]) < variant.hide, -1e4)
    logits = answered(shown, variant, weights) + net.fc.bias
    loss = F.cross_entropy(logits, labels, label_smoothing=variant.smoothing)
    if variant.extra:
        kind, weight = variant.extra.split(":")
        loss = loss + float(weight) * extra_loss(maps, net.fc.bias, labels, kind, variant.smoothing)
    return loss


def looked_at(net: Any, variant: Variant, video: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, S) and the evidence map (B, T', h, w), by the same pooling."""
    maps = class_response_maps(net.features(video), net.fc.weight)
    bias = net.fc.bias
    return answered(maps, variant) + bias, evidence_map(maps, pooled(maps, variant) + bias[:, None])
