"""Windows made while frames come, against frame numbers taken from the whole video at once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.video.clips import clip_indices, clip_span, resample


def rhythm(kind: str, n: int) -> np.ndarray:
    """Timestamps of n frames."""
    if kind == "constant":
        return np.arange(n) / 25
    if kind == "milliseconds":  # 29.97 a second, as Matroska rounds it
        return np.round(np.arange(n) * 1001 / 30) / 1000
    if kind == "fast":
        return np.arange(n) / 480
    steps = np.random.default_rng(n).choice(
        [0.0, 0.01, 0.04, 0.04, 0.3], n
    )  # some frames last, some are never on display
    return np.cumsum(steps) - steps[0]


def run(
    times: np.ndarray, frames: int, stride: int, fps: float | None, every: float | None, rate: float = 25.0
) -> tuple[list[Clip[int]], int]:
    """Windows whose pixels are frame numbers, and how often a frame was converted."""
    converted: list[int] = []

    def convert(number: int) -> int:
        converted.append(number)
        return number

    windows: Windows[int, int] = Windows(frames, stride, fps, rate, every, convert)
    clips: list[Clip[int]] = []
    for number, time in enumerate(times):
        clips += windows.add(float(time), number)
        assert len(windows._kept) <= windows.span  # memory
    clips += windows.end()
    assert converted == sorted(set(converted)) and not list(windows.end())
    return clips, len(converted)


def reference(
    times: np.ndarray, frames: int, stride: int, fps: float | None, every: float | None, rate: float = 25.0
) -> list[tuple[float, float, list[int], int]]:
    """The same from the whole video: start, end, frame numbers, base frames covered."""
    n = len(times)
    interval = times[-1] / (n - 1) if n > 1 else 1 / rate
    if fps is None:
        base, begins = np.arange(n), times
        ends = np.append(times[1:], times[-1] + interval)
    else:
        base = resample(times, fps)
        begins, ends = np.arange(len(base)) / fps, np.arange(1, len(base) + 1) / fps
    span = clip_span(frames, stride)
    if len(base) < span:
        return [(begins[0], ends[-1], base[clip_indices(0, len(base), frames, stride)].tolist(), len(base))]
    if every is None:
        starts = list(range(0, len(base) - span + 1, max(span // 2, 1)))
    else:  # of each time that is due, the first base frame from then on
        due = np.arange(math.ceil(begins[-1] / every) + 1) * every
        at = np.searchsorted(begins, due - 1e-3)
        starts = sorted({int(start) for start in at if start + span <= len(base)})
    if starts[-1] + span < len(base):
        starts.append(len(base) - span)
    return [
        (begins[s], ends[s + span - 1], base[clip_indices(s, len(base), frames, stride)].tolist(), span)
        for s in starts
    ]


@pytest.mark.parametrize("kind", ["constant", "milliseconds", "fast", "uneven"])
@pytest.mark.parametrize("fps", [None, 8.0, 25.0, 60.0])
@pytest.mark.parametrize("frames,stride", [(1, 1), (4, 1), (4, 3), (5, 2), (16, 1)])
def test_windows_are_those_of_the_whole_video(kind: str, fps: float | None, frames: int, stride: int) -> None:
    rate = 480.0 if kind == "fast" else 25.0
    for n, every in itertools.product((1, 2, 4, 9, 10, 16, 47, 200), (None, 0.01, 0.13, 0.4, 3.0)):
        times = rhythm(kind, n)
        if n > 1 and times[-1] == 0:
            continue
        clips, converted = run(times, frames, stride, fps, every, rate)
        wanted = reference(times, frames, stride, fps, every, rate)
        assert [(list(clip.frames), clip.covered) for clip in clips] == [each[2:] for each in wanted]
        np.testing.assert_allclose([clip.start for clip in clips], [each[0] for each in wanted], atol=1e-12)
        np.testing.assert_allclose([clip.end for clip in clips], [each[1] for each in wanted], atol=1e-12)
        assert converted <= n


@pytest.mark.parametrize("nth", [2, 3, 7])
@pytest.mark.parametrize("fps", [None, 25.0])
def test_each_so_many_th_window(fps: float | None, nth: int) -> None:
    """They are those of all windows, to the last bit, and so is the one that ends at the last frame."""
    for n, every, kind in itertools.product((1, 9, 47, 200), (None, 0.13, 0.4), ("milliseconds", "uneven")):
        times = rhythm(kind, n)
        full, _ = run(times, 4, 3, fps, every)
        windows: Windows[int, int] = Windows(4, 3, fps, 25.0, every, int, nth=nth)
        for _ in range(2):  # after its end it begins anew
            clips = [clip for number, time in enumerate(times) for clip in windows.add(float(time), number)]
            clips += windows.end()
            assert clips == [*full[::nth], *([full[-1]] if (len(full) - 1) % nth else [])]


def test_windows_follow_on_exactly() -> None:
    """Where one ends the next but one begins: the same number, so that events see no hole."""
    for fps in (None, 7.0):
        clips, _ = run(rhythm("uneven", 300), 8, 1, fps, None)
        for first, second in zip(clips[:-3], clips[2:-1], strict=True):
            assert first.end == second.start


def test_after_the_end_frames_begin_anew() -> None:
    windows: Windows[int, int] = Windows(4, 2, None, 10.0, None, int)
    for n in (3, 9, 1):
        clips = [clip for k in range(n) for clip in windows.add(100.0 + k / 10, k)]
        clips += windows.end()
        alone, _ = run(np.arange(n) / 10, 4, 2, None, None, 10.0)
        assert [(clip.frames, clip.covered) for clip in clips] == [
            (clip.frames, clip.covered) for clip in alone
        ]
        assert [clip.start for clip in clips] == pytest.approx([100 + clip.start for clip in alone])
