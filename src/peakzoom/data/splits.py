"""Dividing labelled videos: a share for validation or for the test, or named groups for the test.

Groups, what they are and why they stay whole: :mod:`peakzoom.data.entries`.
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from peakzoom.data.entries import Entry, label_counts, ordered, some
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

SHARE = 0.2  # of the videos, for the test
FEWEST = 5  # videos of a class from which some can be set aside unasked
PURPOSES = {"val": ("validation", "--val-fraction"), "test": ("testing", "--test-fraction")}


def usual_share(entries: Sequence[Entry], share: float, split: str) -> float:
    """The share to set aside where nobody said one; 0, with a line that says so, where it would leave too little."""
    counts = label_counts(entries)
    purpose, option = PURPOSES[split]
    if counts and min(counts.values()) < FEWEST:
        log.info(
            f"no videos are set aside for {purpose}: a class has only {min(counts.values())} ({option} {share:g} sets "
            "some aside all the same)"
        )
        return 0.0
    if counts and not _choose(list(entries), share, random.Random(0)):
        log.info(f"no videos are set aside for {purpose}: every group holds the last videos of a class")
        return 0.0
    return share


def hold_out_share(entries: list[Entry], fraction: float | None) -> list[Entry]:
    """The same entries, a share of them with split "test", the same ones whatever the seed of a training.

    Args:
        entries: none of them with split "test".
        fraction: of all videos, divided as :func:`split_validation` does; None is a fifth, or none at all where a class
            has fewer than ``FEWEST`` videos or every group is needed.

    Raises:
        UserError: as :func:`split_validation`.
    """
    divided = with_test_share(entries, fraction)
    if count := sum(entry.split == "test" for entry in divided):
        log.info(
            f"{count} of {counted(len(entries), 'video')} are set aside for testing and never looked at "
            f"(--test-fraction 0: none)"
        )
    return divided


def with_test_share(entries: list[Entry], fraction: float | None = None) -> list[Entry]:
    """:func:`hold_out_share` for whoever does look at the test videos: only what cannot be set aside is said."""
    share = usual_share(entries, SHARE, "test") if fraction is None else fraction
    if not share:
        return entries
    train, test = split_validation(entries, share, 0, "test")
    before = {entry.path: entry.split for entry in entries}
    return [*(replace(entry, split=before[entry.path]) for entry in train), *test]


def split_validation(
    entries: list[Entry], fraction: float, seed: int, split: str = "val"
) -> tuple[list[Entry], list[Entry]]:
    """Sets part of the training videos aside: ``(train, val)``, with ``split`` set to these, or to "test".

    A group goes wholly to one side. Class shares stay near: in random order, and again until nothing changes, a
    group is set aside, or given back, if that brings the validation counts v_c nearer to fraction * n_c (the sum over
    classes of (v_c - fraction n_c)^2 / n_c falls). Videos without a group, or alone in theirs, then fill what is
    missing in their class, the total rounded to the nearest; where videos have several labels, each is treated as a
    group. Every class keeps at least one training video. If
    nothing was taken so, the one group (or video) that fits best is. The order of the entries changes nothing.

    Raises:
        UserError: fraction outside [0, 1), or no group or video that can go without emptying a class.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"{PURPOSES[split][1]} is {fraction:g}, expected 0 or more and less than 1")
    chosen: set[int] = set()
    if fraction > 0 and entries:
        chosen = _choose(entries, fraction, random.Random(seed))
        if not chosen:
            raise UserError(
                f"nothing can be set aside for {PURPOSES[split][0]} from {counted(len(entries), 'video')}: "
                f"every group (or video) "
                f"holds the last training videos of a class; add videos, or give {PURPOSES[split][1]} 0"
            )
    train = [replace(entry, split="train") for i, entry in enumerate(entries) if i not in chosen]
    val = [replace(entry, split=split) for i, entry in enumerate(entries) if i in chosen]
    return train, val


def _choose(entries: list[Entry], fraction: float, rng: random.Random) -> set[int]:
    """Positions of the validation entries."""
    by_group: dict[str | None, list[int]] = defaultdict(list)
    for i in sorted(range(len(entries)), key=lambda i: (entries[i].labels, str(entries[i].path))):
        by_group[entries[i].group].append(i)
    singles = [[i] for i in by_group.pop(None, [])]
    units = [by_group[name] for name in sorted(by_group, key=str)]
    singles += [unit for unit in units if len(unit) == 1]
    groups = [unit for unit in units if len(unit) > 1]
    if any(entry.also for entry in entries):  # a video changes the shares of several classes, as a group does
        groups, singles = groups + singles, []
    rng.shuffle(groups)
    rng.shuffle(singles)
    total, taken = label_counts(entries), Counter[int]()
    chosen: set[int] = set()

    def cost(unit: list[int], sign: int = 1) -> float:
        """Change of the sum if ``unit`` is set aside (sign 1) or given back (-1); infinite if a class would be lost."""
        change = 0.0
        for label, count in label_counts(entries[i] for i in unit).items():
            if sign > 0 and total[label] - taken[label] - count < 1:
                return math.inf
            over = taken[label] - fraction * total[label]
            change += ((over + sign * count) ** 2 - over**2) / total[label]
        return change

    def move(unit: list[int], sign: int = 1) -> None:
        chosen.symmetric_difference_update(unit)
        for i in unit:
            for label in entries[i].labels:
                taken[label] += sign

    moved = True
    while moved:  # ends, for the sum falls with every move; a few rounds in practice
        moved = False
        for unit in groups:
            sign = -1 if unit[0] in chosen else 1
            if cost(unit, sign) < -1e-9:
                move(unit, sign)
                moved = True

    # Singles: all that a class needs whole, then the largest parts of one until the total is met.
    pools: dict[int, list[list[int]]] = defaultdict(list)
    for unit in singles:
        pools[entries[unit[0]].label].append(unit)
    needs: list[tuple[float, list[int]]] = []
    for label, pool in pools.items():  # in shuffled order, which decides between equal needs
        wanted, room = fraction * total[label] - taken[label], total[label] - taken[label] - 1
        needs += [(wanted - i, unit) for i, unit in enumerate(pool[:room]) if wanted > i]
    needs.sort(key=lambda need: -need[0])
    whole = sum(need >= 1 for need, _ in needs)
    missing = round(fraction * len(entries)) - len(chosen)
    for _, unit in needs[: max(whole, missing)]:
        move(unit)

    if not chosen:
        best = min([*groups, *singles], key=cost)
        if cost(best) < math.inf:
            move(best)
    return chosen


def hold_out_groups(entries: list[Entry], groups: str | Iterable[str]) -> list[Entry]:
    """The same entries, with split "test" for those whose group is named (one, or several) and "train" for all others.

    Raises:
        UserError: a group that no entry has, no group named, or nothing left to train on.
    """
    wanted = {groups} if isinstance(groups, str) else set(groups)
    known = {entry.group for entry in entries if entry.group is not None}
    listing = f"the groups are {some(ordered(known), 40)}" if known else "no video has one (a manifest can)"
    if unknown := ordered(wanted - known):
        raise UserError(f"unknown group {some(unknown)}; {listing}")
    if not wanted:
        raise UserError(f"no group was named to hold out; {listing}")
    if all(entry.group in wanted for entry in entries):
        raise UserError(f"holding out {some(ordered(wanted))} leaves no video to train on; name fewer groups")
    return [replace(entry, split="test" if entry.group in wanted else "train") for entry in entries]
