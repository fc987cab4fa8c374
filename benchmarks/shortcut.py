"""How far a file's width, height and length alone tell its action on UT-Interaction (docs/results.md).

A nearest neighbour on these three numbers. Without folds, each sequence is left out in turn, and the test sequences
of the page once:

    python benchmarks/shortcut.py UT_INTERACTION/clips.csv

With ``--folds``, the sequences of a fold are left out together, any number of them, as `peakzoom compare` does it.
The accuracy is pooled over all clips of the folds, with its 95% interval by bootstrap over clips, and over whole
sequences, whose clips are not independent (``peakzoom.evaluation.stats``). Ten folds of two sequences, one of each set:

    python benchmarks/shortcut.py UT_INTERACTION/clips.csv \\
        --folds 1,11 2,12 3,13 4,14 5,15 6,16 7,17 8,18 9,19 10,20
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from peakzoom.evaluation.stats import bootstrap_interval

TEST = ("4", "8", "9", "14", "18", "19")


def hits(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the nearest training clip has the right label; ties go to the first in the list."""
    apart = np.square(test[:, None] - train[None]).sum(-1)
    return labels[apart.argmin(1)] == truth


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, spread = train.mean(0), train.std(0)
    return (train - mean) / spread, (test - mean) / spread


def as_they_are(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return train, test


SCALINGS: dict[str, tuple[bool, Callable[..., tuple[np.ndarray, np.ndarray]]]] = {
    "none": (False, as_they_are),
    "mean 0, standard deviation 1": (False, standardised),
    "logarithm": (True, as_they_are),
    "logarithm, mean 0, standard deviation 1": (True, standardised),
}


def pooled(
    folds: Sequence[Sequence[str]], groups: np.ndarray, right: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, list[str]]:
    """What is right with each fold left out, and the groups of these clips."""
    held = [np.isin(groups, fold) for fold in folds]
    return np.concatenate([right(each) for each in held]), np.concatenate(
        [groups[each] for each in held]
    ).tolist()


def read_folds(texts: Sequence[str], known: set[str]) -> list[list[str]]:
    """Folds such as "1,11"; SystemExit if a group is unknown, twice there, or nothing is left to train on."""
    folds = [[name.strip() for name in text.split(",")] for text in texts]
    named = [name for fold in folds for name in fold]
    for name in named:
        if name not in known:
            raise SystemExit(f"there is no group {name!r}: expected some of {', '.join(sorted(known))}")
        if named.count(name) > 1:
            raise SystemExit(f"group {name} stands in the folds twice: every clip is tested once")
    if any(set(fold) == known for fold in folds):
        raise SystemExit("a fold holds every group and leaves none to train on: name fewer groups in it")
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="the data's clips.csv")
    parser.add_argument("--folds", nargs="+", metavar="GROUPS", help="groups left out together, such as 1,11")
    arguments = parser.parse_args()
    with arguments.clips.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    numbers = np.array([[float(row[name]) for name in ("width", "height", "frames")] for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    groups = np.array([row["group"] for row in rows])
    folds = read_folds(arguments.folds, set(groups.tolist())) if arguments.folds else None
    for name, (logarithm, scale) in SCALINGS.items():
        values = np.log(numbers) if logarithm else numbers

        def right(
            held: np.ndarray, values: np.ndarray = values, scale: Callable[..., tuple] = scale
        ) -> np.ndarray:
            train, test = scale(values[~held], values[held])
            return hits(train, labels[~held], test, labels[held])

        if folds:
            each, of = pooled(folds, groups, right)
            clips, sequences = bootstrap_interval(each), bootstrap_interval(each, groups=of)
            print(
                f"{name}: {each.mean():.1%} of {len(each)} in {len(folds)} folds, 95% interval {clips[0]:.1%} to "
                f"{clips[1]:.1%} over clips, {sequences[0]:.1%} to {sequences[1]:.1%} over groups"
            )
        else:
            each, _ = pooled([[group] for group in np.unique(groups)], groups, right)
            test = right(np.isin(groups, TEST))
            print(
                f"{name}: {each.mean():.0%} of {len(each)} left out by sequence, "
                f"{test.mean():.0%} of {len(test)}"
            )


if __name__ == "__main__":
    main()
