"""Which class speaks for a place: weights and shares of the classes against loops, labels against the nearest cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peakzoom.explanation.classes import class_shares, gate_weights, place_labels
from peakzoom.model import CellGeometry, evidence_map, response_map
from peakzoom.model.response import evidence_weights

CLASSES = [2, 3, 5, 101]
CELLS = [(1, 1), (3, 5), (7, 7), (6, 1)]


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


@pytest.mark.parametrize("cells", CELLS, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("scale", [0.1, 30.0], ids=["unsure", "sure"])
def test_weights_add_up_to_the_response(classes: int, cells: tuple[int, int], scale: float) -> None:
    maps = random((2, classes, 3, *cells), 4)
    scores = random((2, classes, 3), 5, scale)
    for weights, response in (
        (gate_weights(scores), response_map(maps, scores)),
        (evidence_weights(scores), evidence_map(maps, scores)),
    ):
        assert weights.shape == scores.shape
        torch.testing.assert_close((weights[..., None, None] * maps).sum(1), response)
    assert set(gate_weights(scores).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(evidence_weights(scores).sum(1), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("classes", CLASSES)
def test_shares_of_the_classes(classes: int) -> None:
    maps = random((1, classes, 2, 3, 4), 6)
    weights = evidence_weights(random((1, classes, 2), 7, 2.0))
    shares = class_shares(maps, weights)
    for index in np.ndindex(2, 3, 4):
        t, row, column = index
        here = maps[0, :, t, row, column]
        for each in range(classes):
            weight = float(weights[0, each, t])
            expected = weight * float(here[each] - here.mean()) if weight > 0 else -np.inf
            assert float(shares[0, each, t, row, column]) == pytest.approx(expected)


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (33, 47)])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (1.0, 3.5, 1.5)])
def test_labels_come_from_the_nearest_cell(size: tuple[int, int], offset: tuple[float, float, float]) -> None:
    cells = CellGeometry((2, 8, 8), offset)
    labels = torch.arange(3 * 4 * 5).reshape(1, 3, 4, 5)
    placed = place_labels(labels, cells, 6, size, 11)
    assert placed.shape == (1, 6, 11, 11)
    for t, row, column in np.ndindex(6, 11, 11):
        at = (t, row * (size[0] - 1) / 10, column * (size[1] - 1) / 10)
        away = [
            [abs(at[axis] - offset[axis] - cells.stride[axis] * each) for each in range(count)]
            for axis, count in enumerate((3, 4, 5))
        ]
        chosen = np.unravel_index(int(placed[0, t, row, column]), (3, 4, 5))
        for axis, each in enumerate(chosen):
            assert away[axis][each] == pytest.approx(min(away[axis]))
