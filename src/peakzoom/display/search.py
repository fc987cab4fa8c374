"""The picture of an architecture search: what each block looks at, and how the probabilities came to that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from peakzoom.display.figures import INK, MUTED, Plot

SHADES = LinearSegmentedColormap.from_list("candidates", ["#ede9fe", "#a78bfa", "#4c1d95"])  # fewest to most
COLUMNS = ("looks at", "dilation", "channels inside", "channels of the stage", "blocks of the stage")


def search_figure(
    blocks: Sequence[tuple[str, int | None]],
    history: Mapping[tuple[str, str], tuple[Sequence[int], np.ndarray]],
) -> Plot:
    """A row for every block of the largest network.

    Args:
        blocks: name of each, and the dilation that was found; None where the found network does without it.
        history: by the name of a block and of one of :data:`COLUMNS` but the first, the candidates (J) and float
            (epochs, J) probabilities.
    """
    figure = Plot(figsize=(13, 0.62 * len(blocks) + 1.2), layout="constrained")
    grid = figure.subplots(len(blocks), len(COLUMNS), squeeze=False, width_ratios=(1.3, 1, 1, 1, 1))
    looks = [max(candidates) for (_, column), (candidates, _) in history.items() if column == COLUMNS[1]]
    for axes, (name, found) in zip(grid, blocks, strict=True):
        _draw_frames(axes[0], name, found, max(looks))
        for axis, column in zip(axes[1:], COLUMNS[1:], strict=True):
            if (name, column) in history:
                _draw_chances(axis, *history[name, column])
            else:
                axis.axis("off")
    for axis, column in zip(grid[0], COLUMNS, strict=True):
        axis.set_title(column, color=INK, fontsize=10)
    for axis, label in zip(grid[-1], ("slices before and after", "epoch", "epoch"), strict=False):
        axis.set_xlabel(label, fontsize=8, color=MUTED)
        axis.tick_params(labelbottom=True)
    return figure


def _draw_frames(axis: Axes, name: str, found: int | None, farthest: int) -> None:
    """The slices that a block looks at: dots on a line."""
    places = np.arange(-farthest, farthest + 1)
    axis.plot(places, 0 * places, "o", markersize=4, color="#e5e7eb")
    if found is not None:
        seen = np.unique([-found, 0, found])
        axis.plot(seen, 0 * seen, "o", markersize=7, color="#4c1d95")
    axis.set_ylabel(
        name, rotation=0, ha="right", va="center", fontsize=9, color=MUTED if found is None else INK
    )
    if found is None:
        axis.text(0, 0.35, "left out", ha="center", fontsize=8, color=MUTED)
    axis.set(xlim=(-farthest - 0.7, farthest + 0.7), ylim=(-1, 1), yticks=[], xticks=places)
    axis.tick_params(labelsize=7, colors=MUTED, labelbottom=False, length=0)
    axis.spines[:].set_visible(False)


def _draw_chances(axis: Axes, candidates: Sequence[int], chances: np.ndarray) -> None:
    """Probabilities over the epochs, stacked, the least candidate below; beside them, the likely ones at the end."""
    epochs = np.arange(1, len(chances) + 1)
    colours = SHADES(np.linspace(0, 1, len(candidates)))
    axis.stackplot(epochs, chances.T, colors=colours, edgecolor="white", linewidth=0.4)
    middle = np.cumsum(chances[-1]) - chances[-1] / 2
    for value, place, chance in zip(candidates, middle, chances[-1], strict=True):
        if chance >= max(0.2, 0.7 * chances[-1].max()):
            axis.text(epochs[-1], place, f" {value}", va="center", fontsize=8, color=INK, clip_on=False)
    axis.set(xlim=(1, max(2, len(chances))), ylim=(0, 1), yticks=[])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=7, colors=MUTED, labelbottom=False, length=0)
    axis.spines[:].set_visible(False)
