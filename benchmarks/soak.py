"""Memory over many videos: what the process holds while an evaluation goes on and on.

A small network with random weights scores the UT-Interaction clips over and over, two views each, decoded ahead by one
process as evaluations do. Resident memory is read every 100 videos; growth counts from video 200, when every clip has
been seen and the allocators have settled.

    python benchmarks/soak.py --videos 1000
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import torch
from decoding import FOLDER
from timing import machine, number_from

from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.training.recipes import RECIPES
from peakzoom.utils.errors import DecodeError
from peakzoom.video.sampling import Views

EVERY, SETTLED = 100, 200  # videos
PROTOCOL = Views(clips=2, crops=1)
CLASSES = 6
HEADER = "| videos | resident memory, MB | growth since video 200, MB |\n" + "|---" * 3 + "|"


def resident(process: int | str = "self") -> float:
    """MB of a process in memory (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def videos_in_all(count: int) -> list[Path]:
    """The UT-Interaction clips over and over."""
    clips = sorted((FOLDER / "ut_interaction").glob("*/*.avi"))
    if not clips:
        raise SystemExit(f"no clips in {FOLDER / 'ut_interaction'}: name the folder of data in PEAKZOOM_DATA")
    return list(islice(cycle(clips), count))


def measure(videos: int) -> Iterator[tuple[int, float]]:
    """(videos scored, MB) every 100 videos and after the last."""
    torch.manual_seed(0)
    pre = RECIPES["small"]().preprocess
    recognizer = Recognizer.of(PeakZoom("tcnn_xs", CLASSES, preprocess=pre.to_dict()), "cpu")
    answers = recognizer.predict_many(videos_in_all(videos), PROTOCOL, progress=False)
    for done, found in enumerate(answers, start=1):
        if isinstance(found, DecodeError):
            raise found
        if done % EVERY == 0 or done == videos:
            yield done, resident()


def rows(videos: int) -> Iterator[str]:
    """Lines of the table."""
    settled = None
    for done, megabytes in measure(videos):
        settled = megabytes if done == SETTLED else settled
        growth = "" if settled is None else f"{megabytes - settled:+.1f}"
        yield f"| {done} | {megabytes:.1f} | {growth} |"


def main() -> None:
    videos = number_from(__doc__, "--videos", 1000)
    print(machine())
    print(HEADER)
    last = ""
    for last in rows(videos):
        print(last, flush=True)
    growth = last.split("|")[3].strip() if last else ""
    print(f"growth between video {SETTLED} and video {videos}: {growth or 'unknown, too few videos'} MB")


if __name__ == "__main__":
    main()
