"""Which kernels and strides fit the one number that the paper prints of the T-CNN's cost, 15.78 G multiply-adds?

Table 1 has channels and dilations, and neither kernels nor strides. Tried here: the second convolution of a pair, plain
and dilated; five spatial strides of 2 (224 pixels become 7), the first of them at the first convolution; up to two
temporal ones; strides stand at the first convolution of the stem, at its second, or open a stage. A reading counts if
every dilation of the table reaches another slice. Printed: how many readings there are, how many lie near the printed
cost, and which frames of 16 these see. Some seconds: no network is built.

    python benchmarks/readings.py
    python benchmarks/readings.py --within 0.02 --list
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

from peakzoom.model.backbones.tcnn import PAPER

PRINTED = 15.78
KINDS = {  # of a second convolution: kernels in time and space
    "1x3x3": ((1, 3),),
    "3x1x1": ((3, 1),),
    "2+1": ((1, 3), (3, 1)),
    "3x3x3": ((3, 3),),
}
DILATED = ("3x1x1", "2+1", "3x3x3")  # those that see time
PLACES = 8  # for strides: two convolutions of the stem, six stages


class Reading(NamedTuple):
    """One way to read the table; strides are places from 0."""

    plain: str
    dilated: str
    space: tuple[int, ...]
    time: tuple[int, ...]


class Counted(NamedTuple):
    """What it costs in G for 16 x 224 x 224, and which frames reach its features."""

    cost: float
    frames: frozenset[int]


def count(reading: Reading) -> Counted | None:
    """Count its convolutions; None if a dilation reaches no other slice."""
    slices, side, cost = [frozenset([frame]) for frame in range(16)], 224, 0

    def stride(place: int) -> None:
        nonlocal slices, side
        slices = slices[:: 2 if place in reading.time else 1]
        side //= 2 if place in reading.space else 1

    def convolve(channels_in: int, channels: int, time: int, space: int) -> None:
        nonlocal cost
        cost += channels_in * channels * time * space * space * len(slices) * side * side

    def second(channels: int, dilation: int) -> bool:
        nonlocal slices
        kind = reading.dilated if dilation else reading.plain
        for time, space in KINDS[kind]:
            convolve(channels, channels, time, space)
            if time == 3:
                step, last = max(dilation, 1), len(slices)
                if dilation >= last:
                    return False
                slices = [
                    frozenset().union(*(slices[at] for at in (t - step, t, t + step) if 0 <= at < last))
                    for t in range(last)
                ]
        return True

    stride(0)
    convolve(3, PAPER.stem, 1, 3)
    stride(1)
    convolve(PAPER.stem, PAPER.stem, 1, 3)
    before = PAPER.stem
    for place, stage in enumerate(PAPER.stages, start=2):
        channels = stage.channels
        for index, dilation in enumerate(stage.dilations):
            entering = slices, side
            if index == 0:
                stride(place)
            convolve(before, channels, 1, 3)
            if before != channels or (slices, side) != entering:
                convolve(before, channels, 1, 1)
            if not second(channels, dilation):
                return None
            before = channels
    return Counted(cost / 1e9, frozenset().union(*slices))


def readings() -> Iterator[Reading]:
    """All that are tried."""
    times = [each for number in range(3) for each in combinations(range(PLACES), number)]
    spaces = [(0, *each) for each in combinations(range(1, PLACES), 4)]
    for plain, dilated, space, time in product(KINDS, DILATED, spaces, times):
        yield Reading(plain, dilated, space, time)


def main() -> None:
    """Count them, print what fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--within", type=float, default=0.1, help="G from the printed cost")
    parser.add_argument("--list", action="store_true", help="print each that fits, nearest first")
    arguments = parser.parse_args()
    counted = [(reading, found) for reading in readings() if (found := count(reading))]
    near = [each for each in counted if abs(each[1].cost - PRINTED) <= arguments.within]
    every = [each for each in near if len(each[1].frames) == 16]
    print(f"{len(counted):,} readings in which every dilation reaches another slice")
    print(
        f"{len(near)} within {arguments.within:g} G of {PRINTED} G; {len(every)} of these see all 16 frames"
    )
    if arguments.list:
        for reading, found in sorted(near, key=lambda each: abs(each[1].cost - PRINTED)):
            print(f"{found.cost:.3f} G, {len(found.frames):2} frames: {reading}")


if __name__ == "__main__":
    main()
