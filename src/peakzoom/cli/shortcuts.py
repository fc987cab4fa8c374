"""What ``peakzoom data check --shortcuts`` prints: what a data set gives away, and whether a model is beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peakzoom.cli.console import print_result, show_table
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from peakzoom.data.entries import Entry, VideoSet
    from peakzoom.data.glimpses import Glimpse
    from peakzoom.evaluation.shortcuts import Camera, Shortcuts

SHOWN = 5  # cameras that are named
SURE = 0.05  # p of a difference that counts as shown


@dataclass(frozen=True)
class Model:
    """What an evaluation left: the fused prediction of each test video."""

    name: str
    right: dict[Path, bool]


def read_model(run: Path) -> Model:
    """The evaluation in a run folder; UserError where there is none, or several."""
    from peakzoom.evaluation.files import find_evaluation, read_right

    folder = find_evaluation(run)
    return Model(str(folder), read_right(folder))


def show_shortcuts(videos: VideoSet, glimpses: Mapping[Path, Glimpse], model: Model | None) -> None:
    """Print what is guessed of the test videos without seeing any action, and what follows."""
    from peakzoom.evaluation.shortcuts import find_shortcuts, groups_of_one_class

    entries = _divided(videos.entries, model)
    if videos.own_groups and not any(
        entry.split == "test" for entry in entries
    ):  # nothing can be guessed: say why
        for line in _cameras(groups_of_one_class(entries, videos.classes)):
            print_result(line)
    found = find_shortcuts(replace(videos, entries=entries), glimpses)
    rows = [
        (each.name, f"{each.top1:.1%}", "{:.1%} to {:.1%}".format(*each.interval)) for each in found.guesses
    ]
    title = f"shortcuts ({len(found.entries)} test videos)"
    show_table(title, ("guessed from", "top-1", "95% interval"), rows)
    for line in [*_scenery(found), *_cameras(found.cameras), *_beyond(found, model)]:
        print_result(line)


def _divided(entries: list[Entry], model: Model | None) -> list[Entry]:
    """With the test videos of the model; else as the data say, or as a training divides them."""
    from peakzoom.data.splits import with_test_share

    if model is not None:
        divided = [
            replace(entry, split="test" if entry.path.resolve() in model.right else "train")
            for entry in entries
        ]
        if all(entry.split == "train" for entry in divided):
            raise UserError(f"{model.name} tested none of these videos: name the DATA that it was tested on")
        return divided
    return with_test_share(entries) if all(entry.split is None for entry in entries) else entries


def _scenery(found: Shortcuts) -> list[str]:
    """What beats the most frequent class although it is no action."""
    from peakzoom.evaluation.shortcuts import MAJORITY, NUMBERS, STILL, paired

    lines = []
    differing = {
        NUMBERS: "the files of the classes differ in size, length or rate",
        STILL: "scenery or people differ between the classes",
    }
    for name, why in differing.items():
        guess, chance = found.guess(name), found.guess(MAJORITY)
        test = paired(found, guess.right, chance.right)
        if test.difference > 0 and test.p < SURE:
            most = "most of" if 1 - guess.top1 <= (1 - chance.top1) / 2 else "part of"
            lines.append(
                f"{name}: solves {most} the task ({guess.top1:.1%}, most frequent class {chance.top1:.1%}, p = "
                f"{test.p:.2g}); {why}, and a model can be right without seeing the action"
            )
    return lines


def _cameras(found: Sequence[Camera]) -> list[str]:
    """Groups of a manifest, and cameras, that hold one class only."""
    lines = []
    for each in found[:SHOWN]:
        videos = f"{counted(len(each.videos), 'video')} ({each.tested} of them in the test)"
        if each.group is None:
            lines.append(
                f"a camera has filmed {printable(each.name)} only: {videos} have the background of "
                f"{printable(each.videos[0])}"
            )
        else:
            lines.append(
                f"group {printable(each.group)} holds {printable(each.name)} only: {videos}; a model can tell its "
                "camera or its people in place of the action"
            )
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} more groups or cameras that hold one class only")
    return lines


def _beyond(found: Shortcuts, model: Model | None) -> list[str]:
    """Whether the model is better than the best shortcut."""
    if model is None:
        return []
    from peakzoom.evaluation.shortcuts import paired

    right = np.array([model.right[entry.path.resolve()] for entry in found.entries])
    test = paired(found, right, found.best.right)
    low, high = test.interval
    beyond = "is beyond" if test.difference > 0 and test.p < SURE else "has not been shown to be beyond"
    return [
        f"the model of {model.name} {beyond} these shortcuts: it is right in {right.mean():.1%} of the "
        f"{counted(len(right), 'video')}, {found.best.name} in {found.best.top1:.1%} (difference "
        f"{100 * test.difference:+.1f} "
        f"points, {100 * low:+.1f} to {100 * high:+.1f}, p = {test.p:.2g} by {test.count} {test.units})"
    ]
