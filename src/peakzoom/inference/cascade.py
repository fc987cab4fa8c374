"""Answers for a fraction of the work: look closer only at videos that need it, and stop when an answer is settled.

The paper's answer to a video is the mean over 30 views, each of which goes through the network three times. A cascade
looks at one view after the other, the middle crops of clips spread over the video first (:func:`view_order`), and
leaves out what would hardly change its mind:

- **Glances.** The original branch alone looks at the first ``glances`` views, one pass each. Their scores add up, and
  once the best class leads the second by ``clear``, it is the answer.
- **Closer.** Otherwise the same views are looked at closer, by the two zoomed videos of each, and further views after
  them. Now the fused scores add up, until the best class leads by ``settled``.

A view adds 1 to the scores in all, so a lead of 1.5 asks for two views at least. Thresholds come from
:func:`calibrate`, which replays cascades on the scores of a full test (:func:`replay`); what is replayed there is what
:func:`answer` then does. (No paper; early exits and adaptive numbers of clips are old ideas.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from peakzoom.inference.prediction import Effort
from peakzoom.model.precision import FULL
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.inference import recognizer as recognizer_module
    from peakzoom.video import sampling

FILE = "cascade.json"


@dataclass(frozen=True)
class Cascade:
    """When to look closer and when to stop.

    Attributes:
        glances: views that the original branch may answer from alone; 0 looks closer at once. As many as there are
            views: nothing is looked at closer.
        clear: how far its best class must lead then, in views; 0 answers from the first.
        settled: how far the best class of the fused scores must lead, likewise; infinity looks at all views.
    """

    glances: int = 0
    clear: float = math.inf
    settled: float = math.inf

    def __post_init__(self) -> None:
        if not (self.glances >= 0 and self.clear >= 0 and self.settled >= 0):
            raise UserError(
                f"glances and thresholds are {self.glances}, {self.clear:g} and {self.settled:g}, expected 0 or more"
            )


class Stepwise(Protocol):
    """An engine that can stop after the first pass."""

    classes: list[str]

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
    engine: Stepwise, views: sampling.DecodedViews, cascade: Cascade, order: Sequence[int]
) -> tuple[np.ndarray, Effort]:
    """Scores of a decoded video, float64 (S,) with sum 1, and what they took.

    Args:
        engine: of a model with an original and other branches.
        views: of the video.
        cascade: when to look closer and when to stop.
        order: of the views.
    """
    glances = min(cascade.glances, len(order))
    may_look_closer = glances < len(order)
    waiting: list[Any] = []  # views that were glanced at, where they may be looked at closer
    total = np.zeros(len(engine.classes))
    for count, index in enumerate(order[:glances], start=1):
        logits, seen = engine.first(views.view(index))
        total += _scores(logits)
        if _lead(total) >= cascade.clear or count == len(order):
            return total / total.sum(), Effort(count, 0)
        if may_look_closer:
            waiting.append(seen)
    waiting.reverse()
    total = np.zeros(len(engine.classes))
    closer = 0
    for index in order:
        seen = waiting.pop() if waiting else engine.first(views.view(index))[1]
        total += _scores(engine.closer(seen))
        closer += 1
        if _lead(total) >= cascade.settled:
            break
    return total / total.sum(), Effort(max(glances, closer), closer)


def _scores(logits: Tensor) -> np.ndarray:
    """Softmax of one view's logits (1, S) -> float64 (S,)."""
    return logits.softmax(1)[0].numpy().astype(np.float64)


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one view, in G."""

    first: float
    closer: float  # of the two zoomed videos, beside the first

    def of(self, views: np.ndarray | float, closer: np.ndarray | float) -> np.ndarray | float:
        """Of a video."""
        return self.first * views + self.closer * closer


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

    def check(self, recognizer: recognizer_module.Recognizer, views: sampling.Views, file: Path) -> None:
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
        asked, known = (views.rule, views.clips, views.crops), (self.rule, self.clips, self.crops)
        if asked != known:
            raise UserError(
                f"{file} was calibrated for {known[1]} x {known[2]} views of rule {known[0]}, and {asked[1]} x "
                f"{asked[2]} of rule {asked[0]} are asked for: ask for the same, or calibrate again"
            )


def read(file: Path) -> Stored:
    """Read what :func:`save` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist: 'peakzoom calibrate RUN' makes it")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        limits: Mapping[str, Any] = values["cascade"]
        if "sure" in limits:
            raise UserError(
                f"{file} was made by an older version, which decided otherwise: remove {file.parent} and run "
                "'peakzoom calibrate' again"
            )
        clear, settled = (
            math.inf if limits[key] is None else float(limits[key]) for key in ("clear", "settled")
        )
        return Stored(
            Cascade(int(limits["glances"]), clear, settled),
            Work(**values["work"]),
            str(values["weights"]),
            str(values["rule"]),
            int(values["clips"]),
            int(values["crops"]),
            str(values["precision"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is damaged ({reason}): calibrate again") from error
