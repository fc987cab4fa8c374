"""R(2+1)D-18: R3D-18 with each convolution taken apart into a spatial and a temporal one.

Tran et al. (2018), as r3d.py, section 3.5; between the two are a batch norm and a ReLU. Parameter names and shapes are
those of torchvision's ``r2plus1d_18``, so its published weights load, and so are its 31,505,325 parameters and 40.52 G
multiply-adds at 16 x 112 x 112 and 400 classes (docs/networks.md has the 41.69 G that our paper prints).
"""

from __future__ import annotations

from torch import nn

from peakzoom.model.backbones.base import scaled
from peakzoom.model.backbones.r3d import R3D, RESIDUAL_STAGES

STEM_BETWEEN = 45  # channels between the two halves of the stem, as published for 64 channels


class R2Plus1D(R3D):
    """R(2+1)D-18: 31.5 M parameters, 40.52 G multiply-adds at 16 x 112 x 112, stride 16."""

    @staticmethod
    def make_stem(channels: int, stride: int) -> nn.Sequential:
        """1 x 7 x 7, then 3 x 1 x 1, each with batch norm and ReLU."""
        between = scaled(STEM_BETWEEN, channels / RESIDUAL_STAGES[0][0])
        return nn.Sequential(
            nn.Conv3d(3, between, (1, 7, 7), stride=(1, stride, stride), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, channels, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )

    @staticmethod
    def make_conv(channels_in: int, between: int, channels: int, stride: tuple[int, int]) -> nn.Module:
        """1 x 3 x 3, batch norm, ReLU, 3 x 1 x 1; ``stride`` is (time, space)."""
        time, space = stride
        return nn.Sequential(
            nn.Conv3d(
                channels_in, between, (1, 3, 3), stride=(1, space, space), padding=(0, 1, 1), bias=False
            ),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, channels, (3, 1, 1), stride=(time, 1, 1), padding=(1, 0, 0), bias=False),
        )
