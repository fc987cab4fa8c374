"""Test a trained model on labelled videos (docs/method.md): each video is decoded once for all its views.

``evaluation/files.py`` says what an evaluation leaves in its folder. The folder appears when it is complete. Until then
the scores of each video are kept in ``FOLDER.part`` (``unfinished.py``), so that a stopped evaluation goes on where it
was. Several processes may share the work: each scores one shard of the videos into that folder, and the evaluation that
comes after them takes their scores, computes what is missing, and writes the same files as one alone.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.evaluation.faithfulness import measure_faithfulness, torch_engine
from peakzoom.evaluation.files import write_evaluation
from peakzoom.evaluation.multi_label_results import (
    MultiLabelEvaluation,
    summarise_labels,
    write_labels_evaluation,
)
from peakzoom.evaluation.pointing import PointingGame, play
from peakzoom.evaluation.rejection import measure_rejection
from peakzoom.evaluation.results import Evaluation, Scored, summarise
from peakzoom.evaluation.unfinished import (
    BLURRED,
    OWN,
    UNKNOWN,
    add_line,
    check_out,
    gather_shards,
    journal_settings,
    part_of,
    read_lines,
)
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import explain_full_disk, sync, whole_folder
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import Journal
from peakzoom.utils.lock import lock_of, only_writer
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.sampling import DecodedViews, Views, decode_ahead

Note = Callable[[int, "DecodedViews | DecodeError", "Prediction | DecodeError"], None]


def score_videos(
    recognizer: Recognizer,
    data: VideoSet,
    views: Views,
    workers: int = 1,
    progress: bool | Progress = True,
    known: Mapping[int, Prediction | DecodeError] | None = None,
    note: Note | None = None,
    chosen: Sequence[int] | None = None,
) -> Scored:
    """Predict labelled videos; the first arguments are as of :func:`evaluate`.

    ``chosen`` are the numbers in ``data`` of the videos that are meant; all when not given. ``known`` has results that
    are there already, by number; of each of the others ``note`` gets number, views and result.
    """
    _expect_labels(recognizer, data)
    entries, views = data.with_classes(recognizer.classes).entries, recognizer.choose_views(views)
    chosen = range(len(entries)) if chosen is None else chosen
    paths = {number: entries[number].path for number in chosen}
    results = _predict(recognizer, paths, views, workers, (progress, "testing on"), known or {}, note)
    scored = Scored([], [], list(data.problems))
    for number in chosen:
        entry, result = entries[number], results[number]
        if isinstance(result, DecodeError):
            scored.problems.append(Problem(str(entry.path), result.reason))
            continue
        scored.predictions.append(result)
        scored.entries.append(entry)
        if result.problem:
            scored.problems.append(Problem(str(entry.path), f"scored, but: {result.problem}"))
    return scored


def _predict(
    recognizer: Recognizer,
    paths: Mapping[int, Path],
    views: Views,
    workers: int,
    shown: tuple[bool | Progress, str],
    known: Mapping[int, Prediction | DecodeError],
    note: Note | None,
) -> dict[int, Prediction | DecodeError]:
    """What is predicted for videos by number, those that are known too; ``shown`` is the bar and how it begins."""
    results = dict(known)
    missing = {number: path for number, path in paths.items() if number not in results}
    decoded = decode_ahead(list(missing.values()), recognizer.preprocess, views, workers)
    with progress_bar(f"{shown[1]} {counted(len(paths), 'video')}", shown[0]) as report:
        for number, video in zip(missing, decoded, strict=True):
            results[number] = result = video if isinstance(video, DecodeError) else recognizer.score(video)
            if note:
                note(number, video, result)
            report(len(results), len(paths))
    return results


def score_unknown(
    recognizer: Recognizer,
    paths: Sequence[Path],
    views: Views,
    workers: int = 1,
    progress: bool | Progress = True,
    journal: Journal | None = None,
) -> tuple[list[Prediction], list[Problem]]:
    """Predict videos that show none of the classes; the predictions, and the files that gave none.

    The arguments are as of :func:`evaluate`; a ``journal`` has the predictions that are there already.
    """
    known = read_lines(journal.lines, recognizer.classes) if journal else {}
    note = partial(_note, journal) if journal else None
    given = dict(enumerate(paths))
    results = _predict(recognizer, given, views, workers, (progress, "unknown:"), known, note)
    found = [results[number] for number in given]
    return (
        [each for each in found if isinstance(each, Prediction)],
        [Problem(str(each.path), each.reason) for each in found if isinstance(each, DecodeError)],
    )


def _note(journal: Journal, number: int, _: object, result: Prediction | DecodeError) -> None:
    add_line(journal, number, result)


def evaluate(
    recognizer: Recognizer,
    data: VideoSet,
    out: str | Path,
    views: Views | None = None,
    workers: int = 1,
    progress: bool | Progress = True,
    resume: bool = False,
    faithfulness: bool = False,
) -> Evaluation | MultiLabelEvaluation:
    """Score videos and write the folder of an evaluation; of several labels a video, another one.

    Args:
        recognizer: the model.
        data: the videos, all of its entries; :func:`~peakzoom.evaluation.choose.choose_videos` leaves those of a split
            that the model was not trained on. Where they have ``places``, :class:`PointingGame` is played on the same
            views. Where they have ``unknown`` videos, the recognizer rejects, and these tell how well.
        out: folder, new or empty.
        views: views of a video; the paper's 30 when not given.
        workers: decoding processes.
        progress: show a bar; a function is called with (done, all) instead.
        resume: go on with what a stopped evaluation or :func:`score_shard` left, if anything.
        faithfulness: afterwards :func:`peakzoom.evaluation.faithfulness.measure_faithfulness` of the same videos.

    Raises:
        UserError: the folder is in use, the evaluation there is another one, no video is scored, or the disk is full.
    """
    views, out = recognizer.choose_views(views), Path(out)
    _check_asked(recognizer, data, faithfulness)
    entries = data.with_classes(recognizer.classes).entries  # refuses before a folder is made
    game = PointingGame(recognizer, entries, data.places) if data.places is not None else None
    part = part_of(out)
    with explain_full_disk(out, "go on with --resume"), _alone(out, part, resume):
        settings = journal_settings(recognizer, data, views)
        known = gather_shards(part, settings, recognizer.classes)
        with Journal(part / OWN, settings, resume) as journal:
            known |= read_lines(journal.lines, recognizer.classes)
            note = _noting(journal, game, entries)
            scored = score_videos(recognizer, data, views, workers, progress, known, note)
        if not scored.predictions:
            shutil.rmtree(part)
        result = _summarised(scored, recognizer)
        if recognizer.rejection:
            with Journal(part / UNKNOWN, settings, resume) as journal:
                unknown = score_unknown(recognizer, data.unknown, views, workers, progress, journal)
            result = _with_rejection(result, scored, *unknown)
        if game:
            play(game, views, workers, progress)  # with those that were scored before
            result = replace(result, pointing=game.result())
        if faithfulness:
            with Journal(part / BLURRED, settings, resume) as journal:
                measured = measure_faithfulness(
                    recognizer, data.entries, views, workers=workers, progress=progress, journal=journal
                )
            result = replace(_of_one_label(result), faithfulness=measured)
        with whole_folder(out, part / "files", replace=resume) as draft:
            _write(draft, result, scored, recognizer, _about(recognizer, data, views))
        shutil.rmtree(part)
    return result


@contextmanager
def _alone(out: Path, part: Path, resume: bool) -> Iterator[None]:
    """The only process that evaluates into a folder; the unfinished one is there, and empty if it is not gone on with.

    Raises:
        UserError: another process does, or as :func:`check_out`.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out, lock_of(part)):
        check_out(out, resume)
        if part.exists() and not resume:
            shutil.rmtree(part)
        part.mkdir(exist_ok=True)
        sync(part.parent)
        yield


def _check_asked(recognizer: Recognizer, data: VideoSet, faithfulness: bool) -> None:
    """Refuse what this recognizer cannot tell."""
    if faithfulness:
        torch_engine(recognizer)
        if recognizer.multi_label:
            raise UserError(
                "faithfulness follows the one predicted class, and this model is for several labels a video"
            )
    _expect_labels(recognizer, data)
    if data.unknown and recognizer.rejection is None:
        raise UserError(
            "unknown videos tell how well a model rejects, and this one does not: load it with reject"
        )


def _summarised(scored: Scored, recognizer: Recognizer) -> Evaluation | MultiLabelEvaluation:
    if recognizer.thresholds is not None:
        return summarise_labels(scored, recognizer.classes, recognizer.thresholds)
    return summarise(scored, recognizer.classes, recognizer.early_exit)


def _write(
    draft: Path,
    result: Evaluation | MultiLabelEvaluation,
    scored: Scored,
    recognizer: Recognizer,
    about: Mapping[str, Any],
) -> None:
    if isinstance(result, Evaluation):
        write_evaluation(draft, result, scored, about, recognizer.early_exit)
    else:
        write_labels_evaluation(draft, result, scored, about, recognizer.thresholds or ())


def _expect_labels(recognizer: Recognizer, data: VideoSet) -> None:
    """UserError where videos have several labels and the model predicts one."""
    if not recognizer.multi_label and any(entry.also for entry in data.entries):
        raise UserError(
            f"{data.name} has videos with several labels, and this model predicts one: train with --multi-label"
        )


def _with_rejection(
    result: Evaluation | MultiLabelEvaluation, scored: Scored, unknown: list[Prediction], lost: list[Problem]
) -> Evaluation:
    found = measure_rejection(scored.predictions, scored.entries, unknown)
    return replace(_of_one_label(result), rejection=found, problems=[*result.problems, *lost])


def _of_one_label(result: Evaluation | MultiLabelEvaluation) -> Evaluation:
    """What only such a model is asked for."""
    assert isinstance(result, Evaluation)
    return result


def _noting(journal: Journal, game: PointingGame | None, entries: Sequence[Entry]) -> Note:
    """What is done with each result: a line in the journal, and a look for the pointing game if there is one."""

    def note(number: int, video: DecodedViews | DecodeError, result: Prediction | DecodeError) -> None:
        add_line(journal, number, result)
        if game:
            game.look(entries[number], video)

    return note


def _about(recognizer: Recognizer, data: VideoSet, views: Views) -> dict[str, Any]:
    """What was tested and how, for ``metrics.json``."""
    return {
        "protocol": asdict(views),
        "data": Path(data.name).name,
        "splits": dict(Counter(entry.split or "not said" for entry in data.entries)),
        "weights": recognizer.weights,  # by which a model card knows them again
        "engine": recognizer.engine.name,
        "precision": recognizer.precision,
    }


def score_shard(
    recognizer: Recognizer,
    data: VideoSet,
    out: str | Path,
    shard: tuple[int, int],
    views: Views | None = None,
    workers: int = 1,
    progress: bool | Progress = True,
) -> tuple[int, int]:
    """Score one of ``count`` shards of the videos for the :func:`evaluate` with ``resume`` that comes after them all.

    ``shard`` is (number from 1 on, count), the rest as of :func:`evaluate`. Shard i of n has the videos i, i + n,
    i + 2 n ... of ``data``: every video is in one, and a shard may be empty. One that was stopped goes on where it was.

    Returns:
        How many videos the shard has, and how many were scored before.

    Raises:
        UserError: there is no such shard, or as :func:`evaluate`.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise UserError(f"shard is {number}/{count}, expected such as 1/4 to 4/4")
    views, out = recognizer.choose_views(views), Path(out)
    check_out(out, resume=True)
    data.with_classes(recognizer.classes)
    with explain_full_disk(out, "run it again"):
        part_of(out).mkdir(parents=True, exist_ok=True)
        sync(out.parent)
        chosen = range(number - 1, len(data.entries), count)
        settings = journal_settings(recognizer, data, views)
        with Journal(part_of(out) / f"shard-{number}-of-{count}.jsonl", settings, resume=True) as journal:
            known = read_lines(journal.lines, recognizer.classes)
            score_videos(
                *(recognizer, data, views, workers, progress, known),
                note=lambda number, _, found: add_line(journal, number, found),
                chosen=chosen,
            )
    return len(chosen), len(known)
