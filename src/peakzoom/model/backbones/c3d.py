"""C3D: eight 3 x 3 x 3 convolutions with max pools between them.

Tran, Bourdev, Fergus, Torresani and Paluri, "Learning Spatiotemporal Features with 3D Convolutional Networks" (2015),
section 3. Parameter names and shapes are those of the public Caffe model and of its PyTorch copies (conv1, conv2,
conv3a, ... conv5b). Caffe's pools round up, so a last odd row, column or slice is kept; these do too.

The published head (pool5, then fc6, fc7 and fc8) looks at the whole clip at once: it has no response map of a class.
So here it is global average pooling and one fully connected layer (Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.geometry import CellGeometry


class Layer(NamedTuple):
    """One convolution, and the (time, space) factors of the max pool before it."""

    name: str
    channels: int
    pool: tuple[int, int] = (1, 1)


LAYERS = (  # Figure 3; the first pool keeps all frames so that motion is not merged too early
    Layer("1", 64),
    Layer("2", 128, (1, 2)),
    Layer("3a", 256, (2, 2)),
    Layer("3b", 256),
    Layer("4a", 512, (2, 2)),
    Layer("4b", 512),
    Layer("5a", 512, (2, 2)),
    Layer("5b", 512),
)


class C3D(VideoNetwork):
    """C3D: 27.7 M parameters without its head, 38.50 G multiply-adds at 16 x 112 x 112, stride 16.

    Args:
        batch_norm: a batch norm after each convolution. The paper has none and pre-trains on a million videos;
            eight plain layers do not learn from a small set without it.
    """

    replaced_head = ("fc6", "fc7", "fc8")  # in public weight files, without a place here

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.5,
        max_stride: int = 32,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        cells, channels = CellGeometry((1, 1, 1)), 3
        self.pools: list[tuple[int, int, int]] = []
        for layer in LAYERS:
            time, space = layer.pool
            space = cells.step(space, max_stride)
            self.pools.append((time, space, space))
            conv = nn.Conv3d(channels, scaled(layer.channels, width), 3, padding=1, bias=not batch_norm)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            channels = conv.out_channels
            self.add_module(f"conv{layer.name}", conv)
            self.add_module(f"bn{layer.name}", nn.BatchNorm3d(channels) if batch_norm else nn.Identity())
            cells = cells.then(self.pools[-1], self.pools[-1]).then(3, padding=1)
        self.classify(num_classes, channels, dropout, cells)

    def features(self, video: Tensor) -> Tensor:
        """conv5b after its ReLU: (B, 3, T, H, W) float -> (B, C, ceil(T / 8), ceil(H / 16), ceil(W / 16))."""
        x = check_video(video).contiguous(memory_format=torch.channels_last_3d)
        for layer, pool in zip(LAYERS, self.pools, strict=True):
            if pool != (1, 1, 1):
                x = F.max_pool3d(x, pool, pool, ceil_mode=True)
            x = self.get_submodule(f"conv{layer.name}")(x)
            x = F.relu(self.get_submodule(f"bn{layer.name}")(x), inplace=True)
        return x
