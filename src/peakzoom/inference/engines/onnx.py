"""ONNX: one file that ONNX Runtime and many others run, without PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor

from peakzoom.inference.engines.base import INPUT, KEY, Description, trace
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError, first_line

OPSET = 18  # 16 is the first with GridSample; 18 the first that PyTorch's exporter writes by itself


def to_onnx(model: PeakZoom) -> bytes:
    """A trained model with ``preprocess`` as a serialised ONNX model, whose metadata is its :class:`Description`."""
    about = Description.of(model)
    logger = logging.getLogger("torch.onnx")  # it warns of a torchvision that is not needed
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                trace(model),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=about.outputs,
                dynamic_shapes=({0: "clips"},),
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {KEY: about.to_json()})
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def description(graph: bytes) -> str:
    """What a serialised model says of itself; "" if nothing."""
    found = onnx.load_model_from_string(graph).metadata_props
    return next((each.value for each in found if each.key == KEY), "")


class OnnxEngine:
    """ONNX Runtime on the CPU, with as many threads as PyTorch would take.

    Args:
        source: a file, or the serialised model.
    """

    name = "onnx"

    def __init__(self, source: Path | bytes) -> None:
        name = source if isinstance(source, Path) else "the exported model"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; it warns of constants that it folds
        try:
            self.session = onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else str(source), options, ["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UserError(f"{name} is no model that ONNX Runtime can run: {first_line(error)}") from error
        self.about = Description.from_json(self.session.get_modelmeta().custom_metadata_map.get(KEY), name)
        self.classes, self.preprocess = self.about.classes, self.about.preprocess
        self.thresholds = self.about.thresholds

    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (B, S) from uint8 views; see :class:`peakzoom.inference.engines.base.Engine`."""
        self.about.check(views)
        found = self.session.run(self.about.outputs, {INPUT: views.contiguous().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(self.about.outputs, found, strict=True)}
