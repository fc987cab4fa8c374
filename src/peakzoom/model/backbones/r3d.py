"""R3D-18: an 18-layer ResNet whose convolutions are 3 x 3 x 3.

Tran, Wang, Torresani, Ray, LeCun and Paluri, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(2018), section 3 and Table 1: a stem, then four stages of two residual blocks, whose strides in time and space open
stages 2 to 4. Parameter names and shapes are those of torchvision's ``r3d_18``, so its published weights load, and so
are its 33,371,472 parameters and 40.70 G multiply-adds at 16 x 112 x 112 and 400 classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry

# Channels and stride, in time and space, of conv2 to conv5.
RESIDUAL_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
BLOCKS = 2  # a stage


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; ReLU follows the first batch norm and the sum."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: tuple[int, int],
        make_conv: Callable[[int, int, int, tuple[int, int]], nn.Module],
    ) -> None:
        super().__init__()
        # Section 3.5: as many channels between a spatial and a temporal convolution as give a pair the parameters of
        # the 3 x 3 x 3 convolution it stands for. torchvision's second pair has the first one's number.
        between = 27 * channels_in * channels // (9 * channels_in + 3 * channels)
        self.conv1 = nn.Sequential(
            make_conv(channels_in, between, channels, stride),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(make_conv(channels, between, channels, (1, 1)), nn.BatchNorm3d(channels))
        self.downsample: nn.Module = nn.Identity()
        if stride != (1, 1) or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(channels_in, channels, 1, stride=(stride[0], stride[1], stride[1]), bias=False),
                nn.BatchNorm3d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T', H', W')."""
        return F.relu(self.conv2(self.conv1(x)) + self.downsample(x), inplace=True)


class R3D(VideoNetwork):
    """R3D-18: 33 M parameters, 40.70 G multiply-adds at 16 x 112 x 112, stride 16."""

    frames_apart = 1

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.0, max_stride: int = 32
    ) -> None:
        super().__init__()
        channels = scaled(RESIDUAL_STAGES[0][0], width)
        step = 2 if max_stride >= 2 else 1
        self.stem = self.make_stem(channels, step)
        cells = CellGeometry((1, 1, 1)).then((3, 7, 7), (1, step, step), (1, 3, 3))
        stages: list[nn.Sequential] = []
        for published, time in RESIDUAL_STAGES:
            wide = scaled(published, width)
            space = cells.step(time, max_stride)
            blocks = [ResidualBlock(channels, wide, (time, space), self.make_conv)]
            blocks += [ResidualBlock(wide, wide, (1, 1), self.make_conv) for _ in range(BLOCKS - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = wide
            # A 1 x 3 x 3 and a 3 x 1 x 1 convolution look where a 3 x 3 x 3 one does.
            cells = cells.then(3, (time, space, space), 1)
            for _ in range(2 * BLOCKS - 1):
                cells = cells.then(3, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.classify(num_classes, channels, dropout, cells)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def make_stem(channels: int, stride: int) -> nn.Sequential:
        """One 3 x 7 x 7 convolution that keeps every frame, with batch norm and ReLU."""
        return nn.Sequential(
            nn.Conv3d(3, channels, (3, 7, 7), stride=(1, stride, stride), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )

    @staticmethod
    def make_conv(channels_in: int, between: int, channels: int, stride: tuple[int, int]) -> nn.Module:
        """A convolution over space and time at once; ``stride`` is (time, space)."""
        steps = (stride[0], stride[1], stride[1])
        return nn.Conv3d(channels_in, channels, 3, stride=steps, padding=1, bias=False)

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, ceil(T / 8), ceil(H / 16), ceil(W / 16))."""
        x = self.stem(check_video(video).contiguous(memory_format=torch.channels_last_3d))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
