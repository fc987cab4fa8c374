"""``peakzoom predict``: the action in video files, as a table or as JSON Lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

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
from peakzoom.errors import DecodeError, printable
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
) -> None:
    """Recognise the action in video files.

    Examples: `peakzoom predict runs/first clip.mp4` and
    `peakzoom predict runs/first camera/ --jsonl answers.jsonl`
    """
    if workers:
        start_early()
    from peakzoom.predict import decode_ahead, load

    averaged = protocol(views)
    if jsonl is not None and str(jsonl) != "-":
        check_new(jsonl, "--jsonl")
    recognizer = load(run, device, engine.value if engine else None)
    steps = stored_cascade(run, recognizer, averaged) if cascade else None
    found = list(find_videos(files))
    failed = 0
    stream = sys.stdout if str(jsonl) == "-" else jsonl.open("w", encoding="utf-8") if jsonl else None
    try:
        decoded = decode_ahead(found, recognizer.preprocess, averaged, workers)
        for path, video in zip(found, decoded, strict=True):
            if isinstance(video, DecodeError):
                failed += 1
                say(f"{printable(path)}: no prediction: {video.reason}")
                _write_line(stream, {"file": str(path), "error": video.reason})
                continue
            prediction = recognizer.score_stepwise(video, steps) if steps else recognizer.score(video)
            if prediction.problem:
                say(f"{printable(path)}: {prediction.problem}")
            _write_line(stream, prediction.to_dict(top))
            if stream is not sys.stdout:
                _print_prediction(prediction, top)
    finally:
        if stream is not None and stream is not sys.stdout:
            stream.close()
    if failed:
        say(f"{failed} of {len(found)} files gave no prediction")
        raise typer.Exit(1)


def _write_line(stream: TextIO | None, line: dict[str, Any]) -> None:
    if stream is not None:
        stream.write(json.dumps(line) + "\n")
        stream.flush()


def _print_prediction(prediction: Prediction, top: int) -> None:
    answer(printable(prediction.path))
    width = max(len(name) for name in prediction.classes)
    for name, score in prediction.top(top):
        answer(f"  {name:<{width}}  {score:.4f}")
