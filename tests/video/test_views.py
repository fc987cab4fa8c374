"""Sizes, crops, augmentation and normalisation against plain readings of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video import views
from peakzoom.video.clips import even_clips
from peakzoom.video.views import (
    Augment,
    Preprocess,
    centre_view,
    changed,
    crop_offsets,
    draw_change,
    frames_at,
    resize,
    to_input,
)


def training_view(
    frames: torch.Tensor, preprocess: Preprocess, augment: Augment, draws: torch.Generator
) -> torch.Tensor:
    """A clip as the loader makes it."""
    change = draw_change(frames.shape[2], frames.shape[3], preprocess, augment, draws)
    return changed(frames, change, preprocess.source_size)


SIZES = [
    (240, 320),
    (320, 240),
    (256, 256),
    (1080, 1920),
    (1920, 1080),
    (81, 121),
    (48, 640),
    (4, 4),
    (33, 32),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# What the network takes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_to_input_against_numpy(factor: int, channels_last: bool) -> None:
    pre = Preprocess(
        size=8, canvas=(10, 10), zoom_source=factor, mean=(0.1, 0.45, 0.7), std=(0.2, 0.225, 0.5)
    )
    side = 8 * factor
    views = noise(2, 3, 3, side, side)
    if channels_last:
        views = views.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    video, source = to_input(views, pre)
    pixels = views.numpy().astype(np.float64) / 255
    wanted = (pixels - np.array(pre.mean)[:, None, None]) / np.array(pre.std)[:, None, None]
    wanted = wanted.transpose(0, 2, 1, 3, 4)
    assert video.dtype == torch.float32 and video.shape == (2, 3, 3, 8, 8)
    if factor == 1:
        assert source is None
    else:
        assert source is not None
        np.testing.assert_allclose(source.numpy(), wanted, atol=1e-5)
        wanted = wanted.reshape(2, 3, 3, 8, factor, 8, factor).mean((4, 6))
    np.testing.assert_allclose(video.numpy(), wanted, atol=1e-5)


# Sizes for testing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height,width", SIZES)
@pytest.mark.parametrize("size,factor", [(224, 1), (96, 2), (32, 1)])
def test_the_short_side_is_the_size_and_the_shape_stays(
    height: int, width: int, size: int, factor: int
) -> None:
    pre = Preprocess(size=size, canvas=(size, size), zoom_source=factor)
    tall, wide = pre.test_size(height, width)
    assert min(tall, wide) == size * factor
    assert abs(wide - tall * width / height) <= 0.5 * max(1, width / height) + 1e-9
    assert len(crop_offsets(tall, wide, size * factor)) == 3


@pytest.mark.parametrize("height,width", SIZES)
def test_on_the_test_canvas_no_size_can_be_read(height: int, width: int) -> None:
    pre = Preprocess(size=96, canvas=(100, 120), test_canvas=True, zoom_source=2)
    assert pre.test_size(height, width) == (200, 240)


@pytest.mark.parametrize("height,width", [(9, 13), (40, 24), (8, 8)])
def test_resize(height: int, width: int) -> None:
    frames = noise(2, 3, height, width)
    assert resize(frames, height, width) is frames
    assert resize(frames, 16, 12).shape == (2, 3, 16, 12)
    flat = torch.full((1, 3, height, width), 77, dtype=torch.uint8)
    assert (resize(flat, 5, 7) == 77).all()


# Test crops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "height,width,wanted",
    [
        (224, 224, [(0, 0), (0, 0), (0, 0)]),
        (224, 400, [(0, 0), (0, 88), (0, 176)]),  # left, middle, right
        (400, 224, [(0, 0), (88, 0), (176, 0)]),  # top, middle, bottom
        (256, 342, [(16, 0), (16, 59), (16, 118)]),
        (225, 227, [(0, 0), (0, 1), (0, 3)]),
    ],
)
def test_three_crops(height: int, width: int, wanted: list[tuple[int, int]]) -> None:
    assert crop_offsets(height, width, 224) == wanted


def test_other_numbers_of_crops() -> None:
    assert crop_offsets(10, 21, 9, 1) == [(0, 6)]
    assert crop_offsets(10, 21, 9, 2) == [(0, 0), (0, 12)]
    assert crop_offsets(21, 10, 9, 5) == [(0, 0), (3, 0), (6, 0), (9, 0), (12, 0)]


def test_thirty_views() -> None:
    assert len(even_clips(300, 16, 1)) * len(crop_offsets(224, 300, 224)) == 30


def test_centre_view() -> None:
    frames = noise(2, 3, 10, 13)
    view = centre_view(frames, Preprocess(size=8, canvas=(10, 13)))
    assert torch.equal(view, frames[:, :, 1:9, 2:10])


# Training crops --------------------------------------------------------------------------------------------------

STRONG = Augment(area=(0.2, 1.0), aspect=(0.5, 2.0), brightness=0.4, contrast=0.4)


@pytest.mark.parametrize("augment", [Augment(), STRONG])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_training_view_is_its_generators(augment: Augment, factor: int) -> None:
    pre = Preprocess(size=16, canvas=(20, 27), zoom_source=factor)
    frames = noise(3, 3, *pre.stored_canvas)
    before = frames.clone()
    views = [training_view(frames, pre, augment, generator(seed)) for seed in range(12)]
    assert torch.equal(frames, before)
    for seed, view in enumerate(views):
        assert view.shape == (3, 3, 16 * factor, 16 * factor) and view.dtype == torch.uint8
        torch.manual_seed(99)  # the global generator plays no part
        assert torch.equal(view, training_view(frames, pre, augment, generator(seed)))
    assert len({view.numpy().tobytes() for view in views}) > 8


@pytest.mark.parametrize("augment", [Augment(), STRONG])
def test_all_frames_change_alike(augment: Augment) -> None:
    pre = Preprocess(size=16, canvas=(20, 27))
    still = noise(1, 3, 20, 27).expand(4, 3, 20, 27)
    for seed in range(10):
        view = training_view(still, pre, augment, generator(seed))
        assert torch.equal(view, view[:1].expand_as(view))


def test_the_papers_crop_is_pixels_of_the_frame_anywhere_in_it_and_half_are_mirrored() -> None:
    pre = Preprocess(size=6, canvas=(8, 9))
    frames = torch.arange(72, dtype=torch.uint8).view(1, 1, 8, 9).expand(1, 3, 8, 9)
    draw, corners, mirrored = generator(), set(), 0
    for _ in range(400):
        view = training_view(frames, pre, Augment(), draw)[0, 0]
        flipped = bool(view[0, 0] > view[0, 1])
        mirrored += flipped
        top, left = divmod(int((view.flip(1) if flipped else view)[0, 0]), 9)
        whole = frames[0, 0, top : top + 6, left : left + 6]
        assert torch.equal(view, whole.flip(1) if flipped else whole)
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(4)}
    assert 150 <= mirrored <= 250  # 5 standard deviations
    never = Augment(flip=False)
    for _ in range(50):
        view = training_view(frames, pre, never, draw)[0, 0]
        assert view[0, 0] < view[0, 1]


def test_crop_areas_lie_within_their_range() -> None:
    # A frame whose red is its row and whose green is its column tells where a crop lies, up to the resize's blur.
    pre = Preprocess(size=32, canvas=(200, 200))
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    frames = torch.stack((rows, columns, rows)).to(torch.uint8)[None]
    augment = Augment(area=(0.25, 0.49), aspect=(0.5, 2.0))
    shares, ratios = [], []
    for seed in range(200):
        view = training_view(frames, pre, augment, generator(seed))[0].float()
        tall = float(view[0, -1].mean() - view[0, 0].mean()) * 32 / 31
        wide = abs(float(view[1, :, -1].mean() - view[1, :, 0].mean())) * 32 / 31
        shares.append(tall * wide / 200**2)
        ratios.append(wide / tall)
    assert 0.23 < min(shares) < 0.29 and 0.45 < max(shares) < 0.51
    assert 0.47 < min(ratios) < 0.6 and 1.7 < max(ratios) < 2.15
    assert abs(np.mean(np.log(ratios))) < 0.15


def test_colours_against_numpy() -> None:
    pre = Preprocess(size=16, canvas=(16, 16))
    frames = noise(2, 3, 16, 16)
    augment = Augment(flip=False, brightness=0.3, contrast=0.4)
    for seed in range(5):
        view = training_view(frames, pre, augment, generator(seed))
        draw = generator(seed)
        torch.randint(1, (), generator=draw), torch.randint(1, (), generator=draw)  # top and left
        gain, contrast = (1 - most + 2 * most * torch.rand((), generator=draw).item() for most in (0.3, 0.4))
        pixels = frames.numpy().astype(np.float64)
        mean = pixels[:, :, ::8, ::8].mean()
        wanted = np.clip(gain * (mean + contrast * (pixels - mean)), 0, 255)
        assert np.abs(view.numpy() - wanted).max() <= 0.51


@pytest.mark.parametrize("factor", [1, 2])
def test_frames_may_be_stored_larger_than_the_canvas(factor: int) -> None:
    pre = Preprocess(size=16, canvas=(20, 24), zoom_source=2)
    frames = noise(1, 3, 20, 24).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert training_view(frames, pre, STRONG, generator()).shape == (1, 3, 32, 32)
    view = centre_view(frames, pre)
    assert view.shape == (1, 3, 32, 32)
    if factor == 2:
        assert torch.equal(view, frames[:, :, 4:36, 8:40])


# Plain data ------------------------------------------------------------------------------------------------------


def test_preprocess_survives_json() -> None:
    pre = Preprocess(
        size=96, frames=8, stride=3, fps=12.5, canvas=(100, 110), test_canvas=True, zoom_source=2
    )
    assert Preprocess.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre
    assert Preprocess.from_dict({}) == Preprocess()
    with pytest.raises(UserError, match="sise"):
        Preprocess.from_dict({"sise": 3})


@pytest.mark.parametrize(
    "values", [{"size": 0}, {"frames": 0}, {"stride": 0}, {"zoom_source": 0}, {"canvas": (200, 300)}]
)
def test_impossible_clips(values: dict) -> None:
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=rf"^preprocess.{name} is {re.escape(str(value))}, expected .*$"):
        Preprocess(**values)


def test_the_papers_numbers_are_the_defaults() -> None:
    pre = Preprocess()
    assert (pre.size, pre.frames, pre.stride, pre.canvas) == (224, 16, 1, (256, 342))
    assert not pre.test_canvas and pre.fps is None and pre.zoom_source == 1
    assert Augment().area is None and Augment().flip


def test_frames_at_a_rate() -> None:
    times = np.arange(10) / 10
    assert frames_at(Path("a"), times, None).tolist() == list(range(10))
    assert frames_at(Path("a"), times, 5.0).tolist() == [0, 2, 4, 6, 8]
    assert math.isclose(len(frames_at(Path("a"), times, 20.0)), 20)
    with pytest.raises(DecodeError, match="a: cannot be taken at 5 frames a second") as caught:
        frames_at(Path("a"), np.zeros(4), 5.0)
    assert caught.value.path == Path("a")


def test_one_wrong_timestamp_makes_no_endless_video() -> None:
    """Slides of an hour, and hours of a frame every three seconds, are taken as they are."""
    assert len(frames_at(Path("a"), np.array([0.0, 1800.0]), 25.0)) == 90_000
    assert len(frames_at(Path("a"), 3.0 * np.arange(3000), 25.0)) == 225_000
    for last in (4100.0, 1e9, 1e300):
        with pytest.raises(DecodeError, match=r"cannot be taken at 25 .* its 5 frames last") as caught:
            frames_at(Path("a"), np.array([0.0, 0.1, 0.2, 0.3, last]), 25.0)
        assert "\n" not in caught.value.reason and len(caught.value.reason) < 200


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (90, 33), (7, 130)])
def test_a_gpu_s_arithmetic_is_a_cpu_s(size: tuple[int, int]) -> None:
    """What runs on a GPU alone, run here: resizing in float32, and colours computed rather than looked up."""
    frames = torch.randint(0, 256, (3, 3, 60, 72), dtype=torch.uint8, generator=generator(7))
    one, other = resize(frames, *size), views._resize_in_float(frames, *size)
    assert other.dtype == torch.uint8 and other.shape == one.shape
    assert (one.int() - other.int()).abs().max() <= 1
    for gain, contrast in ((0.7, 1.3), (1.3, 0.7), (1.0, 1.2), (1.25, 1.0)):
        mean = frames[:, :, ::8, ::8].float().mean()
        assert torch.equal(
            views._recolour(frames, gain, contrast), views._recoloured(frames, mean, gain, contrast)
        )
