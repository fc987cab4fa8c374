from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.packed import PackedConv, can_pack, pack, pack_convolutions
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.rewrite import CONVOLUTIONS, NORMS, fold_batch_norms, take_strides_first
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES, FIXED_LENGTH, TORCHVISION, options_for
from peakzoom.model.geometry import CellGeometry
from peakzoom.video.views import Preprocess, to_input

NORMS_FIRST = {
    "t3d": 58 + 3 * (3 + 1) + 1
}  # which read no convolution: of dense layers, transitions, the last
DEEP = ("p3d",)  # 199 layers of random weights: numbers grow beyond what a comparison means


def trained(
    backbone: str, frames: int, size: int, zoom_source: int = 1, width: float = 0.25, **options: object
) -> PeakZoom:
    """A network whose batch norms do something, as after a training."""
    torch.manual_seed(0)
    preprocess = Preprocess(size=size, frames=frames, canvas=(size, size), zoom_source=zoom_source)
    if backbone in FIXED_LENGTH:
        options["backbone_options"] = options_for(backbone, 32, frames, size)
    model = PeakZoom(backbone, 7, width=width, preprocess=preprocess.to_dict(), **options)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, NORMS):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def views(batch: int, frames: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, frames, 3, side, side), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def check_same(model: PeakZoom, clips: Tensor) -> InferenceNetwork:
    network = InferenceNetwork(model)
    expected = model(*to_input(clips, network.preprocess)).logits()
    found = network(clips)
    assert list(found) == list(expected)
    for name, logits in expected.items():
        scale = float(logits.abs().max())
        torch.testing.assert_close(found[name], logits, rtol=1e-4, atol=1e-5 * max(1.0, scale))
    return network


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "backbone", [name for name in BACKBONES if name not in {*DEEP, *TORCHVISION, "c3d", "res3d"}]
)
def test_answers_are_the_networks_own(backbone: str, batch: int) -> None:
    network = check_same(trained(backbone, 16, 64), views(batch, 16, 64))
    left = sum(isinstance(module, NORMS) for module in network.modules())
    assert left == NORMS_FIRST.get(backbone, 0)


@pytest.mark.parametrize(("frames", "batch"), [(1, 1), (2, 3), (5, 1), (13, 3), (16, 1), (17, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zoom_source": 2},
        {"zoom_source": 2, "attention_per": "clip", "response": "evidence", "erase": 0.15},
        {"branches": ("original",)},
        {"branches": ("original", "complementary")},
    ],
)
def test_frames_that_the_tcnn_never_sees_are_left_out(
    frames: int, batch: int, options: dict[str, object]
) -> None:
    model = trained("tcnn", frames, 64, **options)  # type: ignore[arg-type]
    clips = views(batch, frames, 64 * int(options.get("zoom_source", 1)))  # type: ignore[call-overload]
    network = check_same(model, clips)
    assert network.step == 4


def test_what_is_left_out_is_what_changes_nothing() -> None:
    """Of 16 frames the paper's T-CNN answers to 0, 4, 8 and 12 only; so does the original network itself."""
    model, clips = trained("tcnn", 16, 64, branches=("original",)), views(1, 16, 64)
    noisy = views(2, 16, 64)[1:].clone()
    noisy[:, ::4] = clips[:, ::4]
    pre = Preprocess.from_dict(model.preprocess)
    with torch.inference_mode():
        one, other = (model(*to_input(each, pre)).fused for each in (clips, noisy))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", ["tcnn_s", "tcnn_xs", "r3d_18", "tsm"])
def test_networks_that_see_every_frame_keep_them(backbone: str) -> None:
    network = trained(backbone, 16, 64).backbone
    before = {name: (m.stride, m.dilation) for name, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    assert take_strides_first(network) == 1
    after = {name: (m.stride, m.dilation) for name, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    assert after == before


def test_a_dilation_that_needs_the_dropped_slices_stops_a_stride() -> None:
    network = trained("tcnn", 16, 64).backbone
    odd = next(m for m in network.modules() if isinstance(m, nn.Conv3d) and m.dilation[0] == 4)
    odd.dilation, odd.padding = (3, 1, 1), (3, 1, 1)
    video = torch.randn(1, 3, 16, 64, 64)
    with torch.inference_mode():
        expected = network.features(video)
        assert take_strides_first(network) == 2  # the stem's; stage 6 stays as it is
        torch.testing.assert_close(network.features(video[:, :, ::2]), expected, rtol=1e-4, atol=1e-4)


CASES: list[tuple[int, dict[str, Any]]] = [  # dimensions, and what the convolution is
    (3, {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}),
    (3, {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": 2}),
    (3, {"kernel_size": 1, "stride": 2}),
    (3, {"kernel_size": 3, "padding": 1, "stride": 2}),
    (3, {"kernel_size": 3, "padding": (4, 1, 1), "dilation": (4, 1, 1)}),
    (3, {"kernel_size": (5, 3, 3), "padding": (4, 2, 2), "dilation": 2, "groups": 2}),
    (3, {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "groups": 4}),
    (2, {"kernel_size": 7, "padding": 3, "stride": 2}),
    (2, {"kernel_size": 1}),
    (2, {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2}),
]
EXACT = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
packs = pytest.mark.skipif(not can_pack(nn.Conv3d(1, 1, 1)), reason="PyTorch has no oneDNN here")


def a_convolution(dimensions: int, **options: Any) -> Any:
    torch.manual_seed(0)
    return (nn.Conv2d, nn.Conv3d)[dimensions - 2](4, 12, **options)


@packs
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dimensions", "options"), CASES)
def test_a_packed_convolution_is_the_convolution(
    dimensions: int, options: dict[str, Any], bias: bool, dtype: torch.dtype
) -> None:
    """For one clip and several, of the shape that it was packed for and of others, however they lie in memory."""
    conv = a_convolution(dimensions, **options, bias=bias).to(dtype)
    if not can_pack(conv):
        pytest.skip(f"no {dtype} on this processor")
    own = copy.deepcopy(conv).float()
    pack(conv, (1, 4, 9, 7, 8)[: dimensions + 2])
    last = (torch.channels_last, torch.channels_last_3d)[dimensions - 2]
    with torch.inference_mode():
        for size in ((9, 7, 8), (16, 16, 16), (5, 9, 3), (1, 7, 9)):
            for batch in (1, 2, 5):
                x = torch.randn(batch, 4, *size[:dimensions])
                expected = own(x.to(dtype).float())
                for each in (x, x.contiguous(memory_format=last)):
                    found = conv(each)
                    assert found.dtype == dtype and found.is_contiguous(memory_format=last)
                    torch.testing.assert_close(found.float(), expected, rtol=EXACT[dtype], atol=EXACT[dtype])


@packs
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_packed_convolution_stays_a_convolution(dimensions: int) -> None:
    """With weights, gradients and inputs without a batch; it can be copied, saved, loaded and brought elsewhere."""
    own = a_convolution(dimensions, kernel_size=3, padding=1)
    packed = copy.deepcopy(own)
    pack(packed, (1, 4, 9, 7, 8)[: dimensions + 2])
    assert isinstance(packed, type(own)) and packed.out_channels == 12
    assert list(packed.state_dict()) == ["weight", "bias"]
    x = torch.randn(2, 4, *(9, 7, 8)[:dimensions], requires_grad=True)
    torch.testing.assert_close(packed(x[0]), own(x[0]))
    for wanted in ((x, packed.weight), (x, own.weight)):
        conv = packed if wanted[1] is packed.weight else own
        gradients = torch.autograd.grad(conv(x).square().sum(), wanted)
        torch.testing.assert_close(gradients, torch.autograd.grad(own(x).square().sum(), (x, own.weight)))
    x = x.detach()
    with torch.no_grad():
        for each in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
            assert each.packed is not None
            torch.testing.assert_close(each(x), packed(x), rtol=0, atol=0)
        other = a_convolution(dimensions, kernel_size=3, padding=1, dtype=torch.float32)
        nn.init.normal_(other.weight)
        packed.load_state_dict(other.state_dict())
        torch.testing.assert_close(packed(x), other(x), rtol=1e-5, atol=1e-4)
        packed.double()  # oneDNN has none
        torch.testing.assert_close(packed(x.double()), other.double()(x.double()))
        assert packed.packed is None and packed.float().packed is not None


@packs
def test_a_recognizer_can_be_copied_and_sent_to_another_process() -> None:
    recognizer = Recognizer.of(trained("tcnn", 8, 64), "cpu")
    clips = views(2, 8, 64)
    expected = recognizer.engine(clips)
    for each in (copy.deepcopy(recognizer), pickle.loads(pickle.dumps(recognizer))):
        found = each.engine(clips)
        assert all(torch.equal(found[name], logits) for name, logits in expected.items())


def test_gradients_pass_through_the_network_of_an_engine() -> None:
    model = trained("tcnn_xs", 8, 64)
    network = InferenceNetwork(model)
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):  # the engine's has them too, with batch norms folded
            assert f"{name}.weight" in network.model.state_dict()
    clip = torch.randn(1, 3, 8, 64, 64, requires_grad=True)
    sums = [each.backbone.features(clip).square().sum() for each in (model, network.model)]
    found, expected = (torch.autograd.grad(each, clip)[0] for each in sums)
    assert found.norm() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


class Paired(nn.Conv3d):
    """Takes a pair."""

    def forward(self, pair: tuple[Tensor, float]) -> Tensor:  # type: ignore[override]
        return super().forward(pair[0]) * pair[1]


class Odd(nn.Module):
    """A backbone that does with its convolutions what it may: docs/networks.md asks for four things only."""

    cells, num_features = CellGeometry((1, 1, 1)), 8

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 2)
        self.images, self.clips, self.twice = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv3d(8, 8, 1),
            nn.Conv3d(8, 8, 1),
        )
        self.also = self.twice
        self.paired, self.tied = Paired(8, 8, 1), nn.Conv3d(8, 8, 1)
        self.tied.weight = self.twice.weight

    def features(self, video: Tensor) -> Tensor:
        assert isinstance(self.images, nn.Conv2d) and next(self.images.parameters()).dim() == 4
        x = self.images(input=video.transpose(1, 2).flatten(0, 1))
        x = x + nn.functional.conv2d(
            x, self.images.weight.repeat(1, 3, 1, 1)[:, : self.images.out_channels], padding=1
        )
        x = x.unflatten(0, (len(video), -1)).transpose(1, 2)
        x = torch.stack([self.clips(each) for each in x])  # without a batch axis
        return self.tied(self.paired((self.also(self.twice(x)), 0.5)))


@packs
@pytest.mark.parametrize("batch", [1, 2])
def test_a_backbone_of_one_s_own_may_do_with_its_convolutions_what_it_likes(batch: int) -> None:
    torch.manual_seed(0)
    preprocess = Preprocess(size=16, frames=4, canvas=(16, 16))
    model = PeakZoom(Odd(), 2, preprocess=preprocess.to_dict()).eval()
    network = check_same(model, views(batch, 4, 16))
    kinds = {name for name, module in network.named_modules() if isinstance(module, PackedConv)}
    assert kinds == {f"model.backbone.{name}" for name in ("images", "twice", "tied")}


class Other(nn.Conv3d):
    """Computes something of its own, perhaps."""


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv3d(3, 4, 3, padding=1, padding_mode="replicate"),
        nn.Conv3d(3, 4, 3, padding="same"),
        nn.Conv1d(3, 4, 3),
        nn.ConvTranspose3d(3, 4, 3),
        nn.Conv3d(3, 4, 3, dtype=torch.float64),
        nn.Conv3d(3, 4, 3, device="meta"),
        Other(3, 4, 3),
    ],
)
def test_other_convolutions_are_refused(conv: nn.Module) -> None:
    assert not can_pack(conv)


@packs
@pytest.mark.parametrize("backbone", ["tcnn", "tcnn_xs", "r2plus1d_18", "i3d", "tsm", "p3d"])
def test_every_convolution_is_packed(backbone: str) -> None:
    """But for one that no clip passes; and in a graph to export none is."""
    model = trained(backbone, 16, 64)
    convolutions = sum(isinstance(module, CONVOLUTIONS) for module in model.modules())
    model.backbone.spare = nn.Conv3d(3, 4, 1)

    def packed(network: InferenceNetwork) -> int:
        return sum(isinstance(module, PackedConv) for module in network.model.modules())

    assert packed(InferenceNetwork(model)) == convolutions
    assert packed(InferenceNetwork(model, fixed_shapes=True)) == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_without_onednn_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    network = check_same(trained("tcnn", 8, 64), views(batch, 8, 64))
    assert not any(isinstance(module, PackedConv) for module in network.modules())


@packs
def test_shapes_that_convolutions_read() -> None:
    """Those of the input, whatever computes them; a convolution that is not passed is left out."""
    conv, spare = nn.Conv3d(3, 8, 1), nn.Conv3d(3, 8, 1)

    def features(video: Tensor) -> Tensor:
        return conv(video).flatten(2).mean(2)

    pack_convolutions(nn.ModuleList([conv, spare]), features, torch.zeros(1, 3, 4, 32, 32), 2)
    assert conv.packed_for == [2, 3, 4, 32, 32] and type(spare) is nn.Conv3d


def test_a_network_is_made_from_an_engine_s_own_model() -> None:
    network = InferenceNetwork(trained("tcnn", 8, 64))
    again = check_same(network.model, views(2, 8, 64))
    kinds = [type(module) for module in network.modules()]
    assert [type(module) for module in again.modules()] == kinds


class Forked(nn.Module):
    """One convolution whose output goes two ways, one that is used twice, and one that folds."""

    cells, num_features = CellGeometry((1, 1, 1)), 8

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 2)
        self.fork, self.shared, self.plain = nn.Conv3d(3, 8, 1), nn.Conv3d(8, 8, 1), nn.Conv3d(8, 8, 1)
        self.norms = nn.ModuleList(nn.BatchNorm3d(8) for _ in range(4))

    def features(self, video: Tensor) -> Tensor:
        x = self.fork(video)
        x = x + self.norms[0](x)
        x = self.norms[1](self.shared(x)) + self.norms[2](self.shared(-x))
        return self.norms[3](self.plain(x))


def test_only_norms_that_own_their_convolution_are_folded() -> None:
    torch.manual_seed(0)
    network = Forked().eval()
    for norm in network.norms:
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    video = torch.randn(1, 3, 2, 5, 5)
    with torch.inference_mode():
        expected = network.features(video)
        assert fold_batch_norms(network, 2, 5) == 1
        torch.testing.assert_close(network.features(video), expected)
    assert [type(norm).__name__ for norm in network.norms] == ["BatchNorm3d"] * 3 + ["Identity"]


def test_the_model_itself_stays_as_it_is() -> None:
    model = trained("tcnn", 8, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strides = [module.stride for module in model.modules() if isinstance(module, nn.Conv3d)]
    InferenceNetwork(model)(views(1, 8, 64))
    assert strides == [module.stride for module in model.modules() if isinstance(module, nn.Conv3d)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("most", "calls"), [(1, [3]), (1.5, [2, 1]), (3, [1, 1, 1]), (9, [1, 1, 1])]
)  # fmt: skip
def test_large_views_are_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch, most: float, calls: list[int]
) -> None:
    """At a bound that three views keep to, that two keep to, that one does, and that not even one keeps to."""
    model, clips = trained("tcnn_xs", 4, 32, zoom_source=2), views(3, 4, 64)
    engine = TorchEngine(model, "cpu")
    together = engine(clips)
    seen: list[int] = []
    true = engine.network.forward

    def counted(part: Tensor) -> dict[str, Tensor]:
        seen.append(len(part))
        return true(part)

    monkeypatch.setattr(engine.network, "forward", counted)
    monkeypatch.setattr("peakzoom.inference.engines.eager.MOST_SOURCE", int(4 * clips.numel() / most))
    parts = engine(clips)
    assert seen == calls and list(parts) == list(together)
    for name, logits in together.items():
        assert parts[name].shape == (3, 7)
        torch.testing.assert_close(parts[name], logits, rtol=1e-4, atol=1e-5)


def test_no_compiler_is_imported() -> None:
    """PyTorch imports its own at the first clip of meta tensors: a second of work at every start."""
    code = (
        "import sys, torch; from peakzoom.model import PeakZoom;"
        "from peakzoom.inference.network import InferenceNetwork;"
        "from peakzoom.video.views import Preprocess; pre = Preprocess(frames=4, size=32, canvas=(32, 32));"
        "model = PeakZoom('tcnn_xs', 3, width=0.25, preprocess=pre.to_dict());"
        "InferenceNetwork(model)(torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # and their rounding


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "backbone,dtype",
    [(name, torch.bfloat16) for name in ("tcnn", "tcnn_xs", "i3d", "tsm", "trn")]
    + [("tcnn", torch.float16)],  # which CPUs imitate, at length
)
@torch.inference_mode()
def test_half_precision_rounds_features_and_nothing_else(
    backbone: str, dtype: torch.dtype, batch: int
) -> None:
    """No further from float32 than what autocast makes of the trained network, and not float32 in disguise."""
    model, clips = trained(backbone, 8, 48), views(batch, 8, 48)
    whole, half = InferenceNetwork(model), InferenceNetwork(model, dtype=dtype)
    expected, found = whole.first_pass(clips), half.first_pass(clips)
    with torch.autocast("cpu", dtype):
        rounded = model.backbone.features(to_input(clips, whole.preprocess)[0]).float()  # type: ignore[operator]

    def off(features: Tensor) -> float:
        return float((features - expected.features).norm() / expected.features.norm())

    assert found.features.dtype == torch.float32
    assert HALF[dtype] / 16 < off(found.features) < 1.5 * off(rounded) + HALF[dtype]
    convolutions = [m for m in half.model.backbone.modules() if isinstance(m, CONVOLUTIONS)]
    assert convolutions and all(each.weight.dtype == dtype for each in convolutions)
    assert all(each.dtype == torch.float32 for each in half.model.heads.parameters())
    # Of the same features, both make the same attention and the same frames to look at, bit for bit.
    kept: list[list[Tensor]] = []
    for network in (whole, half):
        seen: list[Tensor] = []

        hook = network.model.sampler.register_forward_hook(
            lambda _, inputs, output, seen=seen: seen.extend([*inputs[:2], output])
        )
        network.logits(found)
        hook.remove()
        kept.append(seen)
    assert [len(each) for each in kept] == [3, 3]
    assert all(torch.equal(*pair) and pair[0].dtype == torch.float32 for pair in zip(*kept, strict=True))


def test_the_answers_of_half_precision_are_nearly_the_same() -> None:
    model, clips = trained("tcnn", 16, 64, zoom_source=2), views(2, 16, 128)
    expected, found = (
        InferenceNetwork(model, dtype=dtype)(clips) for dtype in (torch.float32, torch.bfloat16)
    )
    for name, logits in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], logits, rtol=0, atol=0.05 * float(logits.abs().max()))
