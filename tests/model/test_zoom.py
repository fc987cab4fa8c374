"""The resampling (section 4 of docs/method.md) against explicit 61 x 61 window sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model import reference as ref

from peakzoom.model import ZoomSampler

DTYPES = [torch.float32, torch.float64]
SIZES = [(16, 16), (15, 23), (9, 6), (31, 31), (64, 48), (97, 33)]


def attention(number: int, grid: int, seed: int = 0) -> np.ndarray:
    """A low base and a few narrow hills, some of them in corners: what Eq. 7 gives."""
    rng = np.random.default_rng(seed)
    q = np.full((number, grid, grid), 0.09)
    y, x = np.mgrid[:grid, :grid] / grid
    for n in range(number):
        for _ in range(3):
            cy, cx = rng.choice([0.0, 0.5, 1.0 - 1.0 / grid], 2) + rng.uniform(-0.01, 0.01, 2)
            q[n] += rng.uniform(0.2, 1.5) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.02)
    return q


def to_module(sampler: ZoomSampler, dtype: torch.dtype) -> ZoomSampler:
    return sampler.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("grid", "fwhm", "padding"), [(31, 13.0, 30), (7, 13.0, 30), (12, 5.0, 11), (31, 6.0, 10)]
)
def test_grid_is_the_plain_window_sum(grid: int, fwhm: float, padding: int, dtype: torch.dtype) -> None:
    q = attention(3, grid, seed=grid)
    sampler = to_module(ZoomSampler(grid=grid, fwhm=fwhm, padding=padding), dtype)
    got = sampler.grid(torch.from_numpy(q).to(dtype))
    assert tuple(got.shape) == (3, grid, grid, 2) and got.dtype == dtype
    assert got.min() >= -1 and got.max() <= 1
    # the lines of a module converted from float32 are as close as float32 is
    np.testing.assert_allclose(got.double().numpy(), ref.zoom_grid(q, fwhm, padding), rtol=0, atol=1e-5)


def test_random_attention() -> None:
    q = np.random.default_rng(0).uniform(0.01, 1.0, (2, 31, 31))
    got = ZoomSampler().grid(torch.from_numpy(q).float()).double().numpy()
    np.testing.assert_allclose(got, ref.zoom_grid(q), rtol=0, atol=1e-5)


def test_order_is_x_then_y() -> None:
    """A hill on the right and above the middle pulls the middle of the frame there: x grows, y falls."""
    q = np.full((1, 31, 31), 0.09)
    q[0, 8, 25] = 30.0
    x, y = ZoomSampler().grid(torch.from_numpy(q).float())[0, 15, 15].tolist()
    assert x > 0.05 and y < -0.05


@pytest.mark.parametrize("value", [1e-3, 0.09, 7.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_flat_attention_returns_the_frame(size: tuple[int, int], value: float) -> None:
    frames = torch.from_numpy(np.random.default_rng(1).uniform(0, 1, (2, 3, *size))).float()
    zoomed = ZoomSampler()(frames, torch.full((2, 31, 31), value))
    assert tuple(zoomed.shape) == tuple(frames.shape)
    torch.testing.assert_close(zoomed, frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(224, 224), (256, 342), (181, 240)], ids=str)
def test_flat_attention_returns_large_frames(size: tuple[int, int]) -> None:
    """In float32 a position among 342 pixels is known to some 1e-5 of a pixel, and noise changes by up to 1 from one
    pixel to the next: a little more than 1e-5 is rounding."""
    frames = torch.from_numpy(np.random.default_rng(1).uniform(0, 1, (1, 3, *size))).float()
    torch.testing.assert_close(
        ZoomSampler()(frames, torch.full((1, 31, 31), 0.09)), frames, rtol=0, atol=5e-5
    )


@pytest.mark.parametrize("grid", [7, 12])
def test_flat_attention_on_other_grids(grid: int) -> None:
    frames = torch.rand(1, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    zoomed = ZoomSampler(grid=grid)(frames, torch.full((1, grid, grid), 0.09))
    torch.testing.assert_close(zoomed, frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(16, 16), (15, 23), (33, 20)], ids=str)
def test_zoomed_frames(size: tuple[int, int], dtype: torch.dtype) -> None:
    q = attention(2, 31, seed=2)
    frames = np.random.default_rng(3).uniform(-1, 1, (2, 3, *size))
    sampler = to_module(ZoomSampler(), dtype)
    got = sampler(torch.from_numpy(frames).to(dtype), torch.from_numpy(q).to(dtype))
    np.testing.assert_allclose(got.double().numpy(), ref.zoom(frames, ref.zoom_grid(q)), rtol=0, atol=2e-4)


RATIOS = [0.5, 0.7, 1, 1.5, 1.9, 2, 2.1, 3, 4]


def larger(size: tuple[int, int], ratio: float, ratio_x: float | None = None) -> tuple[int, int]:
    return round(size[0] * ratio), round(size[1] * (ratio_x or ratio))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", [(12, 12), (16, 11), (10, 20)], ids=str)
def test_reading_from_frames_of_another_size(size: tuple[int, int], ratio: float) -> None:
    q = attention(2, 31, seed=4)
    frames = np.random.default_rng(5).uniform(-1, 1, (2, 3, *larger(size, ratio)))
    got = ZoomSampler()(torch.from_numpy(frames).float(), torch.from_numpy(q).float(), size=size)
    assert tuple(got.shape) == (2, 3, *size)
    np.testing.assert_allclose(got.numpy(), ref.zoom(frames, ref.zoom_grid(q), size), rtol=0, atol=2e-4)


@pytest.mark.parametrize("ratios", [(1, 4), (3, 1.5), (0.5, 2), (2.3, 0.8)], ids=str)
def test_reading_from_frames_of_another_shape(ratios: tuple[float, float]) -> None:
    """Each axis by its own ratio, in float64, where the two readings agree to rounding."""
    q, size = attention(1, 12, seed=6), (14, 10)
    frames = np.random.default_rng(7).uniform(-1, 1, (1, 2, *larger(size, *ratios)))
    # the lines of a grid built in float64: float32's are as close as float32 is
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        sampler = ZoomSampler(grid=12)
    finally:
        torch.set_default_dtype(before)
    got = sampler(torch.from_numpy(frames), torch.from_numpy(q), size=size)
    np.testing.assert_allclose(got.numpy(), ref.zoom(frames, ref.zoom_grid(q), size), rtol=0, atol=1e-11)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(12, 12), (9, 17), (24, 16)], ids=str)
def test_flat_attention_averages_areas(size: tuple[int, int], factor: int) -> None:
    frames = np.random.default_rng(8).uniform(-1, 1, (2, 3, *larger(size, factor)))
    wanted = np.zeros((2, 3, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            area = frames[:, :, factor * y : factor * (y + 1), factor * x : factor * (x + 1)]
            wanted[:, :, y, x] = area.mean((2, 3))
    got = ZoomSampler()(torch.from_numpy(frames).float(), torch.full((2, 31, 31), 0.09), size=size)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=2e-5)


def scene(size: tuple[int, int]) -> np.ndarray:
    """The same scene at any size: two slopes, which linear readings keep, each pixel showing the middle of its area."""
    y, x = ((np.arange(length) + 0.5) / length for length in size)
    return np.stack(np.broadcast_arrays(x, y[:, None]))[None].copy()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", [(24, 24), (20, 33)], ids=str)
def test_flat_attention_shifts_no_ratio(size: tuple[int, int], ratio: float) -> None:
    """Every pixel shows what lies in the middle of its area, up to the border's, which smaller frames cannot show."""
    zoomed = ZoomSampler()(
        torch.from_numpy(scene(larger(size, ratio))).float(), torch.full((1, 31, 31), 0.09), size=size
    ).numpy()
    inside = np.s_[..., 1:-1, 1:-1]
    np.testing.assert_allclose(zoomed[inside], scene(size)[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 30), (20, 30)], ids=str)
def test_ratios_do_not_shift_the_picture_against_each_other(size: tuple[int, int]) -> None:
    """1.9 and 2, among others, with a hill: where one reading becomes two, nothing may jump. A pixel of the result is
    1 / 30 of the slopes, half a pixel of the frame some 0.01. Near the border a reading that leaves the frame is held
    there, a little elsewhere for every size."""
    gy, gx = np.mgrid[:31, :31] / 30
    q = torch.from_numpy(0.09 + np.exp(-((gy - 0.4) ** 2 + (gx - 0.6) ** 2) / 0.02))[None].float()
    zoomed = {
        ratio: ZoomSampler()(torch.from_numpy(scene(larger(size, ratio))).float(), q, size=size).numpy()
        for ratio in (1, 1.5, 1.9, 2, 2.1, 3, 4)
    }
    assert np.abs(zoomed[2] - scene(size)).max() > 0.05, "nothing was zoomed"
    inside = np.s_[..., 2:-2, 2:-2]
    for ratio in (1.9, 2):  # one reading each: the same places but for rounding
        np.testing.assert_allclose(zoomed[ratio][inside], zoomed[1][inside], rtol=0, atol=2e-5)
    for ratio, result in zoomed.items():
        # two readings average a bent displacement where one takes its middle
        np.testing.assert_allclose(result[inside], zoomed[2][inside], rtol=0, atol=1e-3, err_msg=str(ratio))
        assert np.abs((result - zoomed[2])[inside].mean((2, 3))).max() < 1e-4, ratio


def test_size_and_frames_may_lie_as_they_like() -> None:
    """A size in a list; frames whose channels lie apart in memory, as those of one clip do."""
    torch.manual_seed(0)
    clip, q = torch.rand(3, 4, 24, 32), torch.rand(8, 31, 31) + 0.1
    expected = ZoomSampler()(clip.transpose(0, 1).contiguous(), q, size=(12, 16))
    found = ZoomSampler()(clip.transpose(0, 1), q, size=[12, 16])  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("ratio", [1, 1.9, 3])
def test_any_number_of_channels(ratio: float) -> None:
    """The frames of a clip in one attention, as 3 T channels, are what each frame by itself is."""
    size, q = (18, 13), torch.from_numpy(attention(2, 31, seed=9)).float()
    shape = (2, 12, *larger(size, ratio))
    frames = torch.from_numpy(np.random.default_rng(10).uniform(-1, 1, shape)).float()
    together = ZoomSampler()(frames, q, size=size)
    assert tuple(together.shape) == (2, 12, *size)
    for first in range(0, 12, 3):
        alone = ZoomSampler()(frames[:, first : first + 3], q, size=size)
        torch.testing.assert_close(together[:, first : first + 3], alone, rtol=0, atol=1e-6)


def test_mixed_precision_keeps_positions() -> None:
    """A position in bfloat16 is wrong by up to half a pixel of 224."""
    frames = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    q = torch.from_numpy(attention(2, 31)).float()
    flat = torch.full((2, 31, 31), 0.09)
    wanted = ZoomSampler()(frames, q)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, same = ZoomSampler()(frames, q), ZoomSampler()(frames, flat)
    torch.testing.assert_close(same.float(), frames, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.float(), wanted, rtol=0, atol=1e-4)


def test_a_hill_enlarges_what_lies_under_it() -> None:
    """A disc under a hill of attention covers more pixels afterwards, one far from it fewer."""
    y, x = np.mgrid[:64, :64]
    frames = np.zeros((1, 3, 64, 64), dtype=np.float32)
    frames[0, 0] = (y - 20) ** 2 + (x - 44) ** 2 < 36
    frames[0, 1] = (y - 54) ** 2 + (x - 10) ** 2 < 36
    gy, gx = np.mgrid[:31, :31] / 30 * 63
    q = 0.09 + np.exp(-((gy - 20) ** 2 + (gx - 44) ** 2) / 60)
    zoomed = ZoomSampler()(torch.from_numpy(frames), torch.from_numpy(q[None]).float()).numpy()
    assert zoomed[0, 0].sum() > 1.5 * frames[0, 0].sum()
    assert zoomed[0, 1].sum() < frames[0, 1].sum()


def test_zoomed_positions_never_fold() -> None:
    """The order of positions along a line is kept: weights of the kernel move monotonically."""
    grid = ZoomSampler().grid(torch.from_numpy(attention(4, 31, seed=6)).float())
    assert (grid[:, :, 1:, 0] - grid[:, :, :-1, 0]).min() >= -1e-5
    assert (grid[:, 1:, :, 1] - grid[:, :-1, :, 1]).min() >= -1e-5


def test_gradient_of_the_attention() -> None:
    """Against finite differences through the grid and the reading, float64, along a random direction."""
    q = torch.from_numpy(attention(1, 31, seed=8)).requires_grad_()
    frames = torch.from_numpy(np.random.default_rng(9).uniform(-1, 1, (1, 3, 12, 17)))
    direction = torch.from_numpy(np.random.default_rng(10).normal(size=(1, 31, 31)))
    weights = torch.from_numpy(np.random.default_rng(11).normal(size=(1, 3, 12, 17)))
    sampler = to_module(ZoomSampler(), torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (sampler(frames, at) * weights).sum()

    (gradient,) = torch.autograd.grad(value(q), q)
    step = 1e-6
    with torch.no_grad():
        difference = (value(q + step * direction) - value(q - step * direction)).item() / (2 * step)
    assert abs(difference) > 1e-3
    assert (gradient * direction).sum().item() == pytest.approx(difference, rel=1e-5)
