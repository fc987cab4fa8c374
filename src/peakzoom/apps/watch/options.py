"""How a video is watched: windows, threshold, events, and what happens when scoring falls behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peakzoom.utils.errors import UserError


@dataclass(frozen=True)
class WatchOptions:
    """Options of :func:`peakzoom.apps.watch.watch.watch`.

    Attributes:
        every: seconds between the starts of windows; None = half a window.
        crops: crops of a window whose scores are averaged; 1 = the middle.
        threshold: lowest score, in [0, 1], at which a window's best class counts as its prediction.
        ignore: classes that are never predicted ("nothing").
        gap: seconds of other classes, or of none, that an event may bridge.
        live: play a stored video at its own speed, and drop windows that do not keep up. Cameras and streams are live
            without it.
        lag: seconds of windows of a live source that may wait before some are dropped.
        seconds: of video, after which to stop; None = never.

    Raises:
        UserError: a value is outside its range.
    """

    every: float | None = None
    crops: int = 1
    threshold: float = 0.5
    ignore: Sequence[str] = ()
    gap: float = 0.0
    live: bool = False
    lag: float = 2.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold:g}, expected a score between 0 and 1")
        if self.crops < 1:
            raise UserError(f"crops is {self.crops}, expected at least 1")
        for name, value in (("every", self.every), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise UserError(f"{name} is {value:g}, expected a number above 0")
        if not (math.isfinite(self.gap) and self.gap >= 0):
            raise UserError(f"gap is {self.gap:g}, expected seconds of 0 or more")
        if not self.lag >= 0:
            raise UserError(f"lag is {self.lag:g}, expected seconds of 0 or more")
