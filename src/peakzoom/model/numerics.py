"""Full precision where positions are computed, and constants that depend on sizes alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

P = ParamSpec("P")
R = TypeVar("R")


def exact(like: Tensor) -> torch.autocast:
    """Switch mixed precision off: positions and peaks do not survive bfloat16's eight bits."""
    return torch.autocast(like.device.type, enabled=False)


def remembered(make: Callable[P, R]) -> Callable[P, R]:
    """A cache for functions from plain numbers to constant tensors, which every clip of a size shares: only read them.

    While a graph is recorded or a dispatch mode is on, the function runs anew: tensors of such a mode may hold no
    numbers.
    """
    # Not as inference tensors: a prediction and a training step may share them.
    cached: Any = lru_cache(maxsize=64)(torch.inference_mode(False)(make))

    @wraps(make)
    def constant(*args: P.args, **kwargs: P.kwargs) -> R:
        watched = torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        value: R = (make if watched else cached)(*args, **kwargs)
        return value

    return constant
