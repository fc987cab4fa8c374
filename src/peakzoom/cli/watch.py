"""``peakzoom watch``: what happens in a long video, a stream or before a camera, while it runs."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from peakzoom.apps.watch.options import WatchOptions
from peakzoom.cli.console import INTERRUPTED, answer, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.options import EngineOptions, RunArg, output_option
from peakzoom.utils.durable import check_new_folder
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.watch.events import EventFiles
    from peakzoom.apps.watch.records import Ended, Record

PIPE_CLOSED = 141  # exit code: 128 + SIGPIPE, as shells count
SOURCE_HELP = "Video file, address (rtsp://...), camera:0 or /dev/video0, or - for standard input."


window_option = partial(typer.Option, rich_help_panel="Windows")
event_option = partial(typer.Option, rich_help_panel="Events")


@dataclass(frozen=True)
class WatchGroup:
    """The fields of :class:`peakzoom.apps.watch.options.WatchOptions` as options."""

    every: Annotated[
        float | None, window_option(help="Seconds between windows' starts.", show_default="half a window")
    ] = WatchOptions.every
    crops: Annotated[int, window_option(min=1, help="Crops of a window; 1 is the middle.")] = (
        WatchOptions.crops
    )
    live: Annotated[bool, window_option(help="Play a file at its own speed; drop what does not keep up.")] = (
        WatchOptions.live
    )
    lag: Annotated[
        float, window_option(min=0.0, help="Seconds of windows that may wait, of a live source.")
    ] = WatchOptions.lag
    seconds: Annotated[float | None, window_option(help="Stop after so many seconds of video.")] = (
        WatchOptions.seconds
    )
    threshold: Annotated[
        float, event_option(min=0.0, max=1.0, help="Lowest score at which a window has a class.")
    ] = WatchOptions.threshold
    ignore: Annotated[
        list[str] | None, event_option(help="Class that is no event; may be given again.", show_default=False)
    ] = None
    gap: Annotated[float, event_option(min=0.0, help="Seconds that an event may bridge.")] = WatchOptions.gap


@grouped
def watch(
    run: RunArg,
    source: Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)],
    *,
    watching: WatchGroup,
    computing: EngineOptions,
    out: Annotated[
        Path | None,
        output_option(help="New folder: JSON Lines, table of events, chapters.", show_default=False),
    ] = None,
    top: Annotated[int, output_option(min=1, help="Classes in a window's line.")] = 5,
) -> None:
    """Report what happens in a video of any length, while it runs.

    Examples: `peakzoom watch runs/first match.mp4 --out match` and
    `peakzoom watch runs/first rtsp://camera.local/1 --ignore nothing`
    """
    start_early()
    from peakzoom.apps.watch.watch import watch

    if out is not None:
        check_new_folder(out)
    stop = threading.Event()
    options = WatchOptions(**{**vars(watching), "ignore": watching.ignore or ()})
    lost = _write(watch(computing.load(run), source, options, stop=stop), out, top, stop)
    if stop.is_set():
        sys.exit(INTERRUPTED)
    if lost:
        raise typer.Exit(1)


def _write(records: Iterable[Record], out: Path | None, top: int, stop: threading.Event) -> bool:
    """Write records as they come; returns whether some of the video was lost."""
    from peakzoom.apps.watch.records import SourceProblem, to_line

    lost = False
    with ExitStack() as stack:
        stack.enter_context(_set_by_ctrl_c(stop))
        lines, files = _open_outputs(out, stack)
        try:
            for record in records:
                lines.write(json.dumps(to_line(record, top), allow_nan=False) + "\n")
                lines.flush()
                lost |= isinstance(record, SourceProblem) and record.lost
                _show(record, files)
        except BrokenPipeError:  # the program that reads our lines has ended, as head does
            # Python flushes standard output at its end, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(PIPE_CLOSED)
    return lost


def _open_outputs(out: Path | None, stack: ExitStack) -> tuple[TextIO, EventFiles | None]:
    """Where JSON Lines are written, and the table and chapters if there is a folder for them."""
    if out is None:
        return sys.stdout, None
    from peakzoom.apps.watch.events import EventFiles

    out.mkdir(parents=True, exist_ok=True)
    files = EventFiles(out)
    stack.callback(files.close)
    return stack.enter_context((out / "windows.jsonl").open("x", encoding="utf-8")), files


@contextmanager
def _set_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets the event, so that the watch ends in order; the second one interrupts."""

    def handle(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(record: Record, files: EventFiles | None) -> None:
    """Show events, where standard output is free for them, breaks, problems, dropped windows and the summary."""
    from peakzoom.apps.watch.events import Event, clock_time
    from peakzoom.apps.watch.records import Break, Dropped, Ended, SourceProblem

    if isinstance(record, Event) and files is not None:
        files.add(record)
        times = f"{clock_time(record.start)}  {clock_time(record.end)}"
        answer(f"{times}  {record.name}  {record.score:.4f}")
    elif isinstance(record, Break | SourceProblem):
        say(f"{clock_time(record.time)}  {record.reason}")
    elif isinstance(record, Dropped):
        say(
            f"{clock_time(record.start)}  behind by more than --lag: {record.windows} windows dropped, "
            f"up to {clock_time(record.end)}"
        )
    elif isinstance(record, Ended):
        say(_summary(record))


def _summary(ended: Ended) -> str:
    speed = f", {ended.speed:.2f} times real time" if math.isfinite(ended.speed) else ""
    return (
        f"{'stopped after' if ended.stopped else 'watched'} {ended.seconds:.3f} s in {ended.took:.3f} s{speed}: "
        f"{ended.windows} windows, {ended.dropped} dropped, {ended.events} events"
    )
