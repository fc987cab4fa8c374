"""How far long work is: a bar in a terminal, one in a notebook, and nothing where neither is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peakzoom.display.html import _block
from peakzoom.display.markup import escape_html

Told: TypeAlias = Callable[[int, int], None]  # called with (done, all)
REDRAW = 0.2  # seconds between two states of a notebook's bar, each of which is a message to the browser


def in_notebook() -> bool:
    """Whether output goes to a Jupyter notebook, or to one like it."""
    return Console().is_jupyter


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal that can redraw a line, or this is a notebook.

    A terminal's own word counts, and not that colours are forced (``FORCE_COLOR``): a log file has no use for a bar.
    """
    return in_notebook() or (sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal)


@contextmanager
def progress_bar(title: str, show: bool | Told = True) -> Iterator[Told]:
    """A function to call with (done, all); what it is told is shown and, at the end, wiped away.

    Args:
        title: what is being done, unformatted.
        show: False shows nothing; a function is told instead.
    """
    if callable(show):
        yield show
    elif not show or not is_watched():
        yield _unseen
    elif in_notebook():
        with _in_notebook(title) as told:
            yield told
    else:
        with _in_terminal(title) as told:
            yield told


def _unseen(done: int, total: int) -> None:
    pass


@contextmanager
def _in_terminal(title: str) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # What is printed meanwhile goes above the bar, but never from standard output into standard error's stream: the
    # one may be a file while the other is a terminal.
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# Not rich's: that needs ipywidgets, and without them it shows a warning in place of the bar.
@contextmanager
def _in_notebook(title: str) -> Iterator[Told]:
    from IPython.display import HTML, display

    handle: Any = display(HTML(progress_html(title, 0, None)), display_id=True)
    drawn = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal drawn
        if done == total or time.monotonic() - drawn >= REDRAW:
            drawn = time.monotonic()
            handle.update(HTML(progress_html(title, done, total)))

    try:
        yield told
    finally:
        handle.update(HTML(""))


def progress_html(title: str, done: int, total: int | None) -> str:
    """A bar of how far work is."""
    state = "" if total is None else f' value="{done}" max="{total}"'
    count = "" if total is None else f" {done} of {total}"
    return _block(f"{escape_html(title)} <progress{state}></progress>{count}")
