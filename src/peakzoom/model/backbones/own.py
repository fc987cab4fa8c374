"""Networks of a user's own by name, ``package.module:factory``; Python code, which only the user lets in.

A saved model may come from anyone, and importing a module runs it. So a name is looked up only where the user has
allowed it for this process: by ``--model``, by the environment variable :data:`ALLOWED`, or by :func:`allow`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from peakzoom.model.geometry import CellGeometry, is_backbone
from peakzoom.utils.errors import UserError, first_line

ALLOWED = "PEAKZOOM_MODELS"  # names, with commas between them
PAGE = "docs/networks.md says what a network needs"
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
MOST = 200  # letters of a name
log = logging.getLogger(__name__)


def is_own(name: object) -> bool:
    """Whether a name has the form ``package.module:factory``."""
    return isinstance(name, str) and len(name) <= MOST and NAME.fullmatch(name) is not None


def allowed() -> list[str]:
    """The names whose code may run."""
    return [name.strip() for name in os.environ.get(ALLOWED, "").split(",") if name.strip()]


def allow(name: str) -> None:
    """Let the code of a network of that name run, in this process and in those that it starts."""
    if is_own(name) and name not in allowed():
        os.environ[ALLOWED] = ",".join([*allowed(), name])


def expect_allowed(name: str, file: str | None = None) -> None:
    """UserError where nobody has allowed a network, which a file may name."""
    if name not in allowed():
        which = f"{file} names the network {name}, which" if file else f"the network {name}"
        raise UserError(
            f"{which} is Python code that is no part of peakzoom and is not run: if you have it and trust it, allow it "
            f"by the environment variable {ALLOWED}={name}"
        )


def own_network(name: str) -> Callable[..., nn.Module]:
    """The factory of a network: takes ``num_classes`` and, by name, ``width``, ``dropout``, ``max_stride``.

    Raises:
        UserError: it is not allowed or not there; and, by the factory, it makes nothing, or no backbone.
    """
    expect_allowed(name)
    place, _, called = name.partition(":")
    try:
        factory = getattr(import_module(place), called, None)
    except (Exception, SystemExit) as error:  # a script that reads the command line leaves
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name} is a network of no module here ({first_line(error)}): name the folder that holds it in "
                "PYTHONPATH"
            ) from error
        raise UserError(f"{name} cannot be imported: {_told(error)}") from error
    if not callable(factory):
        raise UserError(f"{name} is no network: {place} has no function or class {called}")

    def make(num_classes: int, **options: Any) -> nn.Module:
        try:
            network = factory(num_classes=num_classes, **options)
        except (Exception, SystemExit) as error:
            given = ", ".join(
                f"{key}={value}" for key, value in {"num_classes": num_classes, **options}.items()
            )
            raise UserError(f"{name} makes no network of {given}: {_told(error)}") from error
        if wrong := _lacks(network, num_classes):
            raise UserError(f"{name} makes no network that can be used: {wrong}; {PAGE}")
        return network

    return make


def _lacks(network: Any, num_classes: int) -> str | None:
    """What keeps an object from being a :class:`~peakzoom.model.geometry.Backbone`, in words; None if nothing does."""
    if not isinstance(network, nn.Module) or not is_backbone(network):
        return f"a {type(network).__name__} came, expected a module with features(video), cells, num_features and fc"
    found: Any = network
    if not isinstance(found.cells, CellGeometry):
        return f"its cells are a {type(found.cells).__name__}, expected a CellGeometry"
    if not isinstance(found.fc, nn.Linear):
        return f"its fc is a {type(found.fc).__name__}, expected a linear layer"
    if tuple(found.fc.weight.shape) != (num_classes, found.num_features):
        wanted = num_classes, found.num_features
        return f"its fc has a weight of {tuple(found.fc.weight.shape)}, expected {wanted}: classes and num_features"
    return None


@torch.no_grad()
def expect_features(name: str, network: Any, frames: int, size: int) -> None:
    """Refuse (UserError) a network that does not make (1, num_features, T', h, w) of a clip."""
    was = network.training
    try:
        found = network.eval().features(torch.zeros(1, 3, frames, size, size))
    except Exception as error:
        raise UserError(
            f"{name} fails on clips of {frames} frames of {size} x {size} pixels: {_told(error)}"
        ) from error
    finally:
        network.train(was)
    shape = tuple(found.shape) if isinstance(found, Tensor) else None
    if shape is None or len(shape) != 5 or shape[:2] != (1, network.num_features) or 0 in shape:
        came = type(found).__name__ if shape is None else f"shape {shape}"
        raise UserError(
            f"{name} has features of {came} for a clip of {frames} frames of {size} x {size} pixels, expected (1, "
            f"{network.num_features}, T', h, w), as num_features says; {PAGE}"
        )
    for side, cells, stride, first in zip(
        ("height", "width"), shape[3:], network.cells.stride[1:], network.cells.offset[1:], strict=True
    ):
        last = first + stride * (cells - 1)
        if abs((first + last) / 2 - (size - 1) / 2) > stride:
            log.warning(
                f"{name} says by its cells that the {cells} of its {side} are centred on pixels {first:g} to {last:g} "
                f"of {size}: unless that is so, the zoom looks beside the action; {PAGE}"
            )


def _told(error: BaseException) -> str:
    """An error of somebody else's code, with its kind: there is no traceback beside it."""
    return f"{type(error).__name__}: {first_line(error)}"
