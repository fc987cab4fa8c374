"""The worst classes by their videos: what each was confused with, and where the network looked when it was surest.

Which videos are shown is a rule, not a choice: of the classes with the lowest accuracy those whose wrong prediction has
the highest score. The network has to be at hand for that, and it has to be the one that was evaluated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peakzoom.data.runs import STAGES, run_folder
from peakzoom.evaluation.files import Scores, read_summary, reading
from peakzoom.explanation import explain
from peakzoom.explanation.draw import write_strip
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.progress import progress_bar

CLASSES, VIDEOS = 4, 3  # of the worst classes, and of the mistakes in each
THUMBNAIL = 200  # pixels, the longer side of one pane
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Confused:
    """A video of a class that was taken for another one."""

    path: str
    label: str
    answer: str
    score: float  # fused, of the answer
    score_of_label: float
    second: float | None  # time of the frame that is shown; None without a picture
    picture: str | None  # its file; None where the video cannot be read
    reason: str  # why there is no picture, or empty


def surest_mistakes(scores: Scores) -> list[int]:
    """Numbers of the videos to show: of the worst classes, in their order, the surest mistakes first."""
    fused = scores.means["fused"]
    right, predicted = scores.right("fused"), fused.argmax(1)
    accuracies = {
        label: float(right[scores.labels == label].mean())
        for label in np.unique(scores.labels[~right]).tolist()
    }
    chosen: list[int] = []
    for label in sorted(accuracies, key=lambda each: (accuracies[each], each))[:CLASSES]:
        wrong = np.flatnonzero((scores.labels == label) & ~right)
        sure = fused[wrong, predicted[wrong]]
        chosen += wrong[np.argsort(-sure, kind="stable")][:VIDEOS].tolist()
    return chosen


def find_recognizer(folder: Path, run: Path | None) -> Recognizer:
    """The model that an evaluation was made with.

    Args:
        folder: the evaluation's.
        run: where to look; the run around the evaluation when not given.

    Raises:
        UserError: it is not there, or has other weights now.
    """
    with reading(folder / "metrics.json"):
        wanted = read_summary(folder).get("weights")
    home = run or run_folder(folder)
    if home is None:
        raise UserError(f"{folder} is in no run: name the model by --model to see where it looked")
    places = [home, *(home / stage for stage in STAGES if (home / stage).is_dir())]
    for place in places:
        recognizer = load(place)
        if recognizer.weights == wanted:
            return recognizer
    raise UserError(f"{home} has other weights than those of {folder}: evaluate again to see where it looked")


def draw_confused(scores: Scores, recognizer: Recognizer, out: Path) -> list[Confused]:
    """Draw the :func:`surest_mistakes` as PNGs into a folder; a video that cannot be read has its reason instead."""
    found = []
    chosen = surest_mistakes(scores)
    with progress_bar(f"looking at {len(chosen)} confused videos") as report:
        for number, video in enumerate(chosen):
            found.append(_draw(scores, video, recognizer, out / f"confused{number}.png"))
            report(number + 1, len(chosen))
    return found


def _draw(scores: Scores, video: int, recognizer: Recognizer, file: Path) -> Confused:
    fused = scores.means["fused"][video]
    path, label, answer = scores.paths[video], int(scores.labels[video]), int(fused.argmax())
    second, reason = None, ""
    try:
        evidence = explain(recognizer, path, views=scores.protocol, progress=False)
        frame = int(evidence.scores[:, answer].argmax())
        write_strip(evidence, frame, THUMBNAIL, file)
        second = float(evidence.times[frame])
    except (DecodeError, OSError) as error:
        reason = str(error)
        log.warning(f"{path} has no picture in the report: {error}")
    return Confused(
        path,
        scores.classes[label],
        scores.classes[answer],
        float(fused[answer]),
        float(fused[label]),
        second,
        None if reason else file.name,
        reason,
    )
