"""The files of an evaluation: written here, read here, and nowhere else.

What an evaluation leaves in its folder::

    scores.csv            one row per video and branch: label, prediction and every class score, in full precision;
                          every number below can be computed again from it
    views.npz             the softmax scores of each single view, float32 (videos, branches, views, S)
    metrics.json          top-1, mean class accuracy and, of more than five classes, top-5 of each branch, counts,
                          views; of which data and which weights
    per_class.csv         videos and accuracy of each class, for each branch
    confusion.csv .png    rows are true classes, columns the fused prediction
    problems.csv          videos without a score, and why
    faithfulness.csv .json  where it was asked for, see :mod:`peakzoom.evaluation.faithfulness`
    pointing.csv .json      the same, see :mod:`peakzoom.evaluation.pointing`
    rejection.csv .json     where predictions may be rejected, see :mod:`peakzoom.evaluation.rejection`

With the early exit there is the fused prediction alone, and in place of views.npz::

    effort.csv            views of each video, those of them in stage 2 ("closer"), and their multiply-adds
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peakzoom.inference.early_exit import EarlyExit
from peakzoom.inference.prediction import average, classes_of, score_columns
from peakzoom.model.config import BRANCHES
from peakzoom.utils.durable import DRAFT, read_csv, write_csv
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.missing import missing
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views

if TYPE_CHECKING:  # what only reads these files needs neither torchmetrics nor matplotlib
    from peakzoom.evaluation.faithfulness import Faithfulness
    from peakzoom.evaluation.pointing import Pointing
    from peakzoom.evaluation.rejection import RejectionScores
    from peakzoom.evaluation.results import Evaluation, Scored


SCORES = ("path", "label", "class", "group", "branch", "predicted")  # the first columns of scores.csv
CORNER = "true \\ predicted"  # the first one of confusion.csv

# Written ---------------------------------------------------------------------------------------------------------


def write_evaluation(
    out: Path,
    result: Evaluation,
    scored: Scored,
    about: Mapping[str, Any],
    early_exit: EarlyExit | None = None,
) -> None:
    """Write the files of an evaluation into a folder.

    Args:
        out: the folder.
        result: the accuracies.
        scored: the predictions that they are of.
        about: what was tested and how, for ``metrics.json``; its ``protocol`` are the views.
        early_exit: which the predictions were made with.
    """
    # Only here: model cards read these files without Matplotlib, which the extra train brings.
    from peakzoom.display.figures import confusion_figure

    branches, classes = list(result.branches), list(result.counts)
    _write_scores(out / "scores.csv", scored, branches, classes)
    if early_exit is None:
        _write_views(out / "views.npz", scored, branches)
    else:
        _write_efforts(out / "effort.csv", scored, early_exit)
    rows = (
        [name, videos, *(repr(result.branches[branch].per_class[name]) for branch in branches)]
        for name, videos in result.counts.items()
        if videos
    )
    write_csv(out / "per_class.csv", ["class", "videos", *branches], rows)
    counts = ([name, *row] for name, row in zip(classes, result.confusion.tolist(), strict=True))
    write_csv(out / "confusion.csv", [CORNER, *score_columns(classes, [CORNER])], counts)
    problems = ((each.path, each.reason) for each in result.problems)
    write_csv(out / "problems.csv", ["path", "reason"], problems)
    confusion_figure(result.confusion, classes).savefig(out / "confusion.png", dpi=110)
    summary: dict[str, Any] = {
        "videos": len(scored.predictions),
        "unscored": sum(not each.reason.startswith("scored, but") for each in result.problems),
        **about,
        "branches": {
            name: {
                "top1": each.top1,
                **({} if each.top5 is None else {"top5": each.top5}),
                "mean_class_accuracy": each.mean_class,
            }
            for name, each in result.branches.items()
        },
    }
    if result.effort is not None:
        summary["cascade"] = asdict(result.effort)
    write_json(out / "metrics.json", summary)
    if result.faithfulness is not None:
        write_faithfulness(out, result.faithfulness)
    if result.pointing is not None:
        write_pointing(out, result.pointing)
    if result.rejection is not None:
        write_rejection(out, result.rejection)


def _write_scores(file: Path, scored: Scored, branches: list[str], classes: list[str]) -> None:
    rows = (
        [
            each.path,
            entry.label,
            classes[entry.label],
            entry.group or "",
            name,
            classes[int(each.scores[name].argmax())],
            *map(repr, each.scores[name].tolist()),
        ]
        for each, entry in zip(scored.predictions, scored.entries, strict=True)
        for name in branches
    )
    write_score_rows(file, classes, rows)


def write_score_rows(file: Path, classes: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write ``scores.csv``: :data:`SCORES`, then the score of each class."""
    write_csv(file, [*SCORES, *score_columns(classes, SCORES)], rows)


def _write_views(file: Path, scored: Scored, branches: list[str]) -> None:
    np.savez(
        file,
        scores=np.stack([np.stack([each.views[name] for name in branches]) for each in scored.predictions]),
        branches=np.array(branches),
        labels=np.array([entry.label for entry in scored.entries]),
        paths=np.array([str(each.path) for each in scored.predictions]),
    )


def _write_efforts(file: Path, scored: Scored, early_exit: EarlyExit) -> None:
    rows = (
        [
            each.path,
            *each.effort,
            early_exit.work.passes(*each.effort),
            repr(early_exit.work.of(*each.effort)),
        ]
        for each in scored.predictions
        if each.effort
    )
    write_csv(file, ["path", "views", "closer", "passes", "g_multiply_adds"], rows)


def write_faithfulness(out: Path, found: Faithfulness) -> None:
    """Write ``faithfulness.csv``, a row a video, and ``faithfulness.json``, settings, class means and tests."""
    drops = [asdict(each) for each in found.drops]
    write_csv(out / "faithfulness.csv", list(drops[0]), (each.values() for each in drops))
    write_json(out / "faithfulness.json", found.summary())


def write_pointing(out: Path, found: Pointing) -> None:
    """Write ``pointing.csv``, a row a frame, and ``pointing.json``, means of parts and classes."""
    frames = [asdict(each) for each in found.frames]
    write_csv(out / "pointing.csv", list(frames[0]), (each.values() for each in frames))
    write_json(out / "pointing.json", found.summary())


def write_rejection(out: Path, found: RejectionScores) -> None:
    """Write ``rejection.csv``, a row a video, and ``rejection.json``, the figures."""
    videos = [asdict(each) for each in found.videos]
    write_csv(out / "rejection.csv", list(videos[0]), (each.values() for each in videos))
    write_json(out / "rejection.json", found.summary())


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Plain data, indented."""
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


# Read ------------------------------------------------------------------------------------------------------------


def read_summary(folder: Path) -> dict[str, Any]:
    """``metrics.json``.

    Raises:
        OSError, ValueError: it is missing or damaged.
    """
    summary: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return summary


def read_attention(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """``faithfulness.json`` and ``pointing.json``; None for what was not measured.

    Raises:
        OSError, ValueError: one is damaged.
    """
    files = (folder / "faithfulness.json", folder / "pointing.json")
    faithful, pointing = (json.loads(each.read_text("utf-8")) if each.exists() else None for each in files)
    return faithful, pointing


def read_outcomes(folder: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """From ``scores.csv``, whether each branch is right, bool (V,), and the groups of the videos, "" where unknown.

    Raises:
        OSError, ValueError, IndexError: it is missing or damaged.
    """
    right: dict[str, list[bool]] = {}
    groups = []
    for _, _, name, group, branch, predicted, *_ in _rows(folder / "scores.csv")[1:]:
        right.setdefault(branch, []).append(predicted == name)
        if branch == "fused":
            groups.append(group)
    return {branch: np.array(values) for branch, values in right.items()}, groups


def read_right(folder: Path) -> dict[Path, bool]:
    """Whether the fused prediction is right, of each video by its absolute path.

    Raises:
        UserError: ``scores.csv`` is missing or damaged.
    """
    with reading(folder / "scores.csv") as file:
        rows = [row[:6] for row in _rows(file)[1:]]
        return {
            Path(path).resolve(): predicted == name
            for path, _, name, _, branch, predicted in rows
            if branch == "fused"
        }


def read_score_rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """The class names of ``scores.csv``, and its rows as they are written."""
    head, *rows = _rows(file)
    return classes_of(head[len(SCORES) :], SCORES), rows


def is_multi_label(folder: Path) -> bool:
    """Whether an evaluation is of several labels a video; not where nothing can be read."""
    try:
        return read_summary(folder).get("multi_label") is True
    except UNREADABLE:
        return False


def _rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.reader(stream))


def read_scores(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Read ``scores.csv`` back: scores (V, S) of each branch, labels (V,), class names."""
    classes, rows = read_score_rows(file)
    branches = list(dict.fromkeys(row[4] for row in rows))
    scores = {
        name: np.array([row[len(SCORES) :] for row in rows if row[4] == name], dtype=np.float64)
        for name in branches
    }
    labels = np.array([int(row[1]) for row in rows if row[4] == branches[0]])
    return scores, labels, classes


# What the readers of CSV, JSON and NumPy's archives raise of a damaged file.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(csv.Error, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class Scores:
    """What an evaluation left."""

    folder: Path
    classes: list[str]  # S names
    paths: list[str]  # V files, as they were named
    labels: np.ndarray  # int64 (V,)
    branches: list[str]  # names, "fused" last
    means: dict[str, np.ndarray]  # for each branch, float64 (V, S): the scores that predict
    views: np.ndarray  # float32 (V, branches, views, S): softmax scores of each view, crops within a clip
    protocol: Views
    problems: list[
        tuple[str, str]
    ]  # path and reason of files without a score, or scored although something is wrong

    @property
    def parts(self) -> list[str]:
        """The branches without the fused prediction, in the order O, D, C."""
        return [name for name in BRANCHES if name in self.branches]

    def right(self, branch: str) -> np.ndarray:
        """Bool (V,): whether the branch's prediction is the label."""
        return np.asarray(self.means[branch].argmax(1) == self.labels)


def find_evaluation(run: str | Path) -> Path:
    """The evaluation folder: ``run`` itself, or the only one inside (a run folder, or one of its stages).

    Raises:
        UserError: there is none, or there are several.
    """
    folder = Path(run)
    if not folder.is_dir():
        expected = "a folder that 'peakzoom evaluate' has written, or its run"
        raise (
            UserError(f"{run} is a file: expected {expected}") if folder.exists() else missing(run, expected)
        )
    if any((folder / name).exists() for name in ("scores.csv", "views.npz")):
        return folder
    found = evaluations_in(folder)
    if not found:
        raise UserError(f"{run} holds no evaluation: run 'peakzoom evaluate {run}' first")
    if len(found) > 1:
        names = ", ".join(str(each) for each in found)
        raise UserError(f"{run} holds {counted(len(found), 'evaluation')}, name one of them: {names}")
    return found[0]


def evaluations_in(folder: Path) -> list[Path]:
    """All evaluations in a run folder or one of its stages, damaged ones too, but no stopped ones."""
    depths, names = ("*", "*/*", "*/*/*"), ("scores.csv", "metrics.json")
    files = [file for depth in depths for name in names for file in folder.glob(f"{depth}/{name}")]
    return sorted({file.parent for file in files if file.parent.parent.suffix != DRAFT})


def read_evaluation(folder: Path) -> Scores:
    """Read an evaluation folder and check that its files belong together.

    Raises:
        UserError: a file is missing or damaged, or two of them contradict one another.
    """
    with reading(folder / "scores.csv") as file:
        means, labels, classes = read_scores(file)
    with reading(folder / "views.npz") as file, np.load(file, allow_pickle=False) as arrays:
        views, branches = arrays["scores"], arrays["branches"].tolist()
        view_labels, paths = arrays["labels"], arrays["paths"].tolist()
    with reading(folder / "metrics.json"):
        metrics = read_summary(folder)
        protocol = Views(**metrics["protocol"])
        stated = {name: float(each["top1"]) for name, each in metrics["branches"].items()}
        videos = int(metrics["videos"])
    problems = [(row["path"], row["reason"]) for row in read_csv(folder / "problems.csv")]

    def expect(fits: bool, otherwise: str) -> None:
        if not fits:
            raise UserError(f"the files of {folder} do not belong together, {otherwise}: evaluate again")

    shape = (len(labels), len(branches), protocol.clips * protocol.crops, len(classes))
    expect(
        views.shape == shape and views.dtype.kind == "f",
        f"views.npz has {views.dtype} scores of shape {views.shape}, scores.csv and metrics.json make it {shape}",
    )
    expect(
        branches == list(means) and branches[-1:] == ["fused"] and set(branches) <= {*BRANCHES, "fused"},
        f"views.npz has the branches {', '.join(map(str, branches))}, scores.csv {', '.join(means)}",
    )
    whole = all(each.shape == (len(labels), len(classes)) for each in means.values())
    expect(whole and len(paths) == len(labels), "not every branch has a row for every video")
    expect(
        len(labels) > 0 and labels.min() >= 0 and labels.max() < len(classes),
        f"labels are not all among the {counted(len(classes), 'class')}, counted from 0",
    )
    same = np.array_equal(labels, view_labels)
    expect(same, "views.npz and scores.csv hold other labels or another order of videos")
    for place, name in enumerate(branches):
        close = np.allclose(average(views[:, place]), means[name], rtol=0, atol=1e-6)
        expect(close, f"the views of {name} in views.npz do not average to scores.csv")
    same = videos == len(labels) and list(stated) == branches
    expect(same, "metrics.json tells of other videos or branches than scores.csv")
    result = Scores(folder, classes, paths, labels, branches, means, views, protocol, problems)
    for name, value in stated.items():
        close = abs(value - result.right(name).mean()) <= 1e-6
        expect(close, f"metrics.json states another accuracy of {name} than scores.csv gives")
    return result


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """One sentence of a file that is missing or damaged."""
    if not file.is_file():
        raise UserError(
            f"{file.parent} has no {file.name}: name a whole folder that 'peakzoom evaluate' has written"
        )
    try:
        yield file
    except UNREADABLE as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): evaluate again") from error
