"""Boxes around the peaks of a class's response: where in the frame an event is.

A moment's box is around the places that are joined to the highest peak and respond at least a fifth as much as it, as
class activation maps localise (Zhou et al., Learning deep features for discriminative localization, CVPR 2016, sec.
3.2). A person corrects few boxes more readily than one a frame, so those of half a second become one, edge by edge
their median.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy import ndimage

from peakzoom.data.exchange.project import Box
from peakzoom.explanation.evidence import Evidence
from peakzoom.video.views import Preprocess

SHARE = 0.2  # of the highest peak
APART = 0.5  # seconds


def boxes_of(evidence: Evidence, first: int = 0) -> tuple[Box, ...]:
    """The boxes of the evidence's class, in pixels of the frame as displayed, never beyond it.

    Args:
        evidence: of a file, or a segment of one.
        first: the number in the file of the evidence's first frame.

    Returns:
        In the order of time, each with the frame of the file from which on it counts, and as its score the class's
        mean score in the frames of its moments.
    """
    label = evidence.prediction.classes.index(evidence.target)
    found: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for frame in sorted({peak.first for peak in evidence.peaks}):
        found[int(evidence.times[frame] / APART)].append((frame, _edges(evidence, frame)))
    boxes = []
    for moments in found.values():
        edges = np.median([each for _, each in moments], axis=0)
        score = float(np.mean([evidence.scores[frame, label] for frame, _ in moments]))
        left, top, right, bottom = edges.tolist()
        boxes.append(Box(first + moments[0][0], left, top, right, bottom, score))
    return tuple(boxes)


def _edges(evidence: Evidence, frame: int) -> np.ndarray:
    """Left, top, right and bottom of the highest peak's places in a frame, float64 (4,)."""
    heat, peaks, _ = evidence.attention(frame)
    row, column = peaks[peaks[:, 2].argmax(), :2].astype(int)
    joined, _ = ndimage.label(heat >= SHARE * heat[row, column])
    rows, columns = np.nonzero(joined == joined[row, column])
    grid, size = evidence.model.config.grid, Preprocess.from_dict(evidence.model.preprocess).size
    left, top = evidence.region.place(rows.min() - 0.5, columns.min() - 0.5, grid, size)
    right, bottom = evidence.region.place(rows.max() + 0.5, columns.max() + 0.5, grid, size)
    info = evidence.info
    far = (info.width, info.height, info.width, info.height)
    return np.clip(np.array((left, top, right, bottom)) + 0.5, 0, far)
