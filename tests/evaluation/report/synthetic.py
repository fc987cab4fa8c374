"""Evaluations made of random or given scores, and what plain Python finds in them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from peakzoom.data.entries import Entry, Problem
from peakzoom.evaluation.files import Scores, write_evaluation
from peakzoom.evaluation.results import Scored, summarise
from peakzoom.inference.prediction import Prediction
from peakzoom.video.sampling import Views

ORIG, DISC, COMP, FUSED = "original", "discriminative", "complementary", "fused"
ALL = (ORIG, DISC, COMP, FUSED)


def make_scores(
    videos: int, branches: tuple[str, ...], clips: int, crops: int, s: int, seed: int = 0
) -> Scores:
    """Random scores around the label; every class but the last may have videos."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, s - 1), videos)
    logits = rng.normal(size=(videos, len(branches), clips * crops, s)) * 1.5
    logits += rng.normal(size=(videos, 1, 1, s))
    logits[np.arange(videos), :, :, labels] += 1.2
    if len(branches) == 2:
        logits[:, 1] = logits[:, 0]
    odds = np.exp(logits)
    views = (odds / odds.sum(-1, keepdims=True)).astype(np.float32)
    means = {}
    for place, name in enumerate(branches):
        mean = views[:, place].astype(np.float64).mean(1)
        means[name] = mean / mean.sum(1, keepdims=True)
    return Scores(
        Path("nowhere"),
        [f"class {index}" for index in range(s)],
        [f"{index}.mp4" for index in range(videos)],
        labels,
        list(branches),
        means,
        views,
        Views("paper", clips, crops),
        [],
    )


def from_means(labels: list[int], s: int, **means: list[list[float]]) -> Scores:
    """One view a video."""
    arrays = {name: np.array(rows, dtype=np.float64) for name, rows in means.items()}
    views = np.stack(list(arrays.values()), axis=1)[:, :, None].astype(np.float32)
    names = [f"{index}.mp4" for index in range(len(labels))]
    return Scores(
        Path("nowhere"),
        [f"class {index}" for index in range(s)],
        names,
        np.array(labels),
        list(arrays),
        arrays,
        views,
        Views("paper", 1, 1),
        [],
    )


def write_folder(scores: Scores, out: Path, problems: list[Problem] | None = None) -> Path:
    """As ``evaluate`` writes it."""
    predictions = [
        Prediction(
            Path(scores.paths[video]),
            scores.classes,
            {name: scores.means[name][video] for name in scores.branches},
            {name: scores.views[video, place] for place, name in enumerate(scores.branches)},
            None,
        )
        for video in range(len(scores.labels))
    ]
    entries = [Entry(each.path, int(label)) for each, label in zip(predictions, scores.labels, strict=True)]
    scored = Scored(predictions, entries, problems or [])
    result = summarise(scored, scores.classes)
    out.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:  # a picture that no report reads
        patch.setattr("peakzoom.display.figures.confusion_figure", lambda *_: Figure())
        write_evaluation(out, result, scored, {"protocol": asdict(scores.protocol)})
    return out


def best(row: np.ndarray | list[float]) -> int:
    """The first of the greatest, by plain Python."""
    values = [float(value) for value in row]
    return values.index(max(values))
