"""Evaluation: every number again from ``scores.csv`` by plain Python, and the same as predicting file by file."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.data.places import read_places
from peakzoom.data.runs import run_videos
from peakzoom.evaluation import evaluate as evaluation
from peakzoom.evaluation import pointing
from peakzoom.evaluation.choose import choose_videos
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_scores
from peakzoom.evaluation.pointing import measure_pointing
from peakzoom.evaluation.results import Scored, measure, summarise
from peakzoom.evaluation.stats import bootstrap_interval
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.guard import Guard
from peakzoom.video.holding import hold
from peakzoom.video.sampling import DecodedViews, Views, decode_ahead, decode_views
from peakzoom.video.views import Preprocess

BRANCHES = ["original", "discriminative", "complementary", "fused"]


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def test_set(clip_data: VideoSet) -> list[Entry]:
    """Eight videos of unequal classes: the test videos and two more."""
    chosen = [entry for entry in clip_data.entries if entry.split == "test"]
    return chosen + [entry for entry in clip_data.entries if entry.split == "train" and entry.label == 2][:2]


@pytest.fixture(scope="module")
def folder(
    recognizer: Recognizer,
    clip_data: VideoSet,
    test_set: list[Entry],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "paper"
    evaluate(recognizer, replace(clip_data, entries=test_set), out)
    return out


def table(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def by_hand(folder: Path) -> dict[str, dict]:
    """All that can be counted from scores.csv, with no help but Python's."""
    header, *lines = table(folder / "scores.csv")
    classes = header[6:]
    found: dict[str, dict] = {}
    for line in lines:
        branch = found.setdefault(line[4], {"right": [0] * len(classes), "all": [0] * len(classes)})
        scores = [float(value) for value in line[6:]]
        order = sorted(range(len(classes)), key=lambda index: -scores[index])
        label = int(line[1])
        assert line[2] == classes[label] and line[5] == classes[order[0]]
        assert sum(scores) == pytest.approx(1, abs=1e-12) and min(scores) >= 0
        branch["all"][label] += 1
        branch["right"][label] += order[0] == label
        branch.setdefault("answers", []).append((label, order[0]))
    for branch in found.values():
        shares = [right / count for right, count in zip(branch["right"], branch["all"], strict=True) if count]
        branch["mean"] = sum(shares) / len(shares)
        branch["classes"] = dict(zip(classes, zip(branch["right"], branch["all"], strict=True), strict=True))
    return found


# The numbers -----------------------------------------------------------------------------------------------------


def test_metrics_again_from_the_scores(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    counted = by_hand(folder)
    assert list(counted) == list(metrics["branches"]) == BRANCHES
    assert metrics["videos"] == 8 and metrics["unscored"] == 0
    assert metrics["protocol"] == {"rule": "paper", "clips": 10, "crops": 3}
    for name, branch in metrics["branches"].items():
        assert branch["top1"] == pytest.approx(sum(counted[name]["right"]) / 8)
        assert "top5" not in branch  # of three classes
        assert branch["mean_class_accuracy"] == pytest.approx(counted[name]["mean"])


def test_per_class_and_confusion_again_from_the_scores(folder: Path) -> None:
    counted = by_hand(folder)
    header, *lines = table(folder / "per_class.csv")
    assert header == ["class", "videos", *BRANCHES] and len(lines) == 3
    for name, videos, *accuracies in lines:
        for branch, accuracy in zip(BRANCHES, accuracies, strict=True):
            right, count = counted[branch]["classes"][name]
            assert int(videos) == count and float(accuracy) == pytest.approx(right / count)
    header, *lines = table(folder / "confusion.csv")
    assert header[1:] == [line[0] for line in lines] == ["kick", "nod", "wave"]
    for row, line in enumerate(lines):
        for column, value in enumerate(line[1:]):
            assert int(value) == counted["fused"]["answers"].count((row, column))
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert table(folder / "problems.csv") == [["path", "reason"]]


def test_views_average_to_the_scores(folder: Path) -> None:
    scores, labels, classes = read_scores(folder / "scores.csv")
    views = np.load(folder / "views.npz", allow_pickle=False)
    assert views["scores"].shape == (8, 4, 30, 3) and views["scores"].dtype == np.float32
    assert views["branches"].tolist() == BRANCHES and classes == ["kick", "nod", "wave"]
    np.testing.assert_array_equal(views["labels"], labels)
    for index, name in enumerate(BRANCHES):
        mean = np.sort(views["scores"][:, index], axis=1).astype(np.float64).mean(1)
        np.testing.assert_array_equal(scores[name], mean / mean.sum(1, keepdims=True))
    assert views["paths"].tolist() == [line[0] for line in table(folder / "scores.csv")[1::4]]


def test_evaluation_is_prediction_to_the_last_digit(folder: Path, run: Path, test_set: list[Entry]) -> None:
    scores, _, _ = read_scores(folder / "scores.csv")
    fresh = load(run, "cpu")
    for index in (7, 0, 3):
        prediction = fresh.predict(test_set[index].path)
        for name in BRANCHES:
            np.testing.assert_array_equal(prediction.scores[name], scores[name][index])


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_order_nor_threads_matter(
    recognizer: Recognizer, clip_data: VideoSet, test_set: list[Entry], tmp_path: Path, workers: int
) -> None:
    views = Views(clips=2, crops=1)
    lines = []
    for name, entries, threads in (("a", test_set[:4], 1), ("b", test_set[3::-1], workers)):
        evaluate(recognizer, replace(clip_data, entries=entries), tmp_path / name, views, threads)
        lines.append(sorted(table(tmp_path / name / "scores.csv")))
    assert lines[0] == lines[1]
    assert (tmp_path / "a" / "metrics.json").read_text() == (tmp_path / "b" / "metrics.json").read_text()


@pytest.mark.parametrize("rule", [rule for rule in CLIP_RULES if rule != "paper"])
def test_other_clip_rules(
    recognizer: Recognizer, clip_data: VideoSet, test_set: list[Entry], tmp_path: Path, rule: str
) -> None:
    views = Views(rule, clips=3, crops=2)
    decoded = decode_views(test_set[0].path, recognizer.preprocess, views)
    np.testing.assert_array_equal(decoded.clips, CLIP_RULES[rule](12, 8, 1, 3))
    assert len(decoded) == 6
    evaluate(recognizer, replace(clip_data, entries=test_set[:1]), tmp_path / "out", views)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]["rule"] == rule
    assert np.load(tmp_path / "out" / "views.npz")["scores"].shape == (1, 4, 6, 3)


def test_a_model_of_one_branch(run: Path, clip_data: VideoSet, test_set: list[Entry], tmp_path: Path) -> None:
    views = Views(clips=1, crops=1)
    result = evaluate(
        load(run / "tcnn", "cpu"), replace(clip_data, entries=test_set), tmp_path / "out", views
    )
    assert list(result.branches) == ["original", "fused"]
    assert result.branches["original"] == result.fused


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_measure_against_counting(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(classes), 50)
    labels = rng.integers(0, max(1, classes - 1), 50)  # the last class has no video
    names = [f"c{index}" for index in range(classes)]
    result = measure(scores, labels, names)
    order = np.argsort(-scores, axis=1)
    assert result.top1 == pytest.approx((order[:, 0] == labels).mean())
    top5 = (order[:, :5] == labels[:, None]).any(1).mean()
    assert result.top5 == (None if classes <= 5 else pytest.approx(top5))
    shares = {
        names[label]: (order[labels == label, 0] == label).mean() for label in sorted(set(labels.tolist()))
    }
    assert result.per_class == pytest.approx(shares)
    assert result.mean_class == pytest.approx(np.mean(list(shares.values())))
    right = order[:, 0] == labels
    assert result.interval == pytest.approx(wilson(int(right.sum()), 50))
    groups = [f"g{index // 4}" for index in range(50)]
    assert measure(scores, labels, names, groups).interval == bootstrap_interval(right, groups)


def wilson(right: int, videos: int, z: float = 1.959964) -> tuple[float, float]:
    """As Wilson (1927) has it."""
    p, n = right / videos, videos
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


@pytest.mark.parametrize("known", [0, 9, 10, 25])
def test_intervals_draw_whole_groups_where_there_are_enough(known: int) -> None:
    entries = [Entry(Path(f"{n}.mp4"), n % 2, "test", f"g{n % known}" if known else None) for n in range(60)]
    rng = np.random.default_rng(known)
    predictions = [
        Prediction(entry.path, ["a", "b"], {"fused": rng.dirichlet([1, 1])}, {}, None) for entry in entries
    ]
    result = summarise(Scored(predictions, entries, []), ["a", "b"])
    right = np.array(
        [each.scores["fused"].argmax() == e.label for each, e in zip(predictions, entries, strict=True)]
    )
    assert result.groups == (known if known >= 10 else 0)
    expected = (
        bootstrap_interval(right, [entry.group for entry in entries])
        if known >= 10
        else wilson(int(right.sum()), 60)
    )
    assert result.fused.interval == pytest.approx(expected)


# Bad files -------------------------------------------------------------------------------------------------------


def test_broken_files_are_counted_and_not_scored(
    recognizer: Recognizer, clip_data: VideoSet, test_set: list[Entry], tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 70)
    entries = [test_set[0], Entry(tmp_path / "broken.mp4", 1), Entry(tmp_path / "gone.mp4", 1), test_set[1]]
    told: list[tuple[int, int]] = []
    listed = [Problem("listed.mp4", "listed, but there is no such file")]
    data = replace(clip_data, entries=entries, problems=listed)
    result = evaluate(
        recognizer,
        data,
        tmp_path / "out",
        Views(clips=1, crops=1),
        progress=lambda done, total: told.append((done, total)),
    )
    assert sum(result.counts.values()) == 2 and told == [(done, 4) for done in range(1, 5)]
    _, *lines = table(tmp_path / "out" / "problems.csv")
    assert [line[0] for line in lines] == [
        "listed.mp4",
        str(tmp_path / "broken.mp4"),
        str(tmp_path / "gone.mp4"),
    ]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["videos"] == 2 and metrics["unscored"] == 3
    with pytest.raises(UserError, match="not one of the test videos"):
        evaluate(recognizer, replace(clip_data, entries=entries[1:3]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_scored_in_part(
    recognizer: Recognizer, clip_data: VideoSet, tmp_path: Path, shared_data: Path
) -> None:
    entries = [Entry(shared_data / "nasty" / "decord" / "corrupted.mp4", 0)]
    result = evaluate(
        recognizer, replace(clip_data, entries=entries), tmp_path / "out", Views(clips=1, crops=1)
    )
    assert result.problems[0].reason.startswith("scored, but: ")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["unscored"] == 0


def test_folders_in_use(
    recognizer: Recognizer, clip_data: VideoSet, test_set: list[Entry], folder: Path
) -> None:
    with pytest.raises(UserError, match="not empty"):
        evaluate(recognizer, replace(clip_data, entries=test_set), folder)
    with pytest.raises(UserError, match="is a file"):
        evaluate(recognizer, replace(clip_data, entries=test_set), folder / "metrics.json")


# Which videos ----------------------------------------------------------------------------------------------------


def test_never_a_video_that_was_trained_on(run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    trained = {entry.path for entry in run_videos(run).entries if entry.split == "train"}
    held = {entry.path for entry in run_videos(run).entries if entry.split == "test"}
    assert trained and len(held) == 6
    bare = replace(clip_data, entries=[replace(entry, split=None) for entry in clip_data.entries])
    for data in (clip_data, bare, run_videos(run)):
        assert {entry.path for entry in choose_videos(data, run).entries} == held
    assert {entry.path for entry in choose_videos(bare, run, "train").entries} == trained
    # Through another name, too; and a file that the run does not know is a test video.
    link = tmp_path / "link.mp4"
    link.symlink_to(sorted(trained)[0])
    copy = Path(shutil.copy(sorted(trained)[0], tmp_path / "copy.mp4"))
    data = VideoSet(bare.classes, [Entry(link, 0), Entry(copy, 0)], [], "links")
    new = Path(shutil.copy(copy, tmp_path / "new.mp4"))
    new.write_bytes(new.read_bytes() + bytes(9))
    data.entries.append(Entry(new, 0))
    assert [entry.path for entry in choose_videos(data, run).entries] == [new]
    assert len(choose_videos(data, None).entries) == 3


def test_another_split_than_the_run_was_trained_with(run: Path, clip_data: VideoSet) -> None:
    swapped = [
        replace(entry, split="train" if entry.split == "test" else "test") for entry in clip_data.entries
    ]
    with pytest.raises(UserError, match="was trained on"):
        choose_videos(replace(clip_data, entries=swapped), run)
    choose_videos(replace(clip_data, entries=swapped), run, "train")
    with pytest.raises(UserError, match="no val videos"):
        choose_videos(clip_data, run, "val")


def test_labels_are_compared_by_name(
    recognizer: Recognizer, clip_data: VideoSet, test_set: list[Entry], tmp_path: Path
) -> None:
    place = {"wave": 0, "kick": 1, "nod": 2}
    other = replace(
        clip_data,
        classes=list(place),
        entries=[replace(entry, label=place[clip_data.classes[entry.label]]) for entry in test_set],
    )
    views = Views(clips=1, crops=1)
    one = evaluate(recognizer, replace(clip_data, entries=test_set), tmp_path / "one", views)
    two = evaluate(recognizer, other, tmp_path / "two", views)
    np.testing.assert_array_equal(one.confusion, two.confusion)
    stranger = VideoSet(["yawn", "kick"], [Entry(test_set[0].path, 0)], [], "strangers")
    with pytest.raises(UserError, match="yawn"):
        evaluate(recognizer, stranger, tmp_path / "three", views)


# Decoding ahead --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers,ahead", [(0, 2), (1, 0), (2, 3)])
def test_decoding_ahead_keeps_the_order(
    test_set: list[Entry], tmp_path: Path, workers: int, ahead: int
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"x" * 50)
    paths = [test_set[0].path, tmp_path / "bad.mp4", *(entry.path for entry in test_set[1:4])]
    pre = Preprocess(size=32, frames=4, canvas=(32, 32))
    found = list(decode_ahead(paths, pre, Views(clips=1), workers, ahead))
    assert isinstance(found[1], DecodeError)
    for path, views in zip(paths, found, strict=True):
        if not isinstance(views, DecodeError):
            assert isinstance(views, DecodedViews) and views.video.info.path == path


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize(("factor", "waiting"), [(1, 3), (4, 3), (10, 1), (16, 0)])
def test_few_large_videos_wait(
    test_set: list[Entry], monkeypatch: pytest.MonkeyPatch, square: bool, factor: int, waiting: int
) -> None:
    """Ten clips of 16 frames: 160 frames of 108 x 108 pixels and more; without a canvas the shape is a guess."""
    asked: list[int] = []

    def in_order(work: object, files: object, workers: int, ahead: int) -> list[DecodeError]:
        asked.append(ahead)
        return []

    monkeypatch.setattr("peakzoom.video.sampling.in_order", in_order)
    size = 96 if square else 80
    pre = Preprocess(size=size, frames=16, canvas=(108, 108), test_canvas=square, zoom_source=factor)
    assert list(decode_ahead([test_set[0].path], pre, Views(), workers=1, ahead=3)) == []
    assert asked == [waiting]


def test_nothing_to_summarise() -> None:
    with pytest.raises(UserError, match="data check"):
        summarise(Scored([], [], []), ["a"])


def test_each_video_is_decoded_once(
    recognizer: Recognizer,
    clip_data: VideoSet,
    test_set: list[Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[tuple[Path, object]] = []
    run: Callable = Guard.run
    monkeypatch.setattr(
        Guard,
        "run",
        lambda self, path, work, *rest: (looked.append((path, work)), run(self, path, work, *rest))[1],
    )
    evaluate(recognizer, replace(clip_data, entries=test_set[:3]), tmp_path / "out")
    assert looked == [(entry.path, hold) for entry in test_set[:3]]


def test_pointing_is_measured_on_the_same_decode_and_again_where_it_was_stopped(
    recognizer: Recognizer,
    clips: Path,
    clip_data: VideoSet,
    test_set: list[Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, places = Views(clips=1, crops=1), read_places(clips / "places.csv")
    data = replace(clip_data, entries=test_set, places=places)
    expected = measure_pointing(recognizer, test_set, places, few, workers=0, progress=False)
    opened: list[Path] = []
    true = evaluation.decode_ahead

    def counted(files: list[Path | Entry], *others: Any, **more: Any) -> Any:
        opened.extend(each.path if isinstance(each, Entry) else each for each in files)
        return true(files, *others, **more)

    for module in (evaluation, pointing):
        monkeypatch.setattr(module, "decode_ahead", counted)
    whole = evaluate(recognizer, data, tmp_path / "whole", few, 0, progress=False)
    assert whole.pointing == expected and opened == [each.path for each in test_set]

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(recognizer, data, tmp_path / "again", few, 0, progress=stop)
    assert not (tmp_path / "again").exists()
    opened.clear()
    resumed = evaluate(recognizer, data, tmp_path / "again", few, 0, progress=False, resume=True)
    assert resumed.pointing == expected
    assert sorted(opened) == sorted(each.path for each in test_set)  # also those that had their scores, once
    for name in ("pointing.csv", "pointing.json", "scores.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(UserError, match="shows a known place"):
        evaluate(recognizer, replace(data, places={tmp_path / "x.mp4": {}}), tmp_path / "none", few, 0)
    assert not (tmp_path / "none.part").exists()


def test_a_run_knows_its_training_videos_from_any_folder(
    run: Path, clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = run_videos(run)
    assert all(entry.path.is_absolute() and entry.path.exists() for entry in known.entries)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    relative = [
        replace(entry, path=Path(os.path.relpath(entry.path, Path.cwd())), split=None)
        for entry in clip_data.entries
    ]
    bare = replace(clip_data, entries=relative)
    tested = {entry.path.resolve() for entry in choose_videos(bare, run).entries}
    assert tested == {entry.path.resolve() for entry in clip_data.entries if entry.split == "test"}
