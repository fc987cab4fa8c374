"""The network at inference: the same function, computed with less work (no paper; the algebra is exact).

Three rewritings of a trained network, each of which leaves its logits as they were but for rounding:

- **Batch norms** that follow a convolution become part of its weights (:func:`fold_batch_norms`).
- **Temporal strides** move to the input (:func:`take_strides_first`). A convolution of one frame and temporal stride s
  drops all but every s-th slice; where everything before it sees one slice, or slices a multiple of s apart, the
  dropped ones were computed for nothing. With T = 16 the paper's T-CNN sees frames 0, 4, 8 and 12 only::

      frame     0 1 2 3 4 5 6 7 8 9 ...
      stem      |   |   |   |   |        every second, 1 x 3 x 3
      stage 4   |---|---|---|            dilation 4: slices two frames apart, frames 8 apart
      stage 6   |       |       |        every second of those; the others are never computed

- **Weights** of convolutions are laid out once as a CPU's oneDNN wants them, rather than at every call
  (:class:`~peakzoom.inference.packed.PackedConv`); clips then stay channels-last, too, which PyTorch's own convolution
  leaves for a single clip.

:class:`InferenceNetwork` puts a model together from them, from uint8 views to logits. It can be asked for half
precision, which is not exact: convolutions are then computed in it, and what makes attention of their features is not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peakzoom.inference.packed import pack_convolutions
from peakzoom.inference.rewrite import CONVOLUTIONS, fold_batch_norms, take_strides_first
from peakzoom.model.attention import SparseAttention
from peakzoom.model.geometry import place_response
from peakzoom.model.network import PeakZoom
from peakzoom.video.views import Preprocess, to_input

CROPS = 3  # clips of a batch in a test, which convolutions are packed for; others are computed too


@dataclass(frozen=True)
class FirstPass:
    """A batch of clips after the first pass."""

    features: Tensor  # (B, C, T', h, w) of the original video
    video: Tensor  # (B, 3, T, H, W), normalised, without the frames that are never seen
    source: Tensor  # (B, 3, T, H', W') frames that the zoomed videos are read from
    size: tuple[int, int]  # (H, W) of the network's input


class EveryCell(SparseAttention):
    """The attention of a graph whose shapes must not depend on how many peaks there are: it goes over all cells."""

    def listed(self, peaks: Tensor) -> tuple[Tensor, Tensor]:
        """Every cell with its weight, 1 or 0: K is g x g."""
        found = peaks.flatten(1)
        return found, torch.arange(found.shape[1], device=found.device).expand_as(found)


class InferenceNetwork(nn.Module):
    """A trained model for inference, rewritten as above; the model itself is left as it is.

    Args:
        model: with ``preprocess``.
        fixed_shapes: only shapes that do not depend on what is in a clip, and one path whatever the batch, which is
            what a graph that is traced and exported can hold; convolutions then stay PyTorch's own.
        dtype: of the convolutions, as in a training with ``--precision bf16-mixed`` or ``16-mixed``.
    """

    @torch.inference_mode(False)  # wherever it is made: weights of that mode have no gradients to pass on
    def __init__(
        self, model: PeakZoom, *, fixed_shapes: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess.from_dict(model.preprocess)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        backbone: Any = self.model.backbone
        fold_batch_norms(backbone, self.preprocess.frames, self.preprocess.size)
        self.step = take_strides_first(backbone)
        if fixed_shapes:
            self.model.attention.__class__ = EveryCell
        self.dtype = dtype
        if dtype != torch.float32:
            for module in backbone.modules():  # once, rather than at every call
                if isinstance(module, CONVOLUTIONS):
                    module.to(dtype)
        if not fixed_shapes and next(backbone.parameters()).device.type == "cpu":
            frames, size = -(-self.preprocess.frames // self.step), self.preprocess.size
            pack_convolutions(backbone, self.features, torch.zeros((1, 3, frames, size, size)), CROPS)

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (B, S) of every branch and "fused" from uint8 views (B, T, 3, s, s), s = size x zoom_source."""
        return self.logits(self.first_pass(views))

    def logits(self, first: FirstPass) -> dict[str, Tensor]:
        """The same from a first pass."""
        pooled = {"original": self.model.gather(first.features)}
        if self.model.zooms:
            pooled |= self.model.by_branch(self.model.gather(self.features(self.zoom(first))))
        return self.model.classify(pooled).logits()

    def first_pass(self, views: Tensor) -> FirstPass:
        """Features of the original video."""
        video, source = to_input(views[:, :: self.step], self.preprocess)  # no other frame counts
        features = self.features(video)
        size = video.shape[3], video.shape[4]
        return FirstPass(features, video, video if source is None else source, size)

    def zoom(self, first: FirstPass) -> Tensor:
        """What lies between the passes: the zoomed videos (N B, 3, T, H, W), one branch after the other."""
        model, config = self.model, self.model.config
        slices, average = model.slice_responses(first.features), config.averages
        where = model.backbone.cells, self.preprocess.frames, first.size, config.grid
        placed = place_response(slices, *where, step=self.step, average=average)
        return model.zoom(first.source, *model.find_peaks(placed), first.size)[2]

    def features(self, video: Tensor) -> Tensor:
        """The backbone's, float32."""
        backbone: Any = self.model.backbone
        return self.compute(backbone.features, video)

    def compute(self, part: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """What a part of the backbone makes of what it is given, float32.

        Autocast gives each operation inputs of the precision that it is safe in.
        """
        if self.dtype == torch.float32:
            return part(given)
        with torch.autocast(given.device.type, self.dtype):
            return part(given).float()
