"""The network as it answers: the same function, computed with less work (no paper; the algebra is exact).

Three rewritings of a trained network, each of which leaves its answers as they were but for rounding:

- **Batch norms** that follow a convolution become part of its weights (:func:`fold_batch_norms`).
- **Temporal strides** move to the input (:func:`take_strides_first`). A convolution of one frame and temporal stride s
  drops all but every s-th slice; where everything before it sees one slice, or slices a multiple of s apart, the
  dropped ones were computed for nothing. With T = 16 the paper's T-CNN looks at frames 0, 4, 8 and 12 only::

      frame     0 1 2 3 4 5 6 7 8 9 ...
      stem      |   |   |   |   |        every second, 1 x 3 x 3
      stage 4   |---|---|---|            dilation 4: slices two frames apart, frames 8 apart
      stage 6   |       |       |        every second of those; the others are never asked for

- **Weights** of convolutions are laid out once as a CPU's oneDNN wants them (:class:`PackedConv`), rather than at every
  call; clips then stay channels-last, too, which PyTorch's own convolution leaves for a single clip.

And on a CPU a batch passes the backbone a few clips at a time, so that each part finds its memory where the one before
left it (:func:`clips_together`).

:class:`InferenceNetwork` puts a model together from them, from uint8 views to logits. It can be asked for half
precision, which is not exact: convolutions are then computed in it, and what makes attention of their features is not.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from peakzoom.model.backbones.tcnn import TCNN, Block
from peakzoom.model.network import PeakZoom
from peakzoom.video.views import Preprocess, to_input

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class _Made:
    """A convolution's output: which convolution's, and how many operations read it."""

    name: str
    reads: int = 0


class _Watch(TorchDispatchMode):
    """Sees every operation."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: PyTorch would import its compiler for it, a second of work at every start, and nothing compiles."""
        return False


class _Reads(_Watch):
    """Counts how often each watched tensor is read by an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = WeakTensorKeyDictionary()  # to _Made; keeps no tensor alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor) and value in self.watched:
                self.watched[value].reads += 1
        return func(*args, **(kwargs or {}))


def fold_batch_norms(backbone: nn.Module, frames: int, size: int) -> int:
    """Make each batch norm that reads a convolution, and is the only one to, part of that convolution, in place.

    Which batch norm reads which convolution is watched on one black clip, so any backbone will do, however it is
    written. (A clip of meta tensors would cost nothing, but PyTorch imports its compiler for them: a second of work.)

    Args:
        backbone: with ``features``, in ``eval()``.
        frames: T of the clip.
        size: its H and W in pixels.

    Returns:
        How many were folded.
    """
    network: Any = backbone
    reads = _Reads()
    hooks: list[Any] = []
    pairs: list[tuple[_Made, str]] = []
    calls: Counter[str] = Counter()

    def watch(name: str) -> Any:
        def after_convolution(module: nn.Module, inputs: Any, output: Tensor) -> None:
            calls[name] += 1
            reads.watched[output] = _Made(name)

        return after_convolution

    def meet(name: str) -> Any:
        def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            if inputs[0] in reads.watched:
                pairs.append((reads.watched[inputs[0]], name))

        return before_norm

    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            hooks.append(module.register_forward_hook(watch(name)))
        elif isinstance(module, NORMS) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(meet(name)))
    clip = next(network.parameters()).new_zeros((1, 3, frames, size, size))
    try:
        with torch.no_grad(), reads:
            network.features(clip)
    finally:
        for hook in hooks:
            hook.remove()
    folded = 0
    for made, norm in pairs:
        if made.reads == 1 and calls[made.name] == calls[norm] == 1:
            both: Any = network.get_submodule(made.name), network.get_submodule(norm)
            network.set_submodule(made.name, fuse_conv_bn_eval(*both))
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

    def convolutions(module: nn.Module) -> list[Any]:
        return [each for each in module.modules() if isinstance(each, nn.Conv3d)]

    layers = [[each] for each in convolutions(backbone.stem)]
    for block in backbone.blocks:
        assert isinstance(block, Block)
        layers.append(convolutions(block.conv1) + convolutions(block.shortcut))
        layers.append(convolutions(block.conv2))
    return layers


class PackedConv(nn.Module):
    """What a convolution becomes whose weights lie in memory as oneDNN reads them, for answers on a CPU.

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
            operations: Any = torch._C._nn
            reorder = getattr(operations, _reorder(self))
            weight = self.weight.detach().to_mkldnn()
            self.packed = reorder(weight, *self._options(), self.packed_for)

    def _options(self) -> list[Any]:
        return [*(list(getattr(self, each)) for each in ("padding", "stride", "dilation")), self.groups]

    def forward(self, input: Tensor) -> Tensor:
        """As the convolution's; channels-last, in the weights' precision."""
        learns = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if self.packed is None or learns or input.dim() != self.weight.dim():
            result: Tensor = super().forward(input)
            return result
        result = torch.ops.mkldnn._convolution_pointwise(
            input.to(self.weight.dtype), self.packed, self.bias, *self._options(), "none", [], ""
        )
        return result

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        made = super()._apply(fn, recurse)
        self.lay_out()
        return made

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
    dtype, operations = conv.weight.dtype, torch.ops.mkldnn
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.weight.device.type != "cpu":
        return False
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):
        return False
    if not (hasattr(operations, "_convolution_pointwise") and hasattr(torch._C._nn, _reorder(conv))):
        return False
    able = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if dtype in able:
        return hasattr(operations, able[dtype]) and bool(getattr(operations, able[dtype])())
    return bool(dtype == torch.float32)


def pack(conv: nn.Conv2d | nn.Conv3d, shape: Sequence[int]) -> None:
    """Make a convolution, in place, a :class:`PackedConv` for inputs of a shape, (B, C, H, W) or (B, C, T, H, W)."""
    if type(conv) not in PACKED or not can_pack(conv):
        raise ValueError(f"{conv} cannot be packed")
    conv.__class__ = PACKED[type(conv)]  # type: ignore[assignment]
    packed: Any = conv
    packed.packed_for = list(shape)
    packed.lay_out()


@dataclass(frozen=True)
class Passed:
    """What one clip made a backbone do.

    ``shapes`` are those that convolutions read, of each that was passed and can be packed. ``most`` are the bytes of
    all that one operation reads and writes, weights apart, of the operation where they are most.
    """

    shapes: dict[nn.Module, torch.Size]
    most: int


class _Most(_Watch):
    """Finds the operation that reads and writes most."""

    def __init__(self, without: set[int]) -> None:
        super().__init__()
        self.without = without  # addresses of what does not count
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        touched = {}
        for value in tree_leaves((args, kwargs or {}, made)):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                touched[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        sizes = (size for address, size in touched.items() if address not in self.without)
        self.most = max(self.most, sum(sizes))
        return made


def pass_one(backbone: nn.Module, features: Callable[[Tensor], object], clip: Tensor) -> Passed:
    """What a clip makes a backbone do.

    Args:
        backbone: whose convolutions are meant.
        features: computes them.
        clip: (1, 3, T, H, W) float32.
    """
    shapes: dict[nn.Module, torch.Size] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args, named: shapes.update({module: (*args, *named.values())[0].shape}),
            with_kwargs=True,
        )
        for module in backbone.modules()
        if type(module) in PACKED and can_pack(module)
    ]
    weights = (*backbone.parameters(), *backbone.buffers())
    watch = _Most({each.untyped_storage().data_ptr() for each in weights})
    try:
        with torch.no_grad(), watch:
            features(clip)
    finally:
        for hook in hooks:
            hook.remove()
    return Passed(shapes, watch.most)


def pack_convolutions(shapes: Mapping[nn.Module, torch.Size], clips: int) -> None:
    """Pack convolutions in place for several times what one clip made them read.

    One that read something without a batch axis stays as it is.
    """
    for module, (images, *shape) in shapes.items():
        conv: Any = module
        if len(shape) + 1 == conv.weight.dim():
            pack(conv, (clips * images, *shape))


# Bytes. A C library keeps what is freed for the next who asks, but not all: glibc returns blocks above 32 MiB to the
# system, and what lies free at its heap's end beyond twice that; the next pass then gets them back page by page.
TOGETHER = 32 * 2**20


def clips_together(most: int) -> int:
    """How many clips pass a backbone at once on a CPU: as many as keep its largest operation within ``TOGETHER``.

    More take longer each (docs/performance.md, "How many clips at once"), and more memory.

    Args:
        most: bytes that the operation reads and writes for one clip.
    """
    return max(1, TOGETHER // max(most, 1))


@dataclass(frozen=True)
class Seen:
    """A batch of clips after the first pass."""

    features: Tensor  # (B, C, T', h, w) of the original video
    source: Tensor  # (B, 3, T, H', W') frames that the zoomed videos are read from
    size: tuple[int, int]  # (H, W) of the network's input


class InferenceNetwork(nn.Module):
    """A trained model's answers, rewritten as above; the model itself is left as it is.

    Args:
        model: with ``preprocess``.
        fixed_shapes: only shapes that do not depend on what is in a clip, and one path whatever the batch, which is
            what a graph that is traced and exported can hold; convolutions then stay PyTorch's own.
        dtype: of the convolutions, as in a training with ``--precision bf16-mixed`` or ``16-mixed``.
    """

    def __init__(
        self, model: PeakZoom, *, fixed_shapes: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess.from_dict(model.preprocess)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        backbone: Any = self.model.backbone
        fold_batch_norms(backbone, self.preprocess.frames, self.preprocess.size)
        self.step = take_strides_first(backbone)
        self.model.attention.every_cell = fixed_shapes
        self.dtype = dtype
        if dtype != torch.float32:
            for module in backbone.modules():  # once, rather than at every call
                if isinstance(module, CONVOLUTIONS):
                    module.to(dtype)
        self.together: int | None = None  # clips that pass the backbone at once on a CPU; all, if None
        if not fixed_shapes and next(backbone.parameters()).device.type == "cpu":
            frames, size = -(-self.preprocess.frames // self.step), self.preprocess.size
            passed = pass_one(backbone, self._features, torch.zeros((1, 3, frames, size, size)))
            self.together = clips_together(passed.most)
            pack_convolutions(passed.shapes, self.together)

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (B, S) of every branch and "fused" from uint8 views (B, T, 3, s, s), s = size x zoom_source."""
        return self.answer(self.look(views))

    def answer(self, seen: Seen) -> dict[str, Tensor]:
        """The same from a first pass."""
        pooled = {"original": self.model.gather(seen.features)}
        if self.model.branches != ("original",):
            pooled |= self.look_closer(seen)
        return self.model.classify({name: pooled[name] for name in self.model.branches}).logits()

    def look(self, views: Tensor) -> Seen:
        """The first pass: features of the original video."""
        video, source = to_input(views[:, :: self.step], self.preprocess)  # no other frame is looked at
        features = self._features(video)
        return Seen(features, video if source is None else source, (video.shape[3], video.shape[4]))

    def look_closer(self, seen: Seen) -> dict[str, Tensor]:
        """The second pass: what the classifiers read of the two zoomed videos."""
        pooled = self.model.gather(self._features(self.zoom(seen)))
        discriminative, complementary = pooled.unflatten(0, (2, -1)).unbind()
        return {"discriminative": discriminative, "complementary": complementary}

    def zoom(self, seen: Seen) -> Tensor:
        """What lies between the passes: the zoomed videos (2 B, 3, T, H, W), first the discriminative ones."""
        responses, peaks = self.model.respond(seen.features, self.preprocess.frames, seen.size, self.step)
        return self.model.zoom(seen.source, responses, peaks, seen.size)[2]

    def _features(self, video: Tensor) -> Tensor:
        """The backbone's, float32; a batch of many clips in parts of equal size, or nearly."""
        if self.together is None or len(video) <= self.together or video.device.type != "cpu":
            return self._features_of(video)
        parts = video.tensor_split(-(-len(video) // self.together))
        return torch.cat([self._features_of(part) for part in parts])

    def _features_of(self, video: Tensor) -> Tensor:
        """Autocast gives each operation inputs of the precision that it is safe in."""
        features: Any = self.model.backbone.features
        if self.dtype == torch.float32:
            return features(video)
        with torch.autocast(video.device.type, self.dtype):
            return features(video).float()
