"""The report on a data set against counts made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peakzoom.data.check import check
from peakzoom.data.entries import Entry, Problem, VideoSet


@pytest.fixture
def odd(tmp_path: Path, make_clip: Callable[..., Path]) -> VideoSet:
    """Two classes and an empty one, two sizes, two rates, one unreadable and one missing file."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 99)
    entries = [
        Entry(make_clip(tmp_path / "a.mp4", frames=4), 0, "train", "g1"),
        Entry(make_clip(tmp_path / "b.mp4", frames=10, seed=1), 0, "train", "g1"),
        Entry(make_clip(tmp_path / "c.mp4", frames=6, height=32, width=48), 0, "test", "g2"),
        Entry(broken, 0, "test", "g3"),
        Entry(make_clip(tmp_path / "d.mp4", "kick", frames=3, fps=30.0), 1),
        Entry(tmp_path / "gone.mp4", 1),
    ]
    return VideoSet(["wave", "kick", "rest"], entries, [Problem("notes.doc", "not a video")], "odd")


def test_report(odd: VideoSet, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = check(odd, 2, lambda done, total: told.append((done, total)))
    wave, kick, rest = report.classes
    assert (wave.name, wave.splits.total(), wave.splits, wave.unreadable) == (
        "wave",
        4,
        {"train": 2, "test": 2},
        1,
    )
    assert wave.frames == (4, 6.0, 10)
    assert wave.seconds == pytest.approx((4 / 15, 6 / 15, 10 / 15))
    assert wave.sizes == [(48, 64), (32, 48)]
    assert (kick.splits.total(), kick.splits, kick.unreadable, kick.frames) == (2, {"": 2}, 1, (3, 3.0, 3))
    assert (rest.splits.total(), rest.frames, rest.seconds, rest.sizes) == (0, None, None, [])
    assert report.rates == {15.0: 3, 30.0: 1} and list(report.rates) == [15.0, 30.0]
    assert report.groups == 3 and report.variable_rate == 0 and report.wrong_headers == 0
    assert [problem.path for problem in report.problems] == [
        "notes.doc",
        str(tmp_path / "broken.mp4"),
        str(tmp_path / "gone.mp4"),
    ]
    assert all("\n" not in problem.reason for problem in report.problems)
    assert told == [(done, 6) for done in range(1, 7)]


def test_the_same_file_twice_counts_in_both_places(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    path = make_clip(tmp_path / "a.mp4")
    report = check(VideoSet(["x", "y"], [Entry(path, 0), Entry(path, 1)], [], "twice"))
    assert [each.splits.total() for each in report.classes] == [1, 1]


def test_files_that_are_readable_with_a_problem(shared_data: Path) -> None:
    path = shared_data / "nasty" / "decord" / "corrupted.mp4"
    report = check(VideoSet(["x"], [Entry(path, 0)], [], "damaged"))
    assert report.classes[0].unreadable == 0 and report.classes[0].frames == (49, 49.0, 49)
    assert len(report.problems) == 1 and report.problems[0].reason.startswith("readable, but: ")
    assert report.wrong_headers == 1
