"""How far long work is: a bar in a terminal or a notebook, and nothing where nobody watches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]  # is called with (done, all)


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal that can redraw a line, or this is a notebook.

    A terminal's own word counts, and not that colours are forced (``FORCE_COLOR``): a log file has no use for a bar.
    """
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_jupyter or (sys.stderr.isatty() and not console.is_dumb_terminal)


@contextmanager
def progress_bar(title: str, show: bool | Progress = True) -> Iterator[Progress]:
    """A function to call with (done, all), which draws a bar; the bar is wiped away at the end.

    With ``show`` False nothing is drawn; a function is called in place of drawing.
    """
    if callable(show):
        yield show
        return
    with warnings.catch_warnings():
        # A notebook without ipywidgets: the bar is drawn as text, one line, and nothing has to be installed.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    with tqdm(desc=title, leave=False, dynamic_ncols=True, disable=not (show and is_watched())) as bar:

        def draw(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield draw
