"""Studies: what is trained, that it is trained once, and that the table says what the predictions say."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.files import read_scores
from peakzoom.model import PeakZoom
from peakzoom.model.config import BRANCHES
from peakzoom.studies.arms import ABLATION_BRANCHES, Arm, group_folds, one_group_each
from peakzoom.studies.predictions import ArmPrediction, complete, read_predictions, results
from peakzoom.studies.report import costs, table, write_report
from peakzoom.studies.study import Study, Task
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.start import resolved
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

# Eight trainings, once.
pytestmark = [pytest.mark.xdist_group("study"), pytest.mark.usefixtures("no_curves")]

ARMS = [Arm("tcnn_xs", BRANCHES[:1], 0.25), Arm("tcnn_xs", BRANCHES, 0.25)]
OPTIONS = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False)
QUICK = Views(clips=1, crops=1)


@pytest.fixture(scope="module")
def folds(clip_data: VideoSet) -> list[list[str]]:
    """Two folds of two performers each."""
    groups = sorted({entry.group for entry in clip_data.entries if entry.group})
    return [groups[:2], groups[2:4]]


@pytest.fixture(scope="module")
def short(tiny: Recipe) -> Recipe:
    """Of four frames, for there are a dozen trainings."""
    return replace(tiny, preprocess=replace(tiny.preprocess, frames=4))


@pytest.fixture(scope="module")
def study(
    clip_data: VideoSet, short: Recipe, folds: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """A T-CNN and a baseline, with and without spatial attention, on two folds."""
    arms = [*ARMS, Arm("r3d_18", BRANCHES, 0.125)]
    made = Study(tmp_path_factory.mktemp("studies") / "one", clip_data, arms, short, OPTIONS, QUICK)
    made.run(group_folds(clip_data, folds), [0])
    return made


def test_every_test_video_is_predicted_once_by_every_arm(
    study: Study, clip_data: VideoSet, folds: list[list[str]]
) -> None:
    for arm in {prediction.arm for prediction in study.predictions}:
        mine = [prediction for prediction in study.predictions if prediction.arm == arm]
        for names in folds:
            expected = sorted(str(entry.path) for entry in clip_data.entries if entry.group in names)
            found = [prediction.video for prediction in mine if prediction.fold == "+".join(names)]
            assert sorted(str(study.root / video) for video in found) == expected
    labels = {str(entry.path): clip_data.classes[entry.label] for entry in clip_data.entries}
    assert all(
        labels[str(study.root / prediction.video)] == prediction.label for prediction in study.predictions
    )


def test_predictions_are_those_of_the_runs_score_files(study: Study, folds: list[list[str]]) -> None:
    home = study.out / "runs" / "+".join(folds[0]) / "seed-0"
    scores, labels, classes = read_scores(home / "tcnn_xsx0.25-ODC" / "evaluation" / "scores.csv")
    for branch, values in scores.items():
        given = [
            getattr(prediction, branch)
            for prediction in study.predictions
            if prediction.arm == ("tcnn_xs", 0.25, "ODC") and prediction.fold == "+".join(folds[0])
        ]
        assert given == [classes[index] for index in values.argmax(1)]
    mine = [
        prediction
        for prediction in study.predictions
        if (prediction.arm, prediction.fold) == (("tcnn_xs", 0.25, "ODC"), "+".join(folds[0]))
    ]
    assert [prediction.score for prediction in mine] == scores["fused"][range(len(mine)), labels].tolist()


def test_no_video_of_a_fold_was_trained_on(study: Study) -> None:
    for file in study.out.glob("runs/*/*/*/videos.csv"):
        held_out = set(file.parts[-4].split("+"))
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                assert (row["group"] in held_out) == (row["split"] == "test")


def test_all_rows_of_a_network_start_from_the_same_weights(study: Study, folds: list[list[str]]) -> None:
    home = study.out / "runs" / "+".join(folds[0]) / "seed-0"
    assert sorted(each.name for each in home.iterdir() if each.is_dir()) == [
        "r3d_18x0.125",
        "r3d_18x0.125-ODC",
        "tcnn_xsx0.25",
        "tcnn_xsx0.25-O",
        "tcnn_xsx0.25-ODC",
    ]
    for run in home.glob("tcnn_xsx0.25-*"):
        assert f'"init": "{home / "tcnn_xsx0.25"}"' in (run / "config.json").read_text(encoding="utf-8")
    assert not list(study.out.rglob("*.ckpt"))


def test_what_is_done_is_not_done_again(
    study: Study,
    clip_data: VideoSet,
    short: Recipe,
    folds: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("peakzoom.studies.study.train", refuse)
    again = Study(study.out, clip_data, ARMS, short, OPTIONS, QUICK)
    caplog.set_level(logging.INFO, "peakzoom")
    again.run(group_folds(clip_data, folds), [0])
    assert (
        caplog.messages[-1] == "4 of 4 trainings were done before" and again.predictions == study.predictions
    )


def test_a_killed_study_goes_on(
    clip_data: VideoSet,
    short: Recipe,
    folds: list[list[str]],
    tmp_path: Path,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = group_folds(clip_data, folds)[:1]
    first = Study(tmp_path / "two", clip_data, ARMS, short, OPTIONS, QUICK)

    def stop(line: str) -> None:
        if "1 of 2 trainings" in line:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("peakzoom.studies.study.log.info", stop)
        with pytest.raises(KeyboardInterrupt):
            first.run(half, [0])
    (tmp_path / "two" / "runs" / half[0].name / "seed-0" / "tcnn_xsx0.25-ODC").mkdir()  # killed right there
    second = Study(tmp_path / "two", clip_data, ARMS, short, OPTIONS, QUICK)
    assert len({prediction.arm for prediction in second.predictions}) == 1
    second.run(half, [0])
    whole = [
        prediction
        for prediction in study.predictions
        if prediction.fold == half[0].name and prediction.model == "tcnn_xs"
    ]
    assert second.predictions == whole  # as if it had never been stopped


@pytest.mark.slow
def test_two_processes_share_a_study(
    clip_data: VideoSet,
    short: Recipe,
    folds: list[list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While one is at a network of a fold, the other takes the next one; neither loses what the other has found."""
    both = group_folds(clip_data, folds)
    mine, other = (Study(tmp_path / "shared", clip_data, ARMS[:1], short, OPTIONS, QUICK) for _ in range(2))
    caplog.set_level(logging.INFO, "peakzoom")
    home = tmp_path / "shared" / "runs" / both[0].name / "seed-0"
    with FileLock(home / "tcnn_xsx0.25.lock"):
        held = Thread(target=lambda: mine.run(both, [0]))
        held.start()
        # The second fold comes first, for the first one is taken.
        while not any("1 of 2" in line for line in caplog.messages):
            assert held.is_alive()
            sleep(0.05)
        assert {prediction.fold for prediction in mine.predictions} == {both[1].name}
        other._train_and_test(Task(ARMS[0], both[0], 0), home)
    held.join()
    assert {prediction.fold for prediction in mine.predictions} == {fold.name for fold in both}
    assert len(mine.predictions) == sum(entry.group in folds[0] + folds[1] for entry in clip_data.entries)


def test_another_question_is_refused(
    study: Study, clip_data: VideoSet, short: Recipe, tmp_path: Path
) -> None:
    def begin(out: Path, data: VideoSet = clip_data, recipe: Recipe = short, **other: Any) -> None:
        Study(out, data, **{"arms": ARMS, "recipe": recipe, "options": OPTIONS, "views": QUICK, **other})

    with pytest.raises(UserError, match="begun with another recipe"):
        begin(study.out, recipe=replace(short, dropout=0.1))
    with pytest.raises(UserError, match="begun with another videos"):
        begin(study.out, replace(clip_data, entries=clip_data.entries[1:]))
    with pytest.raises(UserError, match="begun with another views"):
        begin(study.out, views=Views(clips=2))
    with pytest.raises(UserError, match="begun with another --equal: go on with the same"):
        begin(study.out, arms=[replace(arm, equal="passes") for arm in ARMS])
    arms = [replace(arm, equal="passes") for arm in ARMS]
    begin(tmp_path / "passes", arms=arms)
    with pytest.raises(UserError, match="begun with another --equal"):  # other branches are other epochs
        begin(tmp_path / "passes", arms=arms, recipe=replace(short, branches=BRANCHES[:2]))
    shutil.rmtree(tmp_path / "passes")
    trained = next(study.out.glob("runs/*/*/tcnn_xsx0.25"))
    with pytest.raises(
        UserError, match="begun with another pre-trained: go on with --init none, from scratch"
    ):
        begin(study.out, init={"tcnn_xs": str(trained)})
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="holds no study"):
        begin(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        begin(tmp_path / "mine.txt")
    with pytest.raises(UserError, match="patience needs validation videos"):
        begin(tmp_path / "new", options=replace(OPTIONS, patience=1))
    assert not (tmp_path / "new").exists()


def test_all_networks_start_from_the_packages_weights_or_none_does(
    clip_data: VideoSet,
    short: Recipe,
    folds: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    has, same, has_none = Arm("tcnn_xs_local", BRANCHES[:1], 0.5), Arm("tcnn_xs", BRANCHES, 0.5), ARMS[0]
    package = "networks that have weights in peakzoom, and without --init"
    caplog.set_level(logging.INFO, "peakzoom")

    def begin(out: str, *arms: Arm, **init: Any) -> Study:
        caplog.clear()
        return Study(tmp_path / out, clip_data, arms, short, OPTIONS, QUICK, **init)

    def recorded(study: Study) -> object:
        return json.loads((study.out / "study.json").read_text())["pre-trained"]

    inits: list[str | None] = []

    def noted(data: VideoSet, recipe: Recipe, out: Path, options: Options, resume: bool) -> Path:
        inits.append(resolved(options, recipe).init)
        raise KeyboardInterrupt

    monkeypatch.setattr("peakzoom.studies.study.train", noted)

    def first_init(study: Study) -> str | None:
        with pytest.raises(KeyboardInterrupt):
            study.run(group_folds(clip_data, folds), [0])
        return inits.pop()

    both = begin("both", has, same)
    assert len(caplog.messages) == 1 and "all networks start from the weights that come with" in caplog.text
    assert recorded(both) == "weights of peakzoom" and first_init(both) == "tcnn_xs_local-0.5"
    mixed = begin("mixed", has, has_none)
    assert caplog.messages == [
        "all networks start from scratch: no weights that come with peakzoom fit tcnn_xs at width 0.25"
    ]
    assert recorded(mixed) is False and first_init(mixed) == "none"
    scratch = begin("scratch", has, same, init={})
    assert caplog.messages == [] and recorded(scratch) is False and first_init(scratch) == "none"

    begin("both", has, same)
    begin("mixed", has, has_none, init={})
    for out, arms, init, way_out in (
        ("both", (has, has_none), {}, package),  # a network more, which has none
        ("both", (has, same), {"init": {}}, package),
        ("scratch", (has, same), {}, "--init none, from scratch as it was begun"),
    ):
        with pytest.raises(
            UserError, match=f"with another pre-trained: go on with {way_out}, or use another"
        ):
            begin(out, *arms, **init)


def test_folds(clip_data: VideoSet, folds: list[list[str]]) -> None:
    every = one_group_each(clip_data)
    tested = [str(entry.path) for fold in every for entry in fold.data.entries if entry.split == "test"]
    assert sorted(tested) == sorted(str(entry.path) for entry in clip_data.entries)
    with pytest.raises(UserError, match="in two folds"):
        group_folds(clip_data, [folds[0], folds[0][:1]])
    with pytest.raises(UserError, match="unknown group"):
        group_folds(clip_data, [["nobody"]])
    bare = replace(clip_data, entries=[replace(entry, group=None) for entry in clip_data.entries])
    with pytest.raises(UserError, match="without one"):
        one_group_each(bare)


def synthetic(
    cells: dict[str, list[tuple[str, int]]], right: dict[str, float], videos: int = 10
) -> list[ArmPrediction]:
    """Answers of arms "a-O" ...; in each cell the first share ``right`` of the fold's videos is right."""
    return [
        ArmPrediction(
            model="a",
            width=1.0,
            branches=letters,
            fold=fold,
            seed=seed,
            video=f"{fold}/{number}",
            group=fold,
            label="x",
            original="x",
            discriminative="",
            complementary="",
            fused="x" if number < right[letters] * videos else "y",
            score=right[letters],
        )
        for letters, places in cells.items()
        for fold, seed in places
        for number in range(videos)
    ]


def test_a_table_by_hand() -> None:
    cells = [("f", 0), ("g", 0), ("f", 1), ("g", 1)]
    predictions = synthetic({"O": cells, "ODC": cells}, {"O": 0.5, "ODC": 0.8})
    alone, joint = table(predictions, [Arm("a", BRANCHES[:1], label="alone"), Arm("a", BRANCHES)])
    assert (alone.accuracy, alone.spread, alone.runs, alone.test) == (0.5, 0, 4, None)
    assert joint.accuracy == pytest.approx(0.8) and joint.baseline == "alone"
    assert joint.branch_accuracies["original"] == 1 and joint.branch_accuracies["discriminative"] == 0
    assert joint.test is not None and joint.test.difference == pytest.approx(30)
    assert joint.test.p == pytest.approx(2 / 2**6)  # six videos differ, all one way
    assert (alone.nll, joint.nll) == pytest.approx((-np.log(0.5), -np.log(0.8)))
    found = results(predictions)
    nats = found["a", 1.0, "ODC"].compare_likelihoods(found["a", 1.0, "O"])
    assert nats.difference == pytest.approx(np.log(0.8 / 0.5)) and (nats.better, nats.worse) == (20, 0)
    # All twenty one way: no pattern that was drawn is as far from 0.
    assert nats.p == pytest.approx(1 / 100_001)


def test_folds_and_seeds_are_pooled_in_any_order() -> None:
    predictions = synthetic({"O": [("f", 0), ("g", 0)]}, {"O": 0.5})
    predictions += synthetic({"O": [("g", 5), ("f", 5)]}, {"O": 0.2})
    for order in (predictions, predictions[::-1]):
        (result,) = results(order).values()
        assert result.right["fused"].tolist() == [
            [*[1] * 5, *[0] * 5] * 2,
            [*[1] * 2, *[0] * 8] * 2,
        ]
        assert result.runs == 4 and result.groups == ["f"] * 10 + ["g"] * 10
    (row,) = table(predictions, [Arm("a", BRANCHES[:1])])
    # Of two numbers x and y, the sample standard deviation is |x - y| / sqrt 2.
    assert (row.accuracy, row.spread) == pytest.approx((0.35, 0.3 / np.sqrt(2)))
    with pytest.raises(UserError, match=r"no prediction of a O with seed 5 for f/9 in fold f"):
        results([each for each in predictions if (each.seed, each.video) != (5, "f/9")])


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ([("f", 0)], [("g", 0)], []),
        ([("f", 0), ("g", 0)], [("g", 0)], [("g", 0)]),
        (
            [("f", 0), ("g", 0), ("h", 0), ("f", 1)],
            [("f", 0), ("g", 0), ("h", 0), ("f", 1)],
            [("f", 0), ("g", 0), ("h", 0)],
        ),
        (
            [("f", 0), ("g", 0), ("h", 0), ("f", 1), ("g", 1)],
            [("f", 0), ("g", 0), ("h", 0), ("f", 1), ("g", 1)],
            [("f", 0), ("f", 1), ("g", 0), ("g", 1)],
        ),
    ],
)
def test_a_table_is_over_what_all_rows_have(
    first: list[tuple[str, int]], second: list[tuple[str, int]], kept: list[tuple[str, int]]
) -> None:
    predictions = synthetic({"O": first, "ODC": second}, {"O": 0.5, "ODC": 0.8})
    found = complete(predictions, [("a", 1.0, "O"), ("a", 1.0, "ODC")])
    assert sorted({prediction.cell for prediction in found}) == kept
    assert len(found) == 2 * 10 * len(kept)


def test_a_video_that_two_folds_test_counts_in_both() -> None:
    """As some of HMDB51's official splits do."""
    predictions = synthetic({"O": [("f", 0), ("g", 0)]}, {"O": 0.5})
    shared = [replace(prediction, video=prediction.video.replace("g/9", "f/0")) for prediction in predictions]
    (row,) = table(shared, [Arm("a", BRANCHES[:1])])
    (result,) = results(shared).values()
    assert row.accuracy == 0.5 and result.right["fused"].shape == (1, 20)


def test_rows_are_compared_by_whole_groups_too() -> None:
    cells = [(fold, 0) for fold in "fgh"]
    predictions = synthetic(
        {"O": cells, "ODC": cells}, {"O": 0.5, "ODC": 0.8}
    )  # a fold's videos are one group here
    alone, joint = results(predictions).values()
    test = joint.compare(alone, by_groups=True)
    assert (test.units, test.count) == ("groups", 3)
    assert test.difference == pytest.approx(30) and test.p == pytest.approx(2 / 2**3)


def test_nothing_is_complete(study: Study, clip_data: VideoSet, short: Recipe) -> None:
    arms = [Arm("tcnn_xs", branches, 0.25) for branches in ABLATION_BRANCHES]
    with pytest.raises(UserError, match="no fold has every row"):
        write_report(Study(study.out, clip_data, arms, short, OPTIONS, QUICK))


def test_costs_of_a_baseline_with_and_without_attention(tiny: Recipe) -> None:
    arms = [Arm("r3d_18", BRANCHES[:1], 0.125), Arm("r3d_18", BRANCHES, 0.125)]
    alone, joint = costs(arms, tiny, ["a", "b", "c"], rounds=1).values()
    assert 2.95 * alone.macs < joint.macs < 3.5 * alone.macs
    assert joint.parameters > alone.parameters and joint.timing.median > 0


def test_predictions_are_read_back_as_written(study: Study) -> None:
    assert read_predictions(study.out / "answers.csv") == study.predictions
    assert read_predictions(study.out / "none.csv") == []


@pytest.mark.parametrize("branches", ABLATION_BRANCHES)
def test_rows_have_as_many_passes_or_as_many_epochs(branches: tuple[str, ...], short: Recipe) -> None:
    """Passes are counted with a network, which says how often its video network ran."""
    recipe = replace(short, branches=BRANCHES, joint=replace(short.joint, epochs=24, min_steps=6))
    model = PeakZoom("tcnn_xs", num_classes=2, branches=branches, width=0.25, attention_per="clip").eval()
    seen: list[int] = []
    features = model.backbone.features
    model.backbone.features = lambda video: seen.append(len(video)) or features(video)  # type: ignore[method-assign]
    model(torch.rand(1, 3, 4, 32, 32))
    alike, as_long = Arm("tcnn_xs", branches), Arm("tcnn_xs", branches, equal="passes")
    assert alike.recipe(recipe).joint == recipe.joint
    longer = as_long.recipe(recipe).joint
    assert (longer.epochs * sum(seen), longer.min_steps * sum(seen)) == (3 * 24, 3 * 6)


@pytest.mark.parametrize("equal", ["passes", "epochs"])
def test_stage_1_is_one_run_for_all_arms_of_a_network(equal: str, short: Recipe) -> None:
    """Or the second arm would find a run in its place that was begun with another recipe."""
    recipe = replace(short, branches=BRANCHES[:2], joint=replace(short.joint, epochs=24, min_steps=6))
    arms = [Arm("tcnn_xs", branches, 0.25, equal=equal) for branches in ABLATION_BRANCHES]
    assert len({arm.folder for arm in arms}) == 1
    assert len({repr(arm.stage_1(recipe).recorded()) for arm in arms}) == 1
    assert arms[0].stage_1(recipe).width == 0.25
