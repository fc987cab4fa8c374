"""Thousands of clips through `peakzoom predict`, killed (SIGKILL) half way: memory, rate, whether each line is right.

The command is called as a user calls it, with a folder and --jsonl, killed when half of the clips are answered, and
called again with --resume. In the end every clip must have one line, and some of them are compared with what
``Recognizer.predict`` says of the file alone: their scores must be equal to the last digit. It ends with an error if
one is not, if a clip has no line, two, or one without an answer, if the command was not killed, or if it failed.

    python benchmarks/many.py quickstart/run synthetic --clips 5000
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from soak import resident
from timing import machine

from peakzoom.cli.inputs import find_videos
from peakzoom.inference.recognizer import load
from peakzoom.video.sampling import Views

PROTOCOL = Views(clips=1, crops=1)
EVERY = 500  # clips, after which memory is read
COMPARED = 100  # answers
HEADER = "| clips answered | clips a second since the last row | memory of the command, MB | of its decoder, MB |\n"
HEADER += "|---" * 4 + "|"


def linked(clips: Sequence[Path], folder: Path) -> Path:
    """A folder with these clips alone."""
    for number, clip in enumerate(clips):
        (folder / f"{number:06}{clip.suffix}").symlink_to(clip.resolve())
    return folder


def children(process: int) -> list[int]:
    """What the threads of a process have started (Linux)."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for file in files for each in file.read_text(encoding="ascii").split()]


def lines_in(file: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def watched(command: list[str], answers: Path, until: int) -> Iterator[str]:
    """Run a command and read its memory; kill it when ``until`` clips are answered, or let it end by itself.

    Yields rows of the table.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    before = lines_in(answers)
    due, count, since = before + EVERY, 0, 0.0
    while process.poll() is None:
        time.sleep(0.05)
        done = lines_in(answers)
        if done > before and not since:  # the start, with its imports, is no part of the rate
            count, since = done, time.monotonic()
        if done >= due or done >= until:
            now = time.monotonic()
            with suppress(OSError, IndexError):  # it has just ended
                decoders = sum(resident(each) for each in children(process.pid))
                rate = (done - count) / (now - since)
                yield f"| {done} | {rate:.1f} | {resident(process.pid):.0f} | {decoders:.0f} |"
            due, count, since = done + EVERY, done, now
        if done >= until:
            process.kill()
            break
    code = process.wait()
    if code not in (0, 1, -signal.SIGKILL):  # 1: a clip has no answer, which its line says
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=5000)
    asked = parser.parse_args()
    clips = list(find_videos([asked.folder]))[: asked.clips]
    if len(clips) < asked.clips:
        raise SystemExit(f"{asked.folder} has {len(clips)} clips, expected at least {asked.clips}")
    print(machine())
    with TemporaryDirectory() as scratch:
        folder, answers = Path(scratch) / "clips", Path(scratch) / "answers.jsonl"
        folder.mkdir()
        program = str(Path(sys.executable).with_name("peakzoom"))
        command = [program, "predict", str(asked.run), str(linked(clips, folder)), "--jsonl", str(answers)]
        command += ["--num-clips", str(PROTOCOL.clips), "--crops", str(PROTOCOL.crops)]
        started, half = time.monotonic(), len(clips) // 2
        print(HEADER)
        for row in watched(command, answers, half):
            print(row, flush=True)
        killed = lines_in(answers)
        for row in watched([*command, "--resume"], answers, sys.maxsize):
            print(row, flush=True)
        spent = time.monotonic() - started
        lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
        times = Counter(Path(line["file"]).name for line in lines)
        missing = sum(each.name not in times for each in folder.iterdir())
        twice = sum(number > 1 for number in times.values())
        failed = sum("error" in line for line in lines)
        recognizer = load(asked.run)
        answered = [line for line in lines if "error" not in line]
        compared = answered[:: max(1, len(answered) // COMPARED)]
        other = sum(recognizer.predict(line["file"], PROTOCOL).to_dict() != line for line in compared)
    print(f"\n{len(clips)} clips in {spent:.0f} s, both starts counted; killed after {killed} answers")
    print(
        f"lines: {len(lines)}; clips without a line: {missing}; with two: {twice}; without an answer: {failed}"
    )
    print(f"compared with the file alone: {len(compared)}; otherwise: {other}")
    if killed >= len(clips):
        raise SystemExit("it was done before it was killed: name more clips")
    if missing or twice or failed or other or len(lines) != len(clips):
        raise SystemExit("not every clip has one line with the right answer")


if __name__ == "__main__":
    main()
