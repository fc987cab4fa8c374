"""Label Studio: tasks with annotations, as JSON; regions of a video's timeline, and rectangles in it.

Label Studio counts frames from 1 by a clock of its own, ``frameRate`` of the labelling's ``<Video>``: frame n is what
is shown from (n - 1) / frameRate on, and the last one of a region belongs to it. What is written has its rate in the
task (``fps``) and a labelling configuration that takes it from there. Rectangles are in percent of the frame.

Source: the pages of the tags TimelineLabels, VideoRectangle, Video and Choices, "Label Studio JSON format of annotated
tasks" and "Import pre-annotated data" of labelstud.io (HumanSignal/label-studio, ``docs/source``); that a frame's
number is one more than the frames before it: its pull request 7027.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

from peakzoom.data.entries import Problem
from peakzoom.data.exchange.clock import Clock
from peakzoom.data.exchange.contents import number, objects, shown, words
from peakzoom.data.exchange.project import Box, Project, ProjectVideo, Span, joined
from peakzoom.data.layouts.files import is_video
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

TOOL = "Label Studio's tasks"
LOCAL = "/data/local-files/?d="  # what its server reads from its document root
UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what it puts before the names of uploaded files
PERCENT = 100.0
SAME = 1e-3  # two rates that differ by less are one
VIDEO, LINE, BOX, BOXED, WHOLE = "video", "events", "box", "boxes", "class"  # names of the labelling's parts
HUES = ("#be123c", "#2563eb", "#15803d", "#7c3aed", "#a16207", "#0e7490", "#c2410c", "#4d7c0f")


def is_label_studio(content: object) -> bool:
    """Whether JSON is a list of tasks, or one task."""
    tasks = content if isinstance(content, list) else [content]
    return any("data" in task and ("annotations" in task or "predictions" in task) for task in objects(tasks))


def read_label_studio(file: Path, content: Any) -> Project:
    """The last annotation of each task.

    Raises:
        UserError: it is no list of tasks.
    """
    tasks = content if isinstance(content, list) else [content]
    if not is_label_studio(content):
        raise UserError(
            f"{file} holds no tasks with 'data' and 'annotations': export them as JSON, not as JSON-MIN"
        )
    project = Project(TOOL)
    for place, task in enumerate(tasks, 1):
        where = f"{file}, task {task.get('id', place) if isinstance(task, dict) else place}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            project.problems.append(Problem(where, "it has no data, expected the address of a video"))
            continue
        names = _names(task["data"])
        if not names:
            project.problems.append(Problem(where, "its data name no video"))
            continue
        results = _results(task, project, where)
        if results is not None:
            project.videos.append(_video(task["data"], names, results, project, where))
    return project


def _names(data: dict[str, Any]) -> tuple[str, ...]:
    """By which the video of a task may be found: as its server serves it, and without what uploading adds."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get(VIDEO)
    if not isinstance(address, str):
        address = next((text for text in texts if is_video(Path(_path(text)))), None)
    if not address:
        return ()
    path = _path(address)
    bare = path.rsplit("/", 1)[-1]
    local = "?d=" in address or ("://" not in address and not address.startswith("/data/upload/"))
    return tuple(dict.fromkeys([*([path] if local else []), bare, UPLOADED.sub("", bare)]))


def _path(address: str) -> str:
    """The path in an address; that of a local file is in its query."""
    parts = urlsplit(address) if "://" in address or "?d=" in address else None
    if parts is None:
        return address
    bare = unquote(parts.path, errors="surrogateescape")
    return parse_qs(parts.query, errors="surrogateescape").get("d", [bare])[0]


def _results(task: dict[str, Any], project: Project, where: str) -> list[dict[str, Any]] | None:
    """What the annotation says that counts: the ground truth, or the one that was changed last."""
    done = [each for each in objects(task.get("annotations")) if not each.get("was_cancelled")]
    if not done:
        predicted = " but predictions, which nobody has submitted" if task.get("predictions") else ""
        project.problems.append(Problem(where, f"has no annotation{predicted}"))
        return None
    chosen = max(done, key=lambda each: (bool(each.get("ground_truth")), words(each.get("updated_at"))))
    project.left_out["further annotation"] += len(done) - 1
    return objects(chosen.get("result"))


def _video(
    data: dict[str, Any], names: tuple[str, ...], results: list[dict[str, Any]], project: Project, where: str
) -> ProjectVideo:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        kinds.setdefault(words(result.get("type")).casefold(), []).append(result)
    lines, rectangles = kinds.pop("timelinelabels", []), kinds.pop("videorectangle", [])
    names_of = {
        words(each.get("id")): _labels(each, "labels") for each in kinds.pop("labels", [])
    }  # of a rectangle, where they stand apart
    whole = [] if lines or rectangles else kinds.pop("choices", [])
    for kind, found in kinds.items():
        project.left_out[f"{kind or 'nameless'} result"] += len(found)
    boxed = [span for each in rectangles for span in _stretches(each, names_of, project, where)]
    spans = tuple(span for each in lines for span in _ranges(each, project, where))
    if whole:
        labels = [label for each in whole for label in _labels(each, "choices")]
        if len(labels) == 1:
            spans = (Span(labels[0], 0, None, where),)
        else:
            project.problems.append(Problem(where, f"{counted(len(labels), 'choice')}, expected one"))
            spans = (Span("", 0, None, where),)
    return ProjectVideo(
        names,
        spans or (() if lines else joined(span for span in boxed if span.label)),
        tuple(boxed),
        "ticks",
        _rate(data, rectangles),
        size=(PERCENT, PERCENT),
        split=words(data.get("split")) or None,
        group=words(data.get("group")) or None,
        where=where,
    )


def _labels(result: dict[str, Any], key: str) -> list[str]:
    value = result.get("value")
    found = value.get(key) if isinstance(value, dict) else None
    return [label for each in found if (label := words(each))] if isinstance(found, list) else []


def _ranges(result: dict[str, Any], project: Project, where: str) -> Iterator[Span]:
    """The spans of a region of the timeline, counted from 0."""
    where = f"{where}, region {result.get('id', '')}".rstrip()
    labels = _labels(result, "timelinelabels")
    value = result.get("value")
    ranges = objects(value.get("ranges")) if isinstance(value, dict) else []
    if len(labels) != 1 or not ranges:
        wrong = f"{counted(len(labels), 'label')}, expected one" if ranges else "no range"
        project.problems.append(Problem(where, wrong))
    for each in ranges:
        start, end = number(each.get("start")), number(each.get("end"))
        if start is None or end is None or start < 0 or end < max(start, 1):
            came = f"from {shown(each.get('start'))} to {shown(each.get('end'))}"
            project.problems.append(Problem(where, f"is {came}, expected two numbers of frames from 1"))
            continue
        yield Span(labels[0] if len(labels) == 1 else "", max(start - 1, 0), end, where)


def _stretches(
    result: dict[str, Any], names_of: dict[str, list[str]], project: Project, where: str
) -> Iterator[Span]:
    """From when to when a rectangle is there; without a label where it has none, or several."""
    where = f"{where}, rectangle {result.get('id', '')}".rstrip()
    labels = _labels(result, "labels") or names_of.get(words(result.get("id")), [])
    label = labels[0] if len(labels) == 1 else ""
    start: float | None = None
    boxes: list[Box] = []
    for each in sorted(_sequence(result), key=lambda key: key["frame"]):
        values = [number(each.get(name)) for name in ("frame", "x", "y", "width", "height")]
        if None in values or each.get("rotation"):  # the box around a turned one is another
            project.left_out["turned rectangle"] += 1
            continue
        frame, x, y, width, height = (value for value in values if value is not None)
        start = max(frame - 1, 0) if start is None else start
        boxes.append(Box(max(frame - 1, 0), x, y, x + width, y + height))
        if not each.get("enabled", True):
            yield Span(label, start, frame, where, boxes=tuple(boxes))
            start, boxes = None, []
    if start is not None:
        yield Span(label, start, None, where, boxes=tuple(boxes))


def _sequence(result: dict[str, Any]) -> list[dict[str, Any]]:
    value = result.get("value")
    found = objects(value.get("sequence")) if isinstance(value, dict) else []
    return [each for each in found if number(each.get("frame")) is not None]


def _rate(data: dict[str, Any], rectangles: list[dict[str, Any]]) -> float | None:
    """Frames a second of the clock: by a rectangle, whose frames have times, else by the task; None where none tells.

    The times are Label Studio's own, and a task's ``fps`` counts only where the labelling takes it from there.
    """
    stated = number(data.get("fps"))
    stated = stated if stated and stated > 0 else None
    found = [
        (frame, frame / time)
        for each in rectangles
        for key in _sequence(each)
        if (frame := number(key.get("frame"))) and (time := number(key.get("time"))) and frame > 0 < time
    ]
    measured = max(found)[1] if found else None  # of the highest number, whose digits count least
    if measured is None or (stated and abs(measured / stated - 1) < SAME):
        return stated
    return measured


# Writing -----------------------------------------------------------------------------------------------------------


def label_studio_task(
    video: ProjectVideo, clock: Clock, number: int, version: str | None = None, score: float | None = None
) -> dict[str, Any]:
    """A video as a task: its spans annotated, or predicted by a model of some version, surer for a higher ``score``."""
    rate = clock.player_rate
    data = {
        VIDEO: LOCAL + quote(video.names[0], errors="surrogateescape"),
        "fps": rate,
        **({"split": video.split} if video.split else {}),
        **({"group": video.group} if video.group else {}),
    }
    results = [
        each
        for place, span in enumerate(video.spans)
        for each in _regions(span, clock, rate, f"{number}-{place}")
    ]
    if version is None:
        return {"id": number, "data": data, "annotations": [{"result": results, "was_cancelled": False}]}
    prediction = {"model_version": version, "score": score, "result": results}
    return {"id": number, "data": data, "predictions": [prediction]}


def _regions(span: Span, clock: Clock, rate: float, name: str) -> Iterator[dict[str, Any]]:
    first, after = clock.frames(span.start, span.end)
    score = {} if span.score is None else {"score": round(span.score, 4)}
    if (first, after) == (0, len(clock.times)) and not span.boxes:
        value: dict[str, Any] = {"choices": [span.label]}
        yield {"id": name, "from_name": WHOLE, "to_name": VIDEO, "type": "choices", "value": value, **score}
        return
    start, end = clock.ticks(first, after, rate)
    value = {"ranges": [{"start": start + 1, "end": end}], "timelinelabels": [span.label]}
    yield {"id": name, "from_name": LINE, "to_name": VIDEO, "type": "timelinelabels", "value": value, **score}
    if span.boxes:
        value = _rectangles(span, clock, rate, end)
        yield {
            "id": f"{name}-box",
            "from_name": BOX,
            "to_name": VIDEO,
            "type": "videorectangle",
            "value": value,
            **score,
        }


def _rectangles(span: Span, clock: Clock, rate: float, end: int) -> dict[str, Any]:
    sequence = []
    for box in span.boxes:
        frame = clock.ticks(int(box.at), int(box.at) + 1, rate)[1]
        sequence.append(
            {
                "frame": frame,
                "time": frame / rate,
                "enabled": True,
                "rotation": 0,
                "x": _percent(box.left, clock.width),
                "y": _percent(box.top, clock.height),
                "width": _percent(box.right - box.left, clock.width),
                "height": _percent(box.bottom - box.top, clock.height),
            }
        )
    if sequence[-1]["frame"] < end:
        sequence.append({**sequence[-1], "frame": end, "time": end / rate})
    sequence[-1]["enabled"] = False
    frames = round(clock.duration * rate)
    return {
        "framesCount": frames,
        "duration": round(clock.duration, 6),
        "sequence": sequence,
        "labels": [span.label],
    }


def _percent(value: float, whole: int) -> float:
    return round(value / whole * PERCENT, 4)


def label_studio_file(tasks: Sequence[dict[str, Any]]) -> str:
    """Tasks as a file to import."""
    return json.dumps(tasks, indent=1) + "\n"


def labelling(classes: Sequence[str], boxes: bool) -> str:
    """The labelling configuration of a project: events on a timeline, one class for a whole video, and rectangles."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Video", name=VIDEO, value="$video", frameRate="$fps", timelineHeight="120")
    parts = [("TimelineLabels", LINE, "Label"), ("Choices", WHOLE, "Choice")]
    if boxes:
        ElementTree.SubElement(view, "VideoRectangle", name=BOX, toName=VIDEO)
        parts.insert(1, ("Labels", BOXED, "Label"))
    for tag, name, inner in parts:
        part = ElementTree.SubElement(view, tag, name=name, toName=VIDEO)
        for place, each in enumerate(classes):
            label = ElementTree.SubElement(part, inner, value=each)
            if inner == "Label":
                label.set("background", HUES[place % len(HUES)])
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
