"""Evidence as files: a video that any browser plays, a figure, and everything as JSON."""

from __future__ import annotations

import base64
import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from peakzoom.explanation.draw import EvidenceVideo, draw_figure
from peakzoom.explanation.evidence import Evidence
from peakzoom.utils.durable import check_new_folder, explain_full_disk, whole_folder
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.video.encode import H264Writer, ticks_of


def save(evidence: Evidence, folder: str | Path, progress: bool | Progress = True) -> list[Path]:
    """Write ``evidence.mp4``, ``evidence.png`` and ``evidence.json`` into a new or empty folder.

    The folder appears when it is complete; until then it is called FOLDER.part.

    Args:
        evidence: what to show.
        folder: where.
        progress: show a bar; a function is called with (done, all) frames instead.

    Returns:
        The three files, the video first.

    Raises:
        UserError: the folder has something in it, or the disk is full.
    """
    folder = Path(folder)
    check_new_folder(folder)
    with evidence.video, explain_full_disk(folder, "run it again"), whole_folder(folder) as draft:
        video, picture, data = (draft / f"evidence.{suffix}" for suffix in ("mp4", "png", "json"))
        data.write_text(json.dumps(evidence.to_dict(), indent=1) + "\n", encoding="utf-8")
        draw_figure(evidence).savefig(picture, dpi=110)
        with progress_bar("drawing", progress) as report:
            write_video(evidence, video, report)
    return [folder / each.name for each in (video, picture, data)]


def write_video(evidence: Evidence, file: Path | BinaryIO, progress: Progress | None = None) -> None:
    """Write the video as H.264 in MP4, every frame of the source once and at its own time.

    Args:
        evidence: what to show.
        file: a path (then the index is in front, and a browser plays the video while it loads), or a stream that can
            seek.
        progress: called with (done, all) frames.
    """
    video = EvidenceVideo(evidence)
    ticks = ticks_of(evidence.times)
    rate = Fraction(evidence.info.fps or 25.0).limit_denominator(1001)
    with H264Writer(file, rate) as writer:
        for number, picture in video.frames():
            writer.add(picture, int(ticks[number]))
            if progress:
                progress(number + 1, evidence.info.frames)


def video_html(evidence: Evidence) -> str:
    """The video inside a piece of HTML, for a notebook."""
    stream = BytesIO()
    write_video(evidence, stream)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<video controls loop muted style="max-width: 100%" src="data:video/mp4;base64,{data}"></video>'
