"""TimeSformer, ViViT, V-JEPA 2: logits of transformers' own, and what their one token read of each patch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import Shapes, timesformer, vivit, vjepa2
from torch import Tensor, nn

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES, TORCHVISION, VideoNetwork
from peakzoom.model.backbones.patches import PatchNetwork
from peakzoom.model.backbones.reading import fast_gelu_gate, gelu_gate, shared_block, shared_norm, taken
from peakzoom.utils.errors import UserError

transformers = pytest.importorskip("transformers")

HEADS = {"timesformer": 12, "vivit": 12, "vjepa2_l": 16}  # at width 1
PUBLISHED: dict[str, Callable[[], Shapes]] = {"timesformer": timesformer, "vivit": vivit, "vjepa2_l": vjepa2}
SHAPES = [("timesformer", 3, 48, 3), ("timesformer", 1, 16, 1), ("timesformer", 4, 32, 2)]
SHAPES += [("vivit", 4, 48, 3), ("vivit", 2, 16, 1), ("vjepa2_l", 4, 48, 2), ("vjepa2_l", 2, 32, 1)]


def network_of(name: str, frames: int, size: int, layers: int = 2, heads: int = 2) -> PatchNetwork:
    """Weights far from those that it is made with, so that every part matters."""
    torch.manual_seed(frames + size)
    network = BACKBONES[name](5, heads / HEADS[name], frames=frames, size=size, layers=layers).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.2)
    assert isinstance(network, PatchNetwork)
    return network


def clips(frames: int, size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def library(name: str, frames: int, size: int, layers: int, heads: int) -> Any:
    """transformers' own classifier, of the same shape."""
    shape = {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": 64 * heads,
        "num_labels": 5,
    }
    if name == "vjepa2_l":
        short = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        config = transformers.VJEPA2Config(crop_size=size, frames_per_clip=frames, **shape, **short)
        return transformers.VJEPA2ForVideoClassification(config).eval()
    shape |= {"image_size": size, "num_frames": frames, "intermediate_size": 256 * heads}
    if name == "vivit":
        return transformers.VivitForVideoClassification(transformers.VivitConfig(**shape)).eval()
    return transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**shape)).eval()


@pytest.mark.parametrize(("name", "frames", "size", "layers"), SHAPES)
@pytest.mark.parametrize("heads", [1, 2])
def test_logits_are_those_of_transformers(name: str, frames: int, size: int, layers: int, heads: int) -> None:
    network = network_of(name, frames, size, layers, heads)
    published = library(name, frames, size, layers, heads)
    adapted = network.adapt_weights(published.state_dict())
    kept = {key: value for key, value in adapted.items() if not key.startswith("predictor.")}
    assert kept.keys() == network.state_dict().keys()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            kept[key].copy_(value)
        video = clips(frames, size)
        wanted = published(video.transpose(1, 2)).logits
        assert torch.allclose(network(video), wanted, atol=2e-5 * float(wanted.abs().max()))


# How the token is divided --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "gelu"), [(gelu_gate, nn.GELU()), (fast_gelu_gate, nn.GELU("tanh"))])
def test_gates_make_gelu(gate: Callable[[Tensor], Tensor], gelu: nn.Module) -> None:
    hidden = torch.linspace(-9, 9, 1001)
    assert torch.allclose(hidden * gate(hidden), gelu(hidden), atol=1e-5)


@pytest.mark.parametrize("patches", [1, 7])
def test_shares_are_linear_and_their_mean_is_the_block(patches: int) -> None:
    """By the definition: with the factors of the mean held, each share goes through the same affine map."""
    torch.manual_seed(patches)
    norm, last, first, second = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 24), nn.Linear(24, 6)
    for vector in (norm.weight, norm.bias, last.weight, last.bias):
        nn.init.normal_(vector)
    tokens = torch.randn(2, patches, 6, requires_grad=True)
    mean = tokens.mean(1)
    found = shared_norm(shared_block(tokens, norm, first, gelu_gate, second), last)
    wanted = last(mean + second(nn.functional.gelu(first(norm(mean)))))
    assert torch.allclose(found.mean(1), wanted, atol=1e-5)
    drawn = torch.randn(2, 6)
    ours, theirs = (
        torch.autograd.grad((drawn * each).sum(), tokens, retain_graph=True)[0]
        for each in (found.mean(1), wanted)
    )
    assert torch.allclose(ours, theirs, atol=1e-5)

    for clip in range(2):  # one patch after the other, with numbers in place of layers
        u = mean[clip].detach()
        s = (u.var(correction=0) + norm.eps).sqrt()
        normed = (tokens[clip] - tokens[clip].mean(1, keepdim=True)) / s * norm.weight + norm.bias
        factor = nn.functional.gelu(first(norm(u))) / first(norm(u))
        after = tokens[clip] + second(first(normed) * factor)
        s = (after.mean(0).var(correction=0) + last.eps).sqrt()
        one = (after - after.mean(1, keepdim=True)) / s * last.weight + last.bias
        assert torch.allclose(found[clip], one, atol=1e-4)


def test_what_is_taken_of_each_patch_adds_up_to_attention() -> None:
    torch.manual_seed(0)
    attention, values, project = torch.rand(2, 3, 5).softmax(-1), torch.randn(2, 3, 5, 4), nn.Linear(12, 12)
    read = taken(attention, values, project)
    wanted = project((attention[:, :, None] @ values).transpose(1, 2).flatten(2))[:, 0]
    assert torch.allclose(read.sum(1) + project.bias, wanted, atol=1e-6)
    alone = attention * torch.eye(5)[2]
    assert (taken(alone, values, project).abs().amax(-1) > 0).tolist() == 2 * [
        [False, False, True, False, False]
    ]


@pytest.mark.parametrize("name", HEADS)
def test_class_maps_add_up_to_the_logits(name: str) -> None:
    """Eq. 1: the mean of a class's map and its bias are its logit."""
    model = PeakZoom(network_of(name, 4, 48), 5, branches=("original",)).eval()
    video = clips(4, 48)
    with torch.no_grad():
        features = model.backbone.features(video)
        maps, _ = model.class_maps(features)
        logits = maps.mean((2, 3, 4)) + model.backbone.fc.bias
        scale = float(maps.abs().max())
        assert torch.allclose(logits, model(video).fused, rtol=1e-4, atol=1e-5 * scale)
        assert maps.flatten(2).std(-1).min() > 1e-3


@pytest.mark.parametrize("name", HEADS)
def test_a_map_is_high_where_the_one_patch_is_that_differs(name: str) -> None:
    """A patch of noise in a grey clip, anywhere: features differ most from those of the grey clip in its cell."""
    network = network_of(name, 4, 48, layers=1)
    if name == "vjepa2_l":  # its pooler has further blocks
        network.body.pooler.self_attention_layers = network.body.pooler.self_attention_layers[:1]
    cells, tubelet = network.cells, network.tubelet
    generator = torch.Generator().manual_seed(3)
    grey = torch.zeros(1, 3, 4, 48, 48)
    with torch.no_grad():
        plain = network.features(grey)
        for place in ((0, 0, 0), (4 // tubelet - 1, 2, 1), (0, 1, 2), (1, 0, 1)):
            video = grey.clone()
            t, y, x = (n * s for n, s in zip(place, (tubelet, 16, 16), strict=True))
            patch = video[:, :, t : t + tubelet, y : y + 16, x : x + 16]
            patch.copy_(2 * torch.randn(patch.shape, generator=generator))
            moved = (network.features(video) - plain).square().sum(1)[0]
            at = torch.unravel_index(moved.argmax(), moved.shape)
            seen = [o + float(n) * s for o, n, s in zip(cells.offset, at, cells.stride, strict=True)]
            middle = (t + (tubelet - 1) / 2, y + 7.5, x + 7.5)
            off = [abs(a - b) / s for a, b, s in zip(seen, middle, cells.stride, strict=True)]
            assert max(off[1:]) <= 0.5, (name, place)
            assert (
                off[0] <= 0.5 or name == "timesformer"
            )  # whose patches first see their place at other times


@pytest.mark.parametrize("name", HEADS)
def test_where_nothing_is_read_nothing_is_told(name: str) -> None:
    network = network_of(name, 4, 48)
    if name == "timesformer":
        qkv = network.body.encoder.layer[-1].attention.attention.qkv
        values = [qkv.weight[2 * 128 :], qkv.bias[2 * 128 :]]
    elif name == "vivit":
        values = list(network.body.layers[-1].attention.v_proj.parameters())
    else:
        values = list(network.body.pooler.cross_attention_layer.cross_attn.v_proj.parameters())
    with torch.no_grad():
        for each in values:
            each.zero_()
        features = network.features(clips(4, 48)).flatten(2)
    assert torch.equal(features, features[..., :1].expand_as(features))


def attention(tokens: int, channels: int = 768) -> float:
    """G multiply-adds of queries and of attention itself."""
    return (tokens * channels**2 + 2 * tokens**2 * channels) / 1e9


# As the others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
def test_published_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](174 if name == "vjepa2_l" else 400)
        table = {key: torch.empty(shape) for key, shape in PUBLISHED[name]().items()}
    assert isinstance(network, PatchNetwork)
    adapted = network.adapt_weights(table)
    assert {key: v.shape for key, v in adapted.items() if not key.startswith("predictor.")} == {
        key: v.shape for key, v in network.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "frames", "size", "cost", "spared", "millions"),
    [
        ("timesformer", 8, 224, 590 / 3, 8 * attention(197), 121.4),
        ("vivit", 32, 224, 455.2, attention(3137), 88.9),
    ],
)
def test_published_cost(
    name: str, frames: int, size: int, cost: float, spared: float, millions: float
) -> None:
    """G multiply-adds of a clip and M parameters: 0.59 T for three views of TimeSformer, and of ViViT's model 1.

    In the last block only the class token attends here: what the patches' attention costs is spared."""
    with torch.device("meta"):
        network = BACKBONES[name](400)
    assert parameters(network) / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiply_adds(network, frames=frames, size=size) + spared == pytest.approx(cost, rel=0.01)


def test_cost_of_vjepa2_layer_by_layer() -> None:
    """Of which nothing is published: 24 blocks of the encoder, 3 of the pooler, and the query's own."""
    with torch.device("meta"):
        network = BACKBONES["vjepa2_l"](174)
    n, c = 8 * 16 * 16, 1024
    wanted = 27 * (12 * n * c**2 + 2 * n**2 * c) + 1536 * n * c + 10 * n * c**2 + n * c
    assert multiply_adds(network, frames=16, size=256) == pytest.approx(wanted / 1e9, rel=1e-3)


@pytest.mark.parametrize("name", [*HEADS, "videomae_s"])
def test_gradients_are_the_same_when_they_are_checkpointed(name: str) -> None:
    torch.manual_seed(0)
    small = {} if name == "videomae_s" else {"layers": 2}
    network = BACKBONES[name](3, width=1 / 8, frames=4, size=32, **small).train()
    video = clips(4, 32)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            network.checkpoint_gradients()
        assert any(getattr(m, "gradient_checkpointing", False) for m in network.modules()) == checkpointed
        network.zero_grad()
        network(video).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0 and torch.allclose(plain, again, rtol=1e-4, atol=1e-6)


def test_other_networks_say_that_they_have_none() -> None:
    network = BACKBONES["tcnn_xs"](3, width=0.125)
    assert isinstance(network, VideoNetwork)
    with pytest.raises(UserError, match="TCNN has no gradient checkpointing"):
        network.checkpoint_gradients()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("options", [{"frames": 3}, {"size": 40}, {"max_stride": 8}, {"frames": 0}])
def test_what_cannot_be_cut_into_patches(name: str, options: dict[str, int]) -> None:
    if name == "timesformer" and options == {"frames": 3}:
        return
    with pytest.raises(UserError, match=f"{name} takes .* a size that is a multiple of 16 pixels"):
        BACKBONES[name](3, **options)


@pytest.mark.parametrize("name", HEADS)
def test_other_clips_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        network_of(name, 4, 32)(clips(2, 32))


@pytest.mark.parametrize("name", HEADS)
def test_without_transformers_one_sentence_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=f"{name} needs transformers, which is not installed: pip install"):
        BACKBONES[name](3)


def test_the_predictor_of_a_file_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    from peakzoom.model.weights import load_weights

    network, published = network_of("vjepa2_l", 4, 32), library("vjepa2_l", 4, 32, 2, 2)
    torch.save(published.state_dict(), tmp_path / "v.pt")
    notes = load_weights(network, tmp_path / "v.pt")
    assert any("predictor of v.pt left out" in note for note in notes)
    video = clips(4, 32)
    with torch.no_grad():
        assert torch.allclose(network(video), published(video.transpose(1, 2)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_it_becomes_a_graph_for_any_number_of_clips(name: str) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    from peakzoom.inference.engines.onnx import OnnxEngine, to_onnx
    from peakzoom.inference.engines.openvino import OpenVinoEngine, from_onnx
    from peakzoom.video.views import Preprocess, to_input

    clip = Preprocess(size=32, frames=4, canvas=(32, 32))
    model = PeakZoom(network_of(name, 4, 32, 1), 5, branches=("original",), preprocess=clip.to_dict()).eval()
    graph = to_onnx(model)
    for engine in (OnnxEngine(graph), OpenVinoEngine(from_onnx(graph))):
        for batch in (1, 2, 4):
            generator = torch.Generator().manual_seed(batch)
            views = torch.randint(0, 256, (batch, 4, 3, 32, 32), generator=generator, dtype=torch.uint8)
            with torch.no_grad():
                wanted = model(*to_input(views, clip)).fused
            scale = float(wanted.abs().max())
            assert torch.allclose(engine(views)["fused"], wanted, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("broken", [False, True])
def test_without_torchvision_one_sentence_says_what_to_install(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is missing, and where it is of another PyTorch."""
    if broken:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no operator nms')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "torchvision", None)
    said = r"does not load \(no operator nms\)" if broken else "is not installed"
    for name in TORCHVISION:
        with pytest.raises(UserError, match=f"{name} needs torchvision, which {said}: pip install"):
            BACKBONES[name](3)
