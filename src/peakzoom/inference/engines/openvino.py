"""OpenVINO: the fastest engine on Intel and AMD CPUs here; two files, .xml and .bin.

It computes in float32. Left to itself it would take bfloat16 on CPUs that have it, in which the attention falls apart:
positions are rounded to whole pixels and peaks to ties.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

from peakzoom.inference.engines.base import INPUT, KEY, Description
from peakzoom.inference.engines.onnx import description, to_onnx
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError


def to_openvino(model: PeakZoom) -> openvino.Model:
    """An OpenVINO model of a trained one, by way of ONNX."""
    return from_onnx(to_onnx(model))


def from_onnx(graph: bytes) -> openvino.Model:
    """The same from :func:`peakzoom.inference.engines.onnx.to_onnx`; what that says of itself goes into ``rt_info``."""
    found = openvino.Core().read_model(graph)
    found.set_rt_info(description(graph), [KEY])
    return found


def save(model: openvino.Model, file: Path) -> None:
    """Write ``file`` (.xml) and its .bin, in float32.

    Raises:
        OSError: they cannot be written; OpenVINO's own error does not say why.
    """
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        constants = (each for each in model.get_ops() if each.get_type_name() == "Constant")
        try:
            file.with_suffix(".bin").write_bytes(bytes(sum(each.get_byte_size() for each in constants)))
        except OSError as reason:
            raise reason from error
        raise


class OpenVinoEngine:
    """OpenVINO on the CPU, in float32, with as many threads as PyTorch would take.

    Args:
        source: an .xml file with its .bin beside it, or a model.
    """

    name = "openvino"

    def __init__(self, source: Path | openvino.Model) -> None:
        core = openvino.Core()
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            model = core.read_model(source) if isinstance(source, Path) else source
            self.compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{source} is no model that OpenVINO can run: {reason}") from error
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        self.about = Description.from_json(text, source if isinstance(source, Path) else "the model")
        self.classes, self.preprocess = self.about.classes, self.about.preprocess
        self.thresholds = self.about.thresholds

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (B, S) from uint8 views; see :class:`peakzoom.inference.engines.base.Engine`."""
        self.about.check(views)
        found = self.compiled({INPUT: views.contiguous().numpy()})
        return {name: torch.from_numpy(found[name].copy()) for name in self.about.outputs}
