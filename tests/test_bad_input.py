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
from fuzz import TARGETS, fuzz

from peakzoom.apps.watch.records import Ended
from peakzoom.apps.watch.watch import watch
from peakzoom.data.check import check
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.evaluation.evaluate import score_videos
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video import guard
from peakzoom.video.sampling import Views
from peakzoom.video.scan import scan

PROTOCOL = Views(clips=2, crops=1)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes pipes and names that Windows has not")


@pytest.fixture(scope="module")
def bad_files(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Odd files, 12 clips cut off, 18 with bytes flipped, and one of which the end is damaged."""
    folder = tmp_path_factory.mktemp("bad")
    clips = [each.path for each in clip_data.entries[:5]]
    damaged = bytearray(clips[0].read_bytes())
    place = damaged.index(b"mdat")
    damaged[place + 2000 : place + 2600] = bytes(600)
    (folder / "damaged.mp4").write_bytes(damaged)
    return [
        *bad_input.odd(clips[0], folder, huge=False),
        *bad_input.cuts(clips, 12, 1, folder),
        *bad_input.flips(clips, 18, 2, folder),
        folder / "damaged.mp4",
    ]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """With random weights: what comes of a file is no question of what was learnt."""
    return bad_input.recognizer()


@pytest.fixture
def marked(recognizer: Recognizer, clip_data: VideoSet, bad_files: list[Path]) -> VideoSet:
    """Bad files between good ones, all of the first class but the good."""
    entries = [Entry(path, 0) for path in bad_files]
    return replace(
        clip_data,
        classes=recognizer.classes,
        entries=[*clip_data.entries[:9], *entries, *clip_data.entries[9:]],
    )


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
    lost = {each.path for each in scored.problems if not each.reason.startswith("scored, but")}
    assert lost == unreadable and 5 < len(lost) < len(bad_files)
    assert not lost & {str(entry.path) for entry in clip_data.entries}
    assert len(scored.predictions) + len(lost) == len(marked.entries)
    for path in [*bad_files[:6], *bad_files[14:24], bad_files[-1]]:
        try:
            *_, last = watch(recognizer, path)
        except UserError as error:
            said = str(error)
        else:
            assert isinstance(last, Ended)
            said = ""
        assert (str(path) in unreadable) == is_line(said) == bool(said), (path, said)


def some_of(bad_files: list[Path], every: int) -> list[Path]:
    """One of the odd names, all of the other odd files, and every so many-th of the clips that are cut or flipped."""
    return [*bad_files[:6], bad_files[8], *bad_files[14:18], *bad_files[18:-1:every], bad_files[-1]]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["evaluate", "explain", "web page"])
def test_other_ways_in(
    recognizer: Recognizer, clip_data: VideoSet, bad_files: list[Path], tmp_path: Path, way: str
) -> None:
    """What the benchmark asks of each: one answer or one line a file, and good files as if they were alone."""
    good = [each.path for each in clip_data.entries[-8:]]
    files = some_of(bad_files, 2 if way == "evaluate" else 30)
    if way == "web page":
        pytest.importorskip("gradio", reason="needs Gradio: pip install '.[serve]'")
        files = [file for file in files if os.path.isfile(file)]  # noqa: PTH113 - what a browser can send
    found = bad_input.WAYS[way](recognizer, good, files, tmp_path)
    assert found.total() == len(files) and found["stopped"] == 0
    assert found["prediction"] >= 3 and found["reason"] >= 2 and found["with a problem"], found


@pytest.mark.slow
def test_trainings(
    recognizer: Recognizer, clip_data: VideoSet, bad_files: list[Path], tmp_path: Path
) -> None:
    """The same, without a cache and with it: both list the same files, and say the same of those they use."""
    good = [each.path for each in clip_data.entries[-8:]]
    files, listed = some_of(bad_files, 4), []
    for way in ("train", "train, cached"):
        found = bad_input.WAYS[way](recognizer, good, files, tmp_path / way)
        assert found.total() == len(files) and found["stopped"] == 0
        assert found["prediction"] >= 4 and found["reason"] >= 2 and found["with a problem"], found
        listed.append(bad_input.problems_in(tmp_path / way / "one" / "problems.csv"))
    assert listed[0].keys() == listed[1].keys()
    in_part = [{file: text for file, text in each.items() if text.startswith("used, but")} for each in listed]
    assert in_part[0] == in_part[1]
    assert in_part[0][str(bad_files[-1])].startswith(
        "used, but: 2 packets cannot be decoded and are left out"
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux alone")
def test_huge_frames_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 33 MB each, decoded with less memory than one of them takes."""
    huge = bad_input.huge_frames(tmp_path, 2, 2160)
    assert guard.guarded(huge, scan, huge).info.frames == 2
    monkeypatch.setenv(guard.MEGABYTES_NAME, "20")
    with pytest.raises(DecodeError, match="needed more than 20 MB and was stopped"):
        guard.guarded(huge, scan, huge)


def test_mutants() -> None:
    """Some hundred of the fuzz target's; what it must not find is raised."""
    counts = fuzz(float("inf"), seed=0, mutants=240)
    assert counts.total() == 240
    both = {f"{kind}: {outcome}" for kind in TARGETS for outcome in ("result", "reason")}
    assert both - {"side data: reason", "config.json: result"} <= set(counts)
    assert counts["side data: result"] == 40  # whatever it is, the pictures are whole
