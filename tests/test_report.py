"""The report: every number again by plain Python loops, by hand, and from the other files of an evaluation."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from peakzoom.errors import UserError
from peakzoom.evaluate import _write, evaluate, summarise
from peakzoom.predict import Prediction, Protocol, load
from peakzoom.report import (
    SEED,
    Scores,
    bootstrap,
    by_class,
    by_views,
    calibrate,
    choose_views,
    confusion_matrix,
    disagreement,
    divergence,
    find_evaluation,
    majority,
    mean_class,
    measure_all,
    mistakes,
    read_evaluation,
    scenery,
    separation,
    share,
    subsets,
    votes,
    write_report,
)
from peakzoom.video.entries import Entry, Problem, VideoSet

ORIG, DISC, COMP, FUSED = "original", "discriminative", "complementary", "fused"
ALL = (ORIG, DISC, COMP, FUSED)
GRID = [  # videos, branches, clips, crops, S
    (1, ALL, 1, 1, 2),
    (9, ALL, 10, 3, 2),
    (40, ALL, 4, 2, 5),
    (33, (ORIG, COMP, FUSED), 3, 1, 7),
    (25, (ORIG, DISC, FUSED), 2, 3, 4),
    (30, (ORIG, FUSED), 5, 3, 3),
]
NASTY = ["<script>alert(1)</script>", "a|b", "[x](y) & *z*", "two\nlines\\", "$\\frac$"]


def make_scores(
    videos: int, branches: tuple[str, ...], clips: int, crops: int, s: int, seed: int = 0
) -> Scores:
    """Random scores around the label; every class but the last may have videos."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, s - 1), videos)
    logits = rng.normal(size=(videos, len(branches), clips * crops, s)) * 1.5
    logits += rng.normal(size=(videos, 1, 1, s))
    logits[np.arange(videos), :, :, labels] += 1.2
    if len(branches) == 2:
        logits[:, 1] = logits[:, 0]
    odds = np.exp(logits)
    views = (odds / odds.sum(-1, keepdims=True)).astype(np.float32)
    means = {}
    for place, name in enumerate(branches):
        mean = views[:, place].astype(np.float64).mean(1)
        means[name] = mean / mean.sum(1, keepdims=True)
    return Scores(
        Path("nowhere"),
        [f"class {index}" for index in range(s)],
        [f"{index}.mp4" for index in range(videos)],
        labels,
        list(branches),
        means,
        views,
        Protocol("paper", clips, crops),
        [],
    )


def from_means(labels: list[int], s: int, **means: list[list[float]]) -> Scores:
    """One view a video."""
    arrays = {name: np.array(rows, dtype=np.float64) for name, rows in means.items()}
    views = np.stack(list(arrays.values()), axis=1)[:, :, None].astype(np.float32)
    names = [f"{index}.mp4" for index in range(len(labels))]
    return Scores(
        Path("nowhere"),
        [f"class {index}" for index in range(s)],
        names,
        np.array(labels),
        list(arrays),
        arrays,
        views,
        Protocol("paper", 1, 1),
        [],
    )


def write_folder(scores: Scores, out: Path, problems: list[Problem] | None = None) -> Path:
    """As ``evaluate`` writes it."""
    predictions = [
        Prediction(
            Path(scores.paths[video]),
            scores.classes,
            {name: scores.means[name][video] for name in scores.branches},
            {name: scores.views[video, place] for place, name in enumerate(scores.branches)},
            None,
        )
        for video in range(len(scores.labels))
    ]
    entries = [Entry(each.path, int(label)) for each, label in zip(predictions, scores.labels, strict=True)]
    result = summarise(predictions, entries, scores.classes, problems or [])
    out.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:  # a picture that no report reads
        patch.setattr("peakzoom.evaluate.plot_confusion", lambda *_: None)
        _write(out, result, predictions, entries, scores.classes, scores.protocol)
    return out


def best(row: np.ndarray | list[float]) -> int:
    """The first of the greatest, by plain Python."""
    values = [float(value) for value in row]
    return values.index(max(values))


def class_mean(answers: list[int], labels: list[int]) -> float:
    shares = []
    for label in sorted(set(labels)):
        mine = [answer == label for answer, true in zip(answers, labels, strict=True) if true == label]
        shares.append(sum(mine) / len(mine))
    return sum(shares) / len(shares)


@pytest.fixture(scope="module", params=GRID, ids=str)
def scores(request: pytest.FixtureRequest) -> Scores:
    return make_scores(*request.param)


# A real evaluation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, 4 x 3 views, in the run's folder's way: alone inside another folder."""
    test = [entry for entry in clip_data.entries if entry.split == "test"]
    test += [entry for entry in clip_data.entries if entry.split == "train" and entry.label == 2][:2]
    out = tmp_path_factory.mktemp("real") / "evaluation-test-paper"
    evaluate(load(run, "cpu"), clip_data, test, out, Protocol("paper", 4, 3))
    return out


def test_numbers_are_those_of_the_evaluation(real: Path) -> None:
    assert find_evaluation(real.parent) == find_evaluation(real) == real
    page = write_report(real)
    assert page == real / "report" / "report.html"
    numbers = json.loads((real / "report" / "numbers.json").read_text())
    metrics = json.loads((real / "metrics.json").read_text())
    rows = {row["name"]: row for row in numbers["subsets"]}
    assert list(rows) == ["O", "D", "C", "O+D", "O+C", "D+C", "O+D+C", "fused"]
    for name, letter in zip(ALL, ("O", "D", "C", "fused"), strict=True):
        stated = metrics["branches"][name]  # float32, as torchmetrics counts
        assert np.float32(rows[letter]["top1"]["value"]) == np.float32(stated["top1"])
        assert rows[letter]["mean_class"] == pytest.approx(stated["mean_class_accuracy"], rel=3e-7)
        assert numbers["views"][-1]["top1"][name] == rows[letter]["top1"]
    assert {row["branch"]: row["mean"] for row in numbers["votes"]} == {
        name: rows[letter]["top1"] for name, letter in zip(ALL, ("O", "D", "C", "fused"), strict=True)
    }
    assert numbers["protocol"] == metrics["protocol"] and numbers["videos"] == metrics["videos"] == 8
    with (real / "per_class.csv").open(newline="", encoding="utf-8") as stream:
        for line, own, hint in zip(
            csv.DictReader(stream), numbers["per_class"], numbers["scenery"], strict=True
        ):
            assert (line["class"], int(line["videos"])) == (own["name"], own["found"]["videos"])
            assert np.float32(own["found"]["value"]) == np.float32(line["fused"])
            for name in ALL:
                assert np.float32(hint["right"][name] / hint["videos"]) == np.float32(line[name])
    with (real / "confusion.csv").open(newline="", encoding="utf-8") as stream:
        stated_confusion = [list(map(int, line[1:])) for line in list(csv.reader(stream))[1:]]
    assert confusion_matrix(read_evaluation(real)).tolist() == stated_confusion
    with pytest.raises(UserError, match="not empty"):
        write_report(real)
    again = write_report(real, real.parent / "again").parent
    for file in ("numbers.json", "report.md", "report.html"):
        assert (again / file).read_bytes() == (real / "report" / file).read_bytes()


def test_a_run_with_the_original_branch_alone(run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    test = [entry for entry in clip_data.entries if entry.split == "test"]
    evaluate(load(run / "tcnn", "cpu"), clip_data, test, tmp_path / "e", Protocol("paper", 2, 1))
    folder = write_report(tmp_path / "e").parent
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["disagreement"] is None and numbers["scenery"] is None
    assert [row["name"] for row in numbers["subsets"]] == ["O", "fused"]
    text = (folder / "report.md").read_text()
    assert "has one branch, original" in text and "Left out" in text
    assert "complementary view alone" not in text and "disagree\n" not in text and "gained" not in text
    assert sorted(file.name for file in folder.glob("*.png")) == [
        "calibration.png",
        "confusion.png",
        "subsets.png",
        "views.png",
    ]


# 1. Subsets ------------------------------------------------------------------------------------------------------


def test_subsets_again_by_loops(scores: Scores) -> None:
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    groups = [group for size in (1, 2, 3) for group in combinations(parts, size)]
    labels = scores.labels.tolist()
    rows = subsets(scores)
    assert len(rows) == len(groups) + 1 == 2 ** len(parts)
    assert rows[-1].name == FUSED
    original = [best(row) == label for row, label in zip(scores.means[ORIG], labels, strict=True)]
    for row, group in zip(rows, [*groups, (FUSED,)], strict=True):
        answers = []
        for video in range(len(labels)):
            total = [
                sum(float(scores.means[name][video, k]) for name in group) for k in range(len(scores.classes))
            ]
            answers.append(best(total))
        right = [answer == label for answer, label in zip(answers, labels, strict=True)]
        assert (row.top1.right, row.top1.videos) == (sum(right), len(labels))
        assert row.mean_class == pytest.approx(class_mean(answers, labels), abs=1e-12)
        assert row.mean_class_low <= row.mean_class + 1e-12 and row.mean_class <= row.mean_class_high + 1e-12
        assert row.gained == sum(mine and not theirs for mine, theirs in zip(right, original, strict=True))
        assert row.gained - row.lost == sum(right) - sum(original)


def test_a_subset_can_be_right_where_its_branches_are_wrong() -> None:
    found = from_means(
        [1],
        3,
        original=[[0.55, 0.45, 0.0]],
        discriminative=[[0.0, 0.45, 0.55]],
        fused=[[1.0, 0.0, 0.0]],
    )
    rows = {row.name: row for row in subsets(found)}
    assert [rows[name].top1.right for name in ("O", "D", "O+D", "fused")] == [0, 0, 1, 0]
    assert (rows["O+D"].gained, rows["O+D"].lost) == (1, 0)


@pytest.mark.parametrize(
    "right,videos,low,high",
    # Newcombe (1998), Statistics in Medicine 17, Table I, method 3 (Wilson's): four printed digits.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(right: int, videos: int, low: float, high: float) -> None:
    found = share(right, videos)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)
    mirror = share(videos - right, videos)
    assert (1 - mirror.high, 1 - mirror.low) == pytest.approx((found.low, found.high), abs=1e-12)
    assert share(0, 0).value is None


def test_bootstrap_of_a_share_is_near_the_binomial() -> None:
    right = np.arange(400) < 300
    low, high = bootstrap(400, lambda drawn: float(right[drawn].mean()))
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)
    assert bootstrap(400, lambda drawn: float(right[drawn].mean()), seed=SEED) == (low, high)
    assert bootstrap(3, lambda drawn: None if drawn[0] else 2.0) == (2.0, 2.0)
    assert mean_class(np.array([True, False, True]), np.array([0, 0, 4])) == 0.75


# 2. Views --------------------------------------------------------------------------------------------------------


def test_the_papers_thirty_views() -> None:
    rows = choose_views(Protocol("paper", 10, 3))
    every = list(range(10))
    assert rows == [
        ([5], [1]),
        ([5], [0, 1, 2]),
        ([1, 5, 8], [1]),
        ([1, 5, 8], [0, 1, 2]),
        (every, [1]),
        (every, [0, 1, 2]),
    ]
    assert choose_views(Protocol("paper", 1, 1)) == [([0], [0])]
    assert choose_views(Protocol("paper", 2, 1)) == [([1], [0]), ([0, 1], [0])]
    assert choose_views(Protocol("paper", 3, 1)) == [([1], [0]), ([0, 1, 2], [0])]


@pytest.mark.parametrize("clips", [1, 2, 3, 4, 7, 10, 30])
@pytest.mark.parametrize("crops", [1, 2, 3, 5])
def test_chosen_views_lie_evenly(clips: int, crops: int) -> None:
    rows = choose_views(Protocol("paper", clips, crops))
    assert rows[-1] == (list(range(clips)), list(range(crops)))
    assert len({(tuple(one), tuple(two)) for one, two in rows}) == len(rows)
    for row in rows:
        for places, count in zip(row, (clips, crops), strict=True):
            assert sorted(set(places)) == places and places[0] >= 0 and places[-1] < count
            assert set(np.diff(places)) <= {count // len(places), -(-count // len(places))}
            for part, place in enumerate(places):  # in its own part of as many equal parts
                assert part * count / len(places) <= place <= (part + 1) * count / len(places)


def test_fewer_views_again_by_loops(scores: Scores) -> None:
    rows = by_views(scores)
    crops = scores.protocol.crops
    for row in rows:
        assert row.views == len(row.clips) * len(row.crops)
        for place, name in enumerate(scores.branches):
            right = 0
            for video, label in enumerate(scores.labels):
                total = [0.0] * len(scores.classes)
                for clip in row.clips:
                    for crop in row.crops:
                        for k, value in enumerate(scores.views[video, place, (clip - 1) * crops + crop - 1]):
                            total[k] += float(value)
                right += best(total) == label
            assert row.top1[name].right == right
    for name in scores.branches:
        assert rows[-1].top1[name].right == int(scores.right(name).sum())


def test_views_are_ordered_clip_by_clip() -> None:
    """Only crop 2 of clip 3 of 4 x 3 views is right: the row of one view is the only one to see it clearly."""
    views = np.tile(np.array([1.0, 0.0], np.float32), (1, 2, 12, 1))
    views[:, :, 2 * 3 + 1] = (0.0, 1.0)
    mean = np.array([[11 / 12, 1 / 12]])
    means = {ORIG: mean, FUSED: mean}
    found = Scores(
        Path(), ["a", "b"], ["x"], np.array([1]), [ORIG, FUSED], means, views, Protocol("paper", 4, 3), []
    )
    assert [row.top1[FUSED].right for row in by_views(found)] == [1, 0, 0, 0, 0, 0]


# 3. Votes --------------------------------------------------------------------------------------------------------


def test_votes_again_by_loops(scores: Scores) -> None:
    for row, place in zip(votes(scores), range(len(scores.branches)), strict=True):
        mean, right, ties, differ = scores.means[row.branch], 0, 0, 0
        for video, label in enumerate(scores.labels):
            counted = Counter(best(view) for view in scores.views[video, place])
            most = max(counted.values())
            tied = [k for k, count in counted.items() if count == most]
            answer = max(sorted(tied), key=lambda k: mean[video, k])
            right += answer == label
            ties += len(tied) > 1
            differ += answer != best(mean[video])
        assert (row.vote.right, row.ties, row.differ) == (right, ties, differ)
        assert row.mean.right - row.vote.right == row.mean_only - row.vote_only
        assert row.mean.right == int(scores.right(row.branch).sum())


def test_a_vote_and_a_tie_by_hand() -> None:
    views = np.array(
        [[[0.4, 0.6, 0], [0.4, 0.6, 0], [1, 0, 0]], [[0, 0.6, 0.4], [0, 0.3, 0.7], [0.5, 0.4, 0.1]]]
    )
    answers, ties = majority(views, views.mean(1))
    assert answers.tolist() == [1, 1] and ties.tolist() == [False, True]
    assert views.mean(1).argmax(1).tolist() == [0, 1]


# 4. Disagreement -------------------------------------------------------------------------------------------------


def entropy(row: list[float]) -> float:
    return -sum(value * math.log2(value) for value in row if value > 0)


def test_divergence_again_by_entropies(scores: Scores) -> None:
    """JSD = H of the mean less the mean of the H (Lin 1991): another form than the code's."""
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    if len(parts) < 2:
        assert disagreement(scores) is None
        return
    found = divergence([scores.means[name] for name in parts])
    for video in range(len(scores.labels)):
        pairs = []
        for one, two in combinations(parts, 2):
            p, q = scores.means[one][video].tolist(), scores.means[two][video].tolist()
            middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
            pairs.append(entropy(middle) - (entropy(p) + entropy(q)) / 2)
        assert found[video] == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_divergence_by_hand() -> None:
    one = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    two = np.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    assert divergence([one, two]) == pytest.approx([1.0, 0.0, 0.31127812445913283], abs=1e-15)
    found = disagreement(
        from_means([0] * 3, 2, original=one.tolist(), discriminative=two.tolist(), fused=one.tolist())
    )
    assert found is not None and found.pairs[0].divergence == pytest.approx(1.311278124459133 / 3)
    assert divergence([one, two, two])[0] == pytest.approx(2 / 3)


def test_levels_and_quantiles_again_by_loops(scores: Scores) -> None:
    found = disagreement(scores)
    if found is None:
        return
    parts = [name for name in (ORIG, DISC, COMP) if name in scores.branches]
    seen: dict[int, list[bool]] = {level: [] for level in range(1, len(parts) + 1)}
    for video, label in enumerate(scores.labels):
        different = {best(scores.means[name][video]) for name in parts}
        seen[len(different)].append(best(scores.means[FUSED][video]) == label)
    for level in found.levels:
        assert (level.top1.right, level.top1.videos) == (sum(seen[level.answers]), len(seen[level.answers]))
    assert sum(each.top1.videos for each in found.quantiles) == len(scores.labels)
    sizes = [each.top1.videos for each in found.quantiles]
    assert max(sizes) - min(sizes) <= 1 and len(sizes) == max(1, min(5, len(scores.labels) // 5))
    edges = [edge for each in found.quantiles for edge in (each.low, each.high)]
    assert edges == sorted(edges)
    right = [best(row) == label for row, label in zip(scores.means[FUSED], scores.labels, strict=True)]
    assert sum(each.top1.right for each in found.quantiles) == sum(right)
    apart = divergence([scores.means[name] for name in parts])
    if min(sum(right), len(right) - sum(right)) < 5:
        assert found.separation is None
    else:
        pairs = [
            1.0 if apart[i] > apart[j] else 0.5 if apart[i] == apart[j] else 0.0
            for i in range(len(right))
            for j in range(len(right))
            if not right[i] and right[j]
        ]
        assert found.separation == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
        assert found.separation_low < found.separation < found.separation_high


def test_separation_by_hand() -> None:
    values = np.array([0.1, 0.2, 0.2, 0.9])
    assert separation(values, np.array([False, False, True, True])) == 3.5 / 4
    assert separation(values, np.array([True] * 4)) is None
    assert separation(values, np.array([False] * 4)) is None


def test_doubts_by_hand() -> None:
    sure, fair, other = [0.1, 0.9, 0.0], [0.3, 0.45, 0.25], [0.0, 0.2, 0.8]
    surer, right = [0.02, 0.98, 0.0], [1.0, 0.0, 0.0]
    rows = {
        ORIG: [sure, fair, sure, surer, right, right],
        DISC: [sure, fair, other, surer, other, right],
        COMP: [sure, fair, sure, surer, sure, right],
        FUSED: [sure, fair, sure, surer, sure, right],
    }
    found = disagreement(from_means([0] * 6, 3, **rows))
    assert found is not None
    assert [(each.path, each.kind) for each in found.doubts] == [
        ("3.mp4", "label doubtful"),
        ("0.mp4", "label doubtful"),
        ("4.mp4", "unsure"),  # three answers, wider apart than the two of the next one
        ("2.mp4", "unsure"),
        ("1.mp4", "agreed, low score"),
    ]
    assert found.kinds == {"label doubtful": 2, "unsure": 2, "agreed, low score": 1}
    assert found.doubts[2].answers == {ORIG: "class 0", DISC: "class 2", COMP: "class 1", FUSED: "class 1"}
    assert found.doubts[2].scores == {ORIG: 1.0, DISC: 0.8, COMP: 0.9, FUSED: 0.9}
    assert [(each.one, each.two, each.same) for each in found.pairs] == [
        (ORIG, DISC, 4),
        (ORIG, COMP, 5),
        (DISC, COMP, 4),
    ]
    assert [each.top1.videos for each in found.levels] == [4, 1, 1]
    assert [each.top1.right for each in found.levels] == [1, 0, 0]


@pytest.mark.parametrize("doubtful,unsure,listed", [(30, 30, (10, 10)), (30, 3, (17, 3)), (2, 30, (2, 18))])
def test_at_most_twenty_doubts_of_both_kinds(doubtful: int, unsure: int, listed: tuple[int, int]) -> None:
    wrong, other = [0.1, 0.9, 0.0], [0.0, 0.2, 0.8]
    rows = {
        ORIG: [wrong] * (doubtful + unsure),
        DISC: [wrong] * doubtful + [other] * unsure,
        FUSED: [wrong] * (doubtful + unsure),
    }
    found = disagreement(from_means([0] * (doubtful + unsure), 3, **rows))
    assert found is not None
    kinds = [each.kind for each in found.doubts]
    assert kinds == ["label doubtful"] * listed[0] + ["unsure"] * listed[1]
    assert found.separation is None


# 5. Scenery ------------------------------------------------------------------------------------------------------


def answer_rows(answers: list[int], s: int) -> list[list[float]]:
    return [[1.0 if k == answer else 0.0 for k in range(s)] for answer in answers]


def test_scenery_by_hand() -> None:
    labels = [0] * 6 + [1] * 6 + [2] * 3 + [3] * 6
    good = answer_rows(labels, 5)
    # Class 0: C as good as all; 1: C misses one; 2: few videos; 3: nobody knows it.
    complementary = answer_rows([0] * 6 + [1] * 5 + [4] + [2] * 3 + [4] * 6, 5)
    others = answer_rows([0] * 6 + [1] * 6 + [2] * 3 + [4] * 6, 5)
    found = scenery(
        from_means(
            labels, 5, original=others, discriminative=others, complementary=complementary, fused=others
        )
    )
    assert found is not None
    assert [(row.name, row.videos, row.hint) for row in found] == [
        ("class 0", 6, "scenery?"),
        ("class 1", 6, ""),
        ("class 2", 3, "few videos"),
        ("class 3", 6, ""),
    ]
    assert found[1].right == {ORIG: 6, DISC: 6, COMP: 5, FUSED: 6}
    assert scenery(from_means(labels, 5, original=good, discriminative=good, fused=good)) is None
    assert scenery(from_means(labels, 5, complementary=good, fused=good)) is None


def test_scenery_again_by_loops(scores: Scores) -> None:
    found = scenery(scores)
    if found is None:
        assert COMP not in scores.branches
        return
    assert [row.name for row in found] == [scores.classes[k] for k in sorted(set(scores.labels.tolist()))]
    for row in found:
        index = scores.classes.index(row.name)
        videos = [video for video, label in enumerate(scores.labels) if label == index]
        assert row.videos == len(videos)
        for name in scores.branches:
            assert row.right[name] == sum(best(scores.means[name][video]) == index for video in videos)


# 6. Calibration --------------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    table = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.0, 1.0]])
    found = calibrate(FUSED, table, np.array([0, 1, 1, 1]))
    # Bins of a fifteenth: 0.9 and 0.8 lie in (13/15, 14/15] and (11/15, 12/15]; 0.7 in (10/15, 11/15]; 1 in the last.
    assert [each.videos for each in found.bins] == [0] * 10 + [1, 1, 0, 1, 1]
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.0) / 4)
    assert found.nll == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 4)
    assert found.score_right == pytest.approx((0.9 + 0.7 + 1) / 3) and found.score_wrong == pytest.approx(0.8)
    assert found.floored == 0
    never = calibrate(FUSED, table[3:], np.array([0]))
    assert never.floored == 1 and never.score_right is None
    assert never.nll == pytest.approx(149 * math.log(2))  # float32's smallest positive number is 2^-149


def test_calibration_again_by_loops(scores: Scores) -> None:
    for name in scores.branches:
        found = calibrate(name, scores.means[name], scores.labels)
        error = 0.0
        for each in found.bins:
            inside = [
                (max(row), best(row) == label)
                for row, label in zip(scores.means[name].tolist(), scores.labels, strict=True)
                if each.low < max(row) <= each.high
            ]
            assert len(inside) == each.videos
            error += abs(sum(score for score, _ in inside) - sum(right for _, right in inside))
        assert found.ece == pytest.approx(error / len(scores.labels), abs=1e-12)
        assert sum(each.videos for each in found.bins) == len(scores.labels)
        logs = [-math.log(scores.means[name][video, label]) for video, label in enumerate(scores.labels)]
        assert found.nll == pytest.approx(sum(logs) / len(logs), abs=1e-9)


# 7. Classes ------------------------------------------------------------------------------------------------------


def test_classes_and_mistakes_by_hand() -> None:
    confusion = np.array([[3, 1, 2, 0], [0, 0, 4, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    rows = by_class(confusion, ["a", "b", "c", "d"])
    assert [(row.found.right, row.found.videos) for row in rows] == [(3, 6), (0, 4), (0, 0), (1, 1)]
    assert [(row.correct.right, row.correct.videos) for row in rows] == [(3, 3), (0, 1), (0, 6), (1, 1)]
    assert [(row.instead, row.instead_videos) for row in rows] == [("c", 2), ("c", 4), (None, 0), (None, 0)]
    assert [(each.label, each.answer, each.videos) for each in mistakes(confusion, "abcd")] == [
        ("b", "c", 4),
        ("a", "c", 2),
        ("a", "b", 1),
    ]


def test_confusion_again_by_loops(scores: Scores) -> None:
    confusion = confusion_matrix(scores)
    assert confusion.sum() == len(scores.labels)
    pairs = Counter(
        (int(label), best(row)) for label, row in zip(scores.labels, scores.means[FUSED], strict=True)
    )
    for (row, column), value in np.ndenumerate(confusion):
        assert value == pairs[row, column]


# The page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that elements close, and collects what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read_page(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


def test_page_from_the_scores(scores: Scores, tmp_path: Path) -> None:
    folder = write_folder(scores, tmp_path / "evaluation")
    again = read_evaluation(folder)
    assert again.labels.tolist() == scores.labels.tolist() and again.protocol == scores.protocol
    assert again.paths == scores.paths
    for name in scores.branches:
        np.testing.assert_array_equal(again.means[name], scores.means[name])
    file = write_report(folder)
    page = read_page(file)
    assert page.tags["script"] == 0 and page.tags["link"] == 0
    assert page.sources and all(each.startswith("data:image/png;base64,") for each in page.sources)
    markdown = (file.parent / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^]]*\]\(([a-z]+\.png)\)", markdown)
    assert len(linked) == len(page.sources) == page.tags["img"]
    assert sorted(linked) == sorted(each.name for each in file.parent.glob("*.png"))
    numbers = measure_all(again)
    assert f"{numbers.subsets[-1].top1.value:.1%}" in "".join(page.text)


def test_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    found = make_scores(40, ALL, 2, 1, 5)
    names = [f"{name.replace('/', '')}{place}.mp4" for place, name in enumerate(NASTY * 8)]
    found = replace(found, classes=NASTY, paths=names)
    folder = write_folder(found, tmp_path / "e", [Problem("<b>|.mp4", "broken: <i>\nx")])
    report = write_report(folder)
    page = read_page(report)
    seen = "".join(page.text)
    assert page.tags["script"] == page.tags["b"] == page.tags["i"] == page.tags["z"] == 0
    for name in (
        "<script>alert(1)</script>",
        "a|b",
        "[x](y) & *z*",
        r"two\nlines",
        r"$\frac$",
        r"broken: <i>\nx",
    ):
        assert name in seen
    markdown = (report.parent / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown and r"a\|b" in markdown and r"\[x\](y) &amp; \*z\*" in markdown
    width = 0
    for line in markdown.splitlines():  # every table stays a table
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) if line.startswith("|") else 0
        assert cells in (0, width) or width == 0
        width = cells


@pytest.mark.parametrize("s", [101, 250])
def test_many_classes(tmp_path: Path, s: int) -> None:
    folder = write_folder(make_scores(150, ALL, 1, 1, s), tmp_path / "e")
    page = read_page(write_report(folder))
    assert page.tags["details"] == 2
    assert (folder / "report" / "classes.png").stat().st_size < 2**20


# Folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_folder(make_scores(6, ALL, 2, 1, 3), tmp_path / "run" / "tcnn" / "evaluation-test-paper")


def test_which_evaluation(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert find_evaluation(run) == find_evaluation(run / "tcnn") == find_evaluation(str(small)) == small
    write_report(small)
    assert find_evaluation(run) == small
    other = write_folder(make_scores(6, ALL, 2, 1, 3), run / "evaluation-val-paper")
    with pytest.raises(UserError, match="holds 2 evaluations, name one") as told:
        find_evaluation(run)
    assert str(other) in str(told.value) and str(small) in str(told.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"run 'peakzoom evaluate .*empty' first"):
        find_evaluation(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        find_evaluation(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        find_evaluation(small / "metrics.json")


def test_folders_in_use(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a file"):
        write_report(small, small / "metrics.json")
    with pytest.raises(UserError, match="not empty"):
        write_report(small, tmp_path / "run")
    (tmp_path / "new").mkdir()
    assert write_report(small, tmp_path / "new").parent == tmp_path / "new"


@pytest.mark.parametrize("name", ["scores.csv", "views.npz", "metrics.json"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00broken", b"path,label\n", b"{}", b"a,b\n1,2\n", b"[]"]
)
def test_damaged_files(small: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (small / name).unlink()
    else:
        (small / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(name)) as told:
        write_report(small)
    assert len(str(told.value).splitlines()) == 1
    assert not (small / "report").exists()


def change_views(folder: Path, **changed: np.ndarray) -> None:
    with np.load(folder / "views.npz") as file:
        content = {name: file[name] for name in file.files}
    np.savez(folder / "views.npz", **{**content, **changed})


def change_metrics(folder: Path, old: str, new: str) -> None:
    text = (folder / "metrics.json").read_text()
    assert old in text
    (folder / "metrics.json").write_text(text.replace(old, new, 1))


def test_files_that_contradict_one_another(tmp_path: Path) -> None:
    scores = make_scores(6, ALL, 2, 1, 3)
    views = scores.views
    lines = (write_folder(scores, tmp_path / "first") / "scores.csv").read_text().splitlines(keepends=True)
    broken = {
        "shape": lambda at: change_views(at, scores=views[:, :, :1]),
        "int64": lambda at: change_views(at, scores=views.astype(np.int64)),
        "average": lambda at: change_views(at, scores=views[::-1]),
        "NaN": lambda at: change_views(at, scores=views * np.nan),
        "order": lambda at: change_views(at, labels=(scores.labels + 1) % 3),
        "answers": lambda at: change_views(at, branches=np.array(["fused", ORIG, DISC, COMP])),
        "every video": lambda at: change_views(at, paths=np.array(["one"])),
        "shape ": lambda at: change_metrics(at, '"clips": 2', '"clips": 3'),
        "clip rule": lambda at: change_metrics(at, '"paper"', '"papier"'),
        "other videos": lambda at: change_metrics(at, '"videos": 6', '"videos": 7'),
        "accuracy of original": lambda at: change_metrics(at, '"top1": ', '"top1": 7'),
        "row": lambda at: (at / "scores.csv").write_text("".join(lines[:-1])),
        "problems.csv": lambda at: (at / "problems.csv").write_text("path,reason\nx\n"),
        "classes, counted": lambda at: (at / "scores.csv").write_text(
            "".join([lines[0], *(re.sub(r"mp4,\d", "mp4,7", line) for line in lines[1:])])
        ),
    }
    for place, (word, change) in enumerate(broken.items()):
        folder = write_folder(scores, tmp_path / str(place))
        change(folder)
        told = "average" if word == "NaN" else word.strip()
        with pytest.raises(UserError, match=f"{told}.*evaluate again$"):
            read_evaluation(folder)
