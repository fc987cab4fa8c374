"""``calibrate --reject`` and ``--unknown``: from which confidence on a class is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.utils.durable import explain_full_disk, whole_folder, write_text
from peakzoom.utils.errors import UserError, printable

if TYPE_CHECKING:
    from peakzoom.data.entries import Problem, VideoSet
    from peakzoom.evaluation.rejection import ChosenRejection
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views


@dataclass(frozen=True)
class UnknownOptions:
    """Videos that show none of the classes."""

    unknown: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With --reject: folder or list of videos that show none of the classes.",
            show_default=False,
        ),
    ] = None

    def check(self, reject: bool) -> None:
        """Refuse them where nothing is rejected."""
        if self.unknown and not reject:
            raise UserError("--unknown names videos to be rejected: add --reject, or leave it out")

    def videos(self, run: str) -> list[Path]:
        """Their paths; none where none are named.

        Raises:
            UserError: some are videos of the run, which show its classes.
        """
        if self.unknown is None:
            return []
        from peakzoom.data.datasets import open_to_look
        from peakzoom.data.runs import run_folder, run_videos

        found = open_to_look(self.unknown)
        _say(found.problems)
        home, paths = run_folder(run), [entry.path for entry in found.entries]
        known = {entry.path.resolve() for entry in run_videos(home).entries} if home else set()
        if own := [path for path in paths if path.resolve() in known]:
            raise UserError(
                f"{printable(own[0])} is a video of the run, and {len(own)} of {self.unknown} are: expected videos "
                "that show none of its classes"
            )
        return paths


@dataclass(frozen=True)
class RejectionOptions(UnknownOptions):
    """Whether the threshold of the rejection is chosen, and what it keeps."""

    reject: Annotated[
        bool,
        typer.Option(
            "--reject", help="Choose the confidence below which no class is named, and nothing else."
        ),
    ] = False
    kept: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="With --reject: share of the right predictions that is kept."),
    ] = 0.95


def calibrate_rejection(
    run: str, recognizer: Recognizer, videos: VideoSet, how: tuple[Views, int], rejecting: RejectionOptions
) -> None:
    """Choose the threshold on labelled videos, by views and so many decoders, and leave it in the run."""
    import numpy as np

    from peakzoom.evaluation.evaluate import score_unknown, score_videos
    from peakzoom.evaluation.rejection import (
        choose_rejection,
        confidences,
        judged,
        measure_rejection,
        right_ones,
    )
    from peakzoom.inference.rejection import FILE, FOLDER, Rejection
    from peakzoom.model.load import digest

    target, paths = Path(run) / FOLDER, rejecting.videos(run)
    scored = score_videos(recognizer, videos, *how)
    unknown, lost = score_unknown(recognizer, paths, *how)
    _say([*scored.problems, *lost])
    keep = np.append(right_ones(scored.predictions, scored.entries), np.zeros(len(unknown), bool))
    chosen = choose_rejection(confidences([*scored.predictions, *unknown]), keep, rejecting.kept)
    rejection = Rejection(
        chosen.measure, chosen.threshold, digest(recognizer.model), how[0], recognizer.precision
    )
    both = judged(scored.predictions, rejection), scored.entries, judged(unknown, rejection)
    found = measure_rejection(*both)
    values = {
        **rejection.to_dict(),
        "calibration": {**found.summary(), "aurocs": chosen.aurocs, "share_kept": rejecting.kept},
    }
    with explain_full_disk(target, "calibrate again"), whole_folder(target) as draft:
        write_text(draft / FILE, json.dumps(values, indent=2) + "\n")
    print_result(_chosen(chosen, int(keep.sum()), int((~keep).sum()) - len(unknown), len(unknown)))
    for line in found.said():
        print_result(line)
    print_result(
        f"These figures are of the videos that it was chosen on. 'peakzoom predict --reject' uses it: {target / FILE}"
    )


def _chosen(chosen: ChosenRejection, right: int, wrong: int, unknown: int) -> str:
    """What was told apart from what, and how well each measure does."""
    from peakzoom.inference.prediction import MEASURES

    others = f"{wrong} wrong ones" + (f" and {unknown} unknown videos" if unknown else "")
    aurocs = ", ".join(f"{MEASURES[name]} {value:.3f}" for name, value in chosen.aurocs.items())
    mistakes = "" if unknown else " (none are given by --unknown: mistakes on these videos stand for them)"
    return f"{right} right predictions against {others}{mistakes}\nAUROC: {aurocs}"


def _say(problems: list[Problem]) -> None:
    for problem in problems:
        say(f"{problem.path}: {problem.reason}")
