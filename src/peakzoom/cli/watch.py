"""``peakzoom watch``: what happens in a long video, a stream or before a camera, while it runs."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from peakzoom.cli.console import INTERRUPTED, answer, say
from peakzoom.cli.options import EngineOptions, RunArg, grouped
from peakzoom.utils.durable import check_new_folder
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.watch.events import Event, EventFiles
    from peakzoom.apps.watch.records import Ended, Record

PIPE_CLOSED = 141  # exit code: 128 + SIGPIPE, as shells count
SOURCE_HELP = "Video file, address (rtsp://...), camera:0 or /dev/video0, or - for standard input."


@grouped
def watch(
    run: RunArg,
    source: Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder: JSON Lines, table of events, chapters.", show_default=False),
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="Seconds between windows' starts; default: half a window.")
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="Crops of a window; 1 is the middle.")] = 1,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Score from which on a window says its class.")
    ] = 0.5,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Class that is no event; may be given again.", show_default=False)
    ] = None,
    gap: Annotated[float, typer.Option(min=0.0, help="Seconds that an event may go over.")] = 0.0,
    live: Annotated[
        bool, typer.Option("--live", help="Play a file at its own speed; drop what does not keep up.")
    ] = False,
    lag: Annotated[
        float, typer.Option(min=0.0, help="Seconds of windows that may wait, of what is live.")
    ] = 2.0,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds of video.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes in a window's line.")] = 5,
    computing: EngineOptions,
) -> None:
    """Tell what happens in a video of any length, while it runs.

    Examples: `peakzoom watch runs/first match.mp4 --out match` and
    `peakzoom watch runs/first rtsp://camera.local/1 --ignore nothing`
    """
    start_early()
    from peakzoom.apps.watch import records as kinds
    from peakzoom.apps.watch import watch as library
    from peakzoom.apps.watch.source import Problem

    if out is not None:
        check_new_folder(out)
    lost, stop = False, threading.Event()
    records = library.watch(
        computing.load(run),
        source,
        every=every,
        crops=crops,
        threshold=threshold,
        ignore=ignore or [],
        gap=gap,
        live=live,
        lag=lag,
        seconds=seconds,
        stop=stop,
    )
    with ExitStack() as stack:
        stack.enter_context(_set_by_ctrl_c(stop))
        lines, files = _open_outputs(out, stack)
        try:
            for record in records:
                lines.write(json.dumps(kinds.to_line(record, top), allow_nan=False) + "\n")
                lines.flush()
                lost |= isinstance(record, Problem) and record.lost
                _tell(record, files)
        except BrokenPipeError:  # who reads our lines has seen enough, as head does
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # for what Python flushes at its end
            sys.exit(PIPE_CLOSED)
    if stop.is_set():
        sys.exit(INTERRUPTED)
    if lost:
        raise typer.Exit(1)


def _open_outputs(out: Path | None, stack: ExitStack) -> tuple[TextIO, EventFiles | None]:
    """Where JSON Lines go, and the table and chapters if there is a folder for them."""
    if out is None:
        return sys.stdout, None
    from peakzoom.apps.watch.events import EventFiles

    out.mkdir(parents=True, exist_ok=True)
    files = EventFiles(out)
    stack.callback(files.close)
    return stack.enter_context((out / "windows.jsonl").open("x", encoding="utf-8")), files


@contextmanager
def _set_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets the event, so that what was begun is ended properly; the second one interrupts."""

    def ask(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(record: Record, files: EventFiles | None) -> None:
    """What a person wants to know: events, where standard output is theirs, and what went wrong."""
    from peakzoom.apps.watch import records as kinds
    from peakzoom.apps.watch.events import Event, clock_time
    from peakzoom.apps.watch.source import Break, Problem

    if isinstance(record, Event) and files is not None:
        files.add(record)
        answer(_event_line(record))
    elif isinstance(record, Break | Problem):
        say(f"{clock_time(record.time)}  {record.reason}")
    elif isinstance(record, kinds.Dropped):
        say(
            f"{clock_time(record.start)}  behind by more than --lag: {record.windows} windows dropped, "
            f"up to {clock_time(record.end)}"
        )
    elif isinstance(record, kinds.Ended):
        say(_summary(record))


def _event_line(event: Event) -> str:
    from peakzoom.apps.watch.events import clock_time

    return f"{clock_time(event.start)}  {clock_time(event.end)}  {event.name}  {event.score:.4f}"


def _summary(ended: Ended) -> str:
    speed = f", {ended.speed:.2f} times real time" if math.isfinite(ended.speed) else ""
    return (
        f"{'stopped after' if ended.stopped else 'watched'} {ended.seconds:.3f} s in {ended.took:.3f} s{speed}: "
        f"{ended.windows} windows, {ended.dropped} dropped, {ended.events} events"
    )
