"""A training that also learns from a larger network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peakzoom.data.loading import Batch
from peakzoom.model import PeakZoom
from peakzoom.model.losses import distillation
from peakzoom.model.network import PeakZoomOutput
from peakzoom.training.batch_augment import Mixed
from peakzoom.training.distributed import Slice
from peakzoom.training.module import Training
from peakzoom.video.views import to_input


class Distilled(Training):
    """A training that also learns from the predictions of a larger network, which itself stays as it is.

    ``teacher`` is the larger one, in the mode in which it predicts best; the other arguments are those of
    :class:`~peakzoom.training.module.Training`.
    """

    def __init__(self, *stage: Any, teacher: PeakZoom) -> None:
        super().__init__(*stage)
        self._teacher = [teacher]  # a list: no part of what is trained or saved
        self._taught: Tensor | None = None

    def _run(self, batch: Batch, part: Slice | None = None) -> PeakZoomOutput:
        if self.training:
            teacher = self._teacher[0].to(self.device)
            with torch.no_grad():
                self._taught = teacher(to_input(batch.views, self.recipe.preprocess)[0]).fused
        return super()._run(batch, part)

    def _loss(self, output: PeakZoomOutput, mixed: Mixed) -> Tensor:
        assert self._taught is not None
        return super()._loss(output, mixed) + distillation(output.fused, self._taught.to(output.fused))
