"""What int8 costs in accuracy and saves in time, on cross-validated videos.

Takes the folder of a study (docs/studies.md) and one of its rows. Each run's network is quantised by NNCF (post
training, on one clip of every fourth training video; convolutions only, for positions and peaks do not survive eight
bits), and both graphs answer the run's own test videos on OpenVINO. Needs ``pip install nncf``, which no part of
peakzoom does.

    python benchmarks/int8.py studies/ut-pre tcnn_xsx0.5-ODC
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nncf
import numpy as np
import torch
from timing import cell, in_turn, machine, runs_of, show, study_parser

from peakzoom.engines.base import INPUT
from peakzoom.engines.openvino import OpenVinoEngine, to_openvino
from peakzoom.predict import Protocol, decode_views, load
from peakzoom.runs import run_videos

HEADER = (
    "| seed | videos | float32 | int8 | changed | lost | won | largest difference of a logit | "
    "float32, ms for 3 views | int8, ms |\n" + "|---" * 10 + "|"
)


def rows(study: Path, row: str, protocol: Protocol) -> Iterator[str]:
    """One line a seed."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    runs = runs_of(study, row)
    answers: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    apart: dict[str, float] = defaultdict(float)
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"float32": [], "int8": []})
    for run in runs:
        seed = run.parent.name.removeprefix("seed-")
        model = load(run, "cpu").model
        graph = to_openvino(model)
        whole = OpenVinoEngine(graph)
        entries = run_videos(run).entries
        learnt = [entry for entry in entries if entry.split == "train"][::4]
        one = Protocol(clips=1, crops=1)
        clips = [next(decode_views(each.path, whole.preprocess, one).batches()) for each in learnt]
        quantised = nncf.quantize(
            graph.clone(),
            nncf.Dataset(clips, lambda views: {INPUT: views.numpy()}),
            subset_size=len(clips),
            ignored_scope=nncf.IgnoredScope(types=["MatMul", "GridSample", "Einsum"], validate=False),
        )
        small = OpenVinoEngine(quantised)
        views = None
        for entry in entries:
            if entry.split != "test":
                continue
            summed = np.zeros((2, len(whole.classes)))
            for views in decode_views(entry.path, whole.preprocess, protocol).batches():
                found = [engine(views)["fused"] for engine in (whole, small)]
                apart[seed] = max(apart[seed], float((found[0] - found[1]).abs().max()))
                summed += torch.stack(found).softmax(2).double().sum(1).numpy()
            answers[seed].append((entry.label, int(summed[0].argmax()), int(summed[1].argmax())))
        assert views is not None
        for name, times in in_turn(
            {"float32": partial(whole, views), "int8": partial(small, views)}, 5
        ).items():
            spent[seed][name] += times
    for seed, found in sorted(answers.items()):
        label, before, after = np.array(found).T
        right, still = before == label, after == label
        yield (
            f"| {seed} | {len(label)} | {right.mean():.1%} | {still.mean():.1%} | {(before != after).sum()} "
            f"| {(right & ~still).sum()} | {(~right & still).sum()} | {apart[seed]:.2f} "
            f"| {cell(spent[seed]['float32'])} | {cell(spent[seed]['int8'])} |"
        )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--num-clips", type=int, default=10)
    asked = parser.parse_args()
    print(machine())
    show(HEADER, rows(asked.study, asked.row, Protocol(clips=asked.num_clips)))


if __name__ == "__main__":
    main()
