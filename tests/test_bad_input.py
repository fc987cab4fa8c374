"""Files that are no videos, or broken ones, through every way in: a result or one line each, and no other file's."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import bad_input
import numpy as np
import pytest
from fuzz import fuzz

from peakzoom.apps.watch.records import Ended
from peakzoom.apps.watch.watch import watch
from peakzoom.data.check import check
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.evaluation.evaluate import score_videos
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.train import train
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video import guard
from peakzoom.video.sampling import Views
from peakzoom.video.scan import scan

PROTOCOL = Views(clips=2, crops=1)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes pipes and names that Windows has not")


@pytest.fixture(scope="module")
def bad_files(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Odd files, 24 clips cut off and 36 with bytes flipped."""
    folder = tmp_path_factory.mktemp("bad")
    clips = [each.path for each in clip_data.entries[:5]]
    return [
        *bad_input.odd(clips[0], folder),
        *bad_input.cuts(clips, 24, 1, folder),
        *bad_input.flips(clips, 36, 2, folder),
    ]


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture
def marked(clip_data: VideoSet, bad_files: list[Path]) -> VideoSet:
    """Bad files between good ones, all of the first class but the good."""
    entries = [Entry(path, 0) for path in bad_files]
    return replace(clip_data, entries=[*clip_data.entries[:9], *entries, *clip_data.entries[9:]])


def is_line(text: str) -> bool:
    return bool(text) and "\n" not in text


def test_predictions(recognizer: Recognizer, clip_data: VideoSet, bad_files: list[Path]) -> None:
    good = clip_data.entries[-1].path
    wanted = recognizer.predict(good, PROTOCOL).scores
    files = [each for file in bad_files for each in (good, file)] + [good]
    counts: Counter[str] = Counter()
    for path, found in zip(files, recognizer.predict_many(files, PROTOCOL, progress=False), strict=True):
        if path == good:
            assert isinstance(found, Prediction)
            for name, scores in wanted.items():
                np.testing.assert_array_equal(found.scores[name], scores)
        elif isinstance(found, DecodeError):
            counts["reason"] += 1
            assert found.path == path and is_line(found.reason) and is_line(str(found))
        else:
            counts["problem" if found.problem else "prediction"] += 1
            assert all(np.isfinite(each).all() for each in found.scores.values())
            assert found.problem is None or is_line(found.problem)
    assert counts.total() == len(bad_files) and min(counts.values()) > 5, counts


def test_every_way_in_tells_the_same(
    recognizer: Recognizer, marked: VideoSet, clip_data: VideoSet, bad_files: list[Path]
) -> None:
    report = check(marked, workers=2)
    unreadable = {each.path for each in report.problems if not each.reason.startswith("readable")}
    assert all(is_line(each.reason) for each in report.problems)
    scored = score_videos(recognizer, marked, PROTOCOL, progress=False)
    lost = {each.path for each in scored.problems if not each.reason.startswith("scored in part")}
    assert lost == unreadable and 5 < len(lost) < len(bad_files)
    assert not lost & {str(entry.path) for entry in clip_data.entries}
    assert len(scored.predictions) + len(lost) == len(marked.entries)
    for path in bad_files[:30]:
        try:
            *_, last = watch(recognizer, path)
        except UserError as error:
            said = str(error)
        else:
            assert isinstance(last, Ended)
            said = ""
        assert (str(path) in unreadable) == is_line(said) == bool(said), (path, said)


@pytest.mark.parametrize(
    "way,every", [("evaluate", 2), ("train", 7), ("train, cached", 7), ("explain", 24), ("web page", 24)]
)
def test_other_ways_in(
    recognizer: Recognizer, clip_data: VideoSet, bad_files: list[Path], tmp_path: Path, way: str, every: int
) -> None:
    """What the benchmark asks of each: one answer or one line a file, and good files as if they were alone."""
    if way == "web page":
        pytest.importorskip("gradio", reason="needs Gradio: pip install '.[serve]'")
    good = [each.path for each in clip_data.entries[-8:]]
    files = [*bad_files[:6], bad_files[8], *bad_files[14:18], *bad_files[19::every]]  # no 16K, one odd name
    if way == "web page":
        files = [file for file in files if os.path.isfile(file)]  # noqa: PTH113 - what a browser can send
    found = bad_input.WAYS[way](recognizer, good, files, tmp_path)
    assert found.total() == len(files) and found["stopped"] == 0
    assert found["prediction"] >= 4 and found["reason"] >= 2 and (found["with a problem"] or every == 24), (
        found
    )


def test_a_training_without_a_cache_lists_what_one_with_it_does(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path
) -> None:
    """A clip of which the end is damaged is used in part, and that is said."""
    damaged = tmp_path / "damaged.mp4"
    data = bytearray(clip_data.entries[0].path.read_bytes())
    place = data.index(b"mdat")
    data[place + 2000 : place + 2600] = bytes(600)
    damaged.write_bytes(data)
    entries = [Entry(damaged, 0, "train"), *clip_data.entries]
    listed = []
    for cache in ("on", "off"):
        options = Options(
            val_fraction=0, workers=0, accelerator="cpu", progress=False, cache=cache, steps=("tcnn",)
        )
        out = tmp_path / cache
        train(replace(clip_data, entries=entries), tiny, out, options)
        listed.append((out / "problems.csv").read_text(encoding="utf-8"))
    assert listed[0] == listed[1] and listed[0].startswith(
        f"path,reason\n{damaged},used in part: decoding stopped"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux alone")
def test_huge_frames_are_stopped(bad_files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """16K frames of 133 MB each, decoded with less memory than three of them take."""
    huge = next(each for each in bad_files if each.name == "16K.avi")
    assert guard.guarded(huge, scan, huge).info.frames == 3
    monkeypatch.setenv(guard.MEGABYTES_NAME, "60")
    with pytest.raises(DecodeError, match="needed more than 60 MB and was stopped"):
        guard.guarded(huge, scan, huge)


def test_mutants() -> None:
    """The fuzz target for some seconds; what it must not find is raised."""
    counts = fuzz(8, seed=0)
    assert {"video: result", "video: reason", "manifest: result", "manifest: reason"} <= set(counts)
