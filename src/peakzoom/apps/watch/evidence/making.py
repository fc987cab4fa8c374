"""One event's evidence: its clip, cut in the way that is possible, and what is drawn from it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.clip import (
    FARTHEST,
    SPOOL,
    StreamFacts,
    clip_ticks,
    copy_from_file,
    copy_kept,
    encode_from_file,
    facts_of_file,
    interval,
    let_go,
    schedule,
    shows_all,
)
from peakzoom.apps.watch.evidence.exhibit import MOST_SECONDS, ClipTimes, write_exhibit
from peakzoom.apps.watch.evidence.identity import absolute, software_facts
from peakzoom.apps.watch.evidence.memory import Job
from peakzoom.apps.watch.evidence.trace import Cut
from peakzoom.apps.watch.options import RULE, WatchOptions
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import DecodeError, UserError, first_line
from peakzoom.video.clips import TIMESTAMP_ROUNDING
from peakzoom.video.encode import CLOCK
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import guarded
from peakzoom.video.scan import probe

log = logging.getLogger(__name__)

COPIED, ENCODED = "packets copied", "encoded again in H.264"


@dataclass(frozen=True)
class _Clip:
    """A clip that was written.

    Attributes:
        times: its file and when its frames are shown.
        cut: what was cut out for it.
        way: how it was made.
        why: why it was not made of copied packets.
    """

    times: ClipTimes
    cut: Cut
    way: str
    why: str | None = None

    @property
    def end(self) -> float:
        """When its last frame ends, in seconds since the source's first frame."""
        ticks = self.times.ticks
        return self.times.start + (ticks[-1] + interval(ticks)) / CLOCK


class Maker:
    """Writes the files of one event after the other.

    Args:
        recognizer: looks for what speaks for the event's class, with PyTorch.
        file: the source, where it is a file.
        watching: how it is watched.
        before: seconds before an event from which on its clip is played.

    Attributes:
        incomplete: events that lack a clip or a figure.
    """

    def __init__(
        self, recognizer: Recognizer, file: Path | None, watching: WatchOptions, before: float
    ) -> None:
        self._recognizer, self._file, self._crops, self._before = recognizer, file, watching.crops, before
        self._watching = watching
        self._facts: StreamFacts | None = None  # of the file's stream
        self.incomplete = 0

    def _rule(self) -> dict[str, Any]:
        """What made events of windows: the options, and where the model has them its thresholds."""
        watching, thresholds = self._watching, self._recognizer.thresholds
        rule = {key: getattr(watching, key) for key in RULE}
        if thresholds is None:
            return rule | {"threshold": watching.level}
        return rule | {"thresholds": dict(zip(self._recognizer.classes, thresholds, strict=True))}

    def fill(self, job: Job, folder: Path) -> dict[str, Any]:
        """Write an event's files into a folder, and say what is known of it; a part that fails is left out, and said.

        Raises:
            OSError: they cannot be written.
        """
        event, folder = job.event, folder.absolute()
        notes: list[str] = []
        sizes: dict[str, tuple[int, int]] = {}
        clip: _Clip | None = None
        try:
            clip = self._clip(job, folder)
            notes += _doubts(clip, event)
            sizes |= write_exhibit(self._recognizer, clip.times, event, self._crops, folder)
            if event.end - event.start > MOST_SECONDS:
                notes.append(f"figure and peaks are of its first {MOST_SECONDS:g} seconds")
        except Exception as error:  # whatever is wrong with one event, the next ones are recorded
            if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
                raise
            told = error.reason if isinstance(error, DecodeError) else first_line(error)
            if not isinstance(error, UserError):
                told = f"{type(error).__name__}: {told}"
            notes.append(f"it has no {'clip' if clip is None else 'figure'}: {told}")
            log.warning(f"event of {event.name!r} at {event.start:.3f} s: {notes[-1]}")
            self.incomplete += 1
        facts = job.facts or self._facts
        came = None if self._file or job.exact is None else job.exact.came(event.start)
        return {
            "absolute": absolute(event.start, event.end, facts.created if facts else None, came),
            "clip": _clip_facts(clip, event, self._before),
            "sizes": sizes,
            "notes": notes,
            "rule": self._rule(),
            "software": software_facts(),
        }

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            with suppress(UserError):  # a process that has ended has let it go
                guarded(self._file, let_go)

    def _clip(self, job: Job, folder: Path) -> _Clip:
        """Write the clip: copied where a browser can play that, else encoded."""
        facts = job.facts
        if facts is None:
            facts = self._facts = self._facts or self._file_facts(job)
        why = self._why_encoded(job, facts)
        if why is None and job.keyed is not None:
            target = folder / f"clip.{facts.suffix}"
            try:
                clip = self._copied(job, job.keyed, facts, target)
                if (why := _fault(clip)) is None:
                    return clip
            except DecodeError as error:
                why = f"its packets cannot be copied: {error.reason}"
            target.unlink(missing_ok=True)
        return self._encoded(job, why, folder)

    def _file_facts(self, job: Job) -> StreamFacts:
        if self._file is None or job.exact is None:
            raise UserError("nothing is known of its stream any more")
        return guarded(self._file, facts_of_file, self._file, job.exact.origin.stream)

    def _why_encoded(self, job: Job, facts: StreamFacts) -> str | None:
        """Why packets are not copied; None where they are."""
        if why := facts.why_not_copied():
            return why
        late = job.keyed is not None and job.keyed.start > job.event.start + TIMESTAMP_ROUNDING
        if job.keyed is None or (late and self._file is not None):
            return "no key frame is known from which it could begin"
        if self._file is not None and job.keyed.start < job.event.start - FARTHEST:
            return f"the key frame before it is more than {FARTHEST:g} s away"
        return None if shows_all(job.keyed, facts.codec) else "some of its packets give no frame"

    def _copied(self, job: Job, cut: Cut, facts: StreamFacts, target: Path) -> _Clip:
        timed = schedule(cut)
        if self._file is None:
            with reason_of(target, system=False):
                copy_kept(job.packets, timed, facts.suffix, target)
        else:
            stream = cut.origin.stream
            guarded(self._file, copy_from_file, self._file, stream, timed, facts.suffix, target)
        return _Clip(ClipTimes(target, cut.start, clip_ticks(cut)), cut, COPIED)

    def _encoded(self, job: Job, why: str | None, folder: Path) -> _Clip:
        """From the file; or from packets that were kept, which are put into a file for it."""
        cut, target = job.exact, folder / "clip.mp4"
        if cut is None:
            raise UserError("its frames are no longer known")
        if self._file is not None:
            source, stream, first = self._file, cut.origin.stream, cut.first
        else:
            if job.keyed is None:
                raise UserError("no key frame of it is known any more")
            cut, source, stream = job.keyed.since(cut.start), folder / f"clip.{SPOOL}", 0
            first = cut.first - job.keyed.first
            with reason_of(source, system=False):
                copy_kept(job.packets, schedule(job.keyed), SPOOL, source)
        ticks = clip_ticks(cut)
        guarded(source, encode_from_file, source, stream, first, ticks, target)
        if self._file is None:
            source.unlink()
        return _Clip(ClipTimes(target, cut.start, ticks), cut, ENCODED, why)


def _clip_facts(clip: _Clip | None, event: Event, before: float) -> dict[str, Any]:
    """What is known of a clip, for JSON; times in seconds since the source's first frame, or of the clip.

    It is to be played from so many seconds ``before`` the event: the key frame that it begins with may be earlier.
    """
    start, end = (clip.times.start, clip.end) if clip else (event.start, event.end)
    return {
        "file": clip.times.file.name if clip else None,
        "start": round(start, 6),
        "end": round(end, 6),
        "event_begins_at": round(max(event.start - start, 0.0), 6),
        "plays_from": round(max(event.start - before - start, 0.0), 3),
        "frames": len(clip.times.ticks) if clip else 0,
        "way": clip.way if clip else None,
        "why_not_copied": clip.why if clip else None,
    }


def _doubts(clip: _Clip, event: Event) -> list[str]:
    """What has to be known of a clip."""
    notes: list[str] = []
    if (late := clip.times.start - event.start) > TIMESTAMP_ROUNDING:
        notes.append(f"the clip begins {late:.3f} s after the event")
    if clip.cut.ends_early and (short := event.end - clip.end) > TIMESTAMP_ROUNDING:
        notes.append(f"the clip ends {short:.3f} s before the event, of which no more is kept")
    if clip.way == ENCODED and (fault := _fault(clip)):
        notes.append(fault)
    return notes


def _fault(clip: _Clip) -> str | None:
    """What is wrong with a clip when it is decoded; None if nothing is."""
    file, frames = clip.times.file, len(clip.times.ticks)
    found = guarded(file, probe, file).frames
    return None if found == frames else f"{found} frames can be decoded of {frames} that it has to show"
