"""What the video networks here have in common: features, then pooling, then one linear classifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from peakzoom.model.geometry import CellGeometry
from peakzoom.model.pooling import drop_channels, gather, score, terms
from peakzoom.utils.errors import UserError


class VideoNetwork(nn.Module):
    """A :class:`~peakzoom.model.geometry.Backbone` that is also a classifier by itself.

    A subclass calls :meth:`classify` and defines :meth:`features`. Its constructor takes these, and what its own
    docstring names; left alone, they give the network as it was published.

    Args:
        num_classes: S.
        width: factor on all channels, rounded to multiples of 8.
        dropout: probability before the classifier.
        max_stride: spatial strides that would take the feature cells more pixels apart than this are left out, so that
            small inputs keep enough cells.
    """

    cells: CellGeometry  # where the feature cells sit in the input
    num_features: int  # channels C of the features
    dropout: nn.Module
    fc: nn.Linear
    pool: str = "mean"  # of the cells of a class map, see peakzoom.model.pooling
    # Where every slice sees nearly all of the clip: how far apart the frames are that reach the features.
    frames_apart: int | None = None
    # Names of layers, as a regular expression, whose weights the network multiplies itself: calling them is bypassed.
    read_weights: str = ""

    def classify(
        self, num_classes: int, channels: int, dropout: float, cells: CellGeometry, pool: str = "mean"
    ) -> None:
        """Make the classifier and note where the cells look; the last call of a subclass's constructor."""
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}, expected at least 1")
        terms(pool)  # raises if it is none
        self.num_features, self.cells, self.pool = channels, cells, pool
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def checkpoint_gradients(self) -> None:
        """Spend time to save memory in training: compute parts of the network again for their gradients.

        Raises:
            UserError: the network has no such parts.
        """
        raise UserError(
            f"{type(self).__name__} has no gradient checkpointing: only the transformers have it; leave it out"
        )

    def leave_out_blocks(self, rate: float) -> bool:
        """Leave out residual blocks in training (:mod:`peakzoom.model.backbones.depth`); whether there are any.

        Args:
            rate: how often the last one is left out, from 0 to less than 1; the first never is.
        """
        return False

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, T', h, w)."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, S) of a clip, with dropout in training."""
        gathered = gather(self.features(video), self.pool)
        return score(drop_channels(gathered, self.dropout), self.fc, self.pool)


def renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Public weights by our names: each rule, a regular expression and what it becomes, applied one after the other."""

    def ours(name: str) -> str:
        for theirs, own in rules:
            name = re.sub(theirs, own, name)
        return name

    return {ours(name): value for name, value in state.items()}


def check_video(video: Tensor) -> Tensor:
    """The video itself; ValueError if it is not (B, 3, T, H, W)."""
    if video.dim() != 5 or video.shape[1] != 3:
        raise ValueError(f"video has shape {tuple(video.shape)}, expected (B, 3, T, H, W)")
    return video


def scaled(channels: int, width: float, least: int = 8) -> int:
    """Channels times ``width``, in whole multiples of ``least``, which suits vector units; at width 1 unchanged."""
    return channels if width == 1 else max(least, round(channels * width / least) * least)
