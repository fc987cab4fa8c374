"""``peakzoom predict --on ray``: videos a second against the number of workers.

Every number of workers labels the same videos into a new folder; the machine's cores are shared out among them. The
rate is that between the first batch that is done and the last, so that starting Ray and workers (each imports PyTorch
and loads the model) does not count; the whole time has it too. ``predict`` comes first.

    python benchmarks/archive.py RUN FOLDER --workers 1,2 --videos 32
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from timing import machine

from peakzoom.apps.batch.label import label
from peakzoom.apps.batch.worker import LabelOptions
from peakzoom.cli.inputs import find_videos, whole_numbers
from peakzoom.inference.recognizer import load
from peakzoom.video.sampling import Views

Timeline = list[tuple[float, int]]  # seconds, videos done


def rate(timeline: Timeline) -> float:
    """Videos a second between the first and the last."""
    (began, before), (ended, done) = timeline[0], timeline[-1]
    return (done - before) / (ended - began)


def labelled(run: Path, files: list[Path], workers: int) -> Timeline:
    """When how many videos were done; the first is the start."""
    timeline: Timeline = []
    with tempfile.TemporaryDirectory() as folder:
        found = label(
            *(run, files, Path(folder) / "labels"),
            options=LabelOptions(workers=workers, device="cpu"),
            progress=lambda done, _: timeline.append((time.perf_counter(), done)),
        )
    assert (found.videos, found.failed, found.lost) == (len(files), 0, 0), found
    return timeline


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--videos", type=int, default=32)
    asked = parser.parse_args()
    files = list(find_videos([asked.folder]))
    files = files[:: max(1, len(files) // asked.videos)][: asked.videos]
    threads = torch.get_num_threads()
    print(f"{machine()}; {len(files)} videos, 30 views")
    print("| | threads each | videos a second | whole time, s |")
    print("|---|---|---|---|")

    timeline: Timeline = [(time.perf_counter(), 0)]
    recognizer = load(asked.run, "cpu")
    for done, _ in enumerate(recognizer.predict_many(files, Views(), progress=False), start=1):
        timeline.append((time.perf_counter(), done))
    print(
        f"| `predict` | {threads} | {rate(timeline[1:]):.2f} | {timeline[-1][0] - timeline[0][0]:.0f} |",
        flush=True,
    )

    cores = os.cpu_count() or 1
    for workers in whole_numbers(asked.workers, "--workers"):
        timeline = labelled(asked.run, files, workers)
        name = "1 worker" if workers == 1 else f"{workers} workers"
        print(
            f"| {name} | {cores // workers} | {rate(timeline[1:]):.2f} | {timeline[-1][0] - timeline[0][0]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
