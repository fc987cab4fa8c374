"""How much of a real data set is guessed without seeing any action: the floor under docs/results.md's accuracies.

Every group of clips, or every two of many, is guessed from the others, in the folds of ``branches.py``.

    python benchmarks/shortcuts.py UT_INTERACTION/clips.csv WEIZMANN/clips.csv
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from folds import groups_apart

from peakzoom.data.check import check
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import VideoSet
from peakzoom.data.glimpses import Glimpse
from peakzoom.evaluation.shortcuts import SHORTCUTS, find_shortcuts
from peakzoom.evaluation.stats import bootstrap_interval


def floors(data: VideoSet, glimpses: dict[Path, Glimpse]) -> dict[str, tuple[float, tuple[float, float]]]:
    """Accuracy of each shortcut over all folds, and its interval by groups, in percent."""
    right: dict[str, list[bool]] = defaultdict(list)
    tested: list[str | None] = []
    for out in groups_apart(str(entry.group) for entry in data.entries):
        divided = [replace(each, split="test" if each.group in out else "train") for each in data.entries]
        found = find_shortcuts(replace(data, entries=divided), glimpses)
        tested += [entry.group for entry in found.entries]
        for guess in found.guesses:
            right[guess.name] += guess.right.tolist()
    measured = {}
    for name in SHORTCUTS:
        low, high = bootstrap_interval(np.array(right[name]), tested)
        measured[name] = 100 * float(np.mean(right[name])), (100 * low, 100 * high)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    for file in parser.parse_args().data:
        data = open_data(file)
        print(f"{file}: {len(data.entries)} clips, {len(data.classes)} classes")
        for name, (share, (low, high)) in floors(data, check(data, glimpses=True).glimpses).items():
            print(f"| {name} | {share:.1f} ({low:.1f} to {high:.1f}) |")


if __name__ == "__main__":
    main()
