"""``peakzoom evaluate`` tests a trained model on labelled videos, ``peakzoom report`` writes a page on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.cli.console import print_result, say, show_table
from peakzoom.cli.events import EventOptions, evaluate_events
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import beside, videos_to_score
from peakzoom.cli.options import (
    DATA_HELP,
    CascadeOptions,
    DataOptions,
    DecodersOpt,
    RunArg,
    ViewOptions,
    data_option,
    output_option,
)
from peakzoom.cli.rejection import UnknownOptions
from peakzoom.utils.errors import UserError
from peakzoom.utils.system import reason_of
from peakzoom.utils.words import counted
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.evaluation.faithfulness import Faithfulness
    from peakzoom.evaluation.multi_label_results import MultiLabelEvaluation
    from peakzoom.evaluation.pointing import Pointing
    from peakzoom.evaluation.results import Evaluation


@dataclass(frozen=True)
class Amount:
    """How much of an evaluation is done."""

    faithfulness: Annotated[
        bool,
        typer.Option(
            help="Also blur what is attended to, and as much elsewhere: six times the work again.",
        ),
    ] = False
    places: Annotated[
        Path | None,
        typer.Option(
            help="CSV of where the action is, or a tool's file with boxes: also measure if the attention lies there.",
            show_default=False,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option(help="Go on with a stopped evaluation, or with what shards have scored.")
    ] = False
    shard: Annotated[
        str | None,
        typer.Option(
            help="Score only a part of the videos, as 2/4; afterwards the same command with --resume."
        ),
    ] = None

    def given(self) -> dict[str, object]:
        """What is asked for, by its option."""
        return {f"--{name}": value for name, value in vars(self).items()}

    def part(self, cascade: bool) -> tuple[int, int] | None:
        """Number and count of the shard, (2, 4) of "2/4"; None for all videos.

        Raises:
            UserError: it is none, or options exclude one another.
        """
        given = {"--faithfulness": self.faithfulness, "--places": self.places}
        looks = next((name for name, value in given.items() if value), None)
        if looks and cascade:
            raise UserError(f"{looks} needs every view and --cascade stops early: ask for one of them")
        if self.shard is None:
            return None
        if looks or self.resume:
            raise UserError(
                f"--shard scores a part of the videos, {looks or '--resume'} is for all: leave one of them out"
            )
        number, _, count = self.shard.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"--shard is {self.shard!r}, expected a part of the videos, such as 1/4 to 4/4")
        return int(number), int(count)


@grouped
def evaluate(
    run: RunArg,
    data: Annotated[
        Path | None, typer.Argument(help=DATA_HELP + " Default: the test videos of the run.")
    ] = None,
    *,
    split: Annotated[str, data_option(help="Which videos: test, val or train.")] = "test",
    reading: DataOptions,
    views: ViewOptions,
    out: Annotated[
        Path | None, output_option(help="New folder.", show_default="evaluation-... in RUN")
    ] = None,
    workers: DecodersOpt = 1,
    computing: CascadeOptions,
    amount: Amount,
    watching: EventOptions,
    rejecting: UnknownOptions,
) -> None:
    """Test a model on labelled videos, 30 views each, and leave every score in one file.

    With --events, what `peakzoom watch` reports of long files is compared with their labelled segments instead: mean
    average precision and F1 by temporal IoU, false alarms an hour, and how soon an event is known.

    Examples:
    - `peakzoom evaluate runs/first`
    - `peakzoom evaluate runs/first --events`
    - `peakzoom evaluate runs/first/tcnn other_clips/`
    """
    if workers:
        start_early()
    from peakzoom.data.places import read_places
    from peakzoom.evaluation.evaluate import evaluate as test
    from peakzoom.evaluation.evaluate import score_shard
    from peakzoom.evaluation.unfinished import check_out, part_of

    watching.check({**amount.given(), **computing.given(), **views.given()})
    rejecting.check(computing.reject)
    averaged, part = views.views(), amount.part(computing.cascade)
    recognizer = computing.load(run)
    if not watching.events:
        recognizer.choose_views(averaged)  # refuses views that it was not calibrated for
    reading = replace(reading, multi_label=reading.multi_label or recognizer.multi_label)
    videos = replace(videos_to_score(run, data, reading, split), unknown=rejecting.videos(run))
    if watching.events:
        return evaluate_events(run, recognizer, videos, out or beside(run) / f"events-{split}", watching)
    target = out or beside(run) / _name(["evaluation", split, views.clips], recognizer.engine.name, computing)
    if part:
        count, before = score_shard(recognizer, videos, target, part, averaged, workers)
        scored = f"Shard {amount.shard}: {count} of {counted(len(videos.entries), 'video')}"
        return _report_shard(scored, before, part_of(target))
    check_out(target, amount.resume)  # before the videos are looked at
    if amount.places:
        videos = replace(videos, places=read_places(amount.places, videos=reading.root))
    how = {"resume": amount.resume, "faithfulness": amount.faithfulness}
    result = test(recognizer, videos, target, averaged, workers, **how)
    _report(result, f"{split} videos, {views.num_clips} x {views.crops} views", target)
    if recognizer.weights and Path(run).is_dir() and not _renew_card(run, target):
        raise typer.Exit(1)


def _name(parts: list[str], engine: str, computing: CascadeOptions) -> str:
    """What the folder is called where nobody names one."""
    from peakzoom.model.precision import FULL

    parts = parts + [each for each in (engine, computing.precision) if each not in ("torch", FULL)]
    return "-".join(parts + [each for each in ("cascade", "reject") if getattr(computing, each)])


def _report_shard(done: str, before: int, part: Path) -> None:
    already = f" ({before} of them before)" if before else ""
    print_result(
        f"{done} scored{already} into {part}\n"
        "Next, when every shard is done: the same command with --resume in place of --shard"
    )


def _report(result: Evaluation | MultiLabelEvaluation, tested: str, target: Path) -> None:
    from peakzoom.evaluation.results import Evaluation

    show_table(f"{result.videos} {tested}", *result.table(), strong="fused")
    print_result(f"The {result.intervals}")
    show_table("Fused prediction, class by class", *result.class_table())
    if isinstance(result, Evaluation):
        _report_more(result)
    if result.problems:
        say(
            f"{counted(len(result.problems), 'file')} missing or broken, or with something wrong: see "
            f"{target / 'problems.csv'}"
        )
    if result.pointing:
        show_pointing(result.pointing, result.branches)
    print_result(f"Scores, tables and pictures: {target}")


def _report_more(result: Evaluation) -> None:
    """What is measured of one label a video alone."""
    if spent := result.effort:
        print_result(
            f"A video took {spent.views:.1f} views on average, {spent.closer:.1f} of them in stage 2: "
            f"{spent.passes_per_view:.2f} passes and {spent.multiply_adds_per_view:.4g} G multiply-adds a view, "
            f"{spent.multiply_adds:.4g} G a video, {spent.multiply_adds / spent.full_multiply_adds:.1%} of a full test"
        )
    if result.rejection:
        for line in result.rejection.said():
            print_result(line)
    if result.faithfulness:
        _show_faithfulness(result.faithfulness)


def show_pointing(found: Pointing, branches: Collection[str]) -> None:
    """Print whether the attention lies where the action is, a row a part; enlarged as those branches see it."""
    from peakzoom.evaluation.pointing import BEST
    from peakzoom.evaluation.stats import GROUPS
    from peakzoom.model.config import BRANCHES, LETTERS

    rows = found.rows()
    zoomed = [name for name in BRANCHES[1:] if name in branches]
    letters = [LETTERS[name] for name in zoomed]
    show_table(
        f"Where the attention lies: shares of {counted(rows[-1].frames, 'frame')}, and by how much it is enlarged",
        ("part", "frames", "highest peak", "95%", f"{BEST} highest", "middle", "random", *letters),
        (
            (
                *(row.name, row.frames, f"{row.highest:.1%}"),
                "{:.0%} to {:.0%}".format(*row.interval) if row.count > 1 else "",
                *(f"{share:.1%}" for share in (row.best, row.middle, row.random)),
                *(f"{getattr(row, name):.1f}x" for name in zoomed),
            )
            for row in rows
        ),
        strong="all",
    )
    if rows[-1].count < GROUPS:
        say(f"intervals draw whole {rows[-1].units}, and with {rows[-1].count} of them they are too narrow")
    if found.unseen:
        say(
            f"no view shows the place in {counted(found.unseen, 'frame')} of the table; they are not counted: "
            f"more --num-clips or --crops show more"
        )


def _show_faithfulness(measured: Faithfulness) -> None:
    from peakzoom.evaluation.faithfulness import KINDS, SHARE

    show_table(
        f"Drop of the predicted class's score, {SHARE:.0%} of each frame blurred",
        ("class predicted", "videos", "score", *KINDS),
        ((name, videos, *(f"{value:.3f}" for value in values)) for name, videos, *values in measured.rows()),
        strong="all",
    )
    for kind in KINDS[1:]:
        test = measured.test(kind)
        low, high = test.interval
        print_result(
            f"attended less {kind}: {test.difference:+.1f} points of score ({low:+.1f} to {high:+.1f}, "
            f"p = {test.p:.2g}, {test.count} {test.units})"
        )


def _renew_card(run: str, evaluation: Path) -> bool:
    """Write the accuracies into the model card beside the weights; False where the system refuses, which is said."""
    from peakzoom.hub.card import FILE, update_card
    from peakzoom.model.load import find_model

    file = find_model(run) / FILE
    try:
        if update_card(file.parent, [evaluation]):
            print_result(f"Model card: {file}")
        else:
            say(f"{file} was edited and is left as it is, without these accuracies: remove it for a new one")
    except OSError as error:
        say(
            f"{file} could not be written ({reason_of(error)}), so the model card lacks these accuracies; they are in "
            f"{evaluation}: make {file.parent} a place that can be written to, and evaluate again"
        )
        return False
    return True


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of an evaluation, or of the run that holds it.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="New folder; default: report in the evaluation's.")] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Show precision, recall and false alarms of this class at each threshold. May be given again.",
            show_default="both classes, where there are two",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The model that was evaluated.", show_default="that of the run around the evaluation"
        ),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option(help="Show confused videos, and where the network looked in them.")
    ] = True,
) -> None:
    """Write a page with pictures on one evaluation: the numbers, what is confused, and where the network looked.

    Examples:
    - `peakzoom report runs/first`
    - `peakzoom report runs/first/evaluation-test-paper --thresholds fall --out pages/first`
    """
    from peakzoom.evaluation.files import find_evaluation
    from peakzoom.evaluation.report.page import write_report

    print_result(f"Page: {write_report(find_evaluation(run), out, thresholds or (), model, thumbnails)}")
