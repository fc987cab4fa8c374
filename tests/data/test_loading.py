"""Batches: a clip hangs on (seed, epoch, video) alone, every video comes once an epoch, and bad files are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peakzoom.data import loading
from peakzoom.data.cache import CachedVideo, FrameCache, fill
from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.data.loading import Batch, ClipDataset, EpochSampler, Sample, ViewMaker, collate, loader
from peakzoom.video.clips import even_clips
from peakzoom.video.decode import convert, decode
from peakzoom.video.views import Augment, Preprocess, centre_view

PRE = Preprocess(size=16, frames=4, canvas=(18, 20), stride=2)
AUGMENT = Augment(area=(0.5, 1.0), brightness=0.3)


@pytest.fixture(scope="module")
def entries(clip_data: VideoSet) -> list[Entry]:
    return [entry for entry in clip_data.entries if entry.split == "train"][:7]


@pytest.fixture(scope="module")
def cached(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, CachedVideo]:
    store = FrameCache(tmp_path_factory.mktemp("frames"), PRE.stored_canvas)
    found = fill(store, [entry.path for entry in entries])
    return {path: kept for path, kept in found.items() if isinstance(kept, CachedVideo)}


def same(one: Sample | Problem, other: Sample | Problem) -> bool:
    assert isinstance(one, Sample) and isinstance(other, Sample)
    return one.label == other.label and torch.equal(one.view, other.view)


# One clip ----------------------------------------------------------------------------------------------------------


def test_a_clip_hangs_on_seed_epoch_and_video(entries: list[Entry], cached: dict[Path, CachedVideo]) -> None:
    data = ClipDataset(entries, ViewMaker(PRE, AUGMENT, seed=3), cached)
    assert len(data) == 7
    first = [data[key] for key in range(21)]
    again = ClipDataset(entries, ViewMaker(PRE, AUGMENT, seed=3), cached)
    for key in (20, 3, 11, 0, 3):  # in any order, as often as wanted
        assert same(again[key], first[key])
    for key, sample in enumerate(first):
        assert isinstance(sample, Sample)
        assert sample.view.shape == (4, 3, 16, 16) and sample.view.dtype == torch.uint8
        assert sample.label == entries[key % 7].label
    other = ClipDataset(entries, ViewMaker(PRE, AUGMENT, seed=4), cached)
    assert sum(same(other[key], first[key]) for key in range(7)) == 0
    assert sum(same(first[key], first[key + 7]) for key in range(7)) == 0  # another epoch, another clip


def test_the_cache_changes_no_pixel(entries: list[Entry], cached: dict[Path, CachedVideo]) -> None:
    for augment in (AUGMENT, None):
        kept, fresh = (ClipDataset(entries, ViewMaker(PRE, augment, 1), each) for each in (cached, None))
        assert all(same(kept[key], fresh[key]) for key in range(7))


def test_the_cache_changes_no_pixel_at_another_rate(entries: list[Entry], tmp_path: Path) -> None:
    pre = replace(PRE, fps=10.0)
    found = fill(FrameCache(tmp_path, pre.stored_canvas, 10.0), [entry.path for entry in entries[:2]])
    cached = {path: kept for path, kept in found.items() if isinstance(kept, CachedVideo)}
    assert {kept.frames for kept in cached.values()} == {8}  # 12 frames at 15 a second
    kept, fresh = (ClipDataset(entries[:2], ViewMaker(pre, AUGMENT, 1), each) for each in (cached, None))
    assert all(same(kept[key], fresh[key]) for key in range(4))


def test_validation_clips_are_even_centre_crops(
    entries: list[Entry], cached: dict[Path, CachedVideo]
) -> None:
    data = ClipDataset(entries, ViewMaker(PRE, clips=3), cached)
    assert len(data) == 21
    for video in (0, 4):
        whole = decode(entries[video].path, None, PRE.stored_canvas)
        clips = even_clips(whole.info.frames, PRE.frames, PRE.stride, 3)
        for clip in range(3):
            sample = data[video * 3 + clip]
            assert isinstance(sample, Sample) and sample.label == entries[video].label
            assert torch.equal(sample.view, centre_view(whole.take(clips[clip]), PRE))


def test_a_video_shorter_than_the_clip(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    path = make_clip(tmp_path / "short.mp4", frames=2)
    pre = replace(PRE, frames=5, stride=3)
    sample = ClipDataset([Entry(path, 0)], ViewMaker(pre))[0]
    assert isinstance(sample, Sample)
    whole = decode(path, None, PRE.stored_canvas)
    assert torch.equal(sample.view, centre_view(whole.take(np.array([0, 1, 0, 1, 0])), pre))


@pytest.mark.parametrize(
    "augment,kept,workers",
    [
        (AUGMENT, True, 2),
        (AUGMENT, False, 0),
        (Augment(), True, 0),
        (Augment(area=(0.5, 1.0), flip=False), True, 0),
    ],
)
def test_changes_that_a_device_makes_are_the_loader_s(
    entries: list[Entry],
    cached: dict[Path, CachedVideo],
    tmp_path: Path,
    augment: Augment,
    kept: bool,
    workers: int,
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    here, there = (
        ClipDataset(
            [*entries[:3], Entry(bad, 1), *entries[3:]],
            ViewMaker(PRE, augment, seed=5),
            cached if kept else None,
        )
        for _ in range(2)
    )
    there.maker.defer = True
    sampler = EpochSampler(len(here), 1)
    for one, other in zip(loader(here, 3, 0, sampler), loader(there, 3, workers, sampler), strict=True):
        assert other.changes and other.views.shape[1:] == (4, 3, *PRE.stored_canvas)
        found = other.to(torch.device("cpu"), PRE.source_size)
        assert found.changes is None and found.problems == one.problems
        assert torch.equal(found.views, one.views) and torch.equal(found.labels, one.labels)


def test_a_deferred_batch_without_a_clip(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    data = ClipDataset([Entry(bad, 1)], ViewMaker(PRE, AUGMENT, defer=True))
    (batch,) = loader(data, 2, 0)
    found = batch.to(torch.device("cpu"), PRE.source_size)
    assert len(found.views) == len(found.labels) == 0 and len(found.problems) == 1


# Bad files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [AUGMENT, None])
def test_a_bad_file_is_a_problem_and_no_other_video(
    entries: list[Entry], tmp_path: Path, augment: Augment | None
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    data = ClipDataset([entries[0], Entry(bad, 1), entries[1]], ViewMaker(PRE, augment))
    (batch,) = loader(data, 3, 0)
    assert isinstance(batch, Batch)
    assert batch.views.shape == (2, 4, 3, 16, 16)
    assert batch.labels.tolist() == [entries[0].label, entries[1].label]
    assert [path for path, _ in batch.problems] == [str(bad)]
    assert "\n" not in batch.problems[0][1]


def test_what_a_cache_has_lost_since_is_decoded_anew_and_said(entries: list[Entry], tmp_path: Path) -> None:
    found = fill(FrameCache(tmp_path, PRE.stored_canvas), [entries[0].path, entries[1].path])
    cached = {path: kept for path, kept in found.items() if isinstance(kept, CachedVideo)}
    data = ClipDataset(entries[:2], ViewMaker(PRE, AUGMENT), cached)
    cached[entries[0].path].file.unlink()
    cached[entries[1].path].file.write_bytes(b"\x93NUMPY half")
    for key in (0, 1):
        sample, decoded = data[key], ClipDataset(entries[:2], data.maker)[key]
        assert isinstance(sample, Sample) and isinstance(decoded, Sample) and sample.problem
        assert torch.equal(sample.view, decoded.view) and decoded.problem is None
        assert sample.problem.path == str(entries[key].path)
        assert sample.problem.reason.startswith("decoded anew: its frames in the cache cannot be read")


def test_nothing_but_bad_files() -> None:
    batch = collate([Problem("a", "why"), Problem("b", "so")])
    assert len(batch.views) == 0 and len(batch.labels) == 0 and len(batch.problems) == 2
    assert batch.labels.dtype == torch.int64


# Order and workers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("videos", [1, 7, 64])
def test_every_video_once_an_epoch(videos: int) -> None:
    sampler = EpochSampler(videos, seed=5)
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) == videos
        assert {key // videos for key in keys} == {epoch}
        orders.append([key % videos for key in keys])
        assert sorted(orders[-1]) == list(range(videos))
        assert list(sampler) == keys
    if videos > 1:
        assert len({tuple(order) for order in orders}) > 1
        assert list(EpochSampler(64, seed=6)) != list(EpochSampler(64, seed=5))


def test_workers_change_nothing(entries: list[Entry], cached: dict[Path, CachedVideo]) -> None:
    def epochs(workers: int) -> list[Batch]:
        sampler = EpochSampler(len(entries), 9)
        batches = []
        loads = loader(ClipDataset(entries, ViewMaker(PRE, AUGMENT, 9), cached), 3, workers, sampler)
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            batches += list(loads)
        return batches

    wanted = epochs(0)
    assert [len(batch.labels) for batch in wanted] == [3, 3, 1, 3, 3, 1]
    for one, other in zip(wanted, epochs(2), strict=True):
        assert torch.equal(one.views, other.views) and torch.equal(one.labels, other.labels)


def test_only_the_wanted_frames_are_converted(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def watched(*arguments: object) -> object:
        video = convert(*arguments)  # type: ignore[arg-type]
        kept.append(len(video.index))
        return video

    monkeypatch.setattr(loading, "convert", watched)
    maker = ViewMaker(PRE, AUGMENT)
    here = maker.from_file(entries[0], 0)
    there = ClipDataset(entries, maker)[0]  # in another process
    assert isinstance(there, Sample) and torch.equal(there.view, here.view)
    assert here.problem is None and there.problem is None
    assert kept == [4]
