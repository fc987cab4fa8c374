"""``evaluate --events`` and ``calibrate --events``: what a watch finds in long videos, against their segments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.apps.watch.options import event_option
from peakzoom.cli.console import print_result, say, show_table
from peakzoom.utils.durable import explain_full_disk, whole_folder, write_csv, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.system import expect_place
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    from collections.abc import Hashable

    from peakzoom.apps.watch.measure import Watched
    from peakzoom.apps.watch.options import WatchOptions
    from peakzoom.apps.watch.rule import Rule, Setting
    from peakzoom.data.entries import VideoSet
    from peakzoom.evaluation.event_intervals import EventIntervals
    from peakzoom.evaluation.events import EventScores, Interval
    from peakzoom.inference.early_exit import Work
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
    full_cost: Annotated[
        bool,
        typer.Option(
            "--full-cost", help="With --events: the rule for every window by all branches, not a cheaper one."
        ),
    ] = False

    def check(self, others: Mapping[str, object]) -> None:
        """Refuse what plays no part: options of events without events, and ``others``, by their options, with them."""
        own = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if own and not self.events:
            raise UserError(f"--{own[0].replace('_', '-')} is about events: add --events, or leave it out")
        if self.events and (given := [name for name, value in others.items() if value]):
            raise UserError(f"--events watches the files, in which {given[0]} plays no part: leave it out")


@dataclass(frozen=True)
class RuleOptions(EventOptions):
    """The same, and what a rule for events may cost."""

    false_alarms: Annotated[
        float, typer.Option(min=0.0, help="With --events: false alarms an hour that are allowed.")
    ] = 1.0


@dataclass(frozen=True)
class TakenRule:
    """Whether a watch takes the rule of its run, and which."""

    rule: Annotated[
        bool,
        event_option(help="Take the rule of 'peakzoom calibrate --events', unless an option of it is given."),
    ] = True
    full_cost: Annotated[
        bool,
        event_option("--full-cost", help="Of that rule, what was chosen for every window by all branches."),
    ] = False

    def applied(self, run: str, recognizer: Recognizer, options: WatchOptions) -> WatchOptions:
        """The options with the rule, as far as it is to be taken.

        Raises:
            UserError: as :func:`with_rule`; or the rule is left out, and is asked for at its full cost.
        """
        from peakzoom.apps.watch.options import RULE, WatchOptions
        from peakzoom.apps.watch.rule import FILE, FOLDER

        if self.rule and options.plain:
            return with_rule(run, recognizer, options, self.full_cost)
        if self.full_cost:
            raise UserError(
                "--full-cost is for the run's rule, which --no-rule and the options of a rule leave out"
            )
        if self.rule and (Path(run) / FOLDER / FILE).exists():
            usual = WatchOptions()
            given = next(key for key in RULE if getattr(options, key) != getattr(usual, key))
            say(f"the rule for events in {run} is left out, for --{given.replace('_', '-')} is given")
        return options


def watched_files(
    recognizer: Recognizer, videos: VideoSet, options: WatchOptions
) -> tuple[dict[Path, Watched], list[Interval]]:
    """Watch the files of all segments: what was seen of those that can be decoded, and the segments in that.

    What is wrong with a file is said, and how many segments lie where nothing was seen.

    Raises:
        UserError: nothing can be decoded.
    """
    from peakzoom.apps.watch.measure import expect_one_label, files_of, labelled_in, watch_files

    expect_one_label(recognizer)
    files = files_of(videos)
    with progress_bar(f"watching {counted(len(files), 'video')}") as progress:
        watched = watch_files(recognizer, files, options, progress)
    for each in watched.values():
        for problem in each.problems:
            say(f"{problem.path}: {problem.reason}")
    every = labelled_in(videos, dict.fromkeys(files, math.inf), options.ignore or ())
    watched = {file: each for file, each in watched.items() if each.windows}
    if not watched:
        raise UserError(
            f"none of the {counted(len(files), 'video')} can be decoded: nothing is to be measured"
        )
    lengths = {file: each.seconds for file, each in watched.items()}
    seen = labelled_in(videos, lengths, options.ignore or ())
    if len(seen) < len(every):
        say(
            f"{len(every) - len(seen)} of {counted(len(every), 'segment')} lie where nothing could be decoded: left out"
        )
    return watched, seen


def with_rule(
    run: str, recognizer: Recognizer, options: WatchOptions, full_cost: bool = False
) -> WatchOptions:
    """The options with the rule that ``calibrate --events`` has left in the run, if it has; that is said.

    Args:
        run: a run folder or a saved model.
        recognizer: what is loaded from it.
        options: of the rule they may name classes to ignore, which are kept.
        full_cost: take what was chosen for every window and all branches.

    Raises:
        UserError: it was chosen for other weights, or there is none for the full cost.
    """
    from peakzoom.apps.watch.options import RULE
    from peakzoom.apps.watch.rule import read_rule

    rule = read_rule(Path(run))
    if rule is None:
        if full_cost:
            raise UserError(
                f"{run} has no rule for events, at its full cost or any other: leave --full-cost out, or run "
                "'peakzoom calibrate --events'"
            )
        return options
    if recognizer.temperature is not None:
        say("the rule for events was chosen for scores without --calibrated, and is left out")
        return options
    if recognizer.weights not in (None, rule.weights):
        raise UserError(
            f"the rule for events in {run} was chosen for other weights: run 'peakzoom calibrate --events' again"
        )
    if not full_cost and rule.chosen.exit_lead is not None and (why := _no_exit(recognizer)):
        say(f"the rule's early exit {why}: the rule for the full cost is taken, every window by all branches")
        full_cost = True
    rule = rule.at_full_cost() if full_cost else rule
    chosen = rule.options(options)
    shown = ", ".join(f"{key} {value}" for key in RULE if (value := getattr(chosen, key)) is not None)
    say(f"events by the rule that was chosen on validation videos: {shown}")
    if options.ignore and set(options.ignore) != set(rule.ignore):
        before = " ".join(f"--ignore {name}" for name in rule.ignore)
        say(
            f"--ignore is taken as it is given; the rule was chosen {f'with {before}' if before else 'without it'}"
        )
    return chosen


def _no_exit(recognizer: Recognizer) -> str | None:
    """Why the windows of a model that has a rule cannot exit early, as the end of a sentence; None where they can."""
    if recognizer.engine.name != "torch":
        return f"runs on engine torch, not on {recognizer.engine.name}"
    return "does not go with --reject" if recognizer.rejection is not None else None


def evaluate_events(
    run: str, recognizer: Recognizer, videos: VideoSet, out: Path, wanted: EventOptions
) -> None:
    """Watch, compare, write ``events.csv`` and ``events.json``, and show the scores."""
    from peakzoom.apps.watch.measure import cost_a_second, groups_of, measure, plain
    from peakzoom.apps.watch.options import RULE, WatchOptions
    from peakzoom.evaluation.event_intervals import event_intervals

    if out.exists():
        raise UserError(f"{out} exists: name another folder with --out, or remove it")
    expect_place(out)
    options = with_rule(run, recognizer, WatchOptions(ignore=wanted.ignore), wanted.full_cost)
    watched, labelled = watched_files(recognizer, videos, options)
    found, predicted = measure(watched, labelled, options)
    groups = groups_of(videos)
    lengths: dict[Hashable, float] = {file: each.seconds for file, each in watched.items()}
    intervals = event_intervals(labelled, predicted, lengths, groups)
    work = work_of(recognizer)
    cost = None if work is None else cost_a_second(watched, work, options.crops)
    with explain_full_disk(out, "evaluate again"), whole_folder(out) as draft:
        rows = [
            (each.file, f"{each.start:.3f}", f"{each.end:.3f}", each.name, f"{each.score:.4f}")
            for each in predicted
        ]
        write_csv(draft / "events.csv", ["path", "start", "end", "label", "score"], rows)
        rule = {key: getattr(options, key) for key in RULE} | {"threshold": options.level}
        more = {"multiply_adds_a_second": cost, "rule": rule}
        write_text(draft / "events.json", json.dumps({**plain(found, intervals), **more}, indent=2) + "\n")
    show_scores(found)
    _show_intervals(intervals, len(set(groups.values())))
    if cost is not None:
        print_result(f"cost: {_cost(cost)}, {_how_scored(watched)}")
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
    counts = f"{counted(found.segments, 'segment')}, {counted(found.events, 'event')}"
    title = f"{counts} in {found.hours:.3g} hours; by temporal IoU"
    show_table(title, ("", *(f"{iou:g}" for iou in ious)), rows)
    delay = "" if found.delay is None else f", {found.delay:.2f} s after their start (median)"
    alarms = "" if found.false_alarms_an_hour is None else f", {found.false_alarms_an_hour:.3g} an hour"
    print_result(
        f"detected: {_shown(found.detected)} of the segments{delay}\n"
        f"false alarms: {found.false_alarms}{alarms}\n"
        f"right at any time: {_shown(found.frame_accuracy)} of the time"
    )


def _show_intervals(found: EventIntervals | None, groups: int) -> None:
    """Those that stand at the first IoU of interest, or why there are none."""
    from peakzoom.evaluation.events import COUNTED
    from peakzoom.evaluation.stats import GROUPS

    if found is None:
        few = (
            f"{counted(groups, 'group')} of videos: fewer than {GROUPS}"
            if groups < GROUPS
            else "nothing was found"
        )
        print_result(f"95% intervals: none, for {few}")
        return
    at_iou = {
        "mean AP": found.mean_average_precision,
        "F1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
    }
    shares = {name: bounds[COUNTED] for name, bounds in at_iou.items()}
    delay = "" if found.delay is None else ", delay {:.2f} to {:.2f} s".format(*found.delay)
    print_result(
        f"95% by {counted(found.groups, 'group')} of videos, at a temporal IoU of {COUNTED}: "
        + ", ".join(f"{name} {low:.1%} to {high:.1%}" for name, (low, high) in shares.items())
        + "\n95%, at any: detected {:.1%} to {:.1%}".format(*found.detected)
        + delay
        + ", false alarms {:.3g} to {:.3g} an hour".format(*found.false_alarms_an_hour)
        + ", right at any time {:.1%} to {:.1%}".format(*found.frame_accuracy)
    )


def work_of(recognizer: Recognizer) -> Work | None:
    """Multiply-adds of a view; None of an exported file."""
    from peakzoom.inference.cost import multiply_adds_by_pass
    from peakzoom.inference.early_exit import Work

    if recognizer.weights is None:
        return None
    return Work(*multiply_adds_by_pass(recognizer.model), len(recognizer.model.zoomed))


def calibrate_events(
    run: str, recognizer: Recognizer, videos: VideoSet, options: WatchOptions, asked: RuleOptions
) -> None:
    """Choose the rule for events on validation videos, and leave it in the run."""
    from peakzoom.apps.watch.measure import f1_and_alarms
    from peakzoom.apps.watch.rule import FILE, FOLDER, choose, to_json
    from peakzoom.model.load import digest

    target, work = Path(run) / FOLDER, work_of(recognizer)
    assert work is not None  # it is loaded from a folder
    watched, labelled = watched_files(recognizer, videos, options)
    if not labelled:
        raise UserError("no segment of the videos is an event: nothing can be chosen on them")
    f1, alarms = f1_and_alarms(watched, labelled, options)
    with progress_bar("trying rules") as progress:
        rule = choose(
            *(watched, labelled, options, asked.false_alarms, digest(recognizer.model), work),
            cheaper=not asked.full_cost,
            progress=progress,
        )
    with explain_full_disk(target, "calibrate again"), whole_folder(target) as draft:
        write_text(draft / FILE, to_json(rule))
    hours = sum(each.seconds for each in watched.values()) / 3600
    print_result(
        f"{counted(len(watched), 'video')}, {hours:.3g} hours, {counted(len(labelled), 'segment')}\n"
        f"before: F1 {f1:.1%}, {alarms:.3g} false alarms an hour"
    )
    if asked.false_alarms * hours < 1:
        print_result(
            f"{asked.false_alarms:g} false alarms an hour are less than one in {hours:.3g} hours, so that only rules "
            "without any were taken: choose on more videos, or allow more"
        )
    _show_rule(rule, next(iter(watched.values())).every, asked.full_cost)
    print_result(
        "F1 at a temporal IoU of 0.5, on the videos that it was chosen on. 'peakzoom watch' and "
        f"'peakzoom evaluate --events' use what was chosen: {target / FILE}"
    )


def _show_rule(rule: Rule, every: float, full_cost: bool) -> None:
    """What was chosen, beside what the full cost gives; and where it is dearer than wanted."""
    from peakzoom.apps.watch.rule import MAY_LOSE, WANTED

    if rule.full is None:
        print_result(
            f"full cost: no rule has {rule.allowed:g} false alarms an hour or fewer; the best with less work stands in "
            "for it"
        )
    elif rule.chosen != rule.full:
        print_result(f"full cost: {_said(rule.full, rule.allowed)}")
    chosen = rule.chosen
    share = "" if rule.cost is None else f", {rule.cost:.1%} of the full cost"
    lead = ""
    if chosen.exit_lead is not None:
        early = f"{chosen.early:.0%} of these windows"
        lead = f", the original branch alone where it leads by {chosen.exit_lead:g} ({early})"
    print_result(
        f"chosen: {_said(chosen, rule.allowed)}{share}\n"
        f"threshold {chosen.threshold:g}, keep {chosen.keep:g}, gap {chosen.gap:g} s, shortest {chosen.shortest:g} s, "
        f"a window every {(chosen.every or every) * chosen.nth:.3g} s ({chosen.share:.0%} of the windows){lead}"
    )
    if not full_cost and rule.cost is not None and rule.cost > WANTED:
        print_result(
            f"No rule for {WANTED:.0%} of the full cost holds its F1 within {100 * MAY_LOSE:g} point on these videos: "
            f"the cheapest that does costs {rule.cost:.1%} of it"
            + (f", and the best for a fifth has F1 {rule.cheap.f1:.1%}" if rule.cheap else "")
        )


def _said(setting: Setting, allowed: float) -> str:
    cost = setting.multiply_adds_a_second
    return (
        f"F1 {setting.f1:.1%}, {setting.false_alarms_an_hour:.3g} false alarms an hour ({allowed:g} allowed)"
        + ("" if cost is None else f", {_cost(cost)}")
    )


def _cost(value: float) -> str:
    return f"{value:.4g} G multiply-adds a second of video"


def _how_scored(watched: dict[Path, Watched]) -> str:
    """How many windows, and how many of them exited early."""
    windows = [window for each in watched.values() for window in each.windows]
    early = sum(bool(each.early) for each in windows)
    return f"{counted(len(windows), 'window')}" + (
        f", {early} of them by the original branch alone" if early else ""
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
