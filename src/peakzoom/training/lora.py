"""Low-rank adaptation: small matrices are trained in place of a network's own weights (``--lora``), by ``peft``.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022: a weight W stays as it is, and what is
learnt is a product B A of rank r, which is added to it. What is saved has the sum, and is a network like any other.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for

KINDS = (nn.Linear, nn.Conv2d, nn.Conv3d)


def expect_lora() -> None:
    """UserError if ``peft`` is not installed."""
    with needed_for("--lora"):
        import peft as peft


def add_lora(model: PeakZoom, rank: int) -> None:
    """Freeze a backbone but for its classifier, and give each of its layers a product of rank ``rank`` to learn.

    Layers that work on every channel by itself, or with gaps (for which peft 0.21 fails), are left as they are, and so
    are those whose weights the network multiplies itself (``read_weights``), which would pass their products by.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = list(_layers(model))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model.backbone)
    for value in model.backbone.fc.parameters():
        value.requires_grad_(True)


def expect_rank(model: PeakZoom, rank: int) -> None:
    """UserError if a network has no layers for such products, or these have as many numbers as the layers."""
    weights: list[Tensor] = [part.weight for part in _layers(model).values()]
    if not weights:
        raise UserError(
            f"{model.backbone_name} has no layer that --lora can adapt: leave it out, or take --freeze"
        )
    own = sum(value.numel() for value in weights)
    learnt = sum(rank * (value[0].numel() + len(value)) for value in weights)
    if learnt >= own:
        raise UserError(
            f"--lora {rank} would train {learnt:,} numbers in place of the {own:,} of the layers that it adapts: take "
            "a lower rank, or leave it out"
        )


def _layers(model: PeakZoom) -> dict[str, Any]:
    """The layers of a backbone that get a product, by name."""
    own = getattr(model.backbone, "read_weights", "")
    return {
        name: part
        for name, part in model.backbone.named_modules()
        if isinstance(part, KINDS) and part is not model.backbone.fc and _is_plain(part)
        if not (own and re.search(own, name))
    }


def _is_plain(layer: nn.Module) -> bool:
    return getattr(layer, "groups", 1) == 1 and set(getattr(layer, "dilation", (1,))) == {1}


def without_lora(model: PeakZoom) -> PeakZoom:
    """The model with what was learnt added to its weights: a copy, or itself where it has no such layers."""
    if not hasattr(model.backbone, "peft_config"):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = deepcopy(model)
    for name, part in list(plain.backbone.named_modules()):
        if isinstance(part, BaseTunerLayer):
            layer: Any = part.get_base_layer()
            with torch.no_grad():
                layer.weight += _learnt(part).view_as(layer.weight)
            above, _, own = name.rpartition(".")
            setattr(plain.backbone.get_submodule(above), own, layer)
    del plain.backbone.peft_config
    return plain


def _learnt(part: Any) -> Tensor:
    """What a layer has learnt, (out, in times the kernel): peft 0.21's own ``merge`` fails for kernels over time."""
    (name,) = part.active_adapters
    inner, outer = part.lora_A[name].weight, part.lora_B[name].weight  # (r, in, ...), (out, r, 1 ...)
    product: Tensor = part.scaling[name] * outer.flatten(1) @ inner.flatten(1)
    return product
