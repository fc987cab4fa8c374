"""Nothing lost: a training killed at random moments, with its disk full at every write, and with its last file cut off.

A tiny training of both stages on synthetic clips, in processes of its own. After each fault it goes on with ``resume``
and must end with the same bytes, weights and numbers of every epoch, as a training that nothing happened to.

Then the commands ``peakzoom evaluate`` and ``peakzoom predict --jsonl`` of such a training, on copies of its clips:
each is killed while it works, called again with ``--resume``, and killed again, until it is done. Its files must be the
same, byte for byte, as those of one that was never stopped, with each video once, and no line that was whole before a
kill may be gone after it.

    python benchmarks/kills.py --kills 20 --writes 20 --cuts 20 --evaluations 20 --predictions 20
"""

from __future__ import annotations

import argparse
import csv
import errno
import json
import logging
import logging.handlers
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from timing import machine
from tiny import longer, made, render

from peakzoom.data.datasets import open_data
from peakzoom.data.entries import VideoSet
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import whole_lines

OPTIONS = Options(val_fraction=0.3, workers=0, accelerator="cpu", progress=False)
RECIPE = longer(4, 2)
COPIES = 10  # of each clip, so that work goes on for some seconds
VIEWS = ["--num-clips", "2", "--crops", "1", "--device", "cpu"]
CHECKPOINTS = Path("tcnn") / "checkpoints"
HEADER = "| fault | injected | runs that ended otherwise | checkpoints found damaged |\n" + "|---" * 4 + "|"


def go_on(data: VideoSet, out: Path) -> list[str]:
    """Train as a user would: with --resume, where there is something to resume; returns what was logged."""
    logger, handler = logging.getLogger("peakzoom"), logging.handlers.BufferingHandler(1_000_000)
    logger.addHandler(handler)
    try:
        train(data, RECIPE, out, OPTIONS, (out / "config.json").exists())
    finally:
        logger.removeHandler(handler)
    return [record.getMessage() for record in handler.buffer]


def start(data: VideoSet, out: Path) -> Any:
    """The same in a process of its own, which has PyTorch before the clock runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["peakzoom.training.train"])
    child = context.Process(target=go_on, args=(data, out))
    child.start()
    return child


def kills(data: VideoSet, folder: Path, count: int, draw: random.Random) -> tuple[int, int, int]:
    """(kills, runs that ended otherwise, damaged checkpoints): each run is killed up to three times."""
    for name in ("first", "undisturbed"):  # the first one waits for PyTorch
        began = time.monotonic()
        child = start(data, folder / name)
        child.join()
        took = time.monotonic() - began
    expected = made(folder / "undisturbed")
    done = otherwise = damaged = 0
    while done < count:
        out = folder / f"killed-{done}"
        for _ in range(min(3, count - done)):
            child = start(data, out)
            child.join(draw.uniform(0.1, 0.9) * took)
            if child.exitcode is None:
                child.kill()
                child.join()
            done += child.exitcode == -signal.SIGKILL
        said = go_on(data, out)
        damaged += sum("is damaged" in line for line in said)
        otherwise += made(out) != expected
        shutil.rmtree(out)
    return done, otherwise, damaged


def writes(data: VideoSet, folder: Path, count: int) -> tuple[int, int, int]:
    """Likewise for a disk that is full at a write; ``count`` of them spread over all."""
    fsync, calls, at = os.fsync, 0, -1

    def failing(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with mock.patch.object(os, "fsync", failing):
        go_on(data, folder / "whole")
        every, expected = calls, made(folder / "whole")
        otherwise = damaged = 0
        places = sorted({round(share * (every - 1) / max(1, count - 1)) for share in range(count)})
        for place in places:
            calls, at = 0, 1 + place
            try:
                go_on(data, folder / "run")
            except UserError as error:
                if "free in" not in str(error):
                    raise
            else:
                raise SystemExit(f"write {place} failed and nobody noticed")
            at = -1
            said = go_on(data, folder / "run")
            damaged += sum("is damaged" in line for line in said)
            otherwise += made(folder / "run") != expected
            shutil.rmtree(folder / "run")
    return len(places), otherwise, damaged


def cuts(data: VideoSet, folder: Path, count: int, draw: random.Random) -> tuple[int, int, int]:
    """Likewise for a last checkpoint of which a power cut has kept a random part."""
    go_on(data, folder / "whole")
    expected = made(folder / "whole")
    otherwise = damaged = 0
    for _ in range(count):
        run = folder / "run"
        shutil.copytree(folder / "whole", run)
        for name in ("tcnn/best", "tcnn/last", "joint"):  # as if killed at the end of the first stage
            shutil.rmtree(run / name)
        last = run / CHECKPOINTS / "last.ckpt"
        last.write_bytes(last.read_bytes()[: draw.randrange(last.stat().st_size)])
        said = go_on(data, run)
        damaged += sum("is damaged" in line for line in said)
        otherwise += made(run) != expected
        shutil.rmtree(run)
    return count, otherwise, damaged


def copied(data: VideoSet, folder: Path) -> Path:
    """Copies of every clip under names of their own, with a list of them, all to test on."""
    folder.mkdir(parents=True)
    rows = [["path", "label", "split"]]
    for number, entry in enumerate(data.entries * COPIES):
        name = f"{number:04}{entry.path.suffix}"
        shutil.copy(entry.path, folder / name)
        rows.append([name, data.classes[entry.label], "test"])
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "list.csv"


def lines_in(file: Path) -> int:
    """Whole lines of a file that may not be there."""
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class Command:
    """A command of peakzoom that writes a line a video, and the file of these lines while it works."""

    def __init__(self, words: list[object], lines: Path) -> None:
        self.words = [sys.executable, "-m", "peakzoom", *map(str, words), *VIEWS]
        self.lines = lines

    def run(self, after: float | None, resume: bool) -> tuple[bool, float]:
        """Run it, and kill it so many seconds after its first new line, if it is not done by then.

        Returns:
            Whether it was killed, and how many seconds it worked from its first new line on.
        """
        before = lines_in(self.lines)
        process = subprocess.Popen(
            [*self.words, *(["--resume"] if resume else [])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        began = None
        while process.poll() is None:
            now = time.monotonic()
            if began is None and lines_in(self.lines) > before:
                began = now
            if after is not None and began is not None and now - began >= after:
                process.kill()
                break
            time.sleep(0.002)
        worked = time.monotonic() - began if began is not None else 0.0
        said = process.communicate()[1]
        if process.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{' '.join(self.words)} ended with {process.returncode}: {said}")
        return process.returncode == -signal.SIGKILL, worked


def each_once(names: list[str], videos: int) -> None:
    """Refuse to compare with a run that has not every video once."""
    if len(names) != videos or len(set(names)) != videos:
        raise SystemExit(
            f"an undisturbed run has {len(names)} lines, {len(set(names))} different: not {videos}"
        )


def evaluation(run: Path, listed: Path, out: Path) -> Command:
    """``peakzoom evaluate``, whose lines are beside its folder until it is done."""
    return Command(["evaluate", run, listed, "--out", out], out.with_name(out.name + ".part") / "rest.jsonl")


def evaluated(out: Path) -> dict[str, bytes]:
    """Every file of an evaluation, ``scores.csv`` and the arrays of ``views.npz`` among them."""
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*")}


def prediction(run: Path, listed: Path, out: Path) -> Command:
    """``peakzoom predict --jsonl``."""
    return Command(["predict", run, listed.parent, "--jsonl", out], out)


def predicted(out: Path) -> dict[str, bytes]:
    """Every line."""
    return {out.suffix: out.read_bytes()}


def commands(
    kind: str, trained: tuple[Path, Path], folder: Path, count: int, draw: random.Random
) -> tuple[int, int, str]:
    """Likewise for a command, ``evaluate`` or ``predict``, killed again and again until it is done."""
    run, listed = trained
    make, read = (evaluation, evaluated) if kind == "evaluate" else (prediction, predicted)
    folder.mkdir()
    whole = folder / "undisturbed.jsonl"
    _, took = make(run, listed, whole).run(None, resume=False)
    expected, videos = read(whole), len(list(listed.parent.glob("*.mp4")))
    if kind == "evaluate":
        with (whole / "scores.csv").open(newline="", encoding="utf-8") as stream:
            each_once([row["path"] for row in csv.DictReader(stream) if row["branch"] == "fused"], videos)
    else:
        each_once([json.loads(line)["file"] for line in whole.read_bytes().splitlines()], videos)
    done = otherwise = runs = lost = 0
    while done < count:
        out = folder / f"killed-{runs}.jsonl"
        command, resume, killed = make(run, listed, out), False, True
        kept = b""
        while killed:
            after = draw.uniform(0, took / 3) if done < count else None
            killed, _ = command.run(after, resume)
            done, resume = done + killed, True
            if kind == "evaluate" and out.exists():  # killed when there was nothing left to go on with
                killed = False
            now = command.lines.read_bytes() if command.lines.exists() else kept
            lost += not now.startswith(kept[: kept.rfind(b"\n") + 1])
            lines = [line.get("video", line.get("file")) for line in whole_lines(now)[0]]
            lost += len(lines) != len(set(lines))  # a video that was scored again
            kept = now
        otherwise += read(out) != expected
        runs += 1
    print(f"{kind}: {videos} videos in {took:.1f} s, {runs} runs, {done} kills", file=sys.stderr, flush=True)
    return done, otherwise + lost, "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writes", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--predictions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(machine())
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name
        data = open_data(render(Path(name) / "clips") / "clips.csv")

        def stopped(kind: str, at: Path, count: int) -> tuple[int, int, str]:
            go_on(data, at.with_name("run"))  # at once where it was trained already
            listed = at.with_name("copies") / "list.csv"
            if not listed.exists():
                copied(data, listed.parent)
            return commands(kind, (at.with_name("run"), listed), at, count, random.Random(asked.seed))

        faults: dict[str, Callable[[Path], tuple[int, int, int | str]]] = {
            "killed (SIGKILL) at a random moment": lambda at: kills(
                data, at, asked.kills, random.Random(asked.seed)
            ),
            "disk full at a write": lambda at: writes(data, at, asked.writes),
            "last checkpoint cut off at a random byte": lambda at: cuts(
                data, at, asked.cuts, random.Random(asked.seed)
            ),
            "evaluation killed while it scores": lambda at: stopped("evaluate", at, asked.evaluations),
            "prediction killed while it answers": lambda at: stopped("predict", at, asked.predictions),
        }
        lost = 0
        for number, (fault, inject) in enumerate(faults.items()):
            injected, otherwise, damaged = inject(Path(name) / str(number))
            print(f"| {fault} | {injected} | {otherwise} | {damaged} |", flush=True)
            lost += otherwise
    raise SystemExit(f"{lost} runs ended otherwise" if lost else 0)


if __name__ == "__main__":
    main()
