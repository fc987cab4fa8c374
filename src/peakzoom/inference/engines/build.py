"""What computes the predictions: PyTorch, ONNX Runtime or OpenVINO (docs/export.md).

One file an engine; each imports its library, an optional extra, only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from peakzoom.inference.engines.base import Engine
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.model import PeakZoom
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError
from peakzoom.video.views import to_input

TOLERANCE = 1e-3  # of logits, as parts of the largest where that is above 1
ENGINES = ("torch", "onnx", "openvino")
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}  # of the files that can be run


def build_engine(model: PeakZoom, name: str = "torch", device: str = "auto", precision: str = FULL) -> Engine:
    """An engine for a trained model with ``preprocess``; others than torch export it in memory first.

    Raises:
        UserError: the engine is unknown, or does not run on the device or in the precision.
    """
    if name not in ENGINES:
        raise UserError(f"engine is {name!r}, expected one of {', '.join(ENGINES)}")
    if name == "torch":
        return TorchEngine(model, device, precision)
    engine, convert = _exporting(name, device, precision)
    built = engine(convert(model))
    _expect_same(built, model)
    return built


def _expect_same(engine: Engine, model: PeakZoom) -> None:
    """Refuse (UserError) an engine that does not compute what the network does: converters and runtimes have faults.

    The original branch is compared, on two clips at once of smooth noise; what the others see hangs on places that
    rounding may choose otherwise, and ``peakzoom export`` compares it on real clips.
    """
    height, width = engine.preprocess.view_shape[2:]
    draw = torch.Generator().manual_seed(0)
    small = torch.rand((2 * engine.preprocess.frames, 3, 4, 4), generator=draw)
    smooth = F.interpolate(small, (height, width), mode="bilinear")
    views = (255 * smooth).byte().unflatten(0, (2, -1))
    with torch.inference_mode():
        expected = model(*to_input(views, engine.preprocess)).logits()["original"]
    off = float((engine(views)["original"] - expected).abs().max())
    most = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not off <= most:  # not >, so that a NaN is refused
        raise UserError(
            f"engine {engine.name} differs from the network by {off:.2g} in a logit, more than {most:.2g}: its "
            "predictions would be wrong here; take another --engine, or another version of its library"
        )


def open_exported(file: Path, name: str | None = None, device: str = "auto", precision: str = FULL) -> Engine:
    """An engine for a file that ``peakzoom export`` wrote: the one that it needs, which ``name`` may only confirm.

    Raises:
        UserError: the file cannot be run, or not by that engine.
    """
    fits = SUFFIXES.get(file.suffix.lower())
    if fits is None:
        raise UserError(
            f"{file} is no model that can be run: expected a folder with model.safetensors, such as a run, or an "
            f"exported {' or '.join(SUFFIXES)} file"
        )
    if name not in (None, fits):
        raise UserError(f"{file} runs on engine {fits}, not on {name}: leave --engine out")
    if not file.exists():
        raise UserError(f"{file} does not exist: 'peakzoom export RUN --to {fits}' makes such a file")
    return _exporting(fits, device, precision)[0](file)


def _exporting(
    name: str, device: str, precision: str
) -> tuple[Callable[[Any], Engine], Callable[[PeakZoom], Any]]:
    """The engine that runs exported graphs of a kind, and what makes such a graph of a model."""
    if device not in ("auto", "cpu"):
        raise UserError(f"engine {name} runs on the CPU, not on {device}: leave --device out, or use torch")
    if precision != FULL:
        raise UserError(f"engine {name} computes in {FULL}, not in {precision}: use engine torch for that")
    if name == "onnx":
        from peakzoom.inference.engines.onnx import OnnxEngine, to_onnx

        return OnnxEngine, to_onnx
    from peakzoom.inference.engines.openvino import OpenVinoEngine, to_openvino

    return OpenVinoEngine, to_openvino
