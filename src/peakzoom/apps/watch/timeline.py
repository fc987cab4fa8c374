"""When each frame of a source is shown, known as soon as the frame comes: clocks, gaps and jumps of time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

GAP = 1.0  # seconds without a frame that are a break ...
GAP_FRAMES = 10  # ... if ten frames were due in them: slides come slowly
LONGEST_GAP = 86_400.0  # seconds; beyond it timestamps have started anew rather than waited


class Timeline:
    """Seconds since the first frame, for one frame after the other.

    Frames without a timestamp stand one nominal interval after the one before, never later than the next with one.

    Args:
        rate: frames per second that the source states; 0 = none.
        clock: which timestamps are believed: 0 presentation, 1 decoding, None neither.
        base: seconds a unit of timestamps. Times are counted in whole units as long as they can be, so that they are
            those of :func:`peakzoom.video.scan.frame_times` to the last digit.
    """

    def __init__(self, rate: float, clock: int | None = 0, base: Fraction = Fraction(1)) -> None:
        self.now = 0.0  # of the last frame
        self._clock = clock
        self._interval = 1 / rate if rate else 0.0
        self._base = base
        self._origin: float | None = None  # the timestamp at which time is 0
        self._known = 0.0  # time of the last frame that had a timestamp
        self._follows = 0.0  # time of a next frame without one

    def place(self, stamps: Sequence[float | None]) -> tuple[float, str | None]:
        """The time of the next frame; and where it does not follow the frame before, the reason, else None.

        Its stamps are units of the base: presentation, decoding; None = not stated.
        """
        follows, reason = self._follows, None
        stated = None if self._clock is None else stamps[self._clock]
        if stated is None:
            self.now = follows
        else:
            if self._origin is None:
                self._origin = stated - self._units(follows)
            placed = (stated - self._origin) * self._base.numerator / self._base.denominator
            step = placed - self._known
            if step < 0:
                reason = f"timestamps jump back by {-step:.3f} s"
            elif step > LONGEST_GAP:
                reason = f"timestamps jump ahead by {step:.3f} s"
            if reason:
                self._origin, placed = stated - self._units(follows), follows
            elif step > max(GAP, GAP_FRAMES * self._interval):
                reason = f"no frame for {step:.3f} s"
            self._known = placed
            self.now = max(self.now, placed)  # frames without a timestamp may have run ahead
        self._follows = self.now + self._interval
        return self.now, reason

    def _units(self, seconds: float) -> float:
        return seconds * self._base.denominator / self._base.numerator


def choose_clock(stamps: Sequence[Sequence[float | None]]) -> int | None:
    """Choose the timestamps to believe, from the first frames of a file.

    Those that fall less often are believed, presentation in doubt: AVI files with B-frames state presentation times
    out of order and decoding times in order, and both fall where time jumps back.

    Args:
        stamps: of each frame, in order of presentation, as :meth:`Timeline.place` takes them.

    Returns:
        0 presentation, 1 decoding, None if neither ever advances.
    """
    falls: dict[int, int] = {}
    for clock in (0, 1):
        known = [value for each in stamps if (value := each[clock]) is not None]
        if len(stamps) == 1 and known:
            return clock
        if len(known) > 1 and max(known) > min(known):
            falls[clock] = sum(after < before for before, after in pairwise(known))
    return min(falls, key=lambda clock: falls[clock]) if falls else None
