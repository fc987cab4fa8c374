"""A record of what the package computes, to be compared before and after a change that should change nothing.

    python benchmarks/record.py clips.csv records/before
    (change the code)
    python benchmarks/record.py clips.csv records/after
    diff -r records/before records/after && echo unchanged

``clips.csv`` is a manifest of real clips with columns path and label (docs/data.md); the first two clips of each of six
classes are taken. Everything runs on one thread of the CPU with fixed seeds, so that a difference of one bit shows.
The folder holds, as text:

    losses-small.txt   every loss of 20 steps of both stages, recipe small, as exact hexadecimal numbers
    losses-paper.txt   the same of recipe paper at 64 x 64 pixels
    predict.jsonl      all scores of ``peakzoom predict`` for the twelve clips
    scores.csv         all scores of ``peakzoom evaluate``
    evidence.json      what ``peakzoom explain`` says of one clip
    onnx.txt           the outputs of the exported ONNX graph for one seeded input, as hexadecimal numbers
    help/              ``--help`` of every command, 100 columns wide
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", COLUMNS="100", NO_COLOR="1", TERM="dumb")

import numpy as np
import torch

from peakzoom.cli import app, main
from peakzoom.data.datasets import open_data
from peakzoom.model import PeakZoom

CLASSES, CLIPS = 6, 2  # of the manifest
STEPS = {
    "small": [],
    "paper": ["--size", "64", "--lr", "0.01"],
}  # twelve clips in batches of two, four epochs


def choose(manifest: Path, folder: Path) -> Path:
    """Copy the first clips of each class into ``folder`` and list them in a manifest of their own.

    No split is given: every clip is trained on and scored, for the record asks what is computed, not how well.
    """
    data = open_data(manifest)
    named = sorted((data.classes[entry.label], entry.path) for entry in data.entries)
    chosen = folder / "clips.csv"
    with chosen.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for label in sorted({label for label, _ in named})[:CLASSES]:
            for path in [path for mine, path in named if mine == label][:CLIPS]:
                shutil.copy(path, folder)
                table.writerow([path.name, label])
    return chosen


def call(*words: Any) -> str:
    """Run one command in this process; returns what it wrote to standard output."""
    before, sys.argv = sys.argv, ["peakzoom", *map(str, words)]
    heard = io.StringIO()
    try:
        with contextlib.redirect_stdout(heard):
            main()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    finally:
        sys.argv = before
    return heard.getvalue()


def train(recipe: str, clips: Path, out: Path, record: Path) -> None:
    """Train both stages for 20 steps or a few more, and record every loss."""
    losses: list[str] = []
    real = PeakZoom.loss

    def loss(self: PeakZoom, *args: Any, **kwargs: Any) -> torch.Tensor:
        value = real(self, *args, **kwargs)
        losses.append(f"{'+'.join(self.branches)} {float(value).hex()}")
        return value

    PeakZoom.loss = loss  # type: ignore[method-assign]
    try:
        call(
            *(
                "train",
                clips,
                "--out",
                out,
                "--recipe",
                recipe,
                *STEPS[recipe],
                "--epochs",
                4,
                "--joint-epochs",
                4,
            ),
            *(
                "--batch-size",
                2,
                "--val-fraction",
                0,
                "--workers",
                0,
                "--set",
                "accelerator=cpu",
                "--set",
                "cache=off",
            ),
        )
    finally:
        PeakZoom.loss = real  # type: ignore[method-assign]
    record.write_text("\n".join(losses) + "\n", encoding="utf-8")


def graph(run: Path, out: Path, record: Path) -> None:
    """Export a model to ONNX and record the graph's outputs for one seeded input."""
    import onnxruntime

    call("export", run, "--to", "onnx", "--out", out)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    (views,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 2 for size in views.shape]
    given = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    lines = []
    for each, value in zip(session.get_outputs(), session.run(None, {views.name: given}), strict=True):
        lines.append(f"{each.name} {tuple(value.shape)} {value.astype(np.float32).tobytes().hex()}")
    record.write_text("\n".join(lines) + "\n", encoding="utf-8")


def helps(folder: Path) -> None:
    """The help of every command."""
    from typer.main import get_command

    folder.mkdir()
    root: Any = get_command(app)
    paths: list[list[str]] = [[]]
    while paths:
        path = paths.pop()
        command = root
        for name in path:
            command = command.commands[name]
        paths += [[*path, name] for name in getattr(command, "commands", {})]
        (folder / ("-".join(["peakzoom", *path]) + ".txt")).write_text(
            call(*path, "--help"), encoding="utf-8"
        )


def main_record() -> None:
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("manifest", type=Path)
    asked.add_argument("out", type=Path, help="new folder")
    given = asked.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        clips = choose(given.manifest, work)
        for recipe in STEPS:
            train(recipe, clips, work / recipe, given.out / f"losses-{recipe}.txt")
        run = work / "small"
        files = [work / row["path"] for row in csv.DictReader(clips.open(encoding="utf-8"))]
        lines = call(
            "predict", run, *files, "--jsonl", "-", "--top", CLASSES, "--workers", 0, "--device", "cpu"
        )
        (given.out / "predict.jsonl").write_text(lines, encoding="utf-8")
        call(
            "evaluate",
            run,
            clips,
            "--split",
            "train",
            "--out",
            work / "scored",
            "--workers",
            0,
            "--device",
            "cpu",
        )
        shutil.copy(work / "scored" / "scores.csv", given.out / "scores.csv")
        call("explain", run, files[0], "--out", work / "seen", "--device", "cpu")
        shutil.copy(work / "seen" / "evidence.json", given.out / "evidence.json")
        graph(run, work / "model.onnx", given.out / "onnx.txt")
        for text in [*given.out.glob("*.jsonl"), *given.out.glob("*.json"), *given.out.glob("*.csv")]:
            text.write_text(text.read_text(encoding="utf-8").replace(str(work), "WORK"), encoding="utf-8")
    helps(given.out / "help")


if __name__ == "__main__":
    main_record()
