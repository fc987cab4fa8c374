"""``peakzoom watch --evidence``: files and addresses, damage, and what stops it."""

from __future__ import annotations

import csv
import functools
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib and Pillow: pip install '.[train]'")

from recording import (
    check,
    events_in,
)

from peakzoom.apps.watch import source as sources
from peakzoom.apps.watch.source import TimedFrame, _in_process
from peakzoom.video.decode import decode

# The command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streamed(video: Path) -> Path:
    """The same packets in a file that can be read from its beginning on alone."""
    path = video.with_name("stream.ts")
    with av.open(str(video)) as given, av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


@pytest.fixture
def served(streamed: Path) -> Iterator[str]:
    """Its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(streamed.parent))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:s3cret@127.0.0.1:{server.server_address[1]}/{streamed.name}"
        server.shutdown()


@pytest.mark.usefixtures("drawn_quickly")
def test_the_command(
    by_command: Callable[..., tuple[int, str, str]], run: Path, streamed: Path, served: str, tmp_path: Path
) -> None:
    """Standard output is what it is without evidence but for the counts; a file and an address have the same clips."""
    plain = ["--threshold", 0, "--every", 0.5, "--gap", 0.3]
    code, out, _ = by_command(run, streamed, *plain)
    lines = [json.loads(line) for line in out.splitlines()]
    events = [line for line in lines if line["type"] == "event"]
    assert code == 0 and events
    found = {}
    for name, source in (("file", str(streamed)), ("address", served)):
        place = tmp_path / name
        code, out, err = by_command(
            run, source, *plain, "--evidence", place, "--clip-before", 1, "--clip-after", 1
        )
        assert code == 0, err
        told = [json.loads(line) for line in out.splitlines()]
        assert told[1:-1] == lines[1:-1]
        counts = {"recorded": len(events), "incomplete": 0, "not_recorded": 0}
        assert {key: told[-1].pop(key) for key in counts} == counts and told[-1].keys() == lines[-1].keys()
        last = err.splitlines()[-1]
        assert last.startswith(f"evidence of {len(events)} event") and str(place) in last
        check(place)
        found[name] = events_in(place)
        assert last.endswith(hashlib.sha256(sorted(place.glob("0*/event.json"))[-1].read_bytes()).hexdigest())
        assert "s3cret" not in "".join(each.read_text() for each in place.rglob("*.json")) + err
        for facts, event in zip(found[name], events, strict=True):
            keys = ("start", "end", "class", "score", "peak", "windows")
            assert [facts[key] for key in keys] == [event[key] for key in keys]
    for one, two in zip(*found.values(), strict=True):
        assert one["clip"] == two["clip"] and one["files"]["clip.mp4"] == two["files"]["clip.mp4"]
    code, _, err = by_command(run, streamed, *plain, "--evidence", tmp_path / "address")
    assert code == 2 and err.count("\n") == 1 and "holds evidence of another source" in err
    code, _, err = by_command(run, streamed, "--clip-before", 1)
    assert code == 2 and "--evidence" in err


@pytest.mark.usefixtures("drawn_quickly")
def test_a_damaged_file(
    by_command: Callable[..., tuple[int, str, str]], run: Path, streamed: Path, tmp_path: Path
) -> None:
    """Damaged and cut off: events up to there have evidence."""
    path = tmp_path / "cut.ts"
    data = bytearray(streamed.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = os.urandom(3000)
    path.write_bytes(data[: -len(data) // 5])
    code, out, err = by_command(run, path, "--threshold", 0, "--evidence", tmp_path / "e")
    last = json.loads(out.splitlines()[-1])
    assert code in (0, 1) and last["recorded"] == last["events"] > 0 and last["not_recorded"] == 0, err
    check(tmp_path / "e")
    for facts in events_in(tmp_path / "e"):
        file = next((tmp_path / "e").glob(f"{facts['number']:06d}_*")) / facts["clip"]["file"]
        assert decode(file).info.frames == facts["clip"]["frames"] or facts["notes"]


def crash_midway(*arguments: Any) -> Iterator[Any]:
    """In the process that decodes: a decoder that takes it down after eight seconds of video."""
    for item in _in_process(*arguments):
        if isinstance(item, TimedFrame) and item.time >= 8.0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item


@pytest.mark.usefixtures("drawn_quickly")
def test_the_event_that_is_on_when_the_decoder_crashes(
    by_command: Callable[..., tuple[int, str, str]],
    run: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in the table, the lines and the evidence once each, with why nothing follows; --resume adds nothing."""
    monkeypatch.setattr(sources, "_in_process", crash_midway)
    words = [
        run,
        video,
        "--threshold",
        0,
        "--gap",
        1000,
        "--out",
        tmp_path / "w",
        "--evidence",
        tmp_path / "e",
    ]
    code, _, err = by_command(*words)
    assert code == 1 and "Traceback" not in err
    lines = [json.loads(line) for line in (tmp_path / "w" / "windows.jsonl").read_text().splitlines()]
    with (tmp_path / "w" / "events.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    (event,) = (line for line in lines if line["type"] == "event")
    assert [line["type"] for line in lines[-3:]] == ["problem", "event", "end"]
    assert lines[-3]["lost"] and "crashed" in lines[-3]["reason"] and lines[-3]["reason"] in err
    assert (lines[-1]["events"], lines[-1]["recorded"], lines[-1]["stopped"]) == (1, 1, False)
    (facts,) = events_in(tmp_path / "e")
    for key in ("start", "end"):
        assert facts[key] == event[key] and row[key] == f"{event[key]:.3f}"
    assert facts["class"] == event["class"] == row["class"] and 7.0 < event["end"] <= 8.0
    check(tmp_path / "e")
    before = (tmp_path / "w" / "windows.jsonl").read_bytes()
    code, _, err = by_command(*words, "--resume")
    assert code == 0 and "has been watched to its end" in err
    assert (tmp_path / "w" / "windows.jsonl").read_bytes() == before and len(events_in(tmp_path / "e")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_event_that_is_on_when_it_is_stopped(
    run: Path, streamed: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """A pipe that never ends."""
    place = tmp_path / "e"
    command = "from peakzoom.cli import main; main()"
    options = ["--threshold", "0", "--gap", "1000", "--device", "cpu", "--evidence", str(place)]
    child = subprocess.Popen(
        [sys.executable, "-c", command, "watch", str(run), "-", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    child.stdin.write(streamed.read_bytes())
    child.stdin.flush()
    for line in child.stdout:
        if json.loads(line)["type"] == "window" and json.loads(line)["end"] > 8:
            break
    child.send_signal(sent)
    out, err = child.stdout.read().decode(), child.stderr.read().decode()
    child.stdin.close()
    assert child.wait(120) == code, err
    last = json.loads(out.splitlines()[-1])
    assert last["stopped"] and last["recorded"] == last["events"] == 1, err
    (facts,) = events_in(place)
    assert facts["end"] == last["seconds"] and facts["clip"]["way"] == "packets copied"
    check(place)
