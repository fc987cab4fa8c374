"""T3D-121, a reconstruction: a DenseNet in space and time with layers of several temporal depths between its blocks.

Diba, Fayyaz, Sharma, Karami, Arzani, Yousefzadeh and Van Gool, "Temporal 3D ConvNets", 2017 (arXiv:1711.08200). No
weights and no cost of it are public, and the authors' code (MohsenFayyaz89/T3D) does not run. Layers, channels, kernels
and strides here are those of that code; where it leaves something open, this one decides:

- The three branches of a temporal transition layer (1 x 1 x 1, 3 x 3 x 3 and 4 x 3 x 3) have no padding there, and so
  outputs that cannot be put beside one another. Here all keep their input's size. Four slices have no middle: one is
  put in front and two behind, as TensorFlow does, so that this branch looks half a slice later than ``cells`` say.
- Its class takes one argument more than it is given; each branch has 128 channels there, which is used here.
- Its head averages 7 x 7 cells of one slice, as 32 frames have. Here it is the mean of all cells, on other sizes too.
- An average pooling of an odd size keeps the last slice or cell, which is left out there: 16 frames would have none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry

GROWTH = 32  # channels that a layer adds
BOTTLENECK = 4  # times as many within it
BLOCKS = (6, 12, 24, 16)  # layers, as in DenseNet-121
STEM, BRANCH = 64, 128
DEPTHS = (1, 3, 4)  # slices of the branches of a temporal transition layer


class DenseLayer(nn.Module):
    """Batch norm, ReLU and convolution, twice; the result goes beside the input."""

    def __init__(self, channels_in: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels_in)
        self.conv1 = nn.Conv3d(channels_in, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(BOTTLENECK * growth)
        self.conv2 = nn.Conv3d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C + growth, T, H, W)."""
        new = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.norm2(new), inplace=True))], dim=1)


class DenseBlock(nn.Module):
    """Dense layers, each of which reads what all before it gave; of one depth where learning rates go by depth."""

    def __init__(self, channels_in: int, growth: int, layers: int) -> None:
        super().__init__()
        for index in range(layers):
            self.add_module(f"layer{index}", DenseLayer(channels_in + index * growth, growth))
        self.channels = channels_in + layers * growth

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C + layers * growth, T, H, W)."""
        for layer in self.children():
            x = layer(x)
        return x


class TemporalBranch(nn.Module):
    """Batch norm, ReLU and a convolution over ``depth`` slices that keeps the size."""

    def __init__(self, channels_in: int, channels: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels_in)
        side = min(depth, 3)
        self.conv = nn.Conv3d(
            channels_in, channels, (depth, side, side), padding=(0, side // 2, side // 2), bias=False
        )
        self.front, self.behind = (depth - 1) // 2, depth // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H, W)."""
        return self.conv(F.pad(F.relu(self.norm(x), inplace=True), (0, 0, 0, 0, self.front, self.behind)))


class TemporalTransition(nn.Module):
    """Branches of several temporal depths beside one another, then DenseNet's transition, which halves the size.

    Args:
        channels_in: of the dense block before it.
        branch: channels of each branch; three times as many come out.
        space: spatial stride; the temporal one is 2.
    """

    def __init__(self, channels_in: int, branch: int, space: int) -> None:
        super().__init__()
        self.short, self.middle, self.long = (TemporalBranch(channels_in, branch, depth) for depth in DEPTHS)
        self.channels = branch * len(DEPTHS)
        self.norm = nn.BatchNorm3d(self.channels)
        self.conv = nn.Conv3d(self.channels, self.channels, 1, bias=False)
        self.stride = (2, space, space)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, ceil(T / 2), H', W')."""
        x = torch.cat([self.short(x), self.middle(x), self.long(x)], dim=1)
        x = self.conv(F.relu(self.norm(x), inplace=True))
        odd = [
            amount
            for size, step in zip(x.shape[:1:-1], self.stride[::-1], strict=True)
            for amount in (0, size % step)
        ]
        if any(odd):  # the last slice or cell once more, so that its window's mean is its own
            x = F.pad(x, odd, mode="replicate")
        return F.avg_pool3d(x, self.stride)


class T3D(VideoNetwork):
    """T3D-121, reconstructed: 29.7 M parameters, 114.3 G multiply-adds at 32 x 224 x 224, strides of 32 throughout."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.0, max_stride: int = 32
    ) -> None:
        super().__init__()
        growth, channels, branch = (scaled(each, width) for each in (GROWTH, STEM, BRANCH))
        cells = CellGeometry((1, 1, 1))
        step = cells.step(2, max_stride)
        self.conv = nn.Conv3d(3, channels, (3, 7, 7), (2, step, step), (1, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(channels)
        cells = cells.then((3, 7, 7), (2, step, step), (1, 3, 3))
        step = cells.step(2, max_stride)
        self.max_pool = nn.MaxPool3d(3, (2, step, step), 1)
        cells = cells.then(3, (2, step, step), 1)
        stages: list[nn.Module] = []
        for index, layers in enumerate(BLOCKS):
            block = DenseBlock(channels, growth, layers)
            stages.append(block)
            channels = block.channels
            if index + 1 < len(BLOCKS):
                step = cells.step(2, max_stride)
                transition = TemporalTransition(channels, branch, step)
                cells = cells.then((2, step, step), (2, step, step))
                stages.append(transition)
                channels = transition.channels
        self.stages = nn.Sequential(*stages)
        self.last_norm = nn.BatchNorm3d(channels)
        self.classify(num_classes, channels, dropout, cells)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def features(self, video: Tensor) -> Tensor:
        """Features of the last block: (B, 3, T, H, W) float -> (B, C, T / 32, H / 32, W / 32), rounded up."""
        x = check_video(video).contiguous(memory_format=torch.channels_last_3d)
        x = self.max_pool(F.relu(self.norm(self.conv(x)), inplace=True))
        return F.relu(self.last_norm(self.stages(x)), inplace=True)
