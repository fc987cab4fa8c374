"""The files of an evaluation: written here, read here, and nowhere else."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.data.entries import Entry
from peakzoom.display.figures import plot_confusion
from peakzoom.evaluation.results import Evaluation
from peakzoom.inference.early_exit import EarlyExit
from peakzoom.inference.prediction import Prediction, average
from peakzoom.model.config import BRANCHES
from peakzoom.utils.durable import DRAFT, write_csv
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views


def _write(
    out: Path,
    result: Evaluation,
    predictions: Sequence[Prediction],
    entries: Sequence[Entry],
    classes: Sequence[str],
    protocol: Views,
    early_exit: EarlyExit | None,
    of: dict[str, Any],
) -> None:
    branches = list(result.branches)
    write_csv(
        out / "scores.csv",
        ["path", "label", "class", "group", "branch", "predicted", *classes],
        (
            [
                each.path,
                entry.label,
                classes[entry.label],
                entry.group or "",
                name,
                classes[int(each.scores[name].argmax())],
                *map(repr, each.scores[name].tolist()),
            ]
            for each, entry in zip(predictions, entries, strict=True)
            for name in branches
        ),
    )
    if early_exit is None:
        np.savez(
            out / "views.npz",
            scores=np.stack([np.stack([each.views[name] for name in branches]) for each in predictions]),
            branches=np.array(branches),
            labels=np.array([entry.label for entry in entries]),
            paths=np.array([str(each.path) for each in predictions]),
        )
    else:
        efforts = [each.effort for each in predictions if each.effort]
        write_csv(
            out / "effort.csv",
            ["path", "views", "closer", "passes", "g_multiply_adds"],
            (
                [each.path, *effort, effort.passes, repr(early_exit.work.of(*effort))]
                for each, effort in zip(predictions, efforts, strict=True)
            ),
        )
    write_csv(
        out / "per_class.csv",
        ["class", "videos", *branches],
        (
            [
                name,
                result.counts[name],
                *(repr(result.branches[branch].per_class[name]) for branch in branches),
            ]
            for name in classes
            if result.counts[name]
        ),
    )
    write_csv(
        out / "confusion.csv",
        ["true \\ answer", *classes],
        ([name, *row] for name, row in zip(classes, result.confusion.tolist(), strict=True)),
    )
    write_csv(
        out / "problems.csv", ["path", "reason"], ((each.path, each.reason) for each in result.problems)
    )
    plot_confusion(result.confusion, classes, out / "confusion.png")
    summary: dict[str, Any] = {
        "videos": len(predictions),
        "unscored": sum(not each.reason.startswith("scored in part") for each in result.problems),
        "protocol": asdict(protocol),
        **of,
        "branches": {
            name: {"top1": each.top1, "top5": each.top5, "mean_class_accuracy": each.mean_class}
            for name, each in result.branches.items()
        },
    }
    if result.effort is not None:
        summary["cascade"] = asdict(result.effort)
    (out / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def read_scores(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Read ``scores.csv`` back: scores (V, S) of each branch, labels (V,), class names."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.reader(stream))
    classes = rows[0][6:]
    branches = list(dict.fromkeys(row[4] for row in rows[1:]))
    scores = {
        name: np.array([row[6:] for row in rows[1:] if row[4] == name], dtype=np.float64) for name in branches
    }
    labels = np.array([int(row[1]) for row in rows[1:] if row[4] == branches[0]])
    return scores, labels, classes


NEEDED = ("scores.csv", "views.npz", "metrics.json")


@dataclass(frozen=True)
class Scores:
    """What an evaluation left.

    Attributes:
        folder: where it lies.
        classes: S names.
        paths: V files, as they were named.
        labels: int64 (V,).
        branches: names, "fused" last.
        means: for each branch, float64 (V, S): the scores that answer.
        views: float32 (V, branches, views, S): softmax scores of each view, crops within a clip.
        protocol: of the views.
        problems: (path, reason) of files without a score, or scored in part.
    """

    folder: Path
    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    branches: list[str]
    means: dict[str, np.ndarray]
    views: np.ndarray
    protocol: Views
    problems: list[tuple[str, str]]

    @property
    def parts(self) -> list[str]:
        """The branches without the fused answer, in the order O, D, C."""
        return [name for name in BRANCHES if name in self.branches]

    def right(self, branch: str) -> np.ndarray:
        """Bool (V,): whether the branch's answer is the label."""
        return np.asarray(self.means[branch].argmax(1) == self.labels)


def find_evaluation(run: str | Path) -> Path:
    """The evaluation folder: ``run`` itself, or the only one inside (a run folder, or one of its phases).

    Raises:
        UserError: there is none, or there are several.
    """
    folder = Path(run)
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{run} {state}: expected a folder that 'peakzoom evaluate' has written, or its run")
    if any((folder / name).exists() for name in ("scores.csv", "views.npz")):
        return folder
    found = sorted(
        {
            file.parent
            for depth in ("*", "*/*", "*/*/*")
            for file in folder.glob(f"{depth}/scores.csv")
            if file.parent.parent.suffix != DRAFT  # of a stopped evaluation
        }
    )
    if not found:
        raise UserError(f"{run} holds no evaluation: run 'peakzoom evaluate {run}' first")
    if len(found) > 1:
        names = ", ".join(str(each) for each in found)
        raise UserError(f"{run} holds {len(found)} evaluations, name one of them: {names}")
    return found[0]


def read_evaluation(folder: Path) -> Scores:
    """Read an evaluation folder and check that its files belong together.

    Raises:
        UserError: a file is missing or damaged, or two of them contradict one another.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: name a whole folder that 'peakzoom evaluate' has written"
            )
    try:
        means, labels, classes = read_scores(folder / "scores.csv")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise _damaged(folder / "scores.csv", error) from error
    try:
        with np.load(folder / "views.npz", allow_pickle=False) as file:
            views, branches = file["scores"], file["branches"].tolist()
            view_labels, paths = file["labels"], file["paths"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(folder / "views.npz", error) from error
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        protocol = Views(**metrics["protocol"])
        stated = {name: float(each["top1"]) for name, each in metrics["branches"].items()}
        videos = int(metrics["videos"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / "metrics.json", error) from error
    shape = (len(labels), len(branches), protocol.clips * protocol.crops, len(classes))
    if views.shape != shape or views.dtype.kind != "f":
        raise _contradiction(
            folder,
            f"views.npz has {views.dtype} scores of shape {views.shape}, scores.csv and metrics.json make it {shape}",
        )
    if branches != list(means) or branches[-1:] != ["fused"] or set(branches) - {*BRANCHES, "fused"}:
        raise _contradiction(
            folder,
            f"views.npz has the answers {', '.join(map(str, branches))}, scores.csv {', '.join(means)}",
        )
    if any(each.shape != (len(labels), len(classes)) for each in means.values()) or len(paths) != len(labels):
        raise _contradiction(folder, "not every answer has a row for every video")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(classes):
        raise _contradiction(folder, f"labels are not all among the {len(classes)} classes, counted from 0")
    if not np.array_equal(labels, view_labels):
        raise _contradiction(folder, "views.npz and scores.csv hold other labels or another order of videos")
    for place, name in enumerate(branches):
        if not np.allclose(average(views[:, place]), means[name], rtol=0, atol=1e-6):
            raise _contradiction(folder, f"the views of {name} in views.npz do not average to scores.csv")
    result = Scores(folder, classes, paths, labels, branches, means, views, protocol, _read_problems(folder))
    if videos != len(labels) or list(stated) != branches:
        raise _contradiction(folder, "metrics.json tells of other videos or answers than scores.csv")
    for name, value in stated.items():
        if abs(value - result.right(name).mean()) > 1e-6:
            raise _contradiction(
                folder, f"metrics.json states another accuracy of {name} than scores.csv gives"
            )
    return result


def _read_problems(folder: Path) -> list[tuple[str, str]]:
    if not (folder / "problems.csv").exists():
        return []
    try:
        with (folder / "problems.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.reader(stream))[1:]
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(folder / "problems.csv", error) from error
    if any(len(row) != 2 for row in rows):
        raise _damaged(folder / "problems.csv", ValueError("expected rows of path and reason"))
    return [(row[0], row[1]) for row in rows]


def _damaged(file: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{file} is damaged ({reason}): evaluate again")


def _contradiction(folder: Path, what: str) -> UserError:
    return UserError(f"the files of {folder} do not belong together, {what}: evaluate again")
