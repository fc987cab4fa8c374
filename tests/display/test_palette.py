"""The colours of the branches: told apart by everybody, on paper and on video, and the same wherever they are drawn."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from peakzoom.display.figures import BRANCH_COLOURS, BRANCH_MARKERS
from peakzoom.model.config import BRANCHES

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB; the first row is of sight without a deficiency.
SIGHT = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson (2020): a distance of 0.02 is just seen."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    opponents = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.asarray(opponents) @ np.cbrt(np.asarray(cones) @ rgb)


def contrast(one: str, other: str) -> float:
    """WCAG 2's."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_are_told_apart(sight: str) -> None:
    seen = {
        name: oklab(np.clip(np.asarray(SIGHT[sight]) @ linear(colour), 0, 1))
        for name, colour in BRANCH_COLOURS.items()
    }
    for one, two in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[two]) >= 0.18, (one, two)


def test_each_stands_out_from_white_and_the_dots_from_their_black_rim() -> None:
    assert set(BRANCH_COLOURS) == {*BRANCHES, "fused"}
    assert all(contrast(colour, "#ffffff") >= 3 for colour in BRANCH_COLOURS.values())
    assert all(contrast(BRANCH_COLOURS[name], "#000000") >= 4.5 for name in BRANCHES[1:])


def test_nobody_without_colours_depends_on_them() -> None:
    assert len(set(BRANCH_MARKERS.values())) == len(BRANCH_MARKERS) == len(BRANCH_COLOURS)


def test_no_other_file_names_these_colours() -> None:
    """One palette: plots, video, report and page take it from one place, the diagram of the README repeats it."""
    root = Path(__file__).resolve().parents[2]
    zoomed = re.compile("|".join(BRANCH_COLOURS[name] for name in BRANCHES[1:]))
    files = (file for end in ("py", "css", "j2") for file in root.glob(f"src/**/*.{end}"))
    named = {file.name for file in files if zoomed.search(file.read_text(encoding="utf-8"))}
    assert named == {"figures.py"}
    diagram = (root / "docs" / "images" / "method.svg").read_text(encoding="utf-8")
    assert BRANCH_COLOURS["discriminative"] in diagram and BRANCH_COLOURS["complementary"] in diagram
