"""Which videos a model is tested on: never one that it was trained on, by its path, its bytes or its time."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.utils.digests import digests, same_bytes
from peakzoom.utils.durable import read_csv
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.segments import file_of, times_of
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

FLATTERS = "accuracies on them flatter the model"
SAME = "it has the same bytes as"
LOST = "unreadable"  # what a run calls videos to train on, or to validate with, that could not be decoded


class _Video(NamedTuple):
    """A video of a run, and what of its file it is about, in seconds."""

    path: str
    split: str
    start: float
    end: float


def _file(path: str | Path) -> str:
    return str(file_of(path).resolve())


def _bytes(digest: str) -> str:
    """Of a file, without the times of a segment."""
    return f"bytes {digest.partition('#')[0]}" if digest else ""


class _Known:
    """What a run knows of videos; nothing where there is no run."""

    def __init__(self, run: Path | None) -> None:
        rows = read_csv(run / "videos.csv") if run else []
        self._splits = {str(Path(row["path"]).resolve()): row["split"] for row in rows}
        # By the file, and by its bytes: a run that was begun before there were digests has none.
        self._videos: dict[str, list[_Video]] = defaultdict(list)
        for row in rows:
            video = _Video(row["path"], row["split"], *times_of(row["path"]))
            for name in (_file(row["path"]), _bytes(row.get("digest") or "")):
                self._videos[name].append(video)
        self.has_digests = any(row.get("digest") for row in rows)
        problems = read_csv(run / "problems.csv") if run else []
        self._reasons = {str(Path(row["path"]).resolve()): row["reason"] for row in problems}

    def split(self, entry: Entry) -> str | None:
        """By the path, or by the time that it shares with a segment of its file; None for one that is not known."""
        exact = self._splits.get(str(entry.path.resolve()))
        if exact is not None:
            return exact
        found = {each.split for each in self._overlapping(_file(entry.path), entry.path)}
        return next((split for split in ("train", "val", "test") if split in found), None)

    def twin(self, entry: Entry, digest: str, splits: Sequence[str]) -> str | None:
        """A video of some splits that has the same bytes, at the same time of them; its path."""
        found = self._overlapping(_bytes(digest), entry.path) if digest else []
        return next((each.path for each in found if each.split in splits), None)

    def copies(self, entries: Sequence[Entry], split: str) -> dict[Path, str]:
        """Of which video of a split an entry under another path has the bytes, at the same time of them.

        The files are compared as they are now: a training notes no digests of the videos that it does not look at.
        """
        files: dict[Path, list[_Video]] = defaultdict(list)
        for video in {each for videos in self._videos.values() for each in videos if each.split == split}:
            files[file_of(video.path)].append(video)
        twins: dict[Path, list[_Video]] = {}
        for group in same_bytes([*(entry.path for entry in entries), *files]):
            same = {file_of(path) for path in group}
            videos = [video for file in sorted(same) for video in files.get(file, [])]
            twins |= dict.fromkeys(same, videos)
        found = {}
        for entry in entries:
            start, end = times_of(entry.path)
            for video in twins.get(file_of(entry.path), []):
                if video.start < end and start < video.end:
                    found[entry.path] = video.path
                    break
        return found

    def _overlapping(self, name: str, path: Path) -> list[_Video]:
        start, end = times_of(path)
        return [each for each in self._videos.get(name, []) if each.start < end and start < each.end]

    def reason(self, entry: Entry) -> str:
        """Why a video could not be decoded."""
        return self._reasons.get(str(entry.path.resolve()), "it could not be decoded for the training")


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
        if split != "train" and (twins := _twins(chosen, known, ("train",), progress)):
            problems += [Problem(str(entry.path), f"scored, but: {SAME} {path}") for entry, path in twins]
            _warn(twins, f"{split} videos of {data.name} that have the bytes of training videos", FLATTERS)
    else:
        chosen = [
            replace(entry, split=split) for entry in data.entries if (known.split(entry) or "test") == split
        ]
        lost = [entry for entry in data.entries if known.split(entry) == LOST]
        strange = [entry for entry in chosen if known.split(entry) is None]
        if twins := _twins(strange, known, ("train", "val"), progress):
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


def expect_untested(data: VideoSet, run: str | Path) -> None:
    """Refuse (UserError) videos of which a run tests itself on one, by its path, its bytes or its time.

    What is chosen on those, thresholds or a temperature, would flatter that test.
    """
    known = _Known(Path(run))
    tested = {
        **{entry.path: str(entry.path) for entry in data.entries if known.split(entry) == "test"},
        **known.copies(data.entries, "test"),
    }
    for path, twin in tested.items():
        same = "" if str(path) == twin else f", the same as {twin}"
        raise UserError(
            f"{len(tested)} of the {len(data.entries)} videos of {data.name} are test videos of {run} (first "
            f"{path}{same}): what is chosen on them would flatter its test; name other DATA, or none to take its "
            "validation videos"
        )


def _twins(
    entries: Sequence[Entry], known: _Known, splits: Sequence[str], progress: bool | Progress
) -> list[tuple[Entry, str]]:
    """The entries whose bytes are known from some splits, each with the path under which they are."""
    if not known.has_digests or not entries:
        return []
    with progress_bar(f"reading {counted(len(entries), 'video')}", progress) as report:
        found = digests([entry.path for entry in entries], report)
    twins = ((entry, known.twin(entry, found[entry.path], splits)) for entry in entries)
    return [(entry, path) for entry, path in twins if path is not None]


def _warn(twins: Sequence[tuple[Entry, str]], which: str, end: str) -> None:
    entry, path = twins[0]
    log.warning(printable(f"{which}: {len(twins)}, first {entry.path} those of {path}; {end}"))
