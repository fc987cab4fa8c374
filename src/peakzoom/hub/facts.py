"""What a run and its evaluations know of a model, gathered for the card."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.data.entries import VideoSet
from peakzoom.data.runs import PHASES, data_name, read_metrics, run_videos
from peakzoom.display.markup import plain
from peakzoom.evaluation.stats import Share, bootstrap_interval, share_of
from peakzoom.model import PeakZoom
from peakzoom.model.load import digest
from peakzoom.model.precision import FULL
from peakzoom.utils.durable import DRAFT

GROUPS = 10  # at least, for an interval over whole groups: with fewer a bootstrap is much too narrow


SECRET = ("--test-groups", "--fold")  # options whose values are names of groups


@dataclass(frozen=True)
class Tested:
    """One evaluation of the model."""

    data: str
    splits: dict[str, int]  # videos that were asked for, of each split
    protocol: dict[str, Any]
    engine: str
    precision: str
    videos: int  # scored
    unscored: int
    top1: dict[str, Share]  # of each branch, "fused" last
    top5: dict[str, float]
    mean_class: dict[str, float]
    groups: int | None  # None where not every video has one
    by_groups: tuple[float, float] | None  # 95% interval of the fused answer
    cascade: dict[str, float] | None


@dataclass(frozen=True)
class Facts:
    """What is known of a saved model beside the model itself; nothing of one that lies in no run."""

    videos: VideoSet | None = None
    data: str | None = None
    problems: int = 0
    config: Mapping[str, Any] | None = None
    command: str | None = None
    phase: str | None = None
    epochs: int = 0
    epoch: int | None = None  # whose weights these are
    chosen: bool = False  # for its accuracy on validation videos
    validation: float | None = None  # that accuracy
    tested: tuple[Tested, ...] = ()
    unlisted: int = 0  # evaluations in the run that cannot be said to be of these weights

    @property
    def parts(self) -> dict[str, list[Any]]:
        """The videos of each split."""
        found: dict[str, list[Any]] = {}
        for entry in self.videos.entries if self.videos else ():
            found.setdefault(entry.split or "", []).append(entry)
        return found


def gather(model: PeakZoom, folder: Path | None, also: Sequence[Path] = ()) -> Facts:
    """What the run around a saved model says.

    Args:
        model: whose evaluations are wanted.
        folder: ``best`` or ``last`` of a phase; of any other only the evaluations inside are known.
        also: folders of evaluations that lie elsewhere.
    """
    if folder is None:
        return Facts()
    folder = folder.resolve()
    phase, home = folder.parent.name, folder.parent.parent
    known = folder.name in ("best", "last") and phase in PHASES and (home / "videos.csv").exists()
    tested, unlisted = _evaluations(home if known else folder, also, digest(model))
    if not known:
        return Facts(tested=tested, unlisted=unlisted)
    rows = read_metrics(home / phase / "metrics.csv")
    row = _row_of(rows, folder.name == "best")
    config = home / "config.json"
    return Facts(
        run_videos(home),
        data_name(home),
        _lines(home / "problems.csv"),
        json.loads(config.read_text(encoding="utf-8")) if config.exists() else None,
        _command(home / "command.txt"),
        phase,
        len(rows),
        int(row["epoch"]) if row else None,
        folder.name == "best" and row is not None and "val_accuracy" in row,
        row.get("val_accuracy") if row else None,
        tested,
        unlisted,
    )


def _row_of(rows: Sequence[dict[str, float]], best: bool) -> dict[str, float] | None:
    """The epoch that was saved: the first with the best score on validation videos, or the last."""
    scored = [row for row in rows if "val_accuracy" in row and "val_score" in row]
    if best and scored:
        return max(scored, key=lambda row: row["val_score"])
    return rows[-1] if rows else None


def _lines(file: Path) -> int:
    """Rows of a CSV file below its head."""
    if not file.exists():
        return 0
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return max(0, sum(1 for _ in csv.reader(stream)) - 1)


def _evaluations(run: Path, also: Sequence[Path], weights: str) -> tuple[tuple[Tested, ...], int]:
    """The evaluations in a folder that were made with these weights, and how many others there are."""
    files = [file for depth in ("*", "*/*", "*/*/*") for file in run.glob(f"{depth}/metrics.json")]
    files = [file for file in files if file.parent.parent.suffix != DRAFT]  # of a stopped evaluation
    folders = sorted({*(file.parent.resolve() for file in files), *(each.resolve() for each in also)})
    tested, others = [], 0
    for folder in folders:
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            if metrics.get("weights") == weights:
                tested.append(_tested(folder, metrics))
                continue
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            pass  # damaged: it is counted with those that are not listed
        others += 1
    return tuple(tested), others


def _tested(folder: Path, metrics: Mapping[str, Any]) -> Tested:
    right: dict[str, list[bool]] = {name: [] for name in metrics["branches"]}
    groups = []
    with (folder / "scores.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = csv.reader(stream)
        next(rows)
        for _, _, name, group, branch, answer, *_ in rows:
            right[branch].append(answer == name)
            if branch == "fused":
                groups.append(group)
    grouped = len(set(groups)) if all(groups) else None
    fused = np.array(right["fused"])
    return Tested(
        plain(_last(str(metrics["data"]))),
        {str(name): int(count) for name, count in metrics["splits"].items()},
        dict(metrics["protocol"]),
        str(metrics["engine"]),
        metrics.get("precision", FULL),
        int(metrics["videos"]),
        int(metrics["unscored"]),
        {name: share_of(np.array(each)) for name, each in right.items()},
        {name: float(each["top5"]) for name, each in metrics["branches"].items()},
        {name: float(each["mean_class_accuracy"]) for name, each in metrics["branches"].items()},
        grouped,
        bootstrap_interval(fused, groups=groups) if (grouped or 0) >= GROUPS else None,
        metrics.get("cascade"),
    )


def _command(file: Path) -> str | None:
    """The command that trained, without folders and without names of groups; None where it was no command."""
    if not file.exists():
        return None
    try:
        program, *words = shlex.split(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError:
        return None
    if _last(program).removesuffix(".exe") != "peakzoom":
        return None
    shown, before = ["peakzoom"], ""
    for word in words:
        option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if (option or before) in SECRET:
            value = "..." if sign or not option else value
        elif sign or not option:
            value = _last(value)
        shown.append(option + sign + value)
        before = word
    return shlex.join(shown)


def _last(path: str) -> str:
    """The last part of a path, of this system or another; of a user's home, none of it."""
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
    return "~" if name == Path.home().name and name != path else name
