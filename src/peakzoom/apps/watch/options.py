"""How a video is watched: windows, threshold, events, and what happens when scoring falls behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from peakzoom.utils.errors import UserError

window_option = partial(typer.Option, rich_help_panel="Windows")
# What makes events of windows, and says which windows there are.
RULE = ("threshold", "keep", "gap", "shortest", "every", "nth", "exit_lead", "ignore")
event_option = partial(typer.Option, rich_help_panel="Events")


@dataclass(frozen=True)
class WatchOptions:
    """Options of :func:`peakzoom.apps.watch.watch.watch` and of ``peakzoom watch``, whose help is here.

    Cameras and streams are live without ``live``. A window has no class where its best one is to be ignored.

    Raises:
        UserError: a value is outside its range.
    """

    every: Annotated[
        float | None, window_option(help="Seconds between windows' starts.", show_default="half a window")
    ] = None
    nth: Annotated[int, window_option(min=1, help="Of these windows score each so many-th alone.")] = 1
    exit_lead: Annotated[
        float | None,
        window_option(
            min=0.0,
            max=1.0,
            help="Early exit: the original branch alone scores a window where its best class leads the second by so "
            "much.",
            show_default="all branches score every window",
        ),
    ] = None
    crops: Annotated[int, window_option(min=1, help="Crops of a window; 1 is the middle.")] = 1
    live: Annotated[bool, window_option(help="Play a file at its own speed; drop what does not keep up.")] = (
        False
    )
    lag: Annotated[
        float, window_option(min=0.0, help="Seconds of windows that may wait, of a live source.")
    ] = 2.0
    reconnect: Annotated[
        float,
        window_option(min=0.0, help="Seconds to ask again for a stream, camera or address that is gone."),
    ] = 0.0
    seconds: Annotated[float | None, window_option(help="Stop after so many seconds of video.")] = None
    threshold: Annotated[
        float | None,
        event_option(
            min=0.0,
            max=1.0,
            help="Lowest score at which a window has a class.",
            show_default="0.5; of several labels each class's own",
        ),
    ] = None
    ignore: Annotated[
        list[str] | None, event_option(help="Class that is no event; may be given again.", show_default=False)
    ] = None
    keep: Annotated[
        float | None,
        event_option(
            min=0.0, max=1.0, help="Score down to which an event goes on.", show_default="--threshold"
        ),
    ] = None
    gap: Annotated[float, event_option(min=0.0, help="Seconds that an event may bridge.")] = 0.0
    shortest: Annotated[float, event_option(min=0.0, help="Seconds that an event lasts at least.")] = 0.0

    @property
    def level(self) -> float:
        """The threshold where one serves for all classes."""
        return 0.5 if self.threshold is None else self.threshold

    @property
    def plain(self) -> bool:
        """Nothing of the rule for events, nor the distance of windows, is other than usual."""
        usual = WatchOptions()
        return all(getattr(self, key) == getattr(usual, key) for key in RULE)

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("every", self.every is None or self.every > 0, "a number above 0"),
            ("nth", self.nth >= 1, "at least 1"),
            ("exit-lead", self.exit_lead is None or 0 <= self.exit_lead <= 1, "a lead between 0 and 1"),
            ("crops", self.crops >= 1, "at least 1"),
            ("reconnect", self.reconnect >= 0, "seconds of 0 or more"),
            ("lag", self.lag >= 0, "seconds of 0 or more"),
            ("seconds", self.seconds is None or self.seconds > 0, "a number above 0"),
            ("threshold", 0 <= self.level <= 1, "a score between 0 and 1"),
            (
                "keep",
                self.keep is None or 0 <= self.keep <= self.level,
                f"a score from 0 to the threshold, {self.level:g}",
            ),
            ("gap", 0 <= self.gap < math.inf, "seconds of 0 or more"),
            ("shortest", 0 <= self.shortest < math.inf, "seconds of 0 or more"),
        ):
            if not right:
                value = getattr(self, name.replace("-", "_"))
                raise UserError(f"{name} is {value:g}, expected {expected}")
