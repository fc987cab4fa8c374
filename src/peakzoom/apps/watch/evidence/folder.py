"""A folder of evidence, which only grows: one folder an event, checksums, and what was not recorded.

::

    index.html                    the page (page.py), made anew from everything else
    evidence.json                 the source and the weights; another source or other weights are refused
    sessions.json                 each run of the watch: from when to when, what was recorded and what was not
    SHA256SUMS                    of all files below, as "sha256sum -c SHA256SUMS" reads it
    000001_00h01m02s300_kick/      the first event
        event.json                all that is known of it; with the digest of the event.json before it
        clip.mp4  figure.png  thumbnail.jpg  peaks.json

An event's folder has another name until it is whole. The digests in ``event.json`` make a chain: whoever changes the
evidence of one event has to change that of all later ones, and the last digest may be kept elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.identity import SourceFacts, WeightsFacts, now, plain_facts
from peakzoom.utils.digests import digest_of
from peakzoom.utils.durable import DRAFT, sync, whole_folder, write_text
from peakzoom.utils.errors import UserError, first_line, printable
from peakzoom.utils.lock import only_writer
from peakzoom.utils.plain import read_object
from peakzoom.utils.system import expect_place

FORMAT = 1  # of the files
IDENTITY, SESSIONS, SUMS, PAGE, EVENT = (
    "evidence.json",
    "sessions.json",
    "SHA256SUMS",
    "index.html",
    "event.json",
)
LOCK, ROOM = f".lock{DRAFT}", f".room{DRAFT}"
EVENT_FOLDER = re.compile(r"(\d{6,})_[^/\\]+")
SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
CLIPS = ("clip.mp4", "clip.webm")
FIGURE, THUMBNAIL, PEAKS = "figure.png", "thumbnail.jpg", "peaks.json"
LETTERS = 80  # bytes of a class in a folder's name
MISSED = 1000  # events without evidence that are listed one by one; all are counted


@dataclass
class Session:
    """One run of the watch.

    Attributes:
        began, ended: when, in UTC; ``ended`` is None while it goes on, and where it was killed.
        seconds: of video, as far as was watched when this was written.
        recorded: events with evidence.
        incomplete: of those, without a clip or a figure.
        known: events of a file that were recorded by a run before.
        not_recorded: events without any, by the reason.
        missed: the first of those: start, end, class, reason.
        stopped: why recording has stopped, where it has: a sentence.
        reason: the same in a few words.
    """

    began: str
    ended: str | None = None
    seconds: float = 0.0
    recorded: int = 0
    incomplete: int = 0
    known: int = 0
    not_recorded: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[float, float, str, str]] = field(default_factory=list)
    stopped: str | None = None
    reason: str | None = None

    def miss(self, event: Event, reason: str) -> None:
        """Count an event that is not recorded."""
        self.not_recorded[reason] += 1
        if len(self.missed) < MISSED:
            self.missed.append((event.start, event.end, event.name, reason))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "not_recorded": dict(self.not_recorded)}

    @property
    def missing(self) -> int:
        """Events without evidence."""
        return self.not_recorded.total()


@dataclass(frozen=True)
class Recorded:
    """An event in the folder, as the page shows it."""

    folder: str  # its own, in that of the evidence
    digest: str  # SHA-256 of its event.json
    number: int
    session: int  # counted from 1
    name: str  # of the class
    start: float
    end: float
    score: float
    peak: float
    windows: int
    when: str | None  # by a clock, and by which
    clip: str | None  # name of its file
    clip_start: float
    clip_end: float
    plays_from: float  # seconds of the clip
    sizes: dict[str, tuple[int, int]]  # width and height of each picture
    has_picture: bool  # figure, thumbnail and peaks
    notes: list[str]  # what has to be known of it

    @classmethod
    def of(cls, folder: str, digest: str, facts: dict[str, Any]) -> Recorded:
        """From what its ``event.json`` says, which anyone may have written.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another kind.
        """
        times = {key: float(facts[key]) for key in ("start", "end", "score", "peak")}
        when, clip = facts["absolute"], facts["clip"]
        if not all(map(math.isfinite, times.values())) or times["end"] < times["start"]:
            raise ValueError("its times are none")
        if clip["file"] not in (None, *CLIPS):
            raise ValueError("its clip has another name")
        return cls(
            folder,
            digest,
            int(facts["number"]),
            int(facts["session"]),
            str(facts["class"]),
            **times,
            windows=int(facts["windows"]),
            when=None if when is None else f"{when['start']} ({when['by']})",
            clip=clip["file"],
            clip_start=float(clip["start"]),
            clip_end=float(clip["end"]),
            plays_from=float(clip["plays_from"]),
            sizes={str(name): (int(width), int(height)) for name, (width, height) in facts["sizes"].items()},
            has_picture={FIGURE, THUMBNAIL, PEAKS} <= set(facts["files"]),
            notes=[str(note) for note in facts["notes"]],
        )


def event_key(name: str, start: float, end: float) -> tuple[str, float, float]:
    """What makes it the same event where a file is watched again."""
    return name, round(start, 3), round(end, 3)


class EvidenceFolder:
    """A folder of evidence that is open for writing; a context, which locks it against other processes.

    Attributes:
        place: where.
        events: all that are recorded, in order.
        sessions: all runs, the one that goes on last.
        doubts: a line on each event whose digests do not fit, or that cannot be read.
        last: digest of the last ``event.json``; None before the first.

    Raises:
        UserError: it holds something else, evidence of another source or by other weights, or is being written.
        OSError: it cannot be written.
    """

    def __init__(self, place: Path, source: SourceFacts, weights: WeightsFacts) -> None:
        expect_place(place)
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file: name a folder with --evidence")
        self.place, self.source, self.weights = place, source, weights
        begun = place.is_dir() and any(place.iterdir())
        if begun:
            self._check()
        place.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(only_writer(place, place / LOCK))
            self._tidy()
            if not begun:
                known = {"format": FORMAT, "began": now()}
                parts = {"source": plain_facts(source), "weights": plain_facts(weights)}
                write_text(place / IDENTITY, _text({**known, **parts}))
            self.events: list[Recorded] = []
            self.doubts: list[str] = []
            self.last: str | None = None
            self._keys: set[tuple[str, float, float]] = set()
            self._number = 0  # the highest so far
            self._load()
            self._sum_up()
            self.sessions = [*self._read_sessions(), Session(now())]
            self._held = held.pop_all()

    def __enter__(self) -> EvidenceFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.free_room()
        self._held.close()

    @property
    def session(self) -> Session:
        """The run that goes on."""
        return self.sessions[-1]

    def holds(self, name: str, start: float, end: float) -> bool:
        """Whether there is evidence of an event of this class from and to these times."""
        return event_key(name, start, end) in self._keys

    def record(self, event: Event, fill: Callable[[Path], dict[str, Any]]) -> Recorded:
        """Add an event.

        Args:
            event: which.
            fill: writes its files into an empty folder, and returns what else is known of it.

        Raises:
            OSError: it cannot be written; then nothing of it is there, but for its checksums, which the next run adds.
        """
        number = self._number + 1
        name = folder_name(number, event)
        while os.path.lexists(self.place / name):
            number, name = number + 1, folder_name(number + 1, event)
        try:
            with whole_folder(self.place / name, self.place / f".{name}{DRAFT}") as draft:
                found = fill(draft)
                facts = {
                    "format": FORMAT,
                    "number": number,
                    "session": len(self.sessions),
                    "class": event.name,
                    "start": round(event.start, 6),
                    "end": round(event.end, 6),
                    "score": event.score,
                    "peak": event.peak,
                    "windows": event.windows,
                    **found,
                    "source": plain_facts(self.source),
                    "weights": plain_facts(self.weights),
                    "recorded": now(),
                    "files": {file.name: digest_of(file) for file in sorted(draft.iterdir())},
                    "previous": self.last,
                }
                text = _text(facts)
                write_text(draft / EVENT, text)
        except OSError:  # also after the draft had its name, which may not be on the disk
            shutil.rmtree(self.place / name, ignore_errors=True)
            raise
        self._number = number
        recorded = self._note(name, facts)
        digests = {**facts["files"], EVENT: recorded.digest}
        self._append_sums({f"{name}/{file}": digest for file, digest in digests.items()})
        return recorded

    def write_sessions(self, sessions: Sequence[Session]) -> None:
        """Write down what was recorded and what was not."""
        write_text(self.place / SESSIONS, _text([each.plain() for each in sessions]))

    def write_page(self, text: str) -> None:
        """Write the page."""
        write_text(self.place / PAGE, text)

    def keep_room(self, size: int) -> None:
        """Keep so many bytes free for the page and the sessions, should the disk be full."""
        room = self.place / ROOM
        if not room.exists() or room.stat().st_size < size:
            with room.open("wb") as stream:
                stream.write(bytes(size))  # of zeros that are written, for some file systems keep no promise
            sync(room)

    def free_room(self) -> None:
        """Give up the room that was kept."""
        with suppress(OSError):
            (self.place / ROOM).unlink(missing_ok=True)

    def _note(self, name: str, facts: dict[str, Any]) -> Recorded:
        """An event is there."""
        recorded = Recorded.of(name, digest_of(self.place / name / EVENT), facts)
        self.last = recorded.digest
        self.events.append(recorded)
        self._keys.add(event_key(recorded.name, recorded.start, recorded.end))
        return recorded

    def _check(self) -> None:
        """Refuse a folder of something else."""
        place = self.place
        if not (place / IDENTITY).exists():
            raise UserError(f"{place} is not empty and holds no evidence: name another --evidence")
        try:
            known = read_object(place / IDENTITY)
            source, weights = SourceFacts(**known["source"]), WeightsFacts(**known["weights"])
            if known["format"] != FORMAT:
                raise UserError(f"its format is {printable(known['format'])}, expected {FORMAT}")
        except (KeyError, TypeError, UserError) as error:
            raise UserError(
                f"{place / IDENTITY} does not say of what it is evidence ({first_line(error)}): name another --evidence"
            ) from error
        for whose, same, before in (
            ("of another source", source.same(self.source), source.name),
            ("by other weights", weights == self.weights, weights.sha256[:16]),
        ):
            if not same:
                raise UserError(f"{place} holds evidence {whose} ({before}): name another --evidence")

    def _read_sessions(self) -> list[Session]:
        """The runs so far, with what those have recorded that were killed; UserError if the file is damaged."""
        file = self.place / SESSIONS
        if not file.exists():
            return []
        try:
            found = [Session(**each) for each in json.loads(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{file} is damaged ({first_line(error)}): move it away, or name another --evidence"
            ) from error
        for number, each in enumerate(found, 1):
            each.not_recorded = Counter(each.not_recorded)
            each.recorded = max(each.recorded, sum(event.session == number for event in self.events))
        return found

    def _tidy(self) -> None:
        """Remove what a killed process was writing."""
        for draft in self.place.glob(f".*{DRAFT}"):
            if draft.name == LOCK:
                continue
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()

    def _load(self) -> None:
        """Read what is there, and whether each event follows the one before."""
        found = [
            (int(match[1]), each.name) for each in self.place.iterdir() if (match := _event_folder(each))
        ]
        for number, name in sorted(found):
            self._number = max(self._number, number)
            try:
                facts, before = read_object(self.place / name / EVENT), self.last
                self._note(name, facts)
                if facts["previous"] != before:
                    self.doubts.append(f"{name} does not follow the event before it: one of them was changed")
            except (UserError, OSError, KeyError, TypeError, ValueError) as error:
                self.doubts.append(f"{name} cannot be read: {first_line(error)}")

    def _sum_up(self) -> None:
        """Put the checksums in order that a killed process was writing, and add those that it did not come to."""
        file = self.place / SUMS
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        whole = SUM_LINE.findall(text)
        listed = {name for _, name in whole}
        if text != "".join(f"{digits}  {name}\n" for digits, name in whole):
            write_text(file, "".join(f"{digits}  {name}\n" for digits, name in whole))
        wanted = {IDENTITY: self.place / IDENTITY}
        for each in self.events:
            inside = sorted(path for path in (self.place / each.folder).iterdir() if path.is_file())
            wanted |= {f"{each.folder}/{path.name}": path for path in inside}
        self._append_sums({name: digest_of(path) for name, path in wanted.items() if name not in listed})

    def _append_sums(self, digests: dict[str, str]) -> None:
        if not digests:
            return
        with (self.place / SUMS).open("a", encoding="utf-8", newline="") as stream:
            stream.write("".join(f"{digits}  {name}\n" for name, digits in digests.items()))
            stream.flush()
            os.fsync(stream.fileno())


def folder_name(number: int, event: Event) -> str:
    """A folder's name by order, time and class, which every file system and shell takes.

    >>> folder_name(7, Event(62.3, 65.0, "kick/../a b", 0.9, 0.9, 3))
    '000007_00h01m02s300_kick_a_b'
    """
    minutes, milliseconds = divmod(round(event.start * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds, milliseconds = divmod(milliseconds, 1000)
    letters = "".join(letter if letter.isalnum() else " " for letter in event.name)
    name = "_".join(letters.split()).encode()[:LETTERS].decode(errors="ignore").strip("_") or "class"
    return f"{number:06d}_{hours:02d}h{minutes:02d}m{seconds:02d}s{milliseconds:03d}_{name}"


def _event_folder(path: Path) -> re.Match[str] | None:
    return EVENT_FOLDER.fullmatch(path.name) if path.is_dir() and not path.is_symlink() else None


def _text(values: object) -> str:
    return json.dumps(values, indent=1, allow_nan=False) + "\n"
