"""Pictures of a run: curves, confusion matrix, attention. Matplotlib, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from peakzoom.cascade import Calibration, frontier

INK, MUTED = "#1f2933", "#7b8794"
COLOURS = {"train": "#2563eb", "val": "#d97706"}


def plot_curves(rows: Sequence[dict[str, float]], file: Path, title: str) -> None:
    """Loss and accuracy against the epoch, training and validation, as a PNG."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            points = [(row["epoch"], row[key]) for row in rows if (key := f"{part}_{measure}") in row]
            if points:
                axis.plot(*zip(*points, strict=True), color=COLOURS[part], label=label, linewidth=1.8)
        axis.set_xlabel("epoch")
        axis.set_title(f"{title}: {measure}", color=INK, fontsize=11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(0, 1.02)
    axes[1].yaxis.set_major_formatter("{x:.0%}")
    if axes[0].lines:
        axes[0].legend(frameon=False)
    figure.savefig(file, dpi=110)


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], file: Path) -> None:
    """Confusion matrix for reading: labels of one size that never overlap, every k-th class above 120, as a PNG.

    Colour is the share of the true class; figures are counts, left out above 30 classes.
    """
    count = len(classes)
    cell = 0.42 if count <= 30 else 0.17 if count <= 120 else 20 / count
    longest = max(len(shortened(name)) for name in classes)
    side = max(3.6, cell * count + 0.075 * longest + 0.8)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    places = range(0, count, -(-count // 120))
    names = [shortened(classes[place]) for place in places]
    size = 9 if count <= 30 else 7.5
    axis.set_xticks(places, names, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(places, names, fontsize=size, parse_math=False)
    axis.set_xlabel("answer")
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
    figure.savefig(file, dpi=110)


def shortened(name: str, most: int = 28) -> str:
    """A name of at most so many letters, cut where it is longer."""
    return name if len(name) <= most else name[: most - 1] + "…"


def plot_attention(
    frames: Sequence[np.ndarray],
    responses: Sequence[np.ndarray],
    peaks: Sequence[np.ndarray],
    zoomed: Sequence[tuple[np.ndarray, np.ndarray]],
    titles: Sequence[str],
    file: Path,
) -> None:
    """One row a clip: a frame, its response with the peaks, the discriminative and the complementary frame (Fig. 2).

    Args:
        frames: uint8 (H, W, 3).
        responses: (g, g) in [0, 1]; grid line j lies on pixel j (H - 1) / (g - 1).
        peaks: (g, g) bool.
        zoomed: pairs of uint8 (H, W, 3).
        titles: one a row.
        file: where the PNG goes.
    """
    rows = len(frames)
    figure = Figure(figsize=(10, 2.55 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    heads = ("frame", "response and peaks", "discriminative", "complementary")
    for row, (frame, response, peak, pair, title) in enumerate(
        zip(frames, responses, peaks, zoomed, titles, strict=True)
    ):
        height, width = frame.shape[:2]
        grid = response.shape[0]
        for axis, image in zip(axes[row], (frame, frame, *pair), strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        half_y, half_x = (height - 1) / (grid - 1) / 2, (width - 1) / (grid - 1) / 2
        extent = (-half_x, width - 1 + half_x, height - 1 + half_y, -half_y)
        axes[row, 1].imshow(
            response, cmap="inferno", alpha=0.55, vmin=0, vmax=1, extent=extent, interpolation="bilinear"
        )
        y, x = np.nonzero(peak)
        axes[row, 1].scatter(
            x * (width - 1) / (grid - 1),
            y * (height - 1) / (grid - 1),
            s=26,
            c="cyan",
            edgecolors="black",
            linewidths=0.8,
        )
        axes[row, 1].set_xlim(-0.5, width - 0.5)
        axes[row, 1].set_ylim(height - 0.5, -0.5)
        axes[row, 0].set_ylabel(title, fontsize=9, color=INK, parse_math=False)
        if row == 0:
            for axis, head in zip(axes[0], heads, strict=True):
                axis.set_title(head, fontsize=10, color=INK)
    figure.savefig(file, dpi=110)


def plot_cascade(calibration: Calibration, file: Path) -> None:
    """Accuracy against multiply-adds of every cascade that was tried, the chosen one and the full test, as a PNG."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    best = frontier(calibration.points)
    axis.scatter(
        [each.multiply_adds for each in calibration.points],
        [each.accuracy for each in calibration.points],
        s=9,
        color="#cbd2d9",
        label="tried",
    )
    axis.step(
        [each.multiply_adds for each in best],
        [each.accuracy for each in best],
        where="post",
        color=COLOURS["train"],
        linewidth=1.6,
        label="best for its cost, seen in hindsight",
    )
    for point, name, colour, marker in (
        (calibration.chosen, "chosen", COLOURS["val"], "D"),
        (calibration.full, "every view, looked at closer", INK, "s"),
    ):
        axis.scatter(
            [point.multiply_adds], [point.accuracy], s=44, color=colour, marker=marker, zorder=3, label=name
        )
    axis.set_xscale("log")
    axis.set_xlabel("G multiply-adds a video")
    axis.set_ylabel("accuracy")
    axis.yaxis.set_major_formatter("{x:.1%}")
    axis.set_title(f"Cascades on {calibration.videos} calibration videos", color=INK, fontsize=11)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8.5, loc="lower right")
    figure.savefig(file, dpi=120)
