"""What the video networks here have in common: features, then global average pooling, then one linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from peakzoom.model.geometry import CellGeometry


class VideoNetwork(nn.Module):
    """A :class:`~peakzoom.model.geometry.Backbone` that is also a classifier by itself.

    A subclass calls :meth:`classify` and defines :meth:`features`.
    """

    cells: CellGeometry
    num_features: int
    dropout: nn.Module
    fc: nn.Linear

    def classify(self, num_classes: int, channels: int, dropout: float, cells: CellGeometry) -> None:
        """Make the classifier and note where the cells look; the last call of a subclass's constructor."""
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}, expected at least 1")
        self.num_features, self.cells = channels, cells
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, T', h, w)."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, S): global average pooling over (T', h, w), dropout, one fully connected layer."""
        return self.fc(self.dropout(self.features(video).mean((2, 3, 4))))


def check_video(video: Tensor) -> Tensor:
    """The video itself; ValueError if it is not (B, 3, T, H, W)."""
    if video.dim() != 5 or video.shape[1] != 3:
        raise ValueError(f"video has shape {tuple(video.shape)}, expected (B, 3, T, H, W)")
    return video


def scaled(channels: int, width: float, least: int = 8) -> int:
    """Channels times ``width``, in whole multiples of ``least``, which suits vector units; at width 1 unchanged."""
    return channels if width == 1 else max(least, round(channels * width / least) * least)
