"""TSM, the temporal shift module: frames meet by handing an eighth of their channels to each neighbour.

Lin, Gan and Han, "TSM: temporal shift module for efficient video understanding", ICCV 2019, Sec. 3 and 4 (residual
shift, 1/8 of the channels each way). In every block the residual branch, not the shortcut, sees the shifted input
(``shift_div=8``, place ``blockres`` of the public code, mit-han-lab/temporal-shift-module)::

    channels      first eighth    second eighth    the other six
    frame t gets  from t + 1      from t - 1       its own          zeros beyond the clip's ends

A shift has no parameters and no multiply-adds: names and cost are ResNet-50's. The prediction is the mean of the
frames' class scores, as in TSN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.model.backbones.tsn import TSN

SHIFT_DIV = 8


def shift(x: Tensor, frames: int, div: int = SHIFT_DIV) -> Tensor:
    """Move C // div channels of (B T, C, H, W) one frame back in time and as many one frame on; zeros come in.

    The frames of a clip follow one another; ``frames`` is T.
    """
    # Channels last, as they lie in memory: what is put together here need not be copied for the convolution.
    clips = x.permute(0, 2, 3, 1).unflatten(0, (-1, frames))  # (B, T, H, W, C)
    moved = clips.shape[-1] // div
    # Split before anything is cut in time: the way back is then one concatenation, not a full tensor for every part.
    first, second, rest = clips.split((moved, moved, clips.shape[-1] - 2 * moved), dim=-1)
    from_next = F.pad(first[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    from_previous = F.pad(second[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    shifted = torch.cat((from_next, from_previous, rest), dim=-1)
    return shifted.flatten(0, 1).permute(0, 3, 1, 2)


class TSM(TSN):
    """ResNet-50 with shifts: 24 M parameters, 32.7 G multiply-adds at 8 x 224 x 224, stride 32."""

    def __init__(self, num_classes: int, width: float = 1.0, dropout: float = 0.5, **options: Any) -> None:
        super().__init__(num_classes, width, dropout, **options)

    def enter(self, x: Tensor, frames: int) -> Tensor:
        """The shifted input of a block: (B T, C, H, W) -> the same shape."""
        return shift(x, frames)
