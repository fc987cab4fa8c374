"""What the command line writes: results to standard output, everything about the way there to standard error."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from peakzoom.utils.durable import DISK_LOST
from peakzoom.utils.errors import printable
from peakzoom.utils.system import DISK_FULL

PIPE_CLOSED = 141  # exit code where nobody reads the results: 128 + SIGPIPE
STANDARD_OUTPUT = "standard output"


class Unswallowed(Console):
    """Rich ends the process where nobody reads its lines; whether that is a result, :func:`results` knows."""

    def on_broken_pipe(self) -> None:
        """Raise the error on."""
        raise


# No markup and no emoji: a class may be called "[/b]" and a file ":+1:.mp4".
out_console = Unswallowed(markup=False, emoji=False, highlight=False)
err_console = Console(stderr=True, markup=False, emoji=False, highlight=False)


def _print(console: Console, text: str) -> None:
    """Each line as long as it is; progress bars make room for it. A terminal obeys nothing that stands in it."""
    with ExitStack() as stack:
        if bars := sys.modules.get("tqdm"):  # nobody has drawn one where it is not imported
            stack.enter_context(bars.tqdm.external_write_mode())
        console.print(_line_by_line(text), soft_wrap=True)


LEAST, MOST = 8, 10_000  # letters of a table's first column, and of a table


def _line_by_line(text: str) -> str:
    """Printable but for the line ends, which are ours."""
    return "\n".join(map(printable, text.split("\n")))


def say(line: str) -> None:
    """One line on the way, to standard error."""
    _print(err_console, printable(line))


def print_result(text: str) -> None:
    """Lines of a result, to standard output; a name in it that may hold line ends has to be made printable before."""
    with results():
        _print(out_console, text)


@contextmanager
def results() -> Iterator[None]:
    """What is written in the block are results: where nobody reads them any more, the command ends, as shells expect.

    Raises:
        OSError: standard output takes no more, and the error says so.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, *DISK_FULL, *DISK_LOST):
            raise
        # Python writes what is held back at its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # the program that reads our lines has ended, as head does
            sys.exit(PIPE_CLOSED)
        error.filename = STANDARD_OUTPUT
        raise


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], strong: str | None = None
) -> None:
    """A table as a result: its first column to the left, the others to the right, the row that is named strong bold.

    Where it is wider than the terminal, heads are broken at their spaces and the first column is folded. No other value
    is broken or cut: a line may then be longer than the terminal's.
    """
    filled = [(name, *values) for name, *values in rows]
    names = max((cell_len(printable(row[0])) for row in filled), default=0)
    for heads in (columns, _broken(columns)):
        table = _table(heads, filled, strong)
        natural = _natural_width(table)
        if natural <= out_console.width:
            break
    first = max(LEAST, names, *(cell_len(line) for line in heads[0].split("\n")))
    if natural - first + LEAST > out_console.width:  # no room for names, however they are folded
        table.width = natural - first + min(first, 2 * LEAST)
    with results():
        if title:  # a title of the table would be broken where the table is narrower
            out_console.print(_line_by_line(title), style="table.title", soft_wrap=True)
        out_console.print(table, soft_wrap=table.width is not None)


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether :func:`show_table` shows this on the terminal without folding a name."""
    return _natural_width(_table(_broken(columns), rows, None)) <= out_console.width


def _broken(columns: Sequence[str]) -> list[str]:
    """Heads broken at their spaces."""
    return [column.replace(" ", "\n") for column in columns]


def _natural_width(table: Table) -> int:
    """Letters of its longest line, were the terminal as wide as anybody likes."""
    return Measurement.get(out_console, out_console.options.update(max_width=MOST), table).maximum


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], strong: str | None) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        how: dict[str, Any] = (
            {"justify": "right", "no_wrap": True} if index else {"min_width": LEAST, "overflow": "fold"}
        )
        table.add_column("\n".join(map(_line_by_line, column.split("\n"))), **how)
    for row in rows:
        table.add_row(*map(printable, row), style="bold" if row[0] == strong else "")
    return table


class LogLines(logging.Handler):
    """Shows what the library logs, one line a record, as :func:`say` does: no level, no time, no wrapping."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message to standard error, and below it the error that comes with it, if one does."""
        message, *trace = self.format(record).split("\n") if record.exc_info else [self.format(record)]
        for line in (message, *trace):
            say(line)


def show_log() -> None:
    """Send the library's log to standard error, from level INFO on; once, however often it is called."""
    logger = logging.getLogger("peakzoom")
    if not any(isinstance(handler, LogLines) for handler in logger.handlers):
        logger.addHandler(LogLines())
    logger.setLevel(logging.INFO)
