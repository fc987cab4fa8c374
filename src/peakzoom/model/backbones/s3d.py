"""S3D: Inception-v1 whose convolutions in space and time are split into one in space and one in time.

Xie, Sun, Huang, Tu and Murphy, "Rethinking spatiotemporal feature learning: speed-accuracy trade-offs in video
classification", ECCV 2018, Fig. 6 (without gating), in the form of torchvision's ``s3d``, whose weights load by
:meth:`S3D.adapt_weights`, without torchvision.

Its padding is centred, but for the last pooling: 2 x 2 x 2 without any. So on 224 pixels the cells sit at 8, 40, ...
200, and at frames 2, 10, 18, ... The published head averages windows of 2 slices and then over the windows, so that the
first and the last slice count half. The features here are scaled so that their mean is that average: logits are the
published ones on 7 x 7 cells, and class maps are exact (Eq. 1).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from peakzoom.model.backbones.base import VideoNetwork, check_video, renamed, scaled
from peakzoom.model.backbones.i3d import MIXED, MaxPool
from peakzoom.model.geometry import CellGeometry, Three

POOLED = {"Mixed_4b": 3, "Mixed_5b": 2}  # a pooling over so many slices and cells stands before this block


def unit(
    channels_in: int, channels: int, kernel: Three = 1, stride: Three = 1, padding: Three = 0
) -> nn.Sequential:
    """Convolution, batch norm with the published eps, ReLU."""
    conv = nn.Conv3d(channels_in, channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm3d(channels, eps=0.001), nn.ReLU(inplace=True))


class Separable(nn.Module):
    """A convolution over ``size`` cells each way in space, then one over as many slices, with these strides."""

    def __init__(self, channels_in: int, channels: int, size: int, time: int = 1, space: int = 1) -> None:
        super().__init__()
        pad = size // 2
        self.space = unit(channels_in, channels, (1, size, size), (1, space, space), (0, pad, pad))
        self.time = unit(channels, channels, (size, 1, 1), (time, 1, 1), (pad, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T', H', W')."""
        return self.time(self.space(x))


class SeparableMixed(nn.Module):
    """An inception block: four branches of the same input, beside one another."""

    def __init__(self, channels_in: int, plan: Iterable[int]) -> None:
        super().__init__()
        one, reduce1, three1, reduce2, three2, pooled = plan
        self.b0 = unit(channels_in, one)
        self.b1a, self.b1b = unit(channels_in, reduce1), Separable(reduce1, three1, 3)
        self.b2a, self.b2b = unit(channels_in, reduce2), Separable(reduce2, three2, 3)
        self.b3a, self.b3b = nn.MaxPool3d(3, stride=1, padding=1), unit(channels_in, pooled)
        self.channels = one + three1 + three2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H, W)."""
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class S3D(VideoNetwork):
    """S3D: 8.3 M parameters, 18.0 G multiply-adds at 16 x 224 x 224, stride 32.

    On an odd number of slices or cells the last pooling takes the last one alone; torchvision's leaves it out.
    """

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.2, max_stride: int = 32
    ) -> None:
        super().__init__()
        stem, channels = scaled(64, width), scaled(192, width)
        step = CellGeometry((1, 1, 1)).step(2, max_stride)
        cells = CellGeometry((1, 1, 1)).then(7, (2, step, step), 3)

        def pool(time: int, size: int) -> nn.Module:
            nonlocal cells
            space, depth = cells.step(2, max_stride), size if time > 1 else 1
            kernel, stride, padding = (
                (depth, size, size),
                (time, space, space),
                (depth // 3, size // 3, size // 3),
            )
            cells = cells.then(kernel, stride, padding)
            return nn.MaxPool3d(kernel, stride, padding) if size == 3 else MaxPool(kernel, stride)

        stages: list[nn.Module] = [Separable(3, stem, 7, 2, step), pool(1, 3), unit(stem, stem)]
        stages += [Separable(stem, channels, 3), pool(1, 3)]
        for name, plan in MIXED.items():
            if name in POOLED:
                stages.append(pool(2, POOLED[name]))
            block = SeparableMixed(channels, [scaled(each, width) for each in plan])
            stages.append(block)
            channels = block.channels
        self.stages = nn.Sequential(*stages)
        self.classify(num_classes, channels, dropout, cells)

    def features(self, video: Tensor) -> Tensor:
        """Features of the last block, weighted as above: (B, 3, T, H, W) float -> (B, C, T / 8, h, w), rounded up."""
        x = self.stages(check_video(video).contiguous(memory_format=torch.channels_last_3d))
        slices = x.shape[2]
        if slices < 3:  # one window, or none
            return x
        windows = [1, *[2] * (slices - 2), 1]  # of 2 slices, that a slice is in
        weight = torch.tensor(windows, dtype=x.dtype, device=x.device) * (slices / (2 * (slices - 1)))
        return x * weight[:, None, None]

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision as they are called here: its classifier, a 1 x 1 x 1 convolution, becomes ``fc``."""
        adapted = renamed(state, RENAMED)
        if "fc.weight" in adapted:
            adapted["fc.weight"] = adapted["fc.weight"].flatten(1)  # (S, C, 1, 1, 1) -> (S, C)
        return adapted


RENAMED = (
    (r"^classifier\.1\.", "fc."),
    (r"^features\.(0|3)\.0\.", r"stages.\1.space."),
    (r"^features\.(0|3)\.1\.", r"stages.\1.time."),
    (r"^features\.", "stages."),
    (r"\.branch0\.", ".b0."),
    (r"\.branch([12])\.0\.", r".b\1a."),
    (r"\.branch([12])\.1\.0\.", r".b\1b.space."),
    (r"\.branch([12])\.1\.1\.", r".b\1b.time."),
    (r"\.branch3\.1\.", ".b3b."),
)
