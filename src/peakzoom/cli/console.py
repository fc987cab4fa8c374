"""What the command line writes: results to standard output, everything about the way there to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peakzoom.video.parallel import tenths

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT, as shells count

# No markup and no emoji: a class may be called "[/b]" and a file ":+1:.mp4".
out_console = Console(markup=False, emoji=False, highlight=False)
err_console = Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(line: str) -> None:
    """One line on the way, to standard error."""
    err_console.print(line, soft_wrap=True)


def answer(text: str) -> None:
    """Lines of a result, to standard output, each as long as it is."""
    out_console.print(text, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal, a line every tenth elsewhere."""
    if not err_console.is_terminal:
        yield tenths(say, f"{title}: ")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
