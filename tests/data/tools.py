"""Files as annotation tools document them, with made-up content, and videos for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS = 90_000


def video(path: Path, times: Sequence[float], width: int = 64, height: int = 48) -> Path:
    """A video whose frames are shown at these times, each of another grey; H.264 in MP4, lossless in Matroska."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "libx264", rate=Fraction(30))
        stream.width, stream.height = width, height
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        for number, time in enumerate(times):
            picture = np.full((height, width, 3), number * 5 % 250, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def even(count: int, fps: float) -> list[float]:
    return [number / fps for number in range(count)]


def frame_times(path: Path) -> list[float]:
    """By a plain decode."""
    with av.open(str(path)) as container:
        stamps = [frame.pts * container.streams.video[0].time_base for frame in container.decode(video=0)]
    return [float(stamp - stamps[0]) for stamp in stamps]


# CVAT --------------------------------------------------------------------------------------------------------------

CVAT_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>5</id>
      <name>monday</name>
      <size>{frames}</size>
      <mode>interpolation</mode>
      <overlap>5</overlap>
      <bugtracker></bugtracker>
      <flipped>False</flipped>
      <created>2018-09-25 12:32:09.868194+03:00</created>
      <updated>2018-09-25 16:05:05.619841+03:00</updated>
      <subset>{subset}</subset>
      <start_frame>0</start_frame>
      <stop_frame>{last}</stop_frame>
      <frame_filter></frame_filter>
      <labels>
        <label>
          <name>carry</name>
          <attributes>
            <attribute>
              <name>hands</name>
              <mutable>True</mutable>
              <input_type>select</input_type>
              <default_value>1</default_value>
              <values>1
2</values>
            </attribute>
          </attributes>
        </label>
        <label>
          <name>lift</name>
          <attributes>
          </attributes>
        </label>
      </labels>
      <segments>
        <segment>
          <id>5</id>
          <start>0</start>
          <stop>{last}</stop>
          <url>http://localhost:8080/?id=5</url>
        </segment>
      </segments>
      <owner>
        <username>admin</username>
        <email></email>
      </owner>
      <original_size>
        <width>640</width>
        <height>480</height>
      </original_size>
    </task>
    <dumped>2018-09-25 16:05:07.134046+03:00</dumped>
    <source>{source}</source>
  </meta>
"""


def shape(frame: object, outside: int = 0, edges: str = "10.00,20.00,110.00,220.00", tag: str = "box") -> str:
    """One shape of a track, as the page has it."""
    where = (
        " ".join(
            f'{name}="{edge}"'
            for name, edge in zip(("xtl", "ytl", "xbr", "ybr"), edges.split(","), strict=True)
        )
        if tag == "box"
        else 'points="324.79,213.16;323.74,227.90;347.42,237.37"'
    )
    return (
        f'    <{tag} frame="{frame}" {where} outside="{outside}" occluded="0" keyframe="1">\n    </{tag}>\n'
    )


def track(number: int, label: str, *shapes: str, more: str = "") -> str:
    return f'  <track id="{number}" label="{label}" source="manual"{more}>\n{"".join(shapes)}  </track>\n'


def cvat(
    file: Path,
    *tracks: str,
    source: str = "a.mp4",
    frames: int = 40,
    subset: str = "default",
    head: str = CVAT_HEAD,
) -> Path:
    begin = head.format(source=source, frames=frames, last=frames - 1, subset=subset)
    file.write_text(begin + "".join(tracks) + "</annotations>\n", encoding="utf-8")
    return file


# Label Studio ------------------------------------------------------------------------------------------------------


def timeline(label: str, start: object, end: object, name: str = "r1") -> dict[str, Any]:
    """A region of the timeline, as the page of TimelineLabels has it."""
    return {
        "id": name,
        "type": "timelinelabels",
        "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]},
        "origin": "manual",
        "to_name": "video",
        "from_name": "timelineLabels",
    }


def rectangle(
    label: str, *keys: tuple[int, float, bool], fps: float = 10.0, name: str = "tJhYZLMC9G"
) -> dict[str, Any]:
    """A rectangle with a key at each (frame, left edge in percent, enabled), as the page of VideoRectangle has it."""
    return {
        "id": name,
        "type": "videorectangle",
        "value": {
            "framesCount": 40,
            "duration": 4.0,
            "sequence": [
                {
                    **{"x": left, "y": 25, "width": 50, "height": 50, "rotation": 0},
                    **{"enabled": enabled, "frame": frame, "time": frame / fps},
                }
                for frame, left, enabled in keys
            ],
            "labels": [label],
        },
        "origin": "manual",
        "to_name": "video",
        "from_name": "box",
    }


def task(number: int, data: dict[str, Any], *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task, as "Label Studio JSON format of annotated tasks" has it."""
    return {
        "id": number,
        "data": data,
        "created_at": "2021-03-09T21:52:49.513742Z",
        "updated_at": "2021-03-09T22:16:08.746926Z",
        "project": 83,
        "annotations": [
            {
                "id": 1001,
                "result": list(results),
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2021-03-09T22:16:08.728353Z",
                "updated_at": "2021-03-09T22:16:08.728378Z",
                "lead_time": 4.288,
                "completed_by": 10,
            }
        ],
        "predictions": [],
        **more,
    }


def as_json(file: Path, content: object) -> Path:
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


# VIA 3 -------------------------------------------------------------------------------------------------------------


def via() -> dict[str, Any]:
    """A project, as "Structure of VIA Project JSON File" has it."""
    temporal = {
        "aname": "Activity",
        "anchor_id": "FILE1_Z2_XY0",
        "type": 4,
        "desc": "Activity",
        "options": {"1": "lift", "2": "carry"},
        "default_option_id": "",
    }
    spatial = {
        "aname": "Object",
        "anchor_id": "FILE1_Z1_XY1",
        "type": 1,
        "desc": "Name of Object",
        "options": {},
        "default_option_id": "",
    }
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "VIA3 Sample Project",
            "creator": "VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
            "created": 1588343615019,
            "vid_list": ["1", "2"],
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {"file_content_align": "center", "spatial_region_label_attribute_id": ""},
        },
        "attribute": {"1": temporal, "2": spatial},
        "file": {
            "1": {"fid": 1, "fname": "a.mp4", "type": 4, "loc": 2, "src": "https://example.org/films/a.mp4"},
            "2": {"fid": 2, "fname": "b.mp4", "type": 4, "loc": 3, "src": "/home/tlm/data/svt/b.mp4"},
        },
        "view": {"1": {"fid_list": [1]}, "2": {"fid_list": [2]}},
        "metadata": {
            "-glfwaaX": {"vid": "1", "flg": 0, "z": [0.5, 1.25], "xy": [], "av": {"1": "1"}},
            "+mHHT-tg": {"vid": "1", "flg": 0, "z": [2, 3], "xy": [], "av": {"1": "2"}},
            "ed+wsOZZ": {"vid": "2", "flg": 0, "z": [1, 2], "xy": [], "av": {"1": "2"}},
            "fH-oMre1": {"vid": "1", "flg": 0, "z": [0.917], "xy": [2, 16, 12, 32, 24], "av": {"2": "Egg"}},
        },
    }


# ActivityNet -------------------------------------------------------------------------------------------------------


def activitynet() -> dict[str, Any]:
    """Annotations, as "How to read the annotation files?" has them."""
    return {
        "version": "VERSION 1.3",
        "taxonomy": [
            {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None},
            {"nodeId": 269, "nodeName": "lift", "parentId": 0, "parentName": "Root"},
        ],
        "database": {
            "a": {
                "duration": 4.0,
                "subset": "training",
                "resolution": "64x48",
                "url": "https://www.youtube.com/watch?v=a",
                "annotations": [
                    {"segment": [0.01, 1.5], "label": "lift"},
                    {"segment": [2.25, 4.0], "label": "carry"},
                ],
            },
            "b": {
                "duration": 4.0,
                "subset": "validation",
                "resolution": "64x48",
                "url": "https://www.youtube.com/watch?v=b",
                "annotations": [{"segment": [0, 4.0], "label": "lift"}],
            },
            "withheld": {
                "duration": 9.0,
                "subset": "testing",
                "resolution": "64x48",
                "url": "https://www.youtube.com/watch?v=withheld",
                "annotations": [],
            },
        },
    }
