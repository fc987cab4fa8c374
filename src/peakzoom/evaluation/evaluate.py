"""Test a trained model on labelled videos (docs/method.md, section 6): each video decoded once for all its views.

What an evaluation leaves in its folder::

    scores.csv            one row per video and branch: label, prediction and every class score, in full precision;
                          every number below can be computed again from it
    views.npz             the softmax scores of each single view, float32 (videos, branches, views, S)
    metrics.json          top-1, top-5 and mean class accuracy of each branch, counts, the views; of which data and
                          which weights
    per_class.csv         videos and accuracy of each class, for each branch
    confusion.csv .png    rows are true classes, columns the fused answer
    problems.csv          videos without a score, and why
    faithfulness.csv .json  where it was asked for, see :mod:`peakzoom.evaluation.faithfulness`

The folder appears when it is complete. Until then the scores of each video are kept in ``FOLDER.part``, a line a video,
so that a stopped evaluation goes on where it was. Several processes may share the work: each scores one shard of the
videos into that folder, and the evaluation that comes after them takes what they left, does what is missing, and
writes the same files as one alone.

With the early exit there are fused scores alone, and in place of views.npz::

    effort.csv            views of each video, those of them in stage 2 ("closer"), and their multiply-adds
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.evaluation.files import _write
from peakzoom.evaluation.results import Evaluation, mean_effort, summarise
from peakzoom.inference.prediction import Effort, Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.durable import (
    DRAFT,
    check_new_folder,
    read_csv,
    sync_folder,
    telling_full_disk,
    whole_folder,
)
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import Journal, check_settings, hash_of, is_written, whole_lines
from peakzoom.utils.progress import Told, progress_bar
from peakzoom.video.sampling import Views


def choose_entries(data: VideoSet, run: Path | None, split: str = "test") -> list[Entry]:
    """The videos to test on: never one that the model was trained on, unless asked for by name.

    Where the data have splits, those of ``split``. Where they have none, the videos that the run set aside under that
    name, and for "test" also those that the run does not know.

    Raises:
        UserError: there are none, or the data's split is another than the run's and holds videos it was trained on.
    """
    rows = read_csv(run / "videos.csv") if run is not None else []
    known = {str(Path(row["path"]).resolve()): row["split"] for row in rows}
    if any(entry.split for entry in data.entries):
        chosen = [entry for entry in data.entries if entry.split == split]
        seen = sum(known.get(str(entry.path.resolve())) == "train" for entry in chosen)
        if seen and split != "train":
            raise UserError(
                f"{seen} of the {len(chosen)} {split} videos of {data.name} are videos that {run} was trained on: "
                "name the split that it was trained with, or no data to take its own test videos"
            )
    else:
        chosen = [
            replace(entry, split=split)
            for entry in data.entries
            if known.get(str(entry.path.resolve()), "test") == split
        ]
    if not chosen:
        raise UserError(
            f"{data.name} has no {split} videos that this run was not trained on: name another --split (val, train), "
            "mark some videos as test in the data, or train with --test-groups"
        )
    return chosen


@dataclass(frozen=True)
class Scored:
    """Predictions of labelled videos, and the files that gave none or were scored in part."""

    predictions: list[Prediction]
    entries: list[Entry]  # theirs, with labels in the model's order of classes
    problems: list[Problem]


def score_videos(
    recognizer: Recognizer,
    data: VideoSet,
    entries: Sequence[Entry],
    views: Views,
    workers: int = 1,
    progress: bool | Told = True,
    known: Mapping[int, Prediction | DecodeError] | None = None,
    note: Callable[[int, Prediction | DecodeError], None] | None = None,
) -> Scored:
    """Predict labelled videos; arguments as of :func:`evaluate`.

    ``known`` are answers that are there already, by the place of the video; ``note`` is called with every new one.
    """
    entries = replace(data, entries=list(entries)).with_classes(recognizer.classes).entries
    answers = dict(known or {})
    missing = [place for place in range(len(entries)) if place not in answers]
    predicted = recognizer.predict_files([entries[place].path for place in missing], views, workers)
    with progress_bar(f"testing on {len(entries)} videos", progress) as told:
        for place, found in zip(missing, predicted, strict=True):
            answers[place] = found
            if note:
                note(place, found)
            told(len(answers), len(entries))
    scored = Scored([], [], list(data.problems))
    for place, entry in enumerate(entries):
        answer = answers[place]
        if isinstance(answer, DecodeError):
            scored.problems.append(Problem(str(entry.path), answer.reason))
            continue
        scored.predictions.append(answer)
        scored.entries.append(entry)
        if answer.problem:
            scored.problems.append(Problem(str(entry.path), f"scored in part: {answer.problem}"))
    return scored


def evaluate(
    recognizer: Recognizer,
    data: VideoSet,
    entries: Sequence[Entry],
    out: str | Path,
    views: Views | None = None,
    workers: int = 1,
    progress: bool | Told = True,
    resume: bool = False,
    faithfulness: bool = False,
) -> Evaluation:
    """Score videos and write the folder described above.

    Args:
        recognizer: the model.
        data: whose classes the entries' labels are.
        entries: the videos.
        out: folder, new or empty.
        views: views of a video; the paper's 30 when not given.
        workers: decoding processes.
        progress: show a bar; a function is called with (done, all) instead.
        resume: go on with what a stopped evaluation or :func:`score_shard` left, if anything.
        faithfulness: afterwards :func:`peakzoom.evaluation.faithfulness.measure_faithfulness` of the same videos.

    Raises:
        UserError: the folder is in use, the evaluation that is gone on with was another one, no video could be scored,
            or the disk is full.
    """
    views, out = recognizer.choose_views(views), Path(out)
    check_out(out, resume)
    if faithfulness:
        from peakzoom.evaluation import faithfulness as blurring

        blurring.torch_engine(recognizer)
    replace(data, entries=list(entries)).with_classes(recognizer.classes)  # refuses before a folder is made
    with telling_full_disk(out, "go on with --resume"):
        part = part_of(out)
        if part.exists() and not resume:  # without one score in it
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        sync_folder(part.parent)
        asked = _asked(recognizer, data, entries, views)
        known = _gather(part, asked, recognizer.classes)
        with Journal(part / OWN, asked, resume) as journal:
            known |= _read_lines(journal.lines, recognizer.classes)
            scored = score_videos(
                recognizer, data, entries, views, workers, progress, known, _noting(journal)
            )
        if not scored.predictions:
            shutil.rmtree(part)
        result = summarise(scored.predictions, scored.entries, recognizer.classes, scored.problems)
        if recognizer.early_exit:
            result = replace(result, effort=mean_effort(scored.predictions, recognizer.early_exit))
        if faithfulness:
            with Journal(part / BLURRED, asked, resume) as journal:
                found = blurring.measure_faithfulness(
                    recognizer, entries, views, workers=workers, progress=progress, journal=journal
                )
            result = replace(result, faithfulness=found)
        of = {
            "data": Path(data.name).name,
            "splits": dict(Counter(entry.split or "not said" for entry in entries)),
            "weights": recognizer.weights,  # by which a model card knows them again
            "engine": recognizer.engine.name,
            "precision": recognizer.precision,
        }
        with whole_folder(out, part / "files") as draft:
            _write(
                draft,
                result,
                scored.predictions,
                scored.entries,
                recognizer.classes,
                views,
                recognizer.early_exit,
                of,
            )
            if result.faithfulness:
                result.faithfulness.write(draft)
        shutil.rmtree(part)
    return result


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that an evaluation cannot be written to.

    Raises:
        UserError: it is in use, or holds a stopped evaluation and is not to be gone on with.
    """
    part = part_of(out)
    # Both are there if the process was killed in between: the folder is made again, the same, and the other goes.
    if not (resume and part.exists() and (out / "metrics.json").is_file()):
        check_new_folder(out)
    journals = list(part.glob("*.jsonl"))
    if running := [file for file in journals if file.name == OWN and is_written(file)]:
        raise UserError(
            f"{running[0]} is being written by another process: wait for it, or name another --out"
        )
    if any(file.stat().st_size for file in journals) and not resume:
        raise UserError(f"{part} holds an evaluation that is not complete: go on with --resume, or remove it")


def part_of(out: Path) -> Path:
    """Where the scores are while an evaluation is not complete."""
    return out.with_name(out.name + DRAFT)


def score_shard(
    recognizer: Recognizer,
    data: VideoSet,
    entries: Sequence[Entry],
    out: str | Path,
    shard: tuple[int, int],
    views: Views | None = None,
    workers: int = 1,
    progress: bool | Told = True,
) -> tuple[int, int]:
    """Score one of ``count`` shards of the videos for the :func:`evaluate` with ``resume`` that comes after them all.

    Shard i has the videos i, i + count, i + 2 count ...: every video is in one, and a shard may be empty. A shard that
    was stopped goes on where it was.

    Args:
        recognizer: as of :func:`evaluate`, like all that is not said here.
        data: likewise.
        entries: all videos, of every shard.
        out: the folder that will be written at last.
        shard: (number from 1 on, count).
        views: as of :func:`evaluate`.
        workers: likewise.
        progress: likewise.

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
    replace(data, entries=list(entries)).with_classes(recognizer.classes)
    with telling_full_disk(out, "run it again"):
        part_of(out).mkdir(parents=True, exist_ok=True)
        sync_folder(out.parent)
        places = list(range(number - 1, len(entries), count))
        asked = _asked(recognizer, data, entries, views)
        with Journal(part_of(out) / f"shard-{number}-of-{count}.jsonl", asked, resume=True) as journal:
            known = {
                places.index(place): answer
                for place, answer in _read_lines(journal.lines, recognizer.classes).items()
            }
            note = _noting(journal)
            score_videos(
                recognizer,
                data,
                [entries[place] for place in places],
                views,
                workers,
                progress,
                known,
                lambda index, answer: note(places[index], answer),
            )
    return len(places), len(known)


OWN = "rest.jsonl"  # of the evaluation itself; shards have files of their own
BLURRED = "faithfulness.jsonl"


def _asked(
    recognizer: Recognizer,
    data: VideoSet,
    entries: Sequence[Entry],
    views: Views,
) -> dict[str, Any]:
    """What decides the lines of a journal."""
    videos = [[str(entry.path), data.classes[entry.label]] for entry in entries]
    return {
        "videos": f"{len(videos)} videos, {hash_of(videos)}",
        **recognizer.settings(views),
    }


def _gather(part: Path, asked: dict[str, Any], classes: list[str]) -> dict[int, Prediction | DecodeError]:
    """What shards have left, each video once.

    Raises:
        UserError: a shard is not done yet, or is of another evaluation.
    """
    found: dict[int, Prediction | DecodeError] = {}
    for file in sorted(part.glob("shard-*.jsonl")):
        if is_written(file):
            raise UserError(f"{file} is still being written: wait until its shard is done")
        check_settings(file, asked)
        found |= _read_lines(whole_lines(file.read_bytes())[0], classes)
    return found


def _noting(journal: Journal) -> Callable[[int, Prediction | DecodeError], None]:
    def note(place: int, answer: Prediction | DecodeError) -> None:
        line: dict[str, Any] = {"video": place, "path": str(answer.path)}
        if isinstance(answer, DecodeError):
            line["error"] = answer.reason
        else:
            line["problem"] = answer.problem
            line["effort"] = answer.effort
            line["scores"] = {name: values.tolist() for name, values in answer.scores.items()}
            line["views"] = {name: values.tolist() for name, values in answer.views.items()}
        journal.add(line)

    return note


def _read_lines(lines: Sequence[dict[str, Any]], classes: list[str]) -> dict[int, Prediction | DecodeError]:
    """The same numbers to the last bit: JSON has every digit of a float64, and of a float32 as one."""
    found: dict[int, Prediction | DecodeError] = {}
    for line in lines:
        path = Path(line["path"])
        if "error" in line:
            found[line["video"]] = DecodeError(path, line["error"])
            continue
        found[line["video"]] = Prediction(
            path,
            classes,
            {name: np.array(values, np.float64) for name, values in line["scores"].items()},
            {name: np.array(values, np.float32) for name, values in line["views"].items()},
            line["problem"],
            Effort(*line["effort"]) if line["effort"] else None,
        )
    return found
