"""Cascades: what is replayed is what is done, thresholds keep their promise, and what is done is counted."""

from __future__ import annotations

import csv
import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from peakzoom.cascade import (
    Cascade,
    Effort,
    Work,
    answer,
    calibrate,
    digest,
    frontier,
    read,
    replay,
    upper_bound,
    view_order,
)
from peakzoom.cli import app
from peakzoom.cost import multiply_adds, multiply_adds_by_pass
from peakzoom.errors import UserError
from peakzoom.evaluate import score_videos
from peakzoom.predict import Protocol, Recognizer, decode_views, load
from peakzoom.video.entries import VideoSet


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of 150 videos, 12 views, 5 classes: the fused answer is better than the original's."""
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
    original: np.ndarray, fused: np.ndarray, order: list[int], cascade: Cascade
) -> tuple[int, int, int]:
    """One video, as the text of the module says it."""
    total, count, closer = np.zeros(original.shape[-1]), 0, 0
    for index in order:
        scores = original[index].astype(np.float64)
        if scores.max() < cascade.sure:
            scores, closer = fused[index].astype(np.float64), closer + 1
        total += scores
        count += 1
        first, second = sorted(total)[:-3:-1]
        if first - second >= cascade.settled:
            break
    return int(total.argmax()), count, closer


@pytest.mark.parametrize("sure", [0.0, 0.4, 0.8, math.inf])
@pytest.mark.parametrize("settled", [0.0, 0.5, 1.5, 4.0, math.inf])
def test_replay(noisy: tuple[np.ndarray, ...], sure: float, settled: float) -> None:
    original, fused, _ = noisy
    order = view_order(4, 3)
    cascade = Cascade(sure, settled)
    found = replay(original, fused, order, cascade)
    for video in range(len(original)):
        expected = by_hand(original[video], fused[video], order, cascade)
        assert (found.answers[video], found.views[video], found.closer[video]) == expected
    if settled == math.inf:
        assert (found.views == 12).all()
    if sure == 0:
        assert not found.closer.any()
    if sure == math.inf:
        assert (found.closer == found.views).all()


def test_the_strictest_cascade_is_the_mean_over_all_views(noisy: tuple[np.ndarray, ...]) -> None:
    original, fused, _ = noisy
    found = replay(original, fused, view_order(4, 3), Cascade())
    np.testing.assert_allclose(found.scores / 12, fused.astype(np.float64).mean(1), atol=1e-12)


# Calibration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.0, 0.5, 1.0, 5.0, 30.0])
def test_no_more_answers_change_than_allowed(noisy: tuple[np.ndarray, ...], loss: float) -> None:
    original, fused, labels = noisy
    order, work = view_order(4, 3), Work(1.0, 2.5)
    found = calibrate(original, fused, labels, order, work, loss)
    again = replay(original, fused, order, found.chosen.cascade)
    full = fused.astype(np.float64).sum(1).argmax(1)
    changed = int((again.answers != full).sum())
    assert changed == found.chosen.changed <= loss / 100 * 150
    assert found.full.accuracy - found.chosen.accuracy <= loss / 100 + 1e-12
    assert found.chosen.lost == int(((full == labels) & (again.answers != labels)).sum())
    spent = (again.views + 2.5 * again.closer).mean()
    assert found.chosen.multiply_adds == pytest.approx(spent)
    assert found.chosen.risk <= loss / 100
    assert all(
        each.multiply_adds >= spent - 1e-9
        for each in found.points
        if max(each.changed / 150, each.risk) <= loss / 100
    )
    assert found.full.changed == 0 and found.full.multiply_adds == pytest.approx(12 * 3.5)
    best = frontier(found.points)
    for one, other in pairwise(best):
        assert one.multiply_adds < other.multiply_adds and one.accuracy < other.accuracy


def test_more_loss_is_never_more_work(noisy: tuple[np.ndarray, ...]) -> None:
    original, fused, labels = noisy
    spent = [
        calibrate(original, fused, labels, view_order(4, 3), Work(1, 2), loss).chosen.multiply_adds
        for loss in (0, 1, 2, 5, 10)
    ]
    assert spent == sorted(spent, reverse=True) and spent[-1] < spent[0] <= 36


def test_the_risk_is_that_of_other_orders(noisy: tuple[np.ndarray, ...]) -> None:
    """Of a few videos, against loops over orders drawn here; and the same seed gives the same calibration."""
    original, fused, labels = (each[:10] for each in noisy)
    found = calibrate(original, fused, labels, view_order(4, 3), Work(1, 2), 100.0)
    full = fused.astype(np.float64).sum(1).argmax(1)
    random = np.random.default_rng(7)
    for point in found.points[:: len(found.points) // 9]:
        if math.inf in (point.sure, point.settled):
            continue
        changed = [
            by_hand(original[video], fused[video], list(random.permutation(12)), point.cascade)[0]
            != full[video]
            for _ in range(200)
            for video in range(10)
        ]
        assert point.risk == pytest.approx(np.mean(changed), abs=0.05)
    assert found == calibrate(original, fused, labels, view_order(4, 3), Work(1, 2), 100.0)
    assert found.full.risk == 0


def test_a_network_alone_has_nothing_to_look_closer_at(noisy: tuple[np.ndarray, ...]) -> None:
    original, _, labels = noisy
    found = calibrate(original, original, labels, view_order(12, 1), Work(1, 0), 1.0, branches=False)
    assert all(each.closer == 0 for each in found.points)
    assert found.full.views == 12 and found.chosen.views < 12


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
    for values in ((-0.1, 1.0), (0.5, -1.0), (math.nan, 1.0)):
        with pytest.raises(UserError, match="expected 0 or more"):
            Cascade(*values)


# Done as replayed ---------------------------------------------------------------------------------------------------


class Counting:
    """An engine that counts what is asked of it."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.engine = recognizer.stepwise
        self.firsts = self.closers = 0

    def first(self, views: object) -> object:
        self.firsts += 1
        return self.engine.first(views)  # type: ignore[arg-type]

    def closer(self, seen: object) -> object:
        self.closers += 1
        return self.engine.closer(seen)  # type: ignore[arg-type]


def test_what_is_done_is_what_was_replayed(run: Path, clip_data: VideoSet) -> None:
    recognizer = load(run, "cpu")
    protocol = Protocol(clips=4, crops=3)
    order = view_order(4, 3)
    test = [each for each in clip_data.entries if each.split == "test"]
    full = score_videos(recognizer, clip_data, test, protocol)
    scores = {
        name: np.stack([each.views[name] for each in full.predictions]) for name in ("original", "fused")
    }
    # The run is hardly trained and its scores hardly differ: thresholds where some of these views fall on either side.
    sures = [0.0, *map(float, np.quantile(scores["original"].max(-1), [0.2, 0.5, 0.8])), math.inf]
    kinds = set()
    for cascade in (Cascade(sure, settled) for sure in sures for settled in (0.02, 0.1, 0.5, math.inf)):
        expected = replay(scores["original"], scores["fused"], order, cascade)
        for video, entry in enumerate(test):
            engine = Counting(recognizer)
            views = decode_views(entry.path, recognizer.preprocess, protocol)
            found, effort = answer(engine, views, cascade, order)  # type: ignore[arg-type]
            assert effort == Effort(expected.views[video], expected.closer[video])
            assert effort == (engine.firsts, engine.closers)
            assert effort.passes == engine.firsts + 2 * engine.closers
            total = expected.scores[video]
            np.testing.assert_allclose(found, total / total.sum(), atol=1e-6)
            kinds.add((effort.views < 12, 0 < effort.closer < effort.views))
    assert (True, True) in kinds  # some stopped, and looked closer at some views only


def test_multiply_adds_by_pass_add_up(run: Path) -> None:
    recognizer = load(run, "cpu")
    first, closer = multiply_adds_by_pass(recognizer.model)
    pre = recognizer.preprocess
    alone = multiply_adds(recognizer.model.backbone, pre.frames, pre.size)
    assert first == pytest.approx(alone, rel=0.01)
    assert 2 * first < closer < 2 * first + 0.01  # attention is a few million multiply-adds


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
    assert "answers changed" in said and "95%" in said
    folder = home / "cascade"
    assert {each.name for each in folder.iterdir()} == {"cascade.json", "curve.csv", "curve.png"}
    stored = read(folder / "cascade.json")
    assert stored.weights == digest(load(home, "cpu").model) and (stored.clips, stored.crops) == (4, 1)
    with (folder / "curve.csv").open(newline="") as stream:
        points = list(csv.DictReader(stream))
    chosen = [
        each
        for each in points
        if (float(each["sure"]), float(each["settled"])) == (stored.cascade.sure, stored.cascade.settled)
    ]
    assert len(chosen) == 1 and len(points) == 180

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


def test_what_a_cascade_was_not_made_for(home: Path) -> None:
    with pytest.raises(UserError, match="'peakzoom calibrate RUN' makes it"):
        call("evaluate", home, "--cascade")
    with pytest.raises(UserError, match="flatter"):
        call("calibrate", home, "--split", "test")
    call("calibrate", home, *VIEWS)
    with pytest.raises(UserError, match="remove it to calibrate again"):
        call("calibrate", home, *VIEWS)
    with pytest.raises(UserError, match="is no folder here"):
        call("calibrate", home / "gone", *VIEWS)
    with pytest.raises(UserError, match=r"4 x 1 views of rule paper, and 10 x 3"):
        call("evaluate", home, "--cascade")
    with pytest.raises(UserError, match="runs on engine torch"):
        call("evaluate", home, *VIEWS, "--cascade", "--engine", "openvino")
    with pytest.raises(UserError, match="for precision 32-true, and bf16-mixed is asked for"):
        call("evaluate", home, *VIEWS, "--cascade", "--precision", "bf16-mixed")
    shutil.copy(home / "joint" / "best" / "model.safetensors", home / "joint" / "best" / "before.safetensors")
    model = load(home, "cpu").model
    model.backbone.fc.bias.data += 1
    model.save_pretrained(home / "joint" / "best")
    with pytest.raises(UserError, match="other weights"):
        call("evaluate", home, *VIEWS, "--cascade")
    (home / "cascade" / "cascade.json").write_text('{"cascade": {}}')
    with pytest.raises(UserError, match="is damaged"):
        call("evaluate", home, *VIEWS, "--cascade")
