"""How far a file's width, height and length alone tell its action on UT-Interaction (docs/results.md).

A nearest neighbour on these three numbers, each sequence left out in turn and on the test sequences of the page:

    python benchmarks/shortcut.py ../shared/data/ut_interaction/clips.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

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


def main() -> None:
    with Path(sys.argv[1]).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    numbers = np.array([[float(row[name]) for name in ("width", "height", "frames")] for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    groups = np.array([row["group"] for row in rows])
    for name, (logarithm, scale) in SCALINGS.items():
        values = np.log(numbers) if logarithm else numbers

        def right(
            held: np.ndarray, values: np.ndarray = values, scale: Callable[..., tuple] = scale
        ) -> np.ndarray:
            train, test = scale(values[~held], values[held])
            return hits(train, labels[~held], test, labels[held])

        each = np.concatenate([right(groups == group) for group in np.unique(groups)])
        test = right(np.isin(groups, TEST))
        print(
            f"{name}: {each.mean():.0%} of {len(each)} left out by sequence, {test.mean():.0%} of {len(test)}"
        )


if __name__ == "__main__":
    main()
