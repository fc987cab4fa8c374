"""The two charts of docs/performance.md, from the tables of benchmarks/performance.md; ``pages.py`` writes them."""

from __future__ import annotations

from collections.abc import Sequence

from blocks import Row, number
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from peakzoom.display.figures import BRANCH_COLOURS, INK, MUTED

# A light card with a frame, so that a chart stands on a dark page as well; type that is read at 390 pixels, too.
CARD, FRAME, GRID = "#f8fafc", "#cbd2d9", "#e4e7eb"
SIZE = 11
WAYS = {  # a column of the log: its name in the chart, its colour and its mark
    "as trained, ms": ("PyTorch", MUTED, "o"),
    "torch, ms": ("peakzoom", BRANCH_COLOURS["original"], "s"),
    "torch in bfloat16, ms": ("peakzoom, bfloat16", BRANCH_COLOURS["discriminative"], "D"),
}
GROWN = {  # what grows: its name, colour, mark, and where its name stands beside its last point
    "clips": ("clips in a batch", BRANCH_COLOURS["original"], "o"),
    "frames": ("frames", BRANCH_COLOURS["discriminative"], "s"),
    "videos": ("videos", BRANCH_COLOURS["complementary"], "D"),
    "size": ("pixels in a frame", BRANCH_COLOURS["fused"], "^"),
    "classes": ("classes", MUTED, "v"),
}


def card(height: float) -> tuple[Figure, Axes]:
    """An empty chart."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)  # inches to the frame
    figure = Figure(figsize=(5.6, height), layout=layout, facecolor=CARD, edgecolor=FRAME, linewidth=2)
    axis = figure.subplots()
    axis.set_facecolor(CARD)
    axis.tick_params(labelsize=SIZE, colors=INK)
    axis.grid(color=GRID)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def engines_chart(rows: Sequence[Row]) -> Figure:
    """Milliseconds for one clip, a line a network: PyTorch's modules, the engine, the engine in bfloat16."""
    names = [f"{row['network'].split(',')[0]}, {row['branches']}" for row in rows]
    figure, axis = card(0.8 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        ends = [number(row[column]) for column in WAYS]
        axis.plot((min(ends), max(ends)), (place, place), color=FRAME, linewidth=3, zorder=1)
    for column, (name, colour, mark) in WAYS.items():
        values = [number(row[column]) for row in rows]
        axis.scatter(values, range(len(rows)), color=colour, marker=mark, s=52, label=name, zorder=2)
    axis.set_xscale("log")
    axis.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
    axis.minorticks_off()
    axis.set_yticks(range(len(rows)), names)
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds for one clip (logarithmic)", fontsize=SIZE, color=INK)
    figure.legend(
        loc="outside upper center", ncols=3, fontsize=SIZE, frameon=False, handletextpad=0.2,
        columnspacing=1,
    )  # fmt: skip
    return figure


def growth_chart(rows: Sequence[Row]) -> Figure:
    """Time against size, both in multiples of the smallest, with a line for proportional growth."""
    figure, axis = card(3.9)
    axis.plot((1, 32), (1, 32), color=FRAME, linewidth=6, label="proportional", zorder=1)
    for what, (name, colour, mark) in GROWN.items():
        found = [row for row in rows if row["what"] == what]
        power = 2 if what == "size" else 1
        sizes = [number(row["value"]) ** power for row in found]
        times = [number(row["ms"]) for row in found]
        axis.plot(
            [size / sizes[0] for size in sizes], [time / times[0] for time in times], color=colour, marker=mark,
            markersize=7, linewidth=1.8, label=name,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [1, 2, 4, 8, 16, 32]
    axis.set_xticks([*ticks, 64], [f"{tick}x" for tick in (*ticks, 64)])
    axis.set_yticks(ticks, [f"{tick}x" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("size, in multiples of the smallest", fontsize=SIZE, color=INK)
    axis.set_ylabel("time, in multiples", fontsize=SIZE, color=INK)
    axis.legend(fontsize=SIZE, frameon=False, loc="upper left")
    return figure
