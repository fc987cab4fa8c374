"""Tables 2 to 4 of the paper for any experiment: one row a network, as Markdown to read and CSV to compute with.

The Markdown rounds; the CSV has every digit. Accuracies are in [0, 1] in a :class:`Row` and in the CSV, and in percent
in the Markdown; differences are in points everywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peakzoom.model.config import BRANCHES, LETTERS


@dataclass(frozen=True)
class Row:
    """One network in one table. What was not measured is None, and an empty cell."""

    label: str  # what a reader calls it
    model: str  # the backbone; rows of one backbone belong together in a picture
    branches: tuple[str, ...]
    runs: int  # trained networks behind the figures: folds x seeds
    accuracy: float  # fused, pooled over folds, mean over seeds
    spread: float | None  # sample standard deviation over seeds; None for one seed
    interval: tuple[float, float]  # 95%, by bootstrap
    branch_accuracies: dict[str, float]  # of each branch and "fused"
    nll: float | None = None  # mean negative log-likelihood of the label by the fused scores, in nats
    macs: float | None = None  # G multiply-adds of one clip
    parameters: int | None = None
    ms: tuple[float, float, float] | None = None  # milliseconds for one clip: median, fastest, slowest
    difference: float | None = None  # accuracy less the baseline's, in points
    difference_interval: tuple[float, float] | None = None  # 95%, in points
    p: float | None = None  # of the paired test against the baseline
    baseline: str | None = None  # label of the row that it is compared with


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _figures(value: float, count: int) -> str:
    """A number with so many significant figures, trailing zeros included."""
    return f"{value:#.{count}g}".rstrip(".")


def _accuracy(row: Row) -> str:
    return _percent(row.accuracy) + ("" if row.spread is None else f" ± {_percent(row.spread)}")


def _ms(row: Row) -> str:
    if row.ms is None:
        return ""
    median, low, high = (f"{value:.0f}" if row.ms[0] >= 10 else f"{value:.2f}" for value in row.ms)
    return f"{median} ({low} to {high})"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    text = _points(row.difference)
    if row.difference_interval is not None:
        low, high = row.difference_interval
        text += f" ({_points(low)} to {_points(high)})"
    return text


def _points(value: float) -> str:
    """A number with its sign; 0, and what rounds to it, has none."""
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def _p(row: Row) -> str:
    if row.p is None:
        return ""
    if row.p < 0.001:
        return "< 0.001"
    return f"{row.p:.3f}" if row.p < 0.1 else f"{row.p:.2f}"


def _branch(name: str) -> Callable[[Row], str]:
    return lambda row: _percent(row.branch_accuracies.get(name))


# Of each column: its head, and a row's cell.
COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "label": ("network", lambda row: row.label),
    "model": ("backbone", lambda row: row.model),
    "branches": ("branches", lambda row: "+".join(LETTERS.get(name, name) for name in row.branches)),
    "runs": ("runs", lambda row: str(row.runs)),
    "accuracy": ("accuracy, %", _accuracy),
    "interval": ("95% interval", lambda row: f"{_percent(row.interval[0])} to {_percent(row.interval[1])}"),
    **{name: (letter, _branch(name)) for name, letter in LETTERS.items()},
    "fused": ("fused", _branch("fused")),
    "spread": ("seed spread", lambda row: _percent(row.spread)),
    "nll": ("NLL, nats", lambda row: "" if row.nll is None else f"{row.nll:.3f}"),
    "macs": ("G multiply-adds", lambda row: "" if row.macs is None else _figures(row.macs, 4)),
    "parameters": (
        "M parameters",
        lambda row: "" if row.parameters is None else _figures(row.parameters / 1e6, 3),
    ),
    "ms": ("ms a clip", _ms),
    "difference": ("difference, points", _difference),
    "p": ("p", _p),
    "baseline": ("against", lambda row: row.baseline or ""),
}
TEXT = ("label", "model", "branches", "baseline")  # aligned left; figures are aligned right

# Columns of the paper's Tables 2 and 3, and of Table 4.
COMPARISON = ("label", "accuracy", "interval", "nll", "macs", "parameters", "ms", "difference", "p")
ABLATION = ("label", *BRANCHES, "fused", "spread", "interval", "nll", "difference", "p")


def to_markdown(
    rows: Sequence[Row],
    columns: Sequence[str] = COMPARISON,
    title: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """A table in GitHub's Markdown, with a heading above and paragraphs below where there are any.

    Args:
        rows: from top to bottom.
        columns: keys of ``COLUMNS``, from left to right.
        title: without the signs of a heading.
        notes: one paragraph each, such as when and by which command the figures were made.

    Raises:
        ValueError: a column is unknown, or there are none.
    """
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not columns:
        raise ValueError(f"columns are {list(columns)}, expected some of {', '.join(COLUMNS)}")
    lines = [
        _line([COLUMNS[name][0] for name in columns]),
        _line(["---" if name in TEXT else "---:" for name in columns]),
        *(_line([COLUMNS[name][1](row) for name in columns]) for row in rows),
    ]
    parts = [*([f"## {title}"] if title else []), "\n".join(lines), *notes]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    # As an entity, for a backslash before a pipe means different things to different readers of Markdown.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "&#124;") for cell in cells) + " |"


def to_csv(rows: Sequence[Row]) -> str:
    """All values of the rows, in full precision: a header line, then one line a row; None is an empty cell.

    Accuracies, spread and interval are in [0, 1]; ``branches`` are joined by "+".
    """
    branches = list(
        dict.fromkeys([*BRANCHES, "fused", *(name for row in rows for name in row.branch_accuracies)])
    )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["label", "model", "branches", "runs", "accuracy", "spread", "low", "high", *branches, "nll"]
        + ["multiply_adds_g", "parameters", "ms_median", "ms_low", "ms_high"]
        + ["difference", "difference_low", "difference_high", "p", "baseline"]
    )
    for row in rows:
        cells = [row.label, row.model, "+".join(row.branches), row.runs, row.accuracy, row.spread]
        cells += [*row.interval, *(row.branch_accuracies.get(name) for name in branches), row.nll]
        cells += [row.macs, row.parameters, *(row.ms or (None,) * 3)]
        cells += [row.difference, *(row.difference_interval or (None,) * 2), row.p, row.baseline]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()
