"""TimeSformer: patches of one frame attend to the same place at other times, then to their own frame.

Bertasius, Wang and Torresani, "Is space-time attention all you need for video understanding?", ICML 2021, divided
attention; the code of Hugging Face's ``transformers`` (an extra), whose published weights load.

Its classifier reads a class token, which reads the patches of each frame in the last block and is averaged over the
frames. A feature is what it read of a patch (:mod:`peakzoom.model.backbones.reading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from peakzoom.model.backbones.base import renamed
from peakzoom.model.backbones.patches import HEAD, PATCH, PatchNetwork
from peakzoom.model.backbones.reading import gelu_gate, shared_block, shared_norm, taken
from peakzoom.utils.extras import needed_for


class TimeSformer(PatchNetwork):
    """The base network; for one number of frames and one size, whose positions it knows.

    Args:
        num_classes: S.
        width: factor on the number of heads, and so on all channels.
        dropout: probability before the classifier.
        max_stride: feature cells are 16 pixels apart, and cannot be nearer.
        frames: T.
        size: H and W in pixels, a multiple of 16.
        layers: number of blocks.

    Raises:
        UserError: a size of which no patches can be made, or cells that are to be nearer.
    """

    tubelet = 1
    branch_ends = ("drop_path",)

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        frames: int = 8,
        size: int = 224,
        layers: int = 12,
    ) -> None:
        super().__init__("timesformer", frames, size, max_stride)
        with needed_for("timesformer"):
            from transformers import TimesformerConfig, TimesformerModel
        heads = max(1, round(12 * width))
        self.heads = heads
        self.body = TimesformerModel(
            TimesformerConfig(
                image_size=size,
                patch_size=PATCH,
                num_frames=frames,
                hidden_size=HEAD * heads,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * HEAD * heads,
            )
        )
        self.read_weights = (
            rf"^body\.encoder\.layer\.{len(self.body.encoder.layer) - 1}\.attention\.output\.dense$"
        )
        self.classify_patches(num_classes, HEAD * heads, dropout)

    def blocks(self) -> Sequence[nn.Module]:
        """See the base class."""
        found: nn.ModuleList = self.body.encoder.layer[:-1]
        return list(found)

    def features(self, video: Tensor) -> Tensor:
        """What the class token read of every patch: (B, 3, T, H, W) float -> (B, C, T, H / 16, W / 16)."""
        *layers, last = self.body.encoder.layer
        tokens = self.body.embeddings(
            self.frames_first(video)
        )  # (B, 1 + N, C), patches by place, then by time
        for layer in layers:
            tokens = layer(tokens)[0]
        shares = self._read(last, tokens)
        shares = shared_block(
            shares, last.layernorm_after, last.intermediate.dense, gelu_gate, last.output.dense
        )
        shares = shared_norm(shares, self.body.layernorm)
        return self.cells_of(shares.unflatten(1, (-1, self.frames)).transpose(1, 2).flatten(1, 2))

    def _read(self, layer: Any, tokens: Tensor) -> Tensor:
        """The class token after the attention of the last block, divided among the patches: (B, N, C)."""
        token, patches = tokens[:, :1], tokens[:, 1:]
        by_place = patches.unflatten(1, (-1, self.frames)).flatten(0, 1)  # (B h w, T, C)
        moved = layer.temporal_attention(layer.temporal_layernorm(by_place))[0]
        patches = patches + layer.temporal_dense(moved.unflatten(0, (tokens.shape[0], -1)).flatten(1, 2))

        by_frame = patches.unflatten(1, (-1, self.frames)).transpose(1, 2).flatten(0, 1)  # (B T, h w, C)
        seen = torch.cat((token.repeat_interleave(self.frames, 0), by_frame), 1)
        qkv = layer.attention.attention.qkv(layer.layernorm_before(seen))
        query, key, value = qkv.unflatten(2, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # (B T, heads, 1 + h w, c)
        weights = (query[:, :, :1] @ key.mT * HEAD**-0.5).softmax(-1)[:, :, 0]
        project: nn.Linear = layer.attention.output.dense
        read = taken(weights, value, project)  # (B T, 1 + h w, C)
        own, of_patches = (each.unflatten(0, (-1, self.frames)) for each in (read[:, 0], read[:, 1:]))
        rest = token + own.mean(1, keepdim=True) + project.bias
        return rest + of_patches.transpose(1, 2).flatten(1, 2) * of_patches.shape[2]

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of ``TimesformerForVideoClassification`` as they are called here."""
        return renamed(state, ((r"^timesformer\.", "body."), (r"^classifier\.", "fc.")))
