"""``peakzoom predict``: the action in video files, as a table, as JSON Lines, or by workers on Ray as Parquet."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peakzoom.cli.console import answer, say
from peakzoom.cli.inputs import check_new, chosen_views, find_videos
from peakzoom.cli.options import CascadeOpt, EngineOptions, RunArg, ViewOptions, grouped
from peakzoom.utils.durable import telling_full_disk
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.inference.prediction import Prediction
    from peakzoom.video.sampling import Views


TOP = 5


class On(str, Enum):
    """What many workers run on."""

    ray = "ray"


@grouped
def predict(
    run: RunArg,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Video files, or folders to search for them; on Ray also addresses, as s3://bucket/camera.",
            show_default=False,
        ),
    ],
    *,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = TOP,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write JSON Lines here; - for standard output instead of tables.")
    ] = None,
    on: Annotated[
        On | None, typer.Option(help="Label an archive with many workers, into the Parquet files of --out.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="New folder for --on ray.", show_default=False)] = None,
    views: ViewOptions,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Decoding processes: 1; 0 decodes without bounds. On Ray: models, one for each GPU or core.",
            show_default=False,
        ),
    ] = None,
    computing: EngineOptions,
    cascade: CascadeOpt = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the file of --jsonl or --out: what it answers is not looked at again.",
        ),
    ] = False,
) -> None:
    """Recognise the action in video files.

    Examples: `peakzoom predict runs/first clip.mp4`,
    `peakzoom predict runs/first camera/ --jsonl answers.jsonl` and
    `peakzoom predict runs/first camera/ --on ray --out labels`
    """
    if on is On.ray:
        if jsonl is not None or top != TOP:
            raise UserError("--on ray writes every score into --out: leave --jsonl and --top out")
        if out is None:
            raise UserError(
                "--on ray writes Parquet files, and no folder is named: name a new one with --out"
            )
        _label(run, files, out, chosen_views(views), workers, computing, cascade, resume)
        return
    if out is not None:
        raise UserError("--out is the folder of --on ray: name a file with --jsonl, or add --on ray")
    _predict(
        *(run, [_path(file) for file in files], top, jsonl, chosen_views(views)),
        *(1 if workers is None else workers, computing, cascade, resume),
    )


def _path(text: str) -> Path:
    if "://" in text and not Path(text).exists():
        raise UserError(
            f"{printable(text)} is an address: --on ray reads those, otherwise name a file or a folder"
        )
    return Path(text)


def _label(
    run: str,
    addresses: list[str],
    out: str,
    averaged: Views,
    workers: int | None,
    computing: EngineOptions,
    cascade: bool,
    resume: bool,
) -> None:
    """Label an archive on Ray."""
    from peakzoom.apps.batch.label import LabelOptions, label

    options = LabelOptions(
        workers=workers,
        device=computing.device,
        engine=computing.engine_name,
        precision=computing.precision.value,
        cascade=cascade,
    )
    found = label(run, addresses, out, averaged, options, resume=resume)
    if resume:
        say(f"{found.before} of {found.videos} files were answered before")
    if found.lost:
        say(f"{found.lost} workers were lost and started anew")
    answer(f"{out}: {found.videos} files")
    if found.failed:
        say(f"{found.failed} of {found.videos} files gave no prediction")
        raise typer.Exit(1)


def _predict(
    run: str,
    files: list[Path],
    top: int,
    jsonl: Path | None,
    averaged: Views,
    workers: int,
    computing: EngineOptions,
    cascade: bool,
    resume: bool,
) -> None:
    """Look at one file after the other, here."""
    from peakzoom.utils.journal import Journal, settings_file

    if workers:
        start_early()
    from peakzoom.video.sampling import decode_ahead

    kept = None if jsonl is None or str(jsonl) == "-" else jsonl
    if resume and kept is None:
        raise UserError("--resume goes on with a file of answers, and none is named: name it with --jsonl")
    if kept is not None and not resume:
        for each in (kept, settings_file(kept)):
            check_new(each, "--jsonl")
    recognizer = computing.load(run, cascade)
    averaged = recognizer.choose_views(averaged)
    found = list(find_videos(files))
    with contextlib.ExitStack() as stack:
        write: Callable[[dict[str, Any]], None] = _write_line if jsonl is not None else _write_nothing
        waiting, failed = found, 0
        if kept is not None:
            settings = {**recognizer.settings(averaged), "top": top}
            stack.enter_context(telling_full_disk(kept.parent, "go on with --resume"))
            journal = stack.enter_context(Journal(kept, settings, resume))
            write = journal.add
            waiting, failed = _unanswered(found, journal.lines)
            if resume:
                say(f"{len(found) - len(waiting)} of {len(found)} files were answered before")
        decoded = decode_ahead(waiting, recognizer.preprocess, averaged, workers)
        for path, video in zip(waiting, decoded, strict=True):
            if isinstance(video, DecodeError):
                failed += 1
                say(f"{printable(path)}: no prediction: {video.reason}")
                write({"file": str(path), "error": video.reason})
                continue
            prediction = recognizer.score(video)
            if prediction.problem:
                say(f"{printable(path)}: {prediction.problem}")
            write(prediction.to_dict(top))
            if write is not _write_line:
                _print_prediction(prediction, top)
    if failed:
        say(f"{failed} of {len(found)} files gave no prediction")
        raise typer.Exit(1)


def _unanswered(files: list[Path], lines: list[dict[str, Any]]) -> tuple[list[Path], int]:
    """The files that no line is about, in their order, and how many lines say that there is no answer.

    A file that is named twice has two lines.
    """
    done = Counter(line.get("file") for line in lines)
    waiting = []
    for file in files:
        if done[str(file)]:
            done[str(file)] -= 1
        else:
            waiting.append(file)
    return waiting, sum("error" in line for line in lines)


def _write_line(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _write_nothing(line: dict[str, Any]) -> None:
    """Answers go to tables alone."""


def _print_prediction(prediction: Prediction, top: int) -> None:
    answer(printable(prediction.path))
    width = max(len(name) for name in prediction.classes)
    for name, score in prediction.top(top):
        answer(f"  {name:<{width}}  {score:.4f}")
