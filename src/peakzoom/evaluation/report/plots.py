"""Pictures of a report. Matplotlib, without a display; names are shown letter by letter, never read as formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peakzoom.display.figures import BRANCH_COLOURS, BRANCH_MARKERS, COLOURS, INK, MUTED, shortened
from peakzoom.display.fonts import with_fonts
from peakzoom.evaluation.report.numbers import Bin
from peakzoom.evaluation.report.thresholds import Curves
from peakzoom.evaluation.stats import FEW, Share, share


def plot_shares(
    panels: Mapping[str, Sequence[tuple[str, Share]]], file: Path, xlabel: str = "accuracy, 95% interval"
) -> None:
    """Shares of some videos as points with their intervals, as a PNG.

    Args:
        panels: by title, from left to right; label and share of each row, from top to bottom.
        file: where the PNG goes.
        xlabel: below each panel.
    """
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(4.6 * len(panels) + 1.2, 0.34 * most + 1.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        for place, (_, found) in enumerate(rows):
            ends = np.array([found.low, found.high], float)
            axis.plot(ends, [place, place], color=MUTED, linewidth=2, solid_capstyle="round")
            axis.plot(found.value, place, "o", color=COLOURS["train"], markersize=7)
        axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=9, parse_math=False)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlabel(xlabel, fontsize=9)
        axis.set_title(title, color=INK, fontsize=10)
        _share_axis(axis, "x")
    figure.savefig(file, dpi=110)


def plot_lines(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    file: Path,
    xlabel: str,
    ylabel: str = "accuracy",
) -> None:
    """A share for each branch at a few named places of the x axis, as a PNG."""
    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    axis = figure.subplots()
    # Side by side, for branches often have the same accuracy.
    shifts = [0.07 * (place - (len(series) - 1) / 2) for place in range(len(series))]
    for shift, (name, values) in zip(shifts, series.items(), strict=True):
        axis.plot(
            [place + shift for place in range(len(labels))],
            values,
            color=BRANCH_COLOURS[name],
            marker=BRANCH_MARKERS[name],
            markersize=6,
            linewidth=1.3,
            alpha=0.9,
            label=name,
        )
    axis.set_xticks(range(len(labels)), labels, fontsize=9)
    axis.set_xlim(-0.4, len(labels) - 0.6)
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    # Differences between numbers of views are small: the axis shows the range that occurs.
    found = [value for values in series.values() for value in values]
    room = max(0.02, 0.15 * (max(found) - min(found)))
    axis.set_ylim(max(-0.02, min(found) - room), min(1.02, max(found) + room))
    axis.yaxis.set_major_formatter("{x:.1%}")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(file, dpi=110)


def plot_reliability(bins: Sequence[Bin], file: Path) -> None:
    """Accuracy against the score of the prediction, with the number of videos below, as a PNG.

    The line goes through bins of at least ``FEW`` videos; smaller ones are hollow points, for nothing can be read from
    their order. Bars are Wilson's intervals.
    """
    figure = Figure(figsize=(4.8, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="score = accuracy")
    found = [each for each in bins if each.videos]
    for each in found:
        interval = share(round((each.accuracy or 0.0) * each.videos), each.videos)
        top.plot(
            [each.score] * 2, [interval.low, interval.high], color=MUTED, linewidth=1.2, alpha=0.6, zorder=1
        )
    enough = np.array([(each.score, each.accuracy) for each in found if each.videos >= FEW], float)
    few = np.array([(each.score, each.accuracy) for each in found if each.videos < FEW], float)
    blue = COLOURS["train"]
    if len(enough):
        top.plot(*enough.T, "o-", color=blue, linewidth=1.4, markersize=6, label=f"{FEW} videos or more")
    if len(few):
        top.plot(*few.T, "o", color=blue, fillstyle="none", markersize=6, label="fewer")
    top.set_ylabel("accuracy, bars: 95% interval", fontsize=9)
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8
    )
    counts = [each.videos for each in found]
    bottom.bar([each.score or 0.0 for each in found], counts, width=0.028, color=blue)
    bottom.set_ylabel("videos", fontsize=9)
    bottom.set_ylim(0, max(counts) * 1.1)
    bottom.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    bottom.set_xlabel("score of the prediction (mean of each of 15 bins)", fontsize=9)
    _share_axis(top, "y")
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.set_xlim(-0.02, 1.02)
    bottom.xaxis.set_major_formatter("{x:.0%}")
    figure.savefig(file, dpi=110)


def plot_thresholds(curves: Curves, file: Path) -> None:
    """Recall, precision and false alarms against the threshold, and against one another, as a PNG."""
    figure = Figure(figsize=(10.6, 3.6), layout="constrained")
    by_threshold, tradeoff, roc = figure.subplots(1, 3)
    series = {
        "recall": (curves.recall, COLOURS["train"], "-"),
        "precision": (curves.precision, COLOURS["val"], "--"),
        "false alarms, of the other videos": (curves.false_alarms, INK, ":"),
    }
    for name, (values, colour, line) in series.items():
        by_threshold.step(
            curves.thresholds, values, where="post", color=colour, linestyle=line, linewidth=1.6, label=name
        )
    by_threshold.legend(frameon=False, fontsize=8, loc="best")
    by_threshold.set_xlabel("threshold of the score", fontsize=9)
    tradeoff.plot(curves.recall, curves.precision, color=COLOURS["train"], linewidth=1.6)
    random = curves.videos / (curves.videos + curves.others)
    tradeoff.axhline(random, color=MUTED, linewidth=1, linestyle="--", label="at random")
    tradeoff.set(xlabel="recall", ylabel="precision")
    roc.step(
        [0, *curves.false_alarms], [0, *curves.recall], where="post", color=COLOURS["train"], linewidth=1.6
    )
    roc.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="at random")
    roc.set(xlabel="false alarms, of the other videos", ylabel="recall (ROC)")
    for axis in (tradeoff, roc):
        axis.legend(frameon=False, fontsize=8, loc="lower right" if axis is roc else "best")
    for axis in (by_threshold, tradeoff, roc):
        _share_axis(axis, "x")
        _share_axis(axis, "y")
    figure.savefig(file, dpi=110)


def plot_branches_by_class(classes: Sequence[str], series: Mapping[str, Sequence[float]], file: Path) -> None:
    """Accuracy of each branch in each class, a row a class, first on top, as a PNG."""
    figure = Figure(figsize=(7.6, 0.19 * len(classes) + 1.2), layout="constrained")
    axis = figure.subplots()
    for row in range(len(classes)):
        here = [values[row] for values in series.values()]
        axis.plot([min(here), max(here)], [row, row], color="#cbd2d9", linewidth=2, zorder=1)
    # Hollow signs of falling size, one in the other, can be told apart where they lie on one place.
    sizes = (105, 52, 24, 8)[-len(series) :]
    for place, (size, (name, values)) in enumerate(zip(sizes, series.items(), strict=True)):
        axis.scatter(
            values,
            range(len(classes)),
            s=size,
            marker=BRANCH_MARKERS[name],
            facecolors="none" if place < len(series) - 1 else BRANCH_COLOURS[name],
            edgecolors=BRANCH_COLOURS[name],
            linewidths=1.2,
            label=name,
            zorder=2 + place,
        )
    axis.set_yticks(range(len(classes)), [shortened(name) for name in classes], fontsize=8, parse_math=False)
    axis.set_ylim(len(classes) - 0.4, -0.6)
    axis.set_xlabel("accuracy", fontsize=9)
    _share_axis(axis, "x")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    with_fonts(figure).savefig(file, dpi=110)


def _share_axis(axis: Axes, which: Literal["x", "y"]) -> None:
    """An axis from 0% to 100%."""
    axis.set(**{f"{which}lim": (-0.02, 1.02)})
    (axis.xaxis if which == "x" else axis.yaxis).set_major_formatter("{x:.0%}")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
