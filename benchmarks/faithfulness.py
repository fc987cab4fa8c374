"""Whether attended places matter to the answers of cross-validated networks, more than other places of equal size.

Takes the folder of a study (docs/studies.md) and one of its rows. Each run blurs its own test videos, which it never
saw (:mod:`peakzoom.evaluation.faithfulness`); a video's drops are averaged over the seeds before they are tested.

    python benchmarks/faithfulness.py studies/ut-pre tcnn_xsx0.5-ODC
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from timing import runs_of, show, study_parser

from peakzoom.data.runs import run_videos
from peakzoom.evaluation.faithfulness import KINDS, Drop, Faithfulness, measure_faithfulness
from peakzoom.inference.recognizer import load
from peakzoom.video.sampling import Views

HEADER = "| class predicted | videos | score | attended | random | centre |\n" + "|---" * 6 + "|"


def rows(study: Path, row: str, protocol: Views) -> Iterator[str]:
    """Means by class over all runs, and the tests."""
    runs = runs_of(study, row)
    parts: list[Faithfulness] = []
    for run in runs:
        entries = [entry for entry in run_videos(run).entries if entry.split == "test"]
        parts.append(measure_faithfulness(load(run, "cpu"), entries, protocol))
    pooled = replace(parts[0], drops=[drop for part in parts for drop in part.drops])
    for name, count, *values in pooled.rows():
        yield f"| {name} | {count} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
    by_video: dict[str, list[Drop]] = defaultdict(list)
    for drop in pooled.drops:
        by_video[drop.path].append(drop)
    over_seeds = [
        replace(
            same[0],
            attended=float(np.mean([each.attended for each in same])),
            random=float(np.mean([each.random for each in same])),
            centre=float(np.mean([each.centre for each in same])),
        )
        for same in by_video.values()
    ]
    for kind in KINDS[1:]:
        test = replace(pooled, drops=over_seeds).test(kind)
        low, high = test.interval
        yield (
            f"\nattended less {kind}: {test.difference:+.1f} points of score ({low:+.1f} to {high:+.1f}), "
            f"p = {test.p:.2g}, {len(over_seeds)} videos in {test.count} {test.units}, "
            f"more in {test.better}, less in {test.worse}"
        )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--num-clips", type=int, default=10)
    parser.add_argument("--crops", type=int, default=3)
    asked = parser.parse_args()
    show(HEADER, rows(asked.study, asked.row, Views(clips=asked.num_clips, crops=asked.crops)))


if __name__ == "__main__":
    main()
