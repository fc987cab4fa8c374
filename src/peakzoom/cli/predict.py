"""``peakzoom predict``: the action in video files, as a table, as JSON Lines, or by workers on Ray as Parquet."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peakzoom.cli.console import answer, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import check_new, find_videos
from peakzoom.cli.options import (
    CascadeOptions,
    RunArg,
    ViewOptions,
    hardware_option,
    output_option,
)
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.inference.prediction import Prediction
    from peakzoom.video.sampling import Views

TOP = 5
STDOUT = Path("-")


@dataclass(frozen=True)
class Results:
    """Where predictions go."""

    top: Annotated[int, output_option(min=1, help="Classes to print.")] = TOP
    jsonl: Annotated[
        Path | None, output_option(help="Write JSON Lines here; - for standard output instead of tables.")
    ] = None
    on: Annotated[
        Literal["ray"] | None,
        output_option(help="Label an archive with many workers, into the Parquet files of --out."),
    ] = None
    out: Annotated[str | None, output_option(help="New folder for --on ray.", show_default=False)] = None
    resume: Annotated[
        bool, output_option(help="Go on with the file of --jsonl or --out: what is in it is not done again.")
    ] = False

    def check(self) -> None:
        """Refuse what excludes one another."""
        if self.on == "ray" and (self.jsonl is not None or self.top != TOP):
            raise UserError("--on ray writes every score into --out: leave --jsonl and --top out")
        if self.on == "ray" and self.out is None:
            raise UserError(
                "--on ray writes Parquet files, and no folder is named: name a new one with --out"
            )
        if self.on is None and self.out is not None:
            raise UserError("--out is the folder of --on ray: name a file with --jsonl, or add --on ray")
        if self.on is None and self.resume and self.file is None:
            raise UserError(
                "--resume goes on with a file of predictions, and none is named: name it with --jsonl"
            )

    @property
    def file(self) -> Path | None:
        """The file that JSON Lines are kept in."""
        return None if self.jsonl == STDOUT else self.jsonl


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
    results: Results,
    views: ViewOptions,
    workers: Annotated[
        int | None,
        hardware_option(
            min=0,
            help="Decoding processes; 0 decodes without a time limit. On Ray: models.",
            show_default="1, on Ray one for each GPU or core",
        ),
    ] = None,
    computing: CascadeOptions,
) -> None:
    """Recognise the action in video files.

    Examples: `peakzoom predict runs/first clip.mp4`,
    `peakzoom predict runs/first camera/ --jsonl predictions.jsonl` and
    `peakzoom predict runs/first camera/ --on ray --out labels`
    """
    results.check()
    if results.out is not None:
        _label(run, files, results.out, views.views(), workers, computing, results.resume)
    else:
        paths = [_path(file) for file in files]
        _predict(run, paths, results, views.views(), 1 if workers is None else workers, computing)


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
    computing: CascadeOptions,
    resume: bool,
) -> None:
    """Label an archive on Ray."""
    from peakzoom.apps.batch.label import label
    from peakzoom.apps.batch.worker import LabelOptions

    options = LabelOptions(workers, **vars(computing))
    labelled = label(run, addresses, out, averaged, options, resume=resume)
    if resume:
        say(f"{labelled.before} of {labelled.videos} files were predicted before")
    if labelled.lost:
        say(f"{labelled.lost} workers were lost and started anew")
    answer(f"{out}: {labelled.videos} files")
    if labelled.failed:
        say(f"{labelled.failed} of {labelled.videos} files gave no prediction")
        raise typer.Exit(1)


def _predict(
    run: str,
    files: list[Path],
    results: Results,
    averaged: Views,
    workers: int,
    computing: CascadeOptions,
) -> None:
    """Look at one file after the other, here."""
    from peakzoom.utils.journal import Journal, settings_file

    if workers:
        start_early()
    kept = results.file
    if kept is not None and not results.resume:
        for each in (kept, settings_file(kept)):
            check_new(each, "--jsonl")
    recognizer = computing.load(run)
    averaged = recognizer.choose_views(averaged)
    paths = list(find_videos(files))
    with contextlib.ExitStack() as stack:
        write: Callable[[dict[str, Any]], None] = _write_line if results.jsonl is not None else _write_nothing
        waiting, failed = paths, 0
        if kept is not None:
            settings = {**recognizer.settings(averaged), "top": results.top}
            stack.enter_context(explain_full_disk(kept.parent, "go on with --resume"))
            journal = stack.enter_context(Journal(kept, settings, results.resume))
            write = journal.add
            waiting, failed = _remaining(paths, journal.lines)
            if results.resume:
                say(f"{len(paths) - len(waiting)} of {len(paths)} files were predicted before")
        predicted = recognizer.predict_files(waiting, averaged, workers)
        for path, prediction in zip(waiting, predicted, strict=True):
            if isinstance(prediction, DecodeError):
                failed += 1
                say(f"{printable(path)}: no prediction: {prediction.reason}")
                write({"file": str(path), "error": prediction.reason})
                continue
            if prediction.problem:
                say(f"{printable(path)}: {prediction.problem}")
            write(prediction.to_dict(results.top))
            if write is not _write_line:
                _print_prediction(prediction, results.top)
    if failed:
        say(f"{failed} of {len(paths)} files gave no prediction")
        raise typer.Exit(1)


def _remaining(files: list[Path], lines: list[dict[str, Any]]) -> tuple[list[Path], int]:
    """The files that no line is about, in their order, and how many lines hold an error.

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
    """Predictions go to tables alone."""


def _print_prediction(prediction: Prediction, top: int) -> None:
    answer(printable(prediction.path))
    width = max(len(name) for name in prediction.classes)
    for name, score in prediction.top(top):
        answer(f"  {name:<{width}}  {score:.4f}")
