"""Plots of plain arrays: curves, a confusion matrix, scores. Matplotlib, without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from peakzoom.display.fonts import drawable, with_fonts

INK, MUTED = "#1f2933", "#7b8794"
COLOURS = {"train": "#2563eb", "val": "#d97706"}
# One palette wherever branches are drawn. Any two differ by at least 0.18 in OKLab, also for protanopes, deuteranopes
# and tritanopes, and each has a contrast of at least 3 with white (tests/display/test_palette.py).
BRANCH_COLOURS = {
    "original": "#6d28d9",
    "discriminative": "#0e9cc0",
    "complementary": "#e8590c",
    "fused": INK,
}
BRANCH_MARKERS = {"original": "o", "discriminative": "^", "complementary": "s", "fused": "D"}


class Plot(Figure):
    """A figure that shows itself at the end of a notebook's cell: Matplotlib's own does so after a magic alone."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


def curves_figure(stages: Mapping[str, Sequence[dict[str, float]]]) -> Figure:
    """Loss and accuracy, or mAP, against the epoch, training and validation, a row for each stage.

    Args:
        stages: the rows of each one's ``metrics.csv``.
    """
    figure = Plot(figsize=(9, 3.4 * len(stages)), layout="constrained")
    rows = figure.subplots(len(stages), 2, squeeze=False)
    for axes, (title, each) in zip(rows, stages.items(), strict=True):
        _draw_curves(axes, each, title)
    return figure


def _draw_curves(axes: Sequence[Axes], rows: Sequence[dict[str, float]], title: str) -> None:
    several = any(name.endswith("_map") for row in rows for name in row)
    for axis, measure in zip(axes, ("loss", "map" if several else "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            points = [(row["epoch"], row[key]) for row in rows if (key := f"{part}_{measure}") in row]
            if points:
                axis.plot(*zip(*points, strict=True), color=COLOURS[part], label=label, linewidth=1.8)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(f"{title}: {measure.replace('map', 'mAP')}", color=INK, fontsize=11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(0, 1.02)
    axes[1].yaxis.set_major_formatter("{x:.0%}")
    if axes[0].lines:
        axes[0].legend(frameon=False)


def confusion_figure(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """Confusion matrix for reading: labels of one size that never overlap, every k-th class above 120.

    Colour is the share of the true class; figures are counts, left out above 30 classes.

    Args:
        confusion: int (S, S), rows true, columns the prediction.
        classes: S names.
    """
    count = len(classes)
    cell = 0.42 if count <= 30 else 0.17 if count <= 120 else 20 / count
    longest = max(len(shortened(name)) for name in classes)
    side = max(3.6, cell * count + 0.075 * longest + 0.8)
    figure = Plot(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    places = range(0, count, -(-count // 120))
    names = [shortened(classes[place]) for place in places]
    size = 9 if count <= 30 else 7.5
    axis.set_xticks(places, names, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(places, names, fontsize=size, parse_math=False)
    axis.set_xlabel("prediction")
    axis.set_ylabel("true class")
    axis.tick_params(length=2)
    if count > 30:  # so that a cell can be followed to its names
        axis.set_xticks(np.arange(-0.5, count), minor=True)
        axis.set_yticks(np.arange(-0.5, count), minor=True)
        if count <= 120:
            axis.grid(which="minor", color="#e4e7eb", linewidth=0.4)
        axis.tick_params(which="minor", length=0)
    else:
        for (row, column), value in np.ndenumerate(confusion):
            if value:
                colour = "white" if share[row, column] > 0.5 else INK
                axis.text(column, row, str(value), ha="center", va="center", fontsize=9, color=colour)
    return with_fonts(figure)


def scores_figure(title: str, classes: Sequence[str], scores: Mapping[str, np.ndarray]) -> Figure:
    """Scores of a few classes: a group of bars for each class, a bar in it for each branch.

    Args:
        title: above the bars.
        classes: K names, from top to bottom.
        scores: for each branch, float (K,) in [0, 1].
    """
    height = 0.8 / len(scores)
    figure = Plot(figsize=(7.2, 0.9 + len(classes) * (0.3 + 0.16 * len(scores))), layout="constrained")
    axis = figure.subplots()
    for row, (branch, values) in enumerate(scores.items()):
        at = np.arange(len(classes)) + (row - (len(scores) - 1) / 2) * height
        axis.barh(at, values, height * 0.9, color=BRANCH_COLOURS[branch], label=branch)
    axis.set_yticks(range(len(classes)), [shortened(name) for name in classes], fontsize=9, parse_math=False)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set_xlabel("score", fontsize=9)
    axis.grid(alpha=0.25, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(shortened(title, 60), color=INK, fontsize=10, parse_math=False)
    if len(scores) > 1:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return with_fonts(figure)


def shortened(name: str, most: int = 28) -> str:
    """A name as it can be drawn (:func:`~peakzoom.display.fonts.drawable`), of at most so many letters."""
    name = drawable(name)
    return name if len(name) <= most else name[: most - 1] + "…"
