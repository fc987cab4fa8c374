"""How much of the video is recorded with an event."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from peakzoom.utils.errors import UserError

evidence_option = partial(typer.Option, rich_help_panel="Evidence")


@dataclass(frozen=True)
class EvidenceOptions:
    """Options of :class:`peakzoom.apps.watch.evidence.recorder.Recorder` and of ``peakzoom watch``, whose help is here.

    Raises:
        UserError: a value is outside its range, or of use only with a folder.
    """

    evidence: Annotated[
        Path | None,
        evidence_option(
            help="Folder for evidence of each event: clip, figure, peaks, checksums, and a page. One that has some "
            "of this source and model already is gone on with.",
            show_default=False,
        ),
    ] = None
    clip_before: Annotated[float, evidence_option(min=0.0, help="Seconds of a clip before its event.")] = 2.0
    clip_after: Annotated[float, evidence_option(min=0.0, help="Seconds of a clip after its event.")] = 2.0
    clip_longest: Annotated[float, evidence_option(help="Seconds of an event that a clip shows at most.")] = (
        300.0
    )
    clip_memory: Annotated[
        float,
        evidence_option(
            min=1.0, help="MB of a stream or camera that are kept, so that a clip can begin before its event."
        ),
    ] = 256.0

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("clip_before", 0 <= self.clip_before < math.inf, "seconds of 0 or more"),
            ("clip_after", 0 <= self.clip_after < math.inf, "seconds of 0 or more"),
            ("clip_longest", 0 < self.clip_longest < math.inf, "seconds above 0"),
            ("clip_memory", 1 <= self.clip_memory < math.inf, "MB, at least 1"),
        ):
            if not right:
                raise UserError(f"{name} is {getattr(self, name):g}, expected {expected}")
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if self.evidence is None and given:
            raise UserError(
                f"{given[0]} is of clips, which are recorded with --evidence: name a folder with it"
            )
