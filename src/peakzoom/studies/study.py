"""Tables of many trainings: every network, with every set of branches, on every fold, with every seed.

The paper's Table 4 (which branches) and Tables 2 and 3 (which networks) are both made so. In each fold and with each
seed a network is first trained alone (stage 1); every row then goes on from these weights with its own branches (stage
2), for as many passes through the network or for as many epochs. So the row of the original branch alone is a network
trained as long as one with spatial attention, and the difference between the two is the attention.

A study may be made in pieces, one after the other or several at once: folds, seeds and networks that ``answers.csv``
holds are not trained again, others may be added later, and a table is over the folds and seeds that all its rows have.
docs/studies.md says what is in its folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.runs import read_metrics
from peakzoom.evaluation.choose import choose_videos
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_evaluation
from peakzoom.hub.card import write_missing_cards
from peakzoom.inference.recognizer import load
from peakzoom.studies.arms import Arm, Fold, passes
from peakzoom.studies.predictions import FILE, ArmPrediction, read_predictions, write_predictions
from peakzoom.training.check import check_settings
from peakzoom.training.options import FROM_SCRATCH, Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import resolved
from peakzoom.training.train import train
from peakzoom.utils.durable import read_csv, write_csv, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import changed_settings, hash_of
from peakzoom.utils.plain import read_object
from peakzoom.utils.system import expect_place
from peakzoom.video.sampling import Views

# Options that may differ when going on.
FREE = ("seed", "steps", "init", "weights", "workers", "progress", "cache")
FROM_PACKAGE = "weights of peakzoom"
# By what study.json says of "pre-trained", how a study is gone on with that was begun so.
PRE_TRAINED: dict[bool | str, str] = {
    False: "--init none, from scratch as it was begun",
    True: "the --init NAME=RUN that it was begun with",
    FROM_PACKAGE: "networks that have weights in peakzoom, and without --init",
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One training of a study: of an arm on a fold with a seed."""

    arm: Arm
    fold: Fold
    seed: int

    @property
    def key(self) -> tuple[object, ...]:
        """As :attr:`~peakzoom.studies.predictions.ArmPrediction.training`."""
        return (*self.arm.key, self.fold.name, self.seed)

    def __str__(self) -> str:
        return f"{self.arm.model} {self.arm.letters}, fold {self.fold.name}, seed {self.seed}"


class Study:
    """A folder of trainings and their predictions.

    Args:
        out: the folder; a new one, or one to go on with.
        data: all videos.
        arms: the rows of its table.
        recipe: of all arms; its model, width and branches are the arms'.
        options: of all trainings; ``seed``, ``steps``, ``init`` and ``weights`` are the study's.
        views: views of a test video.
        init: for each network the trained model to start stage 1 from; none for any: all from scratch. None: all start
            from the weights that come with the package, if those fit every network, else all from scratch.

    Raises:
        UserError: a training would be refused, or the folder is no study, or one of other data, recipe, options or
            views.
    """

    def __init__(
        self,
        out: str | Path,
        data: VideoSet,
        arms: Sequence[Arm],
        recipe: Recipe,
        options: Options,
        views: Views,
        init: Mapping[str, str] | None = None,
    ) -> None:
        if data.multi_label:
            raise UserError("a study compares accuracies, of one label a video: leave --multi-label out")
        self.out, self.data, self.arms, self.recipe = Path(out), data, arms, recipe
        self.options, self.views = options, views
        recipes = {arm.folder: (arm.model, arm.recipe(recipe)) for arm in arms}
        missing = [each for _, each in recipes.values() if resolved(Options(), each).init == FROM_SCRATCH]
        self.from_package = init is None and not missing
        self.init = init or {}
        # Before the study has a folder: a mistake there would stay part of it.
        for model, each in recipes.values():
            start = resolved(replace(options, init=self._init(model)), each)
            check_settings(each, start, data.classes, validates=options.val_fraction != 0)
        self.root = Path(os.path.commonpath([str(entry.path.absolute().parent) for entry in data.entries]))
        videos = sorted([self._name(entry), data.classes[entry.label]] for entry in data.entries)
        equal = ", ".join(sorted({arm.equal for arm in arms}))
        settings = {
            "videos": f"{len(videos)} videos, {hash_of(videos)}",
            "classes": data.classes,
            "recipe": replace(recipe, model="", architecture="", width=1.0, branches=()).recorded(),
            "options": {key: value for key, value in asdict(self.options).items() if key not in FREE},
            "views": asdict(self.views),
            "pre-trained": FROM_PACKAGE if self.from_package else bool(self.init),
        }
        if equal != Arm.equal:  # older studies do not say it
            settings["--equal"] = f"{equal}, {passes(recipe.branches)} in an epoch of the recipe"
        _open(self.out, settings)
        if self.from_package:
            log.info(
                "all networks start from the weights that come with peakzoom, which were trained on generated clips "
                "only (--init none: from scratch)"
            )
        elif init is None:
            first = missing[0]
            log.info(
                f"all networks start from scratch: no weights that come with peakzoom fit {first.model} at width "
                f"{first.width:g}"
            )
        self.predictions = read_predictions(self.out / FILE)

    def _init(self, model: str) -> str | None:
        """What stage 1 of a network starts from, as in the options of a training."""
        return None if self.from_package else self.init.get(model, FROM_SCRATCH)

    def _name(self, entry: Entry) -> str:
        return entry.path.absolute().relative_to(self.root).as_posix()

    def run(self, folds: Sequence[Fold], seeds: Sequence[int]) -> None:
        """Train and test what ``answers.csv`` does not hold yet, one seed after the other.

        The same command may run several times at once, on several GPUs or machines with one file system: each takes
        tasks that no other is working on.
        """
        tasks = [Task(arm, fold, seed) for seed in seeds for fold in folds for arm in self.arms]
        done = self._done()
        wanted = [task for task in tasks if task.key not in done]
        if len(wanted) < len(tasks):
            log.info(f"{len(tasks) - len(wanted)} of {len(tasks)} trainings were done before")
        began, count, waiting = time.monotonic(), 0, wanted
        for blocking in (False, True):  # what another process works on comes last, and is mostly done by then
            todo, waiting = waiting, []
            for task in todo:
                home = self.out / "runs" / task.fold.name / f"seed-{task.seed}"
                home.mkdir(parents=True, exist_ok=True)
                try:
                    with FileLock(home / f"{task.arm.folder}.lock", blocking=blocking):
                        if task.key in self._done():  # by another process
                            continue
                        self._train_and_test(task, home)
                except Timeout:
                    waiting.append(task)
                    continue
                count += 1
                left = (time.monotonic() - began) / count * (len(wanted) - count)
                right = [each.fused == each.label for each in self.predictions if each.training == task.key]
                log.info(
                    f"{task}: {sum(right)} of {len(right)} right; {count} of {len(wanted)} trainings, about "
                    f"{left / 60:.0f} min left"
                )

    def _done(self) -> set[tuple[object, ...]]:
        """Keys of the tasks that ``answers.csv`` holds by now."""
        self.predictions = read_predictions(self.out / FILE)
        return {each.training for each in self.predictions}

    def _train_and_test(self, task: Task, home: Path) -> None:
        arm, data = task.arm, task.fold.data
        first, second = home / arm.folder, home / f"{arm.folder}-{arm.letters}"
        seconds = {}
        for run, step, init in ((first, "tcnn", self._init(arm.model)), (second, "joint", str(first))):
            began = time.monotonic()
            options = replace(
                self.options, seed=task.seed, steps=(step,), init=init, weights=None, progress=False
            )
            own = arm.recipe(self.recipe) if run == second else arm.stage_1(self.recipe)
            train(data, own, run, options, resume=(run / "config.json").exists())
            seconds[step] = time.monotonic() - began
            shutil.rmtree(run / step / "checkpoints", ignore_errors=True)  # only a resumed run reads them
        evaluation = second / "evaluation"
        shutil.rmtree(evaluation, ignore_errors=True)  # of a killed run
        test = choose_videos(data, second)
        result = evaluate(load(second), test, evaluation, self.views, progress=False, resume=True)
        for run in {first, second}:
            write_missing_cards(run)
        predictions = self._predictions(task, evaluation)
        training = {
            "model": arm.model,
            "width": arm.width,
            "branches": arm.letters,
            "fold": task.fold.name,
            "seed": task.seed,
            "training videos": sum(row["split"] == "train" for row in read_csv(second / "videos.csv")),
            "test videos": len(predictions),
            "problems": len(result.problems),
            **_course(first, second, seconds),
        }
        # The training's row comes first, for what stands in answers.csv is done.
        with FileLock(self.out / "study.lock"):
            rows = [*read_csv(self.out / "trainings.csv"), training]
            write_csv(self.out / "trainings.csv", list(training), (map(row.get, training) for row in rows))
            self.predictions = read_predictions(self.out / FILE) + predictions
            write_predictions(self.out / FILE, self.predictions)

    def _predictions(self, task: Task, evaluation: Path) -> list[ArmPrediction]:
        """Those of an evaluation's score file."""
        entries = {str(entry.path): entry for entry in task.fold.data.entries}
        scores = read_evaluation(evaluation)
        predicted = {
            name: [scores.classes[index] for index in means.argmax(1)] for name, means in scores.means.items()
        }
        none = [""] * len(scores.paths)
        return [
            ArmPrediction(
                *task.arm.key,
                fold=task.fold.name,
                seed=task.seed,
                video=self._name(entries[path]),
                group=entries[path].group or "",
                label=scores.classes[label],
                original=predicted.get("original", none)[row],
                discriminative=predicted.get("discriminative", none)[row],
                complementary=predicted.get("complementary", none)[row],
                fused=predicted["fused"][row],
                score=float(scores.means["fused"][row, label]),
            )
            for row, (path, label) in enumerate(zip(scores.paths, scores.labels.tolist(), strict=True))
        ]


def _course(first: Path, second: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """How the two stages of a training went, as columns of ``trainings.csv``."""
    metrics = read_metrics(second / "joint" / "metrics.csv")
    return {
        "first epochs": len(read_metrics(first / "tcnn" / "metrics.csv")),
        "first seconds": round(seconds["tcnn"]),
        "second epochs": len(metrics),
        "second seconds": round(seconds["joint"]),
        "training accuracy": metrics[-1].get("train_accuracy", ""),
        "training loss": metrics[-1].get("train_loss", ""),
        "beta_dis": metrics[-1]["beta_dis"],
        "beta_com": metrics[-1]["beta_com"],
    }


def _open(out: Path, settings: dict[str, Any]) -> None:
    """Begin a study in a folder, or check that the one there has the same settings."""
    file = out / "study.json"
    expect_place(out, utf8=True)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with --out")
    if file.exists():
        before = read_object(file)
        if changed := changed_settings(before, settings):
            was = before.get("pre-trained", False)
            way_out = "the same" if was == settings["pre-trained"] else PRE_TRAINED[was]
            raise UserError(
                f"{out} was begun with another {changed}: go on with {way_out}, or use another --out"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no study: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(settings, indent=2) + "\n")
