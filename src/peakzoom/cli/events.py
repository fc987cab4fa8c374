"""``evaluate --events`` and ``calibrate --events``: what a watch finds in long videos, against their segments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.cli.console import print_result, say, show_table
from peakzoom.utils.durable import explain_full_disk, whole_folder, write_csv, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.system import expect_place

if TYPE_CHECKING:
    from peakzoom.apps.watch.measure import Watched
    from peakzoom.apps.watch.options import WatchOptions
    from peakzoom.data.entries import VideoSet
    from peakzoom.evaluation.events import EventScores, Interval
    from peakzoom.inference.recognizer import Recognizer


@dataclass(frozen=True)
class EventOptions:
    """Whether events are looked at, and of which classes."""

    events: Annotated[
        bool,
        typer.Option(
            "--events",
            help="About the events that 'peakzoom watch' reports of the files of labelled segments, and nothing else.",
        ),
    ] = False
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="With --events: class that is no event; may be given again.", show_default=False),
    ] = None


@dataclass(frozen=True)
class RuleOptions(EventOptions):
    """The same, and what a rule for events may cost."""

    false_alarms: Annotated[
        float, typer.Option(min=0.0, help="With --events: false alarms an hour that are allowed.")
    ] = 1.0


def watched_files(
    recognizer: Recognizer, videos: VideoSet, options: WatchOptions
) -> tuple[dict[Path, Watched], list[Interval]]:
    """Watch the files of all segments; what was seen, and the segments."""
    from peakzoom.apps.watch.measure import expect_one_label, files_of, labelled_in, watch_files

    expect_one_label(recognizer)
    files = files_of(videos)
    with progress_bar(f"watching {len(files)} videos") as progress:
        watched = watch_files(recognizer, files, options, progress)
    for each in watched.values():
        for problem in each.problems:
            say(f"{problem.path}: {problem.reason}")
    lengths = {file: each.seconds for file, each in watched.items()}
    return watched, labelled_in(videos, lengths, options.ignore or ())


def with_rule(run: str, recognizer: Recognizer, options: WatchOptions) -> WatchOptions:
    """The options with the rule that ``calibrate --events`` has left in the run, if it has; that is said.

    Raises:
        UserError: it was chosen for other weights.
    """
    from peakzoom.apps.watch.measure import read_rule
    from peakzoom.apps.watch.options import RULE

    rule = read_rule(Path(run))
    if rule is None:
        return options
    if recognizer.temperature is not None:
        say("the rule for events was chosen for scores without --calibrated, and is left out")
        return options
    if recognizer.weights not in (None, rule.weights):
        raise UserError(
            f"the rule for events in {run} was chosen for other weights: run 'peakzoom calibrate --events' again"
        )
    chosen = rule.options(options)
    shown = ", ".join(f"{key} {value}" for key in RULE if (value := getattr(chosen, key)) is not None)
    say(f"events by the rule that was chosen on validation videos: {shown}")
    return chosen


def evaluate_events(
    run: str, recognizer: Recognizer, videos: VideoSet, out: Path, wanted: EventOptions
) -> None:
    """Watch, compare, write ``events.csv`` and ``events.json``, and show the scores."""
    from peakzoom.apps.watch.measure import measure, plain
    from peakzoom.apps.watch.options import RULE, WatchOptions

    if out.exists():
        raise UserError(f"{out} exists: name another folder with --out, or remove it")
    expect_place(out)
    options = with_rule(run, recognizer, WatchOptions(ignore=wanted.ignore))
    watched, labelled = watched_files(recognizer, videos, options)
    found, predicted = measure(watched, labelled, options)
    with explain_full_disk(out, "evaluate again"), whole_folder(out) as draft:
        rows = [
            (each.file, f"{each.start:.3f}", f"{each.end:.3f}", each.name, f"{each.score:.4f}")
            for each in predicted
        ]
        write_csv(draft / "events.csv", ["path", "start", "end", "label", "score"], rows)
        rule = {key: getattr(options, key) for key in RULE} | {"threshold": options.level}
        write_text(draft / "events.json", json.dumps({**plain(found), "rule": rule}, indent=2) + "\n")
    show_scores(found)
    print_result(f"Events and scores: {out}")


def show_scores(found: EventScores) -> None:
    """A table by temporal IoU, and what does not hang on it."""
    ious = list(found.f1)
    rows = [
        (name, *(_shown(values[iou]) for iou in ious))
        for name, values in (
            ("mean AP", found.mean_average_precision),
            ("F1", found.f1),
            ("precision", found.precision),
            ("recall", found.recall),
        )
    ]
    title = f"{found.segments} segments, {found.events} events in {found.hours:.3g} hours; by temporal IoU"
    show_table(title, ("", *(f"{iou:g}" for iou in ious)), rows)
    delay = "" if found.delay is None else f", {found.delay:.2f} s after their start (median)"
    alarms = "" if found.false_alarms_an_hour is None else f", {found.false_alarms_an_hour:.3g} an hour"
    print_result(
        f"detected: {_shown(found.detected)} of the segments{delay}\n"
        f"false alarms: {found.false_alarms}{alarms}\n"
        f"right at any time: {_shown(found.frame_accuracy)} of the time"
    )


def calibrate_events(
    run: str, recognizer: Recognizer, videos: VideoSet, options: WatchOptions, allowed: float
) -> None:
    """Choose the rule for events on validation videos, and leave it in the run."""
    from peakzoom.apps.watch.measure import FILE, FOLDER, choose, counted, to_json
    from peakzoom.evaluation.events import COUNTED
    from peakzoom.model.load import digest

    target = Path(run) / FOLDER
    watched, labelled = watched_files(recognizer, videos, options)
    if not labelled:
        raise UserError("no segment of the videos is an event: nothing can be chosen on them")
    f1, alarms = counted(watched, labelled, options)
    rule = choose(watched, labelled, options, allowed, digest(recognizer.model))
    with explain_full_disk(target, "calibrate again"), whole_folder(target) as draft:
        write_text(draft / FILE, to_json(rule))
    hours = sum(each.seconds for each in watched.values()) / 3600
    print_result(
        f"{len(watched)} videos, {hours:.3g} hours, {len(labelled)} segments\n"
        f"before: F1 {f1:.1%}, {alarms:.3g} false alarms an hour\n"
        f"chosen: F1 {rule.f1:.1%}, {rule.false_alarms_an_hour:.3g} false alarms an hour ({allowed:g} allowed), "
        f"{rule.share:.0%} of the windows\n"
        f"threshold {rule.threshold:g}, keep {rule.keep:g}, gap {rule.gap:g} s, shortest {rule.shortest:g} s, "
        f"a window every {rule.every or watched[next(iter(watched))].every:.3g} s\n"
        f"F1 at a temporal IoU of {COUNTED}, on the videos that it was chosen on. 'peakzoom watch' and "
        f"'peakzoom evaluate --events' use it: {target / FILE}"
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
