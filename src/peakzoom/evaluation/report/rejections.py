"""What an evaluation with ``--reject`` has left, read again for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from peakzoom.evaluation.files import reading
from peakzoom.evaluation.rejection import JudgedVideo, RejectionScores
from peakzoom.inference.prediction import MEASURES
from peakzoom.utils.durable import read_csv
from peakzoom.utils.plain import read_object


def read_rejection_scores(folder: Path) -> RejectionScores | None:
    """What an evaluation has left of its rejections; None where it rejected none.

    Raises:
        UserError: its files are damaged.
    """
    table, figures = folder / "rejection.csv", folder / "rejection.json"
    if not table.exists() and not figures.exists():
        return None
    with reading(figures):
        values = read_object(figures)
        measure, threshold = str(values["measure"]), float(values["threshold"])
        if measure not in MEASURES or values["interval_of"] not in ("groups", "videos"):
            raise ValueError(f"its measure is {measure!r}")
    with reading(table):
        videos = [_read_row(row) for row in read_csv(table)]
        if not any(each.label for each in videos):
            raise ValueError("no video has a label")
    return RejectionScores(measure, threshold, videos, values["interval_of"] == "groups")


def _read_row(row: Mapping[str, str]) -> JudgedVideo:
    flags = {"True": True, "False": False}
    confidence = float(row["confidence"])
    if not math.isfinite(confidence):
        raise ValueError(f"a confidence is {confidence}")
    return JudgedVideo(
        path=row["path"],
        label=row["label"],
        predicted=row["predicted"],
        confidence=confidence,
        rejected=flags[row["rejected"]],
        right=flags[row["right"]],
        group=row["group"] or None,
    )
