"""The optimiser of a stage: its learning rate over the steps and over the depth of the network, its weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from peakzoom.model import PeakZoom
from peakzoom.training.recipes import StageSettings

DEEPEST = 12  # a network of more blocks decays as one of so many, or its first ones would not learn at all
LISTS = (nn.Sequential, nn.ModuleList)


def schedule(step: int, steps: int, settings: StageSettings) -> float:
    """Learning rate at a step as a multiple of ``settings.lr``: linear warm-up, then a cosine to ``final_lr``."""
    rise = settings.warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    done = min(1.0, (step - rise) / max(1.0, steps - rise))
    low = settings.final_lr / settings.lr
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def decayed_and_spared(network: nn.Module) -> list[dict[str, Any]]:
    """AdamW's groups: kernels are decayed; biases, batch norms and the two betas are spared."""
    return _by_decay(list(network.parameters()))


def make_optimizer(model: PeakZoom, settings: StageSettings) -> Optimizer:
    """SGD decays every weight, as the paper's would; AdamW spares biases, batch norms and the two betas.

    What is frozen has no gradient and stays as it is. With a ``layer_decay``, each block of the backbone learns more
    slowly than the one after it by that factor, the last one more slowly than the classifiers; in deeper networks by
    a factor nearer to 1 (:data:`DEEPEST`).
    """
    adapted = hasattr(model.backbone, "peft_config")  # low-rank matrices are trained at one rate
    if settings.layer_decay < 1 and not adapted:
        groups = list(_by_depth(model, settings))
    elif settings.optimizer == "adamw":
        groups = decayed_and_spared(model)
    else:
        groups = [{"params": list(model.parameters())}]
    if settings.optimizer == "sgd":
        for group in groups:
            group.pop("weight_decay", None)
        return SGD(groups, settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
    assert settings.optimizer == "adamw", settings.optimizer
    return AdamW(groups, settings.lr, weight_decay=settings.weight_decay)


def blocks(network: nn.Module) -> list[list[nn.Parameter]]:
    """A backbone's parameters but the classifier's, by block, from the input on.

    A block is an entry of one of the lists that a network is made of (the bottlenecks of a ResNet, the layers of a
    transformer), or a part beside them (a stem, the embedding of patches), in the order in which the network has them.
    A parameter of its own, such as learnt positions, counts with the block that comes first.
    """
    classifier = {id(value) for value in getattr(network, "fc", nn.Identity()).parameters()}
    parts = [[value for value in part if id(value) not in classifier] for part in _parts(network, whole=True)]
    return [part for part in parts if part]


def _parts(module: nn.Module, whole: bool = False) -> Iterator[list[nn.Parameter]]:
    if not whole and not _is_stack(module):
        yield list(module.parameters())
        return
    own = list(module.parameters(recurse=False))
    for child in module.children():
        for part in _parts(child):
            yield own + part
            own = []
    if own:
        yield own


def _is_stack(module: nn.Module) -> bool:
    """Whether a module is, or has within it, a list of blocks: several modules that have modules themselves."""
    return any(
        isinstance(part, LISTS) and sum(bool(list(entry.children())) for entry in part) > 1
        for part in module.modules()
    )


def _by_depth(model: PeakZoom, settings: StageSettings) -> Iterator[dict[str, Any]]:
    """A group or two of every block, with its own learning rate, and those of the rest."""
    depths = blocks(model.backbone)
    seen = {id(value) for part in depths for value in part}
    rest = [value for value in model.parameters() if id(value) not in seen]
    step = min(1.0, DEEPEST / max(1, len(depths)))  # a network that only pools has none
    for below, part in enumerate(reversed([*depths, rest])):
        for group in _by_decay(part):
            yield {**group, "lr": settings.lr * settings.layer_decay ** (below * step)}


def _by_decay(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    decayed = [value for value in parameters if value.dim() > 1]
    spared = [value for value in parameters if value.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
