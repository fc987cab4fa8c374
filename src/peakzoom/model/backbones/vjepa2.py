"""V-JEPA 2: a plain vision transformer over patches of 2 frames x 16 x 16 pixels, read by one query.

Assran et al., "V-JEPA 2: self-supervised video models enable understanding, prediction and planning", 2025; the code of
Hugging Face's ``transformers`` (an extra), whose published weights load. Positions turn queries and keys (rotary).

Above the encoder stand the attentive pooler's own blocks over all patches, and then a query that reads them. A feature
is what that query read of a patch (:mod:`peakzoom.model.backbones.reading`). The predictor that the encoder was trained
with has no part in classifying and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from peakzoom.model.backbones.base import renamed
from peakzoom.model.backbones.patches import HEAD, PATCH, PatchNetwork
from peakzoom.model.backbones.reading import gelu_gate, shared_block, taken
from peakzoom.utils.extras import needed_for


class VJEPA2(PatchNetwork):
    """ViT-L with the attentive pooler; for one number of frames and one size.

    Args:
        num_classes: S.
        width: factor on the number of heads, and so on all channels.
        dropout: probability before the classifier.
        max_stride: feature cells are 16 pixels apart, and cannot be nearer.
        frames: T, even.
        size: H and W in pixels, a multiple of 16.
        layers: number of the encoder's blocks.

    Raises:
        UserError: frames or size of which no patches can be made, or cells that are to be nearer.
    """

    replaced_head = ("predictor",)
    branch_ends = ("drop_path",)

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        frames: int = 16,
        size: int = 256,
        layers: int = 24,
    ) -> None:
        super().__init__("vjepa2_l", frames, size, max_stride)
        with needed_for("vjepa2_l"):
            from transformers import VJEPA2Config, VJEPA2ForVideoClassification
        heads = max(1, round(16 * width))
        self.body = VJEPA2ForVideoClassification(
            VJEPA2Config(
                crop_size=size,
                patch_size=PATCH,
                frames_per_clip=frames,
                tubelet_size=self.tubelet,
                hidden_size=HEAD * heads,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                pred_hidden_size=HEAD,  # of the predictor, which goes
                pred_num_attention_heads=1,
                pred_num_hidden_layers=1,
            )
        )
        del self.body.vjepa2.predictor, self.body.classifier
        self.classify_patches(num_classes, HEAD * heads, dropout)

    def blocks(self) -> Sequence[nn.Module]:
        """See the base class."""
        found: nn.ModuleList = self.body.vjepa2.encoder.layer
        return list(found)

    def features(self, video: Tensor) -> Tensor:
        """What the pooler's query read of every patch: (B, 3, T, H, W) float -> (B, C, T / 2, H / 16, W / 16)."""
        pooler = self.body.pooler
        tokens = self.body.vjepa2.encoder(self.frames_first(video)).last_hidden_state  # (B, N, C)
        for layer in pooler.self_attention_layers:
            tokens = layer(tokens, attention_mask=None)[0]
        last = pooler.cross_attention_layer
        shares = self._read(last, tokens)
        shares = shared_block(shares, last.layer_norm2, last.mlp.fc1, gelu_gate, last.mlp.fc2)
        return self.cells_of(shares)

    def _read(self, layer: Any, tokens: Tensor) -> Tensor:
        """The query after it has read the patches, divided among them: (B, N, C)."""
        attention, normed = layer.cross_attn, layer.layer_norm1(tokens)
        query = self.body.pooler.query_tokens.repeat(tokens.shape[0], 1, 1)
        asked = attention.q_proj(query).unflatten(2, (-1, HEAD)).transpose(1, 2)  # (B, heads, 1, c)
        key, value = (
            each(normed).unflatten(2, (-1, HEAD)).transpose(1, 2)
            for each in (attention.k_proj, attention.v_proj)
        )
        weights = (asked @ key.mT * HEAD**-0.5).softmax(-1)[:, :, 0]
        return query + taken(weights, value) * tokens.shape[1]

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of ``VJEPA2ForVideoClassification`` as they are called here."""
        return renamed(state, RENAMED)


RENAMED = (
    (r"^vjepa2\.predictor\.", "predictor."),
    (r"^(vjepa2|pooler)\.", r"body.\1."),
    (r"^classifier\.", "fc."),
)
