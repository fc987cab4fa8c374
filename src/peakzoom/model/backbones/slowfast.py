"""SlowFast 8 x 8 on ResNet-50: a wide network sees every fourth frame, a narrow one all of them and tells it of motion.

Feichtenhofer, Fan, Malik and He, "SlowFast networks for video recognition", ICCV 2019, Table 1, in the form of
facebookresearch/pytorchvideo, whose files load by :meth:`SlowFast.adapt_weights`::

    slow   every 4th frame   64 channels   kernels of 3 slices in the last two stages    8 slices of 32 frames
             ^ after the stem and stages 1 to 3: 7 slices of the fast one, every 4th
    fast   every frame        8 channels   kernels of 3 slices in all stages            32 slices

The published head takes the mean of each pathway over its own slices, and one linear classifier reads both. A mean is
linear, and stays what it is where each slow slice is repeated as often as fast ones go with it. So the features of both
beside one another have the published logits, and class maps are exact (Eq. 1).

"Every fourth" is published as ``linspace(0, T - 1, T / 4)``, rounded down: 0, 4, 8, 13, 17, 22, 26, 31 of 32, while the
fast slices that go to the slow ones are those at 0, 4, 8, ... 28. ``cells`` are those of the fast pathway, one a frame;
a slow slice stands for four of them, and the frame that it saw is at most two from their middle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, renamed, scaled
from peakzoom.model.geometry import CellGeometry

ALPHA = 4  # fast frames for a slow one
BETA = 8  # slow channels for a fast one
LATERAL = 2  # channels that go to the slow pathway, for one of the fast
BLOCKS = (3, 4, 6, 3)
CHANNELS = (64, 128, 256, 512)  # within the blocks of each stage, slow; four times as many come out
SPACE = (1, 2, 2, 2)  # strides
SLOW_TIME, FAST_TIME = (1, 1, 3, 3), (3, 3, 3, 3)  # slices of the first convolution of a block


class Stem(nn.Module):
    """Convolution, batch norm, ReLU, max pooling."""

    def __init__(self, channels: int, time: int, stride: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            3, channels, (time, 7, 7), stride=(1, stride, stride), padding=(time // 2, 3, 3), bias=False
        )
        self.norm = nn.BatchNorm3d(channels)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, pool, pool), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T, H', W')."""
        return self.pool(F.relu(self.norm(self.conv(x)), inplace=True))


class Branch(nn.Module):
    """What a block adds: time, then space with the stride, then four times as many channels."""

    def __init__(self, channels_in: int, inside: int, time: int, stride: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(channels_in, inside, (time, 1, 1), padding=(time // 2, 0, 0), bias=False)
        self.norm_a = nn.BatchNorm3d(inside)
        self.conv_b = nn.Conv3d(
            inside, inside, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        )
        self.norm_b = nn.BatchNorm3d(inside)
        self.conv_c = nn.Conv3d(inside, 4 * inside, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(4 * inside)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H', W')."""
        x = F.relu(self.norm_a(self.conv_a(x)), inplace=True)
        x = F.relu(self.norm_b(self.conv_b(x)), inplace=True)
        return self.norm_c(self.conv_c(x))


class Block(nn.Module):
    """A residual block; the first of a stage, ``opens``, has a convolution in its shortcut."""

    def __init__(self, channels_in: int, inside: int, time: int, stride: int, opens: bool) -> None:
        super().__init__()
        if opens:
            self.branch1_conv = nn.Conv3d(channels_in, 4 * inside, 1, stride=(1, stride, stride), bias=False)
            self.branch1_norm = nn.BatchNorm3d(4 * inside)
        self.opens = opens
        self.branch2 = Branch(channels_in, inside, time, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H', W')."""
        shortcut = self.branch1_norm(self.branch1_conv(x)) if self.opens else x
        return F.relu(shortcut + self.branch2(x), inplace=True)


class Pair(nn.Module):
    """The layers of both pathways at one depth."""

    def __init__(self, slow: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.slow, self.fast = slow, fast

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Both pathways' (B, C, T, H, W)."""
        return self.slow(slow), self.fast(fast)


class Fusion(nn.Module):
    """What the fast pathway tells the slow one: a convolution over 7 of its slices, every fourth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_fast_to_slow = nn.Conv3d(
            channels, LATERAL * channels, (7, 1, 1), stride=(ALPHA, 1, 1), padding=(3, 0, 0), bias=False
        )
        self.norm = nn.BatchNorm3d(LATERAL * channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """(B, C, ceil(T / 4), H, W), (B, C', T, H, W) -> (B, C + 2 C', ceil(T / 4), H, W)."""
        return torch.cat([slow, F.relu(self.norm(self.conv_fast_to_slow(fast)), inplace=True)], dim=1)


class Stage(nn.Module):
    """Pairs, and what goes from the fast pathway to the slow one behind them; nothing does behind the last stage."""

    def __init__(self, pairs: list[Pair], fast_channels: int | None) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(pairs)
        self.fusion = Fusion(fast_channels) if fast_channels else None

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Both pathways' (B, C, T, H, W)."""
        for pair in self.pairs:
            slow, fast = pair(slow, fast)
        return slow if self.fusion is None else self.fusion(slow, fast), fast


class SlowFast(VideoNetwork):
    """SlowFast 8 x 8, R50: 34.6 M parameters, 65.7 G multiply-adds at 32 x 256 x 256, stride 32."""

    def __init__(
        self, num_classes: int, width: float = 1.0, dropout: float = 0.5, max_stride: int = 32
    ) -> None:
        super().__init__()
        cells = CellGeometry((1, 1, 1))
        slow = scaled(CHANNELS[0], width)
        fast = slow // BETA
        stride = cells.step(2, max_stride)
        cells = cells.then((5, 7, 7), (1, stride, stride), (2, 3, 3))
        pool = cells.step(2, max_stride)
        cells = cells.then((1, 3, 3), (1, pool, pool), (0, 1, 1))
        stages = [Stage([Pair(Stem(slow, 1, stride, pool), Stem(fast, 5, stride, pool))], fast)]
        for index, blocks in enumerate(BLOCKS):
            inside = scaled(CHANNELS[index], width)
            into, pairs = (slow + LATERAL * fast, fast), []
            slow, fast = 4 * inside, 4 * (inside // BETA)
            for block in range(blocks):
                step = 1 if block else cells.step(SPACE[index], max_stride)
                cells = cells.then(3, (1, step, step), 1)
                first = Block(into[0], inside, SLOW_TIME[index], step, not block)
                pairs.append(Pair(first, Block(into[1], inside // BETA, FAST_TIME[index], step, not block)))
                into = slow, fast
            stages.append(Stage(pairs, fast if index + 1 < len(BLOCKS) else None))
        self.stages = nn.ModuleList(stages)
        self.classify(num_classes, slow + fast, dropout, cells)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, video: Tensor) -> Tensor:
        """Both pathways beside one another: (B, 3, T, H, W) float -> (B, C, T, ceil(H / 32), ceil(W / 32))."""
        fast = check_video(video).contiguous(memory_format=torch.channels_last_3d)
        frames = fast.shape[2]
        slow = fast[:, :, slow_frames(frames)]
        for stage in self.stages:
            slow, fast = stage(slow, fast)
        return torch.cat([repeated(slow, frames), fast], dim=1)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of pytorchvideo as they are called here; its projection becomes ``fc``."""
        return renamed(state, RENAMED)


RENAMED = (
    (r"^blocks\.6\.proj\.", "fc."),
    (r"^blocks\.0\.multipathway_blocks\.(\d)\.", r"stages.0.pairs.0.path\1."),
    (r"^blocks\.(\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d)\.", r"stages.\1.pairs.\3.path\2."),
    (r"\.path0\.", ".slow."),
    (r"\.path1\.", ".fast."),
    (r"^blocks\.(\d)\.multipathway_fusion\.", r"stages.\1.fusion."),
)


def slow_frames(frames: int) -> list[int]:
    """Those of T frames that the slow pathway sees: ceil(T / 4), spread from the first to the last."""
    count = -(-frames // ALPHA)
    return [index * (frames - 1) // max(count - 1, 1) for index in range(count)]


def repeated(slow: Tensor, frames: int) -> Tensor:
    """Slow slices once for each of T frames, with the mean that they have alone: (B, C, n, h, w) -> (B, C, T, h, w).

    Where n does not divide T, some are repeated more often than others, and count so much less.
    """
    count = slow.shape[2]
    which = [frame * count // frames for frame in range(frames)]
    if frames % count == 0:
        return slow[:, :, which]
    shares = [frames / (count * which.count(index)) for index in which]
    return slow[:, :, which] * torch.tensor(shares, dtype=slow.dtype, device=slow.device)[:, None, None]
