"""The report on a data set before training: videos of each class, their lengths and sizes, unreadable files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peakzoom.data.doubts import doubts, parts_of
from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.data.glimpses import Glimpse, glimpse
from peakzoom.utils.digests import same_bytes
from peakzoom.utils.errors import DecodeError
from peakzoom.utils.progress import Progress
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import VideoInfo, probe


@dataclass(frozen=True)
class ClassReport:
    """One class: videos of each split ("" = none stated), and the readable ones' frames, seconds and sizes."""

    name: str
    splits: Counter[str]
    unreadable: int
    frames: tuple[float, float, float] | None  # least, median, most
    seconds: tuple[float, float, float] | None
    sizes: list[tuple[int, int]]  # different (height, width), most frequent first
    labelled: float  # seconds of all readable ones together


@dataclass(frozen=True)
class Report:
    """What :func:`check` found."""

    classes: list[ClassReport]
    rates: dict[float, int]  # frames per second, to a tenth, and how many videos, most frequent first
    variable_rate: int
    wrong_headers: int  # videos whose header states another count than they have
    groups: int
    problems: list[Problem]  # missing or unreadable files, and what was wrong with readable ones
    glimpses: dict[Path, Glimpse]  # of the readable videos, where they were asked for
    doubts: list[str]  # what should be known before training, a sentence each


def check(
    data: VideoSet, workers: int = 1, progress: Progress | None = None, glimpses: bool = False
) -> Report:
    """Decode every video once and count; ``progress`` is called with (done, all)."""
    paths = [entry.path for entry in data.entries]
    seen: dict[Path, Glimpse] = {}
    infos: dict[Path, VideoInfo | DecodeError]
    if glimpses:
        looked = each_file(glimpse, paths, workers, progress)
        seen = {path: each for path, each in looked.items() if isinstance(each, Glimpse)}
        infos = {path: each.info if isinstance(each, Glimpse) else each for path, each in looked.items()}
    else:
        infos = each_file(probe, paths, workers, progress)
    problems = list(data.problems)
    for path, info in infos.items():
        if isinstance(info, DecodeError):
            problems.append(Problem(str(path), info.reason))
        elif info.problem:
            problems.append(Problem(str(path), f"readable, but: {info.problem}"))
    good = [info for info in infos.values() if isinstance(info, VideoInfo)]
    return Report(
        [
            _report(name, [each for each in data.entries if label in each.labels], infos)
            for label, name in enumerate(data.classes)
        ],
        dict(Counter(round(info.fps, 1) for info in good).most_common()),
        sum(info.variable_rate for info in good),
        sum(0 < info.header_frames != info.frames for info in good),
        len({entry.group for entry in data.entries if entry.group is not None}),
        problems,
        seen,
        doubts(data.classes, parts_of(data), same_bytes(entry.path for entry in data.entries)),
    )


def _report(name: str, entries: Sequence[Entry], infos: dict[Path, VideoInfo | DecodeError]) -> ClassReport:
    good = [info for entry in entries if isinstance(info := infos[entry.path], VideoInfo)]
    return ClassReport(
        name,
        Counter(entry.split or "" for entry in entries),
        len(entries) - len(good),
        _range([info.frames for info in good]),
        _range([info.duration for info in good]),
        [size for size, _ in Counter((info.height, info.width) for info in good).most_common()],
        sum(info.duration for info in good),
    )


def _range(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (min(values), float(np.median(values)), max(values)) if values else None
