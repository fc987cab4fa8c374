"""What computes predictions, one engine a file: PyTorch, ONNX Runtime, OpenVINO."""

from __future__ import annotations
