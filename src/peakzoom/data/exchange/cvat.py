"""CVAT, "CVAT for video 1.1": tracks of labelled shapes, frame by frame, as XML.

A track says that something with its label is there from a shape on until one that is ``outside``. Frames are those of
the file, from 0, also where a task takes every so many only. A track that ends nowhere goes on to the end of its task;
between two boxes it is where the line between them leads.

Source: docs.cvat.ai, "XML annotation format", version 1.1, and what CVAT writes beyond it (``source``, ``subset``,
``start_frame``, ``stop_frame``, ``frame_filter``; several tasks in a project's file): cvat-ai/cvat,
``cvat/apps/dataset_manager/formats/cvat.py`` and ``bindings.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from peakzoom.data.entries import Problem
from peakzoom.data.exchange.clock import Clock
from peakzoom.data.exchange.contents import XmlEvent, shown, xml_events
from peakzoom.data.exchange.project import Box, Project, ProjectVideo, Span, joined
from peakzoom.data.layouts.lists import SPLIT_NAMES
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

TOOL = "CVAT's tracks"
SHAPES = frozenset(("box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"))
TASKS = frozenset(("task", "job"))
EDGES = ("xtl", "ytl", "xbr", "ybr")
SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
SCORE, BOX_SCORE = "score", "box_score"  # attributes of a track, and of each of its boxes


class _Shape(NamedTuple):
    frame: int
    outside: bool
    edges: tuple[float, ...] | None


@dataclass
class _Track:
    label: str
    task: str
    where: str
    shapes: list[_Shape] = field(default_factory=list)
    problem: str | None = None


@dataclass
class _Task:
    """What the head of a file says of a task, by the names of the elements."""

    facts: dict[str, str]

    @property
    def stop(self) -> int | None:
        """The frame after its last."""
        last = _whole(self.facts.get("stop_frame", ""))
        return None if last is None else last + 1

    @property
    def size(self) -> tuple[float, float] | None:
        width, height = (_whole(self.facts.get(name, "")) for name in ("width", "height"))
        return (width, height) if width and height else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for key in ("name", "source") if (name := self.facts.get(key, ""))))


def read_cvat(files: Sequence[Path]) -> Project:
    """The tracks of one file or several.

    Raises:
        UserError: a file is no XML, no CVAT annotation, or one of images.
    """
    project = Project(TOOL)
    for file in files:
        _read(file, project)
    if len(files) > 1:
        project.notes.append(f"from {counted(len(files), 'file')}")
    return project


def is_cvat(file: Path) -> bool:
    """Whether an XML file, or an archive, begins as CVAT's do."""
    try:
        return next(xml_events(file)).tag == "annotations"
    except (UserError, StopIteration):
        return False


def _read(file: Path, project: Project) -> None:
    head: dict[str, str] = {}  # beside the tasks
    tasks: dict[str, _Task] = {}
    tracks: list[_Track] = []
    images = 0
    path: list[str] = []
    for event in xml_events(file):
        if event.begins:
            path.append(event.tag)
        if path[0] != "annotations":
            raise UserError(f"{file} begins with <{path[0]}>, expected <annotations>, as CVAT's files do")
        if path[1:2] == ["meta"]:
            _note_head(event, path, head, tasks)
        elif path[1:2] == ["track"]:
            _note_track(event, path, tracks, file, project)
        elif path[1:2] == ["image"]:
            images += event.begins and len(path) == 2
        if not event.begins:
            path.pop()
    if images and not tracks:
        raise UserError(
            f"{file} is of images ({images}), which have no time: export the task as 'CVAT for video 1.1'"
        )
    if images:
        project.left_out["image"] += images
    _add_videos(file, project, tasks or {"": _Task({})}, head, tracks)


def _note_head(event: XmlEvent, path: list[str], head: dict[str, str], tasks: dict[str, _Task]) -> None:
    """A task, a job, or each task of a project; what stands beside them is of the only one."""
    inside = next((place for place, tag in enumerate(path) if tag in TASKS), None)
    if inside is None:
        if not event.begins:
            head[event.tag] = event.text
        return
    if event.begins and len(path) == inside + 1:
        tasks["open"] = _Task({})
    elif not event.begins and len(path) == inside + 1:
        task = tasks.pop("open")
        tasks[task.facts.get("id", str(len(tasks)))] = task
    elif not event.begins and (len(path) == inside + 2 or path[inside + 1] == "original_size"):
        tasks["open"].facts[event.tag] = event.text


def _note_track(event: XmlEvent, path: list[str], tracks: list[_Track], file: Path, project: Project) -> None:
    inner = path[2:]
    if not inner:
        if event.begins:
            name, task = event.attributes.get("id", str(len(tracks))), event.attributes.get("task_id", "")
            label = event.attributes.get("label", "").strip()
            tracks.append(_Track(label, task, f"{file}, track {name}" + (f" of task {task}" if task else "")))
        return
    if not event.begins:
        return
    track, tag = tracks[-1], inner[-1]
    if tag == "attribute":
        project.left_out["attribute"] += 1
    elif tag in SHAPES and len(inner) == 1:
        try:
            track.shapes.append(_shape(event))
        except ValueError as error:
            track.problem = track.problem or str(error)
        project.left_out[tag] += tag != "box"
    elif inner[0] == "skeleton" and len(inner) == 2 and track.shapes:  # there while one of its points is
        there = event.attributes.get("outside") != "1"
        track.shapes[-1] = track.shapes[-1]._replace(outside=track.shapes[-1].outside and not there)


def _whole(text: str) -> int | None:
    """A whole number from 0, as frames and pixels are; None for anything else."""
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _shape(event: XmlEvent) -> _Shape:
    """A shape; ValueError where it has no frame, or is a box without edges."""
    attributes = event.attributes
    frame = attributes.get("frame", "")
    number = _whole(frame)
    if number is None:
        raise ValueError(f"frame is {shown(frame)}, expected a whole number from 0")
    edges = None
    if event.tag == "box":
        try:
            edges = tuple(float(attributes[name]) for name in EDGES)
        except (KeyError, ValueError):
            raise ValueError(f"its box in frame {frame} has no {', '.join(EDGES)} in numbers") from None
        if not all(abs(edge) < 1e9 for edge in edges):
            raise ValueError(f"its box in frame {frame} has edges that no frame has")
    return _Shape(number, event.tag == "skeleton" or attributes.get("outside") == "1", edges)


def _add_videos(
    file: Path, project: Project, tasks: dict[str, _Task], head: dict[str, str], tracks: Iterable[_Track]
) -> None:
    only = next(iter(tasks)) if len(tasks) == 1 else None
    if only is not None:
        facts = tasks[only].facts
        tasks[only].facts = {
            **{key: head[key] for key in ("source", "width", "height") if key in head},
            **facts,
        }
    spans: dict[str, list[Span]] = {key: [] for key in tasks}
    for track in tracks:
        name = only if only is not None and track.task in ("", only) else track.task
        problem = (
            track.problem or (None if track.label else "no label") or (None if track.shapes else "no shape")
        )
        if problem is None and name not in tasks:
            problem = f"its task {shown(name)} is not in the file's head"
        if problem:
            project.problems.append(Problem(track.where, problem))
            continue
        spans[name].extend(_stretches(track, tasks[name].stop))
    for name, task in tasks.items():
        where = f"{file}, task {name}" if len(tasks) > 1 else str(file)
        if task.names:
            project.videos.append(_video(task, spans[name], project, where))
        else:
            project.problems.append(
                Problem(where, "names no video: neither <source> nor a task's <name> is in its head")
            )


def _video(task: _Task, spans: Sequence[Span], project: Project, where: str) -> ProjectVideo:
    subset = task.facts.get("subset", "")
    split = SPLIT_NAMES.get(subset.casefold())
    if subset and split is None and subset != "default":
        project.left_out["unknown subset"] += 1
    boxed = tuple(span for span in spans if span.boxes)
    return ProjectVideo(task.names, joined(spans), boxed, "frames", size=task.size, split=split, where=where)


def _stretches(track: _Track, stop: int | None) -> Iterator[Span]:
    """From where to where something is there: frames."""
    start: int | None = None
    boxes: list[Box] = []
    for shape in sorted(track.shapes, key=lambda each: each.frame):
        if shape.outside:
            if start is not None and shape.frame > start:
                yield Span(track.label, start, shape.frame, track.where, boxes=tuple(boxes))
            start, boxes = None, []
            continue
        start = shape.frame if start is None else start
        if shape.edges:
            boxes.append(Box(shape.frame, *shape.edges))
    if start is not None:
        end = stop if stop is not None and stop > start else None
        yield Span(track.label, start, end, track.where, boxes=tuple(boxes))


# Writing -----------------------------------------------------------------------------------------------------------


def cvat_xml(video: ProjectVideo, clock: Clock, classes: Sequence[str], number: int = 1) -> str:
    """A video's spans as the annotations of a task, to be uploaded into a task of that video.

    Each span is a track: its boxes, or where it has none one around the frame.

    Raises:
        UserError: a name holds a character that XML cannot hold.
    """
    root = ElementTree.Element("annotations")
    _add(root, "version", "1.1")
    meta = _add(root, "meta")
    task = _add(meta, "task")
    last = len(clock.times) - 1
    name = video.names[0]
    facts = {"id": number, "name": name, "size": last + 1, "mode": "interpolation", "overlap": 0}
    for key, value in {**facts, "bugtracker": "", "flipped": False}.items():
        _add(task, key, str(value))
    _add(task, "subset", SUBSETS.get(video.split or "", "default"))
    for key, value in {"start_frame": 0, "stop_frame": last, "frame_filter": ""}.items():
        _add(task, key, str(value))
    labels = _add(task, "labels")
    for each in classes:
        _label(_add(labels, "label"), each)
    segment = _add(_add(task, "segments"), "segment")
    for key, value in {"id": number, "start": 0, "stop": last, "url": ""}.items():
        _add(segment, key, str(value))
    size = _add(task, "original_size")
    _add(size, "width", str(clock.width))
    _add(size, "height", str(clock.height))
    _add(meta, "source", name.rsplit("/", 1)[-1])
    for place, span in enumerate(video.spans):
        _track(root, place, span, clock)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def labels_json(classes: Sequence[str]) -> str:
    """The labels of a project as its "Raw" editor takes them: with the attributes that proposals have."""
    attributes = [
        {"name": name, "mutable": mutable, "input_type": "text", "default_value": "", "values": [""]}
        for name, mutable in ((SCORE, False), (BOX_SCORE, True))
    ]
    labels = [{"name": name, "type": "any", "attributes": attributes} for name in classes]
    return json.dumps(labels, indent=1) + "\n"


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    element.text = None if text is None else _allowed(text)
    return element


def _allowed(text: str) -> str:
    if found := FORBIDDEN.search(text):
        raise UserError(f"{text!r} holds {found[0]!a}, which XML cannot hold: rename it")
    return text


def _label(element: ElementTree.Element, name: str) -> None:
    _add(element, "name", name)
    _add(element, "type", "any")
    attributes = _add(element, "attributes")
    for attribute, mutable in ((SCORE, False), (BOX_SCORE, True)):
        inner = _add(attributes, "attribute")
        values = {
            "name": attribute,
            "mutable": mutable,
            "input_type": "text",
            "default_value": "",
            "values": "",
        }
        for key, value in values.items():
            _add(inner, key, str(value))


def _track(root: ElementTree.Element, place: int, span: Span, clock: Clock) -> None:
    first, after = clock.frames(span.start, span.end)
    source = "manual" if span.score is None else "auto"
    track = ElementTree.SubElement(root, "track", id=str(place), label=_allowed(span.label), source=source)
    around = Box(first, 0, 0, clock.width, clock.height)
    boxes = {max(first, int(box.at)): box for box in span.boxes} or {first: around}
    boxes.setdefault(first, boxes[min(boxes)])
    for frame in sorted(boxes):
        _box(track, frame, boxes[frame], span.score, outside=False)
    if after < len(clock.times):
        _box(track, after, boxes[max(boxes)], span.score, outside=True)


def _box(track: ElementTree.Element, frame: int, box: Box, score: float | None, outside: bool) -> None:
    edges = zip(EDGES, (box.left, box.top, box.right, box.bottom), strict=True)
    attributes = {
        "frame": str(frame),
        "keyframe": "1",
        "outside": str(int(outside)),
        "occluded": "0",
        **{name: f"{edge:.2f}" for name, edge in edges},
        "z_order": "0",
    }
    element = ElementTree.SubElement(track, "box", attributes)
    for name, value in ((SCORE, score), (BOX_SCORE, box.score)):
        if value is not None:
            inner = ElementTree.SubElement(element, "attribute", name=name)
            inner.text = f"{value:.4f}"
