"""A data set as the files of an annotation tool, or as a manifest; read again, it is the same.

The same are the files, the frames of each segment, classes and splits, and groups where the tool has a place for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peakzoom.data.entries import NO_CLASS, Entry, Problem, VideoSet, some
from peakzoom.data.exchange.activitynet import activitynet_json
from peakzoom.data.exchange.clock import Clock, look_at
from peakzoom.data.exchange.cvat import cvat_xml, labels_json
from peakzoom.data.exchange.label_studio import label_studio_file, label_studio_task, labelling
from peakzoom.data.exchange.project import ProjectVideo, Span
from peakzoom.data.exchange.reading import COLUMNS, TOOLS
from peakzoom.data.exchange.via import via_project
from peakzoom.utils.durable import check_new_folder, explain_full_disk, whole_folder, write_csv, write_text
from peakzoom.utils.errors import DecodeError, UserError, printable
from peakzoom.utils.segments import file_of, segment_of, stem_of, time_text
from peakzoom.utils.words import counted

FORMATS = (*TOOLS, "manifest")
# In the folder that is written.
LABELS, TASKS, LABELLING, PROJECT, DATABASE, LIST = (
    "labels.json",
    "tasks.json",
    "labelling.xml",
    "project.json",
    "annotations.json",
    "clips.csv",
)
LONGEST = 80  # letters of a video's name in that of its file, which numbers tell apart
MAIN = {"cvat": "", "label-studio": TASKS, "via": PROJECT, "activitynet": DATABASE, "manifest": LIST}


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        data: what to read it from again: a file, or a folder of CVAT's.
        videos, spans: how many.
        problems: what was left out.
        notes: what the format has no place for, a sentence each.
    """

    data: Path
    videos: int
    spans: int
    problems: list[Problem]
    notes: list[str]


def write_data(data: VideoSet, root: Path, form: str, out: Path) -> Written:
    """Write a data set into a new folder.

    Files of CVAT and Label Studio count frames, ActivityNet's say how long videos are: for these each file is decoded
    once. So it is for VIA where a segment has no end.

    Args:
        data: with classes.
        root: folder that the paths start from.
        form: one of :data:`FORMATS`.
        out: new or empty folder.

    Raises:
        UserError: the folder is not empty; a video is not below the root; a file's segments have several splits or
            groups, where a format has one a file; a name cannot be written; the disk is full; nothing is left.
    """
    check_new_folder(out)
    if data.classes == [NO_CLASS]:
        raise UserError(f"{data.name} has no classes: there is nothing to write")
    problems = list(data.problems)
    if form == "manifest":
        rows = [_row(entry, data, root) for entry in data.entries]
        with explain_full_disk(out, "convert again"), whole_folder(out) as draft:
            write_csv(draft / LIST, COLUMNS, rows)
        return Written(
            out / LIST, len({file_of(each.path) for each in data.entries}), len(rows), problems, []
        )
    if several := [entry for entry in data.entries if entry.also]:
        raise UserError(
            f"{several[0].path} has several labels, and {form} keeps one a segment here: convert to a manifest"
        )
    videos = _videos(data, root, form)
    lengths = {each.names[0]: file for file, each in videos.items()}
    clocks = look_at([file for file, video in videos.items() if form != "via" or _open_ended(video)])
    kept: list[tuple[ProjectVideo, Clock | None]] = []
    for file, video in videos.items():
        clock = clocks.get(file)
        if isinstance(clock, DecodeError):
            problems.append(Problem(str(file), clock.reason))
            continue
        spans = tuple(
            span for span in video.spans if _holds_frames(span, clock, lengths[video.names[0]], problems)
        )
        if spans:
            kept.append((_with_spans(video, spans), clock))
    if not kept:
        raise UserError(
            f"no video of {data.name} can be written: {printable(problems[0].path)}: {problems[0].reason}"
        )
    with explain_full_disk(out, "convert again"), whole_folder(out) as draft:
        _write(form, kept, data, draft)
    grouped = sum(video.group is not None for video, _ in kept) if form == "cvat" else 0
    notes = (
        [f"CVAT has no place for groups: those of {counted(grouped, 'video')} are left out"]
        if grouped
        else []
    )
    return Written(out / MAIN[form], len(kept), sum(len(video.spans) for video, _ in kept), problems, notes)


def relative(path: Path, root: Path) -> str:
    """A path from the root; a UserError where it is not below it."""
    below = os.path.relpath(path, root)
    if Path(below).parts[0] == os.pardir or Path(below).is_absolute():
        raise UserError(f"{path} is not below {root}: name the folder that holds all videos with --root")
    return below.replace(os.sep, "/")


def common_root(files: Iterable[Path]) -> Path:
    """The folder that holds all of some files."""
    return Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))  # noqa: PTH100 - keeps links


def _row(entry: Entry, data: VideoSet, root: Path) -> tuple[str, ...]:
    segment = segment_of(entry.path)
    path = relative(file_of(entry.path), root)
    times = ("", "")
    if segment is not None:
        times = time_text(segment.start), "" if segment.end is None else time_text(segment.end)
    group = _own_group(entry, data, path)
    return (path, entry.named(data.classes), entry.split or "", group or "", *times)


def _own_group(entry: Entry, data: VideoSet, path: str) -> str | None:
    """The group, where it is not just the file of a segment."""
    if entry.group is None or (segment_of(entry.path) is not None and not data.own_groups):
        return None
    return None if entry.group == path else entry.group


def _videos(data: VideoSet, root: Path, form: str) -> dict[Path, ProjectVideo]:
    """The files of a data set with their labels, in the order of the entries."""
    by_file: dict[Path, list[Entry]] = {}
    for entry in data.entries:
        by_file.setdefault(file_of(entry.path), []).append(entry)
    found: dict[Path, ProjectVideo] = {}
    for file, entries in by_file.items():
        name = relative(file, root)
        splits = list(dict.fromkeys(entry.split for entry in entries))
        groups = list(dict.fromkeys(_own_group(entry, data, name) for entry in entries))
        for kind, values in (("splits", splits), ("groups", groups)):
            if len(values) > 1:
                raise UserError(
                    f"{name} has segments of several {kind} ({some(str(each) for each in values)}), and a file of "
                    f"{form} has one a video: give its segments one, or convert to manifest"
                )
        spans = tuple(
            Span(
                data.classes[entry.label],
                *((0.0, None) if (at := segment_of(entry.path)) is None else at[1:]),
            )
            for entry in entries
        )
        found[file] = ProjectVideo((name,), spans, split=splits[0], group=groups[0])
    return found


def _open_ended(video: ProjectVideo) -> bool:
    return any(span.end is None and span.start > 0 for span in video.spans)


def _holds_frames(span: Span, clock: Clock | None, file: Path, problems: list[Problem]) -> bool:
    if clock is None:
        return True
    first, after = clock.frames(span.start, span.end)
    if first >= after:
        path = f"{file}#t={span.start:g}" + ("" if span.end is None else f",{span.end:g}")
        problems.append(Problem(path, f"holds no frame: its file lasts {clock.duration:.6g} s"))
    return first < after


def _with_spans(video: ProjectVideo, spans: tuple[Span, ...]) -> ProjectVideo:
    return ProjectVideo(video.names, spans, split=video.split, group=video.group)


def _write(
    form: str, kept: Sequence[tuple[ProjectVideo, Clock | None]], data: VideoSet, folder: Path
) -> None:
    videos = [video for video, _ in kept]
    if form == "via":
        lasts = [clock.duration if clock else None for _, clock in kept]
        write_text(folder / PROJECT, via_project(videos, data.classes, data.name, lasts))
        return
    clocks = [clock for _, clock in kept if clock is not None]
    if form == "activitynet":
        write_text(folder / DATABASE, activitynet_json(videos, clocks, data.classes, data.name))
    elif form == "cvat":
        write_cvat(folder, videos, clocks, data.classes)
    else:
        tasks = [
            label_studio_task(*each, number)
            for number, each in enumerate(zip(videos, clocks, strict=True), 1)
        ]
        write_label_studio(folder, tasks, data.classes, boxes=False)


def write_cvat(
    folder: Path, videos: Sequence[ProjectVideo], clocks: Sequence[Clock], classes: Sequence[str]
) -> None:
    """A file a video, numbered in their order, and the labels for a project."""
    for number, (video, clock) in enumerate(zip(videos, clocks, strict=True), 1):
        name = re.sub(r"[^\w.-]", "_", stem_of(Path(video.names[0])))[:LONGEST]
        write_text(folder / f"{number:04d}-{name}.xml", cvat_xml(video, clock, classes, number))
    write_text(folder / LABELS, labels_json(classes))


def write_label_studio(
    folder: Path, tasks: Sequence[dict[str, object]], classes: Sequence[str], boxes: bool
) -> None:
    """The tasks, and the labelling configuration for a project; with rectangles where there are ``boxes``."""
    write_text(folder / TASKS, label_studio_file(tasks))
    write_text(folder / LABELLING, labelling(classes, boxes))
