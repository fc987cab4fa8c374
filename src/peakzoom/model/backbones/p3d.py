"""P3D-199: a ResNet-152 whose bottlenecks hold a spatial (S, 1 x 3 x 3) and a temporal (T, 3 x 1 x 1) convolution.

Qiu, Yao and Mei, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks" (2017), section 3.

Three kinds of bottleneck take turns through the first three stages (Figure 3)::

    A: T(S(x))      B: S(x) + T(x)      C: S(x) + T(S(x))

The last stage is two-dimensional and sees the slices one by one. A max pool halves time before the first stage and
after each of the first three.

Parameter names and shapes are those of the public PyTorch code (qijiezhao/pseudo-3d-pytorch), whose weights were
converted from the authors' Caffe model. Where the two compute different things, this file does what the authors'
model description (deploy_p3d_resnet_kinetics.prototxt) says, because the weights were trained in it: the first pool
has no padding in front and rounds up, in B and C the ReLU of T follows the sum, and C halves its sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry

# Channels inside, blocks, spatial stride.
RESIDUAL_STAGES = ((64, 3, 1), (128, 8, 2), (256, 36, 2), (512, 3, 2))
EXPANSION = 4  # a bottleneck's channels out over those inside
KINDS = "ABC"


class Bottleneck(nn.Module):
    """A P3D bottleneck; ReLU follows each batch norm except where two ways are summed.

    Its two 1 x 1 x 1 convolutions have ``inside`` channels between them; the first has the spatial stride. The
    ``first`` of a stage has a convolution in its shortcut.
    """

    def __init__(self, channels_in: int, inside: int, stride: int, first: bool, kind: str) -> None:
        super().__init__()
        step, out = (1, stride, stride), EXPANSION * inside
        self.kind = kind
        self.conv1 = nn.Conv3d(channels_in, inside, 1, stride=step, bias=False)
        self.bn1 = nn.BatchNorm3d(inside)
        self.conv2 = nn.Conv3d(inside, inside, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(inside)
        self.conv3 = nn.Conv3d(inside, inside, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.bn3 = nn.BatchNorm3d(inside)
        self.conv4 = nn.Conv3d(inside, out, 1, bias=False)
        self.bn4 = nn.BatchNorm3d(out)
        self.downsample: nn.Module = nn.Identity()
        if first:
            self.downsample = nn.Sequential(
                nn.Conv3d(channels_in, out, 1, stride=step, bias=False), nn.BatchNorm3d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H', W')."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        space = F.relu(self.bn2(self.conv2(y)), inplace=True)
        time = self.bn3(self.conv3(y if self.kind == "B" else space))
        if self.kind == "A":
            y = time
        elif self.kind == "B":
            y = space + time
        else:
            y = (space + time) / 2
        y = self.bn4(self.conv4(F.relu(y, inplace=True)))
        return F.relu(y + self.downsample(x), inplace=True)


class FlatBottleneck(nn.Module):
    """The two-dimensional bottleneck of the last stage; arguments as :class:`Bottleneck`."""

    def __init__(self, channels_in: int, inside: int, stride: int, first: bool) -> None:
        super().__init__()
        out = EXPANSION * inside
        self.conv1 = nn.Conv2d(channels_in, inside, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv_normal = nn.Conv2d(inside, inside, 3, padding=1, bias=False)
        self.bn_normal = nn.BatchNorm2d(inside)
        self.conv4 = nn.Conv2d(inside, out, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H', W')."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn_normal(self.conv_normal(y)), inplace=True)
        return F.relu(self.bn4(self.conv4(y)) + self.downsample(x), inplace=True)


class P3D(VideoNetwork):
    """P3D-199: 66 M parameters, 18.40 G multiply-adds at 16 x 160 x 160, stride 32."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.5, max_stride: int = 32
    ) -> None:
        super().__init__()
        cells, channels = CellGeometry((1, 1, 1)), scaled(RESIDUAL_STAGES[0][0], width)
        step = cells.step(2, max_stride)
        stem = (1, step, step)
        self.conv1_custom = nn.Conv3d(3, channels, (1, 7, 7), stride=stem, padding=(0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        cells = cells.then((1, 7, 7), stem, (0, 3, 3))
        step = cells.step(2, max_stride)  # a pool without its stride pools in time alone
        pool, window = (2, step, step), 3 if step == 2 else 1
        # Rounding up, as Caffe does, keeps an odd last frame and the only slice of a short clip.
        self.maxpool = nn.MaxPool3d((2, window, window), pool, ceil_mode=True)
        self.maxpool_2 = nn.MaxPool3d((2, 1, 1), (2, 1, 1), ceil_mode=True)
        cells = cells.then((2, window, window), pool)
        stages: list[nn.Sequential] = []
        count = 0
        for index, (published, blocks, stride) in enumerate(RESIDUAL_STAGES):
            inside, last = scaled(published, width), index == len(RESIDUAL_STAGES) - 1
            step = cells.step(stride, max_stride)
            # The 3 x 3 convolutions are padded by 1 and stand on their middle: only strides and pools move cells.
            cells = cells.then(1, (1, step, step))
            if not last:
                cells = cells.then((2, 1, 1), (2, 1, 1))
            stage: list[nn.Module] = []
            for first in [True] + [False] * (blocks - 1):
                inputs = channels, inside, step if first else 1, first
                stage.append(FlatBottleneck(*inputs) if last else Bottleneck(*inputs, KINDS[count % 3]))
                channels, count = EXPANSION * inside, count + 1
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.classify(num_classes, channels, dropout, cells)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, ceil(T / 16), h, w); h is 5 for H = 160."""
        x = check_video(video).contiguous(memory_format=torch.channels_last_3d)
        x = self.maxpool(F.relu(self.bn1(self.conv1_custom(x)), inplace=True))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = self.maxpool_2(stage(x))
        slices = x.shape[2]
        x = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (B T', C, h, w)
        return self.layer4(x).unflatten(0, (-1, slices)).transpose(1, 2)
