"""``TCNN`` against Table 1 as docs/choices.md reconstructs it, and ``PeakZoom``: branches, loss, gradients, saving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model import reference as ref
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.explanation.classes import frame_probabilities
from peakzoom.inference.network import InferenceNetwork
from peakzoom.model import (
    BACKBONES,
    TCNN,
    PeakZoom,
    PeakZoomConfig,
    class_response_maps,
    evidence_map,
    find_peaks,
    frame_scores,
    further_peaks,
    normalise,
    place_response,
)
from peakzoom.model.backbones import TORCHVISION, motion, options_for
from peakzoom.model.backbones.motion import MOTION_GAIN, convolve_with_motion, with_motion
from peakzoom.video.views import Preprocess

WIDTH = 1 / 16
CLASSES = 4
BRANCHES = ["original", "discriminative", "complementary", "fused"]


# The T-CNN (section 1) -----------------------------------------------------------------------------------------------


def convolutions(network: nn.Module) -> list[nn.Conv3d]:
    """All but those of the shortcuts, which alone are 1 x 1 x 1."""
    return [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.kernel_size != (1, 1, 1)]


def first_of(network: nn.Module) -> nn.Conv3d:
    return next(m for m in network.modules() if isinstance(m, nn.Conv3d))


@pytest.fixture(scope="module")
def paper() -> TCNN:
    """The paper's size without memory for its numbers."""
    with torch.device("meta"):
        return TCNN(101).eval()


def test_multiply_adds_and_parameters(paper: TCNN) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        paper(torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert 15.7e9 <= counter.get_total_flops() / 2 <= 15.9e9
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(31e6, rel=0.02)


def test_36_convolutions_with_the_table_s_channels_and_dilations(paper: TCNN) -> None:
    stages = {64: "-", 96: "-", 160: "-444-4", 224: "-24", 288: "-22-", 512: "-2"}
    wanted = [(32, 1), (32, 1)]
    for channels, blocks in stages.items():
        for dilation in blocks:
            wanted += [(channels, 1), (channels, 1 if dilation == "-" else int(dilation))]
    found = [(m.out_channels, m.dilation[0]) for m in convolutions(paper)]
    assert len(found) == 36
    assert found == wanted
    for m in convolutions(paper):
        assert m.dilation[1:] == (1, 1)
        assert m.kernel_size == ((3, 3, 3) if m.dilation[0] > 1 else (1, 3, 3))


def test_output_sizes_of_the_stages(paper: TCNN) -> None:
    wanted = {
        32: (8, 56, 56),
        64: (8, 56, 56),
        96: (8, 28, 28),
        160: (8, 14, 14),
        224: (8, 7, 7),
        288: (4, 7, 7),
        512: (4, 7, 7),
    }
    found: dict[int, tuple[int, ...]] = {}

    def note(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        found[output.shape[1]] = tuple(output.shape[2:])

    hooks = [m.register_forward_hook(note) for m in convolutions(paper)]
    with torch.no_grad():
        features = paper.features(torch.empty(2, 3, 16, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    assert found == wanted
    assert tuple(features.shape) == (2, 512, 4, 7, 7)
    assert paper.num_features == 512


def test_logits_are_the_layer_on_the_pooled_features() -> None:
    network = TCNN(5, width=WIDTH).eval()
    video = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = network.features(video).mean((2, 3, 4))
        torch.testing.assert_close(network(video), F.linear(pooled, network.fc.weight, network.fc.bias))
    assert pooled.shape[1] == network.num_features == network.fc.in_features


def test_every_convolution_has_a_norm_and_dropout_is_there() -> None:
    network = TCNN(5, width=WIDTH, dropout=0.37)
    kinds = [type(m) for m in network.modules()]
    assert kinds.count(nn.BatchNorm3d) == kinds.count(nn.Conv3d)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.37]
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv3d)), (
        "a norm follows: no bias"
    )


@pytest.mark.parametrize("name", ["tcnn", "tcnn_16", "tcnn_local", "tcnn_s", "tcnn_xs"])
def test_named_sizes(name: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](7).eval()
        video = torch.empty(1, 3, 16, 96, 96)
    with torch.no_grad():
        features = network.features(video)
        assert tuple(network(video).shape) == (1, 7)
    assert features.shape[1] == network.num_features
    if name in (sizes := {"tcnn": 31.3e6, "tcnn_16": 23.5e6, "tcnn_local": 12.9e6}):
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(sizes[name], rel=0.01)
    else:
        assert min(features.shape[-2:]) >= 6, "small inputs need at least 6 x 6 cells"
        assert sum(p.numel() for p in network.parameters()) < 10e6


def stem_input(network: TCNN, clips: torch.Tensor) -> torch.Tensor:
    """What the first convolution of the network reads."""
    seen = []
    handle = first_of(network).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.features(clips)
    handle.remove()
    return seen[0]


def moving(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, frames, 48, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", [1, 7, 16])
@pytest.mark.parametrize("name", ["tcnn_s", "tcnn_xs"])
def test_motion_is_the_difference_from_the_mean_frame(name: str, frames: int) -> None:
    """Times one positive number, the same everywhere. A still clip has none; neither a still picture laid over a clip
    nor the order of the frames changes what each of them differs by."""
    network, clips = BACKBONES[name](3).eval(), moving(frames)
    seen = stem_input(network, clips)
    assert tuple(seen.shape) == (2, 6, frames, 48, 64)
    torch.testing.assert_close(seen[:, :3], clips, rtol=0, atol=0)
    mean = sum(clips[:, :, t] for t in range(frames)) / frames
    difference = torch.stack([clips[:, :, t] - mean for t in range(frames)], dim=2)
    if frames > 1:
        gain = (seen[:, 3:] * difference).sum() / difference.square().sum()
        assert gain > 0
        torch.testing.assert_close(seen[:, 3:], gain * difference, rtol=0, atol=1e-4)
    still = clips[:, :, :1].expand_as(clips)
    torch.testing.assert_close(stem_input(network, still)[:, 3:], torch.zeros_like(clips), rtol=0, atol=1e-5)
    torch.testing.assert_close(stem_input(network, clips + still)[:, 3:], seen[:, 3:], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        stem_input(network, clips.flip(2))[:, 3:], seen[:, 3:].flip(2), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 3, 1, 4, 5), (2, 3, 7, 9, 11), (2, 3, 16, 8, 8)])
def test_motion_is_the_plain_expression_and_so_is_its_gradient(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    plain = torch.cat((clips, MOTION_GAIN * (clips - clips.mean(2, keepdim=True))), dim=1)
    quick = with_motion(clips)
    assert torch.equal(quick, plain)
    assert quick.is_contiguous(memory_format=torch.channels_last_3d)
    toward = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, clips, toward)[0] for each in (quick, plain)), rtol=0, atol=1e-14
    )


def plain_and_quick(video: torch.Tensor, conv: nn.Conv3d) -> tuple[torch.Tensor, torch.Tensor]:
    quick = convolve_with_motion(video, conv)
    assert quick.grad_fn is not None and "_Convolved" in type(quick.grad_fn).__name__
    return conv(with_motion(video)), quick


@pytest.mark.parametrize("channels", [1, 5, 16])
@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1, 1), (1, 3, 2, 3, 4), (2, 3, 7, 9, 10), (2, 3, 8, 12, 5), (3, 3, 16, 8, 8)]
)
def test_the_gradient_of_the_first_convolution_in_less_time_is_the_same(
    shape: tuple[int, ...], channels: int
) -> None:
    """Against PyTorch's own, of odd and even lengths, of the clip, the weights or both."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv3d(6, channels, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    video = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    results = plain_and_quick(video, conv)
    torch.testing.assert_close(*results, rtol=0, atol=0)
    toward = torch.randn(results[0].shape, generator=generator, dtype=torch.float64)
    for wanted in ((video, conv.weight), (video,), (conv.weight,)):
        plain, quick = (torch.autograd.grad(each, wanted, toward, retain_graph=True) for each in results)
        for one, other in zip(plain, quick, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype
            torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_so_it_is_under_autocast() -> None:
    """No further from float64 than PyTorch's own gradient in bfloat16 is, and float32 for the rest of the graph."""
    torch.manual_seed(0)
    conv = nn.Conv3d(6, 16, 3, stride=2, padding=1, bias=False)
    video = torch.randn(2, 3, 16, 24, 24, requires_grad=True)
    toward = torch.randn(2, 16, 8, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        results = plain_and_quick(video, conv)
    plain, quick = (
        torch.autograd.grad(each, (video, conv.weight), toward.to(each.dtype)) for each in results
    )
    exact_video, exact_weight = video.detach().double().requires_grad_(), conv.weight.detach().double()
    exact = F.conv3d(with_motion(exact_video), exact_weight.requires_grad_(), stride=2, padding=1)
    exact_gradients = torch.autograd.grad(exact, (exact_video, exact_weight), toward.double())
    for one, other, true in zip(plain, quick, exact_gradients, strict=True):
        assert other.dtype == torch.float32
        assert (other - true).norm() < 1.5 * (one - true).norm() < 0.02 * true.norm()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": 2},
        {"kernel_size": 3, "padding": 1, "stride": (1, 2, 2)},
        {"kernel_size": 3, "padding": 1, "stride": 2, "bias": True},
        {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 2},
        {"kernel_size": 3, "padding": 1, "stride": 2, "padding_mode": "replicate"},
    ],
)
def test_other_first_convolutions_stay_pytorch_s_own(options: dict[str, Any]) -> None:
    conv = nn.Conv3d(6, 4, **{"bias": False, **options})
    video = torch.randn(1, 3, 4, 6, 6, requires_grad=True)
    found = convolve_with_motion(video, conv)
    assert "_Convolved" not in type(found.grad_fn).__name__
    torch.testing.assert_close(found, conv(with_motion(video)))


def test_hooks_of_the_first_convolution_are_called() -> None:
    conv = nn.Conv3d(6, 4, 3, stride=2, padding=1, bias=False)
    called: list[torch.Size] = []
    conv.register_forward_hook(lambda _module, _inputs, output: called.append(output.shape))
    convolve_with_motion(torch.randn(1, 3, 4, 6, 6, requires_grad=True), conv)
    assert called == [(1, 4, 2, 3, 3)]


def test_the_gain_of_the_motion_is_that_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """As benchmarks/motion.py sets it, forwards and backwards."""
    conv = nn.Conv3d(6, 4, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    video = torch.randn(1, 3, 4, 6, 6, requires_grad=True, dtype=torch.float64)
    found = []
    for gain in (1.0, 4.0):
        monkeypatch.setattr(motion, "MOTION_GAIN", gain)
        results = plain_and_quick(video, conv)
        gradients = [torch.autograd.grad(each.sum(), video)[0] for each in results]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
        found += [results[1], gradients[1]]
    assert not torch.allclose(found[0], found[2]) and not torch.allclose(found[1], found[3])


@pytest.mark.parametrize("name", ["tcnn_s", "tcnn_xs"])
def test_motion_reaches_the_features(name: str) -> None:
    """The weights on the motion channels matter for a clip that moves, and for a still one they do not."""
    torch.manual_seed(0)
    network, clips = BACKBONES[name](3).eval(), moving(8)
    still = clips[:, :, :1].expand_as(clips)
    with torch.no_grad():
        before = network.features(clips), network.features(still)
        first_of(network).weight[:, 3:] *= -1.0
        after = network.features(clips), network.features(still)
    assert (after[0] - before[0]).abs().max() > 0.1 * before[0].abs().max()
    torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["tcnn_s", "tcnn_xs"])
def test_a_clip_backwards_has_other_features(name: str) -> None:
    torch.manual_seed(0)
    network, clips = BACKBONES[name](3).eval(), moving(16)
    with torch.no_grad():
        forwards, backwards = (network.features(c).mean((2, 3, 4)) for c in (clips, clips.flip(2)))
    assert (forwards - backwards).abs().max() > 1e-3 * forwards.abs().max()


def test_the_paper_s_network_reads_frames_alone() -> None:
    clips = moving(4)
    torch.testing.assert_close(stem_input(TCNN(3, width=WIDTH).eval(), clips), clips, rtol=0, atol=0)


# PeakZoom (section 5) ------------------------------------------------------------------------------------------------


PAPER: dict[str, Any] = {}
OURS: dict[str, Any] = {"response": "evidence", "erase": 0.15}  # as in the recipe "small"
FORMS = pytest.mark.parametrize("form", [PAPER, OURS], ids=["paper", "ours"])


def build(dtype: torch.dtype = torch.float32, seed: int = 0, **options: object) -> PeakZoom:
    torch.manual_seed(seed)
    backbone = TCNN(CLASSES, width=WIDTH, dropout=0.0)
    return PeakZoom(backbone, CLASSES, dropout=0.0, **options).to(dtype).eval()


def video(batch: int, frames: int = 8, size: tuple[int, int] = (96, 96), seed: int = 0) -> torch.Tensor:
    """Noise of some ten pixels, so that frames have structure a zoom can move."""
    coarse = torch.randn(batch, 3, frames, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(frames, *size), mode="trilinear", align_corners=True)


def draws(model: PeakZoom, clips: torch.Tensor, seed: int = 0) -> torch.Tensor | None:
    return model.draw_phi(len(clips), clips.shape[2], torch.Generator().manual_seed(seed))


def parameter(model: nn.Module, name: str) -> nn.Parameter:
    (found,) = (p for key, p in model.named_parameters() if key.split(".")[-1] == name)
    return found


def first_convolution(model: nn.Module) -> nn.Conv3d:
    first = first_of(model)
    assert first.in_channels == 3
    return first


@pytest.mark.parametrize("size", [(96, 96), (96, 160), (64, 64)], ids=str)
@pytest.mark.parametrize("frames", [4, 8])
@FORMS
def test_outputs(form: dict[str, Any], frames: int, size: tuple[int, int]) -> None:
    model, clips = build(**form), video(2, frames, size)
    with torch.no_grad():
        plain, full = model(clips), model(clips, attention=True)
    assert plain.attention is None
    for branch in BRANCHES:
        assert tuple(getattr(plain, branch).shape) == (2, CLASSES)
        assert getattr(plain, branch).isfinite().all()
        torch.testing.assert_close(getattr(plain, branch), getattr(full, branch))
    seen = full.attention
    for name in ("responses", "peaks", "q_dis", "q_com"):
        assert tuple(getattr(seen, name).shape) == (2, frames, 31, 31), name
    assert seen.peaks.dtype == torch.bool
    assert seen.peaks.any()
    assert seen.responses.amin((-2, -1)).eq(0).all() and seen.responses.amax((-2, -1)).le(1).all()
    assert tuple(seen.discriminative.shape) == tuple(seen.complementary.shape) == (2, 3, frames, *size)


def test_attention_is_the_equations_one_after_the_other() -> None:
    """Responses, peaks, attention maps and zoomed videos of a whole forward pass against the plain readings. The layer
    of Eq. 1 is the original branch's, found as the one that gives the original logits."""
    model, clips = build(torch.float64), video(1, 4, (96, 128)).double()
    with torch.no_grad():
        output = model(clips, attention=True)
        backbone = next(m for m in model.modules() if isinstance(m, TCNN))
        features = backbone.features(clips)
        pooled = features.mean((2, 3, 4))
        layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == pooled.shape[1]]
        (layer,) = [
            m for m in {id(m): m for m in layers}.values() if torch.allclose(m(pooled), output.original)
        ]
    weight, bias, x = layer.weight.detach().numpy(), layer.bias.detach().numpy(), features.numpy()
    raw = ref.response_map(ref.class_response_maps(x, weight), ref.frame_scores(x, weight, bias))
    placed = ref.place_response(raw, (4, 32, 32), (0, 0, 0), 4, (96, 128), 31)
    responses = ref.normalise(placed)
    seen = output.attention
    np.testing.assert_allclose(seen.responses.numpy(), responses, atol=1e-8)
    np.testing.assert_array_equal(seen.peaks.numpy(), find_peaks(seen.responses).numpy())
    np.testing.assert_array_equal(seen.peaks.numpy(), ref.find_peaks(seen.responses.numpy()))
    q_dis, q_com = ref.sparse_attention(seen.responses[0].numpy(), seen.peaks[0].numpy())
    np.testing.assert_allclose(seen.q_dis[0].numpy(), q_dis, rtol=1e-5)
    np.testing.assert_allclose(seen.q_com[0].numpy(), q_com, rtol=1e-5)
    for q, zoomed in ((q_dis, seen.discriminative), (q_com, seen.complementary)):
        wanted = ref.zoom(clips[0, :, 1:2].transpose(0, 1).numpy(), ref.zoom_grid(q[1:2]))
        np.testing.assert_allclose(zoomed[0, :, 1].numpy(), wanted[0], atol=1e-3)
        assert np.abs(wanted[0] - clips[0, :, 1].numpy()).max() > 0.05, "nothing was zoomed"


@pytest.mark.parametrize("per", ["clip", "frame"])
@pytest.mark.parametrize(
    "branches", [each for count in (1, 2) for each in combinations(BRANCHES[:3], count)], ids="+".join
)
def test_fewer_branches_see_the_same_and_cost_no_pass(branches: tuple[str, ...], per: str) -> None:
    """Each branch of fewer against the same branch of all three, trained and at inference; counting clips seen."""
    pre = Preprocess(size=64, frames=4, canvas=(64, 64)).to_dict()
    settings = {"preprocess": pre, "attention_per": per, "width": WIDTH}
    whole, model = (
        PeakZoom("tcnn_xs", CLASSES, branches=each, **settings) for each in (BRANCHES[:3], branches)
    )
    whole, model = whole.eval(), model.eval()
    given = {name: value for name, value in whole.state_dict().items() if not name.startswith("fc_fused")}
    missing, _ = model.load_state_dict(given, strict=False)
    assert all(name.startswith("fc_fused") for name in missing)
    clips, seen = video(2, 4, (64, 64)), []
    first_of(model.backbone).register_forward_hook(lambda _module, inputs, _out: seen.append(len(inputs[0])))
    with torch.no_grad():
        expected, found = whole(clips, attention=True), model(clips, attention=model.zooms)
        zoomed = [name for name in branches if name != "original"]
        assert seen == [2, *([2 * len(zoomed)] if zoomed else [])]
        views = (clips.transpose(1, 2) * 255).clamp(0, 255).to(torch.uint8)
        at_inference = InferenceNetwork(whole)(views), InferenceNetwork(model)(views)
    assert list(found.logits()) == [*branches, "fused"] == list(at_inference[1])
    for name in branches:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
        torch.testing.assert_close(at_inference[1][name], at_inference[0][name])
    for name in BRANCHES[1:3] if model.zooms else ():
        shown = getattr(found.attention, name)
        assert (shown is None) == (name not in branches)
        assert shown is None or torch.equal(shown, getattr(expected.attention, name))


def test_branches_are_the_same_network_on_the_zoomed_videos() -> None:
    """D and C: the same T-CNN on the zoomed videos, each with a layer of its own; F_total: a layer on all three."""
    model, clips = build(), video(2)
    with torch.no_grad():
        output = model(clips, attention=True)
        backbone = next(m for m in model.modules() if isinstance(m, TCNN))
        pooled = {
            "original": backbone.features(clips).mean((2, 3, 4)),
            "discriminative": backbone.features(output.attention.discriminative).mean((2, 3, 4)),
            "complementary": backbone.features(output.attention.complementary).mean((2, 3, 4)),
        }
        layers = list({id(m): m for m in model.modules() if isinstance(m, nn.Linear)}.values())

        def giving(features: torch.Tensor, logits: torch.Tensor) -> list[nn.Linear]:
            fitting = [m for m in layers if m.in_features == features.shape[1]]
            return [m for m in fitting if torch.allclose(m(features), logits, atol=1e-5)]

        used = [giving(features, getattr(output, name)) for name, features in pooled.items()]
        used.append(giving(torch.cat(list(pooled.values()), 1), output.fused))
    assert [len(u) for u in used] == [1, 1, 1, 1]
    assert len({id(u[0]) for u in used}) == 4


def test_parameters_beyond_the_tcnn_are_three_layers_and_two_scalars() -> None:
    model = build()
    features = TCNN(CLASSES, width=WIDTH).num_features
    extra = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in TCNN(CLASSES, width=WIDTH).parameters()
    )
    assert extra == 2 * (features * CLASSES + CLASSES) + (3 * features * CLASSES + CLASSES) + 2


def test_loss() -> None:
    model, clips, target = build(torch.float64), video(3, 4, (64, 64)).double(), torch.tensor([0, 3, 1])
    output = model(clips)
    value = model.loss(output, target)
    assert value.ndim == 0
    wanted = ref.loss(*(getattr(output, branch).detach().numpy() for branch in BRANCHES), target.numpy())
    assert value.item() == pytest.approx(wanted, rel=1e-12)


def test_larger_source() -> None:
    """Zoomed videos read from larger frames have the network's size; flat attention gives the source made smaller."""
    model, clips = build(), video(1, 4, (64, 64))
    source = F.interpolate(clips, size=(4, 150, 140), mode="trilinear", align_corners=True)
    with torch.no_grad():
        zoomed, plain = model(clips, source=source, attention=True), model(clips, attention=True)
    assert tuple(zoomed.attention.discriminative.shape) == tuple(clips.shape)
    torch.testing.assert_close(zoomed.original, plain.original)
    torch.testing.assert_close(zoomed.attention.q_dis, plain.attention.q_dis)
    # the source is the clip, interpolated: read at the same places it differs by its own smoothing alone
    assert (zoomed.attention.discriminative - plain.attention.discriminative).abs().mean() < 0.05


@pytest.mark.parametrize("value", [0.0, 1.0, -0.3])
@FORMS
def test_a_constant_video_is_never_nan(form: dict[str, Any], value: float) -> None:
    model = build(**form)
    clips = torch.full((2, 3, 8, 96, 96), value)
    with torch.no_grad():
        output = model(clips, attention=True)
    assert all(getattr(output, branch).isfinite().all() for branch in BRANCHES)
    torch.testing.assert_close(output.attention.discriminative, clips, atol=1e-5, rtol=0)
    model.train()
    model.loss(model(clips), torch.tensor([0, 1])).backward()
    for name, p in model.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), name


@FORMS
def test_one_feature_cell_has_no_peaks_and_zooms_nothing(form: dict[str, Any]) -> None:
    """32 x 32 pixels are one cell: a flat map, hence no peaks, flat attention and the frames unchanged."""
    model, clips = build(**form), video(2, 8, (32, 32))
    with torch.no_grad():
        output = model(clips, attention=True)
    assert not output.attention.peaks.any()
    for q, zoomed in (
        (output.attention.q_dis, output.attention.discriminative),
        (output.attention.q_com, output.attention.complementary),
    ):
        assert q.unique().numel() == 1
        torch.testing.assert_close(zoomed, clips, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["expected", "threshold"])
@FORMS
def test_a_clip_s_answer_does_not_depend_on_its_batch(form: dict[str, Any], mode: str) -> None:
    model, clips = build(eval_mode=mode, **form), video(3)
    clips[1] = 0.2  # one without structure among them
    with torch.no_grad():
        together = model(clips, attention=True)
        for n in range(3):
            alone = model(clips[n : n + 1], attention=True)
            for branch in BRANCHES:
                got, wanted = getattr(together, branch)[n], getattr(alone, branch)[0]
                torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
            assert torch.equal(together.attention.peaks[n], alone.attention.peaks[0])
            zoomed, wanted = together.attention.discriminative[n], alone.attention.discriminative[0]
            torch.testing.assert_close(zoomed, wanted, atol=1e-4, rtol=0)


def test_evaluation_draws_nothing() -> None:
    model, clips = build(), video(2)
    with torch.no_grad():
        torch.manual_seed(1)
        first = model(clips)
        state = torch.get_rng_state()
        second = model(clips)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(getattr(first, branch), getattr(second, branch)) for branch in BRANCHES)


def test_training_draws_from_the_generator() -> None:
    model, clips = build().train(), video(2)

    def maps(seed: int) -> torch.Tensor:
        with torch.no_grad():
            seen = model(clips, attention=True, phi=draws(model, clips, seed)).attention
        return torch.stack([seen.q_dis, seen.q_com])

    torch.manual_seed(0)
    first = maps(3)
    torch.manual_seed(1)
    assert torch.equal(first, maps(3))
    assert not torch.equal(first, maps(4))


@pytest.mark.parametrize("training", [False, True])
def test_one_attention_per_clip(training: bool) -> None:
    """docs/choices.md: one attention and, in training, one draw for a peak through a clip: every frame is warped
    alike."""
    model, clips = build(attention_per="clip").train(training), video(2)
    with torch.no_grad():
        seen = model(clips, attention=True, phi=draws(model, clips)).attention
    assert seen.peaks.any()
    for maps in (seen.responses, seen.peaks, seen.q_dis, seen.q_com):
        assert torch.equal(maps, maps[:, :1].expand_as(maps))


@pytest.mark.parametrize(
    "branches", [tuple(BRANCHES[:3][at]) for at in (slice(1), slice(2), slice(1, 2), slice(3))], ids="+".join
)
def test_what_enlarges_nothing_has_a_response_per_frame(branches: tuple[str, ...]) -> None:
    """An average over time marks where a person who goes through the picture was in another frame."""
    clips = video(2)
    with torch.no_grad():
        by_frame, by_clip = (
            model.respond(model.backbone.features(clips), clips.shape[2], clips.shape[3:])
            for model in (build(attention_per=per, branches=branches) for per in ("frame", "clip"))
        )
    assert not torch.equal(by_frame[0], by_frame[0][:, :1].expand_as(by_frame[0]))
    if branches == ("original",):
        assert all(map(torch.equal, by_clip, by_frame))
    else:
        assert all(torch.equal(each, each[:, :1].expand_as(each)) for each in by_clip)


@pytest.mark.parametrize("source_size", [None, (120, 100), (150, 210)], ids=str)
@pytest.mark.parametrize("drawn", [False, True])
def test_one_attention_per_clip_is_an_attention_per_frame(
    drawn: bool, source_size: tuple[int, int] | None
) -> None:
    """Where every frame has the same responses, and the same draws, one warp of the clip is each frame's warp."""
    size, frames = (64, 48), 5
    source = video(2, frames, source_size or size, seed=3)
    coarse = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    responses = F.interpolate(coarse, (31, 31), mode="bilinear", align_corners=True)
    responses = normalise(responses).expand(2, frames, 31, 31)
    peaks = find_peaks(responses)
    assert peaks.sum() >= 4 * frames
    phi = torch.rand(2, 1, 31, 31, generator=torch.Generator().manual_seed(2)).expand_as(responses)
    with torch.no_grad():
        by_frame, by_clip = (
            build(attention_per=per).zoom(source, responses, peaks, size, phi if drawn else None)
            for per in ("frame", "clip")
        )
    for one, other, shape in zip(
        by_frame, by_clip, 2 * [(2, frames, 31, 31)] + [(4, 3, frames, *size)], strict=True
    ):
        assert tuple(one.shape) == tuple(other.shape) == shape
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention_per", ["frame", "clip"])
@pytest.mark.parametrize("size", [(192, 192), (160, 224)], ids=str)
@FORMS
def test_peaks_depend_on_neither_batch_nor_precision(
    form: dict[str, Any], size: tuple[int, int], attention_per: str
) -> None:
    """Beyond the outermost cells, for 31 of these pixels, a response is constant: ties that rounding must not break."""
    model, exact = (
        build(dtype, attention_per=attention_per, **form) for dtype in (torch.float32, torch.float64)
    )
    seen = 0
    for seed in range(6):
        noise = torch.randn(
            3, 128 // 4, 4, size[0] // 32, size[1] // 32, generator=torch.Generator().manual_seed(seed)
        )
        features = noise.relu() + seed  # the last far from 0, where float32 rounds more of the range
        responses, together = model.respond(features, 16, size)
        _, wanted = exact.respond(features.double(), 16, size)
        assert torch.equal(together, wanted)
        for n in range(3):
            assert torch.equal(model.respond(features[n : n + 1], 16, size)[1][0], wanted[n])
        ties = responses[..., -1] == responses[..., -2]
        assert ties.any()
        seen += int(wanted[..., 26:].sum() + wanted[..., 26:, :].sum())
    assert seen > 100, "no peaks beyond the outermost cells"


def test_a_clip_s_peaks_are_the_same_alone_in_a_batch_and_in_float64() -> None:
    """The same through the whole network."""
    model, exact = build(), build(torch.float64)
    clips = video(3, 8, (128, 160), seed=4)
    with torch.no_grad():
        together = model(clips, attention=True).attention.peaks
        wanted = exact(clips.double(), attention=True).attention.peaks
        alone = torch.cat([model(clips[n : n + 1], attention=True).attention.peaks for n in range(3)])
    assert wanted.any((-1, -2)).all()
    assert torch.equal(together, wanted) and torch.equal(alone, wanted)


@pytest.mark.parametrize("attention_per", ["frame", "clip"])
def test_further_peaks_are_those_of_the_function(attention_per: str) -> None:
    """The network's responses and peaks, from its features, step by step."""
    model, clips = build(attention_per=attention_per, **OURS), video(2)
    with torch.no_grad():
        features = model.backbone.features(clips)
        seen = model(clips, attention=True).attention
        fc = model.backbone.fc
        response = evidence_map(
            class_response_maps(features, fc.weight), frame_scores(features, fc.weight, fc.bias)
        )
        placed = place_response(response, model.backbone.cells, 8, (96, 96), 31)
        if attention_per == "clip":
            placed = placed.mean(1, keepdim=True).expand_as(placed)
        placed = normalise(placed)
        lowered, peaks = further_peaks(placed, find_peaks(placed), 0.15)
    torch.testing.assert_close(seen.responses, lowered)
    assert torch.equal(seen.peaks, peaks) and (peaks & ~find_peaks(placed)).any()


@pytest.mark.parametrize(
    ("branches", "backbone", "offset"),
    [
        (("original",), "tcnn_xs", 1.5),  # two slices, 4 frames apart, of 8
        (("original",), "tcnn", 0.0),  # sees frames 0 and 4
        (("original",), "tsm", 0.0),
        (("original", "discriminative"), "tcnn_xs", 0.0),
    ],
)
def test_a_lone_branch_shows_its_responses_where_they_come_from(
    branches: tuple[str, ...], backbone: str, offset: float
) -> None:
    """Where, which class and how probable; a branch that zooms places them as the paper does."""
    torch.manual_seed(0)
    model = PeakZoom(backbone, CLASSES, width=1 / 16, branches=branches, **OURS).eval()
    clips, stride = video(2, 8, (96, 96)), model.backbone.cells.stride
    with torch.no_grad():
        features = model.backbone.features(clips)
        maps, scores = model.class_maps(features)
        slices = evidence_map(maps, scores).double().numpy()
        offsets = (offset, *model.backbone.cells.offset[1:])
        wanted = normalise(
            torch.from_numpy(ref.place_response(slices, stride, offsets, 8, (96, 96), model.config.grid))
        )
        responses, _ = model.respond(features, 8, (96, 96))
        if model.zooms:
            wanted, _ = further_peaks(wanted, find_peaks(wanted), model.config.erase)
    np.testing.assert_allclose(responses.numpy(), wanted.numpy(), atol=1e-4)
    starts = offset + stride[0] * np.arange(features.shape[2])
    chances = scores.softmax(1).numpy()
    course = [[np.interp(range(8), starts, each) for each in clip] for clip in chances]
    np.testing.assert_allclose(frame_probabilities(model, features, 8).numpy(), course, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [("response", "peaks"), ("erase", -0.1), ("erase", 1.0), ("faintest", 0.0), ("faintest", 1.1)],
)
def test_forms_that_do_not_exist(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option} is "):
        build(**{option: value})


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - TORCHVISION))
def test_every_network_takes_spatial_attention(name: str, tmp_path: Path) -> None:
    """It zooms, every part learns, and it comes back from its saved form."""
    options = options_for(name, 16, 8, 96)
    torch.manual_seed(0)
    model = PeakZoom(name, CLASSES, width=1 / 16, backbone_options=options, dropout=0.0, **OURS)
    clips, labels = video(2, 8, (96, 96)), torch.tensor([0, 2])
    model.train()
    output = model(clips, attention=True, phi=draws(model, clips))
    assert output.attention.peaks.any() and output.attention.peaks.shape == (2, 8, 31, 31)
    assert not torch.equal(output.attention.discriminative, clips)
    model.loss(output, labels).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        again, first = PeakZoom.from_pretrained(tmp_path).eval()(clips), model(clips)
    torch.testing.assert_close(again.fused, first.fused)


def test_training_samples_a_split() -> None:
    """In training each peak is in one set only: summed over many draws the two sets share no peak within one."""
    model, clips = build(torch.float64).train(), video(1, 4, (96, 96)).double()
    with torch.no_grad():
        seen = model(clips, attention=True, phi=draws(model, clips)).attention
    responses, peaks = seen.responses[0].numpy(), seen.peaks[0].numpy()
    for t in range(4):
        places = [tuple(p) for p in np.argwhere(peaks[t])]
        fitting = 0
        for chosen in range(2 ** len(places)):
            phi = np.ones_like(responses[t : t + 1]) * 2.0  # above every response: all in P_com
            for bit, place in enumerate(places):
                if chosen >> bit & 1:
                    phi[(0, *place)] = -1.0
            one = responses[t : t + 1]
            tiny = np.maximum(one, 1e-2)
            q_dis, q_com = ref.sparse_attention(tiny, peaks[t : t + 1], phi, "sample")
            fitting += np.allclose(q_dis[0], seen.q_dis[0, t].numpy(), rtol=1e-4) and np.allclose(
                q_com[0], seen.q_com[0, t].numpy(), rtol=1e-4
            )
        assert fitting == 1, (t, len(places))


# Gradients (sections 2 and 3: responses carry none) -------------------------------------------------------------------


@contextmanager
def shifted(layer: nn.Conv3d, shift: torch.Tensor) -> Iterator[None]:
    """The layer with other weights in every call but the first: in the zoomed branches, not in the original one, so
    that the responses stay what they are."""
    calls = 0

    def hook(
        module: nn.Conv3d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            return None
        return F.conv3d(
            inputs[0],
            module.weight + shift,
            module.bias,
            module.stride,
            module.padding,  # type: ignore[arg-type]
            module.dilation,
            module.groups,
        )

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    assert calls >= 2


def zoomed_loss(model: PeakZoom, clips: torch.Tensor) -> torch.Tensor:
    """The cross-entropies of the two zoomed branches alone, with the draws of training fixed."""
    output = model(clips, phi=draws(model, clips, 5))
    target = torch.arange(clips.shape[0]) % CLASSES
    return F.cross_entropy(output.discriminative, target) + F.cross_entropy(output.complementary, target)


@pytest.mark.parametrize("training", [False, True], ids=["expected", "sample"])
def test_gradients_reach_the_betas(training: bool) -> None:
    model, clips = build(torch.float64).train(training), video(2, 4, (96, 96)).double()
    zoomed_loss(model, clips).backward()
    for name in ("beta_dis", "beta_com"):
        beta = parameter(model, name)
        assert beta.grad is not None and beta.grad.abs().item() > 1e-9, name
        step = 1e-8
        values = []
        with torch.no_grad():
            for change in (step, -2 * step):
                beta += change
                values.append(zoomed_loss(model, clips).item())
            beta += step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(beta.grad.item(), rel=1e-4), name


@pytest.mark.parametrize("training", [False, True], ids=["expected", "sample"])
def test_gradients_reach_the_first_convolution(training: bool) -> None:
    """Through the resampled videos, and only so: finite differences with the responses held fixed agree."""
    model, clips = build(torch.float64).train(training), video(2, 4, (96, 96)).double()
    layer = first_convolution(model)
    zoomed_loss(model, clips).backward()
    assert layer.weight.grad is not None
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=tuple(layer.weight.shape)))
    slope = (layer.weight.grad * direction).sum().item()
    assert abs(slope) > 1e-6
    values = []
    for step in (1e-8, -1e-8):  # small: every ReLU of the network is a kink that a larger step may cross
        with torch.no_grad(), shifted(layer, step * direction):
            values.append(zoomed_loss(model, clips).item())
    assert (values[0] - values[1]) / 2e-8 == pytest.approx(slope, rel=1e-4)


def test_the_original_branch_trains_without_the_zoom() -> None:
    model, clips = build(), video(2, 4, (64, 64))
    F.cross_entropy(model(clips).original, torch.tensor([0, 1])).backward()
    for name in ("beta_dis", "beta_com"):
        grad = parameter(model, name).grad
        assert grad is None or grad.item() == 0
    assert first_convolution(model).weight.grad.abs().max() > 0


# Saving --------------------------------------------------------------------------------------------------------------


def test_hub_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = PeakZoom("tcnn_xs", 3)
    model.train()
    clips = video(2, 8, (96, 96))
    with torch.no_grad():
        model(clips)  # running statistics other than at the start
        parameter(model, "beta_dis").fill_(0.2)
    model.eval()
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".md"}
    again = PeakZoom.from_pretrained(str(tmp_path / "saved")).eval()
    assert parameter(again, "beta_dis").item() == pytest.approx(0.2)
    with torch.no_grad():
        first, second = model(clips), again(clips)
    assert all(torch.equal(getattr(first, branch), getattr(second, branch)) for branch in BRANCHES)


WRITTEN = """{
  "attention_per": "clip",
  "backbone": "tcnn_xs",
  "backbone_options": {
    "max_stride": 16
  },
  "base": 0.09,
  "beta_com": 0.424,
  "beta_dis": 0.127,
  "branches": [
    "original",
    "complementary"
  ],
  "classes": [
    "a",
    "b",
    "c"
  ],
  "delta": 0.2,
  "dropout": 0.2,
  "erase": 0.15,
  "eval_mode": "expected",
  "grid": 31,
  "num_classes": 3,
  "preprocess": {
    "frames": 4,
    "size": 32
  },
  "response": "evidence",
  "top": 5,
  "train_mode": "sample",
  "width": 0.25
}"""


def test_a_config_file_of_version_0_1_means_the_same_and_is_written_the_same(tmp_path: Path) -> None:
    """``WRITTEN`` was written when the constructor had a parameter for each of these; a key it lacks is ignored."""
    config = PeakZoomConfig(
        num_classes=3,
        branches=("original", "complementary"),
        width=0.25,
        backbone_options={"max_stride": 16},
        dropout=0.2,
        response="evidence",
        erase=0.15,
        attention_per="clip",
        classes=("a", "b", "c"),
        preprocess={"size": 32, "frames": 4},
    )
    model = PeakZoom("tcnn_xs", config=config)
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    assert file.read_text() == WRITTEN
    for text in (WRITTEN, WRITTEN.replace('"top": 5', '"top": 5, "of_another_version": 1')):
        file.write_text(text)
        again = PeakZoom.from_pretrained(tmp_path)
        assert again.backbone_name == "tcnn_xs" and again.config == config
        assert again.classes == ["a", "b", "c"] and again.preprocess == {"size": 32, "frames": 4}
        again.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "config.json").read_text() == WRITTEN
    with pytest.raises(TypeError, match="of_no_version"):
        PeakZoom.from_pretrained(tmp_path, of_no_version=1)
    assert PeakZoom.from_pretrained(tmp_path, dropout=0.4).config.dropout == 0.4


def test_settings_come_in_place_of_the_config_s() -> None:
    config = PeakZoomConfig(num_classes=3, grid=15, width=0.25)
    assert PeakZoom("tcnn_xs", config=config).config == config
    assert PeakZoom("tcnn_xs", 5, config, grid=9).config == PeakZoomConfig(num_classes=5, grid=9, width=0.25)
    with pytest.raises(TypeError, match="gird"):
        PeakZoom("tcnn_xs", gird=9)


def test_a_backbone_of_one_s_own_is_given_again(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    again = PeakZoom.from_pretrained(tmp_path, backbone=TCNN(CLASSES, width=WIDTH))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_train_mode_is_how_peaks_are_split_in_training() -> None:
    clips = video(2)
    threshold, expected = build(train_mode="threshold").train(), build(eval_mode="threshold")
    with torch.no_grad():
        features = expected.backbone.features(clips)
        looked = (clips, *expected.respond(features, 8, (96, 96)), (96, 96))
        assert threshold.draw_phi(2, 8) is None
        assert torch.equal(threshold.zoom(*looked)[0], expected.zoom(*looked)[0])
        assert not torch.equal(threshold.eval().zoom(*looked)[0], expected.zoom(*looked)[0])
