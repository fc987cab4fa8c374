"""A clip and, beside each frame, what moves in it (no paper): what the smaller T-CNNs read.

From a few hundred clips, a network learns what moves long before it learns to look past what does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# A clip's frames differ from their mean far less than scenes from one another, and at gain 1 the stem's batch norm
# buries them: held-out accuracy after 250 steps is 0.11 without, 0.10 at gain 1, 0.74 at 4 (benchmarks/results.md).
MOTION_GAIN = 4.0


def with_motion(video: Tensor) -> Tensor:
    """Beside each frame its difference from the clip's mean frame, times ``MOTION_GAIN``.

    (B, 3, T, H, W) -> (B, 6, T, H, W), the frames first, channels-last but in a graph to export.
    """
    exporting = torch.compiler.is_compiling()
    if exporting or (torch.is_grad_enabled() and video.requires_grad):
        both = torch.cat((video, MOTION_GAIN * (video - video.mean(2, keepdim=True))), dim=1)
        return both if exporting else both.contiguous(memory_format=torch.channels_last_3d)
    # Written once, where the plain expression goes over it four times: on a CPU, a third of the stem's time.
    shape = (len(video), 6, *video.shape[2:])
    both = torch.empty(shape, dtype=video.dtype, device=video.device, memory_format=torch.channels_last_3d)
    both[:, :3] = video
    still = video.mean(2, keepdim=True) * -MOTION_GAIN
    torch.add(still, video, alpha=MOTION_GAIN, out=both[:, 3:])
    return both


class _Convolved(torch.autograd.Function):
    """A 3 x 3 x 3 convolution of stride 2, padded by 1, of a clip with its motion, and its gradient in less time.

    With weights F for the frames and M for their motion, each G times the difference from the mean frame, the
    convolution is that of the clip with F + G M less that of its mean frame with G M. So is its gradient, of three
    channels rather than six. And stride 2 parts the frames' pixels by whether t, y and x are even or odd into eight
    clips of half the size; each takes its gradient from the same 2 x 2 x 2 window, so that one dense convolution
    makes all eight. It saves a tenth of a training step of recipe small. There is no second derivative.
    """

    @staticmethod
    def forward(ctx: Any, video: Tensor, weight: Tensor) -> Tensor:
        both = with_motion(video)
        result = F.conv3d(both, weight, stride=2, padding=1)
        ctx.save_for_backward(both.to(result.dtype), weight)  # of lower precision under autocast
        ctx.dtype = video.dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        both, weight = ctx.saved_tensors
        for_video = for_weight = None
        if ctx.needs_input_grad[0]:
            for_video = _towards_video(gradient, weight, both.shape[2:]).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            for_weight = torch.ops.aten.convolution_backward(
                *(gradient, both, weight.to(gradient.dtype), None, [2] * 3, [1] * 3, [1] * 3),
                *(False, [0] * 3, 1, [False, True, False]),
            )[1].to(weight.dtype)
        return for_video, for_weight


def _towards_video(gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """(B, C, T', h, w) of the result -> (B, 3, T, H, W) of the clip; ``shape`` is (T, H, W)."""
    frames, height, width = shape
    of_frames, of_motion = weight.chunk(2, dim=1)
    of_motion = of_motion * MOTION_GAIN
    # Tap k of position i reads pixel 2 i + k - 1. So pixel 2 a is read by position a alone, tap 1, and pixel 2 a + 1
    # by position a, tap 2, and by position a + 1, tap 0.
    reads = weight.new_tensor([[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]]])  # even or odd, position, tap
    windows = torch.einsum("ocijk,pxi,qyj,rzk->pqrcoxyz", of_frames + of_motion, reads, reads, reads)
    windows = windows.flatten(0, 3).to(gradient.dtype).contiguous(memory_format=torch.channels_last_3d)
    parts = F.conv3d(gradient, windows, padding=1)[:, :, 1:, 1:, 1:].unflatten(1, (2, 2, 2, -1))

    slices = 2 * torch.arange(gradient.shape[2], device=gradient.device) - 1
    beyond = [(slices + tap < 0) | (slices + tap >= frames) for tap in range(3)]  # one slice, if any
    everywhere = gradient.sum(2)
    of_mean = F.conv_transpose2d(
        torch.cat([everywhere - gradient[:, :, outside].sum(2) for outside in beyond], dim=1),
        (of_motion / frames).permute(2, 0, 1, 3, 4).flatten(0, 1).to(gradient.dtype),
        stride=2,
        padding=1,
        output_padding=1,
    )
    # (B, 3, T', 2, h, 2, w, 2), the halves of t, y and x beside what they are halves of
    of_mean = of_mean.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))[:, :, None, None]
    whole = parts.permute(0, 4, 5, 1, 6, 2, 7, 3).contiguous().sub_(of_mean)
    return whole.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, :frames, :height, :width]


def convolve_with_motion(video: Tensor, conv: nn.Conv3d) -> Tensor:
    """``conv(with_motion(video))``, (B, 3, T, H, W) -> (B, C, T', H', W').

    Where a CPU has to compute the gradient of the clip too, as for zoomed videos in training, that takes it less time
    than the two one after the other.
    """
    quick = video.requires_grad and video.device.type == "cpu" and not torch.compiler.is_compiling()
    result: Tensor = (
        _Convolved.apply(video, conv.weight) if quick and _fits(conv) else conv(with_motion(video))
    )
    return result


def _fits(conv: nn.Module) -> bool:
    """Whether it is a convolution as :class:`_Convolved` takes it."""
    return (
        type(conv) is nn.Conv3d
        and (conv.kernel_size, conv.stride, conv.padding) == ((3,) * 3, (2,) * 3, (1,) * 3)
        and (conv.dilation, conv.groups, conv.bias) == ((1,) * 3, 1, None)
        and conv.padding_mode == "zeros"
        and not (conv._forward_pre_hooks or conv._forward_hooks or conv._backward_hooks)  # it is not called
    )
