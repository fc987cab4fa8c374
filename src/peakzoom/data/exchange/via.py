"""VIA 3, the VGG video annotator: a project as JSON; segments and single frames of videos, in seconds.

The times ``z`` and the shape ``xy`` of a piece of metadata tell what it is about: two times are a segment, one is a
frame, none is the file. What it says is in ``av``, values of attributes by their ids, where the id of an option stands
for its text. The class is the attribute of segments; where a project has several, the one called ``class``, ``label``,
``action`` or ``activity``.

Source: "Structure of VIA Project JSON File", ox-vgg/via, ``via-3.x.y/CodeDoc.md``; ``_via_attribute.js``,
``_via_metadata.js`` and ``_via_file.js`` for the numbers. An attribute of files called ``file_class``, and those called
``split``, ``group`` and ``seconds``, are ours: VIA shows them, and they come back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from peakzoom.data.entries import Problem, some
from peakzoom.data.exchange.contents import numbers, shown, words
from peakzoom.data.exchange.project import Box, Project, ProjectVideo, Span
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

TOOL = "a project of VIA 3"
SEGMENT, FILE, REGION = "FILE1_Z2_XY0", "FILE1_Z0_XY0", "FILE1_Z1_XY1"  # what an attribute is of
TEXT, SELECT, VIDEO, HTTP, URI_FILE, RECTANGLE = 1, 4, 4, 2, 3, 2
CLASS, WHOLE, SPLIT, GROUP, SECONDS = "class", "file_class", "split", "group", "seconds"
NAMES = (CLASS, "label", "action", "activity")
CONFIG = {
    "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
    "ui": {
        "file_content_align": "center",
        "file_metadata_editor_visible": True,
        "spatial_metadata_editor_visible": True,
        "spatial_region_label_attribute_id": "",
        "gtimeline_visible_row_count": "4",
    },
}


def is_via(content: object) -> bool:
    """Whether JSON is a project of version 3."""
    return (
        isinstance(content, dict) and {"project", "attribute", "file", "view", "metadata"} <= content.keys()
    )


def read_via(file: Path, content: dict[str, Any]) -> Project:
    """The videos of a project, and what is said of them.

    Raises:
        UserError: it has no attribute of segments, or several of which none is called as a class is.
    """
    project = Project(TOOL)
    attributes = _by_id(content["attribute"])
    said = _Attributes(
        attributes,
        _class_attribute(file, attributes),
        _of_name(attributes, WHOLE),
        {key: name for name in (SPLIT, GROUP, SECONDS) if (key := _of_name(attributes, name))},
    )
    project.notes.append(f"the class is the attribute {words(attributes[said.segment].get('aname'))!r}")
    files = _by_id(content["file"])
    views = {key: _names(each, files, content) for key, each in _by_id(content["view"]).items()}
    metadata: dict[str, list[tuple[str, dict[str, Any]]]] = {key: [] for key in views}
    for key, each in _by_id(content["metadata"]).items():
        view, where = words(each.get("vid")), f"{file}, metadata {key}"
        if view not in views:
            project.problems.append(
                Problem(where, f"its view {shown(each.get('vid'))} is not in the project")
            )
        else:
            metadata[view].append((where, each))
    for view, names in views.items():
        if names:
            project.videos.append(_video(names, metadata[view], said, project))
        else:
            project.left_out["other view"] += 1
            project.left_out["other view's label"] += len(metadata[view])
    return project


class _Attributes(NamedTuple):
    """The attributes of a project by their ids, and the ids of those that count."""

    known: dict[str, dict[str, Any]]
    segment: str  # that of the classes of segments
    whole: str | None  # that of the classes of whole files
    facts: dict[str, str]  # of files: what each is called


def _by_id(value: object) -> dict[str, dict[str, Any]]:
    return (
        {key: each for key, each in value.items() if isinstance(each, dict)}
        if isinstance(value, dict)
        else {}
    )


def _class_attribute(file: Path, attributes: dict[str, dict[str, Any]]) -> str:
    found = [key for key, each in attributes.items() if each.get("anchor_id") == SEGMENT]
    if not found:
        raise UserError(f"{file} has no attribute of temporal segments, whose values would be the classes")
    if len(found) == 1:
        return found[0]
    named = {words(attributes[key].get("aname")).casefold(): key for key in reversed(found)}
    if chosen := next((named[name] for name in NAMES if name in named), None):
        return chosen
    names = some(words(attributes[key].get("aname")) for key in found)
    raise UserError(
        f"{file} has several attributes of temporal segments ({names}): call that of the classes 'class'"
    )


def _of_name(attributes: dict[str, dict[str, Any]], name: str) -> str | None:
    """The attribute of files that is called so."""
    return next(
        (
            key
            for key, each in attributes.items()
            if each.get("anchor_id") == FILE and words(each.get("aname")).casefold() == name
        ),
        None,
    )


def _names(
    view: dict[str, Any], files: dict[str, dict[str, Any]], content: dict[str, Any]
) -> tuple[str, ...]:
    """By which the video of a view may be found; none where it is not one video."""
    ids = view.get("fid_list")
    chosen = [files.get(words(each)) for each in ids] if isinstance(ids, list) else []
    if len(chosen) != 1 or (one := chosen[0]) is None or one.get("type") != VIDEO:
        return ()
    place, name = words(one.get("src")), words(one.get("fname"))
    config = content.get("config")
    for key in ("file", "loc_prefix", words(one.get("loc"))):
        config = config.get(key) if isinstance(config, dict) else None
    place = words(config) + place if place else ""
    if one.get("loc") == HTTP and "://" in place:
        place = unquote(urlsplit(place).path).rsplit("/", 1)[-1]
    return tuple(dict.fromkeys(each for each in (place.removeprefix("file://"), name) if each))


def _video(
    names: tuple[str, ...],
    metadata: Sequence[tuple[str, dict[str, Any]]],
    said: _Attributes,
    project: Project,
) -> ProjectVideo:
    spans: list[Span] = []
    boxed: list[Span] = []
    facts: dict[str, str] = {}
    for where, each in metadata:
        times, shape, values = numbers(each.get("z")), numbers(each.get("xy")), each.get("av")
        if times is None or shape is None or not isinstance(values, dict):
            project.problems.append(Problem(where, "its z or xy is no list of numbers, or its av no object"))
            continue
        used: set[str] = set()
        if not times and not shape:
            used = said.facts.keys() & values.keys()
            facts |= {said.facts[key]: _value(said.known[key], values[key]) for key in used}
            if said.whole is not None and said.whole in values:
                spans += _labelled(said.known[said.whole], values[said.whole], (0.0, None), project, where)
                used = {*used, said.whole}
        elif len(times) == 2 and not shape:
            used = {said.segment}
            value = values.get(said.segment)
            spans += _labelled(said.known[said.segment], value, (times[0], times[1]), project, where)
        elif len(times) == 1 and shape[:1] == [RECTANGLE] and len(shape) == 5:
            left, top, width, height = shape[1:]
            box = Box(times[0], left, top, left + width, top + height)
            boxed.append(Span("", times[0], None, where, boxes=(box,)))
        else:
            project.left_out["other region"] += 1
        project.left_out["other value"] += len(values.keys() - used)
    try:
        lasts = float(facts.get(SECONDS, "nan"))
    except ValueError:
        lasts = math.nan
    found = tuple(_open_ended(span, lasts) for span in spans)
    split, group = facts.get(SPLIT) or None, facts.get(GROUP) or None
    return ProjectVideo(names, found, tuple(boxed), split=split, group=group)


def _open_ended(span: Span, seconds: float) -> Span:
    """A span to the end of its file has no end, where the project says how long that is (else it is NaN)."""
    if span.end is not None and span.end >= seconds:
        return Span(span.label, span.start, None, span.where)
    return span


def _value(attribute: dict[str, Any], value: object) -> str:
    """What a value of an attribute says: the text of an option, or its own."""
    options, text = attribute.get("options"), words(value)
    return words(options[text]) if isinstance(options, dict) and text in options else text


def _labelled(
    attribute: dict[str, Any],
    value: object,
    times: tuple[float, float | None],
    project: Project,
    where: str,
) -> Iterator[Span]:
    label, options = _value(attribute, value), attribute.get("options")
    chosen = label.split(",")
    if isinstance(options, dict) and len(chosen) > 1 and all(each in options for each in chosen):
        project.problems.append(Problem(where, f"{counted(len(chosen), 'option')}, expected one"))
        label = ""
    elif not label:
        project.problems.append(Problem(where, "no label"))
    yield Span(label, *times, where)


# Writing -----------------------------------------------------------------------------------------------------------


def via_project(
    videos: Sequence[ProjectVideo], classes: Sequence[str], name: str, seconds: Sequence[float | None]
) -> str:
    """Videos with their spans as a project; ``seconds`` is how long those last that have one to the end."""
    options = {str(place): each for place, each in enumerate(classes, 1)}
    attributes = {
        "1": _attribute(CLASS, SEGMENT, SELECT, options),
        "2": _attribute(WHOLE, FILE, SELECT, options),
        **{str(key): _attribute(each, FILE, TEXT, {}) for key, each in enumerate((SPLIT, GROUP, SECONDS), 3)},
    }
    files, views, metadata = {}, {}, {}
    for place, (video, lasts) in enumerate(zip(videos, seconds, strict=True), 1):
        path = video.names[0]
        bare = path.rsplit("/", 1)[-1]
        files[str(place)] = {"fid": place, "fname": bare, "type": VIDEO, "loc": URI_FILE, "src": path}
        views[str(place)] = {"fid_list": [place]}
        for count, (times, values) in enumerate(_said(video, lasts, options), 1):
            said = {"vid": str(place), "flg": 0, "z": times, "xy": [], "av": values}
            metadata[f"{place}_{count:08d}"] = said
    head = {
        "pid": "__VIA_PROJECT_ID__",
        "rev": "__VIA_PROJECT_REV_ID__",
        "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
        "pname": name,
        "data_format_version": "3.1.1",
        "creator": "peakzoom",
        "created": 0,
        "vid_list": list(views),
    }
    content = {
        "project": head,
        "config": CONFIG,
        "attribute": attributes,
        "file": files,
        "metadata": metadata,
        "view": views,
    }
    return json.dumps(content, indent=1) + "\n"


def _said(
    video: ProjectVideo, lasts: float | None, options: dict[str, str]
) -> list[tuple[list[float], dict[str, str]]]:
    """The times and the values of each piece of a video's metadata."""
    ids = {label: key for key, label in options.items()}
    facts = {"3": video.split, "4": video.group, "5": None if lasts is None else repr(lasts)}
    kept = {key: value for key, value in facts.items() if value}
    said: list[tuple[list[float], dict[str, str]]] = [([], kept)] if kept else []
    for span in video.spans:
        if span.start == 0 and span.end is None:
            said.append(([], {"2": ids[span.label]}))
            continue
        end = lasts if span.end is None else span.end
        assert end is not None
        said.append(([span.start, end], {"1": ids[span.label]}))
    return said


def _attribute(name: str, anchor: str, kind: int, options: dict[str, str]) -> dict[str, Any]:
    return {
        "aname": name,
        "anchor_id": anchor,
        "type": kind,
        "desc": "",
        "options": options,
        "default_option_id": "",
    }
