"""Which videos a model is tested on: never one that it was trained on, by its path or by its bytes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.utils.digests import digests
from peakzoom.utils.durable import read_csv
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.progress import Progress, progress_bar

log = logging.getLogger(__name__)

FLATTERS = "accuracies on them flatter the model"
SAME = "it has the same bytes as"
LOST = "unreadable"  # what a run calls videos to train on, or to validate with, that could not be decoded


class _Known:
    """What a run knows of videos; nothing where there is no run."""

    def __init__(self, run: Path | None) -> None:
        rows = read_csv(run / "videos.csv") if run else []
        self._splits = {str(Path(row["path"]).resolve()): row["split"] for row in rows}
        # A run that was begun before there were digests has none.
        self._digests = [(row["split"], row["digest"], row["path"]) for row in rows if row.get("digest")]
        problems = read_csv(run / "problems.csv") if run else []
        self._reasons = {str(Path(row["path"]).resolve()): row["reason"] for row in problems}

    def split(self, entry: Entry) -> str | None:
        """By the path; None for a video that the run does not know."""
        return self._splits.get(str(entry.path.resolve()))

    def reason(self, entry: Entry) -> str:
        """Why a video could not be decoded."""
        return self._reasons.get(str(entry.path.resolve()), "it could not be decoded for the training")

    def digests(self, *splits: str) -> dict[str, str]:
        """Paths of the videos of some splits, by what digest they had."""
        return {digest: path for split, digest, path in self._digests if split in splits}


def choose_videos(
    data: VideoSet, run: str | Path | None, split: str = "test", progress: bool | Progress = True
) -> VideoSet:
    """The videos to test on: never one that the model was trained on, unless asked for by name.

    Where the data have splits, those of ``split``; one of them that has the same bytes as a training video is named.
    Where they have none, the videos that the run set aside under that name, and for "test" also those that the run does
    not know; one that has the same bytes as a video of another split of the run is left out, and named. Each of these,
    and of split "train" and "val" each video that could not be decoded when the run was trained, is in ``problems``.

    Raises:
        UserError: there are none, or the data's split is another than the run's and holds videos it was trained on.
    """
    known = _Known(None if run is None else Path(run))
    problems: list[Problem] = []
    if any(entry.split for entry in data.entries):
        chosen = [entry for entry in data.entries if entry.split == split]
        lost = [entry for entry in data.entries if entry.split == LOST]
        seen = sum(known.split(entry) == "train" for entry in chosen)
        if seen and split != "train":
            raise UserError(
                f"{seen} of the {len(chosen)} {split} videos of {data.name} are videos that {run} was trained on: "
                "name the split that it was trained with, or no data to take its own test videos"
            )
        if split != "train" and (twins := _twins(chosen, known.digests("train"), progress)):
            problems += [Problem(str(entry.path), f"scored, but: {SAME} {path}") for entry, path in twins]
            _warn(twins, f"{split} videos of {data.name} that have the bytes of training videos", FLATTERS)
    else:
        chosen = [
            replace(entry, split=split) for entry in data.entries if (known.split(entry) or "test") == split
        ]
        lost = [entry for entry in data.entries if known.split(entry) == LOST]
        strange = [entry for entry in chosen if known.split(entry) is None]
        if twins := _twins(strange, known.digests("train", "val"), progress):
            problems += [Problem(str(entry.path), f"left out: {SAME} {path}") for entry, path in twins]
            _warn(
                twins,
                f"videos of {data.name} that have the bytes of those that were trained on or validated with",
                "they are left out",
            )
            copies = {entry.path for entry, _ in twins}
            chosen = [entry for entry in chosen if entry.path not in copies]
    if not chosen:
        raise UserError(
            f"{data.name} has no {split} videos that this run was not trained on: name another --split (val, train), "
            "mark some videos as test in the data, or train with --test-groups"
        )
    if split in ("train", "val"):
        problems += [Problem(str(entry.path), known.reason(entry)) for entry in lost]
    return replace(data, entries=chosen, problems=[*data.problems, *problems])


def _twins(
    entries: Sequence[Entry], known: Mapping[str, str], progress: bool | Progress
) -> list[tuple[Entry, str]]:
    """The entries whose bytes are known, each with the path under which they are."""
    if not known or not entries:
        return []
    with progress_bar(f"reading {len(entries)} videos", progress) as report:
        found = digests([entry.path for entry in entries], report)
    return [(entry, known[found[entry.path]]) for entry in entries if found[entry.path] in known]


def _warn(twins: Sequence[tuple[Entry, str]], which: str, end: str) -> None:
    entry, path = twins[0]
    log.warning(printable(f"{which}: {len(twins)}, first {entry.path} those of {path}; {end}"))
