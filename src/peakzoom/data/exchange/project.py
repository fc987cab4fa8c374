"""What the file of an annotation tool says, in terms that all tools share: videos, and labels from when to when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from peakzoom.data.entries import Problem
from peakzoom.utils.words import counted

PLURALS = {"label of other view": "labels of other views"}
Unit = Literal["seconds", "frames", "ticks"]


class Box(NamedTuple):
    """Where something is from a moment on, until the next box of its track: the tools go from one to the next evenly.

    The edges are in pixels of the frame as displayed, 0 the left and the upper edge of the frame.
    """

    at: float  # when, counted as the spans of its video are; a frame's number where it is written
    left: float
    top: float
    right: float
    bottom: float
    score: float | None = None  # of what was predicted


@dataclass(frozen=True)
class Span:
    """A label, from when to when.

    Attributes:
        label: a class; empty where it has none that counts, which is a problem: its time is no background either.
        start, end: what begins at ``start`` and not at ``end``, counted as the video says; None: as long as the file.
        where: it stands in the tool's file, as "track 3".
        score: of a predicted event, in [0, 1].
        boxes: in the order of time.
    """

    label: str
    start: float
    end: float | None
    where: str = ""
    score: float | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ProjectVideo:
    """A video of a project.

    Attributes:
        names: by which its file is to be looked for, the surest first; the path from the root where it is written.
        spans: what is labelled when.
        boxed: what has boxes; they may, but need not, be those of ``spans``.
        unit: what ``start`` and ``end`` count: seconds, frames of the file, or ticks of a player's clock, from 0.
        rate: ticks a second; None: as many as the file has frames, which must then follow each other evenly.
        size: width and height of the frame that the boxes' pixels are of; None: the file's.
        split, group: as of an :class:`~peakzoom.data.entries.Entry`.
        where: it stands in the tool's file.
    """

    names: tuple[str, ...]
    spans: tuple[Span, ...]
    boxed: tuple[Span, ...] = ()
    unit: Unit = "seconds"
    rate: float | None = None
    size: tuple[float, float] | None = None
    split: str | None = None
    group: str | None = None
    where: str = ""


@dataclass
class Project:
    """All that a tool's file says.

    Attributes:
        tool: its name.
        videos: those with labels, and those without.
        problems: what cannot be used.
        left_out: what peakzoom has no place for, by its name in the singular.
        notes: further sentences on how it was read.
    """

    tool: str
    videos: list[ProjectVideo] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """How it was read, and what was left out."""
        found = [f"read as {self.tool}", *self.notes]
        if boxes := sum(len(span.boxes) for video in self.videos for span in video.boxed):
            found.append(f"{counted(boxes, 'box')} are places for 'evaluate --places' and not trained on")
        if left := ", ".join(
            counted(number, name, PLURALS.get(name, ""))
            for name, number in sorted(self.left_out.items())
            if number
        ):
            found.append(f"left out, for peakzoom has no place for it: {left}")
        return found


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans of one label that share time become one: several things act, and the action is one.

    In the order of time; without boxes and scores.
    """
    found: list[Span] = []
    last: dict[str, int] = {}  # where in them is the latest of a label
    for span in sorted(spans, key=lambda each: each.start):
        place = last.get(span.label)
        before = None if place is None else found[place]
        if place is not None and before is not None and (before.end is None or span.start < before.end):
            end = None if before.end is None or span.end is None else max(before.end, span.end)
            found[place] = Span(span.label, before.start, end, before.where)
        else:
            last[span.label] = len(found)
            found.append(Span(span.label, span.start, span.end, span.where))
    return tuple(found)
