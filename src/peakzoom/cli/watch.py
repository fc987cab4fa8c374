"""``peakzoom watch``: what happens in a long video, a stream or before a camera, while it runs."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeAlias

import typer

from peakzoom.apps.watch.options import WatchOptions, event_option
from peakzoom.cli.console import print_result, results, say
from peakzoom.cli.events import with_rule
from peakzoom.cli.grouped import grouped
from peakzoom.cli.options import RunArg, ScoreOptions, output_option
from peakzoom.cli.stop import INTERRUPTED
from peakzoom.utils.durable import check_new_folder, explain_full_disk
from peakzoom.utils.errors import printable
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.watch.events import Event
    from peakzoom.apps.watch.records import Record

    AddEvent: TypeAlias = Callable[[Event], None]

SOURCE_HELP = "Video file, address (rtsp://...), camera:0 or /dev/video0, or - for standard input."


@grouped
def watch(
    run: RunArg,
    source: Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)],
    *,
    watching: WatchOptions,
    computing: ScoreOptions,
    out: Annotated[
        Path | None,
        output_option(help="New folder: JSON Lines, table of events, chapters.", show_default=False),
    ] = None,
    rule: Annotated[
        bool,
        event_option(help="Take the rule of 'peakzoom calibrate --events', unless an option of it is given."),
    ] = True,
    top: Annotated[int, output_option(min=1, help="Classes in a window's line.")] = 5,
) -> None:
    """Report what happens in a video of any length, while it runs.

    Examples: `peakzoom watch runs/first match.mp4 --out match` and
    `peakzoom watch runs/first rtsp://camera.local/1 --ignore nothing`
    """
    start_early()
    from peakzoom.apps.watch.records import SourceProblem, to_line
    from peakzoom.apps.watch.watch import watch

    if out is not None:
        check_new_folder(out)
    stop, lost = threading.Event(), False
    recognizer = computing.load(run)
    if rule and watching.plain:
        watching = with_rule(run, recognizer, watching)
    records = watch(recognizer, source, watching, stop=stop)
    with _set_by_ctrl_c(stop), _outputs(out) as (lines, add_event):
        for record in records:
            lines.write(json.dumps(to_line(record, top), allow_nan=False) + "\n")
            lines.flush()
            lost |= isinstance(record, SourceProblem) and record.lost
            _show(record, add_event)
    if stop.is_set():
        sys.exit(INTERRUPTED)
    if lost:
        raise typer.Exit(1)


@contextmanager
def _outputs(out: Path | None) -> Iterator[tuple[TextIO, AddEvent | None]]:
    """Where JSON Lines are written, and what adds to the table and chapters if there is a folder for them."""
    if out is None:
        with results():
            yield sys.stdout, None
        return
    from peakzoom.apps.watch.events import event_files

    with explain_full_disk(out, "watch again, into a new folder"):
        out.mkdir(parents=True, exist_ok=True)
        with event_files(out) as add_event, (out / "windows.jsonl").open("x", encoding="utf-8") as lines:
            yield lines, add_event


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


def _show(record: Record, add_event: AddEvent | None) -> None:
    """Show events, where standard output is free for them, breaks, problems, dropped windows and the summary."""
    from peakzoom.apps.watch.events import Event, clock_time
    from peakzoom.apps.watch.records import Break, Dropped, Ended, SourceProblem

    if isinstance(record, Event) and add_event:
        add_event(record)
        times = f"{clock_time(record.start)}  {clock_time(record.end)}"
        print_result(f"{times}  {printable(record.name)}  {record.score:.4f}")
    elif isinstance(record, Break | SourceProblem):
        say(f"{clock_time(record.time)}  {record.reason}")
    elif isinstance(record, Dropped):
        say(
            f"{clock_time(record.start)}  behind by more than --lag: {record.windows} windows dropped, "
            f"up to {clock_time(record.end)}"
        )
    elif isinstance(record, Ended):
        say(
            f"{'stopped after' if record.stopped else 'watched'} {record.seconds:.3f} s in {record.took:.3f} s, "
            f"{record.speed:.2f} times real time: "
            f"{record.windows} windows, {record.dropped} dropped, {record.events} events"
        )
