"""How time and memory grow with frames, resolution, clips in a batch, classes and videos.

One thing at a time from a middle case, three branches, random weights, as predictions run them. Each case runs in a
process of its own, because a process does not give its largest memory back: milliseconds are medians (fastest to
slowest) of the rounds; memory is the process's peak beyond what it held with the trained model alone. The exponent is
that of time against the size, from the smallest to the largest: 1 is linear, and resolution counts as its square.
Videos are the UT-Interaction clips over and over (docs/data.md), one view each, decoded ahead by a process that is not
counted.

    python benchmarks/growth.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from soak import videos_in_all
from timing import cell, in_turn, machine, show

from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import DecodeError
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess


@dataclass(frozen=True)
class Case:
    """What is run."""

    backbone: str = "tcnn"
    frames: int = 16
    size: int = 112
    clips: int = 1
    classes: int = 101
    videos: int = 0  # real ones to decode and score, rather than a clip of noise


MIDDLE = Case()
SWEEPS: dict[str, list[int]] = {
    "frames": [8, 16, 32, 64],
    "size": [64, 112, 160, 224],
    "clips": [1, 2, 4, 8, 16, 32],
    "classes": [10, 101, 400, 700],
    "videos": [10, 20, 40, 80],
}
HEADER = "| what | value | ms | peak memory, MB | exponent of time |\n" + "|---" * 5 + "|"


def run(case: Case, rounds: int) -> dict[str, object]:
    torch.manual_seed(0)
    pre = Preprocess(size=case.size, frames=case.frames, canvas=(case.size, case.size))
    model = PeakZoom(case.backbone, case.classes, preprocess=pre.to_dict())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = _status("VmRSS")
    if case.videos:
        spent = in_turn({"all": scoring(model, case.videos)}, rounds, warm=0)["all"]
    else:
        network = InferenceNetwork(model)
        shape = (case.clips, case.frames, 3, case.size, case.size)
        views = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.inference_mode():
            spent = in_turn({"all": lambda: network(views)}, rounds)["all"]
    return {"ms": spent, "mb": (_status("VmHWM") - before) / 1024}


def scoring(model: PeakZoom, videos: int) -> Callable[[], None]:
    """Decodes and scores so many videos."""
    recognizer = Recognizer.of(model, "cpu")
    files = videos_in_all(videos)

    def all_of_them() -> None:
        for found in recognizer.predict_many(files, Views(clips=1, crops=1), progress=False):
            if isinstance(found, DecodeError):
                raise found

    return all_of_them


def _status(key: str) -> int:
    """A line of /proc/self/status in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def apart(case: Case, rounds: int) -> dict[str, list[float]]:
    """The same in a new process."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--case", json.dumps(asdict(case))]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(made.stdout.splitlines()[-1])


def rows(rounds: int) -> Iterator[str]:
    """Lines of the table."""
    for what, values in SWEEPS.items():
        found = [apart(Case(**{**asdict(MIDDLE), what: value}), rounds) for value in values]
        times = [statistics.median(each["ms"]) for each in found]
        sizes = [float(value) ** (2 if what == "size" else 1) for value in values]
        exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        for index, (value, each) in enumerate(zip(values, found, strict=True)):
            memory = float(each["mb"])  # type: ignore[arg-type]
            last = f"{exponent:.2f}" if index == len(values) - 1 else ""
            yield f"| {what} | {value} | {cell(each['ms'])} | {memory:.0f} | {last} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(run(Case(**json.loads(asked.case)), asked.rounds)))
        return
    print(machine())
    show(HEADER, rows(asked.rounds))


if __name__ == "__main__":
    main()
