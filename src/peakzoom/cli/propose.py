"""``peakzoom propose``: what a model finds in videos, for a person to correct in an annotation tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from peakzoom.apps.watch.options import WatchOptions, event_option, window_option
from peakzoom.cli.console import print_result, say
from peakzoom.cli.events import with_rule
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import find_videos
from peakzoom.cli.options import EngineOptions, RunArg, output_option
from peakzoom.utils.errors import printable
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.apps.propose.propose import Proposed
    from peakzoom.data.entries import Problem
    from peakzoom.inference.recognizer import Recognizer

ORDER_HELP = (
    "uncertain: first the videos, and in each the events, with the smallest margin between the two best scores of a "
    "window, on average over their windows."
)


@dataclass(frozen=True)
class FindOptions:
    """What is an event."""

    threshold: Annotated[
        float | None,
        event_option(
            min=0.0,
            max=1.0,
            help="Lowest score at which a window has a class.",
            show_default="the rule of 'peakzoom calibrate --events', else 0.5",
        ),
    ] = None
    ignore: Annotated[
        list[str] | None, event_option(help="Class that is no event; may be given again.", show_default=False)
    ] = None
    every: Annotated[
        float | None,
        window_option(help="Seconds between windows' starts.", show_default="the rule's, else half a window"),
    ] = None

    def watching(self, run: str, recognizer: Recognizer) -> WatchOptions:
        """The same for a watch: the run's rule where nothing is given, and there is one."""
        if self != FindOptions():
            return WatchOptions(self.every, threshold=_or(self.threshold, 0.5), ignore=self.ignore)
        return with_rule(run, recognizer, WatchOptions())


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value


@grouped
def propose(
    run: RunArg,
    videos: Annotated[
        list[Path], typer.Argument(help="Video files, or folders of them.", show_default=False)
    ],
    *,
    to: Annotated[
        Literal["cvat", "label-studio"], output_option(help="The annotation tool.", show_default=False)
    ],
    out: Annotated[Path, output_option(help="New folder.", show_default=False)],
    order: Annotated[Literal["uncertain", "given"], output_option(help=ORDER_HELP)] = "given",
    root: Annotated[
        Path | None,
        output_option(
            help="Folder that the videos' paths start from.", show_default="the one that holds all"
        ),
    ] = None,
    boxes: Annotated[bool, output_option(help="Boxes around the peaks of each event's class.")] = True,
    resume: Annotated[
        bool, output_option(help="Go on with what was killed, if anything was.", show_default=False)
    ] = False,
    finding: FindOptions,
    computing: EngineOptions,
) -> None:
    """Predict events in videos, with boxes around the peaks, as files that an annotation tool takes.

    A person corrects them there; what the tool then exports is DATA for 'peakzoom train'. Exit code 1 if a video could
    not be decoded.

    Examples:
    - `peakzoom propose runs/first videos/ --to cvat --out proposals`
    - `peakzoom propose runs/first videos/ --to label-studio --order uncertain --ignore nothing --out proposals`
    """
    start_early()
    from peakzoom.apps.propose.propose import uncertain_first, write_proposals
    from peakzoom.apps.propose.unfinished import part_of
    from peakzoom.data.exchange.writing import common_root, relative
    from peakzoom.utils.durable import check_new_folder

    check_new_folder(out)
    files = list(dict.fromkeys(find_videos(videos)))
    home = root or common_root(files)
    for file in files:
        relative(file, home)  # refuses before the work
    recognizer = computing.load(run)
    watching = finding.watching(run, recognizer)
    found, problems = _found(recognizer, files, watching, boxes, (out, resume))
    for problem in [*(each for video in found for each in video.problems), *problems]:
        say(f"{printable(problem.path)}: {problem.reason}")
    if order == "uncertain":
        found = uncertain_first(found)
    if not found:  # nothing to go on with: the sentence comes from what writes
        rmtree(part_of(out))
    classes = [name for name in recognizer.classes if name not in (watching.ignore or ())]
    write_proposals(found, classes, home, to, out, f"peakzoom {run}")
    rmtree(part_of(out))
    events = counted(sum(len(each.events) for each in found), "event")
    print_result(f"{events} in {counted(len(found), 'video')}: {out}\nPaths start from: {home}")
    if problems:
        raise typer.Exit(1)


def _found(
    recognizer: Recognizer, files: list[Path], watching: WatchOptions, boxes: bool, where: tuple[Path, bool]
) -> tuple[list[Proposed], list[Problem]]:
    """What is in the files, noted beside the folder where it will lie; whether that is gone on with."""
    from peakzoom.apps.propose.propose import propose as find
    from peakzoom.apps.propose.unfinished import from_line, line_of, proposal_settings, unfinished
    from peakzoom.utils.durable import explain_full_disk

    out, resume = where
    settings = proposal_settings(recognizer, files, watching, boxes)
    with explain_full_disk(out, "go on with --resume"), unfinished(out, settings, resume) as journal:
        known = [from_line(line) for line in journal.lines]
        with progress_bar(f"looking at {counted(len(files), 'video')}") as progress:
            return find(
                *(recognizer, files, watching, boxes, progress, known),
                note=lambda each: journal.add(line_of(each)),
            )
