"""T-CNN, the video network with temporal attention (paper, Table 1; docs/method.md, section 1).

36 convolutions in 18 pairs: a stem and 17 residual blocks. A plain convolution is 1 x 3 x 3 and sees one frame. A
"dilation convolution (d)" is 3 x 3 x 3 with dilation (d, 1, 1): it sees this frame and those d before and after it,
so which frames a stage may look at was chosen by architecture search. It is always the second of its pair.

The paper prints channels and dilations but neither kernels nor strides; docs/choices.md has the reconstruction
(15.84 G multiply-adds at 16 x 224 x 224; the paper says 15.78). So reconstructed, "only some of the frames" is meant
literally: a 1 x 3 x 3 convolution of temporal stride 2 drops every other frame, even dilations never fetch one that
was dropped, and of 16 frames the network sees 0, 4, 8 and 12. ``every_frame`` gives the convolutions that stride in
time a 3 x 3 x 3 kernel; slice t' stays centred on frame 4 t'.

The printed cost does not decide: other kernels and strides fit it as well and see all 16 frames. Two of them are here,
:func:`tcnn_16` and :func:`tcnn_local`. The smaller networks set ``every_frame`` and ``motion``
(:mod:`peakzoom.model.backbones.motion`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import VideoNetwork, check_video, scaled
from peakzoom.model.backbones.motion import convolve_with_motion
from peakzoom.model.geometry import CellGeometry


class Stage(NamedTuple):
    """A run of residual blocks of the same width.

    ``dilations`` has one entry per block: the temporal dilation of its second convolution, 0 for a plain 1 x 3 x 3.
    ``stride`` is (time, space) and is applied by the first convolution of the stage. ``inner`` has the channels between
    the two convolutions of each block; None: as many as the stage has.
    """

    channels: int
    dilations: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    inner: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """What a T-CNN is built from, beside its width.

    Attributes:
        stem: channels of its two convolutions.
        stages: what follows.
        stem_stride: in time, of the first convolution.
        every_frame: give convolutions that stride in time a 3 x 3 x 3 kernel, so that no frame is dropped unseen.
        motion: let the stem see, beside each frame, its difference from the clip's mean frame, where whatever stands
            still is gone (benchmarks/results.md has the gain on small data).
        local: the second convolution of each block sees time alone, 3 x 1 x 1: a cell then sees a part of a person
            rather than the whole.
        factored: the second convolution of each block is (2+1)D: 1 x 3 x 3, batch norm and ReLU, then 3 x 1 x 1. Every
            block sees time, by a dilation of 1 where the table has none.
        project: the shortcut of a stage's first block is a convolution even where it need not be.
    """

    stem: int
    stages: tuple[Stage, ...]
    every_frame: bool = False
    motion: bool = False
    local: bool = False
    factored: bool = False
    stem_stride: int = 2
    project: bool = False


PAPER = Plan(
    32,
    (  # Table 1, stages 2 to 7; output T x H x W for 16 x 224 x 224
        Stage(64, (0,)),  # 8 x 56 x 56
        Stage(96, (0,), (1, 2)),  # 8 x 28 x 28
        Stage(160, (0, 4, 4, 4, 0, 4), (1, 2)),  # 8 x 14 x 14
        Stage(224, (0, 2, 4), (1, 2)),  # 8 x 7 x 7
        Stage(288, (0, 2, 2, 0), (2, 1)),  # 4 x 7 x 7
        Stage(512, (0, 2)),  # 4 x 7 x 7
    ),
)


def _another_reading(*strides: tuple[int, int], **changes: bool) -> Plan:
    """The table's channels and dilations with other strides of the stages, and none in time of the stem."""
    stages = tuple(stage._replace(stride=stride) for stage, stride in zip(PAPER.stages, strides, strict=True))
    return replace(PAPER, stages=stages, stem_stride=1, **changes)


# Both have 16 slices before stage 4; outputs are 4 x 7 x 7 and 8 x 7 x 7.
PAPER_16 = _another_reading((1, 1), (1, 2), (2, 2), (1, 2), (2, 1), (1, 1), factored=True)
PAPER_LOCAL = _another_reading((1, 2), (1, 1), (2, 2), (1, 1), (1, 1), (1, 2), local=True)
S = Plan(  # half the depth and width
    24,
    (
        Stage(48, (1,)),
        Stage(80, (1, 4), (1, 2)),
        Stage(112, (0, 2, 4), (1, 2)),
        Stage(160, (0, 2), (2, 1)),
        Stage(256, (2,)),
    ),
    every_frame=True,
    motion=True,
)
XS = Plan(
    16,
    (
        Stage(32, (1,)),
        Stage(64, (1, 4), (1, 2)),
        Stage(96, (2, 4), (1, 2)),
        Stage(128, (2,), (2, 1)),
        Stage(192, (2,)),
    ),
    every_frame=True,
    motion=True,
)
LOCAL_POOL = "0.5*mean+0.5*best:2"
LOCAL_STRIDE = 8  # most pixels between local cells: a hand or a foot of a figure that fills the frame


def _frames_apart(plan: Plan) -> int:
    """How far apart the frames are that a T-CNN sees: 4 by Table 1, which leaves the others out; 1 where it sees all.

    A stride in time leaves frames out where its convolution has one tap in time, and where no dilation before it
    reaches what is left out.
    """
    if plan.every_frame or plan.motion:
        return 1
    step, reached = plan.stem_stride, list[int]()
    for stage in plan.stages:
        stride = stage.stride[0]
        if any(each % stride for each in reached):
            break
        step *= stride
        reached = [each // stride for each in reached]
        reached += [max(each, int(plan.local or plan.factored)) for each in stage.dilations]
    return step


class ConvBN(nn.Sequential):
    """Convolution and batch norm: 1 x 3 x 3, or 3 x 3 x 3 dilated in time, or the 1 x 1 x 1 of a shortcut.

    ``dilation`` 0 is a plain 1 x 3 x 3; ``stride`` is (time, space); ``kernel`` is the side in space.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 0,
        kernel: int = 3,
    ) -> None:
        time = 3 if dilation else 1
        conv = nn.Conv3d(
            channels_in,
            channels,
            (time, kernel, kernel),
            stride=(stride[0], stride[1], stride[1]),
            padding=(dilation, kernel // 2, kernel // 2),
            dilation=(max(dilation, 1), 1, 1),
            bias=False,
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm3d(channels))


class MotionConvBN(ConvBN):
    """The first of a network that sees motion: of six channels, which it makes of a clip's three."""

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T', H', W')."""
        conv: Any
        conv, norm = self
        return norm(convolve_with_motion(video, conv))


def _time_alone(channels_in: int, channels: int, dilation: int) -> ConvBN:
    """3 x 1 x 1."""
    return ConvBN(channels_in, channels, dilation=max(dilation, 1), kernel=1)


class Place(NamedTuple):
    """Where a block stands: channels before it, between its convolutions and after it; whether it opens a stage."""

    channels_in: int
    inner: int
    channels: int
    opens: bool


class Block(nn.Module):
    """Two convolutions and a shortcut; ReLU follows the first batch norm and the sum."""

    def __init__(self, place: Place, stride: tuple[int, int], dilation: int, plan: Plan) -> None:
        super().__init__()
        channels_in, inner, channels, opens = place
        self.conv1 = ConvBN(channels_in, inner, stride, dilation=int(plan.every_frame and stride[0] > 1))
        self.conv2: nn.Module
        if plan.factored:
            space, relu = ConvBN(inner, inner), nn.ReLU(inplace=True)
            self.conv2 = nn.Sequential(space, relu, _time_alone(inner, channels, dilation))
        elif plan.local:
            self.conv2 = _time_alone(inner, channels, dilation)
        else:
            self.conv2 = ConvBN(inner, channels, dilation=dilation)
        same = channels_in == channels and stride == (1, 1) and not (plan.project and opens)
        self.shortcut = nn.Identity() if same else ConvBN(channels_in, channels, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T', H', W')."""
        y: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        # In place, as the ReLUs and as in most ResNets: look at the block, not at its parts, for what it computes.
        return F.relu(y.add_(self.shortcut(x)), inplace=True)


class TCNN(VideoNetwork):
    """The temporal network of Table 1.

    Args:
        plan: what it is built from; Table 1 when not given.
        pool: of the cells of a class map (:mod:`peakzoom.model.pooling`).
        changes: fields of the plan that are to be otherwise.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.5,
        plan: Plan = PAPER,
        max_stride: int = 32,
        pool: str = "mean",
        **changes: Any,
    ) -> None:
        super().__init__()
        plan = replace(plan, **changes)
        channels, first = scaled(plan.stem, width), MotionConvBN if plan.motion else ConvBN
        self.stem = nn.Sequential(
            first(
                6 if plan.motion else 3,
                channels,
                (plan.stem_stride, 2),
                dilation=int(plan.every_frame and plan.stem_stride > 1),
            ),
            nn.ReLU(inplace=True),
            ConvBN(channels, channels, (1, 2)),
            nn.ReLU(inplace=True),
        )
        # An odd kernel padded by half its length leaves cell 0 on input pixel 0; only strides add up.
        cells = self.stem_cells = CellGeometry((plan.stem_stride, 4, 4))
        stages, blocks = [], []
        for stage in plan.stages:
            time, space = stage.stride[0], cells.step(stage.stride[1], max_stride)
            cells = cells.then(1, (time, space, space))
            wide = scaled(stage.channels, width)
            between = tuple(
                scaled(each, width) for each in stage.inner or (stage.channels,) * len(stage.dilations)
            )
            for index, (dilation, inner) in enumerate(zip(stage.dilations, between, strict=True)):
                step = (time, space) if index == 0 else (1, 1)
                blocks.append(Block(Place(channels, inner, wide, index == 0), step, dilation, plan))
                channels = wide
            stages.append(Stage(wide, stage.dilations, (time, space), between))
        self.blocks = nn.Sequential(*blocks)
        self.motion = plan.motion
        self.frames_apart = _frames_apart(plan)
        self.plan = replace(plan, stem=scaled(plan.stem, width), stages=tuple(stages))  # as it is built
        self.classify(num_classes, channels, dropout, cells, pool)

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, T', h, w)."""
        return self.blocks(self.stem_features(video))

    def stem_features(self, video: Tensor) -> Tensor:
        """What the stem alone sees, in cells as of ``stem_cells``: (B, 3, T, H, W) float -> (B, K, T'', h', w')."""
        video = check_video(video)
        if not self.motion:  # channels-last: the 3-D convolutions of oneDNN and cuDNN are fastest on it
            video = video.contiguous(memory_format=torch.channels_last_3d)
        return self.stem(video)


def tcnn(num_classes: int, **kwargs: Any) -> TCNN:
    """The paper's network: 31 M parameters, 15.84 G multiply-adds at 16 x 224 x 224, stride 32."""
    return TCNN(num_classes, **kwargs)


def tcnn_16(num_classes: int, **kwargs: Any) -> TCNN:
    """Another reading of Table 1, which sees all 16 frames: 23.5 M parameters, 15.76 G at 16 x 224 x 224, stride 32."""
    return TCNN(num_classes, **{"plan": PAPER_16, **kwargs})


def tcnn_local(num_classes: int, **kwargs: Any) -> TCNN:
    """A third reading, which sees all 16 frames and parts of a person: 13 M parameters, 15.82 G, stride 32."""
    return TCNN(num_classes, **{"plan": PAPER_LOCAL, **kwargs})


def tcnn_s(num_classes: int, **kwargs: Any) -> TCNN:
    """Half the depth and width, stride 16, sees every frame and motion: 8 x 8 cells on 128 pixels."""
    return TCNN(num_classes, **{"plan": S, **kwargs})


def tcnn_xs(num_classes: int, **kwargs: Any) -> TCNN:
    """For CPUs and small data, stride 16, sees every frame and motion: 6 x 6 cells on 96 pixels."""
    return TCNN(num_classes, **{"plan": XS, **kwargs})


def _local(plan: Plan, num_classes: int, max_stride: int = LOCAL_STRIDE, **kwargs: Any) -> TCNN:
    """A small T-CNN whose class maps are high where the action is (benchmarks/results.md has what each part does).

    A cell sees a part of a person, cells lie close together, and the best two of a slice count as much as all.
    """
    options = {"plan": replace(plan, local=True), "pool": LOCAL_POOL, **kwargs}
    return TCNN(num_classes, max_stride=min(max_stride, LOCAL_STRIDE), **options)


def tcnn_s_local(num_classes: int, **kwargs: Any) -> TCNN:
    """:func:`tcnn_s` with local cells: 16 x 16 of them on 128 pixels."""
    return _local(S, num_classes, **kwargs)


def tcnn_xs_local(num_classes: int, **kwargs: Any) -> TCNN:
    """:func:`tcnn_xs` with local cells: 12 x 12 of them on 96 pixels."""
    return _local(XS, num_classes, **kwargs)
