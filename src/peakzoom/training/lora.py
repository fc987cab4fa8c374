"""Low-rank adaptation: small matrices are trained in place of a network's own weights (``--lora``), by ``peft``.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022: a weight W stays as it is, and what is
learnt is a product B A of rank r, which is added to it. What is saved has the sum, and is a network like any other.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

KINDS = (nn.Linear, nn.Conv2d, nn.Conv3d)
NAMED = 3  # layers in a line of the log
# Why a layer is left as it is.
ITSELF = "the network multiplies by such weights itself, and a product beside them would learn nothing"
SHARED = "weights that are shared, or computed from others, are no place to add a product to"
ODD = "no convolution of channels by themselves, with gaps or with another border than zeros is adapted"


def expect_lora() -> None:
    """UserError if ``peft`` is not installed."""
    with needed_for("--lora"):
        import peft as peft


def add_lora(model: PeakZoom, rank: int) -> None:
    """Freeze a backbone but for its classifier, and give each of its layers a product of rank ``rank`` to learn.

    Layers that are left as they are, are logged with the reason: those whose weights the network multiplies by itself
    (``read_weights``, and what PyTorch's attention puts out), those that share or compute their weights, and
    convolutions that peft 0.21 fails for (channels by themselves, gaps) or pads otherwise than they do.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = _layers(model)
    for reason, names in layers.left.items():
        log.info(
            f"--lora leaves out {counted(len(names), 'layer')} of {model.backbone_name} ({_some(names)}): {reason}"
        )
    # Whole names: in a list, peft would take each for the end of longer ones, too.
    wanted = "|".join(map(re.escape, layers.adapted))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=wanted), model.backbone)
    _call_every_layer(model.backbone)
    for value in model.backbone.fc.parameters():
        value.requires_grad_(True)


def _call_every_layer(network: nn.Module) -> None:
    """Have PyTorch's transformers call their layers in ``eval()`` as in ``train()``, rather than read their weights."""
    for part in network.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            part.activation_relu_or_gelu = 0  # "neither", for which it has no other way
        elif isinstance(part, nn.TransformerEncoder):
            part.use_nested_tensor = False  # which need that way


def passed_by(model: PeakZoom) -> list[str]:
    """After a first backward pass, the layers whose products it did not reach: they will learn nothing."""
    found = {
        name.partition(".lora_")[0]: None
        for name, value in model.backbone.named_parameters()
        if ".lora_" in name and value.requires_grad and value.grad is None
    }
    return list(found)


def log_passed_by(model: PeakZoom) -> None:
    """Log the layers of :func:`passed_by`, and the way out."""
    if names := passed_by(model):
        log.warning(
            f"--lora: {counted(len(names), 'layer')} of {model.backbone_name} will learn nothing ({_some(names)}), as "
            "no gradient gets there; if the network multiplies by such weights itself, give it an attribute "
            "read_weights, a regular expression that finds the names of these layers"
        )


def _some(names: list[str]) -> str:
    return ", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])])


def expect_rank(model: PeakZoom, rank: int) -> None:
    """UserError if a network has no layers for such products, or these have as many numbers as the layers."""
    weights: list[Tensor] = [part.weight for part in _layers(model).adapted.values()]
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


class _Layers(NamedTuple):
    """Those of a backbone but its classifier."""

    adapted: dict[str, Any]  # by name, those that get a product
    left: dict[str, list[str]]  # by the reason, the names of those that do not


def _layers(model: PeakZoom) -> _Layers:
    network, found = model.backbone, _Layers({}, {})
    own, parts = getattr(network, "read_weights", ""), list(network.modules())
    attention = {id(part.out_proj) for part in parts if isinstance(part, nn.MultiheadAttention)}
    uses = Counter(  # of a weight, by the places where a layer of it is put in
        id(child._parameters.get("weight")) for part in parts for child in part._modules.values() if child
    )
    for name, part in network.named_modules():
        if not isinstance(part, KINDS) or part is network.fc:
            continue
        weight = part._parameters.get("weight")  # none where it is computed, as by weight norm
        if id(part) in attention or (own and re.search(own, name)):
            found.left.setdefault(ITSELF, []).append(name)
        elif weight is None or uses[id(weight)] > 1:
            found.left.setdefault(SHARED, []).append(name)
        elif not _is_plain(part):
            found.left.setdefault(ODD, []).append(name)
        else:
            found.adapted[name] = part
    return found


def _is_plain(layer: nn.Linear | nn.Conv2d | nn.Conv3d) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    return layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"


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
