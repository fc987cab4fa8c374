"""Whether half precision can be trusted on this machine, and whether it is any use.

PyTorch 2.13.0 computes wrong weight gradients in bfloat16 on CPUs with AVX-512 for 3-D convolutions whose kernel is
longer in time than the clip is there, 3 x 3 x 3 on two slices for instance: off by 70 to 100%, or infinite, with no
error. Networks that pool time, such as I3D and R3D-18, have such layers. So a training looks first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS: dict[type[nn.Module], Any] = {nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
LET_THROUGH = 0.1  # of the gradient's norm; rounding to eight bits stays well below


def wrong_gradients(
    backbone: nn.Module, frames: int, size: int, dtype: torch.dtype = torch.bfloat16
) -> dict[str, float]:
    """Convolutions whose weight gradient is not what float32 makes of the same inputs and output gradients.

    Args:
        backbone: with ``features``, on the device in question; its gradients and buffers are left as they are.
        frames: T of the clips.
        size: their H and W in pixels.
        dtype: of autocast.

    Returns:
        Their names, and how far off they are as a fraction of the gradient's norm (infinity where it is not finite).
    """
    device = next(backbone.parameters()).device
    seen: dict[str, list[tuple[Any, Tensor, Tensor]]] = {}
    handles = []

    def watch(name: str) -> Any:
        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.requires_grad:
                given, calls = inputs[0].detach(), seen.setdefault(name, [])
                output.register_hook(lambda gradient: calls.append((module, given, gradient.detach())))

        return after

    kept = {name: value.clone() for name, value in backbone.state_dict().items()}
    training = backbone.training
    weights: list[Any] = []
    for name, module in backbone.named_modules():
        if type(module) in CONVOLUTIONS and module.padding_mode == "zeros":
            handles.append(module.register_forward_hook(watch(name)))
            weights.append(module.weight)
    weights = [weight for weight in weights if weight.requires_grad]
    try:
        backbone.train()
        generator = torch.Generator().manual_seed(0)
        clips = torch.randn((2, 3, frames, size, size), generator=generator).to(device)
        with torch.random.fork_rng(devices=[]), torch.autocast(device.type, dtype=dtype):
            features: Tensor = backbone.features(clips)  # type: ignore[operator]
            spread = torch.randn(features.shape, generator=generator).to(device)
            target = (features.float() * spread).mean()
        made = torch.autograd.grad(target, weights, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        backbone.load_state_dict(kept)
        backbone.train(training)
    gradients = {id(weight): gradient for weight, gradient in zip(weights, made, strict=True)}
    wrong = {}
    for name, calls in seen.items():
        module, given, gradient = calls[0]
        found = gradients.get(id(module.weight))
        if found is None or len(calls) > 1:  # the sum over several uses is no single convolution's
            continue
        weight = module.weight.detach().to(dtype).float().requires_grad_()
        with torch.enable_grad():
            again = CONVOLUTIONS[type(module)](
                given.to(dtype).float(),
                weight,
                None,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
            )
        (expected,) = torch.autograd.grad(again, weight, gradient.float())
        off = ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()
        if not off <= LET_THROUGH:
            wrong[name] = off if off == off else float("inf")
    return wrong
