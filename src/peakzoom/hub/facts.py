"""What a run and its evaluations know of a model, gathered for the card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.runs import (
    ONE_PASS,
    STAGES,
    data_name,
    last_part,
    read_config,
    read_metrics,
    run_videos,
    shown_command,
)
from peakzoom.evaluation.files import UNREADABLE, evaluations_in, read_attention, read_outcomes, read_summary
from peakzoom.evaluation.stats import GROUPS, TOP, Share, bootstrap_interval, share_of
from peakzoom.model import PeakZoom
from peakzoom.model.load import digest, find_model
from peakzoom.model.precision import FULL
from peakzoom.model.public import PublicWeights, public_weights
from peakzoom.model.starts import start_of
from peakzoom.utils.durable import read_csv
from peakzoom.utils.errors import UserError, printable

# The end of a path to one of a run's models.
INSIDE = re.compile(rf"([\\/]({'|'.join(STAGES)}))?[\\/](best|last|{ONE_PASS})[\\/]*$")


@dataclass(frozen=True)
class Tested:
    """One evaluation of the model."""

    data: str
    splits: dict[str, int]  # videos of each split that were to be tested
    views: dict[str, Any]  # of a video: rule, clips, crops
    engine: str
    precision: str
    videos: int  # scored
    unscored: int
    top1: dict[str, Share]  # of each branch, "fused" last
    top5: dict[str, float]  # empty of so few classes that it says nothing
    mean_class: dict[str, float]
    groups: int | None  # None where not every video has one
    by_groups: tuple[float, float] | None  # 95% interval of the fused prediction
    early_exit: tuple[float, float] | None  # views of a video that stages 1 and 2 saw; None: both saw all
    faithful: Mapping[str, Any] | None  # what the evaluation wrote of it, where it was measured
    pointing: Mapping[str, Any] | None
    labels: Mapping[str, Mapping[str, Any]] | None = (
        None  # of several labels: figures of each branch, not the top-1
    )

    @property
    def head(self) -> list[str]:
        """Of :meth:`rows`."""
        if self.labels:
            return ["prediction", "mAP", "95% interval", "F1 (macro)"]
        return ["prediction", "top-1", "95% interval", *(["top-5"] if self.top5 else []), "mean class"]

    def rows(self) -> list[list[str]]:
        """Branch, top-1, its interval, top-5 where it says something, and mean class accuracy, as text."""
        if self.labels:
            return [
                [
                    name,
                    f"{each['map']:.1%}",
                    "{:.1%} to {:.1%}".format(*each["interval"]),
                    f"{each['f1']:.1%}",
                ]
                for name, each in self.labels.items()
            ]
        shown = [self.top5, self.mean_class] if self.top5 else [self.mean_class]
        return [
            [name, f"{top1.value or 0:.1%}", top1.interval, *(f"{values[name]:.1%}" for values in shown)]
            for name, top1 in self.top1.items()
        ]

    @property
    def results(self) -> dict[str, tuple[str, float]]:
        """The figures of the fused prediction by name, each with what the hub calls its kind."""
        if self.labels:
            fused = self.labels["fused"]
            return {"mAP": ("mean_average_precision", fused["map"]), "macro F1": ("f1", fused["f1"])}
        return {
            "top-1": ("accuracy", self.top1["fused"].value or 0.0),
            "mean class accuracy": ("accuracy", self.mean_class["fused"]),
        }


@dataclass(frozen=True)
class Facts:
    """What is known of a saved model beside the model itself; nothing of one that is in no run."""

    videos: VideoSet | None = None
    data: str | None = None
    problems: int = 0
    config: Mapping[str, Any] | None = None
    command: str | None = None
    stage: str | None = None
    epochs: int = 0
    epoch: int | None = None  # whose weights these are
    chosen: bool = False  # for its accuracy on validation videos
    validation: float | None = None  # that accuracy
    tested: tuple[Tested, ...] = ()
    unlisted: int = 0  # evaluations in the run that are not known to be of these weights

    def split(self, name: str) -> list[Entry]:
        """The videos of a split."""
        return [entry for entry in self.videos.entries if entry.split == name] if self.videos else []

    def groups(self, *splits: str) -> set[str | None]:
        """The groups of the videos of some splits, with None where a video has no group."""
        return {entry.group for name in splits for entry in self.split(name)}


def origin(options: Mapping[str, Any]) -> tuple[str | None, PublicWeights | None]:
    """What a training started from beside the package's own weights: another model, and the public weights before it.

    Args:
        options: of the run, as its ``config.json`` has them.

    Returns:
        The last part of the other model's name, None where it is none; the public weights, as far as the runs between
        are still where they were.
    """
    first, seen = None, set[str]()
    while (init := str(options.get("init") or "")) not in seen:
        if not init or start_of(init):
            break
        seen.add(init)
        first = first or last_part(INSIDE.sub("", init))
        options = {}
        with suppress(UserError, OSError):  # of a folder that is no more there, nothing is known
            place = find_model(init)
            homes = [home for home in (place, *place.parents[:2]) if (home / "config.json").exists()]
            configs = [read_config(home) for home in homes]
            options = next((each["options"] for each in configs if "options" in each), {})
    return first, public_weights().get(str(options.get("weights")))


def gather(model: PeakZoom, folder: Path, also: Sequence[Path] = ()) -> Facts:
    """Read what the run around a saved model says.

    Args:
        model: whose evaluations are wanted.
        folder: ``best`` or ``last`` of a stage; of any other folder only the evaluations inside are known.
        also: folders of evaluations that are elsewhere.
    """
    folder = folder.resolve()
    stage, home = folder.parent.name, folder.parent.parent
    known = folder.name in ("best", "last", ONE_PASS) and stage in STAGES and (home / "videos.csv").exists()
    tested, unlisted = _evaluations(home if known else folder, also, model)
    if not known:
        return Facts(tested=tested, unlisted=unlisted)
    rows = read_metrics(home / stage / "metrics.csv")
    row = _row_of(rows, folder.name != "last")
    return Facts(
        videos=run_videos(home),
        data=data_name(home),
        problems=len(read_csv(home / "problems.csv")),
        config=read_config(home) or None,
        command=shown_command(home),
        stage=stage,
        epochs=len(rows),
        epoch=int(row["epoch"]) if row else None,
        chosen=folder.name != "last" and _measure(row) is not None,
        validation=row.get(f"{_measure(row)}_original" if folder.name == ONE_PASS else f"{_measure(row)}"),
        tested=tested,
        unlisted=unlisted,
    )


def _row_of(rows: Sequence[dict[str, float]], best: bool) -> dict[str, float]:
    """The epoch that was saved: the first with the best score on validation videos, or the last; empty if unknown."""
    scored = [row for row in rows if _measure(row) and "val_score" in row]
    if best and scored:
        return max(scored, key=lambda row: row["val_score"])
    return rows[-1] if rows else {}


def _measure(row: Mapping[str, float]) -> str | None:
    """What an epoch was chosen by: accuracy, or the mAP of several labels; None where nothing was validated."""
    return next((name for name in ("val_accuracy", "val_map") if name in row), None)


def _evaluations(run: Path, also: Sequence[Path], model: PeakZoom) -> tuple[tuple[Tested, ...], int]:
    """The evaluations in a folder that were made with these weights, and how many others there are."""
    folders = sorted({folder.resolve() for folder in (*evaluations_in(run), *also)})
    tested, weights = [], digest(model)
    for folder in folders:
        with suppress(*UNREADABLE):  # counted with those that are not listed
            metrics = read_summary(folder)
            if metrics.get("weights") == weights:
                tested.append(_tested(folder, metrics, len(model.classes)))
    return tuple(tested), len(folders) - len(tested)


def _tested(folder: Path, metrics: Mapping[str, Any], classes: int) -> Tested:
    right, groups = read_outcomes(folder)
    several = bool(metrics.get("multi_label"))
    count = len(set(groups)) if all(groups) else None
    effort = metrics.get("cascade")
    faithful, pointing = read_attention(folder)
    return Tested(
        data=printable(last_part(str(metrics["data"]))),
        splits={str(name): int(number) for name, number in metrics["splits"].items()},
        views=dict(metrics["protocol"]),
        engine=str(metrics["engine"]),
        precision=metrics.get("precision", FULL),
        videos=int(metrics["videos"]),
        unscored=int(metrics["unscored"]),
        top1={} if several else {name: share_of(right[name]) for name in metrics["branches"]},
        top5={
            name: float(branch["top5"])
            for name, branch in metrics["branches"].items()
            if classes > TOP and not several  # older evaluations have it for fewer, too
        },
        mean_class={
            name: float(branch["mean_class_accuracy"])
            for name, branch in metrics["branches"].items()
            if not several
        },
        groups=count,
        by_groups=bootstrap_interval(right["fused"], groups=groups)
        if (count or 0) >= GROUPS and not several  # their intervals draw groups already
        else None,
        early_exit=(float(effort["views"]), float(effort["closer"])) if effort else None,
        faithful=faithful,
        pointing=pointing["parts"][-1] if pointing else None,
        labels=metrics["branches"] if several else None,
    )
