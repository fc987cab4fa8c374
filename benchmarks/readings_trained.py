"""The readings of Table 1 (``readings.py``), each trained alike from scratch on rendered clips of the paper's size.

    export HELD_SIZE=224
    python benchmarks/held.py clips --train 1000 --first 1000 --test 400 --difficulties 0.2 --workers 16
    python benchmarks/readings_trained.py clips --out readings.jsonl --minutes 3.3
    python benchmarks/localised.py readings.jsonl                                                     # the table

With ``--real ut_interaction`` (added to the clips by ``held.py --train 0 --real``) every training's weights then begin
a cross-validation on real clips (``folds.py``), another line of JSON.

The T-CNN alone, AdamW as recipe ``small``, one number of steps for all: as many as fit into the time, by what a step of
each takes here, at most ``--epochs``. Rounds go one after the other, ``motion:0`` with motion in the input and seed 0,
``frames:0`` without; all four readings in each. A training is one line of JSON when it ends.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from folds import Folds, cross_validated
from held import CLASSES, PRE, Clips, draw, read
from localise import rounded
from measuring import Test, measured
from pointing import controls
from torch.utils.flop_counter import FlopCounterMode
from trainings import MODES, OfVariant, quickest, trained
from variants import RECIPE, Variant

from peakzoom.model.backbones.tcnn import TCNN, tcnn, tcnn_16, tcnn_local

READINGS: dict[str, Callable[..., TCNN]] = {
    "tcnn": tcnn,
    "tcnn, every frame": partial(tcnn, every_frame=True),
    "tcnn_16": tcnn_16,
    "tcnn_local": tcnn_local,
}
DIFFICULTY = 0.2
AROUND = 4.0  # seconds that a training needs beside its steps: to be recorded and tested


class Bench:
    """The clips and what all trainings share."""

    def __init__(self, asked: argparse.Namespace, device: torch.device) -> None:
        self.asked, self.device = asked, device
        self.clips: Clips = read(asked.clips, "train", device, patience=asked.patience)
        self.test = Test.of(read(asked.clips, f"test-{DIFFICULTY}", device, patience=asked.patience))
        self.variant = Variant(lr=asked.lr, dropout=asked.dropout)

    def network(self, reading: str, motion: bool, classes: int = len(CLASSES)) -> TCNN:
        made = READINGS[reading](classes, width=self.asked.width, dropout=self.asked.dropout, motion=motion)
        return made.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # the stubs lack it

    def training(self, reading: str, motion: bool, steps: int, seed: int, mode: str) -> OfVariant:
        torch.manual_seed(seed)
        net = self.network(reading, motion)
        numbers = range(len(self.clips.rows))
        draws = draw(self.clips, numbers, steps, self.asked.batch, 1, RECIPE.augment, seed)
        return OfVariant(net, self.variant, self.clips, draws, mode)

    def quickest(self, reading: str) -> tuple[str, float]:
        """How a step of a reading is quickest, with motion, and its seconds."""
        print(reading, end=" ")
        modes = [self.asked.mode] if self.asked.mode != "auto" else ["bfloat16", "flat-bfloat16"]
        steps = self.asked.timed

        def make(mode: str) -> OfVariant:
            return self.training(reading, True, steps + 4, 0, mode)

        return quickest(make, modes, steps=steps, search=self.asked.search)

    @torch.no_grad()
    def cost(self, reading: str, motion: bool) -> dict[str, float]:
        net = self.network(reading, motion).eval()
        with FlopCounterMode(display=False) as counter:
            net.features(torch.zeros(1, 3, PRE.frames, PRE.size, PRE.size, device=self.device))
        return {
            "G multiply-adds": counter.get_total_flops() / 2e9,
            "M parameters": sum(each.numel() for each in net.parameters()) / 1e6,
        }

    def run(self, reading: str, motion: bool, seed: int, steps: int, mode: str) -> dict[str, Any]:
        training = self.training(reading, motion, steps, seed, mode)
        began = time.monotonic()
        training.record()
        recorded, done = time.monotonic() - began, training.done
        seconds = trained([training], search=self.asked.search)
        training.release()
        file = self.weights(reading, motion, seed)
        file.parent.mkdir(exist_ok=True, parents=True)
        torch.save(training.net.state_dict(), file)
        slack = training.net.cells.stride[1] / 2
        row = {
            "reading": reading, "motion": motion, "seed": seed, "clips": len(self.clips.rows), "steps": steps,
            "batch": self.asked.batch, "epochs": steps * self.asked.batch / len(self.clips.rows), "mode": mode,
            "lr": self.asked.lr, "size": PRE.size, "ms a step": 1000 * seconds / max(1, steps - done),
            "seconds": seconds + recorded, **self.cost(reading, motion),
            **controls(self.test.truth, self.test.moves, slack),
            **measured(training.net, self.variant, {DIFFICULTY: self.test}),
        }  # fmt: skip
        return rounded(row)

    def weights(self, reading: str, motion: bool, seed: int) -> Path:
        """Where a training's state is kept."""
        return self.asked.out.with_suffix("") / f"{reading}-{'motion' if motion else 'frames'}-{seed}.pt"

    def on_real(self, real: str, reading: str, motion: bool, seed: int, mode: str) -> dict[str, Any]:
        """A row of a cross-validation that begins with a training's weights."""
        clips = read(self.asked.clips, f"real-{real}", self.device, patience=self.asked.patience)
        start = f"{len(self.clips.rows)} rendered clips"
        weights = str(self.weights(reading, motion, seed))
        job = Folds(
            reading, real, seed, self.asked.real_epochs, 0, start, weights, together=self.asked.together
        )
        row, _ = cross_validated(job, clips, mode, partial(self.network, reading, motion))
        return row


def planned(asked: argparse.Namespace, clips: int, left: float, paces: dict[str, float]) -> int:
    """Steps of every training, so that all rounds fit into the seconds that are left."""
    rounds = len(asked.rounds.split(","))
    fits = int((left - rounds * len(paces) * AROUND) / (rounds * sum(paces.values())))
    return max(10, min(fits, asked.epochs * clips // asked.batch))


def write(out: Path, row: dict[str, Any]) -> None:
    """Add a line of JSON."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of benchmarks/held.py")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--rounds", default="motion:0,frames:0,motion:1", help="inputs and seeds, in order")
    parser.add_argument("--reading", action="append", choices=list(READINGS), help="in place of all")
    parser.add_argument("--minutes", type=float, default=3.3)
    parser.add_argument("--epochs", type=int, default=48, help="at most")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=RECIPE.tcnn.lr)
    parser.add_argument("--dropout", type=float, default=RECIPE.dropout)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--real", default="", help="names of real clips in the folder")
    parser.add_argument("--real-epochs", type=int, default=25)
    parser.add_argument("--together", type=int, default=2, help="trainings at a time on real clips")
    parser.add_argument("--mode", choices=["auto", *MODES], default="auto")
    parser.add_argument("--timed", type=int, default=10, help="steps")
    parser.add_argument("--search", action="store_true", help="let cuDNN try its ways: slow to begin")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for the clips")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    bench, names = Bench(asked, torch.device(asked.device)), asked.reading or list(READINGS)
    print(f"{len(bench.clips.rows)} clips, {until - time.monotonic():.0f} s left", flush=True)
    chosen = {name: bench.quickest(name) for name in names}
    paces = {name: pace for name, (_, pace) in chosen.items()}
    steps = planned(asked, len(bench.clips.rows), until - time.monotonic(), paces)
    print(f"{steps} steps each, {until - time.monotonic():.0f} s left", flush=True)
    for each in asked.rounds.split(","):
        kind, seed = each.split(":")
        for name in names:
            if time.monotonic() + steps * paces[name] + AROUND > until + 15:
                print(f"left out, no time: {name} {each}", flush=True)
                continue
            row = bench.run(name, kind == "motion", int(seed), steps, chosen[name][0])
            write(asked.out, row)
            easy = row[str(DIFFICULTY)]
            print(
                f"{name} {each}: {easy['accuracy']:.1f}%, pointing {easy['frame']:.1f}, best three "
                f"{easy['frame best 3']:.1f}, {row['ms a step']:.1f} ms a step, {until - time.monotonic():.0f} s left",
                flush=True,
            )
            for real in filter(None, asked.real.split(",")):
                row = bench.on_real(real, name, kind == "motion", int(seed), chosen[name][0])
                write(asked.out, row)
                print(f"  {real}: {row['right']} of {row['clips']}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
