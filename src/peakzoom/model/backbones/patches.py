"""What the transformers of Hugging Face's ``transformers`` (an extra) have in common: a clip is cut into patches.

Each is for one number of frames and one size, whose positions it knows, and has a body of that library's classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from peakzoom.model.backbones.base import VideoNetwork, check_video
from peakzoom.model.backbones.depth import leave_out
from peakzoom.model.geometry import CellGeometry
from peakzoom.utils.errors import UserError

PATCH = 16  # pixels of a patch's sides
HEAD = 64  # channels of an attention head


class PatchNetwork(VideoNetwork):
    """A network whose feature cells are patches of ``tubelet`` frames x 16 x 16 pixels.

    Args:
        name: in ``BACKBONES``.
        frames: T, a multiple of the tubelet.
        size: H and W in pixels, a multiple of 16.
        max_stride: feature cells are 16 pixels apart, and cannot be nearer.

    Raises:
        UserError: frames or size of which no patches can be made, or cells that are to be nearer.
    """

    tubelet = 2
    body: Any  # a model of transformers
    branch_ends: tuple[str, ...]  # names, in each block, of modules that its residual branches pass last

    def __init__(self, name: str, frames: int, size: int, max_stride: int) -> None:
        super().__init__()
        if frames < 1 or frames % self.tubelet or size < 1 or size % PATCH or max_stride < PATCH:
            number = "an even number of frames" if self.tubelet == 2 else "frames"
            raise UserError(
                f"{name} takes {number}, a size that is a multiple of {PATCH} pixels, and a max_stride of {PATCH} or "
                f"more; {frames}, {size} and {max_stride} came"
            )
        self.frames, self.size = frames, size

    def classify_patches(self, num_classes: int, channels: int, dropout: float) -> None:
        """:meth:`~peakzoom.model.backbones.base.VideoNetwork.classify` with cells where the patches are."""
        patch = (self.tubelet, PATCH, PATCH)
        self.classify(num_classes, channels, dropout, CellGeometry((1, 1, 1)).then(patch, patch, 0))

    def frames_first(self, video: Tensor) -> Tensor:
        """A clip (B, 3, T, H, W) as the body takes it, (B, T, 3, H, W); ValueError if it has another shape."""
        shape, expected = tuple(check_video(video).shape[2:]), (self.frames, self.size, self.size)
        if shape != expected:
            raise ValueError(f"clips are {shape}, expected {expected}")
        return video.transpose(1, 2)

    def cells_of(self, patches: Tensor) -> Tensor:
        """Patches in reading order, by time, (B, N, C), as features (B, C, T / tubelet, H / 16, W / 16)."""
        return patches.transpose(1, 2).unflatten(2, (self.frames // self.tubelet, self.size // PATCH, -1))

    def blocks(self) -> Sequence[nn.Module]:
        """Of the body, from first to last; without the last one where its token reads the patches in ``features``."""
        raise NotImplementedError

    def leave_out_blocks(self, rate: float) -> bool:
        """As of every network; all transformers have such blocks."""
        leave_out(self.blocks(), self.branch_ends, rate)
        return True

    def checkpoint_gradients(self) -> None:
        """Keep only what enters each block in training, and compute the block again for its gradient."""
        body = self.body  # the first name is that of newer releases
        enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
        enable()
