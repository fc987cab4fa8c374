"""Clips against independent readings of the published formulas, written as plain loops over Python numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from peakzoom.utils.errors import UserError
from peakzoom.video.clips import (
    CLIP_RULES,
    clip_indices,
    clip_span,
    clips_around,
    even_clips,
    random_clip,
    resample,
)

LENGTHS = [1, 2, 3, 7, 15, 16, 17, 31, 46, 60, 61, 63, 64, 65, 91, 100, 127, 250, 299, 1801]
GRID = [
    (n, frames, stride, clips)
    for n, frames, stride, clips in itertools.product(
        LENGTHS, (1, 2, 8, 16, 32), (1, 2, 3, 6), (1, 2, 3, 5, 10)
    )
]


def paper(n, frames, stride, clips):
    room = max(0, n - ((frames - 1) * stride + 1))
    rows = []
    for i in range(clips):
        start = room // 2 if clips == 1 else math.floor(Fraction(i * room, clips - 1))
        rows.append([(start + stride * k) % n for k in range(frames)])
    return rows


def tsm_dense(n, frames, stride, clips):
    positions = max(1, 1 + n - 64)
    step = 64 // frames
    rows = []
    for i in range(clips):
        start = 0 if clips == 1 else math.floor(Fraction(i * (positions - 1), clips - 1))
        rows.append([(start + k * step) % n for k in range(frames)])
    return rows


def slowfast(n, frames, stride, clips):
    size = frames * stride
    delta = max(n - size, 0)
    rows = []
    for i in range(clips):
        first = Fraction(delta * i, clips)
        last = first + size - 1
        row = []
        for k in range(frames):
            where = first if frames == 1 else first + k * (last - first) / (frames - 1)
            row.append(math.floor(min(max(where, Fraction(0)), Fraction(n - 1))))
        rows.append(row)
    return rows


def tsn_uniform(n, frames, stride, clips):
    tick = Fraction(n, frames * clips)
    return [[math.floor(tick / 2 + tick * (k * clips + i)) for k in range(frames)] for i in range(clips)]


REFERENCES = {
    "paper": paper,
    "tsm-dense": tsm_dense,
    "slowfast": slowfast,
    "tsn-uniform": tsn_uniform,
}


def test_every_rule_has_a_reference():
    assert set(CLIP_RULES) == set(REFERENCES)


@pytest.mark.parametrize("name", CLIP_RULES)
def test_rule_against_reading_of_its_formula(name):
    # The rules that compute in float64, as their sources do, may land on the other side of a whole number than
    # exact fractions: then by one frame, and rarely (see the counts below).
    exact = name in ("paper", "slowfast")
    entries = different = 0
    for n, frames, stride, clips in GRID:
        got = CLIP_RULES[name](n, frames, stride, clips)
        want = np.array(REFERENCES[name](n, frames, stride, clips))
        assert got.dtype == np.int64 and got.shape == (clips, frames)
        assert got.min() >= 0 and got.max() < n
        if exact:
            np.testing.assert_array_equal(got, want, err_msg=f"{(n, frames, stride, clips)}")
        distance = np.abs(got - want)
        assert np.minimum(distance, n - distance).max() <= 1  # modulo n
        entries += got.size
        different += int((distance > 0).sum())
    assert different <= entries * 5e-3, f"{different} of {entries}"


def test_tsm_and_tsn_bit_for_bit_in_float64():
    for n, frames, clips in itertools.product(range(1, 400), (1, 3, 8, 16, 25), (1, 10)):
        starts = np.linspace(0, max(1, 1 + n - 64) - 1, num=clips, dtype=int).tolist()
        want = [[(k * (64 // frames) + start) % n for k in range(frames)] for start in starts]
        assert CLIP_RULES["tsm-dense"](n, frames, 1, clips).tolist() == want
        tick = n / float(frames)
        assert CLIP_RULES["tsn-uniform"](n, frames, 1, 1).tolist() == [
            [int(tick / 2.0 + tick * x) for x in range(frames)]
        ]


def test_slowfast_against_float32_linspace():
    # The source takes torch.linspace in float32; the docstring says that it may fall one frame short.
    entries = different = 0
    for n, frames, stride, clips in GRID:
        got = CLIP_RULES["slowfast"](n, frames, stride, clips)
        size = frames * stride
        delta = max(n - size, 0)
        for i in range(clips):
            start = delta * i / clips
            want = torch.linspace(start, start + size - 1, frames).clamp(0, n - 1).long().numpy()
            assert np.abs(got[i] - want).max() <= 1
            different += int((got[i] != want).sum())
            entries += frames
    assert different / entries < 1e-3, f"{different} of {entries}"


@pytest.mark.parametrize("frames, stride", [(16, 1), (16, 4), (8, 8), (1, 1), (1, 5), (2, 7)])
def test_span_and_indices(frames, stride):
    clip = clip_indices(0, 10**6, frames, stride)
    assert clip[-1] - clip[0] + 1 == clip_span(frames, stride)
    assert set(np.diff(clip)) <= {stride}


def test_short_video_repeats_from_its_beginning():
    assert clip_indices(0, 7, 4, 3).tolist() == [0, 3, 6, 2]  # the drawing in the module's docstring
    assert clip_indices(0, 1, 16, 3).tolist() == [0] * 16
    for n in range(1, 16):
        assert even_clips(n, 16, 1).tolist() == [[k % n for k in range(16)]] * 10


def test_indices_of_many_starts():
    starts = np.array([[0, 5], [7, 90]])
    got = clip_indices(starts, 93, 4, 2)
    assert got.shape == (2, 2, 4)
    for i, j in itertools.product(range(2), range(2)):
        assert got[i, j].tolist() == clip_indices(int(starts[i, j]), 93, 4, 2).tolist()


@pytest.mark.parametrize("n", [16, 17, 25, 26, 100, 1001])
def test_paper_clips_reach_both_ends(n):
    clips = even_clips(n, 16, 1)
    assert clips[0, 0] == 0 and clips[-1, -1] == n - 1
    gaps = np.diff(clips[:, 0])
    assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 1


def test_docstring_drawings():
    # n = 16, 4 frames, stride 2, 3 clips
    want = {
        "paper": [[0, 2, 4, 6], [4, 6, 8, 10], [9, 11, 13, 15]],
        "slowfast": [[0, 2, 4, 7], [2, 5, 7, 9], [5, 7, 10, 12]],
        "tsn-uniform": [[0, 4, 8, 12], [2, 6, 9, 13], [3, 7, 11, 15]],
    }
    for name, rows in want.items():
        assert CLIP_RULES[name](16, 4, 2, 3).tolist() == rows


def test_stated_quirks():
    assert (
        np.unique(CLIP_RULES["tsm-dense"](64, 16, 1, 10), axis=0).shape[0] == 1
    )  # up to 64 frames: equal clips
    assert CLIP_RULES["tsm-dense"](30, 16, 1, 1)[0].tolist() == [4 * k % 30 for k in range(16)]  # the wrap
    assert CLIP_RULES["tsm-dense"](300, 16, 1, 10).max() == 300 - 4  # the last three frames are never seen
    assert CLIP_RULES["slowfast"](300, 16, 4, 10).max() < 300 - 20  # nor the last delta / clips
    assert CLIP_RULES["slowfast"](5, 8, 2, 1)[0].tolist() == [0, 2, 4, 4, 4, 4, 4, 4]  # the last frame stays


def test_random_clip_is_uniform_over_all_starts():
    generator = torch.Generator().manual_seed(0)
    starts = Counter(int(random_clip(20, 4, 5, generator)[0]) for _ in range(5000))  # span 16: starts 0 to 4
    assert sorted(starts) == [0, 1, 2, 3, 4]
    assert all(abs(count - 1000) < 5 * math.sqrt(1000 * 0.8) for count in starts.values())


def test_random_clip_seeded_and_one_draw_whatever_the_length():
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    assert random_clip(1000, 16, 2, a).tolist() == random_clip(1000, 16, 2, b).tolist()
    for n in (1, 5, 16, 17, 400):
        c, d = torch.Generator().manual_seed(n), torch.Generator().manual_seed(n)
        clip = random_clip(n, 16, 1, c)
        torch.randint(2, (), generator=d)
        assert torch.equal(c.get_state(), d.get_state())
        assert clip.shape == (16,) and clip.dtype == np.int64 and clip.min() >= 0 and clip.max() < n
        if n <= 16:
            assert clip.tolist() == [k % n for k in range(16)]


def test_tsm_refuses_more_frames_than_its_window():
    with pytest.raises(UserError, match="64"):
        CLIP_RULES["tsm-dense"](300, 65, 1, 10)


def on_display(times, at, slack):
    """The last frame due by ``at``."""
    last = 0
    for number, time in enumerate(times):
        if time <= at + slack:
            last = number
    return last


@pytest.mark.parametrize("fps", [5, 12.5, 24, 30000 / 1001, 30, 50, 60])
@pytest.mark.parametrize("n", [1, 2, 3, 30, 299])
@pytest.mark.parametrize("digits", [None, 3, 6])  # containers keep whole milliseconds or microseconds
def test_resample_to_its_own_rate_is_the_identity(fps, n, digits):
    times = np.arange(n) / fps
    times = times if digits is None else times.round(digits)
    assert resample(times, fps).tolist() == list(range(n))
    assert resample(times + 100, fps).tolist() == list(range(n))


@pytest.mark.parametrize("fps", [3, 10, 15, 25, 30, 59.94])
def test_resample_against_a_loop(fps):
    rng = np.random.default_rng(int(fps * 100))
    for n in (2, 3, 17, 120):
        times = np.concatenate([[0.0], np.cumsum(rng.choice([0.0, 0.01, 1 / 30, 0.04, 0.5], n - 1))])
        if times[-1] == 0:
            continue
        got = resample(times, fps)
        mean = times[-1] / (n - 1)
        slack = min(1e-3, mean / 4)
        want = []
        k = 0
        while k / fps < times[-1] + mean - slack:
            want.append(on_display(times, k / fps, slack))
            k += 1
        assert got.dtype == np.int64
        assert got.tolist() == want


def test_resample_rates():
    times = np.arange(60) / 30
    assert resample(times, 15).tolist() == list(range(0, 60, 2))
    assert resample(times, 60).tolist() == [k // 2 for k in range(120)]
    assert resample(times, 25).tolist() == [math.floor(k * 30 / 25 + 1e-6) for k in range(50)]
    assert resample(times, 0.1).tolist() == [0]


def test_timestamps_that_do_not_advance_have_no_rate():
    with pytest.raises(UserError, match="all 3 timestamps are equal"):
        resample(np.zeros(3), 30)


@pytest.mark.parametrize("frames", [1, 4, 16])
@pytest.mark.parametrize("stride", [1, 3, 6])
def test_clips_around_frames(frames: int, stride: int) -> None:
    """By trying every start: the one that has the frame nearest its middle, inside the video where one is."""
    span = clip_span(frames, stride)
    for n in {1, 2, span - 1, span, span + 1, 2 * span + 1} - {0}:
        for frame, clip in zip(range(n), clips_around(np.arange(n), n, frames, stride), strict=True):
            inside = [
                (abs(place - frames // 2), start)
                for start in range(max(n - span, -1) + 1)
                for place in range(frames)
                if start + stride * place == frame
            ]
            if inside:
                assert clip.tolist() == [min(inside)[1] + stride * place for place in range(frames)]
            else:
                assert frame in clip and clip.min() >= 0 and clip.max() < n and len(clip) == frames
