"""R(2+1)D-18: R3D-18 (r3d.py) with each convolution taken apart into a spatial and a temporal one.

Tran, Wang, Torresani, Ray, LeCun and Paluri, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(2018), section 3.5. Between the two are a batch norm and a ReLU.

Parameter names and shapes are those of torchvision's ``r2plus1d_18``, so its published weights load. At 16 x 112 x 112
and 400 classes it has 31,505,325 parameters and 40.52 G multiply-adds, which is what torchvision publishes. The
paper that this project follows prints 41.69. That fits a network where the second pair of a block that widens has the
number of channels between that section 3.5 gives for itself, not the first pair's as in torchvision: 33.4 M parameters
and 41.50 G multiply-adds, or 41.69 G with two operations for each batch-normed number and one for each ReLU.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from peakzoom.model.backbones.base import scaled
from peakzoom.model.backbones.r3d import STAGES, VideoResNet

STEM_BETWEEN = 45  # channels between the two halves of the stem, as published for 64 channels


def split_conv(channels_in: int, between: int, channels: int, stride: tuple[int, int]) -> nn.Module:
    """R(2+1)D's convolution: 1 x 3 x 3, batch norm, ReLU, 3 x 1 x 1."""
    return nn.Sequential(
        nn.Conv3d(
            channels_in, between, (1, 3, 3), stride=(1, stride[1], stride[1]), padding=(0, 1, 1), bias=False
        ),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, channels, (3, 1, 1), stride=(stride[0], 1, 1), padding=(1, 0, 0), bias=False),
    )


def split_stem(channels: int, stride: int) -> nn.Sequential:
    """R(2+1)D's stem: 1 x 7 x 7, then 3 x 1 x 1, each with batch norm and ReLU."""
    between = scaled(STEM_BETWEEN, channels / STAGES[0][0])
    return nn.Sequential(
        nn.Conv3d(3, between, (1, 7, 7), stride=(1, stride, stride), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, channels, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
    )


class R2Plus1D(VideoResNet):
    """R(2+1)D-18. Arguments and attributes as :class:`VideoResNet`, less the two that say which one it is."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.0, max_stride: int = 32
    ) -> None:
        super().__init__(num_classes, split_stem, split_conv, width, dropout, max_stride)


def r2plus1d_18(num_classes: int, **kwargs: Any) -> R2Plus1D:
    """R(2+1)D-18: 31.5 M parameters, 40.52 G multiply-adds at 16 x 112 x 112, stride 16."""
    return R2Plus1D(num_classes, **kwargs)
