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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from held import PRE, TEST_DIFFICULTIES, Clips, Draws, draw, middle, read, training_views
from measuring import Test, answers, cost, measured
from pointing import controls
from torch import Tensor
from torch.nn import functional as F
from variants import GRID, RECIPE, Variant, loss_of, network, parse

from peakzoom.training.module import schedule
from peakzoom.training.recipes import small
from peakzoom.video.clips import even_clips

BATCH = RECIPE.batch_size
REAL_EPOCHS, REAL_CLIPS = 60, 4  # of a fold, and test clips of a video
PATIENCE = 60  # seconds that a fold waits for the weights it starts from


class Training:
    """One training, a step at a time; on a GPU in a stream of its own, replaying one recorded step."""

    def __init__(self, net: Any, variant: Variant, clips: Clips, draws: Draws, half: bool = False) -> None:
        self.net, self.variant, self.frames, self.draws = net.train(), variant, clips.frames, draws
        self.half = half
        self.steps, self.done = len(draws.frames), 0
        device = clips.frames.device
        stage = replace(RECIPE.tcnn, lr=variant.lr)
        rates = [variant.lr * schedule(step, self.steps, stage) for step in range(self.steps)]
        self.rates = torch.tensor(rates, device=device)
        self.rate, self.at = self.rates[0].clone(), torch.zeros(1, dtype=torch.int64, device=device)
        self.weights = self._annealed(device) if variant.anneal else None
        decayed = [value for value in net.parameters() if value.dim() > 1]
        spared = [value for value in net.parameters() if value.dim() <= 1]
        groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
        on_gpu = device.type == "cuda"
        options: dict[str, Any] = {"fused": True, "capturable": True} if on_gpu else {"foreach": False}
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, weight_decay=stage.weight_decay, **options)
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        self.graph: Any = None

    def _annealed(self, device: torch.device) -> Tensor:
        """(steps, cells): weights of the cells from the highest to the lowest at each step."""
        last, cells = int(self.variant.pool.split(":")[1]), (PRE.size // self.variant.stride) ** 2
        table = torch.zeros((self.steps, cells))
        for step in range(self.steps):
            share = min(1.0, step / (self.variant.anneal * self.steps))
            count = max(last, round(cells * (last / cells) ** share))
            table[step, :count] = 1 / count
        return table.to(device)

    def step(self) -> None:
        def now(table: Tensor) -> Tensor:
            return table.index_select(0, self.at)[0]

        self.rate.copy_(now(self.rates))
        draws = self.draws
        with torch.no_grad():
            video = training_views(self.frames, now(draws.frames), now(draws.crop), now(draws.colour))
        weights = None if self.weights is None else now(self.weights)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=self.half):
            loss = loss_of(self.net, self.variant, video, now(draws.labels), weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.at += 1

    def record(self) -> None:
        """Take the first steps as they are, then record one."""
        if self.stream is None or self.graph is not None:
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
                self.done += 1
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.step()
        except RuntimeError:
            print(f"not recorded, so slow: {traceback.format_exc()}", flush=True)
            return
        self.graph = graph

    def advance(self) -> bool:
        """A step further; whether there was one."""
        if self.done >= self.steps:
            return False
        if self.graph is not None:
            with torch.cuda.stream(self.stream):
                self.graph.replay()
        else:
            self.step()
        self.done += 1
        return True


def trained(trainings: Sequence[Training]) -> float:
    """Take all steps of several trainings, in turn; seconds."""
    began = time.monotonic()
    torch.backends.cudnn.benchmark = True
    for each in trainings:
        each.record()
    turn = 0
    while sum(each.advance() for each in trainings):  # each of them, where `any` would stop at the first
        turn += 1
        if turn % 50 == 0 and trainings[0].stream is not None:
            for each in trainings:  # no further ahead of the GPU than that
                each.stream.synchronize()  # type: ignore[union-attr]
    if trainings[0].stream is not None:
        torch.cuda.synchronize()
    return time.monotonic() - began


@dataclass(frozen=True)
class Job:
    """A variant's trainings that share everything but the seed; or, with ``real``, its folds."""

    name: str
    seeds: tuple[int, ...]
    clips: int
    epochs: int
    real: str = ""
    start: str = ""  # file of weights to begin the folds with

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

    def __init__(self, folder: Path, out: Path, device: torch.device, until: float, half: bool) -> None:
        self.folder, self.out, self.device, self.until, self.half = folder, out, device, until, half
        self.tests = {
            each: Test.of(read(folder, f"test-{each}", device, patience=120)) for each in TEST_DIFFICULTIES
        }
        self.data: dict[str, Clips] = {}
        self.pace = 0.004 if device.type == "cuda" else 1.0  # seconds a step, as the last job had it

    def clips(self, name: str, count: int | None) -> Clips:
        key = f"{name} {count}"
        if key not in self.data:
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
        trainings = []
        for seed in job.seeds:
            torch.manual_seed(seed)
            net = network(variant, 10).to(self.device)
            steps = job.clips * job.epochs // BATCH
            draws = draw(clips, range(job.clips), steps, BATCH, 1, RECIPE.augment, seed)
            trainings.append(Training(net, variant, clips, draws, self.half))
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

    def folds(self, job: Job) -> None:
        """Real clips: every group, or every two of many, is tested by a training on the others."""
        variant, clips, recipe = parse(job.name), self.clips(f"real-{job.real}", None), small()
        lengths = torch.tensor(clips.lengths, dtype=torch.float)
        span = recipe.reach * float(lengths.median())
        stride = max(1, round((span - 1) / (PRE.frames - 1)))
        groups = sorted({row["group"] for row in clips.rows})
        apart = len(groups) if len(groups) <= 12 else len(groups) // 2
        classes = int(clips.labels.max()) + 1
        began = time.monotonic()
        for seed in job.seeds:
            torch.manual_seed(seed)
            held, trainings = [], []
            for fold in range(apart):
                out = set(groups[fold::apart])
                held.append([n for n, row in enumerate(clips.rows) if row["group"] in out])
                inside = [n for n, row in enumerate(clips.rows) if row["group"] not in out]
                net = network(variant, classes)
                if job.start:
                    state = torch.load(job.start, map_location="cpu")
                    net.load_state_dict({k: v for k, v in state.items() if "fc." not in k}, strict=False)
                steps = max(recipe.tcnn.min_steps, REAL_EPOCHS * len(inside) // BATCH)
                draws = draw(clips, inside, steps, BATCH, stride, recipe.augment, seed * 100 + fold)
                trainings.append(Training(net.to(self.device), variant, clips, draws, self.half))
            for first in range(0, apart, 5):
                trained(trainings[first : first + 5])
            chances, labels = [], []
            for each, numbers in zip(trainings, held, strict=True):
                net = each.net.eval()
                for number in numbers:
                    at = even_clips(clips.lengths[number], PRE.frames, stride, REAL_CLIPS)
                    at = torch.from_numpy(at).to(self.device)
                    views = torch.stack([middle(clips.frames[number][one]) for one in at])
                    chances.append(answers(net, variant, views)[0].softmax(1).mean(0))
                    labels.append(int(clips.labels[number]))
            every, truth = torch.stack(chances), torch.tensor(labels, device=self.device)
            row = {
                "variant": job.name, "real": job.real, "start": bool(job.start), "seed": seed, "clips": len(labels),
                "start clips": job.clips, "stride": stride, "epochs": REAL_EPOCHS,
                "right": int((every.argmax(1) == truth).sum()),
                "accuracy": 100 * float((every.argmax(1) == truth).float().mean()),
                "nats": float(F.nll_loss(every.clamp(min=1e-9).log(), truth)),
                "seconds": time.monotonic() - began,
            }  # fmt: skip
            self.write(row)
            print(row, flush=True)

    def run(self, jobs: Any) -> None:
        while True:
            try:
                job = jobs.get(timeout=2)
            except Exception:  # noqa: BLE001 -- queue.Empty, or the end of the process that filled it
                return
            steps = 300 * 10 if job.real else job.steps
            if time.time() + 1.2 * self.pace * steps > self.until:
                print(f"left out, no time: {job}", flush=True)
                continue
            try:
                if job.start:
                    self.wait_for(Path(job.start))
                (self.folds if job.real else self.rendered)(job)
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


def timed(folder: Path, device: torch.device, half: bool) -> float:
    """Seconds of a step of the second variant of the grid, one training alone."""
    variant = parse(GRID[1])
    clips = read(folder, "train", device, BATCH, patience=120)
    draws = draw(clips, range(BATCH), 60, BATCH, 1, RECIPE.augment, 0)
    training = Training(network(variant, 10).to(device), variant, clips, draws, half)
    training.record()
    began = time.monotonic()
    while training.advance():
        pass
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - began) / 57


def jobs_of(asked: argparse.Namespace) -> list[Job]:
    """All that was asked for, the fewest clips first, real clips last."""
    seeds = tuple(int(seed) for seed in asked.seeds.split(","))
    names = asked.variant or GRID
    counts = [int(count) for count in asked.train.split(",") if count]
    found = [Job(name, seeds, count, asked.epochs) for count in counts for name in names]
    rendered = list(found)
    if asked.real:
        found += [Job(name, seeds, 0, 0, asked.real) for name in names]
        for job in rendered:
            for seed in seeds:
                start = asked.out.with_suffix("") / f"{job.name}-{job.clips}-{job.epochs}-{seed}.pt"
                found.append(Job(job.name, (seed,), job.clips, 0, asked.real, str(start)))
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
    parser.add_argument("--real", default="", help="name of real clips in the folder")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="float32")
    asked = parser.parse_args()
    until, device = time.time() + 60 * asked.minutes, torch.device(asked.device)
    half = asked.precision == "bfloat16"
    if asked.precision == "auto":
        torch.backends.cudnn.benchmark = True
        spent = {each: timed(asked.clips, device, each) for each in (False, True)}
        half = spent[True] < 0.7 * spent[False]
        print(
            f"a step: {1000 * spent[False]:.2f} ms, in bfloat16 {1000 * spent[True]:.2f} ms: bfloat16 is {half}"
        )
    asked.out.with_suffix("").mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    jobs = context.Queue()
    for job in jobs_of(asked):
        jobs.put(job)
    settings = (asked.clips, asked.out, device, until, half)
    processes = [context.Process(target=work, args=(jobs, *settings)) for _ in range(asked.processes)]
    for process in processes:
        process.start()
    test = Test.of(read(asked.clips, f"test-{TEST_DIFFICULTIES[0]}", torch.device("cpu"), patience=120))
    print("controls", {slack: controls(test.truth, test.moves, slack) for slack in (4.0, 8.0)}, flush=True)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
