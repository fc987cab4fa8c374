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
    """Keep what a function makes from plain numbers: tensors, to be read only, that every clip of a size shares.

    Where a graph is being recorded, or operations are watched, it is made anew: what is made there may stand for
    numbers and hold none.
    """
    # Not as inference tensors: one call's answer and another's gradient share them.
    kept: Any = lru_cache(maxsize=64)(torch.inference_mode(False)(make))

    @wraps(make)
    def given(*args: P.args, **kwargs: P.kwargs) -> R:
        watched = torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        made: R = (make if watched else kept)(*args, **kwargs)
        return made

    return given
