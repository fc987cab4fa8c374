"""How a page opens: which model was tested on which data, when, from which views, and the command that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from peakzoom.data.runs import last_part, run_folder, shown_command
from peakzoom.evaluation.files import read_outcomes, read_summary, reading
from peakzoom.evaluation.stats import accuracy_interval, groups_for_interval
from peakzoom.utils.plain import read_object
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views


@dataclass(frozen=True)
class About:
    """What is known of an evaluation beside its scores; None for what nobody noted."""

    model: str  # the run or the saved model, its network and its recipe
    weights: str | None  # their digest
    data: str | None
    splits: dict[str, int]  # how many videos of each were tested
    date: str  # of metrics.json, in UTC
    views: str
    engine: str | None
    command: str | None  # that trained the model

    @property
    def splits_text(self) -> str:
        """Such as "120 test videos"."""
        return ", ".join(f"{counted(count, f'{name} video')}" for name, count in self.splits.items())


def read_about(folder: Path, run: Path | None = None) -> About:
    """What an evaluation and the run around it say.

    Args:
        folder: the evaluation's.
        run: of the model, where the evaluation is not inside it.

    Raises:
        UserError: ``metrics.json`` is missing or damaged.
    """
    with reading(folder / "metrics.json") as file:
        metrics = read_summary(folder)
        views = Views(**metrics["protocol"])
        splits = {str(name): int(count) for name, count in metrics.get("splits", {}).items()}
        date = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    home = run_folder(run or folder)
    return About(
        model=_model(home) if home else "not known: the evaluation is in no run",
        weights=metrics.get("weights"),
        data=last_part(str(metrics["data"])) if "data" in metrics else None,
        splits=splits,
        date=f"{date:%Y-%m-%d %H:%M} UTC",
        views=f"{views.clips} x {views.crops} a video (clips by rule {views.rule} x crops)",
        engine=f"{metrics['engine']}, {metrics['precision']}" if "engine" in metrics else None,
        command=shown_command(home) if home else None,
    )


def _model(run: Path) -> str:
    file = run / "config.json"
    with reading(file):
        recipe = read_object(file)["recipe"] if file.exists() else None
    return f"{run.name}: {recipe['model']}, recipe {recipe['name']}" if recipe else run.name


def interval_of_top1(folder: Path) -> tuple[float, float, str]:
    """The 95% interval of the fused top-1, as ``peakzoom evaluate`` prints it, and what it takes as independent.

    Raises:
        UserError: ``scores.csv`` is missing or damaged.
    """
    with reading(folder / "scores.csv"):
        right, owners = read_outcomes(folder)
        groups = groups_for_interval(owners)
        low, high = accuracy_interval(right["fused"], groups)
    return low, high, f"{len(set(groups))} groups" if groups else "videos"
