"""The rule for events and what it costs: against a plain choice among all of them, and against what a watch does."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import odd_videos
import pytest
import torch
from instants import by_instants

from peakzoom.apps.watch import rule as rules
from peakzoom.apps.watch.events import Event
from peakzoom.apps.watch.folder import LINES, WatchFolder, watch_settings
from peakzoom.apps.watch.measure import Watched, cost_a_second, events_of, thinned, watch_files
from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break, Ended, ScoredWindow
from peakzoom.apps.watch.rule import Rule, Setting, choose, read_rule, to_json
from peakzoom.apps.watch.watch import watch
from peakzoom.evaluation.events import COUNTED, Interval, false_alarms, right_events
from peakzoom.inference.early_exit import Work
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.rejection import Rejection
from peakzoom.inference.temperature import Temperature
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess

CLASSES = ["wave", "nod", "kick"]
PRE = Preprocess(size=32, frames=4, stride=2, canvas=(32, 32)).to_dict()
NTH, LEADS = (1, 2, 4), (0.9, 0.5, 0.0)


def network(
    branches: tuple[str, ...] = ("original", "discriminative", "complementary"), **more: Any
) -> PeakZoom:
    """One whose predictions change from window to window, and from branch to branch."""
    torch.manual_seed(2)
    model = PeakZoom("tcnn_xs", 3, width=0.25, branches=branches, preprocess=PRE, classes=CLASSES, **more)
    with torch.no_grad():
        model.backbone.fc.weight *= 50
        if len(branches) > 1:
            model.fc_fused.weight *= 100
    return model.eval()


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.of(network(), "cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Timestamps jump in the middle, so there is a break; its frames are what 29.97 a second makes of them."""
    folder = tmp_path_factory.mktemp("broken")
    one, two = (odd_videos.write(folder / f"{name}.ts", "mpeg2video", 70) for name in ("one", "two"))
    path = folder / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    return path


@pytest.fixture(scope="module")
def full(recognizer: Recognizer, video: Path) -> Watched:
    return watch_files(recognizer, [video], WatchOptions())[video]


# What a replay says is what a watch does -----------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
@pytest.mark.parametrize("lead", [None, 0.0, 0.6, 0.9, 1.0])
def test_a_watch_sees_and_reports_what_was_replayed(
    recognizer: Recognizer, video: Path, full: Watched, nth: int, lead: float | None
) -> None:
    options = WatchOptions(threshold=0.4, keep=0.3, gap=0.1, nth=nth, exit_lead=lead)
    records = list(watch(recognizer, video, options))
    seen, expected = [each for each in records if isinstance(each, ScoredWindow)], thinned(full, nth, lead)
    assert len(full.windows) > 20 and any(isinstance(each, Break) for each in records)
    assert [(each.start, each.end, each.early or False) for each in seen] == [
        (each.start, each.end, each.early or False) for each in expected.windows
    ]
    for one, other in zip(seen, expected.windows, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    events = [each for each in records if isinstance(each, Event)]
    assert events == list(events_of(expected, options)) != []
    last = records[-1]
    early = sum(bool(each.early) for each in expected.windows)
    assert isinstance(last, Ended) and last.early == (None if lead is None else early)
    work = Work(3.0, 5.0)
    cost = (3.0 * len(seen) + 5.0 * (len(seen) - early)) / full.seconds
    assert cost_a_second({video: expected}, work) == pytest.approx(cost)


def test_some_windows_exit_and_some_do_not(full: Watched) -> None:
    shares = [
        sum(bool(each.early) for each in thinned(full, 1, lead).windows) for lead in (0.0, 0.6, 0.9, 1.0)
    ]
    assert shares[0] == len(full.windows) > shares[1] > shares[2] > shares[3] == 0
    changed = [each for each in full.windows if each.original is not None]
    assert any(not np.array_equal(each.scores, each.original) for each in changed)


def test_no_event_is_replayed_over_a_break(recognizer: Recognizer, video: Path, full: Watched) -> None:
    options = WatchOptions(threshold=0.0, ignore=["wave", "kick"], gap=100.0)
    reported = [each for each in watch(recognizer, video, options) if isinstance(each, Event)]
    assert list(events_of(full, options)) == reported and len(reported) > 1
    assert len(full.breaks) == 1 and 0 < full.breaks[0] < len(full.windows)


def test_a_watch_that_goes_on_counts_windows_that_exited(
    recognizer: Recognizer, video: Path, tmp_path: Path
) -> None:
    options = WatchOptions(threshold=0.4, nth=2, exit_lead=0.9)
    settings = watch_settings(recognizer, str(video), options, 5)

    def go(folder: Path) -> list[dict[str, Any]]:
        with WatchFolder(folder, settings, 5, resume=True) as out:
            for record in watch(recognizer, video, options, past=out.past):
                out.add(record)
        lines = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
        return [{key: value for key, value in each.items() if key != "took"} for each in lines]

    whole = go(tmp_path / "whole")
    said = [each["early"] for each in whole if each["type"] == "window"]
    assert whole[-1]["early"] == sum(said) and 0 < sum(said) < len(said)
    written = (tmp_path / "whole" / LINES).read_bytes()
    go(tmp_path / "killed")
    (tmp_path / "killed" / LINES).write_bytes(written[: len(written) // 2])
    assert go(tmp_path / "killed") == whole
    usual = watch_settings(recognizer, str(video), WatchOptions(), 5)
    assert "nth" not in usual and usual["exit_lead"] is None  # folders of before go on


def test_models_that_cannot_exit_early(recognizer: Recognizer, video: Path) -> None:
    options = WatchOptions(exit_lead=0.5)
    several = Recognizer.of(network(thresholds=(0.5, 0.5, 0.5)), "cpu")
    views, weights = Views(clips=1, crops=1), str(recognizer.weights)
    given: dict[str, Any] = {"temperature": Temperature(2.0, weights, views)}
    tempered = Recognizer(recognizer.engine, recognizer.model, **given)
    rejecting = Recognizer(
        recognizer.engine, recognizer.model, rejection=Rejection("probability", 0.5, weights, views)
    )
    for model, said in (
        (several, "for several labels a video"),
        (tempered, "--calibrated is for scores of all branches"),
        (rejecting, "--reject is for scores of all branches"),
    ):
        with pytest.raises(UserError, match=said):
            watch(model, video, options)
    for value in (-0.1, 1.5, math.nan):
        with pytest.raises(UserError, match="exit-lead is"):
            WatchOptions(exit_lead=value)
    with pytest.raises(UserError, match="nth is 0, expected at least 1"):
        WatchOptions(nth=0)


# The choice ----------------------------------------------------------------------------------------------------------


def made_up(seed: int) -> tuple[dict[Path, Watched], list[Interval]]:
    """Two videos of windows of two seconds, one a second; the original branch sees less than all of them do."""
    draw = np.random.default_rng(seed)
    watched: dict[Path, Watched] = {}
    labelled: list[Interval] = []
    for file in (Path("a"), Path("b")):
        truth = np.zeros((48, 3))
        for start in range(4 + int(draw.integers(4)), 40, 12):
            kind, length = int(draw.integers(2)), 5 + int(draw.integers(4))
            truth[start : start + length, kind] = 1
            labelled.append(Interval(file, start + 0.5, start + length + 0.5, CLASSES[kind]))
        truth[:, 2] = 1 - truth.sum(1)
        windows = []
        for at, row in enumerate(truth):
            scores = [
                np.exp(4 * row + noise * draw.normal(size=3)) for noise in (1.0 + 0.3 * (seed % 4), 2.0)
            ]  # of all, of the original
            one, other = (each / each.sum() for each in scores)
            windows.append(ScoredWindow(at, at + 2.0, CLASSES, one, None, 8, None, original=other))
        watched[file] = Watched(windows, 49.0, 2.0, 1.0, [], (20,) if seed % 2 else ())
    return watched, labelled


def plain_names(rows: list[np.ndarray], threshold: float, keep: float) -> list[str | None]:
    names: list[str | None] = []
    for row in rows:
        name = CLASSES[int(row.argmax())]
        level = keep if names and names[-1] == name else threshold
        names.append(name if name != "kick" and row.max() >= level else None)
    return names


def plainly(
    watched: dict[Path, Watched],
    nth: int,
    lead: float | None,
    rule: tuple[float, float, float, float],
    begin: int = 0,
) -> tuple[list[Interval], float]:
    """The events of one rule and its cost a second, read plainly: no code of the choice, nor of the watch."""
    threshold, keep, gap, shortest = rule
    found, spent = [], 0.0
    for file, video in watched.items():
        borders = [0, *video.breaks, len(video.windows)]
        for first, last in pairwise(borders):
            chosen = sorted({*range(first + begin, last, nth), last - 1})
            rows, said = [], []
            for at in chosen:
                window = video.windows[at]
                assert window.original is not None
                second, best = np.sort(window.original)[-2:]
                early = lead is not None and best - second >= lead
                spent += 1.0 if early else 3.0
                rows.append(window.original if early else window.scores)
            for at, row, name in zip(chosen, rows, plain_names(rows, threshold, keep), strict=True):
                window = video.windows[at]
                said.append((window.start - first, window.end - first, name, float(row.max())))
            found += [
                Interval(file, each.start + first, each.end + first, each.name, each.score)
                for each in by_instants(said, gap)
                if each.end - each.start >= shortest
            ]
    return found, spent / sum(video.seconds for video in watched.values())


def scored(
    watched: dict[Path, Watched],
    labelled: list[Interval],
    nth: int,
    lead: float | None,
    rule: tuple[float, float, float, float],
) -> tuple[float, float, float]:
    """F1 and false alarms, means over all windows that a watch may begin with; and its cost where it begins with 0."""
    seen = [plainly(watched, nth, lead, rule, begin) for begin in range(nth)]
    f1s = [2 * right_events(labelled, events, COUNTED) / (len(labelled) + len(events)) for events, _ in seen]
    return sum(f1s) / nth, sum(false_alarms(labelled, events) for events, _ in seen) / nth, seen[0][1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("allowed", [0.0, 300.0])
def test_the_choice_is_the_cheapest_of_all(
    monkeypatch: pytest.MonkeyPatch, seed: int, allowed: float
) -> None:
    grids = {"THRESHOLDS": (0.5, 0.7, 0.9), "KEEPS": (1.0, 0.6), "GAPS": (0.0, 1.0), "SHORTEST": (0.0, 1.5)}
    for name, values in {**grids, "NTH": NTH, "LEADS": LEADS}.items():
        monkeypatch.setattr(rules, name, values)
    watched, labelled = made_up(seed)
    options = WatchOptions(ignore=["kick"])
    rule = choose(watched, labelled, options, allowed, "w", Work(1.0, 2.0))
    hours, best = 98 / 3600, {}
    for nth, lead in product(NTH, (None, *LEADS)):
        for threshold, keep, gap, shortest in product(*grids.values()):
            tried = threshold, round(keep * threshold, 4), gap * nth, shortest * 2
            f1, alarms, cost = scored(watched, labelled, nth, lead, tried)
            if alarms / hours <= allowed:
                best[nth, lead] = max(best.get((nth, lead), (0.0, 0.0)), (f1, cost))
    reference = best.get((1, None), max(best.values()))[0]
    cheapest = min(cost for f1, cost in best.values() if f1 >= reference - 0.01)
    assert rule.chosen.multiply_adds_a_second == pytest.approx(cheapest)
    assert rule.chosen.f1 >= reference - 0.01
    if (1, None) in best:
        assert rule.full is not None and rule.full.f1 == pytest.approx(best[1, None][0])
        assert rule.cost == pytest.approx(cheapest / (3 * 96 / 98))
        least = [f1 for f1, cost in best.values() if cost <= 0.2 * 3 * 96 / 98]
        dear = rule.cost is not None and rule.cost > 0.2
        assert (rule.cheap and rule.cheap.f1) == (pytest.approx(max(least)) if dear and least else None)
    mine = rule.chosen
    f1, alarms, cost = scored(
        *(watched, labelled, mine.nth, mine.exit_lead),
        (mine.threshold, mine.keep, mine.gap, mine.shortest),
    )
    assert cost == pytest.approx(mine.multiply_adds_a_second)
    assert f1 == pytest.approx(mine.f1)
    assert alarms / hours == pytest.approx(mine.false_alarms_an_hour)
    at_full = choose(watched, labelled, options, 1e9, "w", Work(1.0, 2.0), cheaper=False)
    assert at_full.chosen == at_full.full and (at_full.chosen.nth, at_full.chosen.exit_lead) == (1, None)


def test_what_fewer_windows_find_by_luck_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each action shows in one window, which happens to be a third one: who begins a second later sees none."""
    monkeypatch.setattr(rules, "NTH", (1, 3))
    windows = []
    for at in range(60):
        score = 0.9 if at % 12 == 6 else 0.0
        scores = np.array([score, 0.0, 1 - score])
        windows.append(ScoredWindow(at, at + 2.0, CLASSES, scores, None, 8, None, original=scores))
    watched = {Path("a"): Watched(windows, 61.0, 2.0, 1.0, [], ())}
    labelled = [Interval(Path("a"), at, at + 2.0, "wave") for at in range(6, 60, 12)]
    rule = choose(watched, labelled, WatchOptions(ignore=["kick"]), 0.0, "w", Work(1.0, 0.0, 0))
    assert rule.chosen == rule.full and rule.chosen.nth == 1 and rule.chosen.f1 == 1.0


def test_a_model_of_one_branch_has_no_exit(video: Path) -> None:
    model = Recognizer.of(network(("original",)), "cpu")
    seen = watch_files(model, [video], WatchOptions())
    for each in seen[video].windows:
        np.testing.assert_array_equal(each.scores, each.original)
    events = [
        Interval(video, each.start, each.end, each.name) for each in events_of(seen[video], WatchOptions())
    ]
    rule = choose(seen, events, WatchOptions(), 1e6, "w", Work(1.0, 0.001, 0))
    assert rule.chosen.exit_lead is None and rule.chosen.early == 0
    assert rule.full is not None and rule.full.f1 == 1.0


# The file ------------------------------------------------------------------------------------------------------------

OLD = {
    **{"threshold": 0.9, "keep": 0.72, "gap": 0.75, "shortest": 0.75, "every": 1.5, "ignore": ["nothing"]},
    **{"f1": 0.91, "false_alarms_an_hour": 0.0, "allowed": 6.0, "share": 0.5, "weights": "0123abcd"},
}
SOME = Rule(
    Setting(0.9, 0.72, 0.75, 0.75, None, 0.9, 2.0, 0.5, 2, 0.8, 0.6, 1.25),
    Setting(0.8, 0.8, 0.0, 0.0, None, 0.91, 1.0, 1.0, multiply_adds_a_second=7.5),
    ("nothing",),
    6.0,
    "0123abcd",
    Setting(0.8, 0.8, 0.0, 0.0, None, 0.5, 1.0, 0.1, 4, 0.0, 1.0, 0.5),
)
VALUES: list[Any] = [
    *(None, "x", "", [], [1], {}, {"a": 1}, True, -1, 0, 0.5, 1e300, 10**30, -1e300, 2, 7.0, 10**400),
    *(math.nan, math.inf, -math.inf, "1" * 500, [None], [[]], ["a", 3], "\ud800", "a\nb", ["\ud800"]),
]


def read(folder: Path, text: str | bytes) -> Rule | str:
    """What a run with this file has, or the sentence that is said of it."""
    file = folder / "events" / "rule.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        found = read_rule(folder)
    except UserError as error:
        said = str(error)
        assert (
            said.isprintable() and str(file) in said and "calibrate --events" in said and len(said) < 600
        ), said
        return said
    assert found is not None
    for each in (found, found.at_full_cost() if found.full else found):
        options = each.options(WatchOptions())
        assert options.nth >= 1 and 0 <= options.level <= 1 and json.loads(to_json(each))
    return found


def test_a_rule_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_rule(tmp_path) is None
    assert read(tmp_path, to_json(SOME)) == SOME and SOME.cost == pytest.approx(1 / 6)
    options = SOME.options(WatchOptions(crops=3))
    assert (options.nth, options.exit_lead, options.crops, options.ignore) == (2, 0.8, 3, ["nothing"])
    assert SOME.options(WatchOptions(ignore=["kick"])).ignore == ["kick"]
    whole = SOME.at_full_cost().options(WatchOptions())
    assert (whole.threshold, whole.nth, whole.exit_lead) == (0.8, 1, None)


def test_a_file_from_before_the_early_exit(tmp_path: Path) -> None:
    found = read(tmp_path, json.dumps(OLD))
    assert isinstance(found, Rule) and found.full is None and found.cost is None
    assert found.options(WatchOptions()) == WatchOptions(
        threshold=0.9, keep=0.72, gap=0.75, shortest=0.75, every=1.5, ignore=["nothing"]
    )
    with pytest.raises(UserError, match="no rule for events at the full cost"):
        found.at_full_cost()


@pytest.mark.parametrize("base", [OLD, json.loads(to_json(SOME))])
def test_one_value_of_a_rule_at_a_time(tmp_path: Path, base: dict[str, Any]) -> None:
    counts: Counter[type] = Counter()
    full = base.get("full")
    for name, value in product(base, VALUES):
        counts[type(read(tmp_path, json.dumps({**base, name: value})))] += 1
    for name, value in product(full or (), VALUES):
        counts[type(read(tmp_path, json.dumps({**base, "full": {**full, name: value}})))] += 1
    assert counts[str] > 10 * counts[Rule] / 3 > 0, counts
    for name in OLD:
        said = read(tmp_path, json.dumps({key: value for key, value in base.items() if key != name}))
        assert isinstance(said, str) and "is missing" in said and name in said
    assert isinstance(read(tmp_path, json.dumps({**base, "more": 1})), Rule)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"1",
        b"{}",
        100_000 * b"[",
        b'{"full": 1}',
        to_json(SOME)[:-20].encode(),
    ],
)
def test_another_file_in_place_of_a_rule(tmp_path: Path, text: bytes) -> None:
    assert isinstance(read(tmp_path, text), str)


def test_a_keep_above_the_threshold(tmp_path: Path) -> None:
    said = read(tmp_path, json.dumps({**OLD, "keep": 0.95}))
    assert "keep is 0.95, expected at most the threshold, 0.9" in str(said)
