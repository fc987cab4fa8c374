"""ActivityNet: a "database" of videos with labelled segments in seconds, as JSON.

A video goes by its name without ending, or by ``v_`` and that, as ActivityNet's own files are called. A segment that
ends when the video does, by its ``duration``, has no end; one that also begins with it is the whole video.

Source: "How to read the annotation files?", activity-net.org/download.html, and ``_import_ground_truth`` of
activitynet/ActivityNet, ``Evaluation/eval_detection.py``. ``group`` is ours: readers pass over it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peakzoom.data.entries import Problem
from peakzoom.data.exchange.clock import Clock
from peakzoom.data.exchange.contents import number, numbers, shown, words
from peakzoom.data.exchange.project import Project, ProjectVideo, Span
from peakzoom.data.layouts.files import is_video
from peakzoom.utils.errors import UserError

TOOL = "ActivityNet's annotations"
SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def is_activitynet(content: object) -> bool:
    """Whether JSON is a database, or the predictions that are compared with one."""
    return isinstance(content, dict) and ("database" in content or {"results", "version"} <= content.keys())


def read_activitynet(file: Path, content: dict[str, Any]) -> Project:
    """The segments of a database.

    Raises:
        UserError: it has none, as a file of predictions.
    """
    database = content.get("database")
    if not isinstance(database, dict):
        raise UserError(f"{file} holds predictions ('results'), expected annotations with a 'database'")
    project = Project(TOOL)
    for name, each in database.items():
        where = f"{file}, video {shown(name)}"
        if not isinstance(each, dict) or not isinstance(each.get("annotations"), list):
            project.problems.append(Problem(where, "it has no list of annotations"))
            continue
        lasts = number(each.get("duration"))
        spans = []
        for place, found in enumerate(each["annotations"]):
            spot = f"{where}, annotation {place}"
            times = numbers(found.get("segment")) if isinstance(found, dict) else None
            label = words(found.get("label")) if isinstance(found, dict) else ""
            if times is None or len(times) != 2 or not label:
                two = times is not None and len(times) == 2
                wrong = "no label" if two else "its segment is not two numbers of seconds"
                project.problems.append(Problem(spot, wrong))
            if times is None or len(times) != 2:
                continue
            end = None if lasts is not None and times[1] >= lasts else times[1]
            spans.append(Span(label, times[0], end, spot))
        if not spans:
            project.left_out["video without a segment"] += 1
        names = (name, f"v_{name}")
        split, group = words(each.get("subset")) or None, words(each.get("group")) or None
        project.videos.append(ProjectVideo(names, tuple(spans), split=split, group=group, where=where))
    return project


def activitynet_json(
    videos: Sequence[ProjectVideo], clocks: Sequence[Clock], classes: Sequence[str], version: str
) -> str:
    """Videos with their spans as a database, each under its path, without its ending where that is enough."""
    names = [video.names[0] for video in videos]
    stems = [str(Path(name).with_suffix("")) if is_video(Path(name)) else name for name in names]
    database = {}
    for video, clock, name, stem in zip(videos, clocks, names, stems, strict=True):
        lasts = clock.duration
        database[stem if stems.count(stem) == 1 else name] = {
            "duration": lasts,
            "subset": SUBSETS.get(video.split or "", ""),
            "resolution": f"{clock.width}x{clock.height}",
            "url": "",
            **({"group": video.group} if video.group else {}),
            "annotations": [
                {"segment": [span.start, lasts if span.end is None else span.end], "label": span.label}
                for span in video.spans
            ],
        }
    root = {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}
    nodes = [
        {"nodeId": place, "nodeName": name, "parentId": 0, "parentName": "Root"}
        for place, name in enumerate(classes, 1)
    ]
    content = {"version": version, "taxonomy": [root, *nodes], "database": database}
    return json.dumps(content, indent=1) + "\n"
