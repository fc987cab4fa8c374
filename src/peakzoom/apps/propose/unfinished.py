"""Proposals that are not complete: a journal, a line a video, in ``FOLDER.rest.part``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.apps.propose.propose import Proposal, Proposed
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.data.entries import Problem
from peakzoom.data.exchange.clock import Clock
from peakzoom.data.exchange.project import Box, Span
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import DRAFT, by_name, sync
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import Journal, hash_of
from peakzoom.video.sampling import Views

OWN = "rest.jsonl"


def part_of(out: Path) -> Path:
    """Where what was found lies until all videos have been looked at."""
    out = by_name(out)
    return out.with_name(f"{out.name}.rest{DRAFT}")


@contextmanager
def unfinished(out: Path, settings: dict[str, Any], resume: bool) -> Iterator[Journal]:
    """The journal of proposals that will lie in ``out``.

    Raises:
        UserError: there is one that is not to be gone on with, or was made with other settings, or another process
            writes it.
    """
    part = part_of(out)
    file = part / OWN
    if not resume and file.exists() and file.stat().st_size:
        raise UserError(f"{part} holds proposals that are not complete: go on with --resume, or remove it")
    part.mkdir(parents=True, exist_ok=True)
    sync(part.parent)
    if not resume and file.exists():  # a process was killed before its first line
        file.unlink()
    with Journal(file, settings, resume) as journal:
        yield journal


def proposal_settings(
    recognizer: Recognizer, files: Sequence[Path], options: WatchOptions, boxes: bool
) -> dict[str, Any]:
    """What decides the lines of a journal."""
    settings = recognizer.settings(Views())
    del settings["views"]
    videos = f"{len(files)} videos, {hash_of([str(file) for file in files])}"
    return {**settings, **asdict(options), "boxes": boxes, "videos": videos}


def line_of(found: Proposed | Problem) -> dict[str, Any]:
    """What was found in a video, or why it could not be decoded, as a line of JSON."""
    if isinstance(found, Problem):
        return {"path": found.path, "problem": found.reason}
    clock = found.clock
    return {
        "path": str(found.file),
        "clock": [clock.times.tolist(), clock.fps, clock.width, clock.height],
        "events": [[asdict(each.span), each.uncertainty] for each in found.events],
        "uncertainty": found.uncertainty,
        "problems": [[each.path, each.reason] for each in found.problems],
    }


def from_line(line: dict[str, Any]) -> Proposed | Problem:
    """What :func:`line_of` wrote."""
    if "problem" in line:
        return Problem(line["path"], line["problem"])
    times, *rest = line["clock"]
    events = [
        Proposal(Span(**{**span, "boxes": tuple(Box(*box) for box in span["boxes"])}), uncertainty)
        for span, uncertainty in line["events"]
    ]
    return Proposed(
        file=Path(line["path"]),
        clock=Clock(np.array(times, np.float64), *rest),
        events=events,
        uncertainty=line["uncertainty"],
        problems=[Problem(*each) for each in line["problems"]],
    )
