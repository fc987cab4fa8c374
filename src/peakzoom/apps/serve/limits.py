"""What one visitor of the web page or the API may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import typer

limit_option = partial(typer.Option, rich_help_panel="Limits for one visitor")

MOST_RATE = 60  # frames a second, for the limit on length


class Bounds(NamedTuple):
    """How large and how long a video may be."""

    megabytes: int
    seconds: float
    instead: str  # what to do with one that is longer

    @property
    def frames(self) -> int:
        """Above them a file is not decoded on."""
        return round(self.seconds * MOST_RATE)


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
    jobs: Annotated[
        int, limit_option(min=0, help="Most jobs of the API that are kept, finished ones too; 0: none.")
    ] = 20
    job_megabytes: Annotated[int, limit_option(min=1, help="Largest upload of a job.")] = 1000
    job_seconds: Annotated[float, limit_option(min=0.1, help="Longest video of a job.")] = 600.0

    @property
    def request(self) -> Bounds:
        """For a request that is answered at once."""
        return Bounds(self.megabytes, self.seconds, "cut it, or use 'peakzoom watch' for long ones")

    @property
    def job(self) -> Bounds:
        """For a job."""
        return Bounds(self.job_megabytes, self.job_seconds, "cut it, or use 'peakzoom watch' for long ones")

    @property
    def stored(self) -> int:
        """MB that may lie on the disk: one of the largest files of each request that waits, and of each job."""
        return self.megabytes * self.waiting + self.job_megabytes * self.jobs
