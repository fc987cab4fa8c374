"""Which training and which network has class maps that are high where the action is: a grid of short trainings.

The T-CNN alone is trained as the quickstart trains it, once for each variant (``variants.py`` names them) and seed, on
rendered clips that lie on the device whole, several trainings at a time; on a GPU a training's step is recorded once
and replayed. Each training is one line of JSON: accuracy and nats of two views a clip on new performers and places at
three difficulties, the pointing game (``pointing.py``), multiply-adds, parameters, seconds. With ``--real`` a variant
is also trained on real clips, their groups left out in turn, from scratch and from each rendered training's weights.

    python benchmarks/held.py clips --train 4000 --test 400 --workers 16 --real WEIZMANN/clips.csv
    python benchmarks/localise.py clips --out found.jsonl --epochs 24 --seeds 0,1                     # the whole grid
    python benchmarks/localise.py clips --out found.jsonl --epochs 48 --seeds 0,1,2 --train 400,4000 --variant today \\
        --variant field=local,stride=8,pool=best:2 --real weizmann

Trainings start most promising first and none starts that could not end within ``--minutes``.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from folds import Folds, cross_validated
from held import TEST_DIFFICULTIES, Clips, draw, read
from measuring import Test, cost, measured
from pointing import controls
from trainings import MODES, OfVariant, quickest, trained
from variants import GRID, RECIPE, network, parse

from peakzoom.training.recipes import small

BATCH = RECIPE.batch_size
PATIENCE = 60  # seconds that a fold waits for the weights it starts from


@dataclass(frozen=True)
class Job:
    """A variant's trainings that share everything but the seed."""

    name: str
    seeds: tuple[int, ...]
    clips: int
    epochs: int

    @property
    def steps(self) -> int:
        """Of all its trainings."""
        return len(self.seeds) * self.clips * self.epochs // BATCH


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """To what is worth keeping."""
    nested = {key: rounded(value) if isinstance(value, dict) else value for key, value in row.items()}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in nested.items()}


class Worker:
    """One process: takes jobs until there are none, or no time."""

    def __init__(self, folder: Path, out: Path, device: torch.device, until: float, mode: str) -> None:
        self.folder, self.out, self.device, self.until, self.mode = folder, out, device, until, mode
        self.tests: dict[float, Test] = {}
        self.data: dict[str, Clips] = {}
        self.pace = 0.004 if device.type == "cuda" else 0.1  # seconds a step, as the last job had it

    def clips(self, name: str, count: int | None) -> Clips:
        key = f"{name} {count}"
        if key not in self.data:
            if not name.startswith("real-"):
                self.data.clear()  # one set at a time
            self.data[key] = read(self.folder, name, self.device, count, patience=120)
        return self.data[key]

    def weights(self, job: Job, seed: int) -> Path:
        return self.out.with_suffix("") / f"{job.name}-{job.clips}-{job.epochs}-{seed}.pt"

    def write(self, row: dict[str, Any]) -> None:
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded(row)) + "\n")

    def rendered(self, job: Job) -> None:
        variant, clips = parse(job.name), self.clips("train", job.clips)
        if not self.tests:
            held = {
                each: read(self.folder, f"test-{each}", self.device, patience=120)
                for each in TEST_DIFFICULTIES
            }
            self.tests = {each: Test.of(of) for each, of in held.items()}
        trainings = []
        for seed in job.seeds:
            torch.manual_seed(seed)
            net = network(variant, 10).to(self.device)
            steps = job.clips * job.epochs // BATCH
            draws = draw(clips, range(job.clips), steps, BATCH, 1, RECIPE.augment, seed)
            trainings.append(OfVariant(net, variant, clips, draws, self.mode))
        seconds = trained(trainings)
        self.pace = seconds / job.steps
        known = {"variant": job.name, "clips": job.clips, "epochs": job.epochs, **cost(variant, 10)}
        for seed, training in zip(job.seeds, trainings, strict=True):
            row = measured(training.net, variant, self.tests)
            file = self.weights(job, seed)
            file.parent.mkdir(exist_ok=True, parents=True)
            torch.save(training.net.state_dict(), file)
            self.write({**known, "seed": seed, **row, "seconds": seconds / len(trainings)})
            easy = row[str(TEST_DIFFICULTIES[0])]
            print(
                f"{job.name} {job.clips}x{job.epochs} s{seed}: {easy['accuracy']:.1f}%, pointing {easy['frame']:.1f} "
                f"({easy['frame hand']:.0f} {easy['frame head']:.0f} {easy['frame foot']:.0f}), "
                f"{seconds / len(trainings):.1f} s",
                flush=True,
            )

    def folds(self, job: Folds) -> None:
        if job.start_clips:
            self.wait_for(Path(job.weights))
        clips = self.clips(f"real-{job.real}", None)
        row, steps = cross_validated(job, clips, self.mode)
        self.pace = row["seconds"] / steps
        self.write(row)
        print(
            f"{job.real} {job.start or 'scratch'} s{job.seed} {job.name}: {row['right']} of {row['clips']}, "
            f"{row['nats']:.3f} nats, {steps} steps in {row['seconds']:.1f} s",
            flush=True,
        )

    def run(self, jobs: Any) -> None:
        while True:
            try:
                job = jobs.get(timeout=2)
            except Exception:  # noqa: BLE001 -- queue.Empty, or the end of the process that filled it
                return
            if time.time() + 1.2 * self.pace * job.steps > self.until:
                print(f"left out, no time: {job}", flush=True)
                continue
            try:
                if isinstance(job, Folds):
                    self.folds(job)
                else:
                    self.rendered(job)
            except Exception:  # noqa: BLE001 -- one variant's fault must not end the others
                print(f"failed: {job}\n{traceback.format_exc()}", flush=True)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()

    def wait_for(self, file: Path) -> None:
        """Another process may be training it yet."""
        began = time.time()
        while not file.exists() and time.time() < min(self.until, began + PATIENCE):
            time.sleep(0.5)


def work(jobs: Any, *settings: Any) -> None:
    torch.set_num_threads(1)
    Worker(*settings).run(jobs)


def maker(name: str, clips: Clips) -> Callable[[str], OfVariant]:
    """Makes short trainings of a variant in a mode, to be timed."""
    variant, numbers = parse(name), range(len(clips.rows))
    draws = draw(clips, numbers, 60, BATCH, 1, RECIPE.augment, 0)
    classes, device = int(clips.labels.max()) + 1, clips.frames.device
    return lambda mode: OfVariant(network(variant, classes).to(device), variant, clips, draws, mode)


def starts_of(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Labels and files of weights, scratch first."""
    named = [each.split("=", 1) for each in asked.start]
    return [*([] if asked.no_scratch else [("", "")]), *((label, file) for label, file in named)]


def jobs_of(asked: argparse.Namespace) -> list[Job | Folds]:
    """All that was asked for, the fewest clips first, real clips last, and of these a whole seed before the next."""
    seeds = tuple(int(seed) for seed in asked.seeds.split(","))
    names = asked.variant or GRID
    counts = [int(count) for count in asked.train.split(",") if count]
    found: list[Job | Folds] = [Job(name, seeds, count, asked.epochs) for count in counts for name in names]
    for seed in seeds:
        for real in asked.real.split(",") if asked.real else ():
            for name in names:
                what = (name, real, seed, asked.real_epochs, asked.real_least)
                for label, file in starts_of(asked):
                    found.append(Folds(*what, label, file))
                for count in counts:
                    start = asked.out.with_suffix("") / f"{name}-{count}-{asked.epochs}-{seed}.pt"
                    found.append(Folds(*what, "rendered", str(start), count))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of benchmarks/held.py")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--variant", action="append", help="in place of the grid; may be given again")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--train", default="400", help="numbers of training clips; none: real clips alone")
    parser.add_argument("--real", default="", help="names of real clips in the folder, such as weizmann")
    parser.add_argument("--real-epochs", type=int, default=small().tcnn.epochs, help="of a fold")
    parser.add_argument("--real-least", type=int, default=small().tcnn.min_steps, help="steps of a fold")
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="LABEL=FILE",
        help="folds also begin with these weights (.pt, .safetensors), which fit every variant; may be given again",
    )
    parser.add_argument(
        "--no-scratch", action="store_true", help="folds only from --start, or from rendered weights"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mode", choices=["auto", *MODES], default=MODES[0], help="auto: the quickest here")
    parser.add_argument("--timed", type=int, default=40, help="steps to find that out")
    asked = parser.parse_args()
    until, device, mode = time.time() + 60 * asked.minutes, torch.device(asked.device), asked.mode
    if mode == "auto":
        few = read(
            asked.clips, f"real-{asked.real.split(',')[0]}" if asked.real else "train", device, BATCH, 120
        )
        mode, _ = quickest(maker((asked.variant or GRID)[-1], few), steps=asked.timed)
        print(f"mode: {mode}", flush=True)
        del few
    asked.out.with_suffix("").mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    jobs = context.Queue()
    for job in jobs_of(asked):
        jobs.put(job)
    settings = (asked.clips, asked.out, device, until, mode)
    processes = [context.Process(target=work, args=(jobs, *settings)) for _ in range(asked.processes)]
    for process in processes:
        process.start()
    if asked.train:
        test = Test.of(read(asked.clips, f"test-{TEST_DIFFICULTIES[0]}", torch.device("cpu"), patience=120))
        print(
            "controls", {slack: controls(test.truth, test.moves, slack) for slack in (4.0, 8.0)}, flush=True
        )
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
