"""``peakzoom serve``: a web page for a trained model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.apps.serve.limits import Limits
from peakzoom.cli.console import print_result, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import find_videos
from peakzoom.cli.options import RunArg, ScoreOptions, view_option
from peakzoom.utils.errors import UserError
from peakzoom.utils.hosts import is_local
from peakzoom.utils.missing import missing
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views

EXAMPLES = 4


@grouped
def serve(
    run: RunArg,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port to listen on.", show_default="a free one from 7860 on"),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name that the page is reached by, as through a proxy; may be given several times.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clips to try. Default: test videos of the run, on a local address only."
        ),
    ] = None,
    num_clips: Annotated[
        int | None,
        view_option(min=1, help="Clips of a video.", show_default="3; calibrated: those that it is for"),
    ] = None,
    crops: Annotated[
        int | None,
        view_option(min=1, help="Crops of a clip.", show_default="1; calibrated: those that it is for"),
    ] = None,
    limits: Limits,
    computing: ScoreOptions,
) -> None:
    """Open a web page: drop a clip or use the camera, see the prediction and where and when it was seen.

    Example: `peakzoom serve runs/first`
    """
    start_early()
    from peakzoom.apps.serve.page import server

    if examples is not None and not examples.exists():
        raise missing(examples, "a folder of clips to try")
    clips = list(find_videos([examples]))[:EXAMPLES] if examples else []
    recognizer = computing.load(run)
    clips = clips or (_test_videos(run) if is_local(host) else [])
    views = _views(recognizer, num_clips, crops)
    with server(
        recognizer,
        views,
        limits,
        host=host,
        port=port,
        examples=clips,
        allowed_hosts=allowed_host or (),
    ) as address:
        print_result(address)
        say("Ctrl-C stops it; what was uploaded is removed then.")
        while True:
            time.sleep(3600)


def _views(recognizer: Recognizer, num_clips: int | None, crops: int | None) -> Views:
    """Three clips of one crop, or what the scores are calibrated for; UserError for other views than those."""
    from peakzoom.video.sampling import Views

    calibrated = recognizer.temperature or recognizer.rejection
    usual = Views("paper", 3, 1) if calibrated is None else recognizer.choose_views(None)
    return recognizer.choose_views(Views(usual.rule, num_clips or usual.clips, crops or usual.crops))


def _test_videos(run: str) -> list[Path]:
    """A few of the run's own, each of another class, that are still there."""
    from peakzoom.data.runs import run_folder, run_videos

    home = run_folder(run)
    if home is None:
        return []
    try:
        entries = [each for each in run_videos(home).entries if each.split == "test" and each.path.is_file()]
    except (OSError, KeyError) as error:
        raise UserError(f"{home / 'videos.csv'} cannot be read: {error}") from error
    first = {each.label: each.path for each in reversed(entries)}
    return [first[label] for label in sorted(first)][:EXAMPLES]
