"""VideoMAE: a plain vision transformer over patches of 2 frames x 16 x 16 pixels, all of them attending to all.

Tong, Song, Wang and Wang, "VideoMAE: masked autoencoders are data-efficient learners for self-supervised video
pre-training", NeurIPS 2022; the code of Hugging Face's ``transformers`` (an extra), whose published weights load.

Its classifier reads the LayerNorm of the mean of all patches. That is not a mean of what each patch says, but for one
factor a clip: with m the mean over the patches x of a clip, over channels mu(.) and var(.),

    LN(m) = (m - mu(m)) / sqrt(var(m) + eps) * g + b = mean over x of [(x - mu(x)) / sqrt(var(m) + eps) * g + b]

since mu is linear. What stands in brackets is this network's feature at a patch, the classifier is linear on the mean
of features, and class maps are exact (Eq. 1); the factor that a clip's patches share goes with Eq. 4's normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from peakzoom.model.backbones.base import renamed
from peakzoom.model.backbones.patches import HEAD, PATCH, PatchNetwork
from peakzoom.model.backbones.reading import shared_norm
from peakzoom.utils.extras import needed_for

DEPTHS = {"videomae_s": (6, 12), "videomae_b": (12, 12), "videomae_l": (16, 24)}  # heads and layers


class VideoMAE(PatchNetwork):
    """One of :data:`DEPTHS`; for one number of frames and one size, whose positions it knows.

    Args:
        num_classes: S.
        width: factor on the number of heads, and so on all channels.
        dropout: probability before the classifier.
        max_stride: feature cells are 16 pixels apart, and cannot be nearer.
        kind: name in :data:`DEPTHS`.
        frames: T, even.
        size: H and W in pixels, a multiple of 16.

    Raises:
        UserError: frames or size of which no patches can be made, or cells that are to be nearer.
    """

    branch_ends = ("attention.output.dropout", "output.dropout")

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        kind: str = "videomae_b",
        frames: int = 16,
        size: int = 224,
    ) -> None:
        super().__init__(kind, frames, size, max_stride)
        with needed_for(kind):
            from transformers import VideoMAEConfig, VideoMAEModel
        heads, layers = DEPTHS[kind]
        heads = max(1, round(heads * width))
        self.body = VideoMAEModel(
            VideoMAEConfig(
                image_size=size,
                patch_size=PATCH,
                num_frames=frames,
                tubelet_size=self.tubelet,
                hidden_size=HEAD * heads,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * HEAD * heads,
                use_mean_pooling=True,
            )
        )
        self.norm = nn.LayerNorm(HEAD * heads)
        self.classify_patches(num_classes, HEAD * heads, dropout)

    def blocks(self) -> Sequence[nn.Module]:
        """See the base class."""
        found: nn.ModuleList = self.body.encoder.layer
        return list(found)

    def features(self, video: Tensor) -> Tensor:
        """Features of every patch, as above: (B, 3, T, H, W) float -> (B, C, T / 2, H / 16, W / 16)."""
        patches = self.body(self.frames_first(video)).last_hidden_state  # (B, N, C)
        return self.cells_of(shared_norm(patches, self.norm))

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of ``VideoMAEForVideoClassification`` as they are called here; of its older releases too."""
        return renamed(state, RENAMED)


RENAMED = (
    (r"^videomae\.", "body."),
    (r"^fc_norm\.", "norm."),
    (r"^classifier\.", "fc."),
    (r"\.q_bias$", ".query.bias"),
    (r"\.v_bias$", ".value.bias"),
)


def videomae_s(num_classes: int, **options: Any) -> VideoMAE:
    """ViT-S: 22 M parameters."""
    return VideoMAE(num_classes, kind="videomae_s", **options)


def videomae_b(num_classes: int, **options: Any) -> VideoMAE:
    """ViT-B: 87 M parameters."""
    return VideoMAE(num_classes, kind="videomae_b", **options)


def videomae_l(num_classes: int, **options: Any) -> VideoMAE:
    """ViT-L: 304 M parameters."""
    return VideoMAE(num_classes, kind="videomae_l", **options)
