"""What the three branches add to the T-CNN on real clips, at equal passes: the question of the paper's Table 4.

Every group of clips, or every two of many, is tested by networks trained on the others (``folds.py``). For each seed
the T-CNN of recipe ``spatial`` is trained from the weights that come with the package; from it each row of ``JOINT``
goes on, with some of the branches, or with the original alone for as many passes as three branches take, or with peaks
that are not the clip's own. Each row is a line of JSON with every prediction; ``localised.py`` makes the tables and
paired tests.

    python benchmarks/held.py clips --train 0 --real UT_INTERACTION/clips.csv --real WEIZMANN/clips.csv
    python benchmarks/branches.py clips --out branches.jsonl --real ut_interaction,weizmann --seeds 0,1,2
    python benchmarks/localised.py branches.jsonl --pair "O + D + C" "O, as many passes as O + D + C"

Rows come in the order of the table below, and none starts that could not end within ``--minutes``. The same command
goes on where it stopped: what ``--out`` has is not done again, and stage 1 is kept beside it.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from flat import flatten
from folds import begin_with, folds_of, stride_of
from held import PRE, Clips, Draws, draw, middle_source, read, smaller, training_sources
from torch import Tensor, nn
from torch.nn import functional as F
from trainings import MODES, Training, step_time, trained

from peakzoom.model import PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.model.starts import starts
from peakzoom.training.recipes import Recipe, StageSettings, spatial
from peakzoom.training.start import build
from peakzoom.video.clips import even_clips
from peakzoom.video.views import to_input

CLIPS = 4  # of a test video, where each is seen once by each branch
PEAKS = 96  # of a map at most: a recorded step has one size
ORIGINAL, ZOOM, REST = BRANCHES


@dataclass(frozen=True)
class Row:
    """A way to train.

    Attributes:
        branches: of stage 2.
        epochs: how many times the recipe's.
        look: whose peaks the zoomed videos show: "own"; "middle", one in the middle of the frame; "another", another
            clip's of the batch.
        per: what has an attention of its own, "clip" or "frame".
        frozen: batch norms keep the statistics of stage 1.
        distill: weight of the loss by which the original learns from the fused prediction.
    """

    branches: tuple[str, ...]
    epochs: float = 1
    look: str = "own"
    per: str = "clip"
    frozen: bool = False
    distill: float = 0.0


ALONE = {  # stage 1 only
    "T-CNN": Row((ORIGINAL,)),
    "T-CNN, half the epochs": Row((ORIGINAL,), 0.5),
    "T-CNN, 2.5 times the epochs": Row((ORIGINAL,), 2.5),
}
JOINT = {  # the first has seen 50 epochs once and 25 with three passes each, as the second
    "O + D + C": Row(BRANCHES),
    "O, as many passes as O + D + C": Row((ORIGINAL,), 3),
    "O + D": Row((ORIGINAL, ZOOM)),
    "O + D, distilled": Row((ORIGINAL, ZOOM), distill=1.0),
    "O, as many passes as O + D": Row((ORIGINAL,), 2),
    "O + D, middle of the frame": Row((ORIGINAL, ZOOM), look="middle"),
    "O + D, another clip's peaks": Row((ORIGINAL, ZOOM), look="another"),
    "O + D, an attention per frame": Row((ORIGINAL, ZOOM), per="frame"),
    "O + D, norms of stage 1": Row((ORIGINAL, ZOOM), frozen=True),
    "O + D + C, norms of stage 1": Row(BRANCHES, frozen=True),
    "O + C": Row((ORIGINAL, REST)),
    "O + D + C, another clip's peaks": Row(BRANCHES, look="another"),
}


def listed(peaks: Tensor) -> tuple[Tensor, Tensor]:
    """As :meth:`SparseAttention.listed`, of a length that does not depend on the clip."""
    values, cells = peaks.flatten(1).topk(PEAKS, dim=1)
    return values, cells


def look_elsewhere(model: PeakZoom, look: str) -> None:
    """Let a model zoom at peaks that are not the clip's own."""
    respond, side = model.respond, model.config.grid

    def middle(features: Tensor, frames: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        responses = features.new_zeros((len(features), frames, side, side), dtype=torch.float32)
        responses[:, :, side // 2, side // 2] = 1
        return responses, responses > 0

    def another(features: Tensor, frames: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        responses, peaks = respond(features, frames, size)
        return responses.roll(len(features) // 2, 0), peaks.roll(len(features) // 2, 0)

    changed: Any = model
    changed.respond = {"own": respond, "middle": middle, "another": another}[look]


class Looking(Training):
    """A network of some branches, as stage 1 or 2 of a recipe trains it."""

    def __init__(
        self, model: PeakZoom, row: Row, recipe: Recipe, stage: StageSettings, clips: Clips, draws: Draws, mode: str
    ) -> None:  # fmt: skip
        if mode.startswith("flat"):
            flatten(model.backbone)
        self.recipe, self.stage, self.distill = recipe, stage, row.distill
        super().__init__(model, stage, clips, draws, mode.endswith("bfloat16"))
        attention: Any = model.attention
        attention.listed = listed
        look_elsewhere(model, row.look)
        for part in model.modules():
            if row.frozen and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()

    def loss(self) -> Tensor:
        draws = self.draws
        with torch.no_grad():
            source = training_sources(
                self.frames, self.now(draws.frames), self.now(draws.crop), self.now(draws.colour)
            )
            video = smaller(source)
        smoothing = self.stage.label_smoothing
        found: Tensor = self.net.loss(
            self.net(video, source),
            self.now(draws.labels),
            label_smoothing=smoothing,
            quiet=self.recipe.quiet,
            distill=self.distill,
        )
        return found


class Study:
    """All rows of one set of clips and one seed."""

    def __init__(self, clips: Clips, real: str, seed: int, asked: argparse.Namespace) -> None:
        self.clips, self.real, self.seed, self.asked = clips, real, seed, asked
        base = spatial()
        preprocess = replace(base.preprocess, frames=PRE.frames)
        self.recipe = replace(base, width=asked.width, model=asked.model, preprocess=preprocess)
        self.device, self.stride = clips.frames.device, stride_of(clips)
        self.tested = folds_of(clips)[: asked.folds]
        self.classes = list(map(str, range(int(clips.labels.max()) + 1)))
        self.drawn: dict[tuple[int, int], Draws] = {}

    def kept(self) -> Path:
        """Where stage 1's weights of all folds lie."""
        name = f"{self.asked.label}-{self.recipe.model}-{self.recipe.width:g}-{self.real}-{self.seed}.pt"
        return self.asked.out.with_suffix("") / name

    def done(self, name: str, start: str | None = None) -> bool:
        """Whether the output has a row."""
        start = self.asked.label if start is None else start
        lines = self.asked.out.read_text(encoding="utf-8").splitlines() if self.asked.out.exists() else []
        wanted = {
            "variant": name, "network": self.recipe.model, "width": self.recipe.width, "real": self.real,
            "seed": self.seed, "start": start,
        }  # fmt: skip
        return any(wanted.items() <= json.loads(line).items() for line in lines)

    def draws(self, fold: int, steps: int, stage: str) -> Draws:
        """The same for all rows of as many steps."""
        if (fold, steps) not in self.drawn:
            inside = sorted(set(range(len(self.clips.rows))) - set(self.tested[fold]))
            seed = self.seed * 100 + fold + (10_000 if stage == "joint" else 0)
            batch, augment = self.recipe.batch_size, self.recipe.augment
            self.drawn[fold, steps] = draw(self.clips, inside, steps, batch, self.stride, augment, seed)
        return self.drawn[fold, steps]

    def steps(self, fold: int, stage: StageSettings, epochs: float) -> int:
        inside = len(self.clips.rows) - len(self.tested[fold])
        whole = epochs * max(stage.min_steps, stage.epochs * inside // self.recipe.batch_size)
        return round(whole * self.asked.share)

    def total(self, row: Row, stage: StageSettings) -> float:
        """Passes of a row's training, all folds together."""
        return sum(
            self.steps(fold, stage, row.epochs) * len(row.branches) for fold in range(len(self.tested))
        )

    def train(
        self, row: Row, stage: str, begin: list[dict[str, Tensor]] | None, weights: str
    ) -> list[Looking]:
        """A network a fold: from stage 1's states, or from a file of weights, or from scratch."""
        settings: StageSettings = getattr(self.recipe, stage)
        recipe = replace(self.recipe, branches=row.branches, attention_per=row.per)
        trainings = []
        for fold in range(len(self.tested)):
            torch.manual_seed(self.seed * 100 + fold)
            model = build(recipe, self.classes, stage == "joint")
            if begin is not None:
                model.backbone.load_state_dict(begin[fold])
            elif weights:
                begin_with(model.backbone, Path(weights))
            model.start_heads_from_original()
            draws = self.draws(fold, self.steps(fold, settings, row.epochs), stage)
            trainings.append(
                Looking(model.to(self.device), row, recipe, settings, self.clips, draws, self.asked.mode)
            )
        for first in range(0, len(trainings), self.asked.together):
            part = trainings[first : first + self.asked.together]
            trained(part)
            for each in part:
                each.release()
        return trainings

    @torch.no_grad()
    def answers(self, trainings: list[Looking], clips: int) -> dict[str, Tensor]:
        """Probabilities (N, S) of each prediction by its name, means over the test clips of each video."""
        torch.backends.cudnn.benchmark = False
        found: dict[str, Tensor] = {}
        for training, numbers in zip(trainings, self.tested, strict=True):
            model, logits = training.net.eval(), []
            views = []
            for number in numbers:
                at = even_clips(self.clips.lengths[number], PRE.frames, self.stride, clips)
                frames = self.clips.frames[number]
                views += [middle_source(frames[torch.from_numpy(one).to(self.device)]) for one in at]
            for part in torch.stack(views).split(48):
                output = model(*to_input(part, self.recipe.preprocess))
                logits.append(output.logits())
            for name in logits[0]:
                chances = torch.cat([each[name] for each in logits]).float().softmax(1)
                whole = found.setdefault(
                    name, torch.zeros(len(self.clips.rows), len(self.classes), device=self.device)
                )
                whole[numbers] = chances.unflatten(0, (len(numbers), -1)).mean(1)
        return found

    def row(
        self, name: str, row: Row, start: str, trainings: list[Looking], seconds: float, clips: int
    ) -> dict[str, Any]:
        seen = sorted(number for fold in self.tested for number in fold)
        labels = self.clips.labels[seen]
        found = {key: value[seen] for key, value in self.answers(trainings, clips).items()}
        chances = found["fused"]
        right = chances.argmax(1) == labels
        rounded = {
            key: [[round(value, 5) for value in each] for each in part.tolist()]
            for key, part in found.items()
        }
        return {
            "variant": name, "network": self.recipe.model, "width": self.recipe.width, "real": self.real,
            "start": start, "start clips": 0, "seed": self.seed, "epochs": row.epochs, "test clips": clips,
            "share": self.asked.share,
            "mode": self.asked.mode, "stride": self.stride, "clips": len(seen), "folds": len(self.tested),
            "steps": trainings[0].steps, "right": int(right.sum()), "accuracy": 100 * float(right.float().mean()),
            "nats": float(F.nll_loss(chances.clamp(min=1e-9).log(), labels)), "seconds": seconds,
            "branches": {
                key: round(100 * float((value.argmax(1) == labels).float().mean()), 2) for key, value in found.items()
            },
            "outcomes": {
                "group": [self.clips.rows[number]["group"] for number in seen],
                "label": labels.tolist(),
                "chances": rounded["fused"],
                **({"original": rounded["original"]} if len(row.branches) > 1 and "original" in rounded else {}),
            },
        }  # fmt: skip

    def rows(self, fits: Callable[[float], bool]) -> Iterator[dict[str, Any]]:
        """Each row in turn; ``fits`` says whether a number of passes still does."""
        begin: list[dict[str, Tensor]] = []

        def made(name: str, row: Row, stage: str, weights: str, start: str) -> Iterator[dict[str, Any]]:
            if self.done(name, start):
                return
            if not fits(self.total(row, getattr(self.recipe, stage))):
                print(f"left out, no time: {self.real} s{self.seed} {name}", flush=True)
                return
            began = time.monotonic()
            trainings = self.train(row, stage, begin if stage == "joint" else None, weights)
            if name == "T-CNN" and start:
                begin.extend(
                    {k: v.clone() for k, v in each.net.backbone.state_dict().items()} for each in trainings
                )
            seconds = time.monotonic() - began
            yield self.row(name, row, start, trainings, seconds, CLIPS)
            if row.branches == (ORIGINAL,):  # as many passes in the test as three branches make
                yield self.row(f"{name}, {3 * CLIPS} clips", row, start, trainings, seconds, 3 * CLIPS)

        wanted = self.asked.row or ["T-CNN", *JOINT, *ALONE, "scratch"]
        kept = self.kept()
        if kept.exists() and self.done("T-CNN"):
            begin.extend(torch.load(kept, map_location=self.device))
        else:
            yield from made("T-CNN", ALONE["T-CNN"], "tcnn", self.asked.weights, self.asked.label)
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(begin, kept)
        for name, row in JOINT.items():
            if name in wanted and begin:
                yield from made(name, row, "joint", "", self.asked.label)
        for name, row in list(ALONE.items())[1:]:
            if name in wanted:
                yield from made(name, row, "tcnn", self.asked.weights, self.asked.label)
        if "scratch" in wanted:
            yield from made("T-CNN", ALONE["T-CNN"], "tcnn", "", "")


def work(jobs: Any, asked: argparse.Namespace, until: float) -> None:
    """One process: takes sets and seeds until there are none."""
    torch.set_num_threads(1)
    device, pace = torch.device(asked.device), [0.0, 0.0]  # seconds, passes

    def fits(passes: float) -> bool:
        a_pass = pace[0] / pace[1] if pace[1] else 0.0
        return time.time() + 1.1 * a_pass * passes < until

    while True:
        try:
            real, seed = jobs.get(timeout=2)
        except Exception:  # noqa: BLE001 -- queue.Empty, or the end of the process that filled it
            return
        clips = read(asked.clips, f"real-{real}", device, patience=120)
        study = Study(clips, real, seed, asked)
        try:
            for row in study.rows(fits):
                every = {**ALONE, **JOINT}
                if row["variant"] in every:  # and not the same network's row of more test clips
                    used = every[row["variant"]]
                    stage = study.recipe.joint if row["variant"] in JOINT else study.recipe.tcnn
                    pace[0] += row["seconds"]
                    pace[1] += study.total(used, stage)
                with asked.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{real} s{seed} {row['start'] or 'scratch'} {row['variant']}: {row['right']} of {row['clips']}, "
                    f"{row['nats']:.3f} nats, {row['branches']}, {row['seconds']:.1f} s",
                    flush=True,
                )
        except Exception:  # noqa: BLE001 -- one set's fault must not end the others
            print(f"failed: {real} s{seed}\n{traceback.format_exc()}", flush=True)


def fastest(asked: argparse.Namespace) -> str:
    """The first mode in which a step of three branches takes no more than 1.25 times what the quickest takes."""
    real = asked.real.split(",")[0]
    study = Study(read(asked.clips, f"real-{real}", torch.device(asked.device), 16, 120), real, 0, asked)
    row, stage = JOINT["O + D + C"], study.recipe.joint
    draws = draw(study.clips, range(16), 40, study.recipe.batch_size, 1, study.recipe.augment, 0)

    def make(mode: str) -> Looking:
        model = build(study.recipe, study.classes, True).to(study.device)
        return Looking(model, row, study.recipe, stage, study.clips, draws, mode)

    spent = {mode: step_time(make, mode, steps=20) for mode in MODES}
    print("ms a step:", {mode: round(1000 * each, 2) for mode, each in spent.items()}, flush=True)
    return next(mode for mode in MODES if spent[mode] <= 1.25 * min(spent.values()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of benchmarks/held.py")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--real", default="ut_interaction,weizmann")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--row", action="append", choices=[*ALONE, *JOINT, "scratch"], help="in place of all")
    parser.add_argument("--model", default=spatial().model)
    parser.add_argument("--width", type=float, default=spatial().width)
    parser.add_argument("--weights", default="", help="file to start from, in place of the package's")
    parser.add_argument(
        "--label", default="start", help="what the rows call the weights that they start from"
    )
    parser.add_argument("--folds", type=int, help="the first so many, in place of all")
    parser.add_argument("--share", type=float, default=1.0, help="of all steps, to try the rows on a CPU")
    parser.add_argument("--together", type=int, default=10, help="trainings at a time in a process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mode", choices=["auto", *MODES], default=MODES[0], help="auto: the quickest here")
    asked = parser.parse_args()
    until = time.time() + 60 * asked.minutes
    if not asked.weights:
        known = [each for each in starts() if (each.network, each.width) == (asked.model, asked.width)]
        if not known:
            parser.error(
                f"no weights come with the package for {asked.model} at width {asked.width}: give --weights"
            )
        asked.weights = str(known[0].file)
    if asked.mode == "auto":
        asked.mode = fastest(asked)
    context = multiprocessing.get_context("spawn")
    jobs = context.Queue()
    for seed in asked.seeds.split(","):
        for real in asked.real.split(","):
            jobs.put((real, int(seed)))
    processes = [context.Process(target=work, args=(jobs, asked, until)) for _ in range(asked.processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
