"""Figures of a table: accuracy against cost (paper, Tables 2 and 3), and what each branch adds (Table 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from peakzoom.display.figures import INK, MUTED
from peakzoom.model.config import BRANCHES
from peakzoom.studies.tables import Row
from peakzoom.utils.errors import UserError

# Dark enough to read as text on white; most colour-blind readers can tell neighbours apart.
PALETTE = (
    *("#1d4ed8", "#c2410c", "#047857", "#a21caf", "#a16207"),
    *("#0e7490", "#be123c", "#4d7c0f", "#6d28d9", "#57534e"),
)
BARS = {"original": "#94a3b8", "discriminative": "#60a5fa", "complementary": "#fcd34d", "fused": "#2dd4bf"}
LOGARITHMIC = 5.0  # largest over smallest cost from which a linear axis would crowd the small ones
DPI = 200
PIXELS = DPI / 72  # in a point
BAR_WIDTH = 0.2  # of the distance between two rows
# Where a label may be, seen from its point: 16 directions (128, 2), at 8 distances (128,) in points.
ANGLES = np.tile(np.arange(16) * np.pi / 8, 8)
DIRECTIONS = np.column_stack((np.cos(ANGLES), np.sin(ANGLES)))
REACH = np.repeat([6.0, 10, 16, 24, 34, 46, 60, 80], 16)


# Accuracy against cost --------------------------------------------------------------------------------------------


def plot_cost(rows: Sequence[Row], file: Path, title: str = "") -> None:
    """Accuracy against multiply-adds, as a PNG (or what the file's suffix says).

    A ring is a backbone alone, a disc has spatial attention; rows of one ``model`` share a colour, and an arrow leads
    from the backbone alone to each of the others. Thin bars are the rows' intervals.

    Raises:
        UserError: no row has multiply-adds.
    """
    rows = [row for row in rows if row.macs is not None]
    if not rows:
        raise UserError(
            "no row has multiply-adds to plot against: count them with peakzoom.inference.cost first"
        )
    models = list(dict.fromkeys(row.model for row in rows))
    colours = [PALETTE[models.index(row.model) % len(PALETTE)] for row in rows]
    alone = [row.branches == ("original",) for row in rows]
    points = np.array([[row.macs, 100 * row.accuracy] for row in rows], dtype=np.float64)
    arrows = [
        (first, second)
        for first, row in enumerate(rows)
        for second, other in enumerate(rows)
        if row.model == other.model and alone[first] and not alone[second]
    ]
    figure = Figure(figsize=(7.6, 4.2 + 0.09 * len(rows)), layout="constrained")
    axis = figure.subplots()
    _scale_costs(axis, points[:, 0])
    for row, point, colour, ring in zip(rows, points, colours, alone, strict=True):
        low, high = (100 * value for value in row.interval)
        axis.vlines(point[0], low, high, color=colour, linewidth=1.1, alpha=0.32, zorder=2)
        fill = "white" if ring else colour
        axis.plot(
            *point, "o", markersize=7, markeredgewidth=1.6, color=colour, markerfacecolor=fill, zorder=4
        )
    for first, second in arrows:
        style = {"arrowstyle": "-|>", "color": colours[first], "alpha": 0.6, "linewidth": 1.1}
        axis.annotate(
            "", points[second], points[first], arrowprops={**style, "shrinkA": 5, "shrinkB": 5}, zorder=3
        )
    axis.margins(x=0.19, y=0.09)  # room for labels outside the first and last points
    axis.set_ylim(top=min(101.0, axis.get_ylim()[1]))
    axis.set_xlabel("multiply-adds of one clip, G", color=INK)
    axis.set_ylabel("accuracy, % (bars: 95% interval)", color=INK)
    _clean(axis, title)
    if any(alone) and not all(alone):
        kinds = {"backbone alone": "white", "with spatial attention": MUTED}
        _legend(figure, (_mark(name, "o", 6, MUTED, fill) for name, fill in kinds.items()))
    _place_labels(figure, axis, rows, points, colours, arrows)
    figure.savefig(file, dpi=DPI)


def _scale_costs(axis: Axes, costs: np.ndarray) -> None:
    """A logarithmic axis with plain numbers where costs are far apart."""
    ratio = costs.max() / costs.min()
    if ratio >= LOGARITHMIC:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 200 else (1.0,)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _place_labels(
    figure: Figure,
    axis: Axes,
    rows: Sequence[Row],
    points: np.ndarray,
    colours: Sequence[str],
    arrows: Sequence[tuple[int, int]],
) -> list[Annotation]:
    """Put every row's label near its point, where it covers no other label and little else.

    Every label has 16 directions and 8 distances to choose from. They choose in turn, four times over, each the place
    of least cost given where the others stand. (adjustText was tried: its labels cover discs and arrows.)
    """
    figure.dpi = DPI
    figure.draw_without_rendering()  # the layout is final from here on: data have their pixels
    at = axis.transData.transform(points)
    texts = [
        _label(axis, row.label, point, colour)
        for row, point, colour in zip(rows, points, colours, strict=True)
    ]
    lines = [np.linspace(at[first], at[second], 60) for first, second in arrows]
    for row, (cost, _) in zip(rows, points, strict=True):
        ends = axis.transData.transform([(cost, 100 * value) for value in row.interval])
        lines.append(np.linspace(ends[0], ends[1], 30))
    drawn, frame = np.concatenate(lines), axis.get_window_extent()

    boxes = []  # of each label: (128, 4) left, bottom, right, top
    costs = []  # of each label: (128,) what each box costs by itself
    for text, point in zip(texts, at, strict=True):
        box = _places(text, point)
        outside = np.any((box[:, :2] < frame.min) | (box[:, 2:] > frame.max), axis=1)
        discs = _covered(box, at, 4 * PIXELS)
        boxes.append(box)
        costs.append(1000.0 * outside + 60 * discs + _covered(box, drawn) + 0.35 * REACH)
    chosen = [int(cost.argmin()) for cost in costs]
    for _ in range(4):
        for index, box in enumerate(boxes):
            others = np.array([boxes[other][chosen[other]] for other in range(len(boxes)) if other != index])
            chosen[index] = int((costs[index] + 2000 * _overlaps(box, others.reshape(-1, 4))).argmin())
    for index, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        low, high = ((box[chosen[index]] - np.tile(at[index], 2)) / PIXELS).reshape(2, 2)
        text.set_position(tuple((low + high) / 2))
        if REACH[chosen[index]] > 12:  # a thin line to a label that is not beside its point
            line = {"arrowstyle": "-", "color": colours[index], "linewidth": 0.6, "alpha": 0.7, "shrinkA": 0}
            near = np.clip(0, low, high)
            axis.annotate("", points[index], near, textcoords="offset points", arrowprops=line)
    return texts


def _label(axis: Axes, label: str, point: np.ndarray, colour: str) -> Annotation:
    text = axis.annotate(label, tuple(point), (0, 0), textcoords="offset points")
    text.set(fontsize=8, color=colour, ha="center", va="center", zorder=5, in_layout=False)
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    return text


def _places(text: Annotation, point: np.ndarray) -> np.ndarray:
    """The (128, 4) boxes that a label may have: the side or corner towards its point lies ``REACH`` away from it."""
    extent = text.get_window_extent()
    half = np.array([extent.width + 3 * PIXELS, extent.height + PIXELS]) / 2
    middle = point + DIRECTIONS * REACH[:, None] * PIXELS + np.clip(2 * DIRECTIONS, -1, 1) * half
    return np.hstack((middle - half, middle + half))


def _covered(boxes: np.ndarray, dots: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """How many of the (m, 2) dots are in each of (n, 4) boxes, or so near to it."""
    inside = (dots > boxes[:, None, :2] - margin) & (dots < boxes[:, None, 2:] + margin)
    return np.asarray(inside.all(2).sum(1))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the (m, 4) other boxes meet each of (n, 4) boxes."""
    meet = (boxes[:, None, :2] < others[:, 2:]) & (boxes[:, None, 2:] > others[:, :2])
    return np.asarray(meet.all(2).sum(1))


# Branches ---------------------------------------------------------------------------------------------------------


def plot_ablation(rows: Sequence[Row], file: Path, title: str = "") -> None:
    """Bars of the original, discriminative, complementary and fused accuracy of each row (paper, Table 4).

    The fused accuracy has its interval. Bars need not start at 0, where all would look alike; the axis says where.

    Raises:
        UserError: there are no rows.
    """
    if not rows:
        raise UserError("there are no rows to plot: run the ablation first")
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
    _clean(axis, title)
    axis.grid(visible=False, axis="x")
    _legend(
        figure,
        (
            _mark(name, "s", 8, colour, colour)
            for name, colour in BARS.items()
            if any(name in row.branch_accuracies for row in rows)
        ),
    )
    figure.savefig(file, dpi=DPI)


def _draw_bars(axis: Axes, place: int, row: Row, start: float) -> float:
    """One row's bars with their figures above; the height of the tallest, with its interval."""
    names = [name for name in (*BRANCHES, "fused") if name in row.branch_accuracies]
    top = 0.0
    for number, name in enumerate(names):
        x = place + (number - (len(names) - 1) / 2) * BAR_WIDTH
        value = high = 100 * row.branch_accuracies[name]
        axis.bar(x, value - start, 0.92 * BAR_WIDTH, bottom=start, color=BARS[name], zorder=2)
        if name == "fused":
            low, high = 100 * row.interval[0], max(100 * row.interval[1], value)
            error = [[max(0, value - low)], [high - value]]
            axis.errorbar(x, value, error, color=INK, linewidth=1, capsize=2.5, zorder=3)
        text = axis.annotate(f"{value:.1f}", (x, high), (0, 2.5), textcoords="offset points")
        text.set(ha="center", va="bottom", fontsize=7, color=INK)
        top = max(top, high)
    return top


# Both -------------------------------------------------------------------------------------------------------------


def _mark(label: str, marker: str, size: float, colour: str, fill: str) -> Line2D:
    line = Line2D([], [], marker=marker, markersize=size, linestyle="", label=label)
    line.set(color=colour, markerfacecolor=fill)
    return line


def _legend(figure: Figure, marks: Iterable[Line2D]) -> None:
    handles = list(marks)
    columns = len(handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _clean(axis: Axes, title: str) -> None:
    if title:
        axis.set_title(title, color=INK, fontsize=11, loc="left")
    axis.grid(alpha=0.22)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=INK, labelsize=9)
