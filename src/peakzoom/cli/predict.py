"""``peakzoom predict``: the action in video files, as a table or as JSON Lines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peakzoom.cli.console import answer, say
from peakzoom.cli.options import (
    CascadeOpt,
    DecodersOpt,
    DeviceOpt,
    EngineOpt,
    RunArg,
    ViewOptions,
    check_new,
    find_videos,
    grouped,
    protocol,
    stored_cascade,
)
from peakzoom.errors import DecodeError, UserError, printable
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.predict import Prediction


@grouped
def predict(
    run: RunArg,
    files: Annotated[
        list[Path], typer.Argument(help="Video files, or folders to search for them.", show_default=False)
    ],
    *,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write JSON Lines here; - for standard output instead of tables.")
    ] = None,
    views: ViewOptions,
    workers: DecodersOpt = 1,
    device: DeviceOpt = "auto",
    engine: EngineOpt = None,
    cascade: CascadeOpt = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the --jsonl file: what it answers is not looked at again."),
    ] = False,
) -> None:
    """Recognise the action in video files.

    Examples: `peakzoom predict runs/first clip.mp4` and
    `peakzoom predict runs/first camera/ --jsonl answers.jsonl`
    """
    from peakzoom.journal import Journal, settings_file

    if workers:
        start_early()
    from peakzoom.predict import decode_ahead, load

    averaged = protocol(views)
    kept = None if jsonl is None or str(jsonl) == "-" else jsonl
    if resume and kept is None:
        raise UserError("--resume goes on with a file of answers, and none is named: name it with --jsonl")
    if kept is not None and not resume:
        for each in (kept, settings_file(kept)):
            check_new(each, "--jsonl")
    recognizer = load(run, device, engine.value if engine else None)
    steps = stored_cascade(run, recognizer, averaged) if cascade else None
    found = list(find_videos(files))
    with contextlib.ExitStack() as stack:
        write: Callable[[dict[str, Any]], None] = _write_line if jsonl is not None else _write_nothing
        waiting, failed = found, 0
        if kept is not None:
            settings = {**recognizer.settings(averaged, steps), "top": top}
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
            prediction = recognizer.score_stepwise(video, steps) if steps else recognizer.score(video)
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
