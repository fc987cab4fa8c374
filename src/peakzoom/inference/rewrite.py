"""The same network with fewer operations: batch norms folded, strides taken first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from peakzoom.model.backbones.tcnn import TCNN, Block

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


class _Reads(TorchDispatchMode):
    """Counts how many operations read what each convolution gave out."""

    def __init__(self) -> None:
        super().__init__()
        self.giver = WeakTensorKeyDictionary()  # of a tensor, the convolution's name; keeps no tensor alive
        self.reads: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: PyTorch would import its compiler for it, a second of work at every start, and nothing compiles."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor) and value in self.giver:
                self.reads[self.giver[value]] += 1
        return func(*args, **(kwargs or {}))


def fold_batch_norms(backbone: nn.Module, frames: int, size: int) -> int:
    """Make each batch norm that reads a convolution, and is the only one to, part of that convolution, in place.

    Which batch norm reads which convolution is watched on one black clip, so any backbone will do, however it is
    written. (A clip of meta tensors would cost nothing, but PyTorch imports its compiler for them: a second of work.)

    The backbone is in ``eval()``; the clip has ``frames`` frames of ``size`` x ``size`` pixels. Returns how many were
    folded.
    """
    network: Any = backbone
    watch = _Reads()
    names = {module: name for name, module in network.named_modules()}
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []  # a convolution and the norm that reads it

    def after_convolution(module: nn.Module, inputs: Any, output: Tensor) -> None:
        calls[names[module]] += 1
        watch.giver[output] = names[module]

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[names[module]] += 1
        if inputs[0] in watch.giver:
            pairs.append((watch.giver[inputs[0]], names[module]))

    hooks: list[Any] = []
    for module in names:
        if isinstance(module, CONVOLUTIONS):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, NORMS) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad(), watch:
            network.features(next(network.parameters()).new_zeros((1, 3, frames, size, size)))
    finally:
        for hook in hooks:
            hook.remove()
    folded = 0
    for conv, norm in pairs:
        if watch.reads[conv] == calls[conv] == calls[norm] == 1:
            both: Any = network.get_submodule(conv), network.get_submodule(norm)
            network.set_submodule(conv, fuse_conv_bn_eval(*both))
            network.set_submodule(norm, nn.Identity())
            folded += 1
    return folded


def take_strides_first(backbone: nn.Module) -> int:
    """Take a T-CNN's temporal strides at its input, in place, where that leaves its features as they are.

    Zeros beyond the clip's ends stay where they were: slice t + d lies within T slices exactly if slice (t + d) / s
    lies within the ceil(T / s) that are left.

    Args:
        backbone: any; one that is no :class:`TCNN`, or sees the clip's mean frame, is left alone.

    Returns:
        The step: ``features(video[:, :, ::step])`` is now what ``features(video)`` was.
    """
    if not isinstance(backbone, TCNN) or backbone.motion:
        return 1
    step = 1
    passed: list[Any] = []  # convolutions of several slices before this layer
    for layer in _layers(backbone):
        stride = layer[0].stride[0]
        if stride > 1:
            if layer[0].kernel_size[0] > 1 or any(each.dilation[0] % stride for each in passed):
                break  # whatever strides later could not pass this layer
            for each in passed:
                each.dilation = (each.dilation[0] // stride, *each.dilation[1:])
                each.padding = (each.padding[0] // stride, *each.padding[1:])
            for each in layer:
                each.stride = (1, *each.stride[1:])
            step *= stride
        passed += [each for each in layer if each.kernel_size[0] > 1]
    return step


def _layers(backbone: TCNN) -> list[list[Any]]:
    """The convolutions in the order of the data; those that read the same slices, as a shortcut does, together."""

    def convolutions(*modules: nn.Module) -> list[Any]:
        return [each for module in modules for each in module.modules() if isinstance(each, nn.Conv3d)]

    layers = [[each] for each in convolutions(backbone.stem)]
    for block in backbone.blocks:
        assert isinstance(block, Block)
        layers += [convolutions(block.conv1, block.shortcut), *([each] for each in convolutions(block.conv2))]
    return layers
