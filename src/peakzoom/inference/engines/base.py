"""What an engine is, and what an exported file says about itself.

An engine turns uint8 views into logits. Whatever computes them, it gets the same bytes and gives the same numbers but
for rounding, so everything before it (decoding, cropping) and after it (softmax, averaging) is shared.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from peakzoom.inference.network import InferenceNetwork
from peakzoom.model import PeakZoom
from peakzoom.model.schema import NAMES, THRESHOLDS, check_preprocess, expect, maybe
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted
from peakzoom.video.views import Preprocess

KEY = "peakzoom"  # of the metadata in an exported file
INPUT = "views"  # name of an exported model's input
TRACED = 3  # clips of the batch that a graph is traced with; not 1, which broadcasts


class Engine(Protocol):
    """What computes the predictions."""

    name: str
    classes: list[str]
    preprocess: Preprocess
    thresholds: tuple[float, ...] | None  # of each class, where a video may be of several; None: it is of one

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """Logits, float32 (B, S), of every branch and "fused" from uint8 views (B, *preprocess.view_shape)."""
        ...


@dataclass(frozen=True)
class Description:
    """What an exported file must tell whoever runs it, as JSON in its metadata."""

    classes: list[str]
    preprocess: Preprocess
    outputs: list[str]  # names of the logits, "fused" last
    thresholds: tuple[float, ...] | None = None  # as of Engine

    @classmethod
    def of(cls, model: PeakZoom) -> Description:
        """Of a trained model."""
        pre, thresholds = Preprocess.from_dict(model.preprocess), model.config.thresholds
        return cls(model.classes, pre, [*model.branches, "fused"], thresholds)

    def to_json(self) -> str:
        """One line; without thresholds where there are none, as files have it that were written before them."""
        values = {**asdict(self), "preprocess": self.preprocess.to_dict()}
        return json.dumps({key: value for key, value in values.items() if value is not None})

    @classmethod
    def from_json(cls, text: str | None, file: object) -> Description:
        """Read what :meth:`to_json` wrote; UserError if it is missing or damaged."""
        try:
            values = json.loads(text or "")
            expect("classes", values["classes"], NAMES)
            check_preprocess(values["preprocess"])
            expect("outputs", values["outputs"], NAMES)
            thresholds = values.get("thresholds")
            expect("thresholds", thresholds, maybe(THRESHOLDS))
            if thresholds is not None and len(thresholds) != len(values["classes"]):
                raise UserError(
                    f"{counted(len(thresholds), 'threshold')} for {counted(len(values['classes']), 'class')}"
                )
            return cls(
                list(values["classes"]),
                Preprocess.from_dict(values["preprocess"]),
                list(values["outputs"]),
                None if thresholds is None else tuple(thresholds),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{file} does not name its classes and clips: expected a file that 'peakzoom export' wrote"
            ) from error

    def check(self, views: Tensor) -> None:
        """Refuse a batch that the exported graph was not made for, before an engine says so in its own words."""
        expected = self.preprocess.view_shape
        if views.dtype != torch.uint8 or views.dim() != 5 or tuple(views.shape[1:]) != expected:
            raise ValueError(
                f"views are {views.dtype} {tuple(views.shape)}, "
                f"expected torch.uint8 (B, {', '.join(map(str, expected))})"
            )


def trace(model: PeakZoom) -> torch.export.ExportedProgram:
    """A trained network with ``preprocess`` as one graph, from uint8 views to logits, for any number of clips."""
    network = InferenceNetwork(model, fixed_shapes=True).cpu().eval()
    views = torch.zeros((TRACED, *network.preprocess.view_shape), dtype=torch.uint8)
    with torch.no_grad():
        # The input is named in files as ``InferenceNetwork.forward`` names it: INPUT.
        return torch.export.export(
            network, (views,), dynamic_shapes=({0: torch.export.Dim("clips", min=1)},), strict=False
        )
