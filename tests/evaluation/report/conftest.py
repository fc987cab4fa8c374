"""Scores of all shapes."""

from __future__ import annotations

import pytest
from synthetic import ALL, COMP, DISC, FUSED, ORIG, make_scores

from peakzoom.evaluation.files import Scores

GRID = [  # videos, branches, clips, crops, S
    (1, ALL, 1, 1, 2),
    (9, ALL, 10, 3, 2),
    (40, ALL, 4, 2, 5),
    (33, (ORIG, COMP, FUSED), 3, 1, 7),
    (25, (ORIG, DISC, FUSED), 2, 3, 4),
    (30, (ORIG, FUSED), 5, 3, 3),
]


@pytest.fixture(scope="module", params=GRID, ids=str)
def scores(request: pytest.FixtureRequest) -> Scores:
    return make_scores(*request.param)
