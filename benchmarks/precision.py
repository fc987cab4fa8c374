"""What lower precision costs in accuracy and saves in time, on cross-validated videos.

Takes the folder of a study (docs/studies.md) and one of its rows. Each run's network answers the run's own test videos
in float32, and again

* ``bf16-mixed``: by ``--precision bf16-mixed``, both on engine torch;
* ``int8``: quantised by NNCF after training (on one clip of every fourth training video; convolutions only, for
  positions and peaks do not survive eight bits), both on OpenVINO. Needs ``pip install nncf``, which no part of
  peakzoom does.

    python benchmarks/precision.py studies/ut-pre tcnn_xsx0.5-ODC --precisions bf16-mixed int8
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import cell, in_turn, machine, runs_of, show, study_parser

from peakzoom.data.entries import Entry
from peakzoom.data.runs import run_videos
from peakzoom.inference.engines.base import INPUT, Engine
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom
from peakzoom.video.sampling import Views, decode_views

HEADER = (
    "| precision | seed | videos | float32 | lower | changed | lost | won | largest difference of a logit | "
    "float32, ms for 3 views | lower, ms |\n" + "|---" * 11 + "|"
)


def bfloat16(model: PeakZoom, learnt: Sequence[Entry]) -> tuple[Engine, Engine]:
    """The network in float32 and with its convolutions in bfloat16."""
    return TorchEngine(model, "cpu"), TorchEngine(model, "cpu", "bf16-mixed")


def int8(model: PeakZoom, learnt: Sequence[Entry]) -> tuple[Engine, Engine]:
    """The network in float32 and with its convolutions in eight bits, scaled on training videos."""
    import nncf

    from peakzoom.inference.engines.openvino import OpenVinoEngine, to_openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    graph = to_openvino(model)
    whole = OpenVinoEngine(graph)
    one = Views(clips=1, crops=1)
    clips = [next(decode_views(each.path, whole.preprocess, one).batches()) for each in learnt[::4]]
    quantised = nncf.quantize(
        graph.clone(),
        nncf.Dataset(clips, lambda views: {INPUT: views.numpy()}),
        subset_size=len(clips),
        ignored_scope=nncf.IgnoredScope(types=["MatMul", "GridSample", "Einsum"], validate=False),
    )
    return whole, OpenVinoEngine(quantised)


PRECISIONS: dict[str, Callable[[PeakZoom, Sequence[Entry]], tuple[Engine, Engine]]] = {
    "bf16-mixed": bfloat16,
    "int8": int8,
}


def rows(precision: str, study: Path, row: str, protocol: Views) -> Iterator[str]:
    """One line a seed."""
    answers: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    apart: dict[str, float] = defaultdict(float)
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"whole": [], "lower": []})
    for run in runs_of(study, row):
        seed = run.parent.name.removeprefix("seed-")
        entries = run_videos(run).entries
        learnt = [entry for entry in entries if entry.split == "train"]
        whole, lower = PRECISIONS[precision](load(run, "cpu").model, learnt)
        views = None
        for entry in entries:
            if entry.split != "test":
                continue
            summed = np.zeros((2, len(whole.classes)))
            for views in decode_views(entry.path, whole.preprocess, protocol).batches():
                logits = [engine(views)["fused"] for engine in (whole, lower)]
                apart[seed] = max(apart[seed], float((logits[0] - logits[1]).abs().max()))
                summed += torch.stack(logits).softmax(2).double().sum(1).numpy()
            answers[seed].append((entry.label, int(summed[0].argmax()), int(summed[1].argmax())))
        assert views is not None
        for name, times in in_turn(
            {"whole": partial(whole, views), "lower": partial(lower, views)}, 5
        ).items():
            spent[seed][name] += times
    for seed, found in sorted(answers.items()):
        label, before, after = np.array(found).T
        right, still = before == label, after == label
        yield (
            f"| {precision} | {seed} | {len(label)} | {right.mean():.1%} | {still.mean():.1%} "
            f"| {(before != after).sum()} | {(right & ~still).sum()} | {(~right & still).sum()} | {apart[seed]:.2f} "
            f"| {cell(spent[seed]['whole'])} | {cell(spent[seed]['lower'])} |"
        )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["bf16-mixed"])
    parser.add_argument("--num-clips", type=int, default=10)
    asked = parser.parse_args()
    print(machine())
    show(
        HEADER,
        (
            line
            for precision in asked.precisions
            for line in rows(precision, asked.study, asked.row, Views(clips=asked.num_clips))
        ),
    )


if __name__ == "__main__":
    main()
