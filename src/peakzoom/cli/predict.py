"""``peakzoom predict``: the action in video files, as a table, as JSON Lines, or by workers on Ray as Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import check_apart, check_new, find_videos, new_file
from peakzoom.cli.options import CalibratedOptions, RunArg, ViewOptions, hardware_option, output_option
from peakzoom.utils.durable import explain_full_disk, write_csv
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.utils.words import counted
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
    csv: Annotated[
        Path | None,
        output_option(
            help="Write a table here at the end: file, class, score, and the score of every class."
        ),
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
        if (self.on is None) != (self.out is None):
            raise UserError(
                "--on ray and --out go together: name a new folder with --out, add --on ray, or use --jsonl"
            )
        if self.on and (self.jsonl is not None or self.csv is not None or self.top != TOP):
            raise UserError("--on ray writes every score into --out: leave --jsonl, --csv and --top out")
        if self.resume and self.on is None and self.jsonl in (None, STDOUT):
            raise UserError("--resume goes on with a file of predictions: name it with --jsonl")

    def check_files(self) -> Path | None:
        """Refuse files that are there, or are one place; the file of ``--jsonl``, where lines are kept."""
        from peakzoom.utils.journal import settings_file
        from peakzoom.utils.lock import lock_of

        kept = None if self.jsonl == STDOUT else self.jsonl
        if kept is not None and self.csv is not None:
            check_apart(
                {
                    "--jsonl": (kept, settings_file(kept), lock_of(kept)),
                    "--csv": (self.csv, lock_of(self.csv)),
                }
            )
        if kept is not None and not self.resume:
            for file in (kept, settings_file(kept)):
                check_new(file, "--jsonl", "go on with it by --resume")
        return kept


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
    computing: CalibratedOptions,
) -> None:
    """Recognise the action in video files.

    Examples:
    - `peakzoom predict runs/first clip.mp4`
    - `peakzoom predict runs/first camera/ --jsonl predictions.jsonl`
    - `peakzoom predict runs/first camera/ --on ray --out labels`
    """
    results.check()
    make = _label if results.on else _predict
    videos, failed = make(run, files, results, views.views(), workers, computing)
    if failed:
        say(f"{failed} of {videos} files gave no prediction")
        raise typer.Exit(1)


def _label(
    run: str,
    files: list[str],
    results: Results,
    views: Views,
    workers: int | None,
    computing: CalibratedOptions,
) -> tuple[int, int]:
    """Label an archive on Ray; returns how many files there are, and how many gave no prediction."""
    from peakzoom.apps.batch.label import label
    from peakzoom.apps.batch.worker import LabelOptions

    options = LabelOptions(workers, **vars(computing))
    labelled = label(run, files, str(results.out), views, options, resume=results.resume)
    if results.resume:
        say(f"{labelled.before} of {labelled.videos} files were predicted before")
    if labelled.lost:
        say(f"{labelled.lost} workers were lost and started anew")
    print_result(f"{results.out}: {counted(labelled.videos, 'file')}")
    return labelled.videos, labelled.failed


def _predict(
    run: str,
    files: list[str],
    results: Results,
    views: Views,
    workers: int | None,
    computing: CalibratedOptions,
) -> tuple[int, int]:
    """Look at one file after the other, here; returns how many there are, and how many gave no prediction."""
    from peakzoom.utils.journal import Journal

    for each in files:
        if "://" in each and not Path(each).exists():
            raise UserError(
                f"{printable(each)} is an address: --on ray reads those, otherwise name a file or a folder"
            )
    workers = 1 if workers is None else workers
    if workers:
        start_early()
    kept = results.check_files()
    failed, journal, lines = 0, None, list[dict[str, Any]]()
    with ExitStack() as stack:
        stack.enter_context(new_file(results.csv, "--csv"))
        recognizer = computing.load(run)
        views = recognizer.choose_views(views)
        paths = waiting = list(find_videos(map(Path, files)))
        if kept is not None:
            stack.enter_context(explain_full_disk(kept.parent, "go on with --resume"))
            settings = {**recognizer.settings(views), "top": results.top}
            journal = stack.enter_context(Journal(kept, settings, results.resume))
            lines = list(journal.lines)
            failed = sum("error" in line for line in lines)
            waiting = _remaining(paths, lines)
            if results.resume:
                say(f"{len(paths) - len(waiting)} of {len(paths)} files were predicted before")
        for path, result in zip(waiting, recognizer.predict_files(waiting, views, workers), strict=True):
            if isinstance(result, DecodeError):
                failed += 1
                say(f"{printable(path)}: no prediction: {result.reason}")
                line: dict[str, Any] = {"file": str(path), "error": result.reason}
            else:
                if result.problem:
                    say(f"{printable(path)}: {result.problem}")
                line = result.to_dict(results.top)
            if journal:
                journal.add(line)
            if results.csv is not None:
                lines.append(line)
            if results.jsonl == STDOUT:
                print_result(json.dumps(line))
            elif not isinstance(result, DecodeError):
                _print_prediction(result, results.top)
        if results.csv is not None:
            with explain_full_disk(results.csv.parent, "run it again"):
                _write_table(results.csv, lines, recognizer.classes, recognizer.rejection is not None)
    return len(paths), failed


def _write_table(
    file: Path, lines: list[dict[str, Any]], classes: Sequence[str], rejecting: bool = False
) -> None:
    """One row a file, a file without a prediction too; where predictions may be rejected, also how sure each is."""
    from peakzoom.inference.prediction import TABLE, score_columns

    more = ["confidence", "rejected"] if rejecting else []
    columns = [*TABLE, *more]
    rows = (
        [
            line["file"],
            _named(line),
            line.get("score", ""),
            line.get("error") or line.get("problem") or "",
        ]
        + [line.get(name, "") for name in more]
        + [line["scores"]["fused"][name] if "scores" in line else "" for name in classes]
        for line in lines
    )
    write_csv(file, [*columns, *score_columns(classes, columns)], rows)


def _named(line: dict[str, Any]) -> str:
    """What a line of JSON names, in one text; nothing where there is no prediction."""
    from peakzoom.data.entries import SEPARATOR
    from peakzoom.inference.prediction import NONE

    if "class" not in line:
        return ""
    return SEPARATOR.join(each["class"] for each in line.get("labels", [])) or line["class"] or NONE


def _remaining(files: list[Path], lines: list[dict[str, Any]]) -> list[Path]:
    """The files that no line is about, in their order; a file that is named twice has two lines."""
    done = Counter(line.get("file") for line in lines)
    waiting = []
    for file in files:
        if done[str(file)]:
            done[str(file)] -= 1
        else:
            waiting.append(file)
    return waiting


def _print_prediction(prediction: Prediction, top: int) -> None:
    from peakzoom.inference.prediction import NONE

    print_result(printable(prediction.path))
    if prediction.confidence and prediction.confidence.rejected:
        print_result(f"  {NONE} ({prediction.confidence.said})")
    if prediction.thresholds is not None:
        print_result(f"  labels: {printable(prediction.label)}")
    width = max(len(printable(name)) for name in prediction.classes)
    for name, score in prediction.top(top):
        print_result(f"  {printable(name):<{width}}  {score:.4f}")
