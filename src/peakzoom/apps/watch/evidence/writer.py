"""The thread that writes evidence down, so that the watch need not wait for it, and what it could not write."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from copy import deepcopy
from types import TracebackType

from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.evidence.folder import EvidenceFolder
from peakzoom.apps.watch.evidence.identity import now
from peakzoom.apps.watch.evidence.making import Maker
from peakzoom.apps.watch.evidence.memory import Job
from peakzoom.apps.watch.evidence.page import render
from peakzoom.apps.watch.reader import WAKE, start_beside
from peakzoom.utils.durable import is_full, no_room
from peakzoom.utils.errors import first_line
from peakzoom.utils.system import reason_of, sentence
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

WAITING = 64  # events that wait to be written, at most
NICE = 10  # steps by which the thread stands back on a busy machine
PAGE_SHARE = 50  # times as long as making a page takes, until it is made again
ROOM = 2**18  # bytes that are kept free, beside twice the page's size
BEHIND = "recording was behind"


class Writer:
    """Writes events in order; a context, within which its thread runs.

    Args:
        folder: where.
        maker: makes the files of an event.
        size: bytes of packets that may wait to be written.
    """

    def __init__(self, folder: EvidenceFolder, maker: Maker, size: int) -> None:
        self._folder, self._maker, self._size = folder, maker, size
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._next_page = 0.0  # by the clock
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Writer:
        self._write_page()
        self._thread = start_beside(self._run, "evidence")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is written; not where a second Ctrl-C has ended the watch."""
        self.finish()
        try:
            if isinstance(error, KeyboardInterrupt):
                raise error
            if len(self._waiting) > 1:
                log.info(
                    f"{counted(len(self._waiting), 'event')} still to be recorded; Ctrl-C leaves them out"
                )
            while self._thread is not None and self.runs:
                self._thread.join(WAKE)  # again and again, so that Ctrl-C is heard on every system
        except KeyboardInterrupt:
            log.warning(f"{counted(len(self._waiting), 'event')} still to be recorded, and left out")
            raise

    def finish(self) -> None:
        """No event comes any more: the thread ends once everything is written. It waits for nothing."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    @property
    def runs(self) -> bool:
        """The thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def put(self, job: Job, keep: bool) -> None:
        """Have an event written. One without room is counted as missed, unless it is to be kept nevertheless."""
        with self._changed:
            if keep or not self._is_full(job.size):
                self._waiting.append(job)
                self._changed.notify_all()
                return
        self.miss(job.event, BEHIND)

    def wait_for_room(self) -> None:
        """Wait while the queue is full; in the thread that reads a source which can wait."""
        with self._changed:
            while self._is_full() and self.runs and not self._ending:
                self._changed.wait(WAKE)

    def _is_full(self, further: int = 0) -> bool:
        """Whether a job of some further bytes has no room."""
        size = sum(each.size for each in self._waiting)
        return bool(self._waiting) and (len(self._waiting) >= WAITING or size + further > self._size)

    def miss(self, event: Event, reason: str) -> None:
        """Count an event that is not recorded."""
        with self._changed:
            self._folder.session.miss(event, reason)
        if reason == BEHIND:
            log.warning(f"event of {event.name!r} at {event.start:.3f} s is not recorded: {reason}")

    # The thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform.startswith("linux"):  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                while not (self._waiting or self._ending):
                    self._changed.wait()
                if not self._waiting:
                    break
                job = self._waiting[0]  # stays in the queue until it is written, because its packets do
            self._record(job)
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
            if time.monotonic() >= self._next_page:
                self._try_page()
        self._maker.close()
        self._folder.session.ended = now()
        self._try_page()

    def _record(self, job: Job) -> None:
        """Write an event, or count it; whatever goes wrong, the next one is tried unless nothing can be written."""
        folder, session = self._folder, self._folder.session
        before, reason = len(folder.events), session.reason
        if reason is None:
            try:
                folder.record(job.event, lambda draft: self._maker.fill(job, draft))
            except OSError as error:
                reason = reason_of(error)
                self._stop(error)
            except Exception as error:  # noqa: BLE001 - the watch goes on whatever happens here
                reason = f"{type(error).__name__}: {first_line(error)}"
                log.warning(
                    f"event of {job.event.name!r} at {job.event.start:.3f} s is not recorded: {reason}"
                )
        session.incomplete = self._maker.incomplete
        if len(folder.events) > before:  # also where only its checksums could not be written
            session.recorded += 1
        elif reason is not None:
            self.miss(job.event, reason)

    def _stop(self, error: OSError) -> None:
        """Nothing can be written any more."""
        session = self._folder.session
        if session.stopped is not None:
            return
        session.reason = reason_of(error)
        session.stopped = no_room(self._folder.place, error) if is_full(error) else sentence(error)
        log.warning(f"evidence is no longer recorded: {session.stopped}; detection goes on")
        self._folder.free_room()  # so that the page can say so
        self._try_page()

    def _try_page(self) -> None:
        """Make the page; where that fails the events are there all the same, and the next run makes it."""
        try:
            self._write_page()
        except OSError as error:
            if self._folder.session.stopped is None:
                self._stop(error)
            else:
                log.warning(f"the page of the evidence cannot say what was not recorded: {reason_of(error)}")
        except Exception as error:  # noqa: BLE001 - the watch goes on whatever happens here
            log.warning(
                f"the page of the evidence cannot be made: {type(error).__name__}: {first_line(error)}"
            )

    def _write_page(self) -> None:
        """The page and the sessions, and room for the next."""
        began = time.monotonic()
        with self._changed:  # while no other thread counts a missed event
            sessions = deepcopy(self._folder.sessions)
        page = render(self._folder, sessions)
        self._folder.write_sessions(sessions)
        self._folder.write_page(page)
        if self._folder.session.stopped is None:
            self._folder.keep_room(2 * len(page) + ROOM)
        self._next_page = time.monotonic() + PAGE_SHARE * (time.monotonic() - began)
