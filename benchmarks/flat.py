"""A T-CNN computed by two-dimensional convolutions, frames as a batch and channels last: the same network otherwise.

A GPU has quick kernels for 2-D convolutions of few channels in half precision and slow ones for 3-D convolutions. Here
a 1 x 3 x 3 convolution is one of every frame by itself, and one that sees three frames takes these as three times as
many channels. ``python benchmarks/flat.py`` compares outputs and gradients with the network as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones import BACKBONES
from peakzoom.model.backbones.motion import with_motion
from peakzoom.model.backbones.tcnn import TCNN, Block, ConvBN


def _conv_norm(x: Tensor, pair: Any) -> Tensor:
    """(B, T, H, W, C) -> (B, T', H', W', C')."""
    conv, norm = pair
    length, step, stride = x.shape[1], conv.dilation[0], conv.stride[0]
    if conv.kernel_size[0] == 1:
        x, weight = x[:, ::stride], conv.weight[:, :, 0]
    else:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, step, step))
        x = torch.cat([x[:, at * step : at * step + length : stride] for at in range(3)], -1)
        weight = conv.weight.transpose(1, 2).flatten(1, 2)
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(images, weight, stride=conv.stride[1:], padding=conv.padding[1:])
    known = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    y = F.batch_norm(y, *known, training=norm.training, momentum=norm.momentum, eps=norm.eps)
    return y.permute(0, 2, 3, 1).unflatten(0, (len(x), -1))


def _through(x: Tensor, module: nn.Module) -> Tensor:
    if isinstance(module, ConvBN):
        return _conv_norm(x, module)
    if isinstance(module, Block):
        y = _through(F.relu(_conv_norm(x, module.conv1)), module.conv2)
        return F.relu(y + _through(x, module.shortcut))
    if isinstance(module, nn.Sequential):
        for each in module:
            x = _through(x, each)
        return x
    return F.relu(x) if isinstance(module, nn.ReLU) else x


def _features(net: Any, video: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B, C, T', h, w), as :meth:`TCNN.features`."""
    x = (with_motion(video) if net.motion else video).permute(0, 2, 3, 4, 1).contiguous()
    return _through(_through(x, net.stem), net.blocks).permute(0, 4, 1, 2, 3)


def can_flatten(net: nn.Module) -> bool:
    """Whether it is a T-CNN and no variant with other parts in it."""
    padded = [each for each in net.modules() if isinstance(each, nn.Conv3d) and each.padding_mode != "zeros"]
    blocks = isinstance(net, TCNN) and all(type(each) is Block for each in net.blocks)
    return type(net) is TCNN and blocks and not padded


def flatten(net: Any) -> Any:
    """The same network and weights, its features computed so."""
    net.features = partial(_features, net)
    return net


def _furthest(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest difference of two lists of tensors, each relative to its largest value."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-9)) for a, b in pairs)


def main() -> None:
    torch.manual_seed(0)
    for name in ("tcnn", "tcnn_16", "tcnn_local", "tcnn_s", "tcnn_xs", "tcnn_xs_local"):
        for changes in ({}, {"motion": True, "every_frame": True}):
            net = BACKBONES[name](5, width=0.25, **changes).double().train()
            nets = net, flatten(deepcopy(net))
            video = torch.randn(2, 3, 16, 64, 64, dtype=torch.float64)
            features = [each.features(video) for each in nets]
            for each in features:
                (each * torch.linspace(0, 1, each.numel()).view_as(each)).sum().backward()
            weights = [[each.grad for each in net.parameters() if each.grad is not None] for net in nets]
            norms = [[each for each in net.buffers() if each.is_floating_point()] for net in nets]
            off = [
                _furthest([features[0].detach()], [features[1].detach()]),
                _furthest(*weights),
                _furthest(*norms),
            ]
            print(
                f"{name} {changes}: features, gradients and batch norms differ by "
                + ", ".join(f"{each:.0e}" for each in off)
            )


if __name__ == "__main__":
    main()
