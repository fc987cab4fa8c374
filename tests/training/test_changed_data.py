"""What is doubtful is said before a training, and what has changed since it began is noticed when it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import longer

from peakzoom.data.cache import frames_home
from peakzoom.data.datasets import open_data
from peakzoom.training.frames import decode_all
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.durable import read_csv, write_csv
from peakzoom.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_curves")
Said = Callable[[], list[str]]
OPTIONS = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False, steps=("tcnn",))


@pytest.fixture
def clips(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """Two classes of two training clips; a test clip, and a copy of a training clip among the test clips."""
    for seed, name in enumerate(("train/a/1", "train/a/2", "train/b/3", "train/b/4", "test/b/5")):
        make_clip(tmp_path / "clips" / f"{name}.mp4", seed=seed)
    shutil.copy(tmp_path / "clips" / "train" / "a" / "1.mp4", tmp_path / "clips" / "test" / "b" / "copy.mp4")
    return tmp_path / "clips"


def go(clips: Path, resume: bool = False) -> Path:
    return train(open_data(clips), longer(1, 1), clips.parent / "run", OPTIONS, resume)


def test_it_is_said_before_training_and_a_run_goes_on_with_the_same_videos(clips: Path, said: Said) -> None:
    run = go(clips)
    lines = said()
    (twins,) = [line for line in lines if "same bytes as a training video" in line]
    assert "1 test video" in twins and "copy.mp4" in twins
    assert lines.index(twins) < next(at for at, line in enumerate(lines) if line.startswith("decoding"))
    rows = read_csv(run / "videos.csv")
    assert {row["split"]: len(row["digest"]) for row in rows} == {"train": 64, "test": 0}  # not looked at
    before = (run / "videos.csv").read_bytes()
    assert go(clips, resume=True) == run and (run / "videos.csv").read_bytes() == before

    # A byte of one video, its length and its time as they were:
    video = clips / "train" / "a" / "2.mp4"
    facts, content = video.stat(), bytearray(video.read_bytes())
    content[-9] ^= 1
    video.write_bytes(content)
    os.utime(video, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(UserError) as caught:
        go(clips, resume=True)
    assert str(caught.value) == (
        f"1 video changed since the training in {run} began, first {video}: put back what was there, or begin "
        "anew in another --out"
    )
    assert (run / "videos.csv").read_bytes() == before

    # A run of a time without digests cannot tell, and goes on:
    header = ["path", "label", "class", "group", "split"]
    write_csv(run / "videos.csv", header, ([row[name] for name in header] for row in rows))
    go(clips, resume=True)
    content[-9] ^= 1
    video.write_bytes(content)
    with pytest.raises(UserError, match="1 video changed since"):  # it knows them from then on
        go(clips, resume=True)


def test_another_test_video_changes_no_training(clips: Path) -> None:
    run = go(clips)
    (clips / "test" / "b" / "5.mp4").write_bytes(b"another")
    assert go(clips, resume=True) == run


def test_a_class_whose_only_video_cannot_be_decoded_is_named(clips: Path, said: Said) -> None:
    (clips / "train" / "c").mkdir()
    (clips / "train" / "c" / "broken.mp4").write_bytes(b"no video")
    go(clips)
    assert any("no training video of 'c' could be decoded: never learned" in line for line in said())


def test_a_class_name_that_is_no_text_is_refused_before_anything_is_made(clips: Path) -> None:
    (clips / "train" / "a").rename(clips / "train" / os.fsdecode(b"\xff"))
    with pytest.raises(UserError, match=r"class '\\udcff' has a name that is not UTF-8.*rename it"):
        go(clips)
    assert not (clips.parent / "run").exists()


@pytest.mark.parametrize(
    ("frames", "stride", "cache", "expected"),
    [(4, 1, "on", None), (8, 1, "on", None), (9, 1, "on", "4 of 4 videos are shorter"),
     (4, 3, "off", "4 of 4 videos that were looked at are shorter"), (16, None, "on", "4 of 4 videos are shorter")],
)  # fmt: skip
def test_videos_that_are_shorter_than_a_clip_are_counted(
    clips: Path, said: Said, frames: int, stride: int | None, cache: str, expected: str | None
) -> None:
    videos = sorted((clips / "train").rglob("*.mp4"))
    recipe = longer(1, 1)
    recipe = replace(recipe, stride=stride, preprocess=replace(recipe.preprocess, frames=frames))
    found = decode_all(videos, recipe, replace(OPTIONS, cache=cache))
    span = (frames - 1) * found.preprocess.stride + 1
    lines = [line for line in said() if "shorter than a clip" in line]
    assert lines == ([] if expected is None else [
        f"{expected} than a clip, which spans {span} frames: clips of these repeat from the beginning"
    ])  # fmt: skip


def test_damaged_entries_of_the_cache_are_counted(clips: Path, said: Said) -> None:
    videos = sorted((clips / "train").rglob("*.mp4"))
    wanted = decode_all(videos, longer(1, 1), OPTIONS)
    for video in videos[:3]:
        file = wanted.cached[video].file
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    before = len(said())
    assert decode_all(videos, longer(1, 1), OPTIONS).cached == wanted.cached
    (line,) = [line for line in said()[before:] if "damaged" in line]
    assert line == (
        f"3 of 4 videos were damaged in the cache {frames_home()} and have been decoded anew: look at that disk"
    )
