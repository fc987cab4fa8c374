"""Work for the API: uploads become predictions and evidence in one thread, and nothing of an upload is left."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

from peakzoom import __version__
from peakzoom.apps.serve.api.jobs import STATES, Jobs
from peakzoom.apps.serve.api.metrics import Metrics
from peakzoom.apps.serve.service import PREDICTED, Picture, Service
from peakzoom.explanation import Evidence
from peakzoom.utils.errors import printable
from peakzoom.video.sampling import Views

Result = TypeVar("Result")

LONGEST_NAME = 150  # bytes; file systems take 255


class Desk:
    """Answers requests to the API, in the order in which they came.

    Args:
        service: predicts and explains.
        views: which are averaged.
    """

    def __init__(self, service: Service, views: Views) -> None:
        self.service, self.views = service, views
        self.jobs = Jobs(service, views)
        self.metrics = Metrics(lambda: self.waiting, self.jobs.count, STATES)
        self.waiting = 0  # counted in the server's own thread
        self._held: set[Path] = set()
        self._thread = ThreadPoolExecutor(1, "requests")

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What waits is not begun; what is under way ends first, for its files are removed next."""
        self.jobs.close()
        self._thread.shutdown(cancel_futures=True)

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait as may."""
        return self.waiting >= self.service.limits.waiting

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """A request that waits while the block lasts."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def files(self) -> set[Path]:
        """Files of requests and jobs, which nobody may remove yet."""
        return set(self._held) | self.jobs.files()

    def about(self) -> dict[str, Any]:
        """The model, and how it is asked, as plain data."""
        recognizer, limits = self.service.recognizer, self.service.limits
        names = ("megabytes", "seconds", "waiting", "minutes", "jobs", "job_megabytes", "job_seconds")
        return {
            "classes": recognizer.classes,
            "facts": recognizer.facts(),
            "weights": recognizer.weights,
            "views": vars(self.views),
            "limits": {name: getattr(limits, name) for name in names},
            "version": __version__,
        }

    async def predict(self, name: str, content: BinaryIO) -> dict[str, Any]:
        """The prediction for an upload, as plain data; errors as :meth:`Service.predict`."""
        return await self._answered(name, content, self._predict)

    async def explain(self, name: str, content: BinaryIO, target: str | None) -> dict[str, Any]:
        """The evidence for a class, or for the prediction, as plain data; errors as :meth:`Service.look`."""
        return await self._answered(name, content, self._explain, target or PREDICTED)

    async def picture(self, name: str, content: BinaryIO, target: str | None, kind: Picture) -> Path:
        """The same as a video or a figure, a file in a folder of its own, which the caller removes."""
        return await self._answered(name, content, self._picture, target or PREDICTED, kind)

    async def add_job(self, name: str, content: BinaryIO, task: str, target: str | None) -> dict[str, Any]:
        """A new job, as plain data.

        Raises:
            UserError: as many jobs are kept as may be, or no class is called so.
        """
        self.jobs.check(target)
        file = await self._stored(name, content)
        try:
            return self.jobs.add(file, task, target or PREDICTED)
        finally:
            self._held.discard(file)  # the job has it, or it is gone

    async def _stored(self, name: str, content: BinaryIO) -> Path:
        """The upload as a file in a folder of its own; nothing of it is left where nobody waits for that any more."""
        storing = asyncio.ensure_future(asyncio.to_thread(self._store, name, content))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            storing.add_done_callback(self._remove_stored)
            raise

    def _remove_stored(self, storing: asyncio.Future[Path]) -> None:
        if storing.exception() is None:
            self._remove(storing.result())

    def _store(self, name: str, content: BinaryIO) -> Path:
        folder = self.service.folder / "sent" / uuid4().hex
        file = folder / file_name(name)
        self._held.add(file)  # before it is there: the sweeper may come at any time
        try:
            folder.mkdir(parents=True)
            with file.open("wb") as stream:
                shutil.copyfileobj(content, stream, 2**20)
        except BaseException:
            self._remove(file)
            raise
        return file

    def _remove(self, file: Path) -> None:
        shutil.rmtree(file.parent, ignore_errors=True)
        self._held.discard(file)

    async def _answered(
        self, name: str, content: BinaryIO, work: Callable[..., Result], *arguments: Any
    ) -> Result:
        """What the work makes of an upload, which is removed then, also where nobody waits for it any more."""
        file = await self._stored(name, content)
        try:
            future: Future[Result] = self._thread.submit(work, file, *arguments)
        except BaseException:
            self._remove(file)
            raise
        future.add_done_callback(lambda _: self._remove(file))
        return await asyncio.wrap_future(future)

    def _predict(self, file: Path) -> dict[str, Any]:
        return {**self.service.predict(file, self.views).to_dict(), "file": file.name}

    def _explain(self, file: Path, target: str) -> dict[str, Any]:
        with closing(self.service.look(file, target, self.views)) as steps:
            _, evidence = next(steps), next(steps)
            assert isinstance(evidence, Evidence)
            return {**evidence.to_dict(), "file": file.name}

    def _picture(self, file: Path, target: str, kind: Picture) -> Path:
        with closing(self.service.look(file, target, self.views)) as steps:
            _, evidence = next(steps), next(steps)
            assert isinstance(evidence, Evidence)
            folder = self.service.new_folder()
            try:
                return self.service.draw(evidence, kind, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise


def file_name(sent: str) -> str:
    r"""A name that any file system takes for the name that a client sends, which may be anything.

    >>> file_name("../../etc/clip.mp4"), file_name("C:\\a.mp4"), file_name(""), file_name("..")
    ('clip.mp4', 'a.mp4', 'upload', 'upload')
    """
    name = printable(sent.replace("\\", "/").rpartition("/")[2]).replace("\\", "_").strip(". ")
    whole = name.encode()
    if len(whole) > LONGEST_NAME:
        head, dot, end = name.rpartition(".")
        end = dot + end if head and len(end.encode()) < 20 else ""
        name = whole[: LONGEST_NAME - len(end.encode())].decode(errors="ignore") + end
    return name or "upload"
