"""What one visitor of the web page may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

limit_option = partial(typer.Option, rich_help_panel="Limits for one visitor")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for; MB, seconds and minutes. Options of ``peakzoom serve``, whose help is here."""

    megabytes: Annotated[int, limit_option(min=1, help="Largest upload.")] = 100
    seconds: Annotated[float, limit_option(min=0.1, help="Longest video.")] = 60.0
    files: Annotated[int, limit_option(min=1, help="Most files in the batch tab.")] = 20
    waiting: Annotated[int, limit_option(min=1, help="Most requests that wait.")] = 50
    minutes: Annotated[
        int, limit_option(min=1, help="Minutes after which uploads and results are removed.")
    ] = 10
