"""The optional extras of the package, and what to say where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peakzoom.utils.errors import UserError

EXTRAS = {  # optional extras and what they bring
    "train": (
        "filelock",
        "lightning",
        "torchmetrics",
        "matplotlib",
        "PIL",
        "rarfile",
        "sklearn",
        "tensorboard",
    ),
    "serve": ("gradio",),
    "api": (
        "fastapi",
        "fastapi_offline",
        "multipart",
        "pydantic",
        "python_multipart",
        "starlette",
        "uvicorn",
    ),
    "watch": ("prometheus_client",),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "transformers": ("transformers",),
    "finetune": ("kornia", "peft"),
    "loggers": ("wandb", "mlflow"),
    "ray": ("ray", "pyarrow", "fsspec"),
}


class MissingExtra(UserError):
    """What was asked for needs a package that is not installed."""


def missing_extra(error: ModuleNotFoundError, what: str) -> str | None:
    """One sentence on what to install for ``what`` ("this command"), None where no extra brings it."""
    missing = (error.name or "").split(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if missing in modules), None)
    if extra is None:
        return None
    return f"{what} needs {missing}, which is not installed: pip install '.[{extra}]' in the clone"


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Turn the failed import of an extra's module into a :class:`UserError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if sentence := missing_extra(error, what):
            raise MissingExtra(sentence) from error
        raise
