"""Jobs: files that are sent now and asked for later, because they take longer than a request may."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from peakzoom.apps.serve.errors import Busy, Missing, NotReady, Told, told
from peakzoom.apps.serve.refusals import problem
from peakzoom.apps.serve.service import PREDICTED, Picture, Service
from peakzoom.explanation import Evidence
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import MissingExtra
from peakzoom.video.sampling import Views

STATES = ("waiting", "running", "done", "failed")
FINISHED = ("done", "failed")
PICTURES: dict[Picture, str] = {"mp4": "video", "png": "figure"}


@dataclass
class Job:
    """One file. Its folder has the upload until it is finished, and then what was made of it."""

    file: Path
    task: str
    target: str
    created: float
    id: str = field(default_factory=lambda: uuid4().hex)  # which nobody guesses
    state: str = "waiting"
    finished: float | None = None
    result: dict[str, Any] | None = None
    failed: Told | None = None
    undrawn: Told | None = None  # why it has no pictures
    stop: threading.Event = field(default_factory=threading.Event)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the API sends it."""
        here = f"/v1/jobs/{self.id}"
        links = {"self": here}
        if self.state == "done":
            links["result"] = f"{here}/result"
            if self.task == "explain" and self.undrawn is None:
                links |= {name: f"{here}/evidence.{kind}" for kind, name in PICTURES.items()}
        return {
            "id": self.id,
            "task": self.task,
            "file": self.file.name,
            "state": self.state,
            "created": self.created,
            "finished": self.finished,
            "problem": None if self.failed is None else problem(*self.failed),
            "links": links,
        }


class Jobs:
    """Works on one job at a time, in the order in which they came; requests go first.

    Args:
        service: predicts and explains.
        views: which are averaged.
        clock: seconds since 1970.
    """

    def __init__(self, service: Service, views: Views, clock: Callable[[], float] = time.time) -> None:
        self._service, self._views, self._clock = service, views, clock
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, "jobs")

    def check(self, target: str | None) -> None:
        """Refuse (UserError) a job for a class that is none, or one more than may be kept."""
        if target is not None and target not in self._service.recognizer.classes:
            raise UserError("no class is called so: choose one that the model knows")
        most = self._service.limits.jobs
        if not most:
            raise UserError("this server takes no jobs: send a shorter video to /v1/predict or /v1/explain")
        with self._lock:
            self._forget()
            if len(self._jobs) >= most:
                raise Busy(
                    f"{len(self._jobs)} jobs are kept, as many as may be: delete one that is finished, or wait"
                )

    def add(self, file: Path, task: str, target: str = PREDICTED) -> dict[str, Any]:
        """A new job for a file in a folder of its own, which goes with the job."""
        job = Job(file, task, target, self._clock())
        try:
            with self._lock:
                self.check(None)  # once more: others may have come while the upload was stored
                self._jobs[job.id] = job
                self._thread.submit(self._work, job)
                return job.to_dict()
        except BaseException:
            self._jobs.pop(job.id, None)
            _remove(job)
            raise

    def state(self, identifier: str) -> dict[str, Any]:
        """How a job stands, as plain data; Missing where there is none of that name."""
        with self._lock:
            return self._find(identifier).to_dict()

    def result(self, identifier: str) -> dict[str, Any] | Told:
        """What a job found, or why it failed.

        Raises:
            Missing: there is no such job.
            NotReady: it is not finished.
        """
        with self._lock:
            job = self._find(identifier)
            if job.failed is not None:
                return job.failed
            if job.result is None:
                raise NotReady(f"the job is {job.state}: ask again later")
            return job.result

    def picture(self, identifier: str, kind: Picture) -> Path | Told:
        """The video or figure of a job's evidence, or why there is none; as :meth:`result` otherwise."""
        with self._lock:
            job = self._find(identifier)
            self.result(identifier)
            if job.failed is not None or job.undrawn is not None:
                return job.failed or job.undrawn  # type: ignore[return-value]
            if job.task != "explain":
                raise Missing("a prediction has no picture: ask for a job with task=explain")
            return job.file.parent / f"evidence.{kind}"

    def remove(self, identifier: str) -> None:
        """End a job and remove what it has; one that is being worked on ends as soon as it can."""
        with self._lock:
            job = self._find(identifier)
            del self._jobs[identifier]
            job.stop.set()
            if job.state != "running":  # whoever works on it removes it then
                _remove(job)

    def count(self, state: str) -> int:
        """How many jobs there are in a state."""
        with self._lock:
            self._forget()
            return sum(job.state == state for job in self._jobs.values())

    def files(self) -> set[Path]:
        """The files of all jobs that are kept."""
        with self._lock:
            self._forget()
            folders = [job.file.parent for job in self._jobs.values()]
        return {file for folder in folders for file in folder.glob("*")}

    def close(self) -> None:
        """End all jobs; returns when nobody works on one any more."""
        with self._lock:
            for identifier in list(self._jobs):
                self.remove(identifier)
        self._thread.shutdown(cancel_futures=True)

    def _find(self, identifier: str) -> Job:
        self._forget()
        if identifier not in self._jobs:
            minutes = self._service.limits.minutes
            raise Missing(
                f"there is no such job: it was deleted, or it was finished more than {minutes} minutes ago"
            )
        return self._jobs[identifier]

    def _forget(self) -> None:
        """Remove jobs that nobody has fetched in time."""
        oldest = self._clock() - 60 * self._service.limits.minutes
        for job in list(self._jobs.values()):
            if job.finished is not None and job.finished < oldest:
                del self._jobs[job.id]
                _remove(job)

    def _work(self, job: Job) -> None:
        """In the thread of the jobs."""
        with self._lock:
            if job.stop.is_set():
                return
            job.state = "running"
        found: dict[str, Any] | None = None
        failed: Told | None = None
        try:
            found = self._predict(job) if job.task == "predict" else self._explain(job)
        except Exception as error:  # noqa: BLE001 (it is logged there, and the job says it)
            failed = told(error)
        with self._lock:
            job.result, job.failed = found, failed
            job.state, job.finished = FINISHED[found is None], self._clock()
            if job.stop.is_set():
                _remove(job)
            else:
                job.file.unlink(missing_ok=True)

    def _predict(self, job: Job) -> dict[str, Any]:
        prediction = self._service.predict(job.file, self._views, self._service.limits.job)
        return {**prediction.to_dict(), "file": job.file.name}

    def _explain(self, job: Job) -> dict[str, Any]:
        bounds = self._service.limits.job
        with closing(self._service.look(job.file, job.target, self._views, bounds, job.stop)) as steps:
            _, evidence = next(steps), next(steps)
            assert isinstance(evidence, Evidence)
            try:
                for kind in PICTURES:
                    self._service.draw(evidence, kind, job.file.parent, job.stop)
            except MissingExtra as error:
                job.undrawn = told(error)
            return {**evidence.to_dict(), "file": job.file.name}


def _remove(job: Job) -> None:
    shutil.rmtree(job.file.parent, ignore_errors=True)
