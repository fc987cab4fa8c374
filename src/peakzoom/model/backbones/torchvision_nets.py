"""Video Swin Transformer and MViTv2, by torchvision's code, whose published weights load.

Liu et al., "Video Swin Transformer", CVPR 2022: patches attend within windows, which shift from block to block. Its
classifier reads the mean of the patches' LayerNorm, so class maps are exact. Li et al., "MViTv2: improved multiscale
vision transformers for classification and detection", CVPR 2022: its classifier reads a class token, and a feature is
what that read of a place in the last block (:mod:`peakzoom.model.backbones.reading`).

torchvision is used where it can be imported; peakzoom does not ask for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peakzoom.model.backbones.base import VideoNetwork, check_video, renamed, scaled
from peakzoom.model.backbones.depth import leave_out
from peakzoom.model.backbones.reading import gelu_gate, shared_block, shared_norm, taken
from peakzoom.model.geometry import CellGeometry
from peakzoom.utils.errors import UserError, first_line

STRIDE = 32  # pixels between feature cells of both
WINDOW = [8, 7, 7]  # patches that attend to one another in Swin3D
SWIN = {
    "swin3d_t": (3, 6),
    "swin3d_s": (3, 18),
    "swin3d_b": (4, 18),
}  # first heads, blocks of the third stage
HEAD = {"swin": 32, "mvit": 96}  # channels of an attention head
STRIDES_AT = (1, 3, 14)  # blocks of MViTv2-S that halve height and width, and at which heads double
BLOCKS = 16
BRANCH_END = "stochastic_depth"  # what the residual branches of both pass last


def _torchvision(name: str, max_stride: int) -> Any:
    """Its module of video networks; UserError if it cannot be imported, or cells are to be nearer than they can."""
    if max_stride < STRIDE:
        raise UserError(
            f"{name} has feature cells {STRIDE} pixels apart: max_stride is {max_stride}, expected {STRIDE} or more"
        )
    way_out = f"pip install torchvision, in the release that goes with your torch {torch.__version__}"
    try:
        from torchvision.models import video
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs torchvision, which is not installed: {way_out}") from error
    except Exception as error:  # a wheel of another PyTorch: RuntimeError, OSError, AttributeError
        raise UserError(
            f"{name} needs torchvision, which does not load ({first_line(error)[:80]}): {way_out}"
        ) from error
    return video


class Swin3D(VideoNetwork):
    """One of :data:`SWIN`.

    Args:
        num_classes: S.
        width: factor on the number of heads, and so on all channels.
        dropout: probability before the classifier.
        max_stride: feature cells are 32 pixels apart, and cannot be nearer.
        kind: name in :data:`SWIN`.

    Raises:
        UserError: torchvision cannot be imported, or cells are to be nearer.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        kind: str = "swin3d_t",
    ) -> None:
        super().__init__()
        video = _torchvision(kind, max_stride)
        heads, deep = SWIN[kind]
        heads = max(1, round(heads * width))
        self.body = video.swin_transformer.SwinTransformer3d(
            patch_size=[2, 4, 4],
            embed_dim=HEAD["swin"] * heads,
            depths=[2, 2, deep, 2],
            num_heads=[heads, 2 * heads, 4 * heads, 8 * heads],
            window_size=WINDOW,
            stochastic_depth_prob=0.0,  # the training sets it
        )
        del self.body.head
        cells = CellGeometry((1, 1, 1)).then((2, 4, 4), (2, 4, 4))
        for _ in range(3):
            cells = cells.then((1, 2, 2), (1, 2, 2))
        self.read_weights = r"\.attn\.(qkv|proj)$"
        self.classify(num_classes, self.body.num_features, dropout, cells)

    def leave_out_blocks(self, rate: float) -> bool:
        """As of every network."""
        blocks = [each for each in self.body.features.modules() if hasattr(each, BRANCH_END)]
        leave_out(blocks, (BRANCH_END,), rate)
        return True

    def features(self, video: Tensor) -> Tensor:
        """Features of every patch: (B, 3, T, H, W) float -> (B, C, T / 2, H / 32, W / 32), rounded up."""
        patches = self.body.features(self.body.patch_embed(check_video(video)))
        normed: Tensor = self.body.norm(patches)  # (B, T', h, w, C)
        return normed.permute(0, 4, 1, 2, 3)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The names of torchvision as they are called here."""
        return renamed(state, ((r"^head\.", "fc."), (r"^(?!fc\.)", "body.")))


class MViT(VideoNetwork):
    """MViTv2-S; for one number of frames and one size, whose positions it knows.

    Args:
        num_classes: S.
        width: factor on the channels of a head, and so on all channels, rounded to multiples of 8.
        dropout: probability before the classifier.
        max_stride: feature cells are 32 pixels apart, and cannot be nearer.
        frames: T, even.
        size: H and W in pixels, a multiple of 32.

    Raises:
        UserError: torchvision cannot be imported, or frames, size or cells that it cannot have.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.0,
        max_stride: int = 32,
        *,
        frames: int = 16,
        size: int = 224,
    ) -> None:
        super().__init__()
        if frames < 2 or frames % 2 or size < STRIDE or size % STRIDE:
            raise UserError(
                f"mvit_v2_s takes an even number of frames and a size that is a multiple of {STRIDE} pixels; {frames} "
                f"and {size} came"
            )
        video = _torchvision("mvit_v2_s", max_stride)
        self.frames, self.size = frames, size
        head = scaled(HEAD["mvit"], width)
        blocks, heads, before = [], 1, head
        for block in range(BLOCKS):
            if block in STRIDES_AT:
                heads *= 2
            step = 2 if block in STRIDES_AT else 1
            apart = 8 >> sum(block >= at for at in STRIDES_AT)  # of the places that are attended to
            blocks.append(
                video.mvit.MSBlockConfig(
                    num_heads=heads,
                    input_channels=before,
                    output_channels=heads * head,
                    kernel_q=[3, 3, 3],
                    kernel_kv=[3, 3, 3],
                    stride_q=[1, step, step],
                    stride_kv=[1, apart, apart],
                )
            )
            before = heads * head
        self.body = video.mvit.MViT(
            spatial_size=(size, size),
            temporal_size=frames,
            block_setting=blocks,
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
            stochastic_depth_prob=0.0,
        )
        del self.body.head
        unread = self.body.blocks[-1].attn  # by the class token: what patches alone ask with is in no logit
        for parameter in (unread.rel_pos_h, unread.rel_pos_w, unread.rel_pos_t, unread.pool_q.pool.weight):
            parameter.requires_grad_(False)
        cells = CellGeometry((1, 1, 1)).then((3, 7, 7), (2, 4, 4), (1, 3, 3))
        for _ in STRIDES_AT:
            cells = cells.then(3, (1, 2, 2), 1)
        self.read_weights = rf"^body\.blocks\.{len(self.body.blocks) - 1}\.attn\.project\."
        self.classify(num_classes, before, dropout, cells)

    def leave_out_blocks(self, rate: float) -> bool:
        """As of every network."""
        leave_out(list(self.body.blocks), (BRANCH_END,), rate)
        return True

    def features(self, video: Tensor) -> Tensor:
        """What the class token read of every place: (B, 3, T, H, W) float -> (B, C, T / 2, H / 32, W / 32)."""
        shape, expected = tuple(check_video(video).shape[2:]), (self.frames, self.size, self.size)
        if shape != expected:
            raise ValueError(f"clips are {shape}, expected {expected}")
        *blocks, last = self.body.blocks
        patches = self.body.conv_proj(video)  # (B, C, T', h, w)
        where = tuple(patches.shape[2:])
        tokens = self.body.pos_encoding(patches.flatten(2).transpose(1, 2))
        for block in blocks:
            tokens, where = block(tokens, where)

        def second(hidden: Tensor) -> Tensor:
            added: Tensor = last.stochastic_depth(last.mlp[3](hidden))
            return added

        shares = shared_block(self._read(last, tokens, where), last.norm2, last.mlp[0], gelu_gate, second)
        shares = shared_norm(shares, self.body.norm)
        return shares.transpose(1, 2).unflatten(2, where)

    def _read(self, block: Any, tokens: Tensor, where: tuple[int, ...]) -> Tensor:
        """The class token after the attention of the last block, divided among the places: (B, N, C)."""
        attention = block.attn
        qkv = attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, 1 + N, c)
        query = attention.pool_q.norm_act(query[:, :, :1])
        key, value = attention.pool_k(key, where)[0], attention.pool_v(value, where)[0]
        weights = (query @ key.mT * attention.scaler).softmax(-1)[:, :, 0]
        project: nn.Linear = attention.project[0]
        read = taken(weights, value, project)  # (B, 1 + N, C)
        added = read[:, :1] + project.bias + read[:, 1:] * (read.shape[1] - 1)
        after: Tensor = tokens[:, :1] + block.stochastic_depth(added)
        return after

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The names of torchvision as they are called here."""
        return renamed(state, ((r"^head\.1\.", "fc."), (r"^(?!fc\.)", "body.")))


def swin3d_t(num_classes: int, **options: Any) -> Swin3D:
    """28 M parameters."""
    return Swin3D(num_classes, kind="swin3d_t", **options)


def swin3d_s(num_classes: int, **options: Any) -> Swin3D:
    """50 M parameters."""
    return Swin3D(num_classes, kind="swin3d_s", **options)


def swin3d_b(num_classes: int, **options: Any) -> Swin3D:
    """88 M parameters."""
    return Swin3D(num_classes, kind="swin3d_b", **options)
