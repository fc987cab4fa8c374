"""The command line: ``peakzoom quickstart | train | evaluate | predict | explain | watch | ...``.

Results go to standard output, everything about the way there to standard error. A user's mistake is one sentence and
exit code 2; what was done in part makes exit code 1: files without a prediction among others that have one, a model
card that could not be written. What takes long to import, PyTorch above all, is imported where it is used, so that help
comes at once.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from peakzoom import __version__
from peakzoom.cli import (
    calibrate,
    data,
    evaluate,
    explain,
    export,
    predict,
    propose,
    quickstart,
    recipe,
    search,
    serve,
    study,
    train,
    watch,
    weights,
)
from peakzoom.cli.console import STANDARD_OUTPUT, print_result, results, say, show_log
from peakzoom.cli.stop import INTERRUPTED, TERMINATED, can_resume, heed_sigterm, how_to_go_on, is_stop
from peakzoom.utils.durable import is_full, no_room
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import missing_extra
from peakzoom.utils.system import sentence, system_error, worker_gone

app = typer.Typer(
    name="peakzoom",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_result(f"peakzoom {__version__}")
        raise typer.Exit


@app.callback()
def peakzoom(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Recognise actions in video, with temporal and spatial attention."""


for command in (
    quickstart.quickstart,
    train.train,
    search.search,
    recipe.recipe,
    weights.weights,
    evaluate.evaluate,
    predict.predict,
    explain.explain,
    serve.serve,
    watch.watch,
    propose.propose,
    calibrate.calibrate,
    export.export,
    export.push,
    evaluate.report,
    study.ablate,
    study.compare,
):
    app.command()(command)
data_app = typer.Typer(
    help="Look at data sets, exchange them with annotation tools, unpack official ones, make a synthetic one.",
    no_args_is_help=True,
)
for on_data in (data.check, data.convert, data.prepare, data.render):
    data_app.command()(on_data)
app.add_typer(data_app, name="data")


def _sentence(error: Exception) -> str | None:
    """What is wrong, where it is the user's mistake or the disk is full; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if gone := worker_gone(error):
        return str(gone)
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error, "this command")
    if is_full(error) and getattr(error, "filename", None) != STANDARD_OUTPUT:
        way_out = (
            f"make room and run it again{', or go on with --resume' if can_resume(sys.argv[1:]) else ''}"
        )
        return f"{no_room(Path(), error)}: {way_out}"
    if found := system_error(error):
        return sentence(found)
    if hasattr(error, "format_message"):  # of Click, which some versions of Typer bring themselves
        context: Any = getattr(error, "ctx", None)
        option = getattr(error, "option_name", None)
        with_set = context and any(each.name == "settings" for each in context.command.params)
        if with_set and option and (by_set := recipe.as_set(option, sys.argv)):
            return f"{option} is given as {by_set}"
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{message}; see '{context.command_path if context else 'peakzoom'} --help'"
    return None


def main() -> None:
    """Entry point: runs a command and turns users' mistakes into one sentence."""
    warnings.filterwarnings("ignore", module="lightning")
    show_log()
    terminated = heed_sigterm()
    # A file name need not be text, and a terminal need not know every letter.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        with results():
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as stopped:  # a watch ends in order, and has said so
        if stopped.code == INTERRUPTED and terminated():
            sys.exit(TERMINATED)
        raise
    except Exception as error:
        if not is_stop(error, terminated):
            if type(error).__name__ != "NoArgsIsHelpError":  # then the help is printed already
                said = _sentence(error)
                if said is None:
                    raise
                say(f"error: {said}")
            sys.exit(2)
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer returns it in some versions and raises in others
        say(how_to_go_on(sys.argv[1:]))
        code = TERMINATED if terminated() else INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
