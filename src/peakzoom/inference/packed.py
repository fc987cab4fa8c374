"""Convolutions whose weights are laid out once as oneDNN reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PackedConv(nn.Module):
    """What a convolution becomes whose weights lie in memory as oneDNN reads them, for inference on a CPU.

    PyTorch's own convolution brings them there at every call, and for a single clip, whose strides do not tell that it
    lies channels-last, the clip too: up to three times the time of the convolution itself.

    :func:`pack` makes a convolution one of these, and it stays a convolution: with its weights, which gradients need
    and copies are packed again from. Change them only through ``load_state_dict`` or ``to``, or pack again.
    """

    weight: Tensor
    bias: Tensor | None
    packed: Tensor | None  # opaque: it can be neither copied nor saved
    packed_for: list[int]  # shape of an input; others are computed too, if perhaps less quickly

    def lay_out(self) -> None:
        """Bring the weights into oneDNN's layout, where there is one for them."""
        self.packed = None
        if can_pack(self):
            reorder = getattr(torch._C._nn, _reorder(self))
            self.packed = reorder(self.weight.detach().to_mkldnn(), *self._options(), self.packed_for)

    def _options(self) -> list[Any]:
        return [*(list(getattr(self, each)) for each in ("padding", "stride", "dilation")), self.groups]

    def forward(self, input: Tensor) -> Tensor:
        """As the convolution's; channels-last, in the weights' precision."""
        learns = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        result: Tensor
        if self.packed is None or learns or input.dim() != self.weight.dim():
            result = super().forward(input)
        else:
            result = torch.ops.mkldnn._convolution_pointwise(
                input.to(self.weight.dtype), self.packed, self.bias, *self._options(), "none", [], ""
            )
        return result

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        self.lay_out()
        return result

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.lay_out()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.lay_out()


class PackedConv2d(PackedConv, nn.Conv2d):
    """A packed 2-D convolution."""


class PackedConv3d(PackedConv, nn.Conv3d):
    """A packed 3-D convolution."""


PACKED: dict[type[nn.Module], type[PackedConv]] = {nn.Conv2d: PackedConv2d, nn.Conv3d: PackedConv3d}


def _reorder(conv: Any) -> str:
    """PyTorch's name of what lays out its weights."""
    return f"mkldnn_reorder_conv{len(conv.kernel_size)}d_weight"


def can_pack(module: nn.Module) -> bool:
    """Whether a module is a convolution that this build of PyTorch and this processor compute packed."""
    if type(module) not in (*PACKED, *PACKED.values()):
        return False
    conv: Any = module
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.weight.device.type != "cpu":
        return False
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):
        return False
    operations = torch.ops.mkldnn
    if not (hasattr(operations, "_convolution_pointwise") and hasattr(torch._C._nn, _reorder(conv))):
        return False
    able = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    dtype = conv.weight.dtype
    if dtype in able:
        return hasattr(operations, able[dtype]) and bool(getattr(operations, able[dtype])())
    return bool(dtype == torch.float32)


def pack(conv: nn.Conv2d | nn.Conv3d, shape: Sequence[int]) -> None:
    """Make a convolution that :func:`can_pack` takes, in place, a :class:`PackedConv` for inputs of a shape.

    The shape is (B, C, H, W) or (B, C, T, H, W).
    """
    conv.__class__ = PACKED[type(conv)]  # type: ignore[assignment]
    packed: Any = conv
    packed.packed_for = list(shape)
    packed.lay_out()


def pack_convolutions(
    backbone: nn.Module, features: Callable[[Tensor], object], clip: Tensor, clips: int
) -> None:
    """Pack, in place, each convolution that can be packed, for several times what it reads for one clip.

    ``features`` computes the convolutions of the clip, (1, 3, T, H, W) float32. One that the clip does not pass, or
    that reads something without a batch axis, stays as it is.
    """
    shapes: dict[Any, torch.Size] = {}

    def note(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        shapes[module] = (*args, *named.values())[0].shape

    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in backbone.modules()
        if type(module) in PACKED and can_pack(module)
    ]
    try:
        with torch.no_grad():
            features(clip)
    finally:
        for hook in hooks:
            hook.remove()
    for conv, (images, *shape) in shapes.items():
        if len(shape) + 1 == conv.weight.dim():
            pack(conv, (clips * images, *shape))
