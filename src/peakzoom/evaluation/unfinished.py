"""The scores of an evaluation that is not complete: a journal, a line a video, in ``FOLDER.part``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.data.entries import VideoSet
from peakzoom.inference.prediction import Confidence, Effort, Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import DRAFT, by_name, check_new_folder
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import Journal, check_journal, hash_of, whole_lines
from peakzoom.utils.lock import is_written
from peakzoom.video.sampling import Views

OWN = "rest.jsonl"  # of the evaluation itself; shards have files of their own
BLURRED = "faithfulness.jsonl"
UNKNOWN = "unknown.jsonl"


def part_of(out: Path) -> Path:
    """Where the scores are while an evaluation is not complete."""
    out = by_name(out)
    return out.with_name(out.name + DRAFT)


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that an evaluation cannot be written to.

    Raises:
        UserError: it is in use, or holds a stopped evaluation and is not to be gone on with.
    """
    part = part_of(out)
    # Both are there if the process was killed in between: the folder is made again, the same, and the other goes.
    if not (resume and part.exists() and (out / "metrics.json").is_file()):
        check_new_folder(out)
    journals = list(part.glob("*.jsonl"))
    # Shards write beside one that goes on, and would lose what they write to one that begins anew.
    rivals = [file for file in journals if file.name == OWN or not resume]
    if running := [file for file in rivals if is_written(file)]:
        raise UserError(
            f"{running[0]} is being written by another process: wait for it, or name another --out"
        )
    if any(file.stat().st_size for file in journals) and not resume:
        raise UserError(f"{part} holds an evaluation that is not complete: go on with --resume, or remove it")


def journal_settings(recognizer: Recognizer, data: VideoSet, views: Views) -> dict[str, Any]:
    """What decides the lines of a journal."""
    videos = [[str(entry.path), entry.named(data.classes)] for entry in data.entries]
    unknown = [str(path) for path in data.unknown]
    return {
        "videos": f"{len(videos)} videos, {hash_of(videos)}",
        **({"unknown": f"{len(unknown)} videos, {hash_of(unknown)}"} if unknown else {}),
        **recognizer.settings(views),
    }


def gather_shards(
    part: Path, settings: dict[str, Any], classes: list[str]
) -> dict[int, Prediction | DecodeError]:
    """What shards have left, each video once.

    Raises:
        UserError: a shard is not done yet, or is of another evaluation.
    """
    found: dict[int, Prediction | DecodeError] = {}
    for file in sorted(part.glob("shard-*.jsonl")):
        if is_written(file):
            raise UserError(f"{file} is still being written: wait until its shard is done")
        check_journal(file, settings)
        found |= read_lines(whole_lines(file.read_bytes())[0], classes)
    return found


def add_line(journal: Journal, place: int, result: Prediction | DecodeError) -> None:
    """Write the prediction of a video, or why there is none."""
    line: dict[str, Any] = {"video": place, "path": str(result.path)}
    if isinstance(result, DecodeError):
        line["error"] = result.reason
    else:
        line["problem"] = result.problem
        line["effort"] = result.effort
        line["energy"] = result.energy
        line["confidence"] = result.confidence
        line["thresholds"] = result.thresholds
        line["scores"] = {name: values.tolist() for name, values in result.scores.items()}
        line["views"] = {name: values.tolist() for name, values in result.views.items()}
    journal.add(line)


def read_lines(lines: Sequence[dict[str, Any]], classes: list[str]) -> dict[int, Prediction | DecodeError]:
    """The same numbers to the last bit: JSON has every digit of a float64, and of a float32 as one."""
    found: dict[int, Prediction | DecodeError] = {}
    for line in lines:
        path = Path(line["path"])
        if "error" in line:
            found[line["video"]] = DecodeError(path, line["error"])
            continue
        found[line["video"]] = Prediction(
            path,
            classes,
            {name: np.array(values, np.float64) for name, values in line["scores"].items()},
            {name: np.array(values, np.float32) for name, values in line["views"].items()},
            line["problem"],
            Effort(*line["effort"]) if line["effort"] else None,
            line.get("energy"),  # lines of older versions have none
            Confidence(*line["confidence"]) if line.get("confidence") else None,
            tuple(line["thresholds"]) if line.get("thresholds") else None,
        )
    return found
