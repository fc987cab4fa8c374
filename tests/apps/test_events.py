"""Events from windows, against a labelling of single instants; and the files that tell of them."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from instants import Said, by_instants

from peakzoom.apps.watch.events import EVENT_COLUMNS, Event, Merger, clock_time, cue
from peakzoom.apps.watch.folder import EventFiles

NAMES = [None, "wave", "kick", "nod"]


def merge(windows: list[Said], gap: float = 0.0) -> list[Event]:
    merger = Merger(gap)
    return [event for window in windows for event in merger.add(*window)] + list(merger.end())


@pytest.mark.parametrize("span,hop", [(4, 2), (8, 2), (4, 4), (2, 6), (6, 2), (10, 4)])
@pytest.mark.parametrize("gap", [0.0, 1.0, 2.0, 3.5, 30.0])
def test_events_are_those_of_single_instants(span: int, hop: int, gap: float) -> None:
    rng = np.random.default_rng(span * 100 + hop)
    for _ in range(60):
        windows: list[Said] = []
        start = 0
        for _ in range(int(rng.integers(1, 25))):
            windows.append((start, start + span, NAMES[rng.integers(4)], float(rng.uniform(0.5, 1))))
            start += hop * int(rng.choice([1, 1, 1, 1, 5]))  # now and then windows were dropped
        if rng.integers(2):  # the window that ends at the last frame stands closer
            first, end = windows[-1][0] + 2, windows[-1][1] + 2
            windows.append((first, end, NAMES[rng.integers(4)], 0.75))
        found, wanted = merge(windows, gap), by_instants(windows, gap)
        assert [(e.start, e.end, e.name, e.windows) for e in found] == [
            (e.start, e.end, e.name, e.windows) for e in wanted
        ]
        np.testing.assert_allclose([e.score for e in found], [e.score for e in wanted])
        assert [e.peak for e in found] == [e.peak for e in wanted]
        for one, two in pairwise(found):
            assert one.end <= two.start


def test_an_event_comes_once_it_is_settled() -> None:
    merger = Merger(gap=1.0)
    said = [
        (0, 2, "wave"),
        (1, 3, "wave"),
        (2, 4, None),
        (3, 5, "wave"),
        (4, 6, None),
        (5, 7, None),
        (6, 8, None),
    ]
    at = {start: [event.end for event in merger.add(start, end, name, 0.9)] for start, end, name in said}
    # The stretch from 4.5 is over 1 second long as soon as the one that ends at 6.5 is known: with the next window.
    assert at == {0: [], 1: [], 2: [], 3: [], 4: [], 5: [], 6: [4.5]}
    assert list(merger.end()) == []


@pytest.mark.parametrize("gap", [0.0, 1.5, 6.0])
def test_no_event_comes_from_before_what_is_said_to_be_needed(gap: float) -> None:
    """Whoever keeps frames for events may let go of all that is earlier."""
    rng = np.random.default_rng(7)
    for _ in range(50):
        merger, needed = Merger(gap), 0.0
        for number in range(40):
            name = str(rng.choice(["wave", "kick", ""])) or None
            for event in merger.add(float(number), number + 2.0, name, 0.5):
                assert event.start >= needed
            assert merger.since >= needed - 1e-9 and merger.since <= number + 1
            needed = merger.since
        assert all(event.start >= needed for event in merger.end())


def test_nothing_is_joined_over_an_end() -> None:
    merger = Merger(gap=9.0)
    assert list(merger.add(0, 2, "wave", 0.6)) == []
    assert list(merger.end()) == [Event(0, 2, "wave", 0.6, 0.6, 1)]
    assert list(merger.add(2, 4, "wave", 0.8)) == []
    assert list(merger.end()) == [Event(2, 4, "wave", 0.8, 0.8, 1)]


# Files -----------------------------------------------------------------------------------------------------------

CUE = re.compile(r"(\d\d+):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d)\.(\d{3})")
ODD = ["wave", "R&D <b>", "a --> b", "two\nlines\r\n\r\nmore", "naïve \u2028 名", "NOTE", "&amp;"]


def read_chapters(text: str) -> list[tuple[int, int, str]]:
    """A reader after the grammar of WebVTT: milliseconds and text of every cue; anything else fails."""
    blocks = text.split("\n\n")
    assert blocks[0] == "WEBVTT" and blocks[-1] == "" and "\r" not in text
    cues = []
    for block in blocks[1:-1]:
        timing, payload = block.split("\n")
        match = CUE.fullmatch(timing)
        assert match and "-->" not in payload
        h, m, s, ms, h2, m2, s2, ms2 = map(int, match.groups())
        start, end = ((h * 60 + m) * 60 + s) * 1000 + ms, ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2
        assert end > start
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", payload)
        for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
            payload = payload.replace(entity, letter)
        cues.append((start, end, payload))
    assert cues == sorted(cues, key=lambda each: each[0])
    return cues


def test_table_and_chapters(tmp_path: Path) -> None:
    events = [Event(k * 1000.0004, k * 1000.0004 + 1.5, name, 0.7, 0.9, 3) for k, name in enumerate(ODD)]
    events.append(
        Event(360_000.25, 360_000.2501, "blink", 1.0, 1.0, 1)
    )  # 100 hours, a tenth of a millisecond
    with EventFiles(tmp_path) as files:
        for count, event in enumerate(events, start=1):
            files.add(event)  # whole after every event
            assert len(read_chapters((tmp_path / "chapters.vtt").read_text(encoding="utf-8"))) == count
    cues = read_chapters((tmp_path / "chapters.vtt").read_text(encoding="utf-8"))
    assert [text for _, _, text in cues] == [" ".join(name.split()) for name in [*ODD, "blink"]]
    assert cues[1][:2] == (1_000_000, 1_001_500) and cues[-1][:2] == (360_000_250, 360_000_251)
    with (tmp_path / "events.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == EVENT_COLUMNS and [row["class"] for row in rows] == [*ODD, "blink"]
    assert rows[1] == dict(
        zip(EVENT_COLUMNS, ("1000.000", "1001.500", ODD[1], "0.7000", "0.9000", "3"), strict=True)
    )
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "events.csv").write_text("start,end,cl")
    with EventFiles(tmp_path, events[:2]) as files:
        for event in events[2:]:
            files.add(event)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_times_are_rounded_once() -> None:
    assert clock_time(59.9996) == "00:01:00.000" and clock_time(3599.9994) == "00:59:59.999"
    assert cue(Event(0.0004, 0.0004, "x", 1, 1, 1)) == "00:00:00.000 --> 00:00:00.001\nx\n\n"
