"""CPU seconds of a command from its start to its end, and where they go: ``--help``, and ``predict`` of one short clip.

    python benchmarks/startup.py --out benchmarks/startup.md
    python benchmarks/startup.py --source ../other/src       # of another checkout, in the same minutes

The model is a T-CNN (tcnn_xs at half its width, three branches, 96 x 96, 8 frames) with random weights; the clip has 48
frames of 144 x 180. CPU seconds are user and system time of the command and of the process that decodes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import odd_videos
from timing import machine

from peakzoom.model import PeakZoom

HERE = Path(__file__).resolve().parents[1] / "src"
COMMANDS = ("--help", "predict --help", "data check --help", "predict RUN CLIP")
# What a prediction does, one after the other; each line's CPU seconds count for the word in front.
STEPS = """
import resource, sys, time
marks = [("interpreter", time.process_time())]
def mark(name): marks.append((name, time.process_time()))
import peakzoom.cli; mark("command line")
import torch; mark("import torch")
import huggingface_hub.hub_mixin; mark("import huggingface_hub")
from peakzoom.inference.recognizer import load; mark("import the rest of peakzoom")
recognizer = load(sys.argv[1]); mark("load the model")
recognizer.predict(sys.argv[2]); mark("receive frames, 30 views through the network")
from peakzoom.video import guard
guard._end_idle()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
before = 0.0
for name, seconds in marks:
    print(f"{name}={seconds - before}")
    before = seconds
print(f"process that decodes={used.ru_utime + used.ru_stime}")
"""


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}


def cpu_seconds(words: Sequence[str], env: Mapping[str, str]) -> float:
    """Of a command and the processes that it has started."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(env))
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime


def steps(run: Path, clip: Path, env: Mapping[str, str]) -> dict[str, float]:
    """CPU seconds of a prediction, by :data:`STEPS`."""
    words = [sys.executable, "-c", STEPS, str(run), str(clip)]
    text = subprocess.run(words, check=True, capture_output=True, text=True, env=dict(env)).stdout
    return {name: float(value) for name, value in (line.split("=") for line in text.splitlines())}


def row(name: str, spent: Sequence[float]) -> str:
    return f"| {name} | {statistics.median(spent):.2f} | {min(spent):.2f} to {max(spent):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--source", type=Path, default=HERE, help="the src folder that is measured")
    parser.add_argument("--out", type=Path, help="Markdown; also printed")
    chosen = parser.parse_args()
    env = environment(chosen.source)
    with tempfile.TemporaryDirectory() as folder:
        run, clip = Path(folder) / "run", Path(folder) / "clip.mp4"
        pre = {"size": 96, "frames": 8, "canvas": [108, 108]}
        PeakZoom("tcnn_xs", 10, width=0.5, preprocess=pre).save_pretrained(run)
        odd_videos.write_streams(clip, odd_videos.Stream("libx264", 48, (144, 180)))
        parts = [{"RUN": str(run), "CLIP": str(clip)}.get(word, word) for word in COMMANDS[-1].split()]
        found: dict[str, list[float]] = {}
        for _ in range(chosen.runs):  # in turn, so that slow moments fall on all of them
            bare = cpu_seconds([sys.executable, "-c", "import torch"], env)
            found.setdefault("`python -c 'import torch'`", []).append(bare)
            for command in COMMANDS:
                words = parts if command == COMMANDS[-1] else command.split()
                spent = cpu_seconds([sys.executable, "-m", "peakzoom", *words], env)
                found.setdefault(f"`peakzoom {command}`", []).append(spent)
        where: dict[str, list[float]] = {}
        for _ in range(chosen.runs):
            for name, seconds in steps(run, clip, env).items():
                where.setdefault(name, []).append(seconds)
    head = "| {} | CPU seconds | of {} runs |\n| --- | ---: | ---: |"
    lines = [
        f"{machine()}; load average {os.getloadavg()[0]:.1f}",
        "",
        head.format("command", chosen.runs),
        *(row(name, spent) for name, spent in found.items()),
        "",
        head.format("of `predict`", chosen.runs),
        *(row(name, spent) for name, spent in where.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.out:
        chosen.out.write_text(
            "# Start-up\n\n`python benchmarks/startup.py --out benchmarks/startup.md`. " + text
        )


if __name__ == "__main__":
    main()
