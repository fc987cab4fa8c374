"""Networks without numbers: their shapes alone, on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FILLS = frozenset(
    {Tensor.normal_, Tensor.uniform_}
)  # what every random initialisation of torch.nn.init comes to


class _Unfilled(TorchFunctionMode):
    """Draws no random numbers for tensors that hold none.

    PyTorch decomposes such a draw on the meta device, and imports its whole compiler (1.5 s) to do that.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FILLS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules that are made in the block have shapes and no numbers, and take no memory."""
    with torch.device("meta"), _Unfilled():
        yield
