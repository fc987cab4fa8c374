"""One of Ray's actors: it has a model of its own and predicts the videos of one batch after another.

Ray Data repeats a batch whose worker was lost, without end. So a worker keeps notes of a batch beside the drafts, a
line for each row that it has. Where there are notes already, another worker was lost: this one takes the rows from them
and predicts the other videos one by one, each noted first. A video that was noted so ``TRIES`` times, and has no row,
is left out.
"""

from __future__ import annotations

import json
import platform
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from peakzoom.apps.batch.cluster import WorkerPlan
from peakzoom.apps.batch.listing import ListedVideo, digest, from_json, is_address, open_storage
from peakzoom.apps.batch.table import row_of, row_without_prediction, schema, write_rows
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import load
from peakzoom.model.precision import FULL
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import add_line, changed_settings, open_lines
from peakzoom.utils.memory import return_freed_memory
from peakzoom.utils.segments import file_of
from peakzoom.utils.temporary import temporary_folder
from peakzoom.video.container import one_line
from peakzoom.video.faults import reason_of
from peakzoom.video.guard import Guard
from peakzoom.video.sampling import DecodedViews, Views, decode_views

TRIES = 2  # with a video alone
LOST = f"its worker was lost {TRIES} times with this video alone"


@dataclass(frozen=True)
class LabelOptions:
    """How to label an archive.

    Attributes:
        workers: how many, each with a model of its own; None is one for each GPU, or for each core where there is none.
        batch: videos that are written together at most; what a killed driver costs each worker.
        device: "auto" takes GPUs where the cluster has some, "cpu", "cuda" ...
        engine, precision, cascade, calibrated, reject: as for :func:`peakzoom.load`.

    Raises:
        UserError: there would be no worker or no video in a batch.
    """

    workers: int | None = None
    batch: int = 64
    device: str = "auto"
    engine: str | None = None
    precision: str = FULL
    cascade: bool = False
    calibrated: bool = False
    reject: bool = False

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("batch", self.batch)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}, expected 1 or more on Ray")


@dataclass(frozen=True)
class Job:
    """What every worker gets."""

    run: str  # as for peakzoom.load
    options: LabelOptions  # with the device that the driver chose
    views: Views
    settings: dict[str, Any]  # of the driver's own model: the worker's must have the same
    drafts: Path  # the driver's folder of them
    plan: WorkerPlan


class Notes:
    """What is known of a batch, if its worker should be lost; a context.

    Attributes:
        file: JSON Lines.
        rows: those that a lost worker had, by the video's place in the batch.
        tries: how often a place was begun; -1 is the batch as a whole.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        lines, self._stream = open_lines(file)
        self.rows: dict[int, dict[str, Any]] = {line["place"]: line["row"] for line in lines if "row" in line}
        self.tries = Counter(line["begun"] for line in lines if "begun" in line)

    def begin(self, place: int) -> None:
        """Note that a video comes next."""
        add_line(self._stream, {"begun": place})

    def keep(self, place: int, row: dict[str, Any]) -> None:
        """Note a row, as which it counts from now on; JSON has every digit of its numbers."""
        add_line(self._stream, {"place": place, "row": row})
        self.rows[place] = row

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class NotFetchedError(DecodeError):
    """A video that its storage does not give: another time it may."""


class Worker:
    """The actor."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._refused: str | None = None
        torch.set_num_threads(job.plan.threads)
        # A CPU has the network to work for; a GPU waits for decoders.
        self._decoders = job.plan.threads if job.plan.gpus else 1
        try:
            options = job.options
            self._recognizer = load(
                job.run,
                options.device,
                options.engine,
                options.precision,
                options.cascade,
                options.calibrated,
                options.reject,
            )
            if other := changed_settings(job.settings, self._recognizer.settings(job.views)):
                raise UserError(f"{job.run} is another model here, with another {other}")
        except UserError as error:
            self._refused = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Label the videos of "batch" and write their rows.

        The "report" says how many are "done", which have "failed" for what reason, and how many workers were "lost"
        with the batch. Or why the job cannot go on: "refused", a sentence, or "crashed", a traceback.
        """
        report: dict[str, Any]
        try:
            if self._refused:
                raise UserError(self._refused)
            items = from_json(row["batch"])
            with explain_full_disk(self._job.drafts.parent, "go on with --resume"):
                report = {"done": len(items), **self._label(items)}
        except UserError as error:
            report = {"refused": f"{error} (on {platform.node()})"}
        except Exception:  # noqa: BLE001 - the driver raises it
            report = {"crashed": traceback.format_exc()}
        return {"report": json.dumps(report)}

    def _label(self, items: Sequence[ListedVideo]) -> dict[str, Any]:
        """Write the rows of a batch; returns what was lost and what has failed."""
        with Notes(self._job.drafts / f"{digest(items)}.jsonl") as notes:
            lost = notes.tries[-1]
            notes.begin(-1)
            if not lost:
                for place, found in enumerate(self._predict(items)):
                    notes.keep(place, _row(items[place], found))
            for place, item in enumerate(items):
                if place in notes.rows:
                    continue
                if notes.tries[place] == TRIES:
                    notes.rows[place] = row_without_prediction(item, LOST, "worker")
                    continue
                notes.begin(place)
                (found,) = self._predict([item])
                notes.keep(place, _row(item, found))
            rows = [notes.rows[place] for place in range(len(items))]
            write_rows(self._job.drafts, items, rows, schema(self._job.settings))
        notes.file.unlink()
        return_freed_memory()
        errors = [(item.path, row["error"]) for item, row in zip(items, rows, strict=True)]
        return {"failed": [each for each in errors if each[1] is not None], "lost": lost}

    def _predict(self, items: Sequence[ListedVideo]) -> Iterator[Prediction | DecodeError]:
        workers, ahead = self._decoders, max(2, self._decoders)
        return self._recognizer.predict_files(items, self._job.views, workers, ahead, self._decode)

    def _decode(self, guard: Guard | None, item: ListedVideo) -> DecodedViews:
        assert guard is not None  # there is one decoder or more
        with reason_of(item.path):
            return self._fetched(guard, item)

    def _fetched(self, guard: Guard, item: ListedVideo) -> DecodedViews:
        how = (self._recognizer.preprocess, self._job.views, guard)
        if not is_address(item.path):
            try:
                file_of(item.path).stat()
            except OSError as error:  # the driver has seen it: gone since, or this machine lacks the disk
                raise NotFetchedError(item.path, f"is not there any more ({error.strerror})") from error
            return decode_views(item.path, *how)
        try:
            # The end of the name alone: a key of a storage may be no name of a file.
            with temporary_folder("peakzoom-copy-") as folder:
                copy = folder / f"video{Path(item.path.split('?')[0]).suffix}"
                try:
                    guard.run(item.path, copy_to, item.path, copy, size=item.size or 0, doing="copying")
                except DecodeError as error:  # of the storage, or it took too long
                    raise NotFetchedError(item.path, error.reason) from error
                return decode_views(copy, *how)
        except OSError as error:
            raise NotFetchedError(item.path, f"cannot be copied: {one_line(error)}") from error


def copy_to(address: str, copy: Path) -> None:
    """Copy a file from its storage to this machine; a DecodeError where that fails."""
    try:
        storage, path = open_storage(address)
        storage.get_file(path, str(copy))
    except Exception as error:  # each storage has errors of its own
        raise DecodeError(address, f"copying failed: {one_line(error)}") from error


def _row(item: ListedVideo, found: Prediction | DecodeError) -> dict[str, Any]:
    """What the table says of a video."""
    if isinstance(found, DecodeError):
        fault = "storage" if isinstance(found, NotFetchedError) else "file"
        return row_without_prediction(item, found.reason, fault)
    score = found.top(1)[0][1]
    row = {**row_of(item), "class": found.name, "score": score, "scores": found.scores["fused"].tolist()}
    if found.confidence:
        row |= found.confidence.to_dict()
    if found.thresholds is not None:
        row["labels"] = found.names
    if found.effort:
        row |= {"views": found.effort.views, "closer": found.effort.stage2_views}
    return {**row, "problem": found.problem, "error": None, "fault": None}
