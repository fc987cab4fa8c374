"""The tables of what ``localise.py`` and ``readings_trained.py`` wrote: a line a variant, mean over its seeds.

    python benchmarks/localised.py found.jsonl [--sort pointing]
    python benchmarks/localised.py real.jsonl --pair "field=local,stride=8" today    # a paired test, first less second

Lowest and highest of the seeds stand in brackets; intervals (95%) and tests draw and flip whole groups of clips, each
clip's mean over the seeds. A name of ``--pair`` may end in ``@START`` and ``@START@EPOCHS``; what neither name says is
the same in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from peakzoom.evaluation.stats import bootstrap_interval, paired_test

HEADER = (
    "| variant | epochs, seeds | G | accuracy, difficulty 0.2 | 0.5 | 0.7 | pointing, 0.2 | hand, head, foot "
    "| best three | 4 pixels' slack | times movement | pointing, 0.7 | D, C enlarge |\n" + "|---" * 13 + "|"
)
REAL = (
    "| variant | real clips | start | epochs | seeds | right of all | accuracy, % | 95% interval over groups | nats "
    "|\n" + "|---" * 9 + "|"
)
PAIRS = (
    "| network | against | real clips | start, epochs | points | 95% interval | p | clips better, equal, worse "
    "| nats less | 95% interval | p |\n" + "|---" * 11 + "|"
)
READINGS = (
    "| reading | input | seeds | steps | G | M | ms a step | accuracy | nats | highest peak | hand, head, foot "
    "| best three | middle of the frame | random place |\n" + "|---" * 14 + "|"
)
Rows = list[dict[str, Any]]


def spread(values: Iterable[float], form: str = ".1f") -> str:
    """Mean, and lowest to highest where there are several."""
    values = list(values)
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def mean_parts(rows: Rows) -> str:
    """Pointing by part."""
    parts = ("hand", "head", "foot")
    return ", ".join(f"{statistics.mean(row['0.2'][f'frame {part}'] for row in rows):.0f}" for part in parts)


def rendered(rows: Rows) -> str:
    def of(difficulty: str, key: str, form: str = ".1f") -> str:
        return spread([row[difficulty][key] for row in rows], form)

    def mean(key: str) -> str:
        return f"{statistics.mean(row['0.2'][key] for row in rows):.0f}"

    first = rows[0]
    cells = [
        first["variant"], f"{first['epochs']}, {len(rows)}", f"{first['G multiply-adds']:.3f}", of("0.2", "accuracy"),
        of("0.5", "accuracy"), of("0.7", "accuracy"), of("0.2", "frame"), mean_parts(rows), mean("frame best 3"),
        mean("frame strict"), mean("times movement"), of("0.7", "frame", ".0f"),
        ", ".join(f"{statistics.mean(row['0.2'][side] for row in rows):.2f}" for side in "DC"),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def start_of(row: dict[str, Any]) -> str:
    """In older rows only whether there was one."""
    if row["start clips"]:
        return f"{row['start clips']} rendered"
    return row["start"] or "scratch"


def outcomes(rows: Rows) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Right and nats, (seeds, clips) each, and the clips' groups."""
    chances = np.array([row["outcomes"]["chances"] for row in rows])
    labels = np.array(rows[0]["outcomes"]["label"])
    true = np.take_along_axis(chances, np.broadcast_to(labels[:, None], (*chances.shape[:2], 1)), 2)[..., 0]
    right = chances.argmax(2) == labels
    return right.astype(float), -np.log(np.maximum(true, 1e-9)), rows[0]["outcomes"]["group"]


def real(rows: Rows) -> str:
    first, interval = rows[0], ""
    if "outcomes" in first:
        right, _, groups = outcomes(rows)
        low, high = bootstrap_interval(right, groups)
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
    return (
        f"| {first['variant']} | {first['real']} | {start_of(first)} | {first['epochs']} | {len(rows)} "
        f"| {spread([row['right'] for row in rows])} of {first['clips']} | {spread([row['accuracy'] for row in rows])} "
        f"| {interval} | {spread([row['nats'] for row in rows], '.3f')} |"
    )


def differences(one: Rows, other: Rows) -> tuple[np.ndarray, np.ndarray, list[str], str]:
    """Of each clip, over the seeds that both have: points, nats less, its group, and the name of its set."""
    seeds = {row["seed"] for row in one} & {row["seed"] for row in other}
    both = [
        outcomes(sorted((row for row in rows if row["seed"] in seeds), key=lambda row: row["seed"]))
        for rows in (one, other)
    ]
    points = 100 * (both[0][0].mean(0) - both[1][0].mean(0))
    return points, both[1][1].mean(0) - both[0][1].mean(0), both[0][2], one[0]["real"]


def paired(sets: list[tuple[Rows, Rows]]) -> str:
    """The first less the second; of several sets of clips, all clips together."""
    found = [differences(one, other) for one, other in sets]
    one, other = sets[0]
    groups = [f"{name} {group}" for _, _, each, name in found for group in each]
    right = paired_test(np.concatenate([points for points, *_ in found]), groups)
    nats = paired_test(np.concatenate([less for _, less, *_ in found]), groups)
    starts = [f"{start_of(rows[0])}, {rows[0]['epochs']}" for rows in (one, other)]
    cells = [
        one[0]["variant"], other[0]["variant"], " + ".join(name for *_, name in found),
        " against ".join(dict.fromkeys(starts)), f"{right.difference:+.1f}",
        f"{right.interval[0]:+.1f} to {right.interval[1]:+.1f}", f"{right.p:.3f}",
        f"{right.better}, {right.equal}, {right.worse}", f"{nats.difference:+.3f}",
        f"{nats.interval[0]:+.3f} to {nats.interval[1]:+.3f}", f"{nats.p:.3f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def pairs(sets: list[Rows], names: list[str]) -> Iterable[tuple[Rows, Rows]]:
    """Sets of the two names that are alike in all that neither says."""

    def value(rows: Rows, key: str) -> str:
        return start_of(rows[0]) if key == "start" else str(rows[0][key])

    said = [dict(zip(("variant", "start", "epochs"), name.split("@"), strict=False)) for name in names]
    free = {"real", "start", "epochs"} - set(said[0]) - set(said[1])
    found = [
        [rows for rows in sets if all(value(rows, key) == each for key, each in want.items())]
        for want in said
    ]
    for one in found[0]:
        for other in found[1]:
            if one is not other and all(value(one, key) == value(other, key) for key in free):
                yield one, other


def reading(rows: Rows) -> str:
    first = rows[0]
    easy = [row["0.2"] for row in rows]
    cells = [
        first["reading"], "frames and motion" if first["motion"] else "frames", str(len(rows)), str(first["steps"]),
        f"{first['G multiply-adds']:.2f}", f"{first['M parameters']:.1f}",
        spread([row["ms a step"] for row in rows]), spread([each["accuracy"] for each in easy]),
        spread([each["nats"] for each in easy], ".2f"), spread([each["frame"] for each in easy]), mean_parts(rows),
        spread([each["frame best 3"] for each in easy]), f"{first['middle']:.1f}", f"{first['random']:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def kind_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What the rows of one line share."""
    if "reading" in row:
        return ("reading", not row["motion"], row["steps"], row["reading"])
    if "real" in row:
        return ("real", row["real"], start_of(row), row["epochs"], row["variant"])
    return ("rendered", row["clips"], row["epochs"], row["variant"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("found", type=Path, nargs="+")
    parser.add_argument("--sort", choices=["pointing", "accuracy", "name"], default="pointing")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar="VARIANT")
    parser.add_argument(
        "--pooled", action="store_true", help="test each pair over all sets of clips together, too"
    )
    asked = parser.parse_args()
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for file in asked.found:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            groups[kind_of(row)].append(row)

    def rank(rows: Rows) -> Any:
        if asked.sort == "name":
            return rows[0]["variant"]
        key = "accuracy" if asked.sort == "accuracy" else "frame"
        return -statistics.mean(row["0.2"][key] for row in rows)

    def of(kind: str) -> list[Rows]:
        return [groups[key] for key in sorted(key for key in groups if key[0] == kind)]

    if trained := of("rendered"):
        print(f"{HEADER}\n" + "\n".join(rendered(rows) for rows in sorted(trained, key=rank)))
    if folds := of("real"):
        print(f"\n{REAL}\n" + "\n".join(map(real, folds)))
        with_outcomes = [rows for rows in folds if "outcomes" in rows[0]]
        tests = []
        for names in asked.pair:
            both = list(pairs(with_outcomes, names))
            tests += [paired([each]) for each in both]
            if asked.pooled and len(both) > 1:
                tests.append(paired(both))
        print(f"\n{PAIRS}\n" + "\n".join(tests) if tests else "")
    if readings := of("reading"):
        print(f"\n{READINGS}\n" + "\n".join(map(reading, readings)))


if __name__ == "__main__":
    main()
