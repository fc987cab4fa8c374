"""What a data set gives away without an action being recognised, and whether a model is beyond that.

Four guesses of the test videos, by linear classifiers trained on the training videos: the most frequent class; numbers
of the file; one still frame; where pixels change. A class that a still frame tells is told by scenery or by people, and
a camera that has filmed one class only (a group of a manifest, or a background) is told by its walls (Torralba and
Efros 2011, Unbiased look at dataset bias). A model that is no better than these has not been shown to see the action.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.glimpses import Glimpse
from peakzoom.evaluation.stats import PairedTest, accuracy_interval, groups_for_interval, paired_test
from peakzoom.utils.errors import UserError

MAJORITY, NUMBERS = "most frequent class", "numbers of the file"
STILL, CHANGES = "one still frame", "where pixels change"
FEATURES: dict[str, Callable[[Glimpse], np.ndarray]] = {
    NUMBERS: Glimpse.numbers,
    STILL: lambda seen: seen.still.ravel(),
    CHANGES: lambda seen: seen.changes.ravel(),
}
SHORTCUTS = (MAJORITY, *FEATURES)

STRENGTHS = (1e-4, 1e-2, 1.0)  # C of the classifiers, chosen by folds of the training videos
USUAL = 1e-2  # where there is too little to choose by
FOLDS = 3
ALIKE = 0.97  # least correlation of two backgrounds of one camera
CHANCE = 0.001  # of as many videos, drawn at random, being of one class


@dataclass(frozen=True)
class Shortcut:
    """One guess of the test videos, by what :data:`SHORTCUTS` calls it."""

    name: str
    right: np.ndarray  # bool (V,)
    interval: tuple[float, float]  # of the accuracy, 95%

    @property
    def top1(self) -> float:
        """The accuracy."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Camera:
    """Videos of one group, or whose background is the same, all of them of one class."""

    name: str  # of the class
    videos: list[Path]
    tested: int  # of them in the test
    group: str | None = None  # None: the background tells


@dataclass(frozen=True)
class Shortcuts:
    """What :func:`find_shortcuts` found."""

    guesses: list[Shortcut]  # one of each of :data:`SHORTCUTS`
    entries: list[Entry]  # the V test videos
    groups: list[str] | None  # theirs, where there are enough for an interval
    cameras: list[Camera]  # largest first; groups of a manifest before those that the background tells

    @property
    def best(self) -> Shortcut:
        """The guess that is right most often."""
        return max(self.guesses, key=lambda each: each.top1)

    def guess(self, name: str) -> Shortcut:
        """One of :data:`SHORTCUTS`."""
        return next(each for each in self.guesses if each.name == name)


def expect_one_label(data: VideoSet) -> None:
    """UserError for data whose videos may have several labels."""
    if data.multi_label:
        raise UserError(
            "shortcuts are guessed for one label a video: leave --multi-label out, or --shortcuts"
        )


def find_shortcuts(data: VideoSet, glimpses: Mapping[Path, Glimpse]) -> Shortcuts:
    """Train on the training (and validation) videos, guess the test videos.

    Args:
        data: with videos to train on and videos of split "test".
        glimpses: of its videos; those without are left out.

    Raises:
        UserError: nothing to train on, nothing to test, or videos that may have several labels.
    """
    expect_one_label(data)
    seen = [entry for entry in data.entries if entry.path in glimpses]
    train, test = [entry for entry in seen if entry.split != "test"], [e for e in seen if e.split == "test"]
    if not train or not test:
        raise UserError(
            f"{data.name} has {len(train)} readable videos to train on and {len(test)} to test, expected some of each: "
            "name the test videos in a manifest's column split"
        )
    labels = np.array([entry.label for entry in test])
    groups = groups_for_interval([entry.group for entry in test])
    counts = Counter(entry.label for entry in train)
    predicted = {MAJORITY: np.full(len(test), min(counts, key=lambda label: (-counts[label], label)))}
    for name, features in FEATURES.items():
        given, asked = (np.stack([features(glimpses[e.path]) for e in part]) for part in (train, test))
        predicted[name] = _classify(given, train, asked)
    return Shortcuts(
        [
            Shortcut(name, guess == labels, accuracy_interval(guess == labels, groups))
            for name, guess in predicted.items()
        ],
        test,
        groups,
        _one_class(seen, data, glimpses),
    )


def _classify(given: np.ndarray, entries: Sequence[Entry], asked: np.ndarray) -> np.ndarray:
    """Labels int (V,) of ``asked`` (V, F) by logistic regression on ``given`` (N, F), the features standardised."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array([entry.label for entry in entries])
    if len(set(labels)) == 1:
        return np.full(len(asked), labels[0])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=USUAL, max_iter=1000))
    if folds := _folds(labels, entries):
        model = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=folds)
    return np.asarray(model.fit(given, labels).predict(asked))


def _folds(labels: np.ndarray, entries: Sequence[Entry]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions to train on and to choose by; groups stay whole. None where that leaves a class out."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [entry.group or str(entry.path) for entry in entries]
    if len(set(groups)) < FOLDS or min(Counter(labels.tolist()).values()) < FOLDS:
        return []
    cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    folds = list(cut.split(np.empty(len(labels)), labels, groups))
    whole = all(len(set(labels[train])) == len(set(labels)) and len(chosen) for train, chosen in folds)
    return folds if whole else []


def _one_class(entries: Sequence[Entry], data: VideoSet, glimpses: Mapping[Path, Glimpse]) -> list[Camera]:
    """The groups of a manifest, then backgrounds, unless all that have one are of a group that is named already."""
    groups = groups_of_one_class(entries, data.classes) if data.own_groups else []
    named = [set(each.videos) for each in groups]
    cameras = cameras_of_one_class(entries, data.classes, glimpses)
    return groups + [each for each in cameras if not any(set(each.videos) <= videos for videos in named)]


def groups_of_one_class(entries: Sequence[Entry], classes: Sequence[str]) -> list[Camera]:
    """Groups whose videos are of one class, more of them than chance explains; the largest first."""
    return _of_one_class(entries, classes, [entry.group for entry in entries], named=True)


def cameras_of_one_class(
    entries: Sequence[Entry], classes: Sequence[str], glimpses: Mapping[Path, Glimpse]
) -> list[Camera]:
    """Videos with one background, of one class, more of them than chance explains; the largest first."""
    from sklearn.cluster import DBSCAN

    backgrounds = np.stack([glimpses[entry.path].background.ravel() for entry in entries])
    # The light changes: what is the same is the pattern. A background of one colour has none.
    backgrounds -= backgrounds.mean(1, keepdims=True)
    scale = np.linalg.norm(backgrounds, axis=1, keepdims=True)
    plain = scale[:, 0] < 1e-3 * backgrounds.shape[1]
    backgrounds /= np.where(plain[:, None], 1, scale)
    farthest = np.sqrt(2 - 2 * ALIKE)  # of two vectors of length 1 with this correlation
    found = np.where(plain, -1, DBSCAN(farthest, min_samples=2).fit_predict(backgrounds))
    cameras = [None if camera == -1 else str(camera) for camera in found.tolist()]
    return _of_one_class(entries, classes, cameras, named=False)


def _of_one_class(
    entries: Sequence[Entry], classes: Sequence[str], places: Sequence[str | None], named: bool
) -> list[Camera]:
    """Of videos by where they were filmed, None where that is not known."""
    counts = Counter(entry.label for entry in entries)
    filmed: dict[str, list[Entry]] = defaultdict(list)
    for entry, place in zip(entries, places, strict=True):
        if place is not None:
            filmed[place].append(entry)
    found = []
    for place, own in filmed.items():
        label = own[0].label
        if (
            any(entry.label != label for entry in own)
            or (counts[label] / len(entries)) ** (len(own) - 1) >= CHANCE
        ):
            continue
        tested = sum(entry.split == "test" for entry in own)
        found.append(Camera(classes[label], [entry.path for entry in own], tested, place if named else None))
    return sorted(found, key=lambda each: (-len(each.videos), each.name, each.videos[0]))


def paired(found: Shortcuts, one: np.ndarray, other: np.ndarray) -> PairedTest:
    """Two ways to guess the same test videos, bool (V,) each; by whole groups where there are enough of them."""
    return paired_test(np.asarray(one, np.float64) - np.asarray(other, np.float64), found.groups)
