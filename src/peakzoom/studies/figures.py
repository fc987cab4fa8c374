"""Figures of a table: accuracy against cost (paper, Tables 2 and 3), and what each branch adds (Table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from peakzoom.display.figures import BRANCH_COLOURS, INK, MUTED
from peakzoom.model.config import BRANCHES
from peakzoom.studies.tables import TableRow
from peakzoom.utils.durable import whole

# Most colour-blind readers can tell neighbours apart.
PALETTE = (
    *("#1d4ed8", "#c2410c", "#047857", "#a21caf", "#a16207"),
    *("#0e7490", "#be123c", "#4d7c0f", "#6d28d9", "#57534e"),
)
SHAPES = "osD^v"  # of the first ten backbones, the next ten ...
LOGARITHMIC = 5.0  # largest over smallest cost from which a linear axis would crowd the small ones
DPI = 200
BAR_WIDTH = 0.2  # of the distance between two rows


def plot_cost(rows: Sequence[TableRow], file: Path) -> None:
    """Accuracy against multiply-adds of rows whose cost is known, as a PNG (or what the file's suffix says).

    Rows of one backbone share a colour. A hollow sign is a backbone alone, a filled one has spatial attention, and an
    arrow leads from the one to the other. Thin bars are the rows' intervals; the most accurate row is named first.
    """
    places = {row.label: (row.cost.macs, 100 * row.accuracy) for row in rows if row.cost}
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(8.4, 4.2 + 0.09 * len(rows)), layout="constrained")
    axis = figure.subplots()
    _scale_costs(axis, [cost for cost, _ in places.values()])
    for row in sorted(rows, key=lambda row: -row.accuracy):
        (cost, accuracy), index = places[row.label], models.index(row.model)
        colour, shape = PALETTE[index % len(PALETTE)], SHAPES[index // len(PALETTE)]
        low, high = (100 * value for value in row.interval)
        axis.vlines(cost, low, high, color=colour, linewidth=1.1, alpha=0.32)
        (sign,) = axis.plot(cost, accuracy, shape, color=colour, label=row.label, zorder=4)
        sign.set(markersize=7, markeredgewidth=1.6, markerfacecolor=colour if row.baseline else "white")
        if row.baseline:
            arrow = {"arrowstyle": "-|>", "color": colour, "alpha": 0.6, "shrinkA": 5, "shrinkB": 5}
            axis.annotate("", (cost, accuracy), places[row.baseline], arrowprops=arrow, zorder=3)
    axis.set_ylim(top=min(101.0, axis.get_ylim()[1]))
    axis.set_xlabel("multiply-adds of one clip, G", color=INK)
    axis.set_ylabel("accuracy, % (bars: 95% interval)", color=INK)
    _clean(axis)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    with whole(file, "wb") as stream:
        figure.savefig(stream, dpi=DPI, format="png")


def _scale_costs(axis: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers where costs are far apart."""
    ratio = max(costs) / min(costs)
    if ratio >= LOGARITHMIC:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 200 else (1.0,)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")


def plot_ablation(rows: Sequence[TableRow], file: Path) -> None:
    """Bars of the original, discriminative, complementary and fused accuracy of each row (paper, Table 4).

    The fused accuracy has its interval. Bars need not start at 0, where all would look alike; the axis says where.
    """
    heights = [100 * value for row in rows for value in (*row.branch_accuracies.values(), row.interval[0])]
    start = max(0, 10 * np.floor((min(heights) - 8) / 10))
    figure = Figure(figsize=(max(5.6, 1.2 + 1.45 * len(rows)), 3.9), layout="constrained")
    axis = figure.subplots()
    top = max(_draw_bars(axis, place, row, start) for place, row in enumerate(rows))
    axis.set_ylim(start, top + 0.06 * (top - start))
    axis.set_xticks(range(len(rows)), [row.label for row in rows], color=INK)
    axis.tick_params(axis="x", length=0)
    where = f"; axis starts at {start:.0f})" if start else ")"
    axis.set_ylabel(f"accuracy, % (95% interval{where}", color=INK, fontsize=9)
    _clean(axis)
    axis.grid(visible=False, axis="x")
    shown = {name for row in rows for name in row.branch_accuracies}
    signs = [Patch(color=colour, label=name) for name, colour in BRANCH_COLOURS.items() if name in shown]
    figure.legend(handles=signs, loc="outside lower center", ncols=len(signs), frameon=False, fontsize=9)
    with whole(file, "wb") as stream:
        figure.savefig(stream, dpi=DPI, format="png")


def _draw_bars(axis: Axes, place: int, row: TableRow, start: float) -> float:
    """One row's bars with their figures above; the height of the tallest, with its interval."""
    names = [name for name in (*BRANCHES, "fused") if name in row.branch_accuracies]
    top = 0.0
    for number, name in enumerate(names):
        x = place + (number - (len(names) - 1) / 2) * BAR_WIDTH
        value = high = 100 * row.branch_accuracies[name]
        axis.bar(x, value - start, 0.92 * BAR_WIDTH, bottom=start, color=BRANCH_COLOURS[name], zorder=2)
        if name == "fused":
            low, high = 100 * row.interval[0], max(100 * row.interval[1], value)
            error = [[max(0, value - low)], [high - value]]
            axis.errorbar(x, value, error, color=INK, linewidth=1, capsize=2.5, zorder=3)
        # Clear of the interval's cap, which is half a point thick.
        text = axis.annotate(f"{value:.1f}", (x, high), (0, 5), textcoords="offset points")
        text.set(ha="center", va="bottom", fontsize=7, color=INK)
        top = max(top, high)
    return top


def _clean(axis: Axes) -> None:
    axis.grid(alpha=0.22)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=INK, labelsize=9)
