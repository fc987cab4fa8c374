"""The page of an evaluation of several labels a video: each branch, fewer views, each class and its threshold.

What it leaves is as of the other page (:mod:`peakzoom.evaluation.report`); ``labels.html.j2`` is its text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.evaluation.files import SCORES, read_score_rows, read_summary, reading
from peakzoom.evaluation.multi_label import mean_average_precision
from peakzoom.evaluation.multi_label_results import (
    LabelScores,
    MultiLabelBranch,
    label_scores,
    measure_labels,
)
from peakzoom.evaluation.report.about import read_about
from peakzoom.evaluation.report.numbers import choose_views
from peakzoom.evaluation.report.plots import plot_lines, plot_thresholds
from peakzoom.evaluation.report.templates import embedded, environment
from peakzoom.evaluation.report.thresholds import Curves, curves_of
from peakzoom.evaluation.stats import RESAMPLES, SEED, groups_for_interval
from peakzoom.inference.prediction import average
from peakzoom.utils.durable import check_new_folder, explain_full_disk, read_csv, whole_folder
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

MISSED = 20  # videos that are listed


@dataclass(frozen=True)
class LabelsViews:
    """mAP of every branch from some of the views: ``clips`` times ``crops``, both counted from 1."""

    clips: list[int]
    crops: list[int]
    precision: dict[str, float]


@dataclass(frozen=True)
class Miss:
    """A video whose labels and whose named classes differ: those that are missed, and those named beside them."""

    path: str
    missed: list[str]
    beside: list[str]


@dataclass(frozen=True)
class LabelsNumbers:
    """Everything on the page."""

    evaluation: str
    videos: int
    classes: int
    exact: int  # videos whose named classes are their labels
    labels_a_video: float
    branches: dict[str, MultiLabelBranch]
    per_class: list[LabelScores]
    protocol: Views
    groups: int  # that intervals draw whole; 0: videos
    problems: list[tuple[str, str]]
    views: list[LabelsViews]
    misses: list[Miss]  # most differences first
    thresholds: list[Curves]


def write_labels_report(folder: Path, target: Path, wanted: Sequence[str]) -> Path:
    """Write the page into a new or empty folder; returns the HTML file.

    Raises:
        UserError: the folder is in use, the evaluation cannot be read, or it has no class that is wanted.
    """
    check_new_folder(target)
    numbers, about = read_labels(folder, wanted), read_about(folder)
    with explain_full_disk(target, "write it again"), whole_folder(target) as draft:
        labels = [
            f"{len(each.clips) * len(each.crops)}\n{len(each.clips)} x {len(each.crops)}"
            for each in numbers.views
        ]
        series = {name: [each.precision[name] for each in numbers.views] for name in numbers.branches}
        plot_lines(labels, series, draft / "views.png", "views: clips x crops", "mAP")
        for place, curves in enumerate(numbers.thresholds):
            plot_thresholds(curves, draft / f"thresholds{place}.png")
        (draft / "numbers.json").write_text(
            json.dumps(asdict(numbers), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        page = (
            environment()
            .get_template("labels.html.j2")
            .render(
                numbers=numbers,
                about=about,
                title=Path(numbers.evaluation).resolve().name,
                parts=[name for name in numbers.branches if name != "fused"],
                per_class=sorted(numbers.per_class, key=lambda each: each.average_precision),
                pictures={file.name: embedded(file) for file in draft.glob("*.png")},
                bootstrap={"resamples": RESAMPLES, "seed": SEED},
            )
        )
        (draft / "report.html").write_text(page, encoding="utf-8")
    return target / "report.html"


def read_labels(folder: Path, wanted: Sequence[str] = ()) -> LabelsNumbers:
    """All numbers of the page, computed again from the score files.

    Raises:
        UserError: a file is missing or damaged, or two of them contradict one another.
    """
    with reading(folder / "metrics.json"):
        metrics = read_summary(folder)
        protocol, limits = Views(**metrics["protocol"]), [float(each) for each in metrics["thresholds"]]
    with reading(folder / "views.npz") as file, np.load(file, allow_pickle=False) as arrays:
        views, branches = arrays["scores"], arrays["branches"].tolist()
        targets, paths = arrays["targets"], arrays["paths"].tolist()
    with reading(folder / "scores.csv") as file:
        classes, means, owners = _read_scores(file)
    shape = (len(paths), len(branches), protocol.clips * protocol.crops, len(classes))
    fits = views.shape == shape and targets.shape == (shape[0], shape[3]) and len(limits) == shape[3]
    whole = all(each.shape == (shape[0], shape[3]) for each in means.values())
    same = fits and whole and list(means) == branches
    if not same or not all(
        np.allclose(average(views[:, place], multi_label=True), means[name], rtol=0, atol=1e-6)
        for place, name in enumerate(branches)
    ):
        raise UserError(f"the files of {folder} do not belong together: evaluate again")
    groups = groups_for_interval(owners)
    measured = {
        name: measure_labels(scores, targets, classes, limits, groups) for name, scores in means.items()
    }
    fused = means["fused"]
    misses = _misses(fused >= np.array(limits), targets, paths, classes)
    return LabelsNumbers(
        evaluation=str(folder),
        videos=len(paths),
        classes=len(classes),
        exact=len(paths) - len(misses),
        labels_a_video=float(targets.sum(1).mean()),
        branches=measured,
        per_class=label_scores(fused, targets, classes, limits),
        protocol=protocol,
        groups=len(set(groups or ())),
        problems=[(row["path"], row["reason"]) for row in read_csv(folder / "problems.csv")],
        views=_by_views(views, branches, targets, protocol),
        misses=misses[:MISSED],
        thresholds=curves_of(classes, fused, targets, wanted),
    )


def _read_scores(file: Path) -> tuple[list[str], dict[str, np.ndarray], list[str | None]]:
    """Class names, scores (V, S) of each branch, and the groups of the videos."""
    classes, rows = read_score_rows(file)
    means: dict[str, list[list[float]]] = {}
    for row in rows:
        means.setdefault(row[4], []).append([float(value) for value in row[len(SCORES) :]])
    owners = [row[3] or None for row in rows if row[4] == "fused"]
    return classes, {name: np.array(values) for name, values in means.items()}, owners


def _by_views(
    views: np.ndarray, branches: Sequence[str], targets: np.ndarray, protocol: Views
) -> list[LabelsViews]:
    rows = []
    for clips, crops in choose_views(protocol):
        places = [clip * protocol.crops + crop for clip in clips for crop in crops]
        found = {
            name: mean_average_precision(
                average(views[:, at].take(places, axis=1), multi_label=True), targets
            )
            for at, name in enumerate(branches)
        }
        rows.append(LabelsViews([clip + 1 for clip in clips], [crop + 1 for crop in crops], found))
    return rows


def _misses(on: np.ndarray, targets: np.ndarray, paths: Sequence[str], classes: Sequence[str]) -> list[Miss]:
    def names(row: Any) -> list[str]:
        return [classes[at] for at in np.flatnonzero(row).tolist()]

    found = [
        Miss(path, names(there & ~said), names(said & ~there))
        for path, said, there in zip(paths, on, targets, strict=True)
        if (said != there).any()
    ]
    return sorted(found, key=lambda each: -len(each.missed) - len(each.beside))
