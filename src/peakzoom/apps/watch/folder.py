"""The folder of a source that is watched: JSON Lines, a table of events, chapters; whole after every event."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from peakzoom.apps.watch.events import EVENT_COLUMNS, Event, cue
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.past import Past, read_past
from peakzoom.apps.watch.records import Record, Started, to_line
from peakzoom.apps.watch.source import shown_name
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import check_new_folder, name_place, sync, whole, write_text
from peakzoom.utils.journal import check_journal, settings_file
from peakzoom.utils.lock import only_writer
from peakzoom.video.sampling import Views

LINES, TABLE, CHAPTERS = "windows.jsonl", "events.csv", "chapters.vtt"
ANYTIME = ("lag", "reconnect", "live")  # options that may be others when a watch goes on


def watch_settings(recognizer: Recognizer, source: str, options: WatchOptions, top: int) -> dict[str, Any]:
    """All that decides the lines of a source, as plain data."""
    settings = recognizer.settings(Views())
    del settings["views"]
    chosen = {key: value for key, value in asdict(options).items() if key not in ANYTIME}
    if options.nth == 1:  # as before there was a choice: folders of that time go on
        del chosen["nth"]
    return {"source": shown_name(source), **settings, **chosen, "top": top}


def folder_names(sources: Sequence[str]) -> list[str]:
    """A name for the folder of each of several sources: its number and what it is called, in plain letters."""
    digits = max(2, len(str(len(sources))))
    plain = [re.sub(r"[^A-Za-z0-9.-]+", "-", shown_name(source)).strip("-.")[-60:] for source in sources]
    return [f"{number:0{digits}d}-{name.lstrip('-.')}" for number, name in enumerate(plain, 1)]


def places_of(folder: Path, sources: Sequence[str]) -> list[Path]:
    """The folder of each source: this one of a single one, folders in it of several."""
    return [folder / name for name in folder_names(sources)] if len(sources) > 1 else [folder]


class WatchFolder:
    """Writes the records of one source; a context. One process does at a time.

    Args:
        folder: new or empty; with ``resume`` it may hold what was written with the same settings.
        settings: :func:`watch_settings`.
        top: classes in a window's line.
        resume: go on with what is there.

    Attributes:
        past: what is there; None where there is nothing.

    Raises:
        UserError: it holds something else, or was written with other settings, or another process writes it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], top: int, resume: bool = False) -> None:
        self.past: Past | None = None
        self._folder, self._settings, self._top = folder, dict(settings), top
        self._lines: FileIO | None = None
        self._events: EventFiles | None = None
        self._held = ExitStack()
        lines = folder / LINES
        self._old = resume and settings_file(lines).exists()
        if not self._old:
            check_new_folder(folder)
            return
        with ExitStack() as held:
            held.enter_context(only_writer(lines))
            check_journal(lines, self._settings)
            self.past = read_past(lines)
            self._held = held.pop_all()

    def _begin(self) -> FileIO:
        """Open the files; what of the past comes again, and half a row that a killed process has left, goes."""
        lines = self._folder / LINES
        if not self._old:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(only_writer(lines))
            write_text(settings_file(lines), json.dumps(self._settings, indent=2) + "\n")
        self._lines = self._held.enter_context(lines.open("ab" if self.past else "wb", buffering=0))
        if self.past is not None:
            self._lines.truncate(self.past.size)
        sync(self._folder)
        before = map(event_of, self.past.lines("event")) if self.past else ()
        self._events = self._held.enter_context(EventFiles(self._folder, before))
        return self._lines

    def add(self, record: Record, more: Mapping[str, Any] | None = None) -> None:
        """Write a record, with more in its line; the folder is made, and of the past goes what does, with the first."""
        if isinstance(record, Started) and self.past is not None:
            return
        lines = self._lines or self._begin()
        line = json.dumps(to_line(record, self._top) | dict(more or {}), allow_nan=False) + "\n"
        try:
            lines.write(line.encode())
            if isinstance(record, Event):
                assert self._events is not None
                self._events.add(record)
        except OSError as error:
            name_place(error, Path(lines.name))
            raise

    def __enter__(self) -> WatchFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)


class EventFiles:
    """``events.csv`` and ``chapters.vtt``, which are whole after every event; a context.

    Args:
        folder: holds them.
        before: events that they begin with. What is there is written again: a killed process may have left half a row.
    """

    def __init__(self, folder: Path, before: Iterable[Event] = ()) -> None:
        with whole(folder / TABLE) as table, whole(folder / CHAPTERS) as chapters:
            csv.writer(table).writerow(EVENT_COLUMNS)
            chapters.write("WEBVTT\n\n")
            for event in before:
                csv.writer(table).writerow(row(event))
                chapters.write(cue(event))
        append: dict[str, Any] = {"mode": "a", "encoding": "utf-8", "buffering": 1}
        with ExitStack() as held:
            self._table = held.enter_context((folder / TABLE).open(newline="", **append))
            self._chapters = held.enter_context((folder / CHAPTERS).open(newline="\n", **append))
            self._held = held.pop_all()

    def add(self, event: Event) -> None:
        """Write an event, none before the last one."""
        csv.writer(self._table).writerow(row(event))
        self._chapters.write(cue(event))

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)


def event_of(line: Mapping[str, Any]) -> Event:
    """The event of a line."""
    return Event(line["start"], line["end"], line["class"], line["score"], line["peak"], line["windows"])


def row(event: Event) -> tuple[object, ...]:
    """Of the table, by :data:`EVENT_COLUMNS`."""
    times = (f"{event.start:.3f}", f"{event.end:.3f}")
    return (*times, event.name, f"{event.score:.4f}", f"{event.peak:.4f}", event.windows)
