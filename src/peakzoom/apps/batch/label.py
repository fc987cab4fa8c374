"""Labels for an archive of videos: many workers on Ray, one row a video in Parquet.

The driver lists the videos (:mod:`~peakzoom.apps.batch.listing`), leaves out those that the table has
(:mod:`~peakzoom.apps.batch.table`), and has Ray Data hand the rest to workers in batches
(:mod:`~peakzoom.apps.batch.worker`). A worker writes the rows of its batch itself, as one file. So a video has its
row, or is labelled when the same command runs again, whatever was killed in between.

A lost worker costs the video that it was at, or the few that it was decoding: Ray starts the worker anew and gives it
that batch once more, and the rows that it had are noted. From then on it takes the batch's videos one by one, which
shows the one that it is lost with: a video with which that happens twice gets a row that says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from peakzoom.apps.batch.cluster import connected, plan_for
from peakzoom.apps.batch.listing import ListedVideo, find_items, is_address, to_json
from peakzoom.apps.batch.table import Known, batches_of, new_drafts, read_known, remove_drafts, remove_rows
from peakzoom.apps.batch.worker import Job, LabelOptions, Worker
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import load_quietly
from peakzoom.model.precision import slow_in
from peakzoom.utils.durable import check_new_folder, explain_full_disk, write_text
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.extras import needed_for
from peakzoom.utils.journal import check_journal, settings_file
from peakzoom.utils.lock import only_writer
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views

log = logging.getLogger(__name__)

SHARES = 4  # batches for each worker at least, or the last ones would wait for one another


@dataclass(frozen=True)
class Labelled:
    """How it went."""

    videos: int  # found under the addresses
    before: int  # of these, those that had a row already
    failed: int  # of all found, those that gave no prediction, in this run or before
    lost: int  # workers that ended in the middle of a batch and were started anew


def label(
    run: str | Path,
    addresses: str | Path | Iterable[str | Path],
    out: str | Path,
    views: Views | None = None,
    options: LabelOptions | None = None,
    *,
    resume: bool = False,
    progress: bool | Progress = True,
) -> Labelled:
    """Label every video under the addresses, on Ray. A warning is logged for each video that gives no prediction.

    Ray that this program has started is used; otherwise the cluster that ``RAY_ADDRESS`` names, otherwise Ray is
    started on this machine and ended at the end. Every machine must have this package, and must see the run, the
    videos that are files, and the table under the same paths.

    Args:
        run: as for :func:`peakzoom.load`.
        addresses: files, folders, and addresses that fsspec opens.
        out: folder of the table (:mod:`peakzoom.apps.batch.table`), new or empty; on disks, not in object storage.
        views: which views to average, see :meth:`peakzoom.Recognizer.choose_views`.
        options: workers, and how their models compute.
        resume: go on with the table that is there, if any. Its videos are left alone, but for those that have changed
            since (size, or entity tag or time of change) and those whose error was not their own (``fault`` is
            ``storage`` or ``worker``): their rows are removed and they are labelled anew.
        progress: show a bar; a function is called with (done, all) instead.

    Raises:
        UserError: there is no video, the table is in use or another model's, Ray is missing, or the disk is full.
    """
    with needed_for("labelling on Ray"):
        import pyarrow  # noqa: F401
        import ray  # noqa: F401

    options = options or LabelOptions()
    if is_address(str(out)):
        raise UserError(f"--out is {out}, expected a folder on a disk: copy it into the storage afterwards")
    out = Path(out).absolute()
    items = find_items([addresses] if isinstance(addresses, (str, Path)) else addresses)
    with _alone(out, resume), explain_full_disk(out, "go on with --resume"), connected():
        job = _prepare(str(run), views, options)
        if why := slow_in(options.precision, torch.device("cuda" if job.plan.gpus else "cpu")):
            log.warning(why)
        if settings_file(out).exists():
            check_journal(out, job.settings)
        else:
            write_text(settings_file(out), json.dumps(job.settings, indent=2) + "\n")
        try:
            job = replace(job, drafts=new_drafts(out))
            waiting, old, failed = _sort_out(items, read_known(out))
            remove_rows(job.drafts, old)
            before = done = len(items) - len(waiting)
            lost = 0
            most = min(options.batch, -(-len(waiting) // (SHARES * job.plan.workers)))
            with progress_bar(f"labelling {counted(len(items), 'video')}", progress) as show:
                show(done, len(items))
                for report in _hand_out(batches_of(waiting, most), job) if waiting else ():
                    done, lost = done + report["done"], lost + report["lost"]
                    failed += len(report["failed"])
                    for path, reason in report["failed"]:
                        log.warning("%s: no prediction: %s", printable(path), reason)
                    show(done, len(items))
        finally:
            remove_drafts(out)
    return Labelled(len(items), before, failed, lost)


@contextmanager
def _alone(out: Path, resume: bool) -> Iterator[None]:
    """The only process that labels into a folder.

    Raises:
        UserError: another process does; or there is something, and it is not to be gone on with.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        if not settings_file(out).exists():
            check_new_folder(out)
        elif not resume:
            raise UserError(f"{out} is begun: go on with it by --resume, name another folder, or remove it")
        yield


def _prepare(run: str, views: Views | None, options: LabelOptions) -> Job:
    """What workers get, but for the folder of drafts."""
    import ray

    device = options.device
    if device.startswith("cuda:"):
        raise UserError(f"device is {device}, and Ray chooses the GPU of each worker: ask for cuda")
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in machines]
    if Path(run).exists():
        run = str(Path(run).absolute())
    # This model only says what it is: the driver's machine may have no GPU.
    here = "cpu" if device == "cuda" else device
    recognizer = load_quietly(
        *(run, here, options.engine, options.precision, options.cascade, options.calibrated, options.reject)
    )
    on_torch = isinstance(recognizer.engine, TorchEngine)
    if device == "cuda" and not on_torch:
        raise UserError(f"engine {recognizer.engine.name} runs on the CPU, not on cuda: leave the device out")
    if device == "auto" and on_torch:
        device = "cuda" if any(gpus for _, gpus in nodes) else "cpu"
    plan = plan_for(nodes, options.workers, device == "cuda")
    views = recognizer.choose_views(views)
    settings = recognizer.settings(views)
    if on_torch:
        settings["device"] = device
    settings = json.loads(json.dumps(settings))
    return Job(run, replace(options, device=device), views, settings, Path(), plan)


def _sort_out(
    items: Sequence[ListedVideo], known: dict[str, Known]
) -> tuple[list[ListedVideo], dict[str, Known], int]:
    """Videos to label, rows that are to go before that, and how many of the other videos have no prediction."""
    waiting: list[ListedVideo] = []
    old: dict[str, Known] = {}
    failed = 0
    for item in items:
        row = known.get(item.shown)
        if row is None:
            waiting.append(item)
        elif _has_changed(item, row) or row.fault not in (None, "file"):
            waiting.append(item)
            old[item.shown] = row
        else:
            failed += row.error is not None
    return waiting, old, failed


def _has_changed(item: ListedVideo, row: Known) -> bool:
    """Judged by what was known both times: a storage may tell less of a file when it lists many."""
    pairs = ((item.size, row.size), (item.changed or None, row.changed or None))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _hand_out(batches: Sequence[Sequence[ListedVideo]], job: Job) -> Iterator[dict[str, Any]]:
    """Have Ray Data label batches; yields what workers report of each, in any order.

    Ray Data starts lost workers anew, and their batches, without end; what puts an end to it is in
    :mod:`peakzoom.apps.batch.worker`.
    """
    import ray

    rows = [{"batch": to_json(items)} for items in batches]
    # A batch is a row, and a row is a block, which is what Ray Data does again.
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,  # type: ignore[arg-type]  # the annotation knows functions alone
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(
            size=min(job.plan.workers, len(rows)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=job.plan.threads,
        num_gpus=job.plan.gpus or None,
    )
    done.context.enable_progress_bars = False
    done.context.print_on_execution_start = False
    done.context.execution_no_progress_timeout_s = -1  # a batch of slow files takes as long as it takes
    left = len(rows)
    for row in done.iter_rows():
        left -= 1
        report = json.loads(row["report"])
        if "refused" in report:
            raise UserError(report["refused"])
        if "crashed" in report:
            raise RuntimeError(f"in a worker:\n{report['crashed']}")
        yield report
    assert left == 0, f"Ray Data kept {left} of {len(rows)} batches"
