"""Where cells look, asked of whole convolutional networks: a lit patch is answered loudest by the cell next to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from peakzoom.model.backbones import BACKBONES, VideoNetwork

NETWORKS = ["s3d", "slowfast_r50", "t3d", "res3d", "i3d"]


@torch.no_grad()
def looking(name: str, max_stride: int) -> VideoNetwork:
    """Batch norms do nothing; every convolution is a small mean around its middle, so that a cell's loudest input is
    the middle of what it sees."""
    network = BACKBONES[name](2, width=1 / 32, max_stride=max_stride).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            weight = torch.ones_like(module.weight)
            for axis, taps in enumerate(module.kernel_size):
                away = torch.arange(taps, dtype=weight.dtype) - (taps - 1) / 2
                weight *= (-away.square()).exp().view([-1 if at == axis + 2 else 1 for at in range(5)])
            module.weight.copy_(weight / weight[0].sum())
        elif isinstance(module, nn.BatchNorm3d):
            module.running_var.fill_(1 - module.eps)
    return network


def loudest(line: Tensor) -> float:
    """Index of the largest of the cells of a line; the middle of those that are as large, as max pools make them."""
    return float((line >= (1 - 1e-9) * line.max()).nonzero().double().mean())


@pytest.mark.parametrize(("max_stride", "axis"), [(8, 1), (8, 2), (16, 2), (32, 1)])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_moved_patch_s_peak_lies_within_half_a_cell(name: str, max_stride: int, axis: int) -> None:
    network = looking(name, max_stride)
    stride, offset = network.cells.stride[axis], network.cells.offset[axis]
    shape = [4, 32, 32]
    shape[axis] = 10 * stride
    for middle in torch.linspace(3.2, 6.3, 5).mul(stride).add(offset).round().int().tolist():
        video = torch.zeros(1, 3, *shape, dtype=torch.float64)
        video.narrow(2 + axis, middle - 2, 5).fill_(1)
        line = network.features(video).sum([at for at in range(5) if at != 2 + axis])
        peak = offset + stride * loudest(line)
        assert abs(peak - middle) <= stride / 2 + 1, (middle, peak)


@pytest.mark.parametrize("name", ["s3d", "t3d"])
@torch.no_grad()
def test_and_in_time(name: str) -> None:
    network = looking(name, 32)
    stride, offset = network.cells.stride[0], network.cells.offset[0]
    for middle in torch.linspace(2.2, 4.3, 4).mul(stride).add(offset).round().int().tolist():
        video = torch.zeros(1, 3, 6 * stride, 32, 32, dtype=torch.float64)
        video[:, :, middle - 1 : middle + 2] = 1
        peak = offset + stride * loudest(network.features(video).sum((0, 1, 3, 4)))
        assert abs(peak - middle) <= stride / 2 + 1, (middle, peak)
