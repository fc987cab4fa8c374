"""A day before a camera, many times faster than it passes, with all that happens to one: how a watch lives through it.

A long video is sent again and again as MPEG-TS over TCP, as much of it as the time of day says. ``peakzoom watch
--evidence --resume --reconnect`` watches it, in a process of its own. Meanwhile the camera drops out, the process is
killed with SIGKILL and started again, and the disk of the evidence is full for a while (a tmpfs, which needs root; else
that is left out). In the end what was written is checked against itself, and against what was there at each kill.

::

    peakzoom data render long --untrimmed 60 --train-clips 24 --test-clips 8 --height 128 --width 160 --difficulty 0.3
    peakzoom train long/clips.csv --background nothing --recipe quickstart --epochs 12 --out runs/long
    python benchmarks/day.py runs/long long/LONGEST.mp4 --hours 24 --speed 150
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
from soak import resident

from peakzoom.utils.digests import digest_of

LINES = "windows.jsonl"
HEADER = "| hour | resident memory, MB | windows | events | evidence |\n" + "|---" * 5 + "|"


@dataclass
class Camera:
    """Sends a video over and over; time passes in it ``speed`` times as fast as by the clock.

    Attributes:
        refused: nobody gets an answer, as if the camera had no power.
    """

    file: Path
    speed: float
    refused: bool = False
    visits: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def now(self) -> float:
        """Seconds of the day."""
        return (time.monotonic() - self._began) * self.speed

    def drop(self) -> None:
        """Cut every connection."""
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            if self.refused:
                connection.close()
                continue
            self.visits += 1
            self._connections.append(connection)
            threading.Thread(target=self._send, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        first = self.now
        with (
            suppress(OSError, av.FFmpegError),
            connection,
            connection.makefile("wb") as pipe,
            av.open(pipe, "w", format="mpegts") as out,
            av.open(str(self.file)) as source,
        ):
            video = source.streams.video[0]
            stream = out.add_stream_from_template(video)
            assert video.duration is not None and video.time_base is not None
            length = float(video.duration * video.time_base)
            rounds = 0
            while True:
                source.seek(0)
                for packet in source.demux(video=0):
                    if packet.dts is None:
                        continue
                    assert packet.pts is not None
                    shift = round(rounds * length / packet.time_base)
                    at = float((packet.dts + shift) * packet.time_base)
                    while first + at > self.now:
                        time.sleep(0.001)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                rounds += 1
        self._connections.remove(connection)


class Watcher:
    """The process, which is started again whenever it was killed."""

    def __init__(self, run: Path, camera: Camera, out: Path, evidence: Path, every: float) -> None:
        words = f"watch {run} {camera.address} --out {out} --evidence {evidence} --resume --reconnect 1e9"
        self._words = [
            *words.split(),
            "--every",
            str(every),
            "--lag",
            "60",
            "--ignore",
            "nothing",
            "--no-rule",
        ]
        self._log = (out.parent / "watch.log").open("ab")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [sys.executable, "-c", "from peakzoom.cli import main; main()", *self._words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log, env=environment)
        return self.process

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a service is ended; in a shell's background a process is deaf to Ctrl-C."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(3600)  # what waits to be recorded is recorded first


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A disk of its own at a folder; whether that could be had."""
    folder.mkdir()
    had = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], capture_output=True
    )
    try:
        yield had.returncode == 0
    finally:
        if had.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def digests(evidence: Path) -> dict[str, str]:
    """SHA-256 of every file of every event."""
    files = sorted(
        file for file in evidence.glob("*/*") if file.is_file() and not file.parent.name.startswith(".")
    )
    return {str(file.relative_to(evidence)): digest_of(file) for file in files}


def lines_of(out: Path) -> list[dict[str, object]]:
    """Of the watch."""
    file = out / LINES
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


@dataclass
class Day:
    """What happened."""

    drops: int = 0
    kills: int = 0
    full: int = 0
    kept: dict[str, str] = field(default_factory=dict)  # evidence that was there at some kill

    def remember(self, evidence: Path) -> None:
        """What is there must never change."""
        for name, digest in digests(evidence).items():
            assert self.kept.setdefault(name, digest) == digest, f"{name} has changed"


def live(watcher: Watcher, camera: Camera, out: Path, evidence: Path, hours: int, disk: bool) -> Day:
    """Let the day pass, hour by hour, and print how it goes."""
    day, filler = Day(), evidence / ".filler"
    for hour in range(hours):
        until = (hour + 1) * 3600
        while camera.now < until - 1800:
            time.sleep(0.05)
        if hour % 3 == 0:  # an outage
            camera.refused = True
            camera.drop()
            time.sleep(1.0)
            camera.refused = False
            day.drops += 1
        if hour % 4 == 1:
            watcher.kill()
            day.remember(evidence)
            day.kills += 1
            watcher.start()
        if disk and hour % 6 == 2:
            with suppress(OSError), filler.open("wb") as stream:
                while True:
                    stream.write(bytes(1 << 16))
            day.full += 1
        if disk and hour % 6 == 3:
            filler.unlink()
            watcher.kill()  # recording has stopped; it begins with the next start
            day.kills += 1
            watcher.start()
        while camera.now < until:
            time.sleep(0.05)
        kinds = Counter(line["type"] for line in lines_of(out))
        folders = len({name.split("/")[0] for name in digests(evidence)})
        row = (hour + 1, f"{resident(watcher.process.pid):.0f}", kinds["window"], kinds["event"], folders)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--speed", type=float, default=150.0, help="how many times as fast the day passes")
    parser.add_argument("--every", type=float, default=3.0, help="seconds of video between windows")
    parser.add_argument("--disk", type=int, default=600, help="MB for evidence")
    options = parser.parse_args()
    camera = Camera(options.video, options.speed)
    home = Path(tempfile.mkdtemp(prefix="day-"))
    out, evidence = home / "out", home / "evidence"
    with small_disk(evidence, options.disk) as disk:
        watcher = Watcher(options.run.resolve(), camera, out, evidence, options.every)
        print(HEADER)
        day = live(watcher, camera, out, evidence, options.hours, disk)
        code = watcher.stop()
        day.remember(evidence)
        found = digests(evidence)
        assert day.kept.items() <= found.items(), "evidence is gone"
        lines = lines_of(out)
        kinds = Counter(line["type"] for line in lines)
        events = [line for line in lines if line["type"] == "event"]
        assert len(events) == len({(each["start"], each["class"]) for each in events}), "an event came twice"
        sums = subprocess.run(
            ["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=evidence, capture_output=True, text=True
        )
        assert sums.returncode == 0, sums.stdout
        folders = len({name.split("/")[0] for name in found})
        print(
            f"\nexit code {code}; {day.drops} outages, {day.kills} kills, the disk was full {day.full} times"
        )
        print(f"{camera.visits} connections; {dict(kinds)}")
        print(
            f"{len(events)} events, evidence of {folders}, {len(found)} files, all as they were, SHA256SUMS holds"
        )
        print(f"log: {home / 'watch.log'}")


if __name__ == "__main__":
    main()
