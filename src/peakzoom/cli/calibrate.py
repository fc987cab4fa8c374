"""``peakzoom calibrate``: thresholds of the early exit, at a stated loss of accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.cli.events import RuleOptions, calibrate_events
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import videos_to_score
from peakzoom.cli.options import (
    DATA_HELP,
    DataOptions,
    DecodersOpt,
    DeviceOpt,
    EngineOptions,
    PrecisionOpt,
    ViewOptions,
    data_option,
)
from peakzoom.cli.rejection import RejectionOptions, calibrate_rejection
from peakzoom.utils.durable import explain_full_disk, whole_folder, write_text
from peakzoom.utils.errors import UserError
from peakzoom.utils.missing import missing
from peakzoom.utils.system import expect_place
from peakzoom.utils.words import counted

if TYPE_CHECKING:
    import numpy as np

    from peakzoom.data.entries import VideoSet
    from peakzoom.evaluation.calibrate import Calibration
    from peakzoom.evaluation.results import Scored
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views

LOSS = 0.2  # points of accuracy that the early exit may lose where nobody says


@grouped
def calibrate(
    run: Annotated[str, typer.Argument(help="Run folder or saved model.", show_default=False)],
    data: Annotated[
        Path | None, typer.Argument(help=DATA_HELP + " Default: the validation videos of the run.")
    ] = None,
    *,
    loss: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Points of accuracy that may be lost.")
    ] = LOSS,
    rule: RuleOptions,
    rejecting: RejectionOptions,
    split: Annotated[str, data_option(help="Which videos: val, or test of other DATA.")] = "val",
    views: ViewOptions,
    workers: DecodersOpt = 1,
    device: DeviceOpt = "auto",
    precision: PrecisionOpt = "32-true",
    reading: DataOptions,
) -> None:
    """Choose thresholds of the early exit, and the temperature of the scores, from validation videos.

    The early exit makes less work of the same predictions; the temperature makes a score come closer to the share of
    predictions that are right.

    With --events, thresholds, hysteresis, gaps and the shortest event are chosen instead, for at most so many false
    alarms an hour, and with them how often a watch looks and where the original branch is enough: the cheapest that
    loses no more than a point of F1.

    With --reject, the confidence is chosen below which `peakzoom predict --reject` says none of these.

    Examples:
    - `peakzoom calibrate runs/first`
    - `peakzoom evaluate runs/first --cascade`
    - `peakzoom predict runs/first clip.mp4 --cascade`
    - `peakzoom calibrate runs/first --events --false-alarms 0.5`
    - `peakzoom calibrate runs/first --reject --unknown other_videos/`
    """
    rule.check({**views.given(), "--loss": loss != LOSS})
    _check_asked(rule, rejecting)
    averaged, engine = views.views(), EngineOptions(device, "torch", precision)
    if rule.events:
        return _choose_rule(run, engine, (data, split, reading), rule)
    if rejecting.reject:
        _check(run, Path(run) / "rejection", data, split)
        recognizer = _load(engine, run)
        videos = videos_to_score(run, data, reading, split)
        return calibrate_rejection(run, recognizer, videos, (averaged, workers), rejecting)
    from peakzoom.inference.early_exit import FOLDER, two_stages

    target = Path(run) / FOLDER
    _check(run, target, data, split)
    recognizer = _load(engine, run)
    two_stages(recognizer.engine)  # refuses what cannot stop half way
    scored = _scored(recognizer, _videos(run, data, reading, split), averaged, workers)
    _choose_exit(recognizer, scored, (averaged, precision), loss, target)


def _scored(recognizer: Recognizer, videos: VideoSet, averaged: Views, workers: int) -> Scored:
    """Every view of the videos; UserError where they are too few to choose on."""
    from peakzoom.evaluation.calibrate import expect_enough
    from peakzoom.evaluation.evaluate import score_videos

    expect_enough(len(videos.entries))
    scored = score_videos(recognizer, videos, averaged, workers)
    for problem in scored.problems:
        say(f"{problem.path}: {problem.reason}")
    expect_enough(len(scored.predictions))
    return scored


def _videos(run: str, data: Path | None, reading: DataOptions, split: str) -> VideoSet:
    """The videos to choose on; UserError where the run tests itself on one of them."""
    from peakzoom.data.runs import run_folder
    from peakzoom.evaluation.choose import expect_untested

    videos, home = videos_to_score(run, data, reading, split), run_folder(run)
    if data is not None and home is not None:
        expect_untested(videos, home)
    return videos


def _choose_exit(
    recognizer: Recognizer, scored: Scored, how: tuple[Views, str], loss: float, target: Path
) -> None:
    """Thresholds and temperature from videos scored by views in a precision, into a folder of the run."""
    import numpy as np

    from peakzoom.evaluation.calibrate import calibrate as choose
    from peakzoom.evaluation.calibrate import fitted_temperature
    from peakzoom.inference.cost import multiply_adds_by_pass
    from peakzoom.inference.early_exit import Work, view_order
    from peakzoom.inference.temperature import FILE, Temperature
    from peakzoom.model.load import digest

    averaged, precision = how
    original, fused = (
        np.stack([each.views[name] for each in scored.predictions]) for name in ("original", "fused")
    )
    labels = np.array([each.label for each in scored.entries])
    work = Work(*multiply_adds_by_pass(recognizer.model), len(recognizer.model.zoomed))
    result = choose(original, fused, labels, view_order(averaged.clips, averaged.crops), work, loss)
    with explain_full_disk(target, "calibrate again"), whole_folder(target) as draft:
        result.save(recognizer, averaged, draft)
        temperature = fitted_temperature(fused.mean(1), labels)
        if temperature is not None:
            fitted = Temperature(temperature, digest(recognizer.model), averaged, precision)
            write_text(draft / FILE, json.dumps(fitted.to_dict(), indent=2) + "\n")
    _report(result, averaged.clips * averaged.crops, recognizer.model.zooms)
    _report_scores(temperature, fused.mean(1), labels)
    print_result(f"The thresholds, all that were tried, and their plot: {target}")


def _check_asked(rule: RuleOptions, rejecting: RejectionOptions) -> None:
    """Refuse options that do not go together."""
    if rule.events and rejecting.reject:
        raise UserError(
            "--events and --reject choose different things: ask for one of them, then for the other"
        )
    rejecting.check(rejecting.reject)


def _load(engine: EngineOptions, run: str) -> Recognizer:
    """The model, of one label a video; UserError for one of several."""
    recognizer = engine.load(run)
    if recognizer.multi_label:
        raise UserError(
            f"{run} is for several labels a video, whose thresholds the training has chosen: the early exit, the "
            "temperature, rules for events and rejections are for one label"
        )
    return recognizer


def _choose_rule(
    run: str,
    engine: EngineOptions,
    asked: tuple[Path | None, str, DataOptions],
    rule: RuleOptions,
) -> None:
    """The rule for events, chosen on the files whose segments are asked for."""
    from peakzoom.apps.watch.options import WatchOptions

    data, split, reading = asked
    _check(run, Path(run) / "events", data, split)
    recognizer = _load(engine, run)
    videos = _videos(run, data, reading, split)
    calibrate_events(run, recognizer, videos, WatchOptions(ignore=rule.ignore), rule)


def _check(run: str, target: Path, data: Path | None, split: str) -> None:
    """Refuse what cannot be written, and videos that thresholds must not be chosen on."""
    if not Path(run).exists():
        raise missing(run, "a run folder or a saved model: the thresholds are kept inside")
    if not Path(run).is_dir():
        raise UserError(
            f"{run} is no folder here, expected a run folder or a saved model: the thresholds are kept inside"
        )
    expect_place(target)
    if target.exists():
        raise UserError(f"{target} exists: remove it to calibrate again")
    if data is None and split == "test":
        raise UserError(
            "thresholds chosen on a run's own test videos would flatter its test: use --split val, or name other DATA"
        )


def _report(result: Calibration, views: int, branches: bool) -> None:
    """What the early exit saves, and what it may lose."""
    best, full = result.chosen, result.full
    print_result(
        f"{counted(result.videos, 'video')}, every view{' in stage 2' if branches else ''}: {full.accuracy:.1%}, "
        f"{full.multiply_adds:.4g} G multiply-adds a video\n"
        f"early exit: {best.accuracy:.1%}, {best.multiply_adds:.4g} G ({best.multiply_adds / full.multiply_adds:.1%}); "
        f"{best.views:.1f} of {views} views, {best.passes_per_view:.2f} passes a view\n"
        f"predictions changed: {best.changed}, from right to wrong: {best.lost} ({best.risk:.2%} changed over many "
        f"orders of the views); loses at most {best.loss_bound:.2f} points of accuracy, as far as scores can tell "
        f"(95%); {result.videos} videos do not rule out that {result.bound:.1f}% of predictions change (95%)"
    )


def _report_scores(temperature: float | None, scores: np.ndarray, labels: np.ndarray) -> None:
    """What the temperature makes of the scores of these videos, or why there is none."""
    from peakzoom.evaluation.report.numbers import reliability
    from peakzoom.inference.temperature import tempered

    if temperature is None:
        print_result(f"scores: {len(labels)} videos do not tell how sure they may be; more videos may")
        return
    before, after = (reliability("fused", each, labels) for each in (scores, tempered(scores, temperature)))
    print_result(
        f"scores: temperature {temperature:.2g}; expected calibration error on these videos {before.ece:.1%}, with it "
        f"{after.ece:.1%}; mean of -ln(score of the label) {before.nll:.3f}, with it {after.nll:.3f}; "
        "'peakzoom predict --calibrated' applies it"
    )
