"""Pictures of a table: accuracy against cost (paper, Tables 2 and 3), and what each branch adds (Table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from peakzoom.display.figures import INK, MUTED
from peakzoom.model.config import BRANCHES
from peakzoom.studies.tables import Row
from peakzoom.utils.errors import UserError

# Dark enough to read as text on white, and told apart by most colour-blind readers where neighbours.
PALETTE = (
    "#1d4ed8",
    "#c2410c",
    "#047857",
    "#a21caf",
    "#a16207",
    "#0e7490",
    "#be123c",
    "#4d7c0f",
    "#6d28d9",
    "#57534e",
)
BARS = {"original": "#94a3b8", "discriminative": "#60a5fa", "complementary": "#fcd34d", "fused": "#2dd4bf"}
LOGARITHMIC = 5.0  # largest over smallest cost from which a linear axis would crowd the small ones
DPI = 200


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
    colour = {model: PALETTE[index % len(PALETTE)] for index, model in enumerate(models)}
    costs = np.array([row.macs for row in rows], dtype=np.float64)
    figure = Figure(figsize=(7.6, 4.2 + 0.09 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    if costs.max() / costs.min() >= LOGARITHMIC:
        axis.set_xscale("log")
        few = (1.0, 2.0, 5.0) if costs.max() / costs.min() < 200 else (1.0,)
        axis.xaxis.set_major_locator(LogLocator(subs=few))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for row, cost in zip(rows, costs, strict=True):
        points = 100 * row.accuracy
        low, high = (100 * value for value in row.interval)
        axis.vlines(cost, low, high, color=colour[row.model], linewidth=1.1, alpha=0.32, zorder=2)
        alone = row.branches == ("original",)
        axis.plot(
            cost,
            points,
            "o",
            markersize=7,
            markeredgewidth=1.6,
            color=colour[row.model],
            markerfacecolor="white" if alone else colour[row.model],
            zorder=4,
        )
    pairs = [
        (first, second)
        for first, row in enumerate(rows)
        if row.branches == ("original",)
        for second, other in enumerate(rows)
        if other.model == row.model and other.branches != ("original",)
    ]
    for first, second in pairs:
        axis.annotate(
            "",
            (costs[second], 100 * rows[second].accuracy),
            (costs[first], 100 * rows[first].accuracy),
            arrowprops={
                "arrowstyle": "-|>",
                "color": colour[rows[first].model],
                "alpha": 0.6,
                "linewidth": 1.1,
                "shrinkA": 5,
                "shrinkB": 5,
            },
            zorder=3,
        )
    axis.margins(x=0.19, y=0.09)  # room for labels outside the first and last points
    axis.set_ylim(top=min(101.0, axis.get_ylim()[1]))
    axis.set_xlabel("multiply-adds of one clip, G", color=INK)
    axis.set_ylabel("accuracy, % (bars: 95% interval)", color=INK)
    if title:
        axis.set_title(title, color=INK, fontsize=11, loc="left")
    _clean(axis)
    kinds = {"white": "backbone alone", MUTED: "with spatial attention"}
    shown = [row.branches == ("original",) for row in rows]
    if any(shown) and not all(shown):
        figure.legend(
            handles=[
                Line2D([], [], marker="o", color=MUTED, markerfacecolor=fill, linestyle="", label=label)
                for fill, label in kinds.items()
            ],
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=9,
        )
    _place_labels(figure, axis, rows, costs, [colour[row.model] for row in rows], pairs)
    figure.savefig(file, dpi=DPI)


def plot_ablation(rows: Sequence[Row], file: Path, title: str = "") -> None:
    """Bars of the original, discriminative, complementary and fused answer of each row (Table 4).

    The fused answer has its interval. Bars need not start at 0, where all would look alike; the axis says where.
    """
    if not rows:
        raise UserError("there are no rows to plot: run the ablation first")
    names = (*BRANCHES, "fused")
    heights = [100 * value for row in rows for value in (*row.branch_accuracies.values(), row.interval[0])]
    start = max(0, 10 * np.floor((min(heights) - 8) / 10))
    figure = Figure(figsize=(max(4.6, 1.2 + 1.45 * len(rows)), 3.9), layout="constrained")
    axis = figure.subplots()
    top = 0.0
    width = 0.2
    for index, row in enumerate(rows):
        present = [name for name in names if name in row.branch_accuracies]
        for place, name in enumerate(present):
            x = index + (place - (len(present) - 1) / 2) * width
            value = 100 * row.branch_accuracies[name]
            axis.bar(x, value - start, 0.92 * width, bottom=start, color=BARS[name], zorder=2)
            high = value
            if name == "fused":
                low, high = (100 * each for each in row.interval)
                axis.errorbar(
                    x,
                    value,
                    [[max(0, value - low)], [max(0, high - value)]],
                    color=INK,
                    linewidth=1,
                    capsize=2.5,
                    zorder=3,
                )
                high = max(high, value)
            axis.annotate(
                f"{value:.1f}",
                (x, high),
                (0, 2.5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                color=INK,
            )
            top = max(top, high)
    axis.set_ylim(start, top + 0.06 * (top - start))
    axis.set_xticks(range(len(rows)), [row.label for row in rows], color=INK)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(
        "accuracy, % (95% interval" + (f"; axis starts at {start:.0f})" if start else ")"),
        color=INK,
        fontsize=9,
    )
    if title:
        axis.set_title(title, color=INK, fontsize=11, loc="left")
    _clean(axis)
    axis.grid(visible=False, axis="x")
    shown = [name for name in names if any(name in row.branch_accuracies for row in rows)]
    figure.legend(
        handles=[
            Line2D([], [], marker="s", markersize=8, linestyle="", color=BARS[name], label=name)
            for name in shown
        ],
        loc="outside lower center",
        ncols=len(shown),
        frameon=False,
        fontsize=9,
    )
    figure.savefig(file, dpi=DPI)


def _clean(axis: Axes) -> None:
    axis.grid(alpha=0.22)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=INK, labelsize=9)


def _place_labels(
    figure: Figure,
    axis: Axes,
    rows: Sequence[Row],
    costs: np.ndarray,
    colours: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> list[Annotation]:
    """Put every row's label near its point, where it covers no other label and little else.

    Every label has 16 directions and 8 distances to choose from. They choose in turn, five times over, each the place
    of least cost given where the others stand: another label or the border costs most, then points, then arrows,
    then intervals, then distance. All in pixels of the finished picture.
    """
    figure.dpi = DPI
    figure.draw_without_rendering()  # the layout settles: from here on data have their pixels
    to_pixels = axis.transData.transform
    scale = DPI / 72
    at = to_pixels(np.column_stack((costs, [100 * row.accuracy for row in rows])))
    texts = [
        axis.annotate(
            row.label,
            (cost, 100 * row.accuracy),
            fontsize=8,
            color=colour,
            va="center",
            ha="center",
            zorder=5,
        )
        for row, cost, colour in zip(rows, costs, colours, strict=True)
    ]
    for text in texts:
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    sizes = []
    for text in texts:
        extent = text.get_window_extent()
        sizes.append((extent.width + 3 * scale, extent.height + 1 * scale))

    # What is drawn, as dots with a weight for each that a label covers.
    dots, weights = [at], [np.full(len(at), 60.0)]
    for first, second in pairs:
        dots.append(np.linspace(at[first], at[second], 60))
        weights.append(np.full(60, 1.5))
    for row, cost in zip(rows, costs, strict=True):
        ends = to_pixels([(cost, 100 * value) for value in row.interval])
        dots.append(np.linspace(ends[0], ends[1], 40))
        weights.append(np.full(40, 0.8))
    ink, weight = np.concatenate(dots), np.concatenate(weights)
    frame = axis.get_window_extent()

    angles = np.arange(16) * np.pi / 8
    places: list[np.ndarray] = []  # of each label: (128, 4) left, bottom, right, top
    fixed: list[np.ndarray] = []  # of each label: (128,) cost by itself
    reach = np.repeat(np.array([6.0, 10, 16, 24, 34, 46, 60, 80]), len(angles)) * scale
    for (x, y), (wide, high) in zip(at, sizes, strict=True):
        across, up = np.tile(np.cos(angles), 8), np.tile(np.sin(angles), 8)
        # The box's side or corner towards the point lies at that distance.
        middle_x = x + across * reach + np.clip(2 * across, -1, 1) * wide / 2
        middle_y = y + up * reach + np.clip(2 * up, -1, 1) * high / 2
        boxes = np.column_stack(
            (middle_x - wide / 2, middle_y - high / 2, middle_x + wide / 2, middle_y + high / 2)
        )
        near = 4 * scale * (weight > 50)  # a point is a disc, not a dot
        covered = (
            (ink[:, 0] > boxes[:, :1] - near)
            & (ink[:, 0] < boxes[:, 2:3] + near)
            & (ink[:, 1] > boxes[:, 1:2] - near)
            & (ink[:, 1] < boxes[:, 3:] + near)
        )
        outside = (
            np.maximum(frame.x0 - boxes[:, 0], 0)
            + np.maximum(frame.y0 - boxes[:, 1], 0)
            + np.maximum(boxes[:, 2] - frame.x1, 0)
            + np.maximum(boxes[:, 3] - frame.y1, 0)
        )
        places.append(boxes)
        fixed.append(covered @ weight + 1000 * (outside > 0) + 10 * outside / scale + 0.35 * reach / scale)
    # A line to a far label should pass no other label and no other point.
    lines = [np.stack([_line(point, box) for box in boxes]) for point, boxes in zip(at, places, strict=True)]
    for index, line in enumerate(lines):
        others = np.delete(at, index, axis=0)
        apart = np.linalg.norm(line[:, :, None] - others[None, None], axis=-1)
        fixed[index] = fixed[index] + 12 * (apart.min(1) < 5 * scale).sum(1) if len(others) else fixed[index]

    chosen = [int(cost.argmin()) for cost in fixed]
    for _ in range(5):
        for index in range(len(rows)):
            cost = fixed[index].copy()
            for other in range(len(rows)):
                if other == index:
                    continue
                box, line = places[other][chosen[other]], lines[other][chosen[other]]
                cost += 2000 * _overlap(places[index], box)
                cost += 40 * _inside(line, places[index]) + 40 * np.array(
                    [_inside(each, box[None])[0] for each in lines[index]]
                )
            chosen[index] = int(cost.argmin())
    for index, text in enumerate(texts):
        box = places[index][chosen[index]]
        middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        text.set_position(tuple(axis.transData.inverted().transform(middle)))
        if reach[chosen[index]] > 12 * scale:
            line = axis.transData.inverted().transform(lines[index][chosen[index]][[0, -1]])
            axis.plot(line[:, 0], line[:, 1], color=colours[index], linewidth=0.6, alpha=0.7, zorder=3.5)
    return texts


def _line(point: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(12, 2) from the point to where the box is nearest."""
    nearest = np.clip(point, box[:2], box[2:])
    return np.linspace(point, nearest, 12)


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each of (n, 4) boxes meets the other one."""
    return (
        (boxes[:, 0] < other[2])
        & (boxes[:, 2] > other[0])
        & (boxes[:, 1] < other[3])
        & (boxes[:, 3] > other[1])
    )


def _inside(dots: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether any of the (m, 2) dots lies in each of (n, 4) boxes."""
    x, y = dots[:, 0], dots[:, 1]
    within = (x > boxes[:, :1]) & (x < boxes[:, 2:3]) & (y > boxes[:, 1:2]) & (y < boxes[:, 3:])
    return np.asarray(within.any(1))
