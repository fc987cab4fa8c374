"""The early exit does what is replayed, its thresholds keep their promise, and what it took is counted."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.calibrate import calibrate, course, frontier, probabilities, replay, upper_bound
from peakzoom.evaluation.evaluate import score_videos
from peakzoom.inference.cost import multiply_adds, multiply_adds_by_pass
from peakzoom.inference.early_exit import (
    EarlyExit,
    Thresholds,
    Work,
    read_early_exit,
    score_in_stages,
    two_stages,
    view_order,
)
from peakzoom.inference.prediction import Effort
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.temperature import tempered
from peakzoom.model.load import digest
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views, decode_views


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of 150 videos, 12 views, 5 classes: the fused scores are better than the original branch's."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 150)
    hit = np.eye(5)[labels][:, None]
    video = random.normal(size=(150, 1, 5))
    original = softmax(1.5 * hit + video + random.normal(size=(150, 12, 5)))
    fused = softmax(3.0 * hit + video + random.normal(size=(150, 12, 5)))
    return original, fused, labels


# Order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips,crops", [(1, 1), (10, 3), (7, 1), (1, 5), (4, 2)])
def test_every_view_comes_once_and_middle_crops_first(clips: int, crops: int) -> None:
    order = view_order(clips, crops)
    assert sorted(order) == list(range(clips * crops))
    middle = [index % crops for index in order[:clips]]
    assert len(set(middle)) == 1 and abs(middle[0] - (crops - 1) / 2) <= 0.5


def test_the_first_clips_are_spread() -> None:
    order = [index // 3 for index in view_order(8, 3)]
    assert order[:8] == [0, 4, 2, 6, 1, 5, 3, 7]


# Replays against a loop ---------------------------------------------------------------------------------------------


def by_hand(
    original: np.ndarray, fused: np.ndarray, order: list[int], thresholds: Thresholds
) -> tuple[int, int, int]:
    """One video, as the text of the module says it."""

    def leader(scores: np.ndarray, views: list[int], by: float) -> tuple[int, int] | None:
        total = np.zeros(scores.shape[-1])
        for count, index in enumerate(views, start=1):
            total += scores[index].astype(np.float64)
            first, second = sorted(total)[:-3:-1]
            if first - second >= by:
                return int(total.argmax()), count
        return None

    first = order[: thresholds.stage1_views]
    if first and (found := leader(original, first, thresholds.stage1_lead)):
        return *found, 0
    if len(first) == len(order):
        return int(original[order].astype(np.float64).sum(0).argmax()), len(order), 0
    answer, count = leader(fused, order, thresholds.stage2_lead) or (
        int(fused[order].astype(np.float64).sum(0).argmax()),
        len(order),
    )
    return answer, max(count, len(first)), count


@pytest.mark.parametrize("most", [0, 1, 3, 11, 12, 99])
@pytest.mark.parametrize("first", [0.0, 0.4, 1.5, math.inf])
@pytest.mark.parametrize("second", [0.0, 0.5, 4.0, math.inf])
def test_replay(noisy: tuple[np.ndarray, ...], most: int, first: float, second: float) -> None:
    original, fused, _ = noisy
    order = view_order(4, 3)
    thresholds = Thresholds(most, first, second)
    found = replay(course(original, order), course(fused, order), thresholds)
    for video in range(40):
        expected = by_hand(original[video], fused[video], order, thresholds)
        assert (found.predicted[video], found.views[video], found.stage2_views[video]) == expected
    if most >= 12:
        assert not found.stage2_views.any()
    if most == 0:
        assert (found.stage2_views == found.views).all()
    if most == 0 and second == math.inf:
        assert (found.views == 12).all()


@pytest.mark.parametrize("videos", [1, 63, 64, 65, 150])
def test_courses_are_sums_so_far(noisy: tuple[np.ndarray, ...], videos: int) -> None:
    """Whatever the number of videos that are added up at once."""
    scores, order = noisy[0][:videos], view_order(4, 3)
    found = course(scores, order)
    for count in (1, 5, 12):
        total = scores[:, order[:count]].astype(np.float64).sum(1)
        ranked = np.sort(total, axis=1)
        np.testing.assert_allclose(found.lead[:, count - 1], ranked[:, -1] - ranked[:, -2], atol=1e-12)
        np.testing.assert_array_equal(found.best[:, count - 1], total.argmax(1))


def test_the_strictest_thresholds_are_the_mean_over_all_views(noisy: tuple[np.ndarray, ...]) -> None:
    original, fused, _ = noisy
    order = view_order(4, 3)
    found = replay(course(original, order), course(fused, order), Thresholds())
    np.testing.assert_array_equal(found.predicted, fused.astype(np.float64).mean(1).argmax(1))
    assert (found.views == 12).all() and (found.stage2_views == 12).all()


# Calibration --------------------------------------------------------------------------------------------------------


def test_probabilities_are_those_that_the_scores_were_made_by() -> None:
    """Labels drawn from known probabilities; scores are these, flattened or sharpened by a temperature."""
    random = np.random.default_rng(3)
    logits = 2 * random.normal(size=(4000, 6))
    truth = softmax(logits).astype(np.float64)
    labels = (truth.cumsum(1) > random.random((4000, 1))).argmax(1)
    for temperature in (0.3, 1.0, 3.0):
        found = probabilities(softmax(logits * temperature), labels)
        np.testing.assert_allclose(found.sum(1), 1)
        np.testing.assert_allclose(found, truth, atol=0.05)


def test_scores_of_zero_are_no_accident() -> None:
    found = probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("loss", [0.0, 0.5, 1.0, 5.0, 30.0])
def test_no_more_is_expected_to_be_lost_than_allowed(noisy: tuple[np.ndarray, ...], loss: float) -> None:
    original, fused, labels = noisy
    order, work = view_order(4, 3), Work(1.0, 2.5)
    found = calibrate(original, fused, labels, order, work, loss)
    again = replay(course(original, order), course(fused, order), found.chosen.thresholds)
    full = fused.astype(np.float64).sum(1).argmax(1)
    chances = probabilities(fused.mean(1), labels)
    rows = np.arange(150)
    own = 100 * (chances[rows, full] - chances[rows, again.predicted])
    own = own.mean() + 1.645 * own.std() / math.sqrt(150)
    assert own <= found.chosen.loss_bound + 1e-9 <= loss + 1e-6
    assert found.chosen.changed == int((again.predicted != full).sum())
    assert found.full.accuracy - found.chosen.accuracy <= loss / 100 + 1e-6
    assert found.chosen.lost == int(((full == labels) & (again.predicted != labels)).sum())
    spent = (again.views + 2.5 * again.stage2_views).mean()
    assert found.chosen.multiply_adds == pytest.approx(spent)
    assert all(
        each.multiply_adds >= spent - 1e-9
        for each in found.points
        if each.loss_bound <= loss and each.accuracy >= found.full.accuracy - loss / 100
    )
    assert found.full.changed == found.full.loss_bound == 0
    assert found.full.multiply_adds == pytest.approx(12 * 3.5)
    if loss == 1.0:
        assert found == calibrate(original, fused, labels, order, work, loss)
    best = frontier(found.points)
    for one, other in pairwise(best):
        assert one.multiply_adds < other.multiply_adds and one.accuracy < other.accuracy


def test_what_is_expected_is_what_new_videos_lose() -> None:
    """Thresholds from 400 videos, over many draws; what they lose on 4,000 others, on average, is what was allowed."""
    lost = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        labels = random.integers(0, 5, 4400)
        hit = np.eye(5)[labels][:, None]
        video = random.normal(size=(4400, 1, 5))
        original = softmax(1.5 * hit + video + random.normal(size=(4400, 12, 5)))
        fused = softmax(2.0 * hit + video + random.normal(size=(4400, 12, 5)))
        order = view_order(4, 3)
        chosen = calibrate(original[:400], fused[:400], labels[:400], order, Work(1, 2), 1.0).chosen
        assert chosen.views < 10
        others = replay(course(original[400:], order), course(fused[400:], order), chosen.thresholds)
        full = fused[400:].astype(np.float64).sum(1).argmax(1)
        lost.append(100 * float((full == labels[400:]).mean() - (others.predicted == labels[400:]).mean()))
    assert np.mean(lost) <= 1.0 + 2 * np.std(lost) / math.sqrt(10)


def test_more_loss_is_never_more_work(noisy: tuple[np.ndarray, ...]) -> None:
    original, fused, labels = noisy
    spent = [
        calibrate(original, fused, labels, view_order(4, 3), Work(1, 2), loss).chosen.multiply_adds
        for loss in (0, 1, 2, 5, 10)
    ]
    assert spent == sorted(spent, reverse=True) and spent[-1] < spent[0] <= 36


def test_risk_and_loss_are_those_of_other_orders(noisy: tuple[np.ndarray, ...]) -> None:
    """Of a few videos, against loops over orders drawn here."""
    original, fused, labels = (each[:10] for each in noisy)
    found = calibrate(original, fused, labels, view_order(4, 3), Work(1, 2), 100.0)
    full = fused.astype(np.float64).sum(1).argmax(1)
    chances = probabilities(fused.mean(1), labels)
    courses = [course(each, view_order(4, 3)) for each in (original, fused)]
    random = np.random.default_rng(7)
    for point in found.points[:: len(found.points) // 5]:
        answers = np.array(
            [
                [
                    by_hand(original[video], fused[video], list(random.permutation(12)), point.thresholds)[0]
                    for video in range(10)
                ]
                for _ in range(200)
            ]
        )
        assert point.risk == pytest.approx((answers != full).mean(), abs=0.05)
        rows, own = np.arange(10), replay(*courses, point.thresholds).predicted
        lost, here = (100 * (chances[rows, full] - chances[rows, each]) for each in (answers, own))
        both = (each.mean() + 1.645 * each.std() / math.sqrt(10) for each in (lost.mean(0), here))
        assert point.loss_bound == pytest.approx(max(both), abs=5)
    assert found.full.risk == found.full.loss_bound == 0


@pytest.mark.parametrize("views", [1, 2, 12])
def test_a_network_alone_has_no_stage_2(noisy: tuple[np.ndarray, ...], views: int) -> None:
    original, labels = noisy[0][:, :views], noisy[2]
    found = calibrate(original, original, labels, view_order(views, 1), Work(1, 0), 1.0)
    assert all(each.stage2_views == 0 for each in found.points)
    assert found.full.views == views and found.full.changed == 0
    assert found.chosen.views <= views and (views < 12 or found.chosen.views < views)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_few_views(noisy: tuple[np.ndarray, ...], views: int) -> None:
    original, fused, labels = noisy[0][:, :views], noisy[1][:, :views], noisy[2]
    found = calibrate(original, fused, labels, view_order(views, 1), Work(1, 2), 0.0)
    assert found.full.views == found.full.stage2_views == views and found.full.changed == 0
    assert len({each.thresholds for each in found.points}) == len(found.points)


@pytest.mark.parametrize(
    "count,of,expected",
    [
        (0, 47, 0.0617),
        (0, 100, 0.0295),
        (1, 50, 0.0914),
        (5, 100, 0.1023),
        (50, 50, 1.0),
        (300, 100_000, 0.0033),
    ],
)
def test_upper_bound(count: int, of: int, expected: float) -> None:
    """Clopper-Pearson, from published tables; 300 of 100,000 by the normal approximation."""
    assert upper_bound(count, of) == pytest.approx(expected, abs=2e-4)


def test_thresholds_that_are_none() -> None:
    for values in ((-1, 1.0, 1.0), (1, -0.1, 1.0), (1, 0.5, -1.0), (1, math.nan, 1.0)):
        with pytest.raises(UserError, match="expected 0 or more"):
            Thresholds(*values)


# Done as replayed ---------------------------------------------------------------------------------------------------


class Counting:
    """An engine that counts its passes."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.engine, self.classes = two_stages(recognizer.engine), recognizer.classes
        self.first = self.second = 0

    def stage1(self, views: object) -> object:
        self.first += 1
        return self.engine.stage1(views)  # type: ignore[arg-type]

    def stage2(self, first_pass: object) -> object:
        self.second += 1
        return self.engine.stage2(first_pass)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_is_done_is_what_was_replayed(run: Path, clip_data: VideoSet) -> None:
    recognizer = load(run, "cpu")
    views = Views(clips=4, crops=3)
    order = view_order(4, 3)
    test = [each for each in clip_data.entries if each.split == "test"][:4]
    full = score_videos(recognizer, replace(clip_data, entries=test), views)
    scores = {
        name: np.stack([each.views[name] for each in full.predictions]) for name in ("original", "fused")
    }
    courses = [course(scores[name], order) for name in ("original", "fused")]
    decoded = [decode_views(entry.path, recognizer.preprocess, views) for entry in test]
    # The run is hardly trained and its scores hardly differ: leads that some of these videos reach.
    kinds = set()
    for thresholds in (
        Thresholds(most, first, second)
        for most in (0, 3, 12)
        for first in [*map(float, np.quantile(courses[0].lead[:, :3], [0.2, 0.6])), math.inf]
        for second in (0.02, math.inf)
    ):
        expected = replay(*courses, thresholds)
        for video in range(len(test)):
            engine = Counting(recognizer)
            early_exit = EarlyExit(thresholds, Work(1, 2), "", views)
            found, effort = score_in_stages(engine, decoded[video], early_exit)  # type: ignore[arg-type]
            assert effort == Effort(expected.views[video], expected.stage2_views[video])
            assert effort == (engine.first, engine.second)
            assert early_exit.work.passes(*effort) == engine.first + 2 * engine.second
            assert found.argmax() == expected.predicted[video] and found.sum() == pytest.approx(1)
            looked = order[: effort.stage2_views or effort.views]
            total = scores["fused" if effort.stage2_views else "original"][video, looked].sum(0)
            np.testing.assert_allclose(found, total / total.sum(), atol=1e-6)
            kinds.add((effort.views < 12, effort.stage2_views == 0, effort.stage2_views < effort.views))
    # Some stopped in stage 1, some took all of its views into stage 2, and some fewer.
    assert {(True, True, True), (True, False, False), (True, False, True)} <= kinds


def test_multiply_adds_by_pass_add_up(run: Path) -> None:
    recognizer = load(run, "cpu")
    first, second = multiply_adds_by_pass(recognizer.model)
    pre = recognizer.preprocess
    alone = multiply_adds(recognizer.model.backbone, pre.frames, pre.size)
    assert first == pytest.approx(alone, rel=0.01)
    assert 2 * first < second < 2 * first + 0.01  # attention is a few million multiply-adds


# From the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def home(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


VIEWS = ("--num-clips", 4, "--crops", 1)


def test_calibrate_then_evaluate_and_predict(home: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    said = call("calibrate", home, *VIEWS, "--loss", 50)
    assert "predictions changed" in said and "loses at most" in said and "95%" in said
    folder = home / "cascade"
    assert {each.name for each in folder.iterdir()} == {"cascade.json", "curve.csv", "curve.png"}
    stored = read_early_exit(folder / "cascade.json")
    assert stored.weights == digest(load(home, "cpu").model) and stored.views == Views(clips=4, crops=1)
    with (folder / "curve.csv").open(newline="") as stream:
        points = list(csv.DictReader(stream))
    chosen = [
        each
        for each in points
        if Thresholds(int(each["stage1_views"]), float(each["stage1_lead"]), float(each["stage2_lead"]))
        == stored.thresholds
    ]
    assert len(chosen) == 1 and len(points) == 273

    assert "passes" in call("evaluate", home, *VIEWS, "--cascade")
    out = home / "evaluation-test-paper-cascade"
    metrics = json.loads((out / "metrics.json").read_text())
    with (out / "effort.csv").open(newline="") as stream:
        efforts = list(csv.DictReader(stream))
    assert len(efforts) == metrics["videos"] == 6 and list(metrics["branches"]) == ["fused"]
    assert metrics["cascade"]["views"] == pytest.approx(np.mean([int(each["views"]) for each in efforts]))
    assert not (out / "views.npz").exists()

    file = clip_data.entries[-1].path
    line = json.loads(call("predict", home, file, *VIEWS, "--cascade", "--jsonl", "-"))
    assert set(line["scores"]) == {"fused"} and 1 <= line["views"] <= 4 and line["closer"] <= line["views"]
    by_path = {each["path"]: each for each in efforts}
    assert int(by_path[str(file)]["views"]) == line["views"]


def test_thresholds_of_before_0_1(tmp_path: Path) -> None:
    """The keys that were written until then."""
    older = {
        "cascade": {"glances": 3, "clear": 1.5, "settled": None},
        "work": {"first": 1.0, "closer": 2.0},
        **{"weights": "abc", "rule": "paper", "clips": 4, "crops": 1, "precision": "32-true"},
    }
    (tmp_path / "cascade.json").write_text(json.dumps(older))
    read = read_early_exit(tmp_path / "cascade.json")
    assert read == EarlyExit(Thresholds(3, 1.5), Work(1.0, 2.0), "abc", Views(clips=4, crops=1))
    (tmp_path / "cascade.json").write_text(json.dumps(read.to_dict()))
    assert read_early_exit(tmp_path / "cascade.json") == read
    (tmp_path / "cascade.json").write_text(json.dumps({**read.to_dict(), "thresholds": {"stage1_views": 3}}))
    with pytest.raises(UserError, match=r"is damaged .*\('stage1_lead'\)"):
        read_early_exit(tmp_path / "cascade.json")
    older["cascade"] = {"glances": -3, "clear": 1.5, "settled": None}
    (tmp_path / "cascade.json").write_text(json.dumps(older))
    with pytest.raises(
        UserError, match=r"^\S+cascade\.json is damaged .* -3, 1\.5 and inf, expected 0 or more\)"
    ):
        read_early_exit(tmp_path / "cascade.json")


def test_a_recognizer_that_exits_early(run: Path, clip_data: VideoSet) -> None:
    """It chooses the views that its thresholds are for, and takes no others."""
    whole, views = load(run, "cpu"), Views(clips=4, crops=1)
    early_exit = EarlyExit(Thresholds(1, 0.0), Work(1, 2), str(whole.weights), views)
    early = Recognizer(whole.engine, whole.model, early_exit=early_exit)
    prediction = early.predict(clip_data.entries[-1].path)
    assert prediction.effort == Effort(1, 0) and not prediction.views
    assert early.choose_views(None) == views != whole.choose_views(None)
    assert early.settings(views) != whole.settings(views)
    kept = json.loads(json.dumps(early.settings(views)))["cascade"]
    assert kept["thresholds"] == {"stage1_views": 1, "stage1_lead": 0, "stage2_lead": None}
    assert (
        whole.settings(views)["cascade"] == "None"
    )  # as in files that were begun before thresholds were data
    with pytest.raises(UserError, match=r"4 x 1 views of rule paper, and 10 x 3"):
        early.predict(clip_data.entries[-1].path, Views())


def test_calibrated_scores_by_the_command(
    home: Path, clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, kept = clip_data.entries[-1].path, tmp_path / "kept.jsonl"
    with pytest.raises(
        UserError, match=r"temperature\.json does not exist: 'peakzoom calibrate RUN' makes it"
    ):
        call("predict", home, file, *VIEWS, "--calibrated")
    monkeypatch.setattr("peakzoom.evaluation.calibrate.fitted_temperature", lambda *_: 0.5)
    said = call("calibrate", home, *VIEWS)
    assert "scores: temperature 0.5; expected calibration error on these videos" in said
    call("predict", home, file, *VIEWS, "--calibrated", "--jsonl", kept)
    plain = load(home, "cpu")
    scores = json.loads(kept.read_text())["scores"]["fused"]
    fused = plain.predict(file, Views(clips=4, crops=1)).scores["fused"]
    assert [scores[name] for name in plain.classes] == tempered(fused, 0.5).tolist()
    with pytest.raises(UserError, match="fitted for other views"):
        call("predict", home, file, "--calibrated")
    assert "with another temperature" in one_error("predict", home, file, *VIEWS, "--jsonl", kept, "--resume")


def one_error(*arguments: object) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


def test_no_model_is_said_before_no_thresholds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothere does not exist: expected a run folder"):
        load(tmp_path / "nothere", cascade=True)


def test_what_a_cascade_was_not_made_for(home: Path) -> None:
    with pytest.raises(UserError, match="'peakzoom calibrate RUN' makes it"):
        call("evaluate", home, "--cascade")
    with pytest.raises(UserError, match="flatter"):
        call("calibrate", home, "--split", "test")
    call("calibrate", home, *VIEWS)
    with pytest.raises(UserError, match="remove it to calibrate again"):
        call("calibrate", home, *VIEWS)
    with pytest.raises(UserError, match="does not exist"):
        call("calibrate", home / "gone", *VIEWS)
    with pytest.raises(
        UserError, match=r"cascade\.json was calibrated for 4 x 1 views of rule paper, and 10 x 3"
    ):
        call("evaluate", home, "--cascade")
    with pytest.raises(UserError, match="runs on engine torch"):
        call("evaluate", home, *VIEWS, "--cascade", "--engine", "openvino")
    with pytest.raises(UserError, match="for precision 32-true, and bf16-mixed was chosen: choose the same"):
        call("evaluate", home, *VIEWS, "--cascade", "--precision", "bf16-mixed")
    shutil.copy(home / "joint" / "best" / "model.safetensors", home / "joint" / "best" / "before.safetensors")
    model = load(home, "cpu").model
    model.backbone.fc.bias.data += 1
    model.save_pretrained(home / "joint" / "best")
    with pytest.raises(UserError, match=r"cascade\.json was calibrated for other weights"):
        call("evaluate", home, *VIEWS, "--cascade")
    older = {"cascade": {"sure": 0.9, "settled": 2.0}}
    (home / "cascade" / "cascade.json").write_text(json.dumps(older))
    with pytest.raises(
        UserError, match=r"^\S+ is damaged or of an older version \(.*\): remove .*cascade and run 'peakzoom"
    ):
        call("evaluate", home, *VIEWS, "--cascade")
    (home / "cascade" / "cascade.json").write_text('{"cascade": {}}')
    with pytest.raises(UserError, match="is damaged"):
        call("evaluate", home, *VIEWS, "--cascade")
