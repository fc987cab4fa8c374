"""Answers for a fraction of the work: look closer only where it is needed, and stop when an answer is settled.

The paper's answer to a video is the mean over 30 views, each looked at three times. A cascade looks at one view after
the other, the middle crops of clips spread over the video first (:func:`view_order`):

- **Closer.** The original branch alone scores a view. Only where its best class has less than ``sure`` are the two
  zoomed videos made and passed through the network; then the fused scores stand in its place.
- **Further.** Scores add up over the views. Once the best class leads the second by ``settled`` or more, the other
  views are not looked at. A view adds 1 in all, so 1.5 asks for two views at least.

Thresholds come from :func:`calibrate`, which replays cascades on the scores of a full test (:func:`replay`); what is
replayed there is what :func:`answer` then does. (No paper; early exits and adaptive numbers of clips are old ideas.)
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from peakzoom.durable import write_text
from peakzoom.engines.base import FULL
from peakzoom.errors import UserError
from peakzoom.extras import needed_for
from peakzoom.progress import Told, progress_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from peakzoom import predict

FILE = "cascade.json"
SURE = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, math.inf)
SETTLED = (0.0, 0.5, 0.9, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, math.inf)
REPLAYS = 2000  # of a calibration, videos times orders of their views, where there are fewer videos
CHUNK = 64  # videos replayed at once


@dataclass(frozen=True)
class Cascade:
    """When to look closer and when to stop.

    Attributes:
        sure: a score of the original branch, in [0, 1], from which on nothing is looked at closer; 0 never looks
            closer, infinity always does.
        settled: how far the best class must lead, in views; 0 stops after the first, infinity looks at all.
    """

    sure: float = math.inf
    settled: float = math.inf

    def __post_init__(self) -> None:
        if not (self.sure >= 0 and self.settled >= 0):
            raise UserError(f"thresholds are {self.sure:g} and {self.settled:g}, expected 0 or more")


class Effort(NamedTuple):
    """What an answer took."""

    views: int  # looked at
    closer: int  # of these, looked at closer, by two further passes through the network

    @property
    def passes(self) -> int:
        """Passes through the network."""
        return self.views + 2 * self.closer


class Stepwise(Protocol):
    """An engine that can stop after the first pass."""

    def first(self, views: Tensor) -> tuple[Tensor, Any]:
        """Logits (B, S) of the original branch, and what :meth:`closer` needs."""
        ...

    def closer(self, seen: Any) -> Tensor:
        """Fused logits (B, S) of the same views."""
        ...


def view_order(clips: int, crops: int) -> list[int]:
    """In which order views are looked at, as indices of the views clip by clip.

    Middle crops first, then those beside them; of each crop the clips in the order of van der Corput's sequence, so
    that however few are looked at they are spread over the video.
    """

    def mirrored(index: int) -> float:
        """The binary digits of index behind the point: 1/2, 1/4, 3/4, 1/8 ..."""
        value, digit = 0.0, 0.5
        while index:
            value, index, digit = value + digit * (index & 1), index >> 1, digit / 2
        return value

    spread = sorted(range(clips), key=mirrored)
    middle = (crops - 1) / 2
    return [
        clip * crops + crop
        for crop in sorted(range(crops), key=lambda at: abs(at - middle))
        for clip in spread
    ]


def _lead(total: np.ndarray) -> np.ndarray:
    """How far the best class leads: (..., S) -> (...); infinity where there is but one class."""
    if total.shape[-1] == 1:
        return np.full(total.shape[:-1], math.inf)
    best = np.partition(total, -2, axis=-1)
    return best[..., -1] - best[..., -2]


def answer(
    engine: Stepwise, views: predict.DecodedViews, cascade: Cascade, order: Sequence[int]
) -> tuple[np.ndarray, Effort]:
    """Scores of a decoded video, float64 (S,) with sum 1, and what they took.

    Args:
        engine: of a model with an original and other branches.
        views: of the video.
        cascade: when to look closer and when to stop.
        order: of the views.
    """
    total: np.ndarray | float = 0.0
    count = closer = 0
    for index in order:
        logits, seen = engine.first(views.view(index))
        scores = logits.softmax(1)
        if scores.max().item() < cascade.sure:
            closer += 1
            scores = engine.closer(seen).softmax(1)
        total = total + scores[0].numpy().astype(np.float64)
        count += 1
        if _lead(np.asarray(total)) >= cascade.settled:
            break
    total = np.asarray(total)
    return total / total.sum(), Effort(count, closer)


@dataclass(frozen=True)
class Replay:
    """What a cascade would have answered to V videos."""

    scores: np.ndarray  # float64 (V, S), sums of the views looked at
    views: np.ndarray  # int (V,), views looked at
    closer: np.ndarray  # int (V,), of these, looked at closer

    @property
    def answers(self) -> np.ndarray:
        """Class indices (V,)."""
        return self.scores.argmax(1)


def replay(original: np.ndarray, fused: np.ndarray, order: Sequence[int], cascade: Cascade) -> Replay:
    """Run a cascade on scores of views that are already there.

    Args:
        original: softmax scores of the original branch, (V, views, S).
        fused: of the fused answer, likewise.
        order: of the views.
        cascade: when to look closer and when to stop.
    """
    parts = []
    for start in range(0, len(original), CHUNK):
        first, second = (each[start : start + CHUNK, order].astype(np.float64) for each in (original, fused))
        look = first.max(-1) < cascade.sure
        total = np.where(look[..., None], second, first).cumsum(1)
        stop = _lead(total) >= cascade.settled
        views = np.where(stop.any(1), stop.argmax(1) + 1, len(order))
        rows = np.arange(len(views))
        closer = look.cumsum(1)[rows, views - 1]
        parts.append((total[rows, views - 1], views, closer))
    scores, views, closer = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Replay(scores, views, closer)


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one view, in G."""

    first: float
    closer: float  # of the two zoomed videos, beside the first

    def of(self, views: np.ndarray | float, closer: np.ndarray | float) -> np.ndarray | float:
        """Of a video."""
        return self.first * views + self.closer * closer


@dataclass(frozen=True)
class Point:
    """One cascade on the calibration videos; counts are videos, the rest is per video."""

    sure: float
    settled: float
    accuracy: float
    changed: int  # another answer than the full test's
    lost: int  # right in the full test and wrong here
    risk: float  # share of changed answers over many orders of the views, in [0, 1]
    views: float
    closer: float
    passes_per_view: float
    multiply_adds: float  # G

    @property
    def cascade(self) -> Cascade:
        """Its thresholds."""
        return Cascade(self.sure, self.settled)


@dataclass(frozen=True)
class Calibration:
    """What was tried and what was chosen."""

    chosen: Point
    full: Point  # every view, looked at closer
    points: list[Point]
    videos: int
    loss: float  # allowed, in points of accuracy
    work: Work

    @property
    def bound(self) -> float:
        """Upper 95% bound (Clopper and Pearson, 1934) of the share of answers that the cascade changes, in points."""
        return 100 * upper_bound(self.chosen.changed, self.videos)

    def plot(self) -> Figure:
        """Accuracy against multiply-adds of every cascade that was tried, for a notebook."""
        with needed_for("Calibration.plot()"):
            from peakzoom.plots import cascade_figure
        return cascade_figure(self)


def calibrate(
    original: np.ndarray,
    fused: np.ndarray,
    labels: np.ndarray,
    order: Sequence[int],
    work: Work,
    loss: float = 0.2,
    *,
    branches: bool = True,
    seed: int = 0,
    progress: bool | Told = True,
) -> Calibration:
    """The cheapest cascade that changes no more answers than the allowed loss.

    An accuracy can fall by no more than the share of answers that change, so this bound is kept whatever the labels.
    On few videos a cascade may get by in one order of the views by luck, so answers are counted over other orders too,
    drawn anew for each video: ``REPLAYS`` replays in all. The chosen one keeps the bound in its own order and over all.

    Args:
        original: softmax scores of the original branch, (V, views, S).
        fused: of the fused answer, likewise.
        labels: int (V,).
        order: of the views.
        work: multiply-adds of a view.
        loss: allowed, in points of accuracy: 0.2 lets 2 answers in 1,000 change.
        branches: there is something to look closer at; False for a network alone.
        seed: of the other orders.
        progress: show a bar; a function is called with (done, all) instead.
    """
    count, views = original.shape[:2]
    random = np.random.default_rng(seed)
    shuffled = []  # the same scores, every video's views in an order of its own
    for _ in range(max(0, REPLAYS // count - 1)):
        places = random.permuted(np.tile(np.arange(views), (count, 1)), axis=1)[..., None]
        shuffled.append(
            (np.take_along_axis(original, places, axis=1), np.take_along_axis(fused, places, axis=1))
        )
    answers = fused[:, list(order)].astype(np.float64).sum(1).argmax(1)
    right = answers == labels

    def point(sure: float, settled: float) -> Point:
        cascade = Cascade(sure, settled)
        found = replay(original, fused, order, cascade)
        correct = found.answers == labels
        changed = [int((found.answers != answers).sum())]
        for first, second in shuffled:
            changed.append(int((replay(first, second, range(views), cascade).answers != answers).sum()))
        return Point(
            sure,
            settled,
            float(correct.mean()),
            changed[0],
            int((right & ~correct).sum()),
            float(np.mean(changed) / count),
            float(found.views.mean()),
            float(found.closer.mean()),
            float((found.views + 2 * found.closer).sum() / found.views.sum()),
            float(np.mean(work.of(found.views, found.closer))),
        )

    pairs = [(sure, settled) for sure in (SURE if branches else SURE[:1]) for settled in SETTLED]
    points = []
    with progress_bar(f"trying {len(pairs)} cascades", progress) as told:
        for pair in pairs:
            points.append(point(*pair))
            told(len(points), len(pairs))
    full = points[-1]  # the strictest thresholds: nothing changes
    allowed = loss / 100 + 1e-9
    fitting = [each for each in points if max(each.changed / count, each.risk) <= allowed]
    chosen = min(fitting, key=lambda each: (each.multiply_adds, each.risk))
    return Calibration(chosen, full, points, count, loss, work)


def upper_bound(count: int, of: int, confidence: float = 0.95) -> float:
    """One-sided exact bound of a share from ``count`` of ``of``: where so few have probability 1 - confidence."""
    if count >= of:
        return 1.0

    def below(share: float) -> float:
        """Probability of ``count`` or fewer."""
        return sum(
            math.exp(
                math.lgamma(of + 1)
                - math.lgamma(k + 1)
                - math.lgamma(of - k + 1)
                + k * math.log(share)
                + (of - k) * math.log1p(-share)
            )
            for k in range(count + 1)
        )

    low, high = count / of, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) > 1 - confidence else (low, middle)
    return high


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those than which none is both cheaper and better, cheapest first."""
    kept: list[Point] = []
    for each in sorted(points, key=lambda at: (at.multiply_adds, -at.accuracy)):
        if not kept or each.accuracy > kept[-1].accuracy:
            kept.append(each)
    return kept


@dataclass(frozen=True)
class Stored:
    """A calibrated cascade as a file keeps it: for these weights and these views."""

    cascade: Cascade
    work: Work
    weights: str  # digest of the model's state
    rule: str
    clips: int
    crops: int
    precision: str = FULL

    @property
    def order(self) -> list[int]:
        """Of the views."""
        return view_order(self.clips, self.crops)

    def check(self, recognizer: predict.Recognizer, protocol: predict.Protocol, file: Path) -> None:
        """Refuse what it was not calibrated for.

        Raises:
            UserError: other weights, another precision or other views.
        """
        if self.weights != recognizer.weights:
            raise UserError(f"{file} was calibrated for other weights: run 'peakzoom calibrate' again")
        if self.precision != recognizer.precision:
            raise UserError(
                f"{file} was calibrated for precision {self.precision}, and {recognizer.precision} is asked for: ask "
                "for the same, or calibrate again"
            )
        asked, known = (protocol.rule, protocol.clips, protocol.crops), (self.rule, self.clips, self.crops)
        if asked != known:
            raise UserError(
                f"{file} was calibrated for {known[1]} x {known[2]} views of rule {known[0]}, and {asked[1]} x "
                f"{asked[2]} of rule {asked[0]} are asked for: ask for the same, or calibrate again"
            )


def digest(model: torch.nn.Module) -> str:
    """A short name of a model's weights."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def save(stored: Stored, calibration: Calibration, file: Path) -> None:
    """Write ``cascade.json``; infinity is null there."""
    values = {
        "cascade": {
            key: None if math.isinf(value) else value for key, value in asdict(stored.cascade).items()
        },
        "work": asdict(stored.work),
        "weights": stored.weights,
        "rule": stored.rule,
        "clips": stored.clips,
        "crops": stored.crops,
        "precision": stored.precision,
        "calibration": {
            "videos": calibration.videos,
            "allowed_loss": calibration.loss,
            "chosen": _plain(calibration.chosen),
            "full": _plain(calibration.full),
        },
    }
    write_text(file, json.dumps(values, indent=2) + "\n")


def read(file: Path) -> Stored:
    """Read what :func:`save` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist: 'peakzoom calibrate RUN' makes it")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        thresholds: Mapping[str, float | None] = values["cascade"]
        limits = {key: math.inf if value is None else float(value) for key, value in thresholds.items()}
        return Stored(
            Cascade(**limits),
            Work(**values["work"]),
            str(values["weights"]),
            str(values["rule"]),
            int(values["clips"]),
            int(values["crops"]),
            str(values.get("precision", FULL)),  # files of before there was a choice
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is damaged ({reason}): calibrate again") from error


def _plain(point: Point) -> dict[str, float | None]:
    return {
        key: None if isinstance(value, float) and math.isinf(value) else value
        for key, value in asdict(point).items()
    }


def write_curve(points: Sequence[Point], file: Path) -> None:
    """Every cascade that was tried, one row each, as CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in points)


def stored_for(
    recognizer: predict.Recognizer, protocol: predict.Protocol, calibration: Calibration
) -> Stored:
    """The chosen cascade, for these weights, in this precision, and these views."""
    return Stored(
        calibration.chosen.cascade,
        calibration.work,
        digest(recognizer.model),
        protocol.rule,
        protocol.clips,
        protocol.crops,
        recognizer.precision,
    )
