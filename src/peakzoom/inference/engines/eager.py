"""PyTorch itself: the trained network, rewritten for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from peakzoom.inference.network import FirstPass, InferenceNetwork
from peakzoom.model import PeakZoom
from peakzoom.model.precision import FULL, PRECISIONS
from peakzoom.utils.errors import UserError, first_line

MOST_SOURCE = (
    2**28
)  # bytes of views in float32 that are computed at once; the zoom takes several times as many


class TorchEngine:
    """Runs on any device that PyTorch has.

    Args:
        model: trained, with ``preprocess``. It is moved to the device.
        device: "auto" takes a GPU when there is one.
        precision: one of ``PRECISIONS``: of the convolutions; attention and classifiers stay in float32.
    """

    name = "torch"

    def __init__(self, model: PeakZoom, device: str = "auto", precision: str = FULL) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            model = model.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch without CUDA
            reason = first_line(error)
            raise UserError(
                f"device {device!r} cannot be used, expected for instance cpu: {reason}"
            ) from error
        self.precision = precision
        self.network = InferenceNetwork(model, dtype=PRECISIONS[precision])
        self.classes, self.preprocess = model.classes, self.network.preprocess
        self.thresholds = model.config.thresholds

    @torch.inference_mode()
    def stage1(self, views: Tensor) -> tuple[Tensor, FirstPass]:
        """The first pass alone: logits (B, S) of the original branch, and what :meth:`stage2` needs."""
        first = self.network.first_pass(views.to(self.device))
        logits = self.network.model.score("original", self.network.model.gather(first.features))
        return self._checked(logits), first

    @torch.inference_mode()
    def stage2(self, first: FirstPass) -> Tensor:
        """Fused logits (B, S) of views that :meth:`stage1` has seen."""
        return self._checked(self.network.logits(first)["fused"])

    @torch.inference_mode()
    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (B, S) from uint8 views; see :class:`peakzoom.inference.engines.base.Engine`."""
        together = max(1, MOST_SOURCE // (4 * views[0].numel()))
        if (
            len(views) > together
        ):  # never of small ones, and by their size alone, so that scores stay the same
            parts = [self(part) for part in views.split(together)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {name: self._checked(logits) for name, logits in self.network(views.to(self.device)).items()}

    def _checked(self, logits: Tensor) -> Tensor:
        logits = logits.float().cpu()
        if self.precision != FULL and not logits.isfinite().all():
            raise UserError(
                f"scores are no longer finite numbers in {self.precision}, whose range this network leaves: ask for "
                "bf16-mixed or 32-true"
            )
        return logits
