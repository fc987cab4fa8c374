"""ResNet-50 on every frame of a video: the body that TSN, TSM and TRN share.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, Table 1, with the stride on the
3 x 3 convolution of a block rather than on its first 1 x 1. Names and shapes of the parameters are those of
torchvision's ``resnet50``, so that its files load. Frames are folded into the batch and are 2-D images here; only
:meth:`FrameResNet.enter` knows which of them belong together.

At 1,000 classes it has 25,557,032 parameters and costs 4.09 G multiply-adds a frame of 224 x 224, as torchvision says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # planes and blocks of layer1 to layer4
EXPANSION = 4  # a block ends on this many times its planes


def _conv(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (which strides), 1 x 1, and a shortcut; ReLU follows every batch norm and the sum."""

    def __init__(self, channels_in: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        channels = EXPANSION * planes
        self.conv1 = _conv(channels_in, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, channels, 1)
        self.bn3 = nn.BatchNorm2d(channels)
        # As torchvision does; the first block of layer1 has one for its channels alone.
        self.downsample = (
            nn.Sequential(_conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))
            if stride != 1 or channels_in != channels
            else None
        )

    def forward(self, x: Tensor, entering: Tensor) -> Tensor:
        """(N, C_in, H, W) for the shortcut and the same shape for the residual branch -> (N, C, H', W')."""
        y = F.relu(self.bn1(self.conv1(entering)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class FrameResNet(VideoNetwork):
    """ResNet-50 with the frames in the batch; a subclass says how frames meet.

    Args:
        num_classes: S.
        width: factor on all channels, rounded to multiples of 8.
        dropout: probability before the classifier.
        max_stride: strides that would take the cells further apart than this many pixels are left out.
    """

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.5, max_stride: int = 32
    ) -> None:
        super().__init__()
        cells = CellGeometry((1, 1, 1))

        def stride(of: int) -> int:
            return cells.step(of, max_stride)

        channels, step = scaled(64, width), stride(2)
        self.conv1 = _conv(3, channels, 7, step)
        self.bn1 = nn.BatchNorm2d(channels)
        cells = cells.then((1, 7, 7), (1, step, step), (0, 3, 3))
        step = stride(2)
        self.maxpool = nn.MaxPool2d(3, stride=step, padding=1)
        cells = cells.then((1, 3, 3), (1, step, step), (0, 1, 1))
        stages = []
        for index, (published, count) in enumerate(STAGES):
            planes, step, blocks = scaled(published, width), stride(2 if index else 1), []
            for number in range(count):
                blocks.append(Bottleneck(channels, planes, step if number == 0 else 1))
                channels = EXPANSION * planes
            # Windows of the 3 x 3 and of the shortcut's 1 x 1 have the same centres.
            cells = cells.then((1, 3, 3), (1, step, step), (0, 1, 1))
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.classify(num_classes, channels, dropout, cells)

    def enter(self, x: Tensor, frames: int) -> Tensor:
        """What a block's residual branch is given in place of its input x (B T, C, H, W); here x itself.

        ``frames`` is T; the frames of one clip follow one another.
        """
        return x

    def features(self, video: Tensor) -> Tensor:
        """Features of every frame: (B, 3, T, H, W) float -> (B, C, T, h, w)."""
        batch, _, frames = check_video(video).shape[:3]
        x = video.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        # Channels-last: the convolutions of oneDNN and cuDNN are fastest on it.
        x = self.conv1(x.contiguous(memory_format=torch.channels_last))
        x = self.maxpool(F.relu(self.bn1(x), inplace=True))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, self.enter(x, frames))
        return x.unflatten(0, (batch, frames)).transpose(1, 2)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the public TSN and TSM checkpoints (mit-han-lab/temporal-shift-module) as they are called here.

        There the body is ``base_model``, a shifted convolution is ``conv1.net``, the classifier is ``new_fc``, and
        data parallel training put ``module.`` before all. Torchvision's names and our own stay as they are.
        """
        return {_own_name(name): value for name, value in state.items()}


def _own_name(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("base_model.").replace(".conv1.net.", ".conv1.")
    return f"fc.{name.removeprefix('new_fc.')}" if name.startswith("new_fc.") else name
