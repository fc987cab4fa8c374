"""Long synthetic videos with known events: a person who now stands and now acts, before one camera.

The stretches of a video are those of scenes that differ in nothing but the action, so that nothing else changes where
an action begins or ends (:class:`~peakzoom.data.synthetic.scene.ClipSpec`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from peakzoom.data.synthetic.clips import DatasetSpec, each_job, empty_folder, stored_rate, write_frames
from peakzoom.data.synthetic.scene import IDLE, STREAM, ClipSpec, Scene, draw_frame
from peakzoom.utils.durable import DRAFT, draft_of, write_csv
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import Progress
from peakzoom.utils.segments import time_text, written_time

COLUMNS = ("path", "label", "split", "group", "start", "end")  # of clips.csv
PAUSE, ACTION = (1.5, 5.0), (1.5, 4.0)  # seconds, from the shortest to the longest
Timeline = list[tuple[str, int, int]]  # action, first frame, frame after the last


def timeline(spec: ClipSpec, classes: tuple[str, ...]) -> Timeline:
    """What a video shows when: pauses and actions in turn, drawn from the video's seed; it begins and ends with one."""
    rng = np.random.default_rng([spec.world, STREAM["events"], spec.seed])
    found: Timeline = []
    at = 0
    while True:
        pause, lasts = (max(1, round(spec.fps * rng.uniform(*each))) for each in (PAUSE, ACTION))
        name = str(rng.choice(classes))
        if at + pause + lasts + round(spec.fps * PAUSE[0]) > spec.frames:
            return [*found, (IDLE, at, spec.frames)]
        found += [(IDLE, at, at + pause), (name, at + pause, at + pause + lasts)]
        at += pause + lasts


def untrimmed_frames(spec: ClipSpec, shown: Timeline) -> Iterator[np.ndarray]:
    """The frames of a video one by one, uint8 (H, W, 3)."""
    scenes: dict[str, Scene] = {}
    for name, start, end in shown:
        if name not in scenes:
            scenes[name] = Scene(replace(spec, action=name))
        for t in range(start, end):
            yield draw_frame(scenes[name], t)


def render_untrimmed(
    root: str | Path, spec: DatasetSpec, seconds: float, workers: int = 2, progress: Progress | None = None
) -> Path:
    """Write long videos, and the list of their events ``clips.csv`` last.

    Args:
        root: new or empty folder, which is returned.
        spec: ``train_clips`` and ``test_clips`` count videos; ``frames`` does not matter.
        seconds: of each video.
        workers: processes, as of :func:`~peakzoom.data.synthetic.clips.render_dataset`.
        progress: called with (done, all).

    Raises:
        UserError: ``root`` holds something already, or the videos have no room for an action.
    """
    if spec.together > 1:
        raise UserError("long videos show one action at a time; leave --together out, or --untrimmed")
    root = empty_folder(root)
    jobs, rows, rate = [], [], stored_rate(spec.fps)
    for path, split, clip in replace(spec, frames=max(1, round(seconds * spec.fps))).clips():
        name = Path(path).name
        shown = timeline(clip, tuple(spec.classes))
        jobs.append((clip, shown, root / name))
        rows += [
            (
                name,
                action,
                split,
                f"p{clip.performer:02d}",
                *(time_text(written_time(float(frame / rate))) for frame in (start, end)),
            )
            for action, start, end in shown
            if action != IDLE
        ]
    if not rows:
        raise UserError(f"a video of {seconds:g} s has no room for an action; give more seconds")
    root.mkdir(parents=True, exist_ok=True)
    for done, _ in enumerate(each_job(_write, jobs, workers), 1):
        if progress:
            progress(done, len(jobs))
    write_csv(root / "clips.csv", COLUMNS, rows)
    return root


def _write(spec: ClipSpec, shown: Timeline, path: Path) -> None:
    with draft_of(path, path.with_name(f"{DRAFT}.{path.name}")) as draft:
        write_frames(untrimmed_frames(spec, shown), spec, draft)
