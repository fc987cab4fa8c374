"""One page from one evaluation's score files: which branches and views help, where they disagree, what to doubt.

Everything is computed again from ``scores.csv`` and ``views.npz`` (``peakzoom.evaluate``); no model and no video is
opened. What a report leaves in its folder::

    report.html       the page in one file, pictures inside, no script; reads without a network
    report.md  *.png  the same page in Markdown, and its pictures
    numbers.json      all numbers of the page, not rounded

Sources: intervals of a share are Wilson's (1927, score interval); the Jensen-Shannon divergence is Lin's (1991), in
bits; the expected calibration error is that of Guo et al. (2017), with 15 bins of equal width. Branch subsets are the
paper's Table 4, but of one joint training: each branch's softmax scores, averaged without learning.
"""

from __future__ import annotations

import base64
import csv
import html
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from peakzoom import plots
from peakzoom.errors import UserError
from peakzoom.evaluate import read_scores
from peakzoom.model.network import BRANCHES
from peakzoom.predict import Protocol

LETTERS = {"original": "O", "discriminative": "D", "complementary": "C", "fused": "fused"}
NEEDED = ("scores.csv", "views.npz", "metrics.json")
Z95 = 1.959963984540054  # 97.5% quantile of the normal distribution
RESAMPLES = 1000
SEED = 0
BINS = 15
HIGH_SCORE = 0.5  # above it no other class can have more
FEW = 5  # fewer videos, or fewer right or wrong answers, and the page draws no conclusion
MOST_DOUBTS = 20
MOST_NAMES = 20  # classes that a sentence lists; its table has all
PAGE_CLASSES = 120  # rows that the picture of the classes shows at most


# Reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What an evaluation left.

    Attributes:
        folder: where it lies.
        classes: S names.
        paths: V files, as they were named.
        labels: int64 (V,).
        branches: names, "fused" last.
        means: for each branch, float64 (V, S): the scores that answer.
        views: float32 (V, branches, views, S): softmax scores of each view, crops within a clip.
        protocol: of the views.
        problems: (path, reason) of files without a score, or scored in part.
    """

    folder: Path
    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    branches: list[str]
    means: dict[str, np.ndarray]
    views: np.ndarray
    protocol: Protocol
    problems: list[tuple[str, str]]

    @property
    def parts(self) -> list[str]:
        """The branches without the fused answer, in the order O, D, C."""
        return [name for name in BRANCHES if name in self.branches]

    def right(self, branch: str) -> np.ndarray:
        """Bool (V,): whether the branch's answer is the label."""
        return np.asarray(self.means[branch].argmax(1) == self.labels)


def find_evaluation(run: str | Path) -> Path:
    """The evaluation folder: ``run`` itself, or the only one inside (a run folder, or one of its phases).

    Raises:
        UserError: there is none, or there are several.
    """
    folder = Path(run)
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{run} {state}: expected a folder that 'peakzoom evaluate' has written, or its run")
    if any((folder / name).exists() for name in ("scores.csv", "views.npz")):
        return folder
    found = sorted(
        {file.parent for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/scores.csv")}
    )
    if not found:
        raise UserError(f"{run} holds no evaluation: run 'peakzoom evaluate {run}' first")
    if len(found) > 1:
        names = ", ".join(str(each) for each in found)
        raise UserError(f"{run} holds {len(found)} evaluations, name one of them: {names}")
    return found[0]


def read_evaluation(folder: Path) -> Scores:
    """Read an evaluation folder and check that its files belong together.

    Raises:
        UserError: a file is missing or damaged, or two of them contradict one another.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: name a whole folder that 'peakzoom evaluate' has written"
            )
    try:
        means, labels, classes = read_scores(folder / "scores.csv")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise _damaged(folder / "scores.csv", error) from error
    try:
        with np.load(folder / "views.npz", allow_pickle=False) as file:
            views, branches = file["scores"], file["branches"].tolist()
            view_labels, paths = file["labels"], file["paths"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(folder / "views.npz", error) from error
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        protocol = Protocol(**metrics["protocol"])
        stated = {name: float(each["top1"]) for name, each in metrics["branches"].items()}
        videos = int(metrics["videos"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / "metrics.json", error) from error
    shape = (len(labels), len(branches), protocol.clips * protocol.crops, len(classes))
    if views.shape != shape or views.dtype.kind != "f":
        raise _contradiction(
            folder,
            f"views.npz has {views.dtype} scores of shape {views.shape}, scores.csv and metrics.json make it {shape}",
        )
    if branches != list(means) or branches[-1:] != ["fused"] or set(branches) - {*BRANCHES, "fused"}:
        raise _contradiction(
            folder,
            f"views.npz has the answers {', '.join(map(str, branches))}, scores.csv {', '.join(means)}",
        )
    if any(each.shape != (len(labels), len(classes)) for each in means.values()) or len(paths) != len(labels):
        raise _contradiction(folder, "not every answer has a row for every video")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(classes):
        raise _contradiction(folder, f"labels are not all among the {len(classes)} classes, counted from 0")
    if not np.array_equal(labels, view_labels):
        raise _contradiction(folder, "views.npz and scores.csv hold other labels or another order of videos")
    for place, name in enumerate(branches):
        if not np.allclose(_average(views[:, place]), means[name], rtol=0, atol=1e-6):
            raise _contradiction(folder, f"the views of {name} in views.npz do not average to scores.csv")
    result = Scores(folder, classes, paths, labels, branches, means, views, protocol, _read_problems(folder))
    if videos != len(labels) or list(stated) != branches:
        raise _contradiction(folder, "metrics.json tells of other videos or answers than scores.csv")
    for name, value in stated.items():
        if abs(value - result.right(name).mean()) > 1e-6:
            raise _contradiction(
                folder, f"metrics.json states another accuracy of {name} than scores.csv gives"
            )
    return result


def _read_problems(folder: Path) -> list[tuple[str, str]]:
    if not (folder / "problems.csv").exists():
        return []
    try:
        with (folder / "problems.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(folder / "problems.csv", error) from error
    if any(len(row) != 2 for row in rows):
        raise _damaged(folder / "problems.csv", ValueError("expected rows of path and reason"))
    return [(row[0], row[1]) for row in rows]


def _damaged(file: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{file} is damaged ({reason}): evaluate again")


def _contradiction(folder: Path, what: str) -> UserError:
    return UserError(f"the files of {folder} do not belong together, {what}: evaluate again")


# Shares and means with their intervals ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """``right`` of ``videos``, with Wilson's 95% interval; None where there is no video."""

    right: int
    videos: int
    value: float | None
    low: float | None
    high: float | None


def share(right: int, videos: int) -> Share:
    """Wilson's score interval of a share.

    >>> each = share(8, 10)
    >>> f"{each.value:.1f} {each.low:.3f} {each.high:.3f}"
    '0.8 0.490 0.943'
    """
    if videos == 0:
        return Share(0, 0, None, None, None)
    value, scale = right / videos, 1 + Z95**2 / videos
    middle = (value + Z95**2 / (2 * videos)) / scale
    half = Z95 * ((value * (1 - value) + Z95**2 / (4 * videos)) / videos) ** 0.5 / scale
    low = 0.0 if right == 0 else max(0.0, middle - half)  # exactly, not to rounding
    high = 1.0 if right == videos else min(1.0, middle + half)
    return Share(right, videos, value, low, high)


def share_of(right: np.ndarray) -> Share:
    """Of a bool array."""
    return share(int(right.sum()), len(right))


def mean_class(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes with a video of the share of right answers; both arrays (V,)."""
    counts = np.bincount(labels)
    found = np.bincount(labels, weights=right)
    return float((found[counts > 0] / counts[counts > 0]).mean())


def bootstrap(
    videos: int, measure: Callable[[np.ndarray], float | None], resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """95% interval of a number: its 2.5% and 97.5% quantiles over videos drawn again with replacement.

    Args:
        videos: how many there are.
        measure: the number, from indices int (videos,); None where a draw has none, which is then left out.
        resamples: draws.
        seed: of the draws; the same for every number.
    """
    rng = np.random.default_rng(seed)
    drawn = (measure(rng.integers(videos, size=videos)) for _ in range(resamples))
    low, high = np.quantile([each for each in drawn if each is not None], (0.025, 0.975))
    return float(low), float(high)


# 1. Branch subsets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubsetRow:
    """One answer. ``gained`` and ``lost``: videos right here and wrong by the original branch, and the reverse."""

    name: str
    top1: Share
    mean_class: float
    mean_class_low: float
    mean_class_high: float
    gained: int | None
    lost: int | None


def subsets(scores: Scores) -> list[SubsetRow]:
    """Every subset of the branches, by the mean of their softmax scores, then the learnt fused answer."""
    rows = []
    for size in range(1, len(scores.parts) + 1):
        for chosen in combinations(scores.parts, size):
            mean = sum((scores.means[name] for name in chosen), np.zeros(())) / size
            rows.append(("+".join(LETTERS[name] for name in chosen), mean))
    rows.append(("fused", scores.means["fused"]))
    original = scores.right("original") if "original" in scores.parts else None
    return [_subset(name, mean.argmax(1) == scores.labels, scores.labels, original) for name, mean in rows]


def _subset(name: str, right: np.ndarray, labels: np.ndarray, original: np.ndarray | None) -> SubsetRow:
    low, high = bootstrap(len(labels), lambda drawn: mean_class(right[drawn], labels[drawn]))
    gained = None if original is None else int((right & ~original).sum())
    lost = None if original is None else int((original & ~right).sum())
    return SubsetRow(name, share_of(right), mean_class(right, labels), low, high, gained, lost)


# 2. Number of views ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewsRow:
    """Accuracy from some of the views: ``clips`` times ``crops``, both counted from 1."""

    clips: list[int]
    crops: list[int]
    top1: dict[str, Share]

    @property
    def views(self) -> int:
        """How many."""
        return len(self.clips) * len(self.crops)


def spread(count: int, chosen: int) -> list[int]:
    """``chosen`` of ``count`` places, the middles of equal parts.

    >>> spread(10, 1), spread(10, 3), spread(3, 1)
    ([5], [1, 5, 8], [1])
    """
    return [(2 * place + 1) * count // (2 * chosen) for place in range(chosen)]


def choose_views(protocol: Protocol) -> list[tuple[list[int], list[int]]]:
    """(clips, crops) of each row, counted from 0: 1, 3 and all clips by the middle crop and by all crops.

    Ten clips of three crops make 1, 3 (three crops of the middle clip), 3 (middle crop of three clips), 9, 10 and 30.
    """
    rows = {
        (tuple(spread(protocol.clips, clips)), tuple(spread(protocol.crops, crops)))
        for clips in (1, min(3, protocol.clips), protocol.clips)
        for crops in (1, protocol.crops)
    }
    ordered = sorted(rows, key=lambda row: (len(row[0]) * len(row[1]), len(row[0])))
    return [(list(clips), list(crops)) for clips, crops in ordered]


def by_views(scores: Scores) -> list[ViewsRow]:
    """Accuracy of every branch from fewer views."""
    rows = []
    for clips, crops in choose_views(scores.protocol):
        places = [clip * scores.protocol.crops + crop for clip in clips for crop in crops]
        found = {
            name: share_of(_average(scores.views[:, place].take(places, axis=1)).argmax(1) == scores.labels)
            for place, name in enumerate(scores.branches)
        }
        rows.append(ViewsRow([clip + 1 for clip in clips], [crop + 1 for crop in crops], found))
    return rows


def _average(views: np.ndarray) -> np.ndarray:
    """(V, views, S) -> float64 (V, S), to the last digit as ``Recognizer.score`` averages."""
    mean = views.astype(np.float64).mean(1)
    return np.asarray(mean / mean.sum(1, keepdims=True))


# 3. Majority against mean ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VoteRow:
    """One branch. ``differ``: videos with two answers; ``ties``: videos where the mean decided the vote."""

    branch: str
    mean: Share
    vote: Share
    differ: int
    vote_only: int
    mean_only: int
    ties: int


def majority(views: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that most views answer, ties decided by the mean score among the tied.

    Args:
        views: (V, views, S).
        mean: (V, S).

    Returns:
        Answers int (V,), and bool (V,) where there was a tie.
    """
    votes = np.zeros(mean.shape, dtype=np.int64)
    np.add.at(votes, (np.arange(len(mean))[:, None], views.argmax(2)), 1)
    best = votes == votes.max(1, keepdims=True)
    return np.where(best, mean, -1.0).argmax(1), best.sum(1) > 1


def votes(scores: Scores) -> list[VoteRow]:
    """Majority of the views against the mean of their scores, each branch and the fused answer."""
    rows = []
    for place, name in enumerate(scores.branches):
        answers, ties = majority(scores.views[:, place], scores.means[name])
        voted, averaged = answers == scores.labels, scores.right(name)
        rows.append(
            VoteRow(
                name,
                share_of(averaged),
                share_of(voted),
                int((answers != scores.means[name].argmax(1)).sum()),
                int((voted & ~averaged).sum()),
                int((averaged & ~voted).sum()),
                int(ties.sum()),
            )
        )
    return rows


# 4. Disagreement -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Videos on which the branches give so many different answers, and the fused answer's accuracy on them."""

    answers: int
    top1: Share


@dataclass(frozen=True)
class Pair:
    """Two branches: videos with the same answer from both, and their mean divergence in bits."""

    one: str
    two: str
    same: int
    divergence: float


@dataclass(frozen=True)
class Quantile:
    """Videos by divergence: least and greatest in bits, and the fused answer's accuracy."""

    low: float
    high: float
    top1: Share


@dataclass(frozen=True)
class Doubt:
    """A video whose fused answer is not its label; ``scores`` are those of each branch's own answer."""

    path: str
    label: str
    answers: dict[str, str]
    scores: dict[str, float]
    divergence: float
    kind: str


@dataclass(frozen=True)
class Disagreement:
    """How often branches differ, and what that says.

    ``separation`` is the share of pairs of a wrong and a right video in which the wrong one has the greater
    divergence (ties count half): 0.5 means that divergence says nothing. None, as its interval, where there are
    fewer than ``FEW`` right or wrong answers.
    """

    levels: list[Level]
    pairs: list[Pair]
    quantiles: list[Quantile]
    separation: float | None
    separation_low: float | None
    separation_high: float | None
    kinds: dict[str, int]
    doubts: list[Doubt]


LABEL_DOUBTFUL, UNSURE, WEAK = "label doubtful", "unsure", "agreed, low score"


def divergence(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over all pairs of the Jensen-Shannon divergence, in bits, [0, 1].

    Args:
        distributions: at least two (V, S), rows of sum 1.

    Returns:
        float64 (V,).
    """
    pairs = [_jensen_shannon(one, two) for one, two in combinations(distributions, 2)]
    return np.asarray(np.mean(pairs, axis=0))


def _jensen_shannon(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    middle = (one + two) / 2
    total = np.zeros(len(one))
    for each in (one, two):
        ratio = np.divide(each, middle, out=np.ones_like(middle), where=each > 0)  # 0 log 0 = 0
        total += (each * np.log2(ratio)).sum(1) / 2
    return np.asarray(total.clip(0, 1))


def separation(values: np.ndarray, wrong: np.ndarray) -> float | None:
    """P(value of a wrong one > value of a right one) + P(equal) / 2; None without a pair. Both arrays (V,)."""
    right = np.sort(values[~wrong])
    if len(right) in (0, len(values)):
        return None
    below = np.searchsorted(right, values[wrong], "left") + np.searchsorted(right, values[wrong], "right")
    return float(below.mean() / (2 * len(right)))


def disagreement(scores: Scores) -> Disagreement | None:
    """Where the branches differ; None with a single branch."""
    if len(scores.parts) < 2:
        return None
    right = scores.right("fused")
    answers = np.stack([scores.means[name].argmax(1) for name in scores.parts], axis=1)
    different = np.array([len(set(row)) for row in answers.tolist()])
    levels = [Level(count, share_of(right[different == count])) for count in range(1, len(scores.parts) + 1)]
    pairs = [
        Pair(
            one,
            two,
            int((scores.means[one].argmax(1) == scores.means[two].argmax(1)).sum()),
            float(divergence([scores.means[one], scores.means[two]]).mean()),
        )
        for one, two in combinations(scores.parts, 2)
    ]
    apart = divergence([scores.means[name] for name in scores.parts])
    # Five parts where each gets FEW videos, fewer parts otherwise.
    parts = np.array_split(np.argsort(apart, kind="stable"), max(1, min(5, len(apart) // FEW)))
    quantiles = [
        Quantile(float(apart[part[0]]), float(apart[part[-1]]), share_of(right[part])) for part in parts
    ]
    value = low = high = None
    if min(int(right.sum()), int((~right).sum())) >= FEW:
        value = separation(apart, ~right)
        low, high = bootstrap(len(right), lambda drawn: separation(apart[drawn], ~right[drawn]))
    kinds, doubts = _doubts(scores, apart)
    return Disagreement(levels, pairs, quantiles, value, low, high, kinds, doubts)


def _doubts(scores: Scores, apart: np.ndarray) -> tuple[dict[str, int], list[Doubt]]:
    """Videos that are answered otherwise than labelled: counts by kind, and those to look at first."""
    found: dict[str, list[Doubt]] = {LABEL_DOUBTFUL: [], UNSURE: [], WEAK: []}
    names = [*scores.parts, "fused"]
    for video in np.flatnonzero(~scores.right("fused")).tolist():
        rows = {name: scores.means[name][video] for name in names}
        chosen = {name: int(row.argmax()) for name, row in rows.items()}
        tops = {name: float(row.max()) for name, row in rows.items()}
        kind = WEAK if min(tops.values()) < HIGH_SCORE else LABEL_DOUBTFUL
        if len(set(chosen.values())) > 1:
            kind = UNSURE
        found[kind].append(
            Doubt(
                scores.paths[video],
                scores.classes[int(scores.labels[video])],
                {name: scores.classes[index] for name, index in chosen.items()},
                tops,
                float(apart[video]),
                kind,
            )
        )
    found[LABEL_DOUBTFUL].sort(key=lambda each: -min(each.scores.values()))
    found[UNSURE].sort(key=lambda each: -each.divergence)
    found[WEAK].sort(key=lambda each: -min(each.scores.values()))
    # Half of the list is kept for the videos on which branches differ, as far as there are any.
    kept = max(MOST_DOUBTS - len(found[UNSURE]), MOST_DOUBTS // 2)
    listed = found[LABEL_DOUBTFUL][:kept] + found[UNSURE]
    return {kind: len(each) for kind, each in found.items()}, (listed + found[WEAK])[:MOST_DOUBTS]


# 5. Scenery ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneryRow:
    """A class with videos: right answers of each branch and of the fused one; what that hints at.

    ``hint`` is "scenery?", "few videos" (fewer than ``FEW``, no conclusion) or empty.
    """

    name: str
    videos: int
    right: dict[str, int]
    hint: str


def scenery(scores: Scores) -> list[SceneryRow] | None:
    """Classes that the complementary view alone finds as well as every other answer; None without that branch.

    "scenery?" means: at least ``FEW`` videos, as many right answers by C as by each of the others, and so many that
    guessing (one in S) lies below Wilson's interval.
    """
    if "complementary" not in scores.parts or len(scores.parts) < 2:
        return None
    right = {name: scores.right(name) for name in scores.branches}
    rows = []
    for index in np.unique(scores.labels).tolist():
        here = scores.labels == index
        counts = {name: int(each[here].sum()) for name, each in right.items()}
        alone = share(counts["complementary"], int(here.sum()))
        hint = ""
        if alone.videos < FEW:
            hint = "few videos"
        elif alone.right >= max(counts.values()) and (alone.low or 0.0) > 1 / len(scores.classes):
            hint = "scenery?"
        rows.append(SceneryRow(scores.classes[index], alone.videos, counts, hint))
    return rows


# 6. Calibration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Videos whose answer has a score in (low, high]; means are None without one."""

    low: float
    high: float
    videos: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Of one answer.

    Attributes:
        branch: whose.
        ece: sum over the bins of videos / all * |accuracy - mean score|.
        nll: mean of -ln(score of the label), nats.
        floored: videos whose label has a score of 0, counted as the smallest positive float32 there.
        score_right, score_wrong: mean score of the answer where it is right and where it is wrong.
        bins: ``BINS`` of equal width.
    """

    branch: str
    ece: float
    nll: float
    floored: int
    score_right: float | None
    score_wrong: float | None
    bins: list[Bin]


def calibrate(branch: str, scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Whether scores mean what they say; ``scores`` (V, S), ``labels`` (V,)."""
    top, right = scores.max(1), scores.argmax(1) == labels
    place = (np.ceil(top * BINS).astype(int) - 1).clip(0, BINS - 1)
    bins, error = [], 0.0
    for index in range(BINS):
        here = place == index
        edges = (index / BINS, (index + 1) / BINS, int(here.sum()))
        if not here.any():
            bins.append(Bin(*edges, None, None))
            continue
        score, accuracy = float(top[here].mean()), float(right[here].mean())
        bins.append(Bin(*edges, score, accuracy))
        error += float(here.mean()) * abs(accuracy - score)
    of_label = scores[np.arange(len(labels)), labels]
    floored = np.maximum(of_label, np.finfo(np.float32).smallest_subnormal)
    return Calibration(
        branch,
        error,
        float(-np.log(floored).mean()),
        int((of_label <= 0).sum()),
        float(top[right].mean()) if right.any() else None,
        float(top[~right].mean()) if not right.all() else None,
        bins,
    )


# 7. Classes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRow:
    """A class and the fused answer: right of its videos, right of the videos answered so, commonest other answer."""

    name: str
    found: Share
    correct: Share
    instead: str | None
    instead_videos: int


@dataclass(frozen=True)
class Mistake:
    """Videos of a class that got another one as their answer."""

    label: str
    answer: str
    videos: int


def confusion_matrix(scores: Scores) -> np.ndarray:
    """int64 (S, S): rows true classes, columns fused answers."""
    count = len(scores.classes)
    flat = np.bincount(scores.labels * count + scores.means["fused"].argmax(1), minlength=count**2)
    return flat.reshape(count, count)


def by_class(confusion: np.ndarray, classes: Sequence[str]) -> list[ClassRow]:
    """All S classes, those without a video too."""
    rows = []
    for index, name in enumerate(classes):
        others = confusion[index].copy()
        others[index] = 0
        rows.append(
            ClassRow(
                name,
                share(int(confusion[index, index]), int(confusion[index].sum())),
                share(int(confusion[index, index]), int(confusion[:, index].sum())),
                classes[int(others.argmax())] if others.any() else None,
                int(others.max()),
            )
        )
    return rows


def mistakes(confusion: np.ndarray, classes: Sequence[str]) -> list[Mistake]:
    """Most frequent first, equal ones in the order of the classes."""
    rows = [
        Mistake(classes[row], classes[column], int(value))
        for (row, column), value in np.ndenumerate(confusion)
        if value and row != column
    ]
    return sorted(rows, key=lambda each: -each.videos)


# All numbers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """Everything on the page; None for the parts that need several branches and have one."""

    evaluation: str
    videos: int
    classes: int
    branches: list[str]
    protocol: Protocol
    problems: list[tuple[str, str]]
    subsets: list[SubsetRow]
    views: list[ViewsRow]
    votes: list[VoteRow]
    disagreement: Disagreement | None
    scenery: list[SceneryRow] | None
    calibration: list[Calibration]
    per_class: list[ClassRow]
    mistakes: list[Mistake]


def measure_all(scores: Scores) -> Numbers:
    """All numbers of the page, from the scores alone."""
    confusion = confusion_matrix(scores)
    return Numbers(
        str(scores.folder),
        len(scores.labels),
        len(scores.classes),
        scores.branches,
        scores.protocol,
        scores.problems,
        subsets(scores),
        by_views(scores),
        votes(scores),
        disagreement(scores),
        scenery(scores),
        [calibrate(name, scores.means[name], scores.labels) for name in reversed(scores.branches)],
        by_class(confusion, scores.classes),
        mistakes(confusion, scores.classes),
    )


# The page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heading:
    """``level`` 1 is the page's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table; the first ``left`` columns hold words, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    fold: str = ""  # what a long table is called where the page folds it away


@dataclass(frozen=True)
class Picture:
    """A PNG beside the page."""

    file: str
    alt: str


Block = Heading | Text | Grid | Picture


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of one evaluation.

    Args:
        folder: the evaluation's.
        out: new or empty folder; ``report`` in the evaluation's when not given.

    Returns:
        The HTML file.

    Raises:
        UserError: ``out`` is in use, or the evaluation cannot be read.
    """
    folder = Path(folder)
    target = Path(out) if out is not None else folder / "report"
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: name a new folder with --out")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty: name another --out")
    scores = read_evaluation(folder)
    numbers = measure_all(scores)
    target.mkdir(parents=True, exist_ok=True)
    draw(numbers, confusion_matrix(scores), scores.classes, target)
    blocks = compose(numbers)
    (target / "numbers.json").write_text(
        json.dumps(asdict(numbers), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    (target / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    page = target / "report.html"
    page.write_text(to_html(blocks, target), encoding="utf-8")
    return page


def draw(numbers: Numbers, confusion: np.ndarray, classes: Sequence[str], out: Path) -> None:
    """The pictures that :func:`compose` names."""
    rows = [(each.name, each.top1) for each in numbers.subsets]
    plots.plot_shares([_panel("top-1 of every subset of the branches", rows)], out / "subsets.png")
    labels = [f"{each.views}\n{len(each.clips)} x {len(each.crops)}" for each in numbers.views]
    series = {name: [each.top1[name].value or 0.0 for each in numbers.views] for name in numbers.branches}
    plots.plot_lines(labels, series, out / "views.png", "views: clips x crops")
    if numbers.disagreement is not None:
        levels = [
            (f"{each.answers} ({_count(each.top1.videos, 'video')})", each.top1)
            for each in numbers.disagreement.levels
            if each.top1.videos
        ]
        parts = [
            (f"{each.low:.3f} - {each.high:.3f} bits", each.top1) for each in numbers.disagreement.quantiles
        ]
        plots.plot_shares(
            [_panel("different answers among the branches", levels), _panel("divergence", parts)],
            out / "disagreement.png",
            "accuracy of the fused answer, 95% interval",
        )
    if numbers.scenery is not None:
        shown = _by_lead(numbers.scenery)[:PAGE_CLASSES]
        found = {name: [each.right[name] / each.videos for each in shown] for name in numbers.branches}
        names = [f"{_plain(each.name)} ({each.videos})" for each in shown]
        plots.plot_branches_by_class(names, found, out / "classes.png")
    filled = [
        (each.score, each.accuracy, each.videos)
        for each in numbers.calibration[0].bins
        if each.score is not None and each.accuracy is not None
    ]
    plots.plot_reliability(filled, out / "calibration.png")
    plots.plot_confusion_page(confusion, [_plain(name) for name in classes], out / "confusion.png")


def _panel(title: str, rows: Sequence[tuple[str, Share]]) -> plots.SharePanel:
    values = [(each.value or 0.0, each.low or 0.0, each.high or 0.0) for _, each in rows]
    return plots.SharePanel(title, [name for name, _ in rows], values)


def _by_lead(rows: Sequence[SceneryRow]) -> list[SceneryRow]:
    """Classes that C finds best, against the best other answer, first."""

    def lead(row: SceneryRow) -> tuple[float, float]:
        best = max(count for name, count in row.right.items() if name != "complementary")
        return (best - row.right["complementary"]) / row.videos, -row.right["complementary"] / row.videos

    return sorted(rows, key=lead)


def compose(numbers: Numbers) -> list[Block]:
    """The page, block by block."""
    protocol, fused = numbers.protocol, numbers.subsets[-1]
    parts = [name for name in numbers.branches if name != "fused"]
    several = len(parts) > 1
    views = protocol.clips * protocol.crops
    answers = ", ".join(f"{name} ({LETTERS[name]})" for name in parts)
    page: list[Block] = [
        Heading(f"Report on {Path(numbers.evaluation).resolve().name}", 1),
        Text(
            f"The fused answer is right on {_of(fused.top1)}, {_percent(fused.top1.value)} "
            f"(95% interval {_interval(fused.top1)}); mean class accuracy {_percent(fused.mean_class)} over "
            f"{_count(sum(each.found.videos > 0 for each in numbers.per_class), 'class', 'classes')}. "
            f"Each video has {_count(views, 'view')}: {_count(protocol.clips, 'clip')} (rule {protocol.rule}) "
            f"of {_count(protocol.crops, 'crop')}. Branches: {answers}."
        ),
        Text(
            f"All numbers come from the score files of {numbers.evaluation}; numbers.json holds them unrounded. "
            "Intervals take videos as independent. Videos of one performer or one recording are alike, so the true "
            "uncertainty is larger."
        ),
    ]
    if not several:
        page.append(
            Text(
                f"This model has one branch, {parts[0] if parts else 'the fused one'}, and its answer is the fused "
                "answer. Left out, because they compare branches: subsets, disagreement, the complementary view."
            )
        )
    if numbers.problems:
        page.append(
            Text(
                f"{_count(len(numbers.problems), 'file')} gave no score or were scored in part; the first ten:"
            )
        )
        page.append(Grid(["file", "problem"], numbers.problems[:10], left=2))
    page += _subset_blocks(numbers.subsets, several)
    page += _view_blocks(numbers.views, numbers.branches)
    page += _vote_blocks(numbers.votes, views)
    if numbers.disagreement is not None:
        page += _disagreement_blocks(numbers.disagreement, parts)
    if numbers.scenery is not None:
        page += _scenery_blocks(numbers.scenery, numbers.branches)
    page += _calibration_blocks(numbers.calibration)
    page += _class_blocks(numbers.per_class, numbers.mistakes)
    return page


def _subset_blocks(rows: Sequence[SubsetRow], several: bool) -> list[Block]:
    compared = rows[0].gained is not None and several
    header = ["answer", "right", "top-1", "95%", "mean class", "95%"]
    note = (
        "A sum such as O+D is the mean of those branches' softmax scores, averaged over all views; fused is the answer "
        "that the model learnt. "
        if several
        else ""
    )
    if compared:
        note += (
            "Gained: videos right here and wrong by O; lost: the reverse. All rows answer the same videos, so these "
            "two columns compare rows better than the intervals do. "
        )
        header += ["gained", "lost"]
    note += (
        f"The interval of top-1 is Wilson's; that of mean class accuracy is a bootstrap over videos "
        f"({RESAMPLES} draws, seed {SEED})."
    )
    table = [
        [
            each.name,
            f"{each.top1.right} / {each.top1.videos}",
            _percent(each.top1.value),
            _interval(each.top1),
            _percent(each.mean_class),
            f"{_percent(each.mean_class_low)} - {_percent(each.mean_class_high)}",
            *((["", ""] if each.name == "O" else [f"+{each.gained}", f"-{each.lost}"]) if compared else []),
        ]
        for each in rows
    ]
    title = "Accuracy of every subset of the branches" if several else "Accuracy"
    return [
        Heading(title),
        Text(note),
        Grid(header, table),
        Picture("subsets.png", "Top-1 accuracy of every answer with its interval"),
    ]


def _view_blocks(rows: Sequence[ViewsRow], branches: Sequence[str]) -> list[Block]:
    table = [
        [
            str(each.views),
            f"{_places('clip', each.clips)}; {_places('crop', each.crops)}",
            *(_percent(each.top1[name].value) for name in branches),
            _interval(each.top1["fused"]),
        ]
        for each in rows
    ]
    return [
        Heading("Accuracy against the number of views"),
        Text(
            "Scores averaged over some of the views only, spread evenly: clips and crops at the middles of equal "
            "parts. Clips and crops are counted from 1. The interval is the fused answer's (Wilson)."
        ),
        Grid(["views", "which", *(LETTERS[name] for name in branches), "95%"], table, left=2),
        Picture("views.png", "Accuracy of every branch against the number of views"),
    ]


def _vote_blocks(rows: Sequence[VoteRow], views: int) -> list[Block]:
    title = Heading("Majority vote against mean score")
    if views == 1:
        return [title, Text("There is one view: the vote is the mean.")]
    table = [
        [
            LETTERS[each.branch],
            _percent(each.mean.value),
            _percent(each.vote.value),
            *map(str, (each.differ, each.mean_only, each.vote_only, each.ties)),
        ]
        for each in rows
    ]
    return [
        title,
        Text(
            f"Mean: the softmax scores of all {views} views averaged. Vote: the class that most views answer; the mean "
            "decides between classes with equal votes. The other columns count videos: with two different answers, "
            "right by one of the two only, and with a tie in the vote."
        ),
        Grid(["answer", "mean", "vote", "differ", "mean only", "vote only", "ties"], table),
    ]


def _disagreement_blocks(found: Disagreement, parts: Sequence[str]) -> list[Block]:
    letters = ", ".join(LETTERS[name] for name in parts)
    levels = [
        [str(each.answers), str(each.top1.videos), _percent(each.top1.value), _interval(each.top1)]
        for each in found.levels
    ]
    quantiles = [
        [
            f"{each.low:.4f} - {each.high:.4f}",
            str(each.top1.videos),
            _percent(each.top1.value),
            _interval(each.top1),
        ]
        for each in found.quantiles
    ]
    videos = sum(each.top1.videos for each in found.levels)
    pairs = [
        [f"{LETTERS[each.one]} and {LETTERS[each.two]}", f"{each.same} / {videos}", f"{each.divergence:.4f}"]
        for each in found.pairs
    ]
    kinds = found.kinds
    wrong = sum(kinds.values())
    page: list[Block] = [
        Heading("Where the branches disagree"),
        Text(
            f"Number of different answers among {letters}, and the accuracy of the fused answer on those videos. "
            "Disagreement hints at wrong labels or at actions that the model does not know; it proves neither."
        ),
        Grid(["answers", "videos", "accuracy", "95%"], levels),
        Text(
            "Two branches at a time: videos with the same answer from both, and the mean divergence (see below)."
        ),
        Grid(["branches", "same answer", "divergence"], pairs),
        Text(
            "The same by a continuous measure: the mean Jensen-Shannon divergence of the pairs of branches, in bits "
            "(0: equal scores, 1: nothing in common), videos in parts of equal size from the least to the greatest. "
            + _separation_sentence(found)
        ),
        Grid(["divergence", "videos", "accuracy", "95%"], quantiles),
        Picture("disagreement.png", "Accuracy of the fused answer against disagreement of the branches"),
        Heading("Videos to look at", 3),
    ]
    if not wrong:
        return [*page, Text("No fused answer differs from its label.")]
    page.append(
        Text(
            f"Of {_count(wrong, 'video')} with a fused answer that is not the label: {kinds[LABEL_DOUBTFUL]} with a "
            f"doubtful label (all branches and the fused answer agree on another class, each with a score of at least "
            f"{HIGH_SCORE:g}), {kinds[UNSURE]} unsure (the answers differ), {kinds[WEAK]} where all agree with a lower "
            f"score. A model that is often wrong calls many labels doubtful that are not. Listed are "
            f"{len(found.doubts)}: doubtful labels first, the highest scores on top, then the unsure, the greatest "
            "divergence on top."
        )
    )
    table = [
        [
            each.path,
            each.label,
            each.kind,
            *(f"{name} ({_percent(each.scores[key])})" for key, name in each.answers.items()),
            f"{each.divergence:.3f}",
        ]
        for each in found.doubts
    ]
    header = ["file", "label", "kind", *(LETTERS[name] for name in parts), "fused", "divergence"]
    return [*page, Grid(header, table, left=4 + len(parts))]


def _separation_sentence(found: Disagreement) -> str:
    value, low, high = found.separation, found.separation_low, found.separation_high
    if value is None or low is None or high is None:
        return f"There are fewer than {FEW} right or wrong answers: too few to say whether accuracy falls with it."
    verdict = "Accuracy neither falls nor rises with divergence, as far as these videos show"
    if low > 0.5:
        verdict = "Accuracy falls with divergence"
    elif high < 0.5:
        verdict = "Accuracy rises with divergence, against expectation"
    return (
        f"{verdict}: of a wrong and a right video, the wrong one has the greater divergence in {_percent(value)} of "
        f"all pairs (bootstrap 95% {_percent(low)} - {_percent(high)}; 50% would be chance)."
    )


def _scenery_blocks(rows: Sequence[SceneryRow], branches: Sequence[str]) -> list[Block]:
    ordered = _by_lead(rows)
    flagged = [each for each in ordered if each.hint == "scenery?"]
    few = sum(each.hint == "few videos" for each in rows)
    # Where all branches see the same, every class is marked and no mark means anything.
    many = (
        "More than half of the judged classes are marked: C then sees much the same as the other branches, and the "
        "marks say little about single classes. See above how often it gives the same answers."
    )
    names = ", ".join(
        f"{each.name} (C {each.right['complementary']} of {each.videos})" for each in flagged[:MOST_NAMES]
    )
    table = [
        [each.name, str(each.videos), *(str(each.right[name]) for name in branches), each.hint]
        for each in ordered
    ]
    limit = f" (the first {PAGE_CLASSES})" if len(rows) > PAGE_CLASSES else ""
    return [
        Heading("The complementary view alone"),
        Text(
            "C zooms into what the discriminative peaks leave. A class that C finds as often as O, D and the fused "
            "answer may be recognised by its scenery. It is a hint, no proof: the discriminative region is made small "
            "in C but not removed, peaks can miss the action, and on few videos equal counts happen by chance. "
            "Look at the attention pictures of such a class."
        ),
        Text(
            f"{len(flagged)} of {_count(len(rows), 'class', 'classes')} with videos are marked 'scenery?': at least "
            f"{FEW} videos, C right as often as every other answer, and more often than guessing one of the classes "
            f"would be (Wilson 95%). {_count(few, 'class', 'classes')} with fewer than {FEW} videos are not judged."
            + (f" Marked: {names}{' and others' if len(flagged) > MOST_NAMES else ''}." if flagged else "")
        ),
        *([Text(many)] if 2 * len(flagged) > len(rows) - few else []),
        Grid(
            ["class", "videos", *(f"right by {LETTERS[name]}" for name in branches), "hint"],
            table,
            fold=f"All {len(rows)} classes",
        ),
        Picture("classes.png", f"Accuracy of every branch in every class{limit}, the lead of C on top"),
    ]


def _calibration_blocks(rows: Sequence[Calibration]) -> list[Block]:
    table = [
        [
            LETTERS[each.branch],
            f"{each.ece:.4f}",
            f"{each.nll:.4f}",
            _number(each.score_right),
            _number(each.score_wrong),
        ]
        for each in rows
    ]
    floored = rows[0].floored
    return [
        Heading("Do the scores mean what they say?"),
        Text(
            f"Expected calibration error (ECE): {BINS} bins of equal width over the score of the answer; the mean over "
            "the videos of the distance between a bin's accuracy and its mean score. NLL: mean of -ln of the label's "
            "score, in nats. Last two columns: mean score of the answer where it is right and where it is wrong."
            + (
                f" The fused score of the label is 0 for {_count(floored, 'video')}; NLL takes it as 1.4e-45."
                if floored
                else ""
            )
        ),
        Grid(["answer", "ECE", "NLL", "score when right", "score when wrong"], table),
        Picture("calibration.png", "Accuracy of the fused answer against its score"),
    ]


def _class_blocks(rows: Sequence[ClassRow], pairs: Sequence[Mistake]) -> list[Block]:
    table = [
        [
            each.name,
            str(each.found.videos),
            _percent(each.found.value),
            _interval(each.found),
            f"{each.correct.right} / {each.correct.videos}",
            f"{each.instead} ({each.instead_videos})" if each.instead is not None else "",
        ]
        for each in sorted(rows, key=lambda each: (each.found.value is None, each.found.value or 0.0))
    ]
    page: list[Block] = [
        Heading("Classes"),
        Text(
            "The fused answer, the worst class on top, classes without a video last. 'Right when answered': of all "
            "videos that got this class as their answer. The interval is Wilson's."
        ),
        Grid(
            ["class", "videos", "accuracy", "95%", "right when answered", "most often taken for"],
            table,
            fold=f"All {len(rows)} classes",
        ),
        Picture("confusion.png", "Confusion matrix: rows are true classes, columns the fused answer"),
    ]
    if pairs:
        common = [[each.label, each.answer, str(each.videos)] for each in pairs[:15]]
        page += [
            Heading("Most frequent mistakes", 3),
            Grid(["true class", "answer", "videos"], common, left=2),
        ]
    return page


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(each: Share) -> str:
    return "-" if each.value is None else f"{_percent(each.low)} - {_percent(each.high)}"


def _of(each: Share) -> str:
    return f"{each.right} of {_count(each.videos, 'video')}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _places(name: str, places: Sequence[int]) -> str:
    if len(places) == 1:
        return f"{name} {places[0]}"
    if len(places) > 3 and list(places) == list(range(places[0], places[-1] + 1)):
        return f"{name}s {places[0]} to {places[-1]}"
    return f"{name}s {', '.join(map(str, places[:-1]))} and {places[-1]}"


def _plain(text: str) -> str:
    r"""A name on one line, unprintable characters written out as \n and the like."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# Markdown --------------------------------------------------------------------------------------------------------


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as GitHub's Markdown, every letter of a name shown as it is."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            lines += ["#" * block.level + " " + _escape_markdown(block.text), ""]
        elif isinstance(block, Text):
            lines += [_escape_markdown(block.text), ""]
        elif isinstance(block, Picture):
            lines += [f"![{_escape_markdown(block.alt)}]({block.file})", ""]
        else:
            marks = ["---" if place < block.left else "---:" for place in range(len(block.header))]
            for row in (block.header, marks, *block.rows):
                cells = row if row is marks else map(_escape_markdown, row)
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


def _escape_markdown(text: str) -> str:
    text = _plain(text)
    for letter in "\\`*_[]|~#$":
        text = text.replace(letter, "\\" + letter)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# HTML ------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2933; --muted: #616e7c; --line: #d9e0e6;
  --stripe: #f5f7fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e4e7eb; --muted: #9aa5b1; --line: #323f4b;
  --stripe: #1c232b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
.words { text-align: left; white-space: normal; min-width: 5rem; }
tbody tr:nth-child(even) { background: var(--stripe); }
summary { cursor: pointer; color: var(--muted); margin: 1rem 0 0; }
figure { margin: 1rem 0; overflow-x: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
figure img { display: block; max-width: 100%; height: auto; }
figure img.large { max-width: none; }
figcaption { padding: .3rem .7rem; font-size: .85rem; color: #616e7c; }
@media print { details > * { display: block; } figure img.large { max-width: 100%; } }
"""
FOLDED_ROWS = 30  # a longer table is folded away
WIDE_PICTURE = 1200  # pixels; a wider one is scrolled instead of made small


def to_html(blocks: Sequence[Block], pictures: Path) -> str:
    """The page as one file; ``pictures`` is the folder with the PNGs."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html_block(block, pictures) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape_html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html_block(block: Block, pictures: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_escape_html(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{_escape_html(block.text)}</p>"
    if isinstance(block, Picture):
        content = (pictures / block.file).read_bytes()
        width = int.from_bytes(content[16:20], "big")  # of a PNG's first chunk
        kind = ' class="large"' if width > WIDE_PICTURE else ""
        alt = _escape_html(block.alt)
        source = base64.b64encode(content).decode()
        return (
            f'<figure><img{kind} alt="{alt}" src="data:image/png;base64,{source}">'
            f"<figcaption>{alt}</figcaption></figure>"
        )
    rows = [_html_row(block.header, block.left, "th")] + [
        _html_row(row, block.left, "td") for row in block.rows
    ]
    table = f'<div class="scroll"><table>\n<thead>{rows[0]}</thead>\n<tbody>\n' + "\n".join(rows[1:])
    table += "\n</tbody>\n</table></div>"
    if block.fold and len(block.rows) > FOLDED_ROWS:
        return f"<details><summary>{_escape_html(block.fold)}</summary>{table}</details>"
    return table


def _html_row(cells: Sequence[str], left: int, tag: str) -> str:
    kinds = [' class="words"' if place < left else "" for place in range(len(cells))]
    return (
        "<tr>"
        + "".join(
            f"<{tag}{kind}>{_escape_html(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        + "</tr>"
    )


def _escape_html(text: str) -> str:
    return html.escape(_plain(text))
