"""ViViT, model 1: patches of 2 frames x 16 x 16 pixels and a class token, all of them attending to all.

Arnab, Dehghani, Heigold, Sun, Lucic and Schmid, "ViViT: a video vision transformer", ICCV 2021; the code of Hugging
Face's ``transformers`` (an extra), whose published weights load.

Its classifier reads the class token. A feature is what that read of a patch in the last block
(:mod:`peakzoom.model.backbones.reading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from peakzoom.model.backbones.base import renamed
from peakzoom.model.backbones.patches import HEAD, PATCH, PatchNetwork
from peakzoom.model.backbones.reading import fast_gelu_gate, shared_block, shared_norm, taken
from peakzoom.utils.extras import needed_for


class ViViT(PatchNetwork):
    """The base network; for one number of frames and one size, whose positions it knows.

    Args:
        num_classes: S.
        width: factor on the number of heads, and so on all channels.
        dropout: probability before the classifier.
        max_stride: feature cells are 16 pixels apart, and cannot be nearer.
        frames: T, even.
        size: H and W in pixels, a multiple of 16.
        layers: number of blocks.

    Raises:
        UserError: frames or size of which no patches can be made, or cells that are to be nearer.
    """

    branch_ends = ("dropout",)

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        frames: int = 32,
        size: int = 224,
        layers: int = 12,
    ) -> None:
        super().__init__("vivit", frames, size, max_stride)
        with needed_for("vivit"):
            from transformers import VivitConfig, VivitModel
        heads = max(1, round(12 * width))
        self.body = VivitModel(
            VivitConfig(
                image_size=size,
                num_frames=frames,
                tubelet_size=[self.tubelet, PATCH, PATCH],
                hidden_size=HEAD * heads,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * HEAD * heads,
            ),
            add_pooling_layer=False,
        )
        self.read_weights = rf"^body\.layers\.{len(self.body.layers) - 1}\.attention\.o_proj$"
        self.classify_patches(num_classes, HEAD * heads, dropout)

    def blocks(self) -> Sequence[nn.Module]:
        """See the base class."""
        found: nn.ModuleList = self.body.layers[:-1]
        return list(found)

    def features(self, video: Tensor) -> Tensor:
        """What the class token read of every patch: (B, 3, T, H, W) float -> (B, C, T / 2, H / 16, W / 16)."""
        *layers, last = self.body.layers
        tokens = self.body.embeddings(self.frames_first(video))  # (B, 1 + N, C)
        for layer in layers:
            tokens = layer(tokens)
        shares = self._read(last, tokens)
        shares = shared_block(shares, last.layernorm_after, last.mlp.fc1, fast_gelu_gate, last.mlp.fc2)
        shares = shared_norm(shares, self.body.layernorm)
        return self.cells_of(shares)

    def _read(self, layer: Any, tokens: Tensor) -> Tensor:
        """The class token after the attention of the last block, divided among the patches: (B, N, C)."""
        attention, normed = layer.attention, layer.layernorm_before(tokens)
        query = attention.q_proj(normed[:, :1]).unflatten(2, (-1, HEAD)).transpose(1, 2)  # (B, heads, 1, c)
        key, value = (
            each(normed).unflatten(2, (-1, HEAD)).transpose(1, 2)
            for each in (attention.k_proj, attention.v_proj)
        )
        weights = (query @ key.mT * HEAD**-0.5).softmax(-1)[:, :, 0]
        read = taken(weights, value, attention.o_proj)  # (B, 1 + N, C)
        rest = tokens[:, :1] + read[:, :1] + attention.o_proj.bias
        return rest + read[:, 1:] * (read.shape[1] - 1)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of ``VivitForVideoClassification`` as they are called here; of its older releases too."""
        return renamed(state, RENAMED)


RENAMED = (
    (r"^vivit\.encoder\.layer\.", "vivit.layers."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^vivit\.", "body."),
    (r"^classifier\.", "fc."),
)
