"""A class for the time between labelled segments: a model that knows actions alone sees one everywhere."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, VideoSet, label_counts
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import Segment, file_of, segment_of
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import VideoInfo, probe

ROUNDING = 1e-3  # of a usual segment: times are written with few digits
LEAST = 0.5  # of a usual segment: a gap that is shorter is left out


def with_background(data: VideoSet, name: str, workers: int = 1) -> VideoSet:
    """The same data with a further class: segments of the files' time that no row covers.

    They are as long as the median labelled segment, and spread evenly over that time. In each split there are as many
    as that split has of a class on average, or as many as fit. A segment is of the group and of the split of its file's
    first row.

    Args:
        data: of which some videos are segments; files of which nothing is a segment are labelled as a whole.
        name: of the class.
        workers: processes that decode the files, whose length only that tells.

    Raises:
        UserError: no video is a segment, the class is there already, or no time is left.
    """
    segments = [(entry, segment) for entry in data.entries if (segment := segment_of(entry.path))]
    if not segments:
        raise UserError(
            f"{data.name} has no rows with start and end, so there is no time beside them for a class {name!r}"
        )
    if name in data.classes:
        raise UserError(f"{data.name} has a class {name!r} already: give the background another name")
    by_file: dict[Path, list[tuple[Entry, Segment]]] = defaultdict(list)
    for entry, segment in segments:
        by_file[segment.file].append((entry, segment))
    found = each_file(probe, list(by_file), workers)
    lengths = {file: info.duration for file, info in found.items() if isinstance(info, VideoInfo)}
    usual = statistics.median(
        min(lengths[each.file], _end(each, lengths)) - each.start
        for _, each in segments
        if each.file in lengths
    )
    entries = list(data.entries)
    for split, wanted in _wanted(data).items():
        own = {file: rows for file, rows in by_file.items() if file in lengths and rows[0][0].split == split}
        entries += _spread(own, lengths, usual, wanted, len(data.classes))
    if len(entries) == len(data.entries):
        raise UserError(
            f"{data.name} leaves no time of {usual:.3g} s for a class {name!r}: its rows cover the files"
        )
    lost = [
        Problem(str(file), f"gives no background: {info.reason}")
        for file, info in found.items()
        if isinstance(info, DecodeError)
    ]
    said = f"{len(entries) - len(data.entries)} segments of {usual:.3g} s that no row covers are the class {name!r}"
    return replace(
        data,
        classes=[*data.classes, name],
        entries=entries,
        problems=[*data.problems, *lost],
        notes=[*data.notes, said],
    )


def _end(segment: Segment, lengths: Mapping[Path, float]) -> float:
    return lengths[segment.file] if segment.end is None else segment.end


def _wanted(data: VideoSet) -> dict[str | None, int]:
    """Of each split, how many videos it has of a class on average."""
    counts = Counter(entry.split for entry in data.entries)
    classes = {
        split: len(label_counts(entry for entry in data.entries if entry.split == split)) for split in counts
    }
    return {split: max(1, round(count / classes[split])) for split, count in counts.items()}


def _spread(
    files: Mapping[Path, Sequence[tuple[Entry, Segment]]],
    lengths: Mapping[Path, float],
    usual: float,
    wanted: int,
    label: int,
) -> list[Entry]:
    """So many segments of the usual length, evenly over all gaps of the files; fewer where there is no room."""
    room: list[tuple[Entry, float, float]] = []  # where a segment may start
    for file, rows in files.items():
        at = 0.0
        for start, end in [
            *sorted((each.start, _end(each, lengths)) for _, each in rows),
            (lengths[file], 0.0),
        ]:
            if start - at >= LEAST * usual:
                room.append((rows[0][0], at, min(start, lengths[file])))
            at = max(at, end)
    total = sum(end - start for _, start, end in room)
    count = min(wanted, sum(max(1, int((end - start) / usual + ROUNDING)) for _, start, end in room))
    entries: list[Entry] = []
    for number in range(count):
        place = (number + 0.5) / count * total  # the middle of the segment
        for entry, start, end in room:
            if place <= end - start:
                begin = min(max(start, start + place - usual / 2), max(start, end - usual))
                segment = Segment(file_of(entry.path), round(begin, 3), round(min(end, begin + usual), 3))
                entries.append(replace(entry, path=segment.path, label=label, also=()))
                break
            place -= end - start
    return _without_overlaps(entries)


def _without_overlaps(entries: Sequence[Entry]) -> list[Entry]:
    kept: list[Entry] = []
    for entry in entries:
        segment = segment_of(entry.path)
        assert segment is not None
        before = segment_of(kept[-1].path) if kept else None
        if before is None or before.file != segment.file or (before.end or 0.0) <= segment.start + 1e-6:
            kept.append(entry)
    return kept
