"""I3D, the inflated Inception-v1 (RGB): every kernel and pooling of the image network gets a length in time.

Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset", CVPR 2017, Fig. 3.
Names and shapes of the parameters are those of the public PyTorch port (piergiaj/pytorch-i3d), except the classifier:
``logits.conv3d`` there is ``fc`` here, and :meth:`I3D.adapt_weights` translates.

Padding is TensorFlow's "SAME": as much as gives ceil(size / stride) cells, the odd one behind. It is not centred::

    7 taps, stride 2, even size      2 in front, 3 behind      cell 0 is centred on 1, not on 0
    3 taps, stride 2, even size      0 in front, 1 behind      cell 0 is centred on 1
    2 taps, stride 2, even size      0 in front, 0 behind      cell 0 is centred on 1/2

So on 224 pixels the cells sit at 23, 55, ... 215. On an odd size TensorFlow puts one more in front. Where a cell looks
would then depend on the size of the input; here what is in front stays the same and the rest goes behind, so that
``cells`` holds for every input. Both agree wherever H and W are multiples of 16 and T is one of 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry

Triple = tuple[int, int, int]  # (time, height, width)
# Channels: 1 x 1 x 1; the two of the first 3 x 3 x 3 branch; the two of the second; after the pooling.
Plan = tuple[int, int, int, int, int, int]
MIXED: dict[str, Plan] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def front(kernel: Triple, stride: Triple) -> Triple:
    """What "SAME" pads in front of each axis of an input that the strides divide."""
    time, height, width = (max(taps - step, 0) // 2 for taps, step in zip(kernel, stride, strict=True))
    return time, height, width


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zeros around (B, C, T, H, W) so that an unpadded window gives ceil(size / stride) cells on each axis."""
    amounts: list[int] = []
    for size, taps, step, before in zip(x.shape[2:], kernel, stride, front(kernel, stride), strict=True):
        behind = max((math.ceil(size / step) - 1) * step + taps - size - before, 0)
        amounts = [before, behind, *amounts]  # F.pad begins with the last axis
    return F.pad(x, amounts) if any(amounts) else x


class Unit3D(nn.Module):
    """Convolution with "SAME" padding, batch norm, ReLU."""

    def __init__(
        self, channels_in: int, channels: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels_in, channels, kernel, stride=stride, bias=False)
        nn.init.kaiming_normal_(self.conv3d.weight, mode="fan_out", nonlinearity="relu")
        # The published eps. Statistics follow at PyTorch's pace, not the port's tenth of it: short trainings need it.
        self.bn = nn.BatchNorm3d(channels, eps=0.001)
        self.kernel, self.stride = kernel, stride
        if stride == (1, 1, 1):  # odd kernels: the same on both sides, which the convolution does itself
            self.conv3d.padding = front(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T', H', W')."""
        if self.stride != (1, 1, 1):
            x = pad_same(x, self.kernel, self.stride)
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class MaxPool(nn.Module):
    """Maximum with "SAME" padding. It follows a ReLU everywhere, so a padding of zeros never wins over a cell."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W), not negative -> (B, C, T', H', W')."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """An inception block: four branches of the same input, beside one another."""

    def __init__(self, channels_in: int, plan: Iterable[int]) -> None:
        super().__init__()
        one, reduce1, three1, reduce2, three2, pooled = plan
        self.b0 = Unit3D(channels_in, one)
        self.b1a = Unit3D(channels_in, reduce1)
        self.b1b = Unit3D(reduce1, three1, (3, 3, 3))
        self.b2a = Unit3D(channels_in, reduce2)
        self.b2b = Unit3D(reduce2, three2, (3, 3, 3))
        self.b3a = nn.MaxPool3d(3, stride=1, padding=1)
        self.b3b = Unit3D(channels_in, pooled)
        self.channels = one + three1 + three2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H, W)."""
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class I3D(VideoNetwork):
    """Inception-v1 in space and time: 12.7 M parameters, 111.2 G multiply-adds at 64 x 224 x 224, stride 32."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.5, max_stride: int = 32
    ) -> None:
        super().__init__()
        cells = CellGeometry((1, 1, 1))
        stem, channels = scaled(64, width), scaled(192, width)

        def window(kernel: Triple, time: int) -> tuple[Triple, Triple]:
            nonlocal cells
            step = cells.step(2, max_stride)
            stride = (time, step, step)
            cells = cells.then(kernel, stride, front(kernel, stride))
            return kernel, stride

        def mixed(*letters: str) -> None:
            nonlocal channels
            for letter in letters:
                block = Mixed(channels, [scaled(each, width) for each in MIXED[f"Mixed_{letter}"]])
                self.add_module(f"Mixed_{letter}", block)
                channels = block.channels

        self.Conv3d_1a_7x7 = Unit3D(3, stem, *window((7, 7, 7), 2))
        self.MaxPool3d_2a_3x3 = MaxPool(*window((1, 3, 3), 1))
        self.Conv3d_2b_1x1 = Unit3D(stem, stem)
        self.Conv3d_2c_3x3 = Unit3D(stem, channels, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = MaxPool(*window((1, 3, 3), 1))
        mixed("3b", "3c")
        self.MaxPool3d_4a_3x3 = MaxPool(*window((3, 3, 3), 2))
        mixed("4b", "4c", "4d", "4e", "4f")
        self.MaxPool3d_5a_2x2 = MaxPool(*window((2, 2, 2), 2))
        mixed("5b", "5c")
        self.stages = tuple(self._modules)  # run in this order
        self.classify(num_classes, channels, dropout, cells)

    def features(self, video: Tensor) -> Tensor:
        """Features of Mixed_5c: (B, 3, T, H, W) float -> (B, C, T / 8, h, w), rounded up."""
        # Channels-last: the 3-D convolutions of oneDNN and cuDNN are fastest on it.
        x = check_video(video).contiguous(memory_format=torch.channels_last_3d)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The port's names as they are called here: its classifier, a 1 x 1 x 1 convolution, becomes ``fc``."""
        adapted = {name.replace("logits.conv3d.", "fc."): value for name, value in state.items()}
        if "fc.weight" in adapted:
            adapted["fc.weight"] = adapted["fc.weight"].flatten(1)  # (S, C, 1, 1, 1) -> (S, C)
        return adapted
