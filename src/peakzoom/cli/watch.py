"""``peakzoom watch``: what happens in long videos, streams and before cameras, while they run."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from peakzoom.apps.watch.evidence.options import EvidenceOptions
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.cli.console import print_result, results, say
from peakzoom.cli.events import TakenRule
from peakzoom.cli.grouped import grouped
from peakzoom.cli.options import RunArg, ScoreOptions, output_option
from peakzoom.cli.stop import INTERRUPTED
from peakzoom.utils.durable import check_new_folder, explain_full_disk
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.extras import needed_for
from peakzoom.utils.words import counted
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.watch.evidence.recorder import Recorder
    from peakzoom.apps.watch.folder import WatchFolder
    from peakzoom.apps.watch.health import Health
    from peakzoom.apps.watch.past import Past
    from peakzoom.apps.watch.records import Record
    from peakzoom.inference.recognizer import Recognizer

    Write: TypeAlias = Callable[[Record, Recorder | None], None]

SOURCE_HELP = (
    "Video file, address (rtsp://...), camera:0 or /dev/video0, or - for standard input. "
    "Several are watched in turns."
)


@grouped
def watch(
    run: RunArg,
    sources: Annotated[list[str], typer.Argument(help=SOURCE_HELP, show_default=False, metavar="SOURCE...")],
    *,
    watching: WatchOptions,
    computing: ScoreOptions,
    recording: EvidenceOptions,
    out: Annotated[
        Path | None,
        output_option(
            help="New folder: JSON Lines, table of events, chapters; a folder in it for each of several sources.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, output_option(help="Go on with what --out has, if it has anything.", show_default=False)
    ] = False,
    health: Annotated[
        str | None,
        output_option(
            metavar="[HOST:]PORT",
            help="Answer at /healthz and, for Prometheus, /metrics.",
            show_default=False,
        ),
    ] = None,
    ruling: TakenRule,
    top: Annotated[int, output_option(min=1, help="Classes in a window's line.")] = 5,
) -> None:
    """Report what happens in videos of any length, while they run.

    Examples:
    - `peakzoom watch runs/first match.mp4 --out match`
    - `peakzoom watch runs/first rtsp://camera.local/1 rtsp://camera.local/2 --out hall --resume --reconnect 86400`
    """
    start_early()
    from peakzoom.apps.watch.watch import check

    place = _check(out, resume, health)
    stop, lost = threading.Event(), False
    recognizer = computing.load(run)
    watching = ruling.applied(run, recognizer, watching)
    check(recognizer, sources, watching)
    with _set_by_ctrl_c(stop), ExitStack() as opened:
        noted = opened.enter_context(_health(place, sources, recognizer))
        recorders = opened.enter_context(_recorders(run, recognizer, sources, watching, recording))
        writers, pasts = opened.enter_context(_outputs(out, resume, sources, recognizer, watching, top))
        if noted is not None:
            noted.go_on(pasts)
        last = _LastRecords(recorders, writers)
        for at, record in _records(recognizer, sources, watching, pasts, recorders, stop, last.hand_on):
            if noted is not None:
                noted.note(at, record)
            _show(record, out is not None, sources[at] if len(sources) > 1 else None)
            last.add(at, record)
            lost |= _is_loss(record)
        last.close()
        lost |= last.missing
    if stop.is_set() or lost:
        sys.exit(INTERRUPTED if stop.is_set() else 1)


def _check(out: Path | None, resume: bool, health: str | None) -> tuple[str, int] | None:
    """Refuse (UserError) what cannot be, before a model is loaded; the address of ``--health``."""
    if resume and out is None:
        raise UserError("--resume goes on with a folder: name it with --out")
    if out is not None and not resume:
        check_new_folder(out)
    return None if health is None else _address(health)


def _records(
    recognizer: Recognizer,
    sources: Sequence[str],
    options: WatchOptions,
    pasts: Sequence[Past | None],
    recorders: Sequence[Recorder | None],
    stop: threading.Event,
    idle: Callable[[], None],
) -> Iterator[tuple[int, Record]]:
    """Of all sources that have not been watched to their end, or whose evidence is not complete.

    ``idle`` is called while none of several has anything.
    """
    from peakzoom.apps.watch.watch import watch, watch_all

    left = []
    for at, (past, recorder) in enumerate(zip(pasts, recorders, strict=True)):
        if past is not None and recorder is not None:
            recorder.go_on(past)
        if past is not None and past.ended and (recorder is None or recorder.has_all()):
            say(f"{past.source['source']} has been watched to its end")
            continue
        left.append(at)
    if len(sources) > 1:
        chosen = [[each[at] for at in left] for each in (sources, pasts, recorders)]
        how: Any = {"pasts": chosen[1], "recordings": chosen[2], "stop": stop, "idle": idle}
        for at, record in watch_all(recognizer, chosen[0], options, **how):  # type: ignore[arg-type]
            yield left[at], record
    elif left:
        for record in watch(
            recognizer, sources[0], options, past=pasts[0], recording=recorders[0], stop=stop
        ):
            yield 0, record


@contextmanager
def _recorders(
    run: str,
    recognizer: Recognizer,
    sources: Sequence[str],
    watching: WatchOptions,
    options: EvidenceOptions,
) -> Iterator[Sequence[Recorder | None]]:
    """What records evidence of each source, if it is wanted."""
    if options.evidence is None:
        yield [None] * len(sources)
        return
    with needed_for("--evidence"):
        from peakzoom.apps.watch.evidence.recorder import Recorder
    from peakzoom.apps.watch.folder import places_of

    with ExitStack() as opened:
        yield [
            opened.enter_context(Recorder(run, recognizer, watching, replace(options, evidence=place)))
            for place in places_of(options.evidence, sources)
        ]


class _LastRecords:
    """Hands on what is reported, and the last record of each source once all evidence of it is written.

    Other sources are watched meanwhile.

    Attributes:
        missing: some evidence is not there.
    """

    def __init__(self, recorders: Sequence[Recorder | None], writers: Sequence[Write]) -> None:
        self._recorders, self._writers = recorders, writers
        self._ended: dict[int, Record] = {}
        self.missing = False

    def add(self, at: int, record: Record) -> None:
        """A record of one of the sources."""
        from peakzoom.apps.watch.records import Ended

        recorder = self._recorders[at]
        if recorder is not None:
            recorder.add(record)
        if recorder is not None and recorder.has_begun and isinstance(record, Ended):
            self._ended[at] = record
        else:
            self._writers[at](record, recorder)
        self.hand_on()

    def hand_on(self) -> None:
        """Hand on the last records of those sources of which all evidence is written by now."""
        for each in [each for each in self._ended if (done := self._recorders[each]) and done.is_done]:
            self._write(each)

    def close(self) -> None:
        """Wait for the evidence of all sources that have ended."""
        for at in list(self._ended):
            self._write(at)

    def _write(self, at: int) -> None:
        record, recorder = self._ended.pop(at), self._recorders[at]
        assert recorder is not None
        recorder.close()
        self._writers[at](record, recorder)
        self.missing |= _show_recorded(recorder)


def _show_recorded(recorder: Recorder) -> bool:
    """Say what was recorded; whether something is missing."""
    session = recorder.session
    said = f"evidence of {counted(session.recorded, 'event')} in {recorder.place}"
    if session.incomplete:
        said += f", {session.incomplete} of them without a clip or a figure"
    if session.known:
        said += f", {session.known} more were there already"
    if session.missing:
        why = "; ".join(f"{count}: {reason}" for reason, count in session.not_recorded.most_common())
        said += f"; {session.missing} not recorded ({why})"
    if recorder.last_digest:
        said += f"; the last link of their chain is {recorder.last_digest}"
    say(said)
    return bool(session.incomplete or session.missing)


def _is_loss(record: Record) -> bool:
    from peakzoom.apps.watch.records import SourceProblem

    return isinstance(record, SourceProblem) and record.lost


@contextmanager
def _outputs(
    out: Path | None,
    resume: bool,
    sources: Sequence[str],
    recognizer: Recognizer,
    options: WatchOptions,
    top: int,
) -> Iterator[tuple[Sequence[Write], Sequence[Past | None]]]:
    """What writes the records of each source, and what is written of it already."""
    if out is None:
        with results():
            yield (
                [_line_writer(name if len(sources) > 1 else None, top) for name in sources],
                [None] * len(sources),
            )
        return
    from peakzoom.apps.watch.folder import WatchFolder, places_of, watch_settings

    with explain_full_disk(out, "watch again with --resume"), ExitStack() as opened:
        kept = [
            opened.enter_context(
                WatchFolder(folder, watch_settings(recognizer, source, options, top), top, resume)
            )
            for folder, source in zip(places_of(out, sources), sources, strict=True)
        ]
        yield [_folder_writer(each) for each in kept], [each.past for each in kept]


def _line_writer(name: str | None, top: int) -> Write:
    """Writes lines to standard output, with the source's name where there are several."""
    from peakzoom.apps.watch.records import to_line
    from peakzoom.apps.watch.source import shown_name

    source = {} if name is None else {"source": shown_name(name)}

    def write(record: Record, recorder: Recorder | None) -> None:
        line = {**source, **to_line(record, top), **_counts(record, recorder)}
        sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
        sys.stdout.flush()

    return write


def _folder_writer(folder: WatchFolder) -> Write:
    """Writes into a folder."""

    def write(record: Record, recorder: Recorder | None) -> None:
        folder.add(record, _counts(record, recorder))

    return write


def _counts(record: Record, recorder: Recorder | None) -> dict[str, int]:
    """What the last line says of evidence."""
    from peakzoom.apps.watch.records import Ended

    if recorder is None or not isinstance(record, Ended) or not recorder.has_begun:
        return {}
    session = recorder.session
    return {
        "recorded": session.recorded,
        "incomplete": session.incomplete,
        "not_recorded": session.missing,
    }


def _address(text: str) -> tuple[str, int]:
    """Host and port; UserError where there is none."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--health is {text!r}, expected a port, for instance 9100, or 0.0.0.0:9100")
    return host or "127.0.0.1", int(port)


@contextmanager
def _health(
    place: tuple[str, int] | None, sources: Sequence[str], recognizer: Recognizer
) -> Iterator[Health | None]:
    """What counts records, and answers at an address."""
    if place is None:
        yield None
        return
    with needed_for("--health"):
        from peakzoom.apps.watch.health import Health, served
    from peakzoom.apps.watch.source import shown_name

    health = Health([shown_name(each) for each in sources], recognizer.classes)
    with served(health, *place) as address:
        say(f"{address}/healthz and {address}/metrics answer")
        yield health


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


def _show(record: Record, events: bool, source: str | None) -> None:
    """Show events, where standard output is free for them, breaks, problems, dropped windows and the summary."""
    from peakzoom.apps.watch.events import Event, clock_time
    from peakzoom.apps.watch.records import Break, Dropped, Ended, SourceProblem
    from peakzoom.apps.watch.source import shown_name

    of = "" if source is None else f"{shown_name(source)}  "
    if isinstance(record, Event) and events:
        times = f"{clock_time(record.start)}  {clock_time(record.end)}"
        print_result(f"{printable(of)}{times}  {printable(record.name)}  {record.score:.4f}")
    elif isinstance(record, Break | SourceProblem):
        say(f"{of}{clock_time(record.time)}  {record.reason}")
    elif isinstance(record, Dropped):
        say(
            f"{of}{clock_time(record.start)}  behind by more than --lag: {counted(record.windows, 'window')} dropped, "
            f"up to {clock_time(record.end)}"
        )
    elif isinstance(record, Ended):
        say(
            f"{of}{'stopped after' if record.stopped else 'watched'} {record.seconds:.3f} s in {record.took:.3f} s, "
            f"{record.speed:.2f} times real time: "
            f"{counted(record.windows, 'window')}{_early(record.early)}, {record.dropped} dropped, "
            f"{counted(record.events, 'event')}"
        )


def _early(windows: int | None) -> str:
    return "" if windows is None else f" ({windows} by the original branch alone)"
