"""The file of an annotation tool as a data set: its videos are found, and its labels become rows as a manifest's.

So all that holds for a manifest (:func:`peakzoom.data.layouts.manifest.read_rows`) holds here: what is missing, leads
outside or overlaps is left out and named, and a file's segments are one group.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from peakzoom.data.entries import Problem, VideoSet
from peakzoom.data.exchange.activitynet import is_activitynet, read_activitynet
from peakzoom.data.exchange.clock import Clock, look_at
from peakzoom.data.exchange.contents import read_json
from peakzoom.data.exchange.cvat import is_cvat, read_cvat
from peakzoom.data.exchange.finder import Finder
from peakzoom.data.exchange.label_studio import is_label_studio, read_label_studio
from peakzoom.data.exchange.project import Project, ProjectVideo, Span
from peakzoom.data.exchange.via import is_via, read_via
from peakzoom.data.layouts.files import files_in, folder_at
from peakzoom.data.layouts.lists import CsvRow, nothing_usable
from peakzoom.data.layouts.manifest import read_rows
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.segments import Segment, time_text
from peakzoom.utils.words import counted

log = logging.getLogger(__name__)

TOOLS = ("cvat", "label-studio", "via", "activitynet")
COLUMNS = ["path", "label", "split", "group", "start", "end"]
FIRST = 64  # bytes that tell XML, JSON and an archive from a table


def tool_of(path: Path) -> str | None:
    """The tool whose file it is, or whose files a folder holds, by what stands in them; None where it is none's.

    Raises:
        UserError: it is JSON, but of no tool that is known.
    """
    if path.is_dir():
        return "cvat" if _cvat_files(path) else None
    try:
        with path.open("rb") as stream:
            start = stream.read(FIRST)
    except OSError:
        return None  # whoever reads the table says why
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"<" or start.startswith(b"PK\x03\x04"):
        return "cvat"
    return _tool_of_json(path, read_json(path)) if first in (b"{", b"[") else None


def _tool_of_json(path: Path, content: object) -> str:
    tests = (is_label_studio, is_via, is_activitynet)
    if found := next((tool for tool, fits in zip(TOOLS[1:], tests, strict=True) if fits(content)), None):
        return found
    if isinstance(content, dict) and "_via_img_metadata" in content:
        raise UserError(
            f"{path} is of VIA 2, which is for images: expected a project of VIA 3's video annotator"
        )
    raise UserError(
        f"{path} is JSON of no tool that is known: expected Label Studio's tasks (a list with 'data' and "
        "'annotations'), a project of VIA 3 ('metadata', 'view', 'file'), or ActivityNet's 'database'"
    )


def _cvat_files(folder: Path) -> list[Path]:
    """CVAT's files right below a folder, in the order of their names."""
    return [file for file in files_in(folder) if file.suffix.lower() == ".xml" and is_cvat(file)]


def read_project(path: str | Path, tool: str, root: str | Path | None = None) -> VideoSet:
    """The labels of a tool's file, or of a folder of CVAT's.

    A label without a start and an end is of the whole file. Of what counts frames the files are decoded once, for their
    timestamps (:mod:`peakzoom.data.exchange.clock`).

    Args:
        path: of the file or folder.
        tool: one of :data:`TOOLS`.
        root: folder of the videos; None: the file's own.

    Raises:
        UserError: it cannot be read, or is another tool's; an unknown split; nothing in it can be used.
    """
    path = Path(path).expanduser()
    root = (path if path.is_dir() else path.parent) if root is None else folder_at(root)
    project = parse(path, tool)
    rows, problems, without_label = _rows(project, root)
    problems = [*project.problems, *problems]
    if not rows:
        raise (
            nothing_usable(path, problems, root)
            if problems
            else UserError(f"{path} labels nothing in its videos")
        )
    data = read_rows(path, root, COLUMNS, rows)
    return replace(
        data,
        problems=[*problems, *data.problems],
        notes=project.sentences(),
        claimed=[*data.claimed, *without_label],
    )


def parse(path: Path, tool: str) -> Project:
    """What a tool's file says; a UserError where it is not the tool's."""
    if tool == "cvat":
        files = _cvat_files(path) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} holds no XML file of CVAT")
        return read_cvat(files)
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a file of {tool}")
    content = read_json(path)
    if (found := _tool_of_json(path, content)) != tool:
        raise UserError(f"{path} is of {found}, expected {tool}")
    readers = {"label-studio": read_label_studio, "via": read_via, "activitynet": read_activitynet}
    return readers[tool](path, content)


# Videos ------------------------------------------------------------------------------------------------------------


def found_videos(
    project: Project, root: Path
) -> tuple[list[tuple[ProjectVideo, Path, Clock | None]], list[Problem]]:
    """The videos of a project that have labels or boxes, with their files, and clocks but of those in seconds."""
    finder, problems = Finder(root), []
    found: list[tuple[ProjectVideo, Path]] = []
    for video in project.videos:
        if not video.spans and not video.boxed:
            continue
        file = finder.find(video.names)
        if isinstance(file, Path):
            found.append((video, file))
        else:
            problems.append(Problem(video.names[0], f"{file} ({video.where})"))
    counting = [file for video, file in found if video.unit != "seconds"]
    if counting:
        log.info(f"reading the times of the frames of {counted(len(set(counting)), 'file')}")
    clocks = look_at(counting)
    timed: list[tuple[ProjectVideo, Path, Clock | None]] = []
    for video, file in found:
        clock = clocks.get(file)
        if isinstance(clock, DecodeError):
            problems.append(Problem(str(file), f"{clock.reason} ({video.where})"))
        elif clock and video.unit == "ticks" and video.rate is None and not clock.even:
            reason = (
                "its frame rate varies, and the task does not say how many frames a second it counts (fps)"
            )
            problems.append(Problem(str(file), f"{reason} ({video.where})"))
        else:
            timed.append((video, file, clock))
    return timed, problems


# Rows --------------------------------------------------------------------------------------------------------------


def _rows(project: Project, root: Path) -> tuple[list[CsvRow], list[Problem], list[Path]]:
    """A manifest's rows of the project's labels, what cannot be one, and segments that have no label that counts."""
    videos, problems = found_videos(project, root)
    rows: list[CsvRow] = []
    without_label: list[Path] = []
    for video, file, clock in videos:
        path = os.path.relpath(file, root.absolute()).replace(os.sep, "/")
        for span in video.spans:
            times = (span.start, span.end) if clock is None else _seconds(span, video, clock, problems)
            if times is None:
                continue
            start, end = times
            if not span.label:
                without_label.append(Segment(file, start, end).path)
                continue
            fields = {
                "path": path,
                "label": span.label,
                "split": video.split or "",
                "group": video.group or "",
                "start": "" if start == 0 and end is None else time_text(start),
                "end": "" if end is None else time_text(end),
            }
            rows.append((span.where or video.where, defaultdict(str, fields), len(COLUMNS)))
    return rows, problems, without_label


def frames_of(span: Span, video: ProjectVideo, clock: Clock) -> tuple[int, int]:
    """The file's frames that a span is of, the last one not counted; they may lie beyond the file."""
    if video.unit == "seconds":
        return clock.frames(span.start, span.end)
    if video.rate is not None:
        return clock.ticked(span.start, span.end, video.rate)
    after = len(clock.times) if span.end is None else int(span.end)
    return int(span.start), after


def _seconds(
    span: Span, video: ProjectVideo, clock: Clock, problems: list[Problem]
) -> tuple[float, float | None] | None:
    first, after = frames_of(span, video, clock)
    count, fps = len(clock.times), clock.fps or 1.0
    lasts = f"its file has {counted(count, 'frame')}" + (
        f" ({clock.duration:.6g} s)" if clock.duration else ""
    )
    if first >= min(after, count):
        wrong = (
            f"begins at frame {span.start:g}, and {lasts}" if first >= count else "holds no frame of its file"
        )
        problems.append(Problem(span.where, wrong))
        return None
    shown = (
        count if video.rate is None else (count + 1) / fps * video.rate
    )  # a player's clock may be off by one
    if span.end is not None and span.end > shown:
        problems.append(
            Problem(span.where, f"ends at frame {span.end:g}, and {lasts}: used as far as it goes")
        )
    return clock.seconds(first, min(after, count))
