"""The page: which numbers it shows, in which words, tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from peakzoom.display.figures import plot_confusion
from peakzoom.display.markup import Block, Grid, Heading, Picture, Text, plain, to_html, to_markdown
from peakzoom.evaluation.files import read_evaluation
from peakzoom.evaluation.report.branches import (
    FEW,
    HIGH_SCORE,
    LABEL_DOUBTFUL,
    UNSURE,
    WEAK,
    Disagreement,
    SceneryRow,
)
from peakzoom.evaluation.report.numbers import (
    BINS,
    LETTERS,
    Calibration,
    ClassRow,
    Mistake,
    Numbers,
    SubsetRow,
    ViewsRow,
    VoteRow,
    confusion_matrix,
    measure_all,
)
from peakzoom.evaluation.report.plots import (
    SharePanel,
    plot_branches_by_class,
    plot_lines,
    plot_reliability,
    plot_shares,
)
from peakzoom.evaluation.stats import RESAMPLES, SEED, Share
from peakzoom.utils.durable import check_new_folder

MOST_NAMES = 20  # classes that a sentence lists; its table has all
PAGE_CLASSES = 120  # rows that the picture of the classes shows at most


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of one evaluation.

    Args:
        folder: the evaluation's.
        out: new or empty folder; ``report`` in the evaluation's when not given.

    Returns:
        The HTML file.

    Raises:
        UserError: ``out`` is in use, or the evaluation cannot be read.
    """
    folder = Path(folder)
    target = Path(out) if out is not None else folder / "report"
    check_new_folder(target)
    scores = read_evaluation(folder)
    numbers = measure_all(scores)
    target.mkdir(parents=True, exist_ok=True)
    draw(numbers, confusion_matrix(scores), scores.classes, target)
    blocks = compose(numbers)
    (target / "numbers.json").write_text(
        json.dumps(asdict(numbers), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    (target / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    page = target / "report.html"
    page.write_text(to_html(blocks, target), encoding="utf-8")
    return page


def draw(numbers: Numbers, confusion: np.ndarray, classes: Sequence[str], out: Path) -> None:
    """The pictures that :func:`compose` names."""
    rows = [(each.name, each.top1) for each in numbers.subsets]
    plot_shares([_panel("top-1 of every subset of the branches", rows)], out / "subsets.png")
    labels = [f"{each.views}\n{len(each.clips)} x {len(each.crops)}" for each in numbers.views]
    series = {name: [each.top1[name].value or 0.0 for each in numbers.views] for name in numbers.branches}
    plot_lines(labels, series, out / "views.png", "views: clips x crops")
    if numbers.disagreement is not None:
        levels = [
            (f"{each.answers} ({_count(each.top1.videos, 'video')})", each.top1)
            for each in numbers.disagreement.levels
            if each.top1.videos
        ]
        parts = [
            (f"{each.low:.3f} - {each.high:.3f} bits", each.top1) for each in numbers.disagreement.quantiles
        ]
        plot_shares(
            [_panel("different answers among the branches", levels), _panel("divergence", parts)],
            out / "disagreement.png",
            "accuracy of the fused answer, 95% interval",
        )
    if numbers.scenery is not None:
        shown = _by_lead(numbers.scenery)[:PAGE_CLASSES]
        found = {name: [each.right[name] / each.videos for each in shown] for name in numbers.branches}
        names = [f"{plain(each.name)} ({each.videos})" for each in shown]
        plot_branches_by_class(names, found, out / "classes.png")
    filled = [
        (each.score, each.accuracy, each.videos)
        for each in numbers.calibration[0].bins
        if each.score is not None and each.accuracy is not None
    ]
    plot_reliability(filled, out / "calibration.png")
    plot_confusion(confusion, [plain(name) for name in classes], out / "confusion.png")


def _panel(title: str, rows: Sequence[tuple[str, Share]]) -> SharePanel:
    values = [(each.value or 0.0, each.low or 0.0, each.high or 0.0) for _, each in rows]
    return SharePanel(title, [name for name, _ in rows], values)


def _by_lead(rows: Sequence[SceneryRow]) -> list[SceneryRow]:
    """Classes that C finds best, against the best other answer, first."""

    def lead(row: SceneryRow) -> tuple[float, float]:
        best = max(count for name, count in row.right.items() if name != "complementary")
        return (best - row.right["complementary"]) / row.videos, -row.right["complementary"] / row.videos

    return sorted(rows, key=lead)


def compose(numbers: Numbers) -> list[Block]:
    """The page, block by block."""
    protocol, fused = numbers.protocol, numbers.subsets[-1]
    parts = [name for name in numbers.branches if name != "fused"]
    several = len(parts) > 1
    views = protocol.clips * protocol.crops
    answers = ", ".join(f"{name} ({LETTERS[name]})" for name in parts)
    page: list[Block] = [
        Heading(f"Report on {Path(numbers.evaluation).resolve().name}", 1),
        Text(
            f"The fused answer is right on {_of(fused.top1)}, {_percent(fused.top1.value)} "
            f"(95% interval {_interval(fused.top1)}); mean class accuracy {_percent(fused.mean_class)} over "
            f"{_count(sum(each.found.videos > 0 for each in numbers.per_class), 'class', 'classes')}. "
            f"Each video has {_count(views, 'view')}: {_count(protocol.clips, 'clip')} (rule {protocol.rule}) "
            f"of {_count(protocol.crops, 'crop')}. Branches: {answers}."
        ),
        Text(
            f"All numbers come from the score files of {numbers.evaluation}; numbers.json holds them unrounded. "
            "Intervals take videos as independent. Videos of one performer or one recording are alike, so the true "
            "uncertainty is larger."
        ),
    ]
    if not several:
        page.append(
            Text(
                f"This model has one branch, {parts[0] if parts else 'the fused one'}, and its answer is the fused "
                "answer. Left out, because they compare branches: subsets, disagreement, the complementary view."
            )
        )
    if numbers.problems:
        page.append(
            Text(
                f"{_count(len(numbers.problems), 'file')} gave no score or were scored in part; the first ten:"
            )
        )
        page.append(Grid(["file", "problem"], numbers.problems[:10], left=2))
    page += _subset_blocks(numbers.subsets, several)
    page += _view_blocks(numbers.views, numbers.branches)
    page += _vote_blocks(numbers.votes, views)
    if numbers.disagreement is not None:
        page += _disagreement_blocks(numbers.disagreement, parts)
    if numbers.scenery is not None:
        page += _scenery_blocks(numbers.scenery, numbers.branches)
    page += _calibration_blocks(numbers.calibration)
    page += _class_blocks(numbers.per_class, numbers.mistakes)
    return page


def _subset_blocks(rows: Sequence[SubsetRow], several: bool) -> list[Block]:
    compared = rows[0].gained is not None and several
    header = ["answer", "right", "top-1", "95%", "mean class", "95%"]
    note = (
        "A sum such as O+D is the mean of those branches' softmax scores, averaged over all views; fused is the answer "
        "that the model learnt. "
        if several
        else ""
    )
    if compared:
        note += (
            "Gained: videos right here and wrong by O; lost: the reverse. All rows answer the same videos, so these "
            "two columns compare rows better than the intervals do. "
        )
        header += ["gained", "lost"]
    note += (
        f"The interval of top-1 is Wilson's; that of mean class accuracy is a bootstrap over videos "
        f"({RESAMPLES} draws, seed {SEED})."
    )
    table = [
        [
            each.name,
            f"{each.top1.right} / {each.top1.videos}",
            _percent(each.top1.value),
            _interval(each.top1),
            _percent(each.mean_class),
            f"{_percent(each.mean_class_low)} - {_percent(each.mean_class_high)}",
            *((["", ""] if each.name == "O" else [f"+{each.gained}", f"-{each.lost}"]) if compared else []),
        ]
        for each in rows
    ]
    title = "Accuracy of every subset of the branches" if several else "Accuracy"
    return [
        Heading(title),
        Text(note),
        Grid(header, table),
        Picture("subsets.png", "Top-1 accuracy of every answer with its interval"),
    ]


def _view_blocks(rows: Sequence[ViewsRow], branches: Sequence[str]) -> list[Block]:
    table = [
        [
            str(each.views),
            f"{_places('clip', each.clips)}; {_places('crop', each.crops)}",
            *(_percent(each.top1[name].value) for name in branches),
            _interval(each.top1["fused"]),
        ]
        for each in rows
    ]
    return [
        Heading("Accuracy against the number of views"),
        Text(
            "Scores averaged over some of the views only, spread evenly: clips and crops at the middles of equal "
            "parts. Clips and crops are counted from 1. The interval is the fused answer's (Wilson)."
        ),
        Grid(["views", "which", *(LETTERS[name] for name in branches), "95%"], table, left=2),
        Picture("views.png", "Accuracy of every branch against the number of views"),
    ]


def _vote_blocks(rows: Sequence[VoteRow], views: int) -> list[Block]:
    title = Heading("Majority vote against mean score")
    if views == 1:
        return [title, Text("There is one view: the vote is the mean.")]
    table = [
        [
            LETTERS[each.branch],
            _percent(each.mean.value),
            _percent(each.vote.value),
            *map(str, (each.differ, each.mean_only, each.vote_only, each.ties)),
        ]
        for each in rows
    ]
    return [
        title,
        Text(
            f"Mean: the softmax scores of all {views} views averaged. Vote: the class that most views answer; the mean "
            "decides between classes with equal votes. The other columns count videos: with two different answers, "
            "right by one of the two only, and with a tie in the vote."
        ),
        Grid(["answer", "mean", "vote", "differ", "mean only", "vote only", "ties"], table),
    ]


def _disagreement_blocks(found: Disagreement, parts: Sequence[str]) -> list[Block]:
    letters = ", ".join(LETTERS[name] for name in parts)
    levels = [
        [str(each.answers), str(each.top1.videos), _percent(each.top1.value), _interval(each.top1)]
        for each in found.levels
    ]
    quantiles = [
        [
            f"{each.low:.4f} - {each.high:.4f}",
            str(each.top1.videos),
            _percent(each.top1.value),
            _interval(each.top1),
        ]
        for each in found.quantiles
    ]
    videos = sum(each.top1.videos for each in found.levels)
    pairs = [
        [f"{LETTERS[each.one]} and {LETTERS[each.two]}", f"{each.same} / {videos}", f"{each.divergence:.4f}"]
        for each in found.pairs
    ]
    kinds = found.kinds
    wrong = sum(kinds.values())
    page: list[Block] = [
        Heading("Where the branches disagree"),
        Text(
            f"Number of different answers among {letters}, and the accuracy of the fused answer on those videos. "
            "Disagreement hints at wrong labels or at actions that the model does not know; it proves neither."
        ),
        Grid(["answers", "videos", "accuracy", "95%"], levels),
        Text(
            "Two branches at a time: videos with the same answer from both, and the mean divergence (see below)."
        ),
        Grid(["branches", "same answer", "divergence"], pairs),
        Text(
            "The same by a continuous measure: the mean Jensen-Shannon divergence of the pairs of branches, in bits "
            "(0: equal scores, 1: nothing in common), videos in parts of equal size from the least to the greatest. "
            + _separation_sentence(found)
        ),
        Grid(["divergence", "videos", "accuracy", "95%"], quantiles),
        Picture("disagreement.png", "Accuracy of the fused answer against disagreement of the branches"),
        Heading("Videos to look at", 3),
    ]
    if not wrong:
        return [*page, Text("No fused answer differs from its label.")]
    page.append(
        Text(
            f"Of {_count(wrong, 'video')} with a fused answer that is not the label: {kinds[LABEL_DOUBTFUL]} with a "
            f"doubtful label (all branches and the fused answer agree on another class, each with a score of at least "
            f"{HIGH_SCORE:g}), {kinds[UNSURE]} unsure (the answers differ), {kinds[WEAK]} where all agree with a lower "
            f"score. A model that is often wrong calls many labels doubtful that are not. Listed are "
            f"{len(found.doubts)}: doubtful labels first, the highest scores on top, then the unsure, the greatest "
            "divergence on top."
        )
    )
    table = [
        [
            each.path,
            each.label,
            each.kind,
            *(f"{name} ({_percent(each.scores[key])})" for key, name in each.answers.items()),
            f"{each.divergence:.3f}",
        ]
        for each in found.doubts
    ]
    header = ["file", "label", "kind", *(LETTERS[name] for name in parts), "fused", "divergence"]
    return [*page, Grid(header, table, left=4 + len(parts))]


def _separation_sentence(found: Disagreement) -> str:
    value, low, high = found.separation, found.separation_low, found.separation_high
    if value is None or low is None or high is None:
        return f"There are fewer than {FEW} right or wrong answers: too few to say whether accuracy falls with it."
    verdict = "Accuracy neither falls nor rises with divergence, as far as these videos show"
    if low > 0.5:
        verdict = "Accuracy falls with divergence"
    elif high < 0.5:
        verdict = "Accuracy rises with divergence, against expectation"
    return (
        f"{verdict}: of a wrong and a right video, the wrong one has the greater divergence in {_percent(value)} of "
        f"all pairs (bootstrap 95% {_percent(low)} - {_percent(high)}; 50% would be chance)."
    )


def _scenery_blocks(rows: Sequence[SceneryRow], branches: Sequence[str]) -> list[Block]:
    ordered = _by_lead(rows)
    flagged = [each for each in ordered if each.hint == "scenery?"]
    few = sum(each.hint == "few videos" for each in rows)
    # Where all branches see the same, every class is marked and no mark means anything.
    many = (
        "More than half of the judged classes are marked: C then sees much the same as the other branches, and the "
        "marks say little about single classes. See above how often it gives the same answers."
    )
    names = ", ".join(
        f"{each.name} (C {each.right['complementary']} of {each.videos})" for each in flagged[:MOST_NAMES]
    )
    table = [
        [each.name, str(each.videos), *(str(each.right[name]) for name in branches), each.hint]
        for each in ordered
    ]
    limit = f" (the first {PAGE_CLASSES})" if len(rows) > PAGE_CLASSES else ""
    return [
        Heading("The complementary view alone"),
        Text(
            "C zooms into what the discriminative peaks leave. A class that C finds as often as O, D and the fused "
            "answer may be recognised by its scenery. It is a hint, no proof: the discriminative region is made small "
            "in C but not removed, peaks can miss the action, and on few videos equal counts happen by chance. "
            "Look at the attention pictures of such a class."
        ),
        Text(
            f"{len(flagged)} of {_count(len(rows), 'class', 'classes')} with videos are marked 'scenery?': at least "
            f"{FEW} videos, C right as often as every other answer, and more often than guessing one of the classes "
            f"would be (Wilson 95%). {_count(few, 'class', 'classes')} with fewer than {FEW} videos are not judged."
            + (f" Marked: {names}{' and others' if len(flagged) > MOST_NAMES else ''}." if flagged else "")
        ),
        *([Text(many)] if 2 * len(flagged) > len(rows) - few else []),
        Grid(
            ["class", "videos", *(f"right by {LETTERS[name]}" for name in branches), "hint"],
            table,
            fold=f"All {len(rows)} classes",
        ),
        Picture("classes.png", f"Accuracy of every branch in every class{limit}, the lead of C on top"),
    ]


def _calibration_blocks(rows: Sequence[Calibration]) -> list[Block]:
    table = [
        [
            LETTERS[each.branch],
            f"{each.ece:.4f}",
            f"{each.nll:.4f}",
            _number(each.score_right),
            _number(each.score_wrong),
        ]
        for each in rows
    ]
    floored = rows[0].floored
    return [
        Heading("Do the scores mean what they say?"),
        Text(
            f"Expected calibration error (ECE): {BINS} bins of equal width over the score of the answer; the mean over "
            "the videos of the distance between a bin's accuracy and its mean score. NLL: mean of -ln of the label's "
            "score, in nats. Last two columns: mean score of the answer where it is right and where it is wrong."
            + (
                f" The fused score of the label is 0 for {_count(floored, 'video')}; NLL takes it as 1.4e-45."
                if floored
                else ""
            )
        ),
        Grid(["answer", "ECE", "NLL", "score when right", "score when wrong"], table),
        Picture("calibration.png", "Accuracy of the fused answer against its score"),
    ]


def _class_blocks(rows: Sequence[ClassRow], pairs: Sequence[Mistake]) -> list[Block]:
    table = [
        [
            each.name,
            str(each.found.videos),
            _percent(each.found.value),
            _interval(each.found),
            f"{each.correct.right} / {each.correct.videos}",
            f"{each.instead} ({each.instead_videos})" if each.instead is not None else "",
        ]
        for each in sorted(rows, key=lambda each: (each.found.value is None, each.found.value or 0.0))
    ]
    page: list[Block] = [
        Heading("Classes"),
        Text(
            "The fused answer, the worst class on top, classes without a video last. 'Right when answered': of all "
            "videos that got this class as their answer. The interval is Wilson's."
        ),
        Grid(
            ["class", "videos", "accuracy", "95%", "right when answered", "most often taken for"],
            table,
            fold=f"All {len(rows)} classes",
        ),
        Picture("confusion.png", "Confusion matrix: rows are true classes, columns the fused answer"),
    ]
    if pairs:
        common = [[each.label, each.answer, str(each.videos)] for each in pairs[:15]]
        page += [
            Heading("Most frequent mistakes", 3),
            Grid(["true class", "answer", "videos"], common, left=2),
        ]
    return page


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(each: Share) -> str:
    return "-" if each.value is None else f"{_percent(each.low)} - {_percent(each.high)}"


def _of(each: Share) -> str:
    return f"{each.right} of {_count(each.videos, 'video')}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _places(name: str, places: Sequence[int]) -> str:
    if len(places) == 1:
        return f"{name} {places[0]}"
    if len(places) > 3 and list(places) == list(range(places[0], places[-1] + 1)):
        return f"{name}s {places[0]} to {places[-1]}"
    return f"{name}s {', '.join(map(str, places[:-1]))} and {places[-1]}"
