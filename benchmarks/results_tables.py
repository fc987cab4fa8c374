"""Tables of docs/results.md and its log from the stored predictions, docs/results/*.jsonl; ``pages.py`` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from blocks import Row, markdown
from localised import Rows, differences, outcomes, start_of

from peakzoom.evaluation.stats import PairedTest, bootstrap_interval, paired_test

STORED = Path(__file__).resolve().parents[1] / "docs" / "results"
SETS = ("ut_interaction", "weizmann")
LOCAL = "field=local,stride=8,pool=0.5*mean+0.5*best:2,extra=quiet:1"
SCRATCH = "from scratch"
AS_LONG = "O, as many passes as O + D + C"
TRAINED = {  # a variant of branches.jsonl: its name on the page, passes for a training clip, passes for a test video
    SCRATCH: ("T-CNN, 50 epochs, from scratch", 50, 4),
    "T-CNN": ("T-CNN, 50 epochs", 50, 4),
    "O + D": ("then O + D, 25 epochs", 100, 8),
    "O + D + C": ("then O + D + C, 25 epochs", 125, 12),
    AS_LONG: ("then O alone, 75 epochs (recipe `small`)", 125, 4),
    f"{AS_LONG}, 12 clips": ("the same, 12 clips of a test video", 125, 12),
}
SHORTCUTS = ("numbers of the file", "one still frame", "where pixels change")
PAIRS = (
    ("O + D + C", f"{AS_LONG}, 12 clips", "O + D + C less O alone, as many passes in training and test"),
    ("O + D", AS_LONG, "O + D less O alone (125 passes to its 100)"),
    (AS_LONG, "T-CNN", "O alone, 75 epochs more, less the T-CNN of 50"),
    ("T-CNN", SCRATCH, "T-CNN from the start less from scratch"),
)
NETWORKS = {  # a variant of real.jsonl: network and width, and where its multiply-adds stand
    "today": ("tcnn_xs", "0.5"),
    "width=1": ("tcnn_xs", "1"),
    LOCAL: ("tcnn_xs_local", "0.5"),
    f"{LOCAL},width=1": ("tcnn_xs_local", "1"),
}


def stored(name: str) -> Rows:
    """The rows of one file."""
    lines = (STORED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def of_variant(variant: str) -> dict[str, Rows]:
    """The rows of a network in TRAINED, by set of clips."""
    rows = stored("branches")
    if variant == SCRATCH:
        variant, rows = f"{LOCAL},width=1", [row for row in stored("real") if start_of(row) == "scratch"]
    return {name: [row for row in rows if (row["variant"], row["real"]) == (variant, name)] for name in SETS}


def measured(rows: Rows) -> list[str]:
    """Accuracy with its interval by groups in %, and the negative log-likelihood in nats."""
    right, nats, groups = outcomes(rows)
    low, high = bootstrap_interval(right, groups)
    return [f"{100 * right.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})", f"{nats.mean():.3f}"]


def giga(network: str) -> float:
    """G multiply-adds of a pass at width 1."""
    return next(row["G multiply-adds"] for row in stored("named") if row["network"] == network)


def real(log: Sequence[Row]) -> list[str]:
    """Shortcuts from the log, and the branches from their predictions."""
    header = ["", "passes", "G", "UT-Interaction", "NLL", "Weizmann", "NLL"]
    rows = [
        [f"*shortcut*: {row['trained']}", "", "", row["UT-Interaction"], "", row["Weizmann"], ""]
        for row in log
        if row["trained"] in SHORTCUTS
    ]
    for variant, (name, passes, tested) in TRAINED.items():
        found = of_variant(variant)
        cells = [cell for each in SETS for cell in measured(found[each])]
        rows.append([name, str(passes), f"{tested * giga('tcnn_xs_local'):.1f}", *cells])
    return markdown(header, rows)


def small(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def test_of(values: Sequence[np.ndarray], groups: Sequence[str]) -> PairedTest:
    return paired_test(np.concatenate(values), groups)


def pairs() -> list[str]:
    """Both sets of clips together, paired by groups."""
    rows = []
    for one, other, name in PAIRS:
        first, second = of_variant(one), of_variant(other)
        found = [differences(first[each], second[each]) for each in SETS]
        groups = [f"{data} {group}" for _, _, each, data in found for group in each]
        points = test_of([each[0] for each in found], groups)
        nats = test_of([each[1] for each in found], groups)
        rows.append([
            name, f"{points.difference:+.1f} ({points.interval[0]:+.1f} to {points.interval[1]:+.1f})",
            small(points.p), f"{points.better}, {points.equal}, {points.worse}",
            f"{nats.difference:+.3f} ({nats.interval[0]:+.3f} to {nats.interval[1]:+.3f})", small(nats.p),
        ])  # fmt: skip
    return markdown(["both sets, in pairs", "points", "p", "better, equal, worse", "NLL less", "p"], rows)


def networks(log: Sequence[Row]) -> list[str]:
    """Each small network, from scratch and from the weights of the package: real clips, and where its maps are high."""
    peak = "highest peak (hand, head, foot)"
    marked = {(row["network, width"], row["from"]): row[peak].replace("*", "") for row in log}
    rows: list[list[str]] = []
    for start in ("scratch", "start"):
        for variant, (network, width) in NETWORKS.items():
            chosen = [row for row in stored("real") if (row["variant"], start_of(row)) == (variant, start)]
            by_set = {name: [row for row in chosen if row["real"] == name] for name in SETS}
            if (network, width, start) == ("tcnn_xs_local", "1", "start"):
                by_set = of_variant("T-CNN")  # from the weights that the package has today
            if all(by_set.values()):
                named = f"`{network}`, {width}"
                accuracies = [measured(by_set[name])[0] for name in SETS]
                rows.append([named, start, *accuracies, marked.get((named, start), "")])
    return markdown(["network, width", "from", "UT-Interaction", "Weizmann", peak], rows)


def said(p: float) -> str:
    return f"p {small(p)}" if p < 0.001 else f"p = {small(p)}"


def native() -> list[str]:
    """Small actions at 1080 lines: the zoomed video read from the input, and from native frames, in one sentence."""
    found = [
        [row for row in stored("native") if row["variant"] == name]
        for name in ("from the input", "from native frames")
    ]
    said_of = []
    for rows in found:
        right, nats, groups = outcomes(rows)
        low, high = bootstrap_interval(right, groups)
        spent = np.mean([row["network ms"] for row in rows])
        said_of.append(
            f"{100 * right.mean():.1f}% ({100 * low:.1f} to {100 * high:.1f}; {nats.mean():.3f} nats, {spent:.0f} ms)"
        )
    points, nats_less, groups, _ = differences(found[1], found[0])
    more, less = paired_test(points, groups), paired_test(nats_less, groups)
    return [
        f"Read from the input {said_of[0]}, from native frames {said_of[1]}: {more.difference:+.1f} points "
        f"({more.interval[0]:+.1f} to {more.interval[1]:+.1f}, {said(more.p)}), {less.difference:.3f} nats less "
        f"({less.interval[0]:.3f} to {less.interval[1]:.3f}, {said(less.p)})."
    ]


KINDS = {
    "given": "`tcnn_xs`, width 0.5",
    "inherited": "the same, from the large network",
    "found": "found by searches",
    "random": "drawn at random",
}
SEARCHED = {  # the folder of the data: its name on the page, and what its groups are
    "clips": ("generated", "performers"),
    "tempos-start": ("generated, slow and fast, from the start", "performers"),
    "ut_interaction-start": ("UT-Interaction, from the start", "sequences"),
}


def searched() -> list[str]:
    """Searched networks beside the given one and random ones of its cost: means over networks and seeds."""
    every = stored("searched")
    rows, said_of = [], []
    for name, (title, groups_are) in SEARCHED.items():
        kinds = {
            kind: [row for row in every if (row["set"], row["network"].rstrip("0123456789")) == (name, kind)]
            for kind in KINDS
        }
        if not kinds["given"]:
            continue
        groups, right = kinds["given"][0]["group"], {}
        for kind, found in kinds.items():
            if not found:
                continue
            each = np.array([[row["right"][seed] for seed in sorted(row["right"])] for row in found], float)
            right[kind] = each.mean((0, 1))
            low, high = bootstrap_interval(each.reshape(-1, each.shape[-1]), groups)
            spread = ", ".join(f"{100 * value:.1f}" for value in each.mean((1, 2)))
            rows.append([
                title if kind == "given" else "", KINDS[kind], span(found, "G multiply-adds", 3),
                span(found, "M parameters", 2), f"{100 * each.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})",
                spread if len(found) > 1 else "",
            ])  # fmt: skip
        pairs_of = []
        for other, called in (
            ("given", "`tcnn_xs`"),
            ("inherited", "`tcnn_xs` from there"),
            ("random", "random"),
        ):
            if other not in right:
                continue
            test = paired_test(100 * (right["found"] - right[other]), groups)
            low, high = test.interval
            pairs_of.append(
                f"found less {called} {test.difference:+.1f} points ({low:+.1f} to {high:+.1f}, {said(test.p)})"
            )
        said_of.append(f"- {title[0].upper()}{title[1:]}, by {groups_are}: {'; '.join(pairs_of)}.")
    header = ["videos", "network", "G", "M parameters", "accuracy", "each"]
    return [*markdown(header, rows), "", *said_of]


def span(rows: Rows, key: str, digits: int) -> str:
    low, high = (f"{each(row[key] for row in rows):.{digits}f}" for each in (min, max))
    return low if low == high else f"{low} to {high}"
