"""Where feature cells look (docs/method.md, section 2): ``place_response`` against the plain reading, and the way from
a bright patch in the frame to the peak of its placed response, with weights that only blur."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from model import reference as ref
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peakzoom.model import (
    BACKBONES,
    TCNN,
    CellGeometry,
    class_response_maps,
    find_peaks,
    normalise,
    place_response,
)
from peakzoom.model.numerics import remembered

DTYPES = [torch.float32, torch.float64]
PAPER = CellGeometry(stride=(4, 32, 32), offset=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("slices", "cells", "frames", "size", "grid"),
    [
        (4, (7, 7), 16, (224, 224), 31),
        (4, (3, 5), 16, (96, 160), 31),
        (2, (7, 11), 8, (224, 342), 9),
        (2, (3, 4), 5, (65, 97), 31),
        (1, (7, 7), 1, (224, 224), 31),
        (1, (1, 1), 4, (32, 32), 31),
        (1, (1, 6), 3, (17, 181), 7),
        (4, (2, 2), 13, (33, 64), 12),
    ],
)
def test_place_response(
    slices: int, cells: tuple[int, int], frames: int, size: tuple[int, int], grid: int, dtype: torch.dtype
) -> None:
    response = torch.from_numpy(np.random.default_rng(grid).normal(size=(2, slices, *cells))).to(dtype)
    got = place_response(response, PAPER, frames, size, grid)
    assert tuple(got.shape) == (2, frames, grid, grid) and got.dtype == dtype
    wanted = ref.place_response(response.numpy(), PAPER.stride, PAPER.offset, frames, size, grid)
    np.testing.assert_allclose(
        got.double().numpy(), wanted, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-11
    )


@pytest.mark.parametrize(
    ("stride", "offset"),
    [((4, 16, 16), (0.0, 0.0, 0.0)), ((2, 16, 8), (0.5, 3.5, -4.0)), ((1, 8, 32), (0.0, 7.5, 15.5))],
)
def test_place_response_of_other_networks(
    stride: tuple[int, int, int], offset: tuple[float, float, float]
) -> None:
    cells = CellGeometry(stride=stride, offset=offset)
    response = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 4, 6, 5)))
    got = place_response(response, cells, 12, (96, 101), 15)
    wanted = ref.place_response(response.numpy(), stride, offset, 12, (96, 101), 15)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-11)


def test_mixed_precision_moves_no_peak() -> None:
    """bfloat16 has eight bits: interpolated in it, maps get plateaus and other peaks."""
    response = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 4, 7, 7))).float()
    wanted = place_response(response, PAPER, 16, (224, 224), 31)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = place_response(response, PAPER, 16, (224, 224), 31)
    assert torch.equal(find_peaks(got), find_peaks(wanted))


def test_cell_geometry_is_plain_frozen_data() -> None:
    assert dataclasses.is_dataclass(CellGeometry)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.stride = (1, 1, 1)  # type: ignore[misc]
    network = TCNN(3, width=1 / 32)
    assert tuple(network.cells.stride) == (4, 32, 32) and tuple(network.cells.offset) == (0, 0, 0)


def test_positions_of_the_paper_by_hand() -> None:
    """Cell 6 lies on pixel 192 of 224, that is grid line 192 * 30 / 223 = 25.8, and its value holds up to line 30."""
    response = torch.zeros(1, 4, 7, 7, dtype=torch.float64)
    response[0, 2, 6, 3] = 1.0
    placed = place_response(response, PAPER, 16, (224, 224), 31)[0]
    course = placed.amax((1, 2)) / placed.amax()
    np.testing.assert_allclose(
        course, [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0], atol=1e-12
    )
    column = placed[8][:, 13]
    np.testing.assert_allclose(column[26:] / column[30], 1.0)
    assert column[25] < column[26] and column[20] == 0
    np.testing.assert_allclose(column[25] / column[30], (25 * 223 / 30 - 160) / 32)


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, -7.7, 12345.678])
@pytest.mark.parametrize("slices,cells", [(1, (1, 1)), (4, (1, 1)), (4, (7, 7)), (2, (3, 6))])
def test_a_flat_response_stays_flat(slices: int, cells: tuple[int, int], value: float) -> None:
    """Rounding in the interpolation must not become a map of noise when it is stretched to [0, 1]."""
    response = torch.full((1, slices, *cells), value)
    placed = place_response(response, PAPER, 16, (cells[0] * 32, cells[1] * 32), 31)
    assert normalise(placed).eq(0).all()
    assert not find_peaks(normalise(placed)).any()


def blur(network: nn.Module, side: float) -> nn.Module:
    """Every convolution a mean over its inputs of a symmetric, non-negative blur with sum 1; batch norms do nothing.

    ``side`` is the weight of the two side taps of a convolution of stride 1; one with stride 2 has (1, 2, 1) / 4. It
    is small because the padding's zeros flow in from the border with every blur and would push all peaks inwards."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                taps = torch.ones(1, 1, 1)
                for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
                    assert size in (1, 3)
                    edge = 0.25 if stride > 1 else side
                    line = torch.tensor([edge, 1 - 2 * edge, edge]) if size == 3 else torch.ones(1)
                    taps = taps * line.reshape([-1 if a == axis else 1 for a in range(3)])
                module.weight.copy_((taps / module.weight.shape[1]).expand_as(module.weight))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm3d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.fill_(1.0)
                module.bias.zero_()
                module.running_mean.zero_()
                module.running_var.fill_(1.0 - module.eps)
    return network.eval()


READINGS = ("tcnn", "tcnn_16", "tcnn_local")  # of Table 1


def backbone(name: str) -> nn.Module:
    """The named size; the paper's with few channels, which is the same geometry."""
    return BACKBONES[name](2, width=1 / 32) if name in READINGS else BACKBONES[name](2)


def raw_response(network: nn.Module, video: torch.Tensor, grid: int) -> torch.Tensor:
    with torch.no_grad():
        features = network.features(video)
        maps = class_response_maps(features, torch.full((1, features.shape[1]), 1.0 / features.shape[1]))
        return place_response(maps[:, 0], network.cells, video.shape[2], tuple(video.shape[-2:]), grid)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tcnn", (224, 224)),
        ("tcnn", (224, 288)),
        ("tcnn_16", (224, 224)),
        ("tcnn_local", (224, 224)),
        ("tcnn_s", (128, 128)),
        ("tcnn_s", (96, 96)),
        ("tcnn_xs", (128, 128)),
        ("tcnn_xs", (96, 96)),
        ("tcnn_xs", (96, 128)),
    ],
)
def test_a_patch_is_found_where_it_is(name: str, size: tuple[int, int]) -> None:
    """A bright patch of three quarters of a cell at some forty places of the whole frame, up to its borders."""
    network, grid, places = blur(backbone(name), side=0.1), 31, 41
    _, stride_y, stride_x = network.cells.stride
    width = (int(0.75 * stride_y) // 2 * 2 + 1, int(0.75 * stride_x) // 2 * 2 + 1)
    half_y, half_x = width[0] // 2, width[1] // 2
    along_y = np.linspace(half_y, size[0] - 1 - half_y, places).round().astype(int)
    along_x = np.linspace(half_x, size[1] - 1 - half_x, places).round().astype(int)
    along_x = along_x[(np.arange(places) * 16) % places]  # every row with some other column
    errors = []
    for y, x in zip(along_y, along_x, strict=True):
        video = torch.zeros(1, 3, 4, *size)
        video[..., y - half_y : y + half_y + 1, x - half_x : x + half_x + 1] = 1.0
        response = normalise(raw_response(network, video, grid))[0, 0]
        peaks = find_peaks(response)
        assert peaks.any(), f"no peak for a patch at {y}, {x}"
        best = (response * peaks).argmax().item()
        found_y, found_x = best // grid * (size[0] - 1) / (grid - 1), best % grid * (size[1] - 1) / (grid - 1)
        errors.append((found_y - y, found_x - x))
    error = np.array(errors)
    for axis, stride in enumerate((stride_y, stride_x)):
        limit = stride / 2 + (size[axis] - 1) / (grid - 1)
        assert np.abs(error[:, axis]).max() <= limit, (axis, np.abs(error[:, axis]).max(), limit)
        assert abs(error[:, axis].mean()) < 0.015 * size[axis], (axis, error[:, axis].mean())


@pytest.mark.parametrize(
    ("name", "side"), [("tcnn", 64), ("tcnn_16", 64), ("tcnn_local", 64), ("tcnn_s", 48), ("tcnn_xs", 48)]
)
@pytest.mark.parametrize("frames", [16, 8])
def test_a_flash_is_found_when_it_is(name: str, side: int, frames: int) -> None:
    """A bright frame: the response is strongest in time within half a slice of it, and centred on it on average."""
    network = blur(backbone(name), side=0.1)
    stride, offset = network.cells.stride[0], network.cells.offset[0]
    centres = [offset + stride * i for i in range(100) if offset + stride * i < frames]
    last = int(centres[-1])
    errors = {}
    for frame in range(frames):
        video = torch.zeros(1, 3, frames, side, side)
        video[:, :, frame] = 1.0
        course = raw_response(network, video, 9)[0].amax((1, 2))[: last + 1]  # beyond it the edge value holds
        if course.max() > 0:
            found = (course >= course.max() * (1 - 1e-5)).nonzero().float().mean().item()
            errors[frame] = found - frame
    assert {c for c in centres if c == int(c)} <= set(errors), "a frame in the centre of a slice is not seen"
    inside = {frame: error for frame, error in errors.items() if frame <= last}
    assert all(abs(error) <= stride / 2 for error in inside.values()), inside
    assert abs(np.mean(list(inside.values()))) < max(0.015 * frames, 0.5), (
        inside
    )  # few frames: a tie weighs much


def frames_seen(network: nn.Module) -> list[int]:
    """Of 16 frames, those that any feature depends on. Not through the mean frame of ``motion``, which has all."""
    assert not network.motion
    video = torch.rand(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.features(video).sum(), video)
    return gradient.abs().amax((0, 1, 3, 4)).nonzero().flatten().tolist()


def test_the_paper_s_network_sees_every_fourth_frame() -> None:
    """docs/choices.md to the letter: 1 x 3 x 3 convolutions of temporal stride 2 skip frames, and dilations of 2
    and 4 never fetch them."""
    assert frames_seen(backbone("tcnn").eval()) == [0, 4, 8, 12]


@pytest.mark.parametrize(
    ("name", "options"),
    [("tcnn", {"every_frame": True}), ("tcnn_16", {}), ("tcnn_local", {}), ("tcnn_s", {}), ("tcnn_xs", {})],
)
def test_every_frame_reaches_the_features(name: str, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    width = 1 / 8 if name in READINGS else 1
    assert frames_seen(BACKBONES[name](2, width=width, motion=False, **options).eval()) == list(range(16))


@pytest.mark.parametrize("frames", [16, 12, 8])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in (*READINGS, "tcnn_s", "tcnn_xs", "tcnn_xs_local", "r3d_18", "r2plus1d_18")),
        ("tcnn", {"every_frame": True}),
        ("tcnn_xs", {"motion": False}),
    ],
)
def test_slices_are_centred_where_what_they_see_is(name: str, options: dict[str, bool], frames: int) -> None:
    """By the energy of the gradient, frame by frame: the paper's T-CNN sees frames 0, 4, 8 and 12 of 16, whose middle
    is 6; where all are seen, the middle is nearer to the clip's than to that of the fields' centres, or half a frame
    from it at most."""
    torch.manual_seed(0)
    network = BACKBONES[name](2, width=1 / 8, **options)
    video = torch.randn(2, 3, frames, 64, 64, requires_grad=True)
    features = network.features(video)
    slices, at = features.shape[2], torch.arange(frames)
    energy = [
        torch.autograd.grad((each * torch.randn_like(each)).sum(), video, retain_graph=True)[0]
        .square()
        .sum((0, 1, 3, 4))
        for each in features.unbind(2)
    ]
    seen = float(np.mean([float((each * at).sum() / each.sum()) for each in energy]))
    cells, apart = network.cells, network.frames_apart
    centred = cells.centred(slices, (frames - 1) // apart * apart)
    assert centred.stride == cells.stride and centred.offset[1:] == cells.offset[1:]
    middles = [each.offset[0] + each.stride[0] * (slices - 1) / 2 for each in (centred, cells)]
    assert abs(seen - middles[0]) <= max(abs(seen - middles[1]), 0.5), (seen, middles)
    assert (middles[0] == middles[1]) == (apart == 4)


@pytest.mark.parametrize(
    ("layers", "length"),
    [
        ([(3, 2, 1, 1)], 9),
        ([(7, 2, 3, 1), (3, 2, 1, 1), (1, 2, 0, 1)], 41),
        ([(7, 2, 2, 1), (3, 2, 0, 1)], 40),
        ([(2, 2, 0, 1), (3, 1, 1, 1), (2, 2, 0, 1)], 32),
        ([(5, 1, 4, 2), (3, 2, 2, 2)], 33),
        ([(4, 3, 0, 1), (5, 2, 1, 1)], 58),
    ],
)
def test_stacked_layers_look_at_the_middle_of_what_reaches_them(
    layers: list[tuple[int, int, int, int]], length: int
) -> None:
    cells = CellGeometry((1, 1, 1))
    signal = torch.zeros(1, 1, length, dtype=torch.float64, requires_grad=True)
    value = signal
    for kernel, stride, padding, dilation in layers:
        cells = cells.then(kernel, stride, (padding, padding, padding), dilation)
        weight = torch.ones(1, 1, kernel, dtype=torch.float64)
        value = torch.nn.functional.conv1d(value, weight, None, stride, padding, dilation)
    assert cells.stride[0] == cells.stride[2] and cells.offset[0] == cells.offset[2]
    met = 0
    for index in range(value.shape[2]):
        (reached,) = torch.autograd.grad(value[0, 0, index], signal, retain_graph=True)
        at = reached[0, 0].nonzero()[:, 0].double()
        if at.min() > 0 and at.max() < length - 1:  # a window cut at the border is not centred
            met += 1
            assert (at.min() + at.max()) / 2 == cells.offset[0] + cells.stride[0] * index
    assert met


def test_what_is_remembered_is_made_once_for_answers_and_gradients_alike() -> None:
    made: list[int] = []

    @remembered
    def line(steps: int, dtype: torch.dtype) -> torch.Tensor:
        made.append(steps)
        return torch.linspace(0, 1, steps, dtype=dtype)

    with torch.inference_mode():
        first = line(5, torch.float32)
    assert line(5, torch.float32) is first and line(5, torch.float64).dtype == torch.float64
    assert made == [5, 5]
    weight = torch.ones(5, requires_grad=True)
    (line(5, torch.float32) * weight).sum().backward()  # an inference tensor could not be saved for it
    torch.testing.assert_close(weight.grad, torch.linspace(0, 1, 5))


def test_a_recorded_graph_makes_its_own() -> None:
    """What is made while a graph is recorded, or without numbers, would else be handed to the next clip."""

    @remembered
    def line(steps: int) -> torch.Tensor:
        return torch.linspace(0, 1, steps)

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * line(x.shape[1])

    with FakeTensorMode():
        line(7)
    x = torch.ones(2, 7)
    program = torch.export.export(Scaled(), (x,)).module()
    for _ in range(2):
        torch.testing.assert_close(line(7), torch.linspace(0, 1, 7))
        torch.testing.assert_close(program(x)[0], line(7))
