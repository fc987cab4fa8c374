"""``peakzoom serve``: a web page and a REST API for a trained model."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.apps.serve.limits import Limits
from peakzoom.cli.console import print_result, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import find_videos
from peakzoom.cli.options import RunArg, ScoreOptions, view_option
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for
from peakzoom.utils.hosts import is_local
from peakzoom.utils.missing import missing
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.serve.server import Address
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views

EXAMPLES = 4
TOKEN = "PEAKZOOM_TOKEN"  # in the environment

log = logging.getLogger(__name__)
address_option = partial(typer.Option, rich_help_panel="Address")


@dataclass(frozen=True)
class AddressOptions:
    """Where the server is reached, and by whom."""

    host: Annotated[str, address_option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int | None,
        address_option(min=1, max=65535, help="Port to listen on.", show_default="a free one from 7860 on"),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        address_option(
            help="Another name that the server is reached by, as through a proxy; may be given several times.",
            show_default=False,
        ),
    ] = None
    token: Annotated[
        str | None,
        address_option(
            help=f"Token that every request has to carry; {TOKEN} in the environment keeps it out of the list of "
            "processes.",
            show_default=False,
        ),
    ] = None

    def address(self) -> Address:
        """The same, as the server takes it; UserError for an empty token, which would let all in."""
        from peakzoom.apps.serve.server import Address

        token = os.environ.get(TOKEN) if self.token is None else self.token
        if token == "":
            where = TOKEN if self.token is None else "--token"
            raise UserError(
                f"{where} is empty: give it a token, as 'openssl rand -hex 32' prints, or leave it out"
            )
        if token is None and not is_local(self.host):
            log.warning("whoever reaches this machine may send files: --token or %s asks for a token", TOKEN)
        return Address(self.host, self.port, self.allowed_host or (), token)


@grouped
def serve(
    run: RunArg,
    *,
    address: AddressOptions,
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
    api_only: Annotated[
        bool, typer.Option("--api-only", help="Only the REST API, which needs no Gradio.")
    ] = False,
    limits: Limits,
    computing: ScoreOptions,
) -> None:
    """Open a web page: drop a clip or use the camera, see the prediction and where and when it was seen.

    Beside it there is a REST API for programs, described at /docs.

    Examples:
    - `peakzoom serve runs/first`
    - `peakzoom serve runs/first --api-only --host 0.0.0.0`
    """
    if not api_only:
        with needed_for("the web page (--api-only does without)"):
            import gradio  # noqa: F401 (of two that are missing it is named first, for its extra brings the other)
    start_early()
    from peakzoom.apps.serve.server import server

    reached = address.address()
    if examples is not None and not examples.exists():
        raise missing(examples, "a folder of clips to try")
    clips = list(find_videos([examples]))[:EXAMPLES] if examples else []
    recognizer = computing.load(run)
    if not (clips or api_only) and is_local(address.host):
        clips = _test_videos(run)
    views = _views(recognizer, num_clips, crops)
    with server(
        *(recognizer, views, limits, reached),
        examples=clips,
        api_views=recognizer.choose_views(None) if num_clips is None and crops is None else views,
        page=not api_only,
    ) as at:
        print_result(f"{at}docs" if api_only else at)
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
