"""The page of a folder of evidence: a timeline of the whole and its events; words and looks are in ``page.html.j2``.

It is one file that asks no network for anything. Beside it the page uses the clips and pictures in the events' folders,
by relative links, so that the folder can be taken anywhere. Its policy allows its own style and script, by their
digests, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from peakzoom import __version__
from peakzoom.apps.watch.events import clock_time
from peakzoom.apps.watch.evidence.folder import (
    EVENT,
    FIGURE,
    MISSED,
    PEAKS,
    SUMS,
    THUMBNAIL,
    EvidenceFolder,
    Recorded,
    Session,
)
from peakzoom.apps.watch.evidence.identity import now
from peakzoom.display.templates import templates
from peakzoom.utils.errors import printable
from peakzoom.utils.words import counted

LANES = 8  # classes with a line of their own in a timeline; the others share one
OTHERS = "other classes"
SLOTS = {"wide": 10, "narrow": 4}  # thumbnails above a timeline
INSET = 0.3  # percent of a timeline on both sides of one
TICKS = 4  # parts of a timeline's axis
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Bar:
    """An event in a timeline; places in percent of its length."""

    place: float
    width: float
    title: str
    event: Recorded | None  # None: not recorded


@dataclass(frozen=True)
class Thumbnail:
    """A picture above a timeline; places in percent of its length."""

    left: float
    width: float
    place: float  # of its event
    source: str

    @property
    def middle(self) -> float:
        """Where a line leads from to its event."""
        return self.left + self.width / 2


@dataclass(frozen=True)
class Timeline:
    """One run of the watch, or all runs over the same file.

    Attributes:
        number: of the timeline, counted from 1.
        title: what it shows.
        seconds: its length.
        lanes: classes and their bars, those with the most events first.
        thumbnails: by how wide the page is.
        ticks: places in percent, and times.
        summary: in words, for who cannot see it.
    """

    number: int
    title: str
    seconds: float
    lanes: list[tuple[str, list[Bar]]]
    thumbnails: dict[str, list[Thumbnail]]
    ticks: list[tuple[float, str]]
    summary: str


def render(folder: EvidenceFolder, sessions: Sequence[Session]) -> str:
    """The page as HTML, with what each run of the watch has recorded."""
    environment = templates("peakzoom.apps.watch.evidence")
    environment.filters.update(clock=clock_time, counted=counted, link=quote)
    sessions = [_still_missing(folder, session) for session in sessions]
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        folder=folder,
        classes=Counter(each.name for each in folder.events).most_common(),
        sessions=sessions,
        timelines=timelines_of(folder, sessions),
        stored=folder.source.sha256 is not None,
        most_missed=MISSED,
        missing=sum(each.missing for each in sessions),
        reasons=sum((each.not_recorded for each in sessions), Counter()).most_common(),
        incomplete=sum(each.incomplete for each in sessions),
        files={"event": EVENT, "figure": FIGURE, "peaks": PEAKS, "sums": SUMS, "thumbnail": THUMBNAIL},
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        made=now(),
        version=__version__,
    )


def _still_missing(folder: EvidenceFolder, session: Session) -> Session:
    """A run without the events that a later one has recorded, of a file that was watched again."""
    if folder.source.sha256 is None:
        return session
    found = [each for each in session.missed if folder.holds(each[2], each[0], each[1])]
    reasons = session.not_recorded - Counter(each[3] for each in found)
    return replace(
        session, not_recorded=reasons, missed=[each for each in session.missed if each not in found]
    )


def policy(style: str, script: str) -> str:
    """The page's content security policy: pictures and clips beside it, this style, this script.

    A page that is opened from a disk has no origin that every browser counts as 'self', so files are named too.
    """
    beside = "'self' file:"
    return "; ".join(
        (
            "default-src 'none'",
            f"img-src {beside}",
            f"media-src {beside}",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def timelines_of(folder: EvidenceFolder, sessions: Sequence[Session]) -> list[Timeline]:
    """One timeline of a file, however often it was watched; one a run of a stream, whose time begins anew each time."""
    events = folder.events
    if folder.source.sha256 is not None:
        return [_timeline(1, "The whole video", sessions, events)]
    return [
        _timeline(number, _title(session), [session], [each for each in events if each.session == number])
        for number, session in enumerate(sessions, 1)
    ]


def _title(session: Session) -> str:
    return f"Watched from {session.began} " + (
        f"to {session.ended}" if session.ended else "on; its end is not known"
    )


def _timeline(number: int, title: str, sessions: Sequence[Session], events: Sequence[Recorded]) -> Timeline:
    missed = [each for session in sessions for each in session.missed]
    ends = [
        *(each.end for each in events),
        *(each[1] for each in missed),
        *(each.seconds for each in sessions),
    ]
    seconds = max(ends, default=0.0) or 1.0

    def bar(start: float, end: float, name: str, event: Recorded | None, more: str) -> Bar:
        shown = f"{printable(name)}, {clock_time(start)} to {clock_time(end)}{more}"
        place = 100 * min(start / seconds, 1.0)
        return Bar(place, min(100 * (end - start) / seconds, 100 - place), shown, event)

    count = Counter([*(each.name for each in events), *(each[2] for each in missed)])
    own = [name for name, _ in count.most_common(LANES if len(count) <= LANES else LANES - 1)]
    lanes: dict[str, list[Bar]] = {name: [] for name in own}
    for each in events:
        lane = lanes.setdefault(each.name if each.name in own else OTHERS, [])
        lane.append(bar(each.start, each.end, each.name, each, f", event {each.number}"))
    for start, end, name, reason in missed:
        lane = lanes.setdefault(name if name in own else OTHERS, [])
        lane.append(bar(start, end, name, None, f", not recorded: {printable(reason)}"))
    found = ", ".join(f"{times} of {printable(name)}" for name, times in count.most_common(LANES))
    summary = f"{counted(len(events) + len(missed), 'event')} in {clock_time(seconds)}{': ' if found else ''}{found}"
    pictures = {name: _thumbnails(events, seconds, slots) for name, slots in SLOTS.items()}
    ticks = [(100 * each / TICKS, _tick(seconds * each / TICKS, seconds)) for each in range(TICKS + 1)]
    return Timeline(number, title, seconds, list(lanes.items()), pictures, ticks, summary)


def _tick(time: float, seconds: float) -> str:
    """A time on an axis of so many seconds: seconds, m:s, or h:m:s."""
    if seconds < 60:
        return f"{time:.1f} s"
    text = clock_time(time).partition(".")[0]
    return text if seconds >= 3600 else text.removeprefix("00:")


def _thumbnails(events: Sequence[Recorded], seconds: float, slots: int) -> list[Thumbnail]:
    """Of each of equal parts of a timeline, the event with the highest score that begins in it."""
    best: dict[int, Recorded] = {}
    for each in events:
        slot = min(int(slots * each.start / seconds), slots - 1)
        if each.has_picture and (slot not in best or each.peak > best[slot].peak):
            best[slot] = each
    return [
        Thumbnail(
            100 * slot / slots + INSET,
            100 / slots - 2 * INSET,
            50 * (each.start + each.end) / seconds,
            f"{quote(each.folder)}/{THUMBNAIL}",
        )
        for slot, each in sorted(best.items())
    ]
