"""Memory and speed of watching: a clip looped to an hour (its packets copied, nothing encoded anew), watched once.

    python benchmarks/watching.py runs/first clip.mp4 --minutes 60 --every 1

Prints a table: minutes of video, windows so far, resident memory of the whole process, times real time since the
last row. Memory that grew with the length would show from row to row.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import av
from timing import machine

from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Ended, ScoredWindow
from peakzoom.apps.watch.watch import watch
from peakzoom.inference.recognizer import load

HEADER = "| minute | windows | resident, MiB | times real time |\n" + "|---:" * 4 + "|"


def loop(clip: Path, seconds: float, out: Path) -> Path:
    """The clip again and again, at least this long, by copying its packets."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        parts: list[tuple[bytes, int, int, bool]] = []
        for packet in source.demux(stream):
            if packet.dts is not None:  # as of all but the last, which is empty
                assert packet.pts is not None
                parts.append((bytes(packet), packet.pts, packet.dts, packet.is_keyframe))
        base = stream.time_base
        assert base is not None
        step = (parts[-1][2] - parts[0][2]) // (len(parts) - 1)
        length = parts[-1][2] - parts[0][2] + step
        for turn in range(math.ceil(seconds / float(length * base))):
            for data, pts, dts, key in parts:
                again = av.Packet(data)
                again.pts, again.dts, again.time_base = pts + turn * length, dts + turn * length, base
                again.is_keyframe, again.stream = key, copy
                target.mux(again)
    return out


def resident() -> float:
    """MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=None)
    parser.add_argument("--rows", type=int, default=12)
    asked = parser.parse_args()
    recognizer = load(asked.run, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = loop(asked.clip, 60 * asked.minutes, Path(folder) / "long.mkv")
        print(machine())
        print(f"{file.stat().st_size / 2**20:.0f} MiB of {asked.clip.name}, looped\n\n{HEADER}")
        due, windows, begun, at = 0.0, 0, time.perf_counter(), 0.0
        for record in watch(recognizer, file, WatchOptions(every=asked.every)):
            windows += isinstance(record, ScoredWindow)
            if isinstance(record, ScoredWindow) and record.end >= due:
                now = time.perf_counter()
                speed = (record.end - at) / (now - begun)
                print(f"| {record.end / 60:.1f} | {windows} | {resident():.0f} | {speed:.1f} |", flush=True)
                begun, at = now, record.end
                due += 60 * asked.minutes / asked.rows
            if isinstance(record, Ended):
                print(
                    f"\n{record.seconds:.1f} s of video in {record.took:.1f} s, {record.windows} windows, "
                    f"{record.speed:.1f} times real time"
                )


if __name__ == "__main__":
    main()
