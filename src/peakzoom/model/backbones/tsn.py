"""TSN, temporal segment networks: an image network on every frame, and the mean of its class scores.

Wang, Xiong, Wang, Qiao, Lin, Tang and Van Gool, "Temporal segment networks: towards good practices for deep action
recognition", ECCV 2016, Sec. 3.1 (average consensus). Its frames are one of each segment of the video, which is a
matter of how clips are read; the network only averages. The classifier is linear, so the mean of the frames' scores
is the score of their mean features. (In training, the published dropout draws anew for every frame, ours once a clip.)

The image network is ResNet-50, as in TSM's tables (the paper used BN-Inception): He, Zhang, Ren and Sun, "Deep
residual learning for image recognition", CVPR 2016, Table 1, with the stride on the 3 x 3 convolution of a block
rather than on its first 1 x 1. Names and shapes of the parameters are those of torchvision's ``resnet50``, so that its
files load. Frames are folded into the batch and are 2-D images here; only :meth:`TSN.enter`, which TSM replaces, knows
which of them belong together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, renamed, scaled
from peakzoom.model.geometry import CellGeometry

RESIDUAL_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # planes and blocks of layer1 to layer4
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
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(_conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, entering: Tensor) -> Tensor:
        """(N, C_in, H, W) for the shortcut and the same shape for the residual branch -> (N, C, H', W')."""
        y = F.relu(self.bn1(self.conv1(entering)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class TSN(VideoNetwork):
    """ResNet-50 on every frame: 24 M parameters, 4.09 G multiply-adds a frame of 224 x 224, stride 32."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.8, max_stride: int = 32
    ) -> None:
        super().__init__()
        cells, channels = CellGeometry((1, 1, 1)), scaled(64, width)
        step = cells.step(2, max_stride)
        self.conv1 = _conv(3, channels, 7, step)
        self.bn1 = nn.BatchNorm2d(channels)
        cells = cells.then((1, 7, 7), (1, step, step), (0, 3, 3))
        step = cells.step(2, max_stride)
        self.maxpool = nn.MaxPool2d(3, stride=step, padding=1)
        cells = cells.then((1, 3, 3), (1, step, step), (0, 1, 1))
        stages = []
        for index, (published, count) in enumerate(RESIDUAL_STAGES):
            planes, step, blocks = scaled(published, width), cells.step(2 if index else 1, max_stride), []
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
        """Names of the public TSN and TSM checkpoints as they are called here.

        mit-han-lab/temporal-shift-module: the body is ``base_model``, a shifted convolution is ``conv1.net``, and the
        classifier is ``new_fc``. MMAction2: the body is ``backbone``, each convolution with its norm is ``conv1.conv``
        and ``conv1.bn`` (shifted ``conv1.conv.net``), and the classifier is ``cls_head.fc_cls``. Torchvision's names
        and our own stay as they are.
        """
        return renamed(state, RENAMED)


# What a name of another code becomes.
RENAMED = (
    (r"^(base_model|backbone)\.", ""),
    (r"^(new_fc|cls_head\.fc_cls)\.", "fc."),
    (r"\.net\.", "."),
    (r"(^|\.)conv(\d)\.conv\.", r"\1conv\2."),
    (r"(^|\.)conv(\d)\.bn\.", r"\1bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)
