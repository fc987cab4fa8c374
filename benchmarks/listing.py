"""What the driver of ``predict --on ray`` does before a video is looked at, over many empty files and their rows.

Finds the videos of a folder, shares them out in batches, writes a table of their rows (an error each, with 101 scores
beside every second one), reads it again as ``--resume`` does, and sorts out what is left. Time and the memory that each
step added, in a process of its own.

    python benchmarks/listing.py --videos 100000
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timing import machine, number_from

from peakzoom.apps.batch.label import _sort_out
from peakzoom.apps.batch.listing import find_items
from peakzoom.apps.batch.table import (
    batches_of,
    new_drafts,
    read_known,
    row_without_prediction,
    schema,
    write_rows,
)
from peakzoom.apps.batch.worker import LabelOptions

SCORES = [1 / 101] * 101


def measured(what: str, call: Callable[[], Any]) -> Any:
    """Do it, and print a row."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = call()
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"| {what} | {took:.1f} | {(after - before) / 1024:.0f} |", flush=True)
    return found


def main() -> None:
    videos = number_from(__doc__, "--videos", 100_000)
    print(machine())
    with TemporaryDirectory() as name:
        folder, out = Path(name) / "videos", Path(name) / "labels"
        for number in range(videos):
            if number % 1000 == 0:
                (folder / f"{number // 1000:04}").mkdir(parents=True)
            (folder / f"{number // 1000:04}" / f"{number}.mp4").touch()
        print(f"| {videos:,} videos | s | more memory at most, MB |\n|---|---|---|")
        items = measured("find them", lambda: find_items([folder]))
        batches = measured("share them out", lambda: batches_of(items, LabelOptions().batch))
        columns, drafts = schema({"classes": [str(each) for each in range(101)]}), new_drafts(out)

        def write() -> None:
            for place, batch in enumerate(batches):
                rows = [row_without_prediction(item, "no video", "file") for item in batch]
                if place % 2:
                    rows = [{**row, "scores": SCORES} for row in rows]
                write_rows(drafts, batch, rows, columns)

        measured("write their rows", write)
        known = measured("read the table", lambda: read_known(out))
        waiting, old, failed = measured("sort out what is left", lambda: _sort_out(items, known))
        assert (len(waiting), len(old), failed) == (0, 0, videos), (len(waiting), len(old), failed)


if __name__ == "__main__":
    main()
