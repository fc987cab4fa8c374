"""Names and shapes of public weight files, as the code that wrote them has them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def batch_norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{vector}": (channels,) for vector in vectors}, f"{name}.num_batches_tracked": ()}


def c3d_table() -> Shapes:
    table: Shapes = {"fc.weight": (400, 512), "fc.bias": (400,)}
    channels = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
    into = 3
    for name, out in channels.items():
        table |= {f"conv{name}.weight": (out, into, 3, 3, 3), f"conv{name}.bias": (out,)}
        into = out
    return table


RESNET = [  # block, channels in and out, R(2+1)D's channels between
    ("layer1.0", 64, 64, 144),
    ("layer1.1", 64, 64, 144),
    ("layer2.0", 64, 128, 230),
    ("layer2.1", 128, 128, 288),
    ("layer3.0", 128, 256, 460),
    ("layer3.1", 256, 256, 576),
    ("layer4.0", 256, 512, 921),
    ("layer4.1", 512, 512, 1152),
]


def r3d_table() -> Shapes:
    table: Shapes = {"fc.weight": (400, 512), "fc.bias": (400,), "stem.0.weight": (64, 3, 3, 7, 7)}
    table |= batch_norm("stem.1", 64)
    for block, into, out, _ in RESNET:
        table |= {f"{block}.conv1.0.weight": (out, into, 3, 3, 3), **batch_norm(f"{block}.conv1.1", out)}
        table |= {f"{block}.conv2.0.weight": (out, out, 3, 3, 3), **batch_norm(f"{block}.conv2.1", out)}
        if into != out:
            table |= {f"{block}.downsample.0.weight": (out, into, 1, 1, 1)}
            table |= batch_norm(f"{block}.downsample.1", out)
    return table


def r2plus1d_table() -> Shapes:
    table: Shapes = {"fc.weight": (400, 512), "fc.bias": (400,), "stem.0.weight": (45, 3, 1, 7, 7)}
    table |= {**batch_norm("stem.1", 45), "stem.3.weight": (64, 45, 3, 1, 1), **batch_norm("stem.4", 64)}
    for block, into, out, between in RESNET:
        for conv, first in (("conv1", into), ("conv2", out)):
            table[f"{block}.{conv}.0.0.weight"] = (between, first, 1, 3, 3)
            table |= batch_norm(f"{block}.{conv}.0.1", between)
            table[f"{block}.{conv}.0.3.weight"] = (out, between, 3, 1, 1)
            table |= batch_norm(f"{block}.{conv}.1", out)
        if into != out:
            table |= {f"{block}.downsample.0.weight": (out, into, 1, 1, 1)}
            table |= batch_norm(f"{block}.downsample.1", out)
    return table


# torchvision.models.resnet50().state_dict(), 1,000 classes: a layer's blocks, channels in, within and out.
LAYERS = {
    "layer1": (3, 64, 64, 256),
    "layer2": (4, 256, 128, 512),
    "layer3": (6, 512, 256, 1024),
    "layer4": (3, 1024, 512, 2048),
}


def torchvision_resnet50() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_and_norm(conv: str, norm: str, weight: tuple[int, ...]) -> None:
        shapes[f"{conv}.weight"] = weight
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = (weight[0],)
        shapes[f"{norm}.num_batches_tracked"] = ()

    conv_and_norm("conv1", "bn1", (64, 3, 7, 7))
    for layer, (blocks, before, within, after) in LAYERS.items():
        for block in range(blocks):
            at = f"{layer}.{block}"
            conv_and_norm(f"{at}.conv1", f"{at}.bn1", (within, before if block == 0 else after, 1, 1))
            conv_and_norm(f"{at}.conv2", f"{at}.bn2", (within, within, 3, 3))
            conv_and_norm(f"{at}.conv3", f"{at}.bn3", (after, within, 1, 1))
            if block == 0:
                conv_and_norm(f"{at}.downsample.0", f"{at}.downsample.1", (after, before, 1, 1))
    return {**shapes, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


# piergiaj/pytorch-i3d, InceptionI3d().state_dict(): convolutions and their shapes (out, in, time, height, width).
STEM = {
    "Conv3d_1a_7x7": (64, 3, 7, 7, 7),
    "Conv3d_2b_1x1": (64, 64, 1, 1, 1),
    "Conv3d_2c_3x3": (192, 64, 3, 3, 3),
}
INCEPTION = """
         in   b0  b1a  b1b  b2a  b2b  b3b
    3b  192   64   96  128   16   32   32
    3c  256  128  128  192   32   96   64
    4b  480  192   96  208   16   48   64
    4c  512  160  112  224   24   64   64
    4d  512  128  128  256   24   64   64
    4e  512  112  144  288   32   64   64
    4f  528  256  160  320   32  128  128
    5b  832  256  160  320   32  128  128
    5c  832  384  192  384   48  128  128
"""


def i3d_port(classes: int) -> dict[str, tuple[int, ...]]:
    convolutions = dict(STEM)
    for line in INCEPTION.strip().splitlines()[1:]:
        name, *numbers = line.split()
        before, b0, b1a, b1b, b2a, b2b, b3b = map(int, numbers)
        for branch, out, into, kernel in (
            ("b0", b0, before, 1),
            ("b1a", b1a, before, 1),
            ("b1b", b1b, b1a, 3),
            ("b2a", b2a, before, 1),
            ("b2b", b2b, b2a, 3),
            ("b3b", b3b, before, 1),
        ):
            convolutions[f"Mixed_{name}.{branch}"] = (out, into, kernel, kernel, kernel)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in convolutions.items():
        shapes[f"{name}.conv3d.weight"] = weight
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{kind}"] = (weight[0],)
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    return {
        **shapes,
        "logits.conv3d.weight": (classes, 1024, 1, 1, 1),
        "logits.conv3d.bias": (classes,),
    }


def mit_han_lab(shifted: bool) -> Shapes:
    """TSN and TSM of mit-han-lab/temporal-shift-module, 400 classes: a wrapped ResNet-50 and a classifier."""
    body = {
        f"base_model.{name}": shape for name, shape in torchvision_resnet50().items() if name[:3] != "fc."
    }
    if shifted:  # in every block the first convolution is within a TemporalShift
        body = {
            name.replace(".conv1.weight", ".conv1.net.weight") if ".layer" in name else name: shape
            for name, shape in body.items()
        }
    return {f"module.{name}": s for name, s in body.items()} | {
        "module.new_fc.weight": (400, 2048),
        "module.new_fc.bias": (400,),
    }


def mmaction2(shifted: bool) -> Shapes:
    """TSN and TSM of MMAction2, 400 classes: each convolution and its norm are one module."""
    table: Shapes = {"cls_head.fc_cls.weight": (400, 2048), "cls_head.fc_cls.bias": (400,)}
    for name, shape in torchvision_resnet50().items():
        *at, last, vector = name.split(".")
        if last == "fc":
            continue
        if at[-1:] == ["downsample"]:
            last = {"0": "conv", "1": "bn"}[last]
        else:
            kind, number = last[:-1], last[-1]
            net = ".net" if shifted and kind == "conv" and number == "1" and at else ""
            last = f"conv{number}.{kind}{net}"
        table[".".join(["backbone", *at, last, vector])] = shape
    return table


def videomae(channels: int, layers: int, classes: int = 400) -> Shapes:
    """``VideoMAEForVideoClassification`` of transformers 4, by which the files on the hub were written."""
    at = "videomae.embeddings.patch_embeddings.projection"
    table: Shapes = {f"{at}.weight": (channels, 3, 2, 16, 16), f"{at}.bias": (channels,)}
    for layer in range(layers):
        at = f"videomae.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            table[f"{at}.attention.attention.{name}.weight"] = (channels, channels)
        for name in ("q_bias", "v_bias"):
            table[f"{at}.attention.attention.{name}"] = (channels,)
        for name, (out, into) in {
            "attention.output.dense": (channels, channels),
            "intermediate.dense": (4 * channels, channels),
            "output.dense": (channels, 4 * channels),
        }.items():
            table |= {f"{at}.{name}.weight": (out, into), f"{at}.{name}.bias": (out,)}
        for name in ("layernorm_before", "layernorm_after"):
            table |= {f"{at}.{name}.weight": (channels,), f"{at}.{name}.bias": (channels,)}
    for name in ("weight", "bias"):
        table[f"fc_norm.{name}"] = (channels,)
    return {**table, "classifier.weight": (classes, channels), "classifier.bias": (classes,)}


def random_state(table: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of these names and shapes, of a size that neither dies out nor explodes on its way through a network."""
    draw = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in table.items():
        if not shape:
            state[name] = torch.tensor(0)
        elif len(shape) > 1:
            state[name] = torch.randn(shape, generator=draw) * (2 / math.prod(shape[1:])) ** 0.5
        elif name.endswith(("weight", "var")):
            state[name] = 0.6 + 0.3 * torch.rand(shape, generator=draw)
        else:
            state[name] = 0.2 * torch.randn(shape, generator=draw)
    return state


def slowfast_table() -> Shapes:
    """slowfast_r50 of pytorchvideo, 400 classes: stems, four stages of both pathways, fusions, projection."""
    table: Shapes = {"blocks.6.proj.weight": (400, 2304), "blocks.6.proj.bias": (400,)}

    def conv(at: str, norm: str, shape: tuple[int, ...]) -> None:
        table.update({f"{at}.weight": shape, **batch_norm(norm, shape[0])})

    for path, (channels, time) in enumerate(((64, 1), (8, 5))):
        at = f"blocks.0.multipathway_blocks.{path}"
        conv(f"{at}.conv", f"{at}.norm", (channels, 3, time, 7, 7))
    for stage, channels in enumerate((8, 32, 64, 128)):
        at = f"blocks.{stage}.multipathway_fusion"
        conv(f"{at}.conv_fast_to_slow", f"{at}.norm", (2 * channels, channels, 7, 1, 1))
    stages = ((3, (80, 8)), (4, (320, 32)), (6, (640, 64)), (3, (1280, 128)))  # blocks, channels in
    for stage, (blocks, before) in enumerate(stages):
        for path, inside in enumerate((64 << stage, 8 << stage)):
            time = 3 if path or stage > 1 else 1
            into = before[path]
            for block in range(blocks):
                at = f"blocks.{stage + 1}.multipathway_blocks.{path}.res_blocks.{block}"
                if block == 0:
                    conv(f"{at}.branch1_conv", f"{at}.branch1_norm", (4 * inside, into, 1, 1, 1))
                for letter, shape in (
                    ("a", (inside, into, time, 1, 1)),
                    ("b", (inside, inside, 1, 3, 3)),
                    ("c", (4 * inside, inside, 1, 1, 1)),
                ):
                    conv(f"{at}.branch2.conv_{letter}", f"{at}.branch2.norm_{letter}", shape)
                into = 4 * inside
    return table


def s3d_table() -> Shapes:
    """torchvision's s3d, 400 classes: a convolution is module 0 of its unit, its norm module 1."""
    table: Shapes = {"classifier.1.weight": (400, 1024, 1, 1, 1), "classifier.1.bias": (400,)}

    def unit(at: str, shape: tuple[int, ...]) -> None:
        table.update({f"{at}.0.weight": shape, **batch_norm(f"{at}.1", shape[0])})

    def separable(at: str, into: int, out: int, size: int) -> None:
        unit(f"{at}.0", (out, into, 1, size, size))
        unit(f"{at}.1", (out, out, size, 1, 1))

    separable("features.0", 3, 64, 7)
    unit("features.2", (64, 64, 1, 1, 1))
    separable("features.3", 64, 192, 3)
    places = (5, 6, 8, 9, 10, 11, 12, 14, 15)
    for place, line in zip(places, INCEPTION.strip().splitlines()[1:], strict=True):
        before, b0, b1a, b1b, b2a, b2b, b3b = map(int, line.split()[1:])
        at = f"features.{place}.branch"
        unit(f"{at}0", (b0, before, 1, 1, 1))
        unit(f"{at}1.0", (b1a, before, 1, 1, 1))
        separable(f"{at}1.1", b1a, b1b, 3)
        unit(f"{at}2.0", (b2a, before, 1, 1, 1))
        separable(f"{at}2.1", b2a, b2b, 3)
        unit(f"{at}3.1", (b3b, before, 1, 1, 1))
    return table


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def layer_norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def timesformer(classes: int = 400) -> Shapes:
    """``TimesformerForVideoClassification`` of 8 frames of 224 pixels."""
    c, at = 768, "timesformer.embeddings"
    table: Shapes = {
        f"{at}.cls_token": (1, 1, c),
        f"{at}.position_embeddings": (1, 197, c),
        f"{at}.time_embeddings": (1, 8, c),
        f"{at}.patch_embeddings.projection.weight": (c, 3, 16, 16),
        f"{at}.patch_embeddings.projection.bias": (c,),
    }
    for layer in range(12):
        at = f"timesformer.encoder.layer.{layer}"
        for attention in ("attention", "temporal_attention"):
            table |= linear(f"{at}.{attention}.attention.qkv", 3 * c, c)
            table |= linear(f"{at}.{attention}.output.dense", c, c)
        table |= linear(f"{at}.temporal_dense", c, c)
        table |= linear(f"{at}.intermediate.dense", 4 * c, c) | linear(f"{at}.output.dense", c, 4 * c)
        for name in ("layernorm_before", "layernorm_after", "temporal_layernorm"):
            table |= layer_norm(f"{at}.{name}", c)
    return table | layer_norm("timesformer.layernorm", c) | linear("classifier", classes, c)


def vivit(classes: int = 400) -> Shapes:
    """``VivitForVideoClassification`` of transformers 4, of 32 frames of 224 pixels."""
    c, at = 768, "vivit.embeddings"
    table: Shapes = {
        f"{at}.cls_token": (1, 1, c),
        f"{at}.position_embeddings": (1, 16 * 196 + 1, c),
        f"{at}.patch_embeddings.projection.weight": (c, 3, 2, 16, 16),
        f"{at}.patch_embeddings.projection.bias": (c,),
    }
    for layer in range(12):
        at = f"vivit.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            table |= linear(f"{at}.attention.attention.{name}", c, c)
        table |= linear(f"{at}.attention.output.dense", c, c)
        table |= linear(f"{at}.intermediate.dense", 4 * c, c) | linear(f"{at}.output.dense", c, 4 * c)
        table |= layer_norm(f"{at}.layernorm_before", c) | layer_norm(f"{at}.layernorm_after", c)
    return table | layer_norm("vivit.layernorm", c) | linear("classifier", classes, c)


def vjepa2(classes: int = 174) -> Shapes:
    """``VJEPA2ForVideoClassification`` on ViT-L: encoder, predictor, attentive pooler, classifier."""
    c, p = 1024, 384

    def mlp(at: str, channels: int) -> Shapes:
        return linear(f"{at}.mlp.fc1", 4 * channels, channels) | linear(
            f"{at}.mlp.fc2", channels, 4 * channels
        )

    def block(at: str, channels: int) -> Shapes:
        table = layer_norm(f"{at}.norm1", channels) | layer_norm(f"{at}.norm2", channels) | mlp(at, channels)
        for name in ("query", "key", "value", "proj"):
            table |= linear(f"{at}.attention.{name}", channels, channels)
        return table

    at = "vjepa2.encoder.embeddings.patch_embeddings.proj"
    table: Shapes = {f"{at}.weight": (c, 3, 2, 16, 16), f"{at}.bias": (c,)}
    for layer in range(24):
        table |= block(f"vjepa2.encoder.layer.{layer}", c)
    table |= layer_norm("vjepa2.encoder.layernorm", c)
    table["vjepa2.predictor.embeddings.mask_tokens"] = (10, 1, 1, p)
    table |= linear("vjepa2.predictor.embeddings.predictor_embeddings", p, c)
    for layer in range(12):
        table |= block(f"vjepa2.predictor.layer.{layer}", p)
    table |= layer_norm("vjepa2.predictor.layernorm", p) | linear("vjepa2.predictor.proj", c, p)
    table["pooler.query_tokens"] = (1, 1, c)
    ways = {"cross_attention_layer": ("cross_attn", "qkv")}
    ways |= {f"self_attention_layers.{layer}": ("self_attn", "qkv+") for layer in range(3)}
    for name, (attention, parts) in ways.items():
        at = f"pooler.{name}"
        table |= layer_norm(f"{at}.layer_norm1", c) | layer_norm(f"{at}.layer_norm2", c) | mlp(at, c)
        for part in parts:
            table |= linear(f"{at}.{attention}.{'out' if part == '+' else part}_proj", c, c)
    return table | linear("classifier", classes, c)
