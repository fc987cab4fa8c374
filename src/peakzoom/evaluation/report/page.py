"""The page: which numbers and pictures it shows; its words and tables are in ``report.html.j2``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from peakzoom.display.figures import confusion_figure, shortened
from peakzoom.evaluation.files import Scores, is_multi_label, read_evaluation
from peakzoom.evaluation.report.about import About, interval_of_top1, read_about
from peakzoom.evaluation.report.branches import (
    ENOUGH,
    LABEL_DOUBTFUL,
    SURE,
    UNSURE,
    WEAK,
    SceneryRow,
)
from peakzoom.evaluation.report.confused import (
    VIDEOS,
    Confused,
    draw_confused,
    find_recognizer,
    surest_mistakes,
)
from peakzoom.evaluation.report.labels import write_labels_report
from peakzoom.evaluation.report.numbers import BINS, Numbers, confusion_matrix, measure_all
from peakzoom.evaluation.report.plots import (
    plot_branches_by_class,
    plot_lines,
    plot_reliability,
    plot_shares,
    plot_thresholds,
)
from peakzoom.evaluation.report.templates import embedded, environment
from peakzoom.evaluation.stats import FEW, RESAMPLES, SEED
from peakzoom.inference.prediction import MEASURES
from peakzoom.utils.durable import check_new_folder, explain_full_disk, whole_folder
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

MOST_DRAWN = 120  # classes in the picture of the branches


@dataclass(frozen=True)
class Looked:
    """The confused videos that a page shows, or the reason why it shows none."""

    videos: list[Confused]
    reason: str = ""
    zoomed: tuple[str, ...] = ()  # branches whose view is shown


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    thresholds: Sequence[str] = (),
    model: str | Path | None = None,
    thumbnails: bool = True,
) -> Path:
    """Write the page of one evaluation.

    Args:
        folder: the evaluation's.
        out: new or empty folder; ``report`` in the evaluation's when not given.
        thresholds: classes whose precision, recall and false alarms are shown at each threshold; both of two where none
            is named.
        model: the run or saved model that was evaluated, which shows where it looked in the confused videos; that of
            the run around the evaluation when not given. Where there is none, the page says so.
        thumbnails: whether the page shows confused videos.

    Returns:
        The HTML file.

    Raises:
        UserError: ``out`` is in use, the evaluation cannot be read, it has no such class, or ``model`` is not the one
            that was evaluated.
    """
    folder = Path(folder)
    target = Path(out) if out is not None else folder / "report"
    if is_multi_label(folder):
        return write_labels_report(folder, target, thresholds)
    check_new_folder(target)
    scores = read_evaluation(folder)
    numbers = measure_all(scores, thresholds)
    about = read_about(folder, None if model is None else Path(model))
    with explain_full_disk(target, "write it again"), whole_folder(target) as draft:
        draw(numbers, confusion_matrix(scores), scores.classes, draft)
        looked = look(scores, draft, model) if thumbnails else Looked([], "--no-thumbnails was given")
        written = {**asdict(numbers), "about": asdict(about), "confused": list(map(asdict, looked.videos))}
        (draft / "numbers.json").write_text(
            json.dumps(written, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        (draft / "report.html").write_text(to_html(numbers, draft, about, looked), encoding="utf-8")
    return target / "report.html"


def look(scores: Scores, out: Path, model: str | Path | None) -> Looked:
    """Draw the confused videos into a folder; nothing, with the reason, where no model is named and none is found."""
    if not surest_mistakes(scores):
        return Looked([])
    try:
        recognizer = find_recognizer(scores.folder, None if model is None else Path(model))
    except UserError as error:
        if model is not None:
            raise
        log.warning(f"the report shows no confused videos: {error}")
        return Looked([], str(error))
    return Looked(draw_confused(scores, recognizer, out), zoomed=recognizer.model.zoomed)


def draw(numbers: Numbers, confusion: np.ndarray, classes: Sequence[str], out: Path) -> None:
    """The pictures of the page, as PNGs."""
    rows = [(each.name, each.top1) for each in numbers.subsets]
    plot_shares({"top-1 of every subset of the branches": rows}, out / "subsets.png")
    labels = [f"{each.views}\n{len(each.clips)} x {len(each.crops)}" for each in numbers.views]
    series = {name: [each.top1[name].value or 0.0 for each in numbers.views] for name in numbers.branches}
    plot_lines(labels, series, out / "views.png", "views: clips x crops")
    if numbers.disagreement is not None:
        levels = [
            (f"{each.answers} ({counted(each.top1.videos, 'video')})", each.top1)
            for each in numbers.disagreement.levels
            if each.top1.videos
        ]
        parts = [
            (f"{each.low:.3f} - {each.high:.3f} bits", each.top1) for each in numbers.disagreement.quantiles
        ]
        plot_shares(
            {"different predictions among the branches": levels, "divergence": parts},
            out / "disagreement.png",
            "accuracy of the fused prediction, 95% interval",
        )
    if numbers.scenery is not None:
        shown = by_lead(numbers.scenery)[:MOST_DRAWN]
        found = {name: [each.right[name] / each.videos for each in shown] for name in numbers.branches}
        names = [f"{shortened(each.name, 22)} ({each.videos})" for each in shown]
        plot_branches_by_class(names, found, out / "classes.png")
    plot_reliability(numbers.calibration[0].bins, out / "calibration.png")
    for place, curves in enumerate(numbers.thresholds):
        plot_thresholds(curves, out / f"thresholds{place}.png")
    figure = confusion_figure(confusion, classes)
    figure.savefig(out / "confusion.png", dpi=110)


def by_lead(rows: Sequence[SceneryRow]) -> list[SceneryRow]:
    """Classes that C recognises best, against the best other prediction, first."""

    def lead(row: SceneryRow) -> tuple[float, float]:
        best = max(count for name, count in row.right.items() if name != "complementary")
        return (best - row.right["complementary"]) / row.videos, -row.right["complementary"] / row.videos

    return sorted(rows, key=lead)


def to_html(numbers: Numbers, pictures: Path, about: About, looked: Looked) -> str:
    """The page as one file; ``pictures`` is the folder that :func:`draw` filled."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            numbers=numbers,
            about=about,
            interval=interval_of_top1(Path(numbers.evaluation)),
            looked={
                "reason": looked.reason,
                "zoomed": looked.zoomed,
                "each": VIDEOS,
                "classes": len({each.label for each in looked.videos}),
                "by_class": _by_class(looked.videos),
            },
            title=Path(numbers.evaluation).resolve().name,
            parts=[name for name in numbers.branches if name != "fused"],
            scenery=by_lead(numbers.scenery or []),
            per_class=sorted(
                numbers.per_class, key=lambda each: (each.found.value is None, each.found.value or 0.0)
            ),
            pictures={file.name: embedded(file) for file in pictures.glob("*.png")},
            measures=MEASURES,
            kinds={"label_doubtful": LABEL_DOUBTFUL, "unsure": UNSURE, "weak": WEAK},
            limits={"few": FEW, "sure": f"{SURE:.0%}", "enough": ENOUGH, "bins": BINS, "drawn": MOST_DRAWN},
            bootstrap={"resamples": RESAMPLES, "seed": SEED},
        )
    )


def _by_class(videos: Sequence[Confused]) -> dict[str, list[Confused]]:
    found: dict[str, list[Confused]] = {}
    for each in videos:
        found.setdefault(each.label, []).append(each)
    return found
