"""A data set as all other code sees it: classes, one entry a video, one problem for each file or row left out.

Classes stand in the official order where there is one (UCF101's classInd.txt), else as :func:`ordered`. Two lists of
one data set can hold different classes (a manifest of the test videos may lack one), so labels of two sets are compared
by name: :meth:`VideoSet.with_classes`.

A group is what must not be divided between training and test: clips of one recording look alike, and a
network that has seen one knows the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from peakzoom.utils.errors import UserError

NO_CLASS = "(no class)"  # of videos that are looked at and not trained on
SEPARATOR = ";"  # between the labels of one video, in lists and tables


@dataclass(frozen=True)
class Entry:
    """One labelled video; ``split`` is "train", "val", "test" or None (not stated), ``group`` None if unknown.

    ``also`` are the further labels of a video with several, all of them in rising order.
    """

    path: Path
    label: int
    split: str | None = None
    group: str | None = None
    also: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels."""
        return (self.label, *self.also)

    def named(self, classes: Sequence[str]) -> str:
        """The names of all labels in one text."""
        return SEPARATOR.join(classes[label] for label in self.labels)

    def labelled(self, labels: Iterable[int]) -> Entry:
        """The same video with other labels."""
        first, *also = sorted(set(labels))
        return replace(self, label=first, also=tuple(also))


@dataclass(frozen=True)
class Problem:
    """A file or a row of a list that is not used, and why."""

    path: str
    reason: str


class Place(NamedTuple):
    """A disc, or an upright ellipse, that holds what acts in a frame, in pixels of the frame as displayed."""

    part: str  # as "hand"
    x: float
    y: float
    radius: float
    down: float | None = None  # the vertical radius; None: as the other


Places = Mapping[Path, Mapping[int, "list[Place]"]]  # of each video, of each of its frames that is marked


@dataclass
class VideoSet:
    """Labelled videos of one data set.

    An entry's ``label`` is a position in ``classes``. What was left out is in ``problems``, one by one; ``notes`` say
    how the set was read, a sentence each; ``name`` is what reports call it. ``places`` say where the action is, where
    that is known (:func:`~peakzoom.data.places.read_places`). With ``multi_label`` a video may have several labels.
    ``unknown`` are further videos that show none of the classes, for whoever asks what a model makes of such;
    ``claimed`` are parts of files that a row names which gives no entry (it overlaps another or has no label; all of
    the file where its times cannot be read), for whoever asks what no row covers. With ``own_groups`` the groups are of
    the data's maker, in a column of a manifest; else they are read from names of files, as a published set has them.
    """

    classes: list[str]
    entries: list[Entry]
    problems: list[Problem]
    name: str
    notes: list[str] = field(default_factory=list)
    places: Places | None = None
    own_groups: bool = False
    unknown: list[Path] = field(default_factory=list)
    multi_label: bool = False
    claimed: list[Path] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Videos of each class, in class order, zeros included."""
        found = label_counts(self.entries)
        return {name: found[label] for label, name in enumerate(self.classes)}

    def splits(self) -> dict[str, int]:
        """Videos of each split ("train", "val", "test", or "" where none is stated), those that occur."""
        found = Counter(entry.split or "" for entry in self.entries)
        return {name: found[name] for name in ("train", "val", "test", "") if found[name]}

    def with_classes(self, classes: list[str]) -> VideoSet:
        """The same videos with labels that point into ``classes``; a UserError where one's class is not there."""
        place = {name: label for label, name in enumerate(classes)}
        unknown = [name for name, count in self.counts().items() if count and name not in place]
        if unknown:
            raise UserError(
                f"{self.name} has classes that are not among the {len(classes)} expected: {some(unknown)}"
            )
        entries = [
            entry.labelled(place[self.classes[label]] for label in entry.labels) for entry in self.entries
        ]
        return replace(self, classes=list(classes), entries=entries)


def label_counts(entries: Iterable[Entry]) -> Counter[int]:
    """Videos of each label; one with several labels counts for each of them."""
    return Counter(label for entry in entries for label in entry.labels)


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once: in numeric order if all are whole numbers, else alphabetical without regard to case."""
    names = set(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(names, key=lambda name: (name.casefold(), name))


def some(names: Iterable[str], limit: int = 8) -> str:
    """The first ``limit`` names, quoted, and how many more there are: for messages."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
