"""Tables of many trainings: every network, with every set of branches, on every fold, with every seed.

The paper's Table 4 (which branches) and Tables 2 and 3 (which networks) are both made so. In each fold and with each
seed a network is first trained alone; every row then goes on from these weights for the same number of epochs, on the
same clips in the same order, with its own branches. So the row of the original branch alone is a network trained as
long as one with spatial attention, and what stands between them is the attention.

The folder of a study::

    study.json        what was asked: data, recipe, options, views; going on must ask for the same
    answers.csv       one row a test video, row of the table, fold and seed: what each branch answered
    trainings.csv     one row a training: videos, steps, seconds, last training accuracy, betas, problems
    runs/             fold/seed/network[-branches]/: run folders; a finished one keeps its weights and evaluation
    table.md .csv, ablation.png or cost.png

A study may be made in pieces, one after the other or several at once: folds, seeds and networks that ``answers.csv``
holds are not trained again, those that are asked for later are added, and a table is over the folds and seeds that all
its rows have.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from peakzoom.data.entries import Entry, VideoSet, ordered
from peakzoom.data.runs import read_metrics
from peakzoom.data.splits import hold_out_groups
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_evaluation
from peakzoom.evaluation.stats import (
    accuracy,
    bootstrap_interval,
    compare,
    pool,
)
from peakzoom.inference.cost import Timing, multiply_adds, parameters, time_per_clip
from peakzoom.inference.recognizer import load
from peakzoom.model.config import BRANCHES, LETTERS
from peakzoom.studies.answers import (
    Answer,
    Key,
    _read,
    _write,
    complete,
    likelihoods,
    outcomes,
    read_answers,
    write_answers,
)
from peakzoom.studies.tables import Row
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import build
from peakzoom.training.train import train
from peakzoom.utils.durable import read_csv, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import hash_of
from peakzoom.video.sampling import Views

Say = Callable[[str], None]
ABLATION = (  # Table 4
    BRANCHES[:1],
    BRANCHES[:2],
    (BRANCHES[0], BRANCHES[2]),
    BRANCHES[1:],
    BRANCHES,
)


@dataclass(frozen=True)
class Fold:
    """One division into training and test videos."""

    name: str
    data: VideoSet


@dataclass(frozen=True)
class Arm:
    """One row of a table: a network and the branches that it is trained with in the second phase."""

    model: str
    branches: tuple[str, ...] = BRANCHES
    width: float = 1.0

    @property
    def letters(self) -> str:
        """Such as "O" or "ODC"."""
        return "".join(LETTERS[name] for name in self.branches)

    @property
    def folder(self) -> str:
        """Of its first phase, which the arms of one network share."""
        return self.model if self.width == 1 else f"{self.model}x{self.width:.4g}"

    @property
    def key(self) -> Key:
        """As in ``answers.csv``."""
        return self.model, self.width, self.letters


def group_folds(data: VideoSet, groups: Iterable[Sequence[str]]) -> list[Fold]:
    """One fold for each list of groups: they are its test videos, all others its training videos.

    Raises:
        UserError: a group is unknown, or stands in two folds, so that its videos would count twice.
    """
    folds: list[Fold] = []
    seen: set[str] = set()
    for names in groups:
        if twice := sorted(seen & set(names)):
            raise UserError(f"group {twice[0]!r} is in two folds; its videos would count twice")
        seen |= set(names)
        folds.append(Fold("+".join(names), replace(data, entries=hold_out_groups(data.entries, names))))
    return folds


def one_group_each(data: VideoSet) -> list[Fold]:
    """Leave one group out: as many folds as groups."""
    groups = ordered(entry.group for entry in data.entries if entry.group is not None)
    if len(groups) < 2 or any(entry.group is None for entry in data.entries):
        raise UserError(
            f"{data.name} has {len(groups)} groups and {sum(entry.group is None for entry in data.entries)} videos "
            "without one; leaving one group out needs two or more, and one for every video (a manifest can name it)"
        )
    return group_folds(data, [[group] for group in groups])


class Study:
    """A folder of trainings and what came out of them.

    Args:
        out: the folder; a new one, or one to go on with.
        data: all videos.
        recipe: of all arms; its model, width and branches are the arms'.
        options: of all trainings; ``seed``, ``steps``, ``init`` and ``weights`` are the study's.
        views: views of a test video.
        init: for each network the model to start its first phase from, where there is one.
    """

    def __init__(
        self,
        out: str | Path,
        data: VideoSet,
        recipe: Recipe,
        options: Options | None = None,
        views: Views | None = None,
        init: dict[str, str] | None = None,
    ) -> None:
        self.out, self.data, self.recipe = Path(out), data, recipe
        self.options, self.views = options or Options(val_fraction=0.0), views or Views()
        self.init = dict(init or {})
        self.root = Path(os.path.commonpath([str(entry.path.absolute().parent) for entry in data.entries]))
        plain = replace(recipe, model="", width=1.0, branches=())
        videos = sorted([self._name(entry), data.classes[entry.label]] for entry in data.entries)
        options_asked = {
            key: value
            for key, value in asdict(self.options).items()
            if key not in ("seed", "steps", "init", "weights", "workers", "progress", "cache")
        }
        self._open(
            {
                "videos": f"{len(videos)} videos, {hash_of(videos)}",
                "classes": data.classes,
                "recipe": asdict(plain),
                "options": options_asked,
                "views": asdict(self.views),
                "pre-trained": bool(self.init),
            }
        )
        self.answers = read_answers(self.out / "answers.csv")

    def _name(self, entry: Entry) -> str:
        return entry.path.absolute().relative_to(self.root).as_posix()

    def _open(self, asked: dict[str, object]) -> None:
        asked = json.loads(json.dumps(asked))
        file = self.out / "study.json"
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file: name a folder with --out")
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            if changed := sorted(
                key for key in before.keys() | asked.keys() if before.get(key) != asked.get(key)
            ):
                raise UserError(
                    f"{self.out} was begun with another {', '.join(changed)}: go on with the same, or use another --out"
                )
            return
        if self.out.exists() and any(self.out.iterdir()):
            raise UserError(f"{self.out} is not empty and holds no study: name another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asked, indent=2) + "\n")

    def notes(self, arms: Sequence[Arm]) -> list[str]:
        """How the table of these arms came about, one paragraph each."""
        kept = complete(self.answers, [arm.key for arm in arms])
        folds = list(dict.fromkeys(answer.fold for answer in kept))
        seeds = sorted({answer.seed for answer in kept})
        videos = len({answer.video for answer in kept})
        pre = self.recipe.preprocess
        lines = [
            f"{len(folds)} folds ({', '.join(folds)}), {videos} test videos, seeds {', '.join(map(str, seeds))}; "
            f"recipe {self.recipe.name}, {pre.frames} x {pre.size} x {pre.size}, {self.views.clips} x "
            f"{self.views.crops} views. Every row is trained in two phases of the same length; the first is shared.",
            "Accuracy: mean over seeds ± standard deviation over seeds; the interval is a 95% bootstrap over videos. "
            "p: two-sided paired sign-flip test over videos, against the row without attention.",
        ]
        shared = len({(answer.video, answer.fold) for answer in kept}) - videos
        if shared:
            lines.append(
                f"Folds share test videos: {shared} count more than once, and intervals are too narrow."
            )
        keys = {arm.key for arm in arms}
        made = {(*answer.arm, *answer.cell) for answer in self.answers if answer.arm in keys}
        left = len(made) - len({(*answer.arm, *answer.cell) for answer in kept})
        if left:
            lines.append(
                f"Left out, because not every row has their fold and seed: {left} of {len(made)} trainings."
            )
        return lines

    def run(self, arms: Sequence[Arm], folds: Sequence[Fold], seeds: Sequence[int], say: Say = print) -> None:
        """Train and test what ``answers.csv`` does not hold yet, one seed after the other.

        The same command may run several times at once, on several GPUs or machines with one file system: each takes
        what no other is at.
        """
        every = [(arm, fold, seed) for seed in seeds for fold in folds for arm in arms]
        done = self._done()
        wanted = [(arm, fold, seed) for arm, fold, seed in every if (*arm.key, fold.name, seed) not in done]
        if len(wanted) < len(every):
            say(f"{len(every) - len(wanted)} of {len(every)} trainings were done before")
        began, count = time.monotonic(), 0
        waiting = list(wanted)
        for blocking in (False, True):  # what another process is at comes last, and is mostly done by then
            tasks, waiting = waiting, []
            for arm, fold, seed in tasks:
                home = self.out / "runs" / fold.name / f"seed-{seed}"
                home.mkdir(parents=True, exist_ok=True)
                try:
                    with FileLock(home / f"{arm.folder}.lock", blocking=blocking):
                        if (*arm.key, fold.name, seed) in self._done():  # by another process
                            continue
                        self._one(arm, fold, seed, home, say)
                except Timeout:
                    waiting.append((arm, fold, seed))
                    continue
                count += 1
                left = (time.monotonic() - began) / count * (len(wanted) - count)
                right = [
                    each.fused == each.label
                    for each in self.answers
                    if (each.arm, each.cell) == (arm.key, (fold.name, seed))
                ]
                say(
                    f"{arm.model} {arm.letters}, fold {fold.name}, seed {seed}: {sum(right)} of {len(right)} right; "
                    f"{count} of {len(wanted)} trainings, about {left / 60:.0f} min left"
                )

    def _done(self) -> set[tuple[str, float, str, str, int]]:
        """Network, width, letters, fold and seed of every training that ``answers.csv`` holds by now."""
        self.answers = read_answers(self.out / "answers.csv")
        return {(*answer.arm, *answer.cell) for answer in self.answers}

    def _one(self, arm: Arm, fold: Fold, seed: int, home: Path, say: Say) -> None:
        recipe = replace(self.recipe, model=arm.model, width=arm.width, branches=arm.branches)
        first, second = home / arm.folder, home / f"{arm.folder}-{arm.letters}"
        quiet = _quietly(say)
        seconds = {}
        for run, steps, init in (
            (first, ("tcnn",), self.init.get(arm.model)),
            (second, ("joint",), str(first)),
        ):
            began = time.monotonic()
            options = replace(self.options, seed=seed, steps=steps, init=init, weights=None, progress=False)
            # What the first phase is made of does not depend on the branches of the second.
            asked = recipe if run == second else replace(recipe, branches=BRANCHES)
            train(fold.data, asked, run, options, resume=(run / "config.json").exists(), say=quiet)
            seconds[steps[0]] = time.monotonic() - began
            shutil.rmtree(run / steps[0] / "checkpoints", ignore_errors=True)  # only a resumed run reads them
        test = [entry for entry in fold.data.entries if entry.split == "test"]
        shutil.rmtree(second / "evaluation", ignore_errors=True)  # of a killed run
        result = evaluate(
            load(second), fold.data, test, second / "evaluation", self.views, progress=False, resume=True
        )
        self._note(arm, fold, seed, second / "evaluation", first, second, seconds, len(result.problems))

    def _note(
        self,
        arm: Arm,
        fold: Fold,
        seed: int,
        evaluation: Path,
        first: Path,
        second: Path,
        seconds: dict[str, float],
        problems: int,
    ) -> None:
        by_path = {str(entry.path): entry for entry in fold.data.entries}
        found = read_evaluation(evaluation)
        answered = {name: scores.argmax(1) for name, scores in found.means.items()}
        new = []
        for row, (path, label) in enumerate(zip(found.paths, found.labels.tolist(), strict=True)):
            said = {name: found.classes[classes[row]] for name, classes in answered.items()}
            new.append(
                Answer(
                    *arm.key,
                    fold=fold.name,
                    seed=seed,
                    video=self._name(by_path[path]),
                    group=by_path[path].group or "",
                    label=found.classes[label],
                    **{name: said.get(name, "") for name in (*BRANCHES, "fused")},
                    score=float(found.means["fused"][row, label]),
                )
            )
        metrics = read_metrics(second / "joint" / "metrics.csv")
        trained = sum(row["split"] == "train" for row in read_csv(second / "videos.csv"))
        training = {
            "model": arm.model,
            "width": arm.width,
            "branches": arm.letters,
            "fold": fold.name,
            "seed": seed,
            "training videos": trained,
            "test videos": len(new),
            "problems": problems,
            "first epochs": len(read_metrics(first / "tcnn" / "metrics.csv")),
            "first seconds": round(seconds["tcnn"]),
            "second epochs": len(metrics),
            "second seconds": round(seconds["joint"]),
            "training accuracy": metrics[-1].get("train_accuracy", ""),
            "training loss": metrics[-1].get("train_loss", ""),
            "beta_dis": metrics[-1]["beta_dis"],
            "beta_com": metrics[-1]["beta_com"],
        }
        with FileLock(self.out / "study.lock"):
            before = _read(self.out / "trainings.csv")
            now = {key: str(value) for key, value in training.items()}
            _write(self.out / "trainings.csv", list(training), [*before, now])
            self.answers = read_answers(self.out / "answers.csv") + new
            write_answers(self.out / "answers.csv", self.answers)  # last: what stands there is done


def _quietly(say: Say) -> Say:
    """Of a training, the notes; not a line for every epoch."""

    def note(line: str) -> None:
        if " epoch " not in line:
            say(f"  {line}")

    return note


@dataclass(frozen=True)
class Cost:
    """What one arm's network costs for one clip."""

    macs: float  # G multiply-adds
    parameters: int
    timing: Timing


def costs(arms: Sequence[Arm], recipe: Recipe, classes: Sequence[str], rounds: int = 7) -> dict[Key, Cost]:
    """Multiply-adds, parameters and measured time of each arm, untrained, on this machine."""
    frames, size = recipe.preprocess.frames, recipe.preprocess.size
    networks = {
        arm.key: build(
            replace(recipe, model=arm.model, width=arm.width, branches=arm.branches), classes, joint=True
        )
        for arm in arms
    }
    by_name = {repr(key): network for key, network in networks.items()}
    timings = time_per_clip(by_name, frames, size, rounds)
    return {
        key: Cost(multiply_adds(network, frames, size), parameters(network), timings[repr(key)])
        for key, network in networks.items()
    }


def table(
    answers: Sequence[Answer],
    arms: Sequence[Arm],
    names: Mapping[Key, str],
    baselines: Mapping[Key, Key],
    found: Mapping[Key, Cost] | None = None,
) -> list[Row]:
    """One row an arm, over the folds and seeds that all of them have.

    Args:
        answers: of the study.
        arms: the rows, in this order.
        names: what to call them.
        baselines: for an arm, the one that it is compared with, clip by clip.
        found: what they cost, where that was measured.

    Raises:
        UserError: no fold and seed has every row yet.
    """
    kept = complete(answers, [arm.key for arm in arms])
    if not kept:
        raise UserError("no fold has every row of the table yet: go on with the same command")
    rows = []
    for arm in arms:
        mine = outcomes(kept, arm.key)
        reached = accuracy(mine)
        right = pool(mine).right
        cost = (found or {}).get(arm.key)
        versus = baselines.get(arm.key)
        test = compare(mine, outcomes(kept, versus)) if versus else None
        rows.append(
            Row(
                label=names[arm.key],
                model=arm.model,
                branches=arm.branches,
                runs=len(mine),
                accuracy=reached.mean,
                spread=reached.spread,
                interval=bootstrap_interval(right),
                branch_accuracies={
                    name: accuracy(outcomes(kept, arm.key, name)).mean for name in (*arm.branches, "fused")
                },
                nll=-float(np.mean(list(likelihoods(kept, arm.key).values()))),
                macs=cost.macs if cost else None,
                parameters=cost.parameters if cost else None,
                ms=cost.timing.range if cost else None,
                difference=test.difference if test else None,
                difference_interval=test.interval if test else None,
                p=test.p if test else None,
                baseline=names[versus] if versus else None,
            )
        )
    return rows
