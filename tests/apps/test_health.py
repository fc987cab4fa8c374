"""What a supervisor and Prometheus are told of a watch."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.health import LATE, Health, served
from peakzoom.apps.watch.past import Past
from peakzoom.apps.watch.records import Break, Dropped, Ended, Record, ScoredWindow, SourceProblem, Started
from peakzoom.utils.errors import UserError

CLASSES = ["wave", 'kick "hard"\n']


def started(window: float = 2.0) -> Started:
    return Started("cam", True, 48, 64, 25.0, CLASSES, 16, 2, None, window, 1.0)


def window(end: float, behind: float | None = None) -> ScoredWindow:
    return ScoredWindow(end - 2, end, CLASSES, np.array([0.3, 0.7]), "wave", 31, behind)


def event(name: str) -> Event:
    return Event(0.0, 1.0, name, 0.5, 0.6, 2)


def asked(address: str) -> tuple[int, str]:
    """Status and text."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """As Prometheus reads them: (name, place, class if there is one) to value."""
    return {
        (sample.name, sample.labels["place"], *filter(None, [sample.labels.get("class")])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_counters_are_the_records() -> None:
    health = Health(["rtsp://cam/1", "rtsp://cam/1"], CLASSES)
    records: list[Record] = [
        started(),
        window(2.0, 0.25),
        window(3.0, 0.5),
        event(CLASSES[1]),
        Dropped(3.0, 9.0, 4),
        Dropped(9.0, 12.0, 2),
        SourceProblem(12.0, "a packet", lost=True),
        SourceProblem(12.0, "a note", lost=False),
        SourceProblem(12.0, "it ended", lost=True, away=True),
        Break(15.0, "back"),
        window(18.0, 0.1),
    ]
    for record in records:
        health.note(1, record)
    with served(health, "127.0.0.1", 0) as address:
        status, text = asked(f"{address}/metrics")
    found = samples(text)
    assert status == 200
    wanted = {"windows_total": 3, "dropped_windows_total": 6, "problems_total": 2, "breaks_total": 1}
    wanted |= {"behind_seconds": 0.1, "video_seconds": 18.0, "up": 1}
    for name, value in wanted.items():
        assert found[f"peakzoom_{name}", "1"] == value, name
    assert found["peakzoom_events_total", "1", CLASSES[1]] == 1
    assert found["peakzoom_events_total", "1", "wave"] == 0  # there from the beginning
    assert found["peakzoom_windows_total", "0"] == 0 and found["peakzoom_up", "0"] == 0


@pytest.mark.parametrize("span", [2.0, 60.0])
def test_who_is_well(span: float) -> None:
    """A source is from its first frame until windows are missed; one that is away is not, one that has ended is."""
    now = [1000.0]
    health = Health(["one", "two"], CLASSES, lambda: now[0])
    late = max(LATE, 3 * span)
    with served(health, "127.0.0.1", 0) as address:

        def answer() -> tuple[int, list[str]]:
            status, text = asked(f"{address}/healthz")
            data = json.loads(text)
            assert data["well"] == (status == 200) == all(each["well"] for each in data["sources"])
            return status, [each["state"] for each in data["sources"]]

        assert answer() == (503, ["starting", "starting"])
        health.note(0, started(span))
        health.note(1, started(span))
        assert answer() == (200, ["watched", "watched"])
        now[0] += late - 1
        health.note(0, window(2.0))
        assert answer() == (200, ["watched", "watched"])
        now[0] += 2
        assert answer() == (503, ["watched", "watched"])
        health.note(1, SourceProblem(9.0, "it ended", lost=True, away=True))
        assert answer() == (503, ["watched", "away"])
        health.note(1, Break(20.0, "back"))
        assert answer() == (200, ["watched", "watched"])
        health.note(1, Ended(20.0, 1.0, 1, 0, 0, False))
        now[0] += late / 2
        assert answer() == (200, ["watched", "ended"])
        assert asked(f"{address}/")[0] == 404
    with pytest.raises(urllib.error.URLError):
        asked(f"{address}/healthz")


def test_a_source_that_is_gone_on_with_is_well(tmp_path: Path) -> None:
    """A file is read again without a record until it is where it was; a camera has yet to be there."""
    source = {"type": "source", "window": 30.0, "live": False}
    pasts = [
        Past(tmp_path, 0, source, 1, 0, 9.0, ended=False),
        Past(tmp_path, 0, source, 1, 0, 9.0, ended=True),
        Past(
            tmp_path,
            0,
            {**source, "live": True, "began": "2026-01-01T00:00:00+00:00"},
            1,
            0,
            9.0,
            ended=False,
        ),
    ]
    now = [1000.0]
    health = Health(["file", "whole", "camera"], CLASSES, lambda: now[0])
    health.go_on(pasts)

    def states() -> list[tuple[str, bool]]:
        return [(each["state"], each["well"]) for each in health.report()[1]["sources"]]

    now[0] += 1e6
    assert states() == [("again", True), ("ended", True), ("starting", False)]
    health.note(0, window(10.0))
    health.note(2, Break(20.0, "nobody watched"))
    assert states() == [("watched", True), ("ended", True), ("watched", True)]
    now[0] += 89.0
    assert health.report()[0]
    now[0] += 2.0
    assert states() == [("watched", False), ("ended", True), ("watched", False)]


def test_addresses_that_cannot_be_had() -> None:
    health = Health([], [])
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match="cannot be had: Address already in use"),
        served(health, "127.0.0.1", taken.getsockname()[1]),
    ):
        pass
    with pytest.raises(UserError, match="cannot be had"), served(health, "no.such.host.invalid", 9100):
        pass


def test_the_command_answers(
    run: Path,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by_command: Callable[..., tuple[int, str, str]],
) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=40, fps=10)

    for text in ("x", "127.0.0.1:", "99999", "-1", ""):
        code, _, err = by_command(run, path, f"--health={text}")
        assert code == 2 and "expected a port" in err
    seen: list[tuple[int, str]] = []
    true = Health.note

    def note(self: Health, place: int, record: Record) -> None:
        true(self, place, record)
        if isinstance(record, ScoredWindow):
            (server,) = [each for each in threading.enumerate() if each.name == "health"]
            assert server.is_alive()
        if isinstance(record, Ended):
            line = next(line for line in capsys.readouterr().err.splitlines() if "/healthz" in line)
            seen.append(asked(line.split()[0]))

    monkeypatch.setattr(Health, "note", note)
    assert by_command(run, path, "--health", "0", "--every", "0.5")[0] == 0
    assert seen[0][0] == 200 and json.loads(seen[0][1])["sources"][0]["windows"] > 3
