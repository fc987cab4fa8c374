"""What proposals are worth, on rendered long videos whose events and places are known.

* Are the least certain events those that a person has to correct? An event is right if a labelled segment of its class
  overlaps it at a temporal IoU of at least 0.5; counted in the less and in the more certain half.
* Do the boxes hold the action? For each labelled segment the boxes that its class would get: in how many of its frames
  they hold the middle of the hand, foot or head that tells the action, and how much of the frame they cover.

The videos are those of ``peakzoom data render`` with the numbers given here, of which the options left out are usual::

    python benchmarks/proposals.py RUN FOLDER --seconds 30 --train-clips 16 --test-clips 6 --height 128 --width 160 \\
        --difficulty 0.2 --threshold 0.3
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from peakzoom.apps.propose.boxes import boxes_of, look_at_windows
from peakzoom.apps.propose.propose import propose
from peakzoom.apps.watch.measure import watch_files
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.data.exchange.clock import look
from peakzoom.data.synthetic.clips import DatasetSpec
from peakzoom.data.synthetic.scene import IDLE, telling_parts
from peakzoom.data.synthetic.untrimmed import timeline
from peakzoom.inference.recognizer import Recognizer, load

IOU = 0.5


def wrong_by_certainty(recognizer: Recognizer, folder: Path, options: WatchOptions) -> None:
    """Count the wrong events of the test videos in the two halves of the order."""
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    found, _ = propose(recognizer, sorted({folder / row["path"] for row in rows}), options, boxes=False)
    events = []
    for each in found:
        true = [row for row in rows if row["path"] == each.file.name]
        for event in each.events:
            start, end = event.span.start, event.span.end or each.clock.duration
            overlaps = [
                (min(end, float(row["end"])) - max(start, float(row["start"])))
                / (max(end, float(row["end"])) - min(start, float(row["start"])))
                for row in true
                if row["label"] == event.span.label
            ]
            events.append((event.uncertainty, max(overlaps, default=0) < IOU))
    events.sort(reverse=True)
    half = len(events) // 2
    for name, part in (("less", events[:half]), ("more", events[half:])):
        print(f"{name} certain: {sum(wrong for _, wrong in part)} of {len(part)} events wrong")


def boxes_hold(recognizer: Recognizer, folder: Path, spec: DatasetSpec, options: WatchOptions) -> None:
    """Compare the boxes of labelled segments with the place of the part that tells the action."""
    holds, covers = [], []
    for path, split, clip in spec.clips():
        if split != "test":
            continue
        file = folder / Path(path).name
        windows, clock = watch_files(recognizer, [file], options)[file].windows, look(file)
        for action, first, after in timeline(clip, tuple(spec.classes)):
            if action == IDLE:
                continue
            start, end = first / spec.fps, after / spec.fps
            wanted = {
                (each.start, each.end): action for each in windows if each.start < end and start < each.end
            }
            moments = look_at_windows(recognizer, file, options, wanted).values()
            boxes = boxes_of([each for inside in moments for each in inside], clock, first, after)
            _, centres, _ = telling_parts(replace(clip, action=action))[0]
            for frame in range(first, after):
                box = next((each for each in reversed(boxes) if each.at <= frame), boxes[0])
                x, y = centres[frame if len(centres) > after - first else frame - first] + 0.5
                holds.append(box.left <= x <= box.right and box.top <= y <= box.bottom)
                covers.append((box.right - box.left) * (box.bottom - box.top) / (spec.width * spec.height))
    print(
        f"boxes hold the place in {np.mean(holds):.1%} of {len(holds)} frames, and cover {np.mean(covers):.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--train-clips", type=int, default=400)
    parser.add_argument("--test-clips", type=int, default=120)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--difficulty", type=float, default=0.5)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--ignore", default="nothing")
    given = parser.parse_args()
    spec = DatasetSpec(
        train_clips=given.train_clips,
        test_clips=given.test_clips,
        height=given.height,
        width=given.width,
        difficulty=given.difficulty,
    )
    spec = replace(spec, frames=max(1, round(given.seconds * spec.fps)))
    recognizer = load(given.run)
    ignore = [given.ignore] if given.ignore in recognizer.classes else None
    wrong_by_certainty(recognizer, given.folder, WatchOptions(threshold=given.threshold, ignore=ignore))
    boxes_hold(recognizer, given.folder, spec, WatchOptions())


if __name__ == "__main__":
    main()
