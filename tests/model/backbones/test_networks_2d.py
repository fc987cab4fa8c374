"""TSN, TSM and TRN on ResNet-50: published costs and names, where cells look, how frames meet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from published import LAYERS, torchvision_resnet50
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from peakzoom.model import PeakZoom
from peakzoom.model.backbones.base import VideoNetwork
from peakzoom.model.backbones.trn import TRN, even_subsets, random_subsets
from peakzoom.model.backbones.tsm import TSM, shift
from peakzoom.model.backbones.tsn import TSN, Bottleneck
from peakzoom.utils.errors import UserError

Factory = Callable[..., VideoNetwork]
WIDTH = 1 / 8
CLASSES = 5


def on_meta(factory: Callable[[], VideoNetwork]) -> VideoNetwork:
    with torch.device("meta"):
        return factory().eval()


def meta_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def multiply_adds(network: VideoNetwork, frames: int, size: int = 224) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, frames, size, size, device="meta"))
    return counter.get_total_flops() / 2


def small(factory: Factory, frames: int, **kwargs: object) -> VideoNetwork:
    torch.manual_seed(0)
    own = {"frames": frames} if factory is TRN else {}
    return factory(CLASSES, **{"width": WIDTH, **own, **kwargs}).eval()


# What was published --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [TSN, TSM])
def test_torchvision_s_resnet50_loads(factory: Factory) -> None:
    network, table = on_meta(partial(factory, 1000)), torchvision_resnet50()
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == table
    network.load_state_dict(meta_state(table), strict=True)
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    assert multiply_adds(network, 1) == pytest.approx(4.09e9, rel=1e-3)


@pytest.mark.parametrize("factory", [TSN, TSM])
def test_public_tsm_checkpoints_load(factory: Factory) -> None:
    table = {
        name: (174, *shape[1:]) if name.startswith("fc.") else shape
        for name, shape in torchvision_resnet50().items()
    }
    public = {}
    for name, shape in table.items():
        if name.startswith("fc."):
            public[f"new_fc.{name.removeprefix('fc.')}"] = shape
        elif factory is TSM and name.startswith("layer") and name.endswith(".conv1.weight"):
            public[f"base_model.{name.removesuffix('weight')}net.weight"] = shape
        else:
            public[f"base_model.{name}"] = shape
    network = on_meta(partial(factory, 174))
    network.load_state_dict(network.adapt_weights(meta_state(public)), strict=True)
    own = network.state_dict()
    assert network.adapt_weights(own).keys() == own.keys()  # torchvision's and our own names stay


def test_multiply_adds() -> None:
    assert multiply_adds(on_meta(partial(TSM, 101)), 8) == pytest.approx(32.88e9, rel=0.03)
    one = multiply_adds(on_meta(partial(TSN, 101)), 1)
    assert multiply_adds(on_meta(partial(TSN, 101)), 8) == pytest.approx(8 * one, rel=1e-3)
    assert 80e9 / one == pytest.approx(19.6, abs=0.05)  # what tsn.py says of the paper's 80 G
    assert 83.83e9 / one == pytest.approx(20.5, abs=0.05)  # and trn.py of its 83.83 G


@pytest.mark.parametrize(
    ("frames", "per_cell", "published"),
    [(8, True, 33.2e9), (8, False, 32.7e9), (16, True, 67.0e9), (16, False, 65.4e9)],
)
def test_multiply_adds_of_relations(frames: int, per_cell: bool, published: float) -> None:
    """As trn.py states them: the body's, the reduction's and at most three perceptrons' a scale."""
    network = on_meta(partial(TRN, 101, frames=frames, per_cell=per_cell))
    got = multiply_adds(network, frames)
    assert got == pytest.approx(published, rel=2e-3)
    body = on_meta(partial(TSN, 101))
    perceptrons = sum(min(3, math.comb(frames, n)) * n * 256 * 256 for n in range(2, frames + 1))
    related = frames * 2048 * 256 + perceptrons
    heads = 101 * 256 * (frames - 1) - 101 * 2048
    assert got == multiply_adds(body, frames) + (49 if per_cell else 1) * related + heads


# Where cells look ----------------------------------------------------------------------------------------------------


def even_weights(network: VideoNetwork) -> VideoNetwork:
    """Every weight the same and positive, no bias: a cell sees all that its windows reach, and only that."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
    return network.double().eval()


def reached(network: VideoNetwork, shape: tuple[int, int, int], axis: int, cell: int) -> tuple[int, int]:
    """First and last input position along an axis that reach one slice of cells."""
    video = torch.rand(1, 3, *shape, dtype=torch.float64, requires_grad=True)
    network.features(video).select(2 + axis, cell).sum().backward()
    assert video.grad is not None
    others = [dim for dim in range(5) if dim != 2 + axis]
    seen = video.grad.abs().sum(others).nonzero().flatten()
    return int(seen[0]), int(seen[-1])


@pytest.fixture
def averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poolings that read their whole window, not its maximum alone."""

    def mean(x: Tensor, kernel: int, stride: int, padding: int, *_: object, **__: object) -> Tensor:
        return F.avg_pool2d(x, kernel, stride, padding)

    monkeypatch.setattr(F, "max_pool2d", mean)


@pytest.mark.usefixtures("averaging")
@pytest.mark.parametrize("factory", [TSN, TSM, TRN])
@pytest.mark.parametrize(
    ("size", "width", "max_stride"), [(640, 1 / 8, 32), (625, 1 / 8, 32), (512, 1 / 4, 16), (389, 1 / 8, 8)]
)
@pytest.mark.parametrize("axis", [1, 2])
def test_cells_in_space(factory: Factory, size: int, width: float, max_stride: int, axis: int) -> None:
    network = even_weights(small(factory, 2, width=width, max_stride=max_stride))
    shape = (2, size, 32) if axis == 1 else (2, 32, size)
    cells = math.ceil(size / max_stride)
    assert network.features(torch.rand(1, 3, *shape).double()).shape[2 + axis] == cells
    assert network.cells.stride[1:] == (max_stride, max_stride)
    for cell in (cells // 2, cells // 2 - 1):
        first, last = reached(network, shape, axis, cell)
        assert 0 < first < last < size - 1, "not an interior cell"
        assert (first + last) / 2 == network.cells.offset[axis] + network.cells.stride[axis] * cell


@pytest.mark.usefixtures("averaging")
@pytest.mark.parametrize(
    ("factory", "frames", "wanted"),
    [(TSN, 4, (2, 2)), (TSM, 36, (2, 34)), (TRN, 7, (0, 6)), (TRN, 8, (0, 7))],
)
def test_cells_in_time(factory: Factory, frames: int, wanted: tuple[int, int]) -> None:
    network = even_weights(small(factory, frames))
    slices = network.features(torch.rand(1, 3, frames, 32, 32).double()).shape[2]
    assert slices == (1 if factory is TRN else frames)
    cell = slices // 2
    got = reached(network, (frames, 32, 32), 0, cell)
    assert got == wanted  # TSM: one frame either way in each of 16 blocks
    assert sum(got) / 2 == network.cells.offset[0] + network.cells.stride[0] * cell


@pytest.mark.parametrize("factory", [TSN, TSM, TRN])
@pytest.mark.parametrize(
    ("shape", "max_stride"),
    [
        ((8, 96, 96), 16),
        ((16, 64, 96), 32),
        ((2, 33, 65), 32),
        ((3, 112, 80), 8),
        ((5, 1, 7), 4),
        ((4, 20, 24), 1),
    ],
)
def test_shapes(factory: Factory, shape: tuple[int, int, int], max_stride: int) -> None:
    network = small(factory, shape[0], max_stride=max_stride)
    video = torch.rand(2, 3, *shape)
    features = network.features(video)
    side = [math.ceil(size / max_stride) for size in shape[1:]]
    assert tuple(features.shape) == (2, network.num_features, 1 if factory is TRN else shape[0], *side)
    assert network.cells.stride[1:] == (max_stride, max_stride)
    assert network.fc.in_features == network.num_features
    with torch.no_grad():
        assert torch.equal(network(video), network(video))
        assert network(video).shape == (2, CLASSES)


def test_wrong_input() -> None:
    for factory in (TSN, TSM, TRN):
        with pytest.raises(ValueError, match=r"expected \(B, 3, T, H, W\)"):
            small(factory, 8)(torch.rand(1, 3, 32, 32))
        with pytest.raises(ValueError, match="num_classes"):
            factory(0)
    with pytest.raises(ValueError, match="has 7 frames, but this TRN was made for 8"):
        small(TRN, 8)(torch.rand(1, 3, 7, 32, 32))
    with pytest.raises(ValueError, match="at least 2"):
        TRN(CLASSES, frames=1)


@pytest.mark.parametrize(
    ("factory", "options"), [(TSN, {}), (TSM, {}), (TRN, {}), (TRN, {"per_cell": False})]
)
@pytest.mark.parametrize("shape", [(8, 96, 96), (2, 64, 48)])
def test_gradients_reach_every_parameter(
    factory: Factory, options: dict[str, bool], shape: tuple[int, int, int]
) -> None:
    network = small(factory, shape[0], max_stride=16, **options).train()
    F.cross_entropy(network(torch.randn(2, 3, *shape)), torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


# How frames meet -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_order_of_frames() -> None:
    video = torch.randn(1, 3, 6, 48, 48)
    mixed = video[:, :, [3, 0, 5, 1, 4, 2]]
    torch.testing.assert_close(small(TSN, 6)(video), small(TSN, 6)(mixed), rtol=1e-4, atol=1e-5)
    for factory in (TSM, TRN):
        network = small(factory, 6)
        assert (network(video) - network(mixed)).abs().max() > 1e-3 * network(video).abs().max()


def shifted_by_hand(clip: np.ndarray, div: int) -> np.ndarray:
    """(T, C, H, W), frame by frame and channel by channel, from Sec. 3 of the paper."""
    frames, channels = clip.shape[:2]
    result = np.zeros_like(clip)
    for frame, channel in itertools.product(range(frames), range(channels)):
        if channel < channels // div:
            source = frame + 1
        elif channel < 2 * (channels // div):
            source = frame - 1
        else:
            source = frame
        if 0 <= source < frames:
            result[frame, channel] = clip[source, channel]
    return result


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("batch", "frames", "channels", "div"), [(1, 1, 8, 8), (2, 5, 16, 8), (3, 4, 30, 8), (2, 3, 9, 3)]
)
def test_shift(batch: int, frames: int, channels: int, div: int, memory: torch.memory_format) -> None:
    x = torch.randn(batch * frames, channels, 3, 5).contiguous(memory_format=memory)
    got = shift(x, frames, div).unflatten(0, (batch, frames))
    for index in range(batch):
        wanted = shifted_by_hand(x.unflatten(0, (batch, frames))[index].numpy(), div)
        np.testing.assert_array_equal(got[index].numpy(), wanted)


def test_shift_lies_as_the_convolution_wants_it() -> None:
    x = torch.randn(6, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    assert shift(x, 3).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_every_residual_branch_is_shifted_and_no_shortcut() -> None:
    network, seen = small(TSM, 4), {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | Bottleneck):
            module.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0].clone()}))
    network(torch.randn(1, 3, 4, 64, 64))
    blocks = [f"{layer}.{block}" for layer, row in LAYERS.items() for block in range(row[0])]
    assert len(blocks) == 16
    for block in blocks:
        wanted = shifted_by_hand(seen[block].numpy(), 8)
        np.testing.assert_array_equal(seen[f"{block}.conv1"].numpy(), wanted)
        assert (wanted != seen[block].numpy()).any()
        if block.endswith(".0"):
            assert torch.equal(seen[f"{block}.downsample.0"], seen[block])


@pytest.mark.parametrize("frames", range(2, 33))
def test_subsets(frames: int) -> None:
    for size in range(2, frames + 1):
        for choose in (even_subsets, random_subsets):
            subsets = choose(frames, size)
            assert len(subsets) == min(3, math.comb(frames, size)) == len(set(subsets))
            for subset in subsets:
                assert len(subset) == size and list(subset) == sorted(set(subset))
                assert set(subset) <= set(range(frames))
        assert even_subsets(frames, size) == even_subsets(frames, size)
        total = math.comb(frames, size)
        if total <= 1000:  # against the list itself
            every = list(itertools.combinations(range(frames), size))
            places = [every.index(subset) for subset in even_subsets(frames, size)]
            assert places == [int((index + 0.5) * total / len(places)) for index in range(len(places))]


def test_draws_of_subsets() -> None:
    torch.manual_seed(3)
    first = [random_subsets(16, size) for size in range(2, 17)]
    torch.manual_seed(3)
    assert first == [random_subsets(16, size) for size in range(2, 17)]
    draws = 2000
    counts = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for _ in range(draws):
        for subset in random_subsets(5, 2):
            counts[subset] += 1
    spread = 5 * math.sqrt(draws * 0.3 * 0.7)  # each of 10 subsets is one of the 3 drawn
    assert all(abs(count - 0.3 * draws) < spread for count in counts.values())


def relations(frames: int, **kwargs: object) -> TRN:
    network = small(TRN, frames, **kwargs)
    assert isinstance(network, TRN)
    return network


def published_scores(
    frames: Tensor,
    reduce: nn.Linear,
    scorers: list[tuple[nn.Linear, nn.Linear]],
    subsets: list[list[tuple[int, ...]]],
) -> Tensor:
    """Eq. 1-3 and the public code's layers, one subset after another: pooled frames (B, T, C) -> (B, S)."""
    total = torch.zeros(())
    for (hidden, classes), chosen in zip(scorers, subsets, strict=True):
        for subset in chosen:
            ordered = torch.cat([F.relu(reduce(frames[:, index])) for index in subset], dim=1)
            total = total + classes(F.relu(hidden(ordered)))
    return total


@pytest.mark.parametrize("frames", [2, 3, 5, 8])
@torch.no_grad()
def test_public_trn_weights_give_the_published_scores(frames: int) -> None:
    torch.manual_seed(frames)
    network = relations(frames, per_cell=False)
    channels, hidden = network.reduce.in_features, network.reduce.out_features
    reduce = nn.Linear(channels, hidden)
    sizes = list(range(frames, 1, -1))
    scorers = [(nn.Linear(size * hidden, hidden), nn.Linear(hidden, CLASSES)) for size in sizes]
    public = {f"new_fc.{kind}": value for kind, value in reduce.state_dict().items()}
    for index, (first, second) in enumerate(scorers):
        for position, layer in ((1, first), (3, second)):
            for kind, value in layer.state_dict().items():
                public[f"consensus.fc_fusion_scales.{index}.{position}.{kind}"] = value
    for name, value in network.state_dict().items():
        if not name.startswith(("reduce.", "relations.", "fc.")):
            public[f"base_model.{name}"] = value
    network.load_state_dict(network.adapt_weights(public), strict=True)
    own = network.state_dict()
    assert network.adapt_weights(own).keys() == own.keys()
    with pytest.raises(UserError, match=f"relate {frames} frames, but this TRN was made for {frames + 1}"):
        relations(frames + 1).adapt_weights(public)

    x = torch.randn(2, channels, frames, 3, 2)
    pooled = x.mean((3, 4)).transpose(1, 2)
    wanted = published_scores(pooled, reduce, scorers, [even_subsets(frames, size) for size in sizes])
    got = network.fc(network.relate(x.mean((3, 4), keepdim=True)).mean((2, 3, 4)))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_relations_of_cells_and_of_pooled_frames() -> None:
    cells, pooled = relations(5), relations(5, per_cell=False)
    cells.load_state_dict(pooled.state_dict())
    flat = torch.randn(2, cells.reduce.in_features, 5, 1, 1).expand(-1, -1, -1, 3, 4)
    torch.testing.assert_close(
        cells.relate(flat).mean((2, 3, 4)), pooled.relate(flat.mean((3, 4), keepdim=True)).mean((2, 3, 4))
    )
    one = torch.randn(2, 3, 5, 32, 32)  # one cell
    torch.testing.assert_close(cells(one), pooled(one))
    video = torch.randn(1, 3, 5, 64, 64)
    assert cells.features(video).shape[3:] == (2, 2) and pooled.features(video).shape[3:] == (1, 1)
    assert not torch.allclose(cells(video), pooled(video))


def test_draws_in_training() -> None:
    network = relations(6, dropout=0.0)
    x = torch.randn(1, network.reduce.in_features, 6, 2, 2)
    fixed = network.relate(x)
    assert torch.equal(fixed, network.relate(x))
    network.train()
    torch.manual_seed(1)
    first = network.relate(x)
    assert not torch.equal(first, network.relate(x)) and not torch.equal(first, fixed)
    torch.manual_seed(1)
    assert torch.equal(first, network.relate(x))


def test_dropout_of_frame_features_is_one_for_all_cells() -> None:
    network = relations(3, dropout=0.8).train()
    flat = torch.rand(2, network.reduce.in_features, 3, 1, 1).expand(-1, -1, -1, 4, 4)
    related = network.relate(flat)
    torch.testing.assert_close(related, related[..., :1, :1].expand_as(related))
    assert not torch.equal(related, network.relate(flat))


@pytest.mark.parametrize(
    ("factory", "options"), [(TSN, {}), (TSM, {}), (TRN, {}), (TRN, {"per_cell": False})]
)
def test_three_branches_on_it(factory: Factory, options: dict[str, bool]) -> None:
    network = PeakZoom(small(factory, 4, max_stride=16, **options), CLASSES, grid=9).train()
    output = network(torch.randn(2, 3, 4, 64, 64), attention=True)
    network.loss(output, torch.tensor([0, 1])).backward()
    assert output.attention is not None and output.attention.q_dis.shape == (2, 4, 9, 9)
    assert output.fused.shape == (2, CLASSES) and output.fused.isfinite().all()
