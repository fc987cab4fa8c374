"""Choosing the thresholds of the early exit on validation videos (docs/cascade.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from peakzoom.display.figures import COLOURS, INK, Plot
from peakzoom.evaluation.stats import upper_bound
from peakzoom.inference.early_exit import FILE, EarlyExit, Thresholds, Work, lead_of
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.temperature import LEAST, tempered
from peakzoom.model.load import digest
from peakzoom.utils.durable import write_csv, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views

STAGE1_VIEWS = (0, 1, 2, 3, 5, 8, 12, 20)  # that are tried, and all views
# Leads that are tried, in views, and infinity.
LEADS = (0.0, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0)
REPLAYS = 2000  # of a calibration, videos times orders of their views, where there are fewer videos
CHUNK = 64  # videos whose scores are added up at once
FEWEST = 20  # videos: of fewer, even with no prediction changed more than 14% may change (95%)
SURE = 1.645  # standard errors that a mean is below with 95% probability
TEMPERATURES = np.geomspace(0.05, 5.0, 93)  # tried, of the full test's scores


class Course(NamedTuple):
    """How the scores of V videos add up over their n views, in order."""

    lead: np.ndarray  # float64 (V, n), how far the best class leads after so many views
    best: np.ndarray  # int (V, n), which it is


def course(scores: np.ndarray, order: Sequence[int] | np.ndarray, videos: np.ndarray | None = None) -> Course:
    """Add up the scores of views, (V, n, S), in one order; or in R orders, (R, n), of ``videos``, int (R,)."""
    videos = np.arange(len(scores)) if videos is None else videos
    orders = np.broadcast_to(np.asarray(order), (len(videos), scores.shape[1]))
    parts = []
    for start in range(0, len(videos), CHUNK):
        some = slice(start, start + CHUNK)
        total = scores[videos[some, None], orders[some]].astype(np.float64).cumsum(1)
        parts.append((lead_of(total), total.argmax(-1)))
    return Course(*(np.concatenate(each) for each in zip(*parts, strict=True)))


class Replay(NamedTuple):
    """What the early exit would have predicted for V videos."""

    predicted: np.ndarray  # int (V,), class indices
    views: np.ndarray  # int (V,)
    stage2_views: np.ndarray  # int (V,), of these, those in stage 2


def replay(original: Course, fused: Course, thresholds: Thresholds) -> Replay:
    """Do the early exit on scores of the original branch and of all branches, over the same views in the same order."""
    videos, views = original.lead.shape
    rows, most = np.arange(videos), min(thresholds.stage1_views, views)
    leads = original.lead[:, :most] >= thresholds.stage1_lead
    if most == views:
        leads[:, -1] = True
    early = leads.any(1)
    first = np.where(early, leads.argmax(1) + 1, most) if most else np.zeros(videos, int)
    leads = fused.lead >= thresholds.stage2_lead
    last = np.where(leads.any(1), leads.argmax(1) + 1, views)
    return Replay(
        np.where(early, original.best[rows, first - 1], fused.best[rows, last - 1]),
        np.where(early, first, np.maximum(first, last)),
        np.where(early, 0, last),
    )


@dataclass(frozen=True)
class Point:
    """Thresholds on the calibration videos; counts are videos, the rest is per video."""

    stage1_views: int
    stage1_lead: float
    stage2_lead: float
    accuracy: float
    changed: int  # another class than in the full test
    lost: int  # right in the full test and wrong here
    risk: float  # share of changed predictions over many orders of the views, in [0, 1]
    loss_bound: (
        float  # 95%, of the expected loss in points of accuracy, here or over many orders if that is more
    )
    views: float
    stage2_views: float
    passes_per_view: float
    multiply_adds: float  # G

    @property
    def thresholds(self) -> Thresholds:
        """When to stop."""
        return Thresholds(self.stage1_views, self.stage1_lead, self.stage2_lead)


@dataclass(frozen=True)
class Calibration:
    """What was tried and what was chosen."""

    chosen: Point
    full: Point  # every view, in stage 2
    points: list[Point]
    videos: int
    loss: float  # allowed, in points of accuracy
    work: Work

    @property
    def bound(self) -> float:
        """Upper 95% bound (Clopper and Pearson, 1934) of the share of predictions that change, in points."""
        return 100 * upper_bound(self.chosen.changed, self.videos)

    def plot(self) -> Figure:
        """Accuracy against multiply-adds of all thresholds that were tried, the chosen ones and the full test."""
        figure = Plot(figsize=(6.4, 4.0), layout="constrained")
        axis = figure.subplots()
        axis.scatter(*_costs(self.points), s=9, color="#cbd2d9", label="tried")
        axis.step(
            *_costs(frontier(self.points)),
            where="post",
            color=COLOURS["train"],
            linewidth=1.6,
            label="best for its cost, seen in hindsight",
        )
        style: dict[str, Any] = {"s": 44, "zorder": 3}
        axis.scatter(*_costs([self.chosen]), color=COLOURS["val"], marker="D", label="chosen", **style)
        axis.scatter(*_costs([self.full]), color=INK, marker="s", label="every view, in stage 2", **style)
        axis.set_xscale("log")
        axis.set_xlabel("G multiply-adds a video")
        axis.set_ylabel("accuracy")
        axis.yaxis.set_major_formatter("{x:.1%}")
        axis.set_title(f"Early exits on {self.videos} calibration videos", color=INK, fontsize=11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8.5, loc="lower right")
        return figure

    def save(self, recognizer: Recognizer, views: Views, folder: Path) -> None:
        """Write ``cascade.json`` for this model and these views, ``curve.csv`` and ``curve.png``."""
        weights = digest(recognizer.model)
        chosen = EarlyExit(self.chosen.thresholds, self.work, weights, views, recognizer.precision)
        calibration = {
            "videos": self.videos,
            "allowed_loss": self.loss,
            "chosen": _plain(self.chosen),
            "full": _plain(self.full),
        }
        values = {**chosen.to_dict(), "calibration": calibration}
        write_text(folder / FILE, json.dumps(values, indent=2) + "\n")
        rows = (asdict(each).values() for each in self.points)
        write_csv(folder / "curve.csv", [field.name for field in fields(Point)], rows)
        self.plot().savefig(folder / "curve.png", dpi=120)


def _costs(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [each.multiply_adds for each in points], [each.accuracy for each in points]


def _plain(point: Point) -> dict[str, float | None]:
    """As JSON, which has no infinity: it is null there."""
    return {key: None if math.isinf(value) else value for key, value in asdict(point).items()}


def best_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature (Guo et al., 2017) at which scores (V, S) predict the labels, int (V,), best."""
    return float(min(TEMPERATURES, key=lambda each: surprise(tempered(scores, each), labels)))


def fitted_temperature(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The :func:`best_temperature` where the videos can tell one, else None.

    Where all are right, the surer the better; where a mistake is as sure as the rest, the vaguer.
    """
    found = best_temperature(scores, labels)
    return (
        found if TEMPERATURES[0] < found < TEMPERATURES[-1] and (scores.argmax(1) != labels).any() else None
    )


def expect_enough(videos: int) -> None:
    """Refuse to choose on videos that are too few for it.

    Raises:
        UserError: so they are.
    """
    if videos < FEWEST:
        raise UserError(
            f"{counted(videos, 'video')} came, expected at least {FEWEST} to choose on, so nothing was changed: name "
            "further labelled videos as DATA, or train with a larger --val-fraction"
        )


def surprise(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -ln(score of the label)."""
    return float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], LEAST)).mean())


def probabilities(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The full test's scores as probabilities that can be counted with: (V, S) -> float64 (V, S).

    They are brought to their :func:`best_temperature`: the mean of softmax scores says rather who leads than how
    surely.
    """
    return tempered(scores, best_temperature(scores, labels))


def _bound(lost: np.ndarray) -> float:
    """One-sided 95% bound of the mean over videos."""
    return float(lost.mean() + SURE * lost.std() / math.sqrt(len(lost)))


def _candidates(views: int, branches: bool) -> list[Thresholds]:
    """Those that are tried, the full test last."""
    leads = [each for each in LEADS if each < views] + [math.inf]
    found = [Thresholds(views, lead) for lead in leads]  # stage 1 alone
    if not branches:
        return found
    for most in (each for each in STAGE1_VIEWS if each < views):
        # A lead of 0 would stop at the first view, as one of those with stage 1 alone does.
        firsts = [each for each in leads if 0 < each < most] if most else [math.inf]
        found += [Thresholds(most, first, second) for first in firsts for second in leads]
    return sorted(found, key=lambda each: each == Thresholds())


def _courses(original: np.ndarray, fused: np.ndarray, order: Sequence[int]) -> tuple[Course, Course]:
    """Both courses: V rows in the given order, then V rows for each draw of other orders, one a video."""
    count, views = original.shape[:2]
    random = np.random.default_rng(0)
    orders = [np.tile(order, (count, 1))] + [
        random.permuted(np.tile(np.arange(views), (count, 1)), axis=1)
        for _ in range(-(-REPLAYS // count) - 1)
    ]
    videos, places = np.tile(np.arange(count), len(orders)), np.concatenate(orders)
    return course(original, places, videos), course(fused, places, videos)


def _point(
    thresholds: Thresholds,
    courses: tuple[Course, Course],
    labels: np.ndarray,
    chances: np.ndarray,
    work: Work,
) -> Point:
    """Replay thresholds in all orders; ``chances`` are the :func:`probabilities` of the labels."""
    full = courses[1].best[: len(labels), -1]  # what the full test predicts
    found = replay(*courses, thresholds)
    predicted = found.predicted.reshape(-1, len(labels))  # a row an order, the given one first
    own = Replay(*(each[: len(labels)] for each in found))
    rows = np.arange(len(labels))
    lost = 100 * (chances[rows, full] - chances[rows, predicted])
    correct = own.predicted == labels
    return Point(
        **asdict(thresholds),
        accuracy=float(correct.mean()),
        changed=int((own.predicted != full).sum()),
        lost=int(((full == labels) & ~correct).sum()),
        risk=float((predicted != full).mean(1).mean()),
        loss_bound=max(_bound(lost[0]), _bound(lost.mean(0))),
        views=float(own.views.mean()),
        stage2_views=float(own.stage2_views.mean()),
        passes_per_view=float(np.sum(work.passes(own.views, own.stage2_views)) / own.views.sum()),
        multiply_adds=float(np.mean(work.of(own.views, own.stage2_views))),
    )


def calibrate(
    original: np.ndarray,
    fused: np.ndarray,
    labels: np.ndarray,
    order: Sequence[int],
    work: Work,
    loss: float = 0.2,
    progress: bool | Progress = True,
) -> Calibration:
    """The cheapest thresholds that are expected to lose no more accuracy than allowed.

    A prediction that changes costs the difference of two probabilities: that the full test's prediction is right, and
    that the early exit's is (:func:`probabilities`). Counting right predictions instead would choose, among a thousand
    candidates, the luckiest; against what luck is left, the 95% bound of the mean is compared, in the given order and
    over many. On these videos the chosen thresholds get no fewer right than allowed, too.

    Args:
        original: softmax scores of the original branch, (V, views, S).
        fused: fused scores, (V, views, S).
        labels: int (V,).
        order: of the views.
        work: multiply-adds of a view.
        loss: allowed, in points of accuracy.
        progress: show a bar; a function is called with (done, all) instead.
    """
    courses, chances = _courses(original, fused, order), probabilities(fused.mean(1), labels)
    # Where the original branch is the only one, its scores are the fused ones, and there is no stage 2.
    tried = _candidates(original.shape[1], branches=not np.array_equal(original, fused))
    points: list[Point] = []
    with progress_bar(f"trying {counted(len(tried), 'threshold')}", progress) as report:
        for thresholds in tried:
            points.append(_point(thresholds, courses, labels, chances, work))
            report(len(points), len(tried))
    full = points[-1]  # nothing changes
    least = full.accuracy - loss / 100 - 1e-9
    fitting = [each for each in points if each.loss_bound <= loss + 1e-9 and each.accuracy >= least]
    chosen = min(fitting, key=lambda each: (each.multiply_adds, each.loss_bound))
    return Calibration(chosen, full, points, len(labels), loss, work)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those than which none is both cheaper and better, cheapest first."""
    kept: list[Point] = []
    for each in sorted(points, key=lambda at: (at.multiply_adds, -at.accuracy)):
        if not kept or each.accuracy > kept[-1].accuracy:
            kept.append(each)
    return kept
