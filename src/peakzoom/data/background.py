"""A class for the time between labelled segments: a model that knows actions alone sees one everywhere."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peakzoom.data.entries import Entry, Problem, VideoSet, label_counts
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import Segment, file_of, segment_of, written_time
from peakzoom.utils.words import counted
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import VideoInfo, probe

ROUNDING = 1e-3  # of a usual segment: times are written with few digits
LEAST = 0.5  # of a usual segment: a gap that is shorter is left out


def with_background(data: VideoSet, name: str, workers: int = 1) -> VideoSet:
    """The same data with a further class: segments of the files' time that no row covers.

    They are as long as the median labelled segment, and spread evenly over that time. In each split there are as many
    as that split has of a class on average, or as many as fit. A segment is of the group and of the split of its file's
    first row. The time of a row that was left out, as it overlaps another or has no label, is no background either; a
    file has none where the times of such a row cannot be read.

    Args:
        data: of which some videos are segments; files of which nothing is a segment are labelled as a whole.
        name: of the class.
        workers: processes that decode the files, whose length only that tells.

    Raises:
        UserError: no video is a segment, none lies in a file that can be decoded, the class is there already, or no
            time is left.
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
    usual = _usual([each for _, each in segments], lengths, data.name)
    covered: dict[Path, list[Segment]] = defaultdict(list)
    for path in [*(entry.path for entry, _ in segments), *data.claimed]:
        segment = segment_of(path) or Segment(path)
        covered[segment.file].append(segment)
    entries = list(data.entries)
    for split, wanted in _wanted(data).items():
        first = {file: rows[0][0] for file, rows in by_file.items() if file in lengths}
        own = [(entry, covered[file]) for file, entry in first.items() if entry.split == split]
        entries += _spread(own, lengths, usual, wanted, len(data.classes))
    if len(entries) == len(data.entries):
        raise UserError(
            f"{data.name} leaves no time of {usual:.3g} s for a class {name!r}: its rows cover the files"
        )
    number = len(entries) - len(data.entries)
    said = f"{counted(number, 'segment')} of {usual:.3g} s that no row covers are the class {name!r}"
    return replace(
        data,
        classes=[*data.classes, name],
        entries=entries,
        problems=[*data.problems, *_without_background(data, found)],
        notes=[*data.notes, said],
    )


def _without_background(data: VideoSet, found: Mapping[Path, VideoInfo | DecodeError]) -> list[Problem]:
    """The files that give none: those that cannot be decoded, and those of a row that does not say when."""
    return [
        Problem(str(file), f"gives no background: {info.reason}")
        for file, info in found.items()
        if isinstance(info, DecodeError)
    ] + [
        Problem(str(path), "gives no background: a row that is left out does not say when in it")
        for path in sorted(set(data.claimed))
        if isinstance(found.get(path), VideoInfo)
    ]


def _usual(segments: Sequence[Segment], lengths: Mapping[Path, float], name: str) -> float:
    """The median of how many seconds the segments have in their files; a UserError where none has any."""
    seconds = [
        min(lengths[each.file], _end(each, lengths)) - each.start for each in segments if each.file in lengths
    ]
    if within := [each for each in seconds if each > 0]:
        return statistics.median(within)
    raise UserError(
        f"no row of {name} lies in a file that can be decoded, and the class for the time beside them has segments "
        f"as long as the median row: 'peakzoom data check' without --background says what is wrong with each"
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
    files: Sequence[tuple[Entry, Sequence[Segment]]],
    lengths: Mapping[Path, float],
    usual: float,
    wanted: int,
    label: int,
) -> list[Entry]:
    """So many segments of the usual length, evenly over all gaps of the files; fewer where there is no room.

    ``files`` are the first entry of each, and its segments with which none may share time.
    """
    room: list[tuple[Entry, float, float]] = []  # gaps, from when to when
    for first, covered in files:
        at, length = 0.0, lengths[file_of(first.path)]
        spans = sorted((each.start, _end(each, lengths)) for each in covered)
        for start, end in [*spans, (length, 0.0)]:
            until = min(start, length)
            if until - at >= LEAST * usual:
                room.append((first, at, until))
            at = max(at, end)
    total = sum(end - start for _, start, end in room)
    count = min(wanted, sum(max(1, int((end - start) / usual + ROUNDING)) for _, start, end in room))
    entries: list[Entry] = []
    for number in range(count):
        place = (number + 0.5) / count * total  # the middle of the segment
        for entry, start, end in room:
            if place <= end - start:
                begin = min(max(start, start + place - usual / 2), max(start, end - usual))
                until = min(end, begin + usual)  # no later: there the next row's first frame is shown
                segment = Segment(file_of(entry.path), written_time(begin), written_time(until))
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
