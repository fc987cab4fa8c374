"""TRN, temporal relation network, multi-scale: small perceptrons over ordered subsets of the frames.

Zhou, Andonian, Oliva and Torralba, "Temporal relational reasoning in videos", ECCV 2018, Eq. 1-3; sizes from the
public code (zhoubolei/TRN-pytorch): frame features are reduced to 256; for every scale n = T, T - 1, ... 2, an n-frame
relation is ReLU, linear n x 256 -> 256, ReLU, linear to the classes; at most three ordered subsets a scale are drawn;
all scores are summed. The last layer of every scale is linear, so the sum is one linear layer ``fc`` on the hidden
values, summed over the subsets of a scale and put beside one another: (T - 1) x 256 features.

The published form averages each frame over its cells before it relates frames (``per_cell=False``), and then there is
no place that a class responds to. By default frames are related at every cell, with the same weights, and averaged
afterwards. Where the features do not vary over the frame, both are the same.

The body is ResNet-50, as in TSN and TSM ("on the same features"); the paper's is BN-Inception.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import scaled
from peakzoom.model.backbones.tsn import TSN
from peakzoom.model.geometry import CellGeometry
from peakzoom.utils.errors import UserError

HIDDEN = 256  # of the reduced frame features and of a relation
SUBSETS = 3  # at most, of one scale


def count_subsets(frames: int, size: int) -> int:
    """How many subsets of ``size`` of ``frames`` frames are related."""
    return min(SUBSETS, math.comb(frames, size))


def even_subsets(frames: int, size: int) -> list[tuple[int, ...]]:
    """Fixed ordered subsets, taken evenly from the list of all in dictionary order; all when there are only three.

    >>> even_subsets(3, 2)
    [(0, 1), (0, 2), (1, 2)]
    >>> even_subsets(8, 2)
    [(0, 5), (2, 4), (4, 6)]
    """
    count, total = count_subsets(frames, size), math.comb(frames, size)
    return [nth_subset(frames, size, (2 * index + 1) * total // (2 * count)) for index in range(count)]


def nth_subset(frames: int, size: int, rank: int) -> tuple[int, ...]:
    """The subset at place ``rank`` of all, without listing them: 32 frames have 600 million of size 16."""
    subset: list[int] = []
    for frame in range(frames):
        # The subsets that begin alike and go on with this frame stand before those that leave it out.
        with_it = math.comb(frames - frame - 1, size - len(subset) - 1) if len(subset) < size else 0
        if rank < with_it:
            subset.append(frame)
        else:
            rank -= with_it
    return tuple(subset)


def random_subsets(frames: int, size: int) -> list[tuple[int, ...]]:
    """As many different ordered subsets, all equally likely, from torch's default generator."""
    count = count_subsets(frames, size)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        drawn[tuple(sorted(torch.randperm(frames, device="cpu")[:size].tolist()))] = None
    return list(drawn)


class TRN(TSN):
    """ResNet-50 with relations of 2 to 16 frames: 33 M parameters, 67.0 G at 16 x 224 x 224, stride 32.

    Its cells are one slice, at the middle of the clip.

    Args:
        dropout: probability on the frame features before they are reduced, where the public code has it. One draw for
            all cells of a frame, as if they were pooled first; there is none before the classifier.
        frames: T, the number of frames of every clip, at least 2: every scale has weights of its own.
        per_cell: relate frames at every cell and pool afterwards; ``False`` pools first (published), and the value of
            the one cell that is left holds for the whole frame.
    """

    new_parts = ("reduce", "relations")  # which a public file of ResNet-50 alone does not have

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.8,
        max_stride: int = 32,
        frames: int = 16,
        per_cell: bool = True,
    ) -> None:
        super().__init__(num_classes, width, dropout, max_stride)
        if frames < 2:
            raise ValueError(f"frames is {frames}, expected at least 2: a relation is one of several frames")
        hidden = scaled(HIDDEN, width)
        self.frames, self.per_cell = frames, per_cell
        self.scales = tuple(range(frames, 1, -1))
        self.frame_dropout = nn.Dropout(dropout)
        self.dropout = nn.Identity()
        self.reduce = nn.Linear(self.num_features, hidden)
        self.relations = nn.ModuleList(nn.Linear(size * hidden, hidden) for size in self.scales)
        self.num_features = hidden * len(self.scales)
        self.fc = nn.Linear(self.num_features, num_classes)
        _, *space = self.cells.stride
        _, *offset = self.cells.offset
        self.cells = CellGeometry((frames, space[0], space[1]), ((frames - 1) / 2, offset[0], offset[1]))

    def relate(self, x: Tensor) -> Tensor:
        """Hidden values of all scales: frame features (B, C, T, h, w) -> (B, (T - 1) 256, 1, h, w)."""
        batch, channels, frames = x.shape[:3]
        if frames != self.frames:
            raise ValueError(
                f"video has {frames} frames, but this TRN was made for {self.frames}: give it frames={frames}"
            )
        x = x.permute(0, 3, 4, 2, 1)  # (B, h, w, T, C)
        if self.training:
            x = x * self.frame_dropout(x.new_ones(batch, 1, 1, frames, channels))
        x = F.relu(self.reduce(x))  # (B, h, w, T, 256)
        choose = random_subsets if self.training else even_subsets
        scales = []
        for size, relation in zip(self.scales, self.relations, strict=True):
            subsets = torch.tensor(choose(frames, size), device=x.device)  # (k, n)
            values = F.relu(relation(x[..., subsets, :].flatten(-2)))  # (B, h, w, k, 256)
            scales.append(values.sum(-2))
        return torch.cat(scales, dim=-1).permute(0, 3, 1, 2).unsqueeze(2)

    def features(self, video: Tensor) -> Tensor:
        """Relations: (B, 3, T, H, W) float -> (B, (T - 1) 256, 1, h, w), or h = w = 1 when pooled first."""
        x = super().features(video)
        return self.relate(x if self.per_cell else x.mean((3, 4), keepdim=True))

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the public code's checkpoints (zhoubolei/TRN-pytorch, ResNet-50) as they are called here.

        There ``new_fc`` reduces the frame features, and scale i is ``consensus.fc_fusion_scales.i`` with its hidden
        layer at 1 and its classifier at 3. A classifier's bias counts once for every subset of its scale. Files
        without relations are a body's: torchvision's, or those of TSN.

        Raises:
            UserError: the checkpoint is one for another number of frames.
        """
        if not any(name.startswith("consensus.") for name in state):
            return super().adapt_weights(state)
        scale = "consensus.fc_fusion_scales.{}.{}.{}"
        found = sum(name.startswith("consensus.") and name.endswith(".3.bias") for name in state)
        if found != len(self.scales):
            raise UserError(
                f"these TRN weights relate {found + 1} frames, but this TRN was made for {self.frames}: "
                f"give it frames={found + 1}"
            )
        adapted = {
            name.removeprefix("base_model."): value
            for name, value in state.items()
            if not name.startswith(("new_fc.", "consensus."))
        }
        for kind in ("weight", "bias"):
            adapted[f"reduce.{kind}"] = state[f"new_fc.{kind}"]
            for index in range(found):
                adapted[f"relations.{index}.{kind}"] = state[scale.format(index, 1, kind)]
        heads = [state[scale.format(index, 3, "weight")] for index in range(found)]
        adapted["fc.weight"] = torch.cat(heads, dim=1)
        biases = [
            state[scale.format(index, 3, "bias")] * count_subsets(self.frames, size)
            for index, size in enumerate(self.scales)
        ]
        adapted["fc.bias"] = torch.stack(biases).sum(0)
        return adapted
