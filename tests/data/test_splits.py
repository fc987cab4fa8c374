"""The dividing of videos: properties that hold for every division, over random sets and the official ones."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from data.files import one_sentence

from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.data.layouts.hmdb51 import read_hmdb51
from peakzoom.data.layouts.ucf101 import read_ucf101
from peakzoom.data.splits import FEWEST, hold_out_groups, hold_out_share, split_validation, usual_share
from peakzoom.utils.errors import UserError


def make(counts: list[int], group_size: int | None = None) -> list[Entry]:
    """Videos of classes 0, 1, ...; recordings of ``group_size`` videos within a class, or none."""
    return [
        Entry(
            Path(f"{label}/{i}.mp4"),
            label,
            "train",
            None if group_size is None else f"{label}_{i // group_size}",
        )
        for label, count in enumerate(counts)
        for i in range(count)
    ]


def check(entries: list[Entry], fraction: float, seed: int) -> tuple[Counter[int], Counter[int]]:
    """What holds for every division; returns the counts of all and of the validation videos by class."""
    train, val = split_validation(entries, fraction, seed)
    kept = {t.path for t in train}
    assert [e.path for e in entries if e.path in kept] == [t.path for t in train]  # in the same order
    assert Counter(e.path for e in train) + Counter(e.path for e in val) == Counter(e.path for e in entries)
    assert {e.split for e in train} <= {"train"} and {e.split for e in val} <= {"val"}
    assert not {e.group for e in train if e.group} & {e.group for e in val if e.group}
    assert {e.label for e in train} == {e.label for e in entries}  # every class keeps a training video
    assert val
    assert split_validation(entries, fraction, seed) == (train, val)
    mixed = entries.copy()
    random.Random(seed).shuffle(mixed)
    assert {e.path for e in split_validation(mixed, fraction, seed)[1]} == {e.path for e in val}
    return Counter(e.label for e in entries), Counter(e.label for e in val)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
def test_division_without_groups(seed, fraction):
    rng = random.Random(seed)
    counts = [rng.choice([1, 2, 3, 5, 20, 60, 200]) for _ in range(rng.randint(2, 12))] + [2]
    entries = make(counts)
    total, val = check(entries, fraction, seed)
    for label in total:  # as near as whole videos allow
        assert abs(val[label] - min(fraction * total[label], total[label] - 1)) <= 1
    if fraction <= 0.5 and min(counts) > 1:
        assert sum(val.values()) == max(round(fraction * len(entries)), 1)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_division_by_groups_within_classes(seed, fraction):
    rng = random.Random(seed)
    size = rng.choice([2, 3, 7])
    counts = [rng.choice([2, 3, 5, 40, 100]) for _ in range(rng.randint(2, 8))] + [10 * size]
    total, val = check(make(counts, size), fraction, seed)
    for label in total:
        assert val[label] <= fraction * total[label] + size  # a group too many at most
        if total[label] >= 10 * size:
            assert abs(val[label] - fraction * total[label]) <= size


@pytest.mark.parametrize("seed", range(12))
def test_division_by_groups_across_classes(seed):
    rng = random.Random(seed)
    entries = [
        Entry(
            Path(f"{i}.mp4"),
            rng.choice([0, 0, 0, 1, 2, 2]),
            None,
            rng.choice([None, *(f"g{g}" for g in range(25))]),
        )
        for i in range(400)
    ]
    total, val = check(entries, 0.2, seed)
    for label in total:
        assert abs(val[label] / total[label] - 0.2) < 0.08


@pytest.mark.parametrize("group_size", [None, 1, 5])
@pytest.mark.parametrize("counts", [[1, 500], [500, 1], [1, 1, 500], [2, 500], [1, 2]])
def test_division_of_very_unequal_classes(counts, group_size):
    for seed in range(5):
        entries = make(counts, group_size)
        if group_size == 5 and counts == [1, 2]:
            with pytest.raises(UserError, match="last training videos"):
                split_validation(entries, 0.2, seed)
            continue
        total, val = check(entries, 0.2, seed)
        for label in total:
            if total[label] == 1:
                assert val[label] == 0
            if total[label] == 500:
                assert 95 <= val[label] <= 105


def test_division_of_many_small_classes():
    _, val = check(make([2] * 100), 0.2, 0)  # 0.4 videos a class: not none
    assert sum(val.values()) == 40 and max(val.values()) == 1


def test_division_of_sequences(shared_data):
    entries = open_data(shared_data / "ut_interaction" / "clips.csv").entries
    _, val = check(entries, 0.2, 0)
    assert set(val.values()) == {4}  # four whole sequences, each with all six classes
    chosen = {frozenset(e.group for e in split_validation(entries, 0.2, seed)[1]) for seed in range(10)}
    assert len(chosen) > 5  # the seed matters


def trained_on(data: VideoSet) -> list[Entry]:
    return [entry for entry in data.entries if entry.split == "train"]


def test_division_of_ucf101(ucf_root, ucf_lists):
    entries = trained_on(read_ucf101(ucf_root, ucf_lists))
    total, val = check(entries, 0.1, 0)
    assert abs(sum(val.values()) / len(entries) - 0.1) < 0.01
    assert len(val) == 101 and max(abs(val[c] - 0.1 * total[c]) for c in total) <= 4


def test_division_of_hmdb51_by_films(hmdb_root, shared_data):
    entries = trained_on(read_hmdb51(hmdb_root, shared_data / "splits" / "hmdb51"))
    _, val = check(entries, 0.2, 0)  # films of up to 125 clips, each in several classes
    assert abs(sum(val.values()) / len(entries) - 0.2) < 0.03
    assert all(0.1 < val[label] / 70 < 0.35 for label in range(51))


def test_division_extremes():
    entries = make([5, 5])
    train, val = split_validation(entries, 0, 0)
    assert val == [] and len(train) == 10
    assert split_validation([], 0.2, 0) == ([], [])
    check(make([2, 1]), 0.01, 0)  # at least one video
    for fraction in (-0.1, 1.0, 2, float("nan")):
        with pytest.raises(UserError, match="fraction"):
            split_validation(entries, fraction, 0)
    for hopeless in (make([1, 1]), make([4, 4], group_size=4)):
        with pytest.raises(UserError, match="last training videos") as error:
            split_validation(hopeless, 0.2, 0)
        one_sentence(error)


def test_division_takes_one_group_when_all_are_large():
    _, val = check(make([20, 20], group_size=10), 0.1, 0)
    assert sorted(val.values()) == [10]


def test_hold_out_groups():
    entries = [
        Entry(Path(f"{i}.mp4"), i % 2, "val", group) for i, group in enumerate(["1", "2", "10", None, "2"])
    ]
    assert [e.split for e in hold_out_groups(entries, ["2"])] == ["train", "test", "train", "train", "test"]
    assert hold_out_groups(entries, "10") == hold_out_groups(entries, ["10"])
    assert [e.path for e in hold_out_groups(entries, ["1", "10"])] == [e.path for e in entries]
    with pytest.raises(UserError, match=r"unknown group '3'; the groups are '1', '2', '10'$"):
        hold_out_groups(entries, ["2", "3"])
    with pytest.raises(UserError, match="no group was named"):
        hold_out_groups(entries, [])
    with pytest.raises(UserError, match="no video to train on"):
        hold_out_groups([e for e in entries if e.group], ["1", "2", "10"])
    with pytest.raises(UserError, match="manifest"):
        hold_out_groups(make([2, 2]), ["1"])


@pytest.mark.parametrize("counts", [[FEWEST] * 2, [10, 30], [7, 9, 40], [100] * 12])
@pytest.mark.parametrize("group_size", [None, 1, 2, 5])
def test_a_share_is_held_out_for_the_test(counts: list[int], group_size: int | None) -> None:
    entries = [replace(entry, split=None) for entry in make(counts, group_size)]
    entries[0] = replace(entries[0], split="val")  # as some manifests have it
    held = hold_out_share(entries, None)
    if group_size == min(counts):  # a class in one piece
        assert held == entries
        return
    assert Counter(each.path for each in held) == Counter(each.path for each in entries)
    test = [each for each in held if each.split == "test"]
    before = {each.path: each.split for each in entries}
    assert all(each.split == before[each.path] for each in held if each.split != "test")
    assert 0.1 * len(entries) <= len(test) <= 0.34 * len(entries)
    assert set(range(len(counts))) == {each.label for each in held if each.split != "test"}
    tested, trained = ({e.group for e in held if (e.split == "test") == wanted} for wanted in (True, False))
    assert not (tested & trained) - {None}
    assert hold_out_share(entries[::-1], None) == held[: len(held) - len(test)][::-1] + test[::-1]


def test_too_few_videos_are_not_divided_unasked(caplog: pytest.LogCaptureFixture) -> None:
    entries = make([FEWEST - 1, 40])
    with caplog.at_level("INFO"):
        assert hold_out_share(entries, None) == entries and usual_share(entries, 0.15, "val") == 0
    assert [line.message.partition(":")[0] for line in caplog.records] == [
        f"no videos are set aside for {purpose}" for purpose in ("testing", "validation")
    ]
    assert "a class has only 4 (--test-fraction 0.2" in caplog.records[0].message
    assert len([each for each in hold_out_share(entries, 0.25) if each.split == "test"]) == 11
    assert hold_out_share(entries, 0) == entries
    with pytest.raises(
        UserError, match=r"^nothing can be set aside for testing from 2 videos: .*--test-fraction 0$"
    ):
        hold_out_share(make([1, 1]), 0.5)
