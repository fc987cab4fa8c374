"""What the command line writes: results to standard output, everything about the way there to standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

# No markup and no emoji: a class may be called "[/b]" and a file ":+1:.mp4".
out_console = Console(markup=False, emoji=False, highlight=False)
err_console = Console(stderr=True, markup=False, emoji=False, highlight=False)


def _print(console: Console, text: str) -> None:
    """Each line as long as it is; progress bars make room for it."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        console.print(text, soft_wrap=True)


def say(line: str) -> None:
    """One line on the way, to standard error."""
    _print(err_console, line)


def print_result(text: str) -> None:
    """Lines of a result, to standard output."""
    _print(out_console, text)


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], strong: str | None = None
) -> None:
    """A table as a result: its first column to the left, the others to the right, the row that is named strong bold."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for name, *values in rows:
        table.add_row(*map(str, (name, *values)), style="bold" if name == strong else "")
    out_console.print(table)


class LogLines(logging.Handler):
    """Shows what the library logs, one line a record, as :func:`say` does: no level, no time, no wrapping."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message to standard error."""
        say(self.format(record))


def show_log() -> None:
    """Send the library's log to standard error, from level INFO on; once, however often it is called."""
    logger = logging.getLogger("peakzoom")
    if not any(isinstance(handler, LogLines) for handler in logger.handlers):
        logger.addHandler(LogLines())
    logger.setLevel(logging.INFO)
