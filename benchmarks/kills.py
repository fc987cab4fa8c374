"""Nothing lost: a training killed at random moments, with its disk full at every write, and with its last file cut off.

A tiny training of both phases on rendered clips, in processes of its own. After each fault it goes on with ``resume``
and must end with the same bytes, weights and numbers of every epoch, as a training that nothing happened to.

    python benchmarks/kills.py --kills 20 --writes 20 --cuts 20
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import machine
from tiny import longer, made, render

from peakzoom import durable
from peakzoom.errors import UserError
from peakzoom.train import Options, train
from peakzoom.video.datasets import open_data
from peakzoom.video.entries import VideoSet

OPTIONS = Options(val_fraction=0.3, workers=0, accelerator="cpu", progress=False)
RECIPE = longer(4, 2)
CHECKPOINTS = Path("tcnn") / "checkpoints"
HEADER = "| fault | injected | runs that ended otherwise | checkpoints found damaged |\n" + "|---" * 4 + "|"


def go_on(data: VideoSet, out: Path, said: list[str] | None = None) -> None:
    """Train, with ``resume`` where there is something to resume."""
    lines = [] if said is None else said
    train(data, RECIPE, out, OPTIONS, (out / "config.json").exists(), lines.append)


def start(data: VideoSet, out: Path) -> Any:
    """The same in a process of its own, which has PyTorch before the clock runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["peakzoom.train"])
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
        said: list[str] = []
        go_on(data, out, said)
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

    durable.os.fsync = failing
    try:
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
            said: list[str] = []
            go_on(data, folder / "run", said)
            damaged += sum("is damaged" in line for line in said)
            otherwise += made(folder / "run") != expected
            shutil.rmtree(folder / "run")
    finally:
        durable.os.fsync = fsync
    return len(places), otherwise, damaged


def cuts(data: VideoSet, folder: Path, count: int, draw: random.Random) -> tuple[int, int, int]:
    """Likewise for a last checkpoint of which a power cut has kept a random part."""
    go_on(data, folder / "whole")
    expected = made(folder / "whole")
    otherwise = damaged = 0
    for _ in range(count):
        run = folder / "run"
        shutil.copytree(folder / "whole", run)
        for name in ("tcnn/best", "tcnn/last", "joint"):  # as if killed at the end of the first phase
            shutil.rmtree(run / name)
        last = run / CHECKPOINTS / "last.ckpt"
        last.write_bytes(last.read_bytes()[: draw.randrange(last.stat().st_size)])
        said: list[str] = []
        train(data, RECIPE, run, OPTIONS, True, said.append)
        damaged += sum("is damaged" in line for line in said)
        otherwise += made(run) != expected
        shutil.rmtree(run)
    return count, otherwise, damaged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writes", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(machine())
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name
        data = open_data(render(Path(name) / "clips") / "clips.csv")
        faults = {
            "killed (SIGKILL) at a random moment": lambda at: kills(
                data, at, asked.kills, random.Random(asked.seed)
            ),
            "disk full at a write": lambda at: writes(data, at, asked.writes),
            "last checkpoint cut off at a random byte": lambda at: cuts(
                data, at, asked.cuts, random.Random(asked.seed)
            ),
        }
        lost = 0
        for number, (fault, inject) in enumerate(faults.items()):
            injected, otherwise, damaged = inject(Path(name) / str(number))
            print(f"| {fault} | {injected} | {otherwise} | {damaged} |", flush=True)
            lost += otherwise
    raise SystemExit(f"{lost} runs ended otherwise" if lost else 0)


if __name__ == "__main__":
    main()
