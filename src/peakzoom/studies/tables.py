"""Tables 2 to 4 of the paper for any experiment: one row a network, as Markdown to read and CSV to compute with.

The Markdown rounds; the CSV has every digit. Accuracies are in [0, 1] in a :class:`TableRow` and in the CSV, and in
percent in the Markdown; differences are in points everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peakzoom.evaluation.stats import PairedTest
from peakzoom.inference.cost import Timing
from peakzoom.model.config import BRANCHES, LETTERS
from peakzoom.utils.durable import write_csv


@dataclass(frozen=True)
class Cost:
    """What one network costs for one clip."""

    macs: float  # G multiply-adds
    parameters: int
    timing: Timing


@dataclass(frozen=True)
class TableRow:
    """One network in one table."""

    label: str  # what a reader calls it
    model: str  # the backbone; rows of one backbone belong together in a picture
    branches: tuple[str, ...]
    runs: int  # trained networks behind the figures: folds x seeds
    accuracy: float  # fused, pooled over folds, mean over seeds
    spread: float | None  # sample standard deviation over seeds; None for one seed
    interval: tuple[float, float]  # 95%, by bootstrap
    branch_accuracies: dict[str, float]  # of each branch and "fused"
    nll: float  # mean negative log-likelihood of the label by the fused scores, in nats
    cost: Cost | None = None  # where it was measured
    baseline: str | None = None  # label of the row that it is compared with
    test: PairedTest | None = None  # against that row, in points


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    """A number with its sign; 0, and what rounds to it, has none."""
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def _figures(value: float, count: int) -> str:
    """A number with so many significant figures, trailing zeros included."""
    return f"{value:#.{count}g}".rstrip(".")


def _accuracy(row: TableRow) -> str:
    return _percent(row.accuracy) + ("" if row.spread is None else f" ± {_percent(row.spread)}")


def _milliseconds(cost: Cost) -> str:
    time = cost.timing
    median, low, high = (f"{value:.0f}" if time.median >= 10 else f"{value:.2f}" for value in time)
    return f"{median} ({low} to {high})"


def shown_difference(test: PairedTest) -> str:
    """In points, with its interval."""
    low, high = test.interval
    return f"{_points(test.difference)} ({_points(low)} to {_points(high)})"


def shown_p(test: PairedTest) -> str:
    """A p value with as many digits as mean something."""
    return "< 0.001" if test.p < 0.001 else f"{test.p:.3f}" if test.p < 0.1 else f"{test.p:.2f}"


def _of_branch(name: str) -> Callable[[TableRow], str]:
    return lambda row: _percent(row.branch_accuracies.get(name))


def _of_cost(text: Callable[[Cost], str]) -> Callable[[TableRow], str]:
    return lambda row: text(row.cost) if row.cost else ""


def _of_test(text: Callable[[PairedTest], str]) -> Callable[[TableRow], str]:
    return lambda row: text(row.test) if row.test else ""


# Of each column: its head, and a row's cell.
TABLE_COLUMNS: dict[str, tuple[str, Callable[[TableRow], str]]] = {
    "label": ("network", lambda row: row.label),
    "accuracy": ("accuracy, %", _accuracy),
    "interval": ("95% interval", lambda row: " to ".join(map(_percent, row.interval))),
    **{name: (letter, _of_branch(name)) for name, letter in LETTERS.items()},
    "fused": ("fused", _of_branch("fused")),
    "spread": ("seed spread", lambda row: _percent(row.spread)),
    "nll": ("NLL, nats", lambda row: f"{row.nll:.3f}"),
    "macs": ("G multiply-adds", _of_cost(lambda cost: _figures(cost.macs, 4))),
    "parameters": ("M parameters", _of_cost(lambda cost: _figures(cost.parameters / 1e6, 3))),
    "ms": ("ms a clip", _of_cost(_milliseconds)),
    "difference": ("difference, points", _of_test(shown_difference)),
    "p": ("p", _of_test(shown_p)),
}

# Columns of the paper's Tables 2 and 3, and of Table 4.
COMPARISON_COLUMNS = ("label", "accuracy", "interval", "nll", "macs", "parameters", "ms", "difference", "p")
ABLATION_COLUMNS = ("label", *BRANCHES, "fused", "spread", "interval", "nll", "difference", "p")
# Heads of those that a terminal of 80 columns shows; G are multiply-adds in 10^9.
NARROW = {
    "label": "network",
    "accuracy": "accuracy",
    "fused": "fused",
    "interval": "95% interval",
    "macs": "G",
    "difference": "difference",
    "p": "p",
}


@dataclass(frozen=True)
class Table:
    """A head and rows as they are shown; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """As GitHub reads it, without a line end behind it."""
        marks = ("---", *("---:" for _ in self.head[1:]))
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.head, marks, *self.rows))


def shown_table(
    rows: Sequence[TableRow], columns: Sequence[str], heads: Mapping[str, str] | None = None
) -> Table:
    """Some of ``TABLE_COLUMNS``, under heads of their own or others."""
    return Table(
        tuple(heads[name] if heads else TABLE_COLUMNS[name][0] for name in columns),
        tuple(tuple(TABLE_COLUMNS[name][1](row) for name in columns) for row in rows),
    )


def to_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables in GitHub's Markdown, with the notes as paragraphs below them."""
    return "\n\n".join([*(table.to_markdown() for table in tables), *notes]) + "\n"


def write_rows(file: Path, rows: Sequence[TableRow]) -> None:
    """All values of the rows as CSV; what was not measured is an empty cell.

    Accuracies, spread and interval are in [0, 1]; ``branches`` are joined by "+".
    """
    branches = (*BRANCHES, "fused")
    head = ["label", "model", "branches", "runs", "accuracy", "spread", "low", "high", *branches, "nll"]
    head += ["multiply_adds_g", "parameters", "ms_median", "ms_low", "ms_high"]
    head += ["difference", "difference_low", "difference_high", "p", "baseline"]
    lines = []
    for row in rows:
        cost, test = row.cost, row.test
        cells = [row.label, row.model, "+".join(row.branches), row.runs, row.accuracy, row.spread]
        cells += [*row.interval, *map(row.branch_accuracies.get, branches), row.nll]
        cells += [cost.macs, cost.parameters] if cost else [None] * 2
        cells += [*cost.timing] if cost else [None] * 3
        cells += [test.difference, *test.interval, test.p] if test else [None] * 4
        lines.append([*cells, row.baseline])
    write_csv(file, head, lines)
