"""The table of what ``localise.py`` wrote: a line a variant, mean over its seeds (lowest to highest).

python benchmarks/localised.py found.jsonl [--sort pointing]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEADER = (
    "| variant | epochs, seeds | G | accuracy, difficulty 0.2 | 0.5 | 0.7 | pointing, 0.2 | hand, head, foot "
    "| best three | 4 pixels' slack | times movement | pointing, 0.7 | D, C enlarge |\n" + "|---" * 13 + "|"
)
REAL = "| variant | real clips | start | seeds | right of all | nats |\n" + "|---" * 6 + "|"


def spread(values: Iterable[float], form: str = ".1f") -> str:
    """Mean, and lowest to highest where there are several."""
    values = list(values)
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def rendered(rows: list[dict[str, Any]]) -> str:
    def of(difficulty: str, key: str, form: str = ".1f") -> str:
        return spread([row[difficulty][key] for row in rows], form)

    def mean(key: str) -> str:
        return f"{statistics.mean(row['0.2'][key] for row in rows):.0f}"

    first = rows[0]
    parts = ", ".join(mean(f"frame {part}") for part in ("hand", "head", "foot"))
    cells = [
        first["variant"], f"{first['epochs']}, {len(rows)}", f"{first['G multiply-adds']:.3f}", of("0.2", "accuracy"),
        of("0.5", "accuracy"), of("0.7", "accuracy"), of("0.2", "frame"), parts, mean("frame best 3"),
        mean("frame strict"), mean("times movement"), of("0.7", "frame", ".0f"),
        ", ".join(f"{statistics.mean(row['0.2'][side] for row in rows):.2f}" for side in "DC"),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def real(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    start = f"{first['start clips']} rendered" if first["start"] else "scratch"
    right = spread([row["right"] for row in rows])
    return (
        f"| {first['variant']} | {first['real']} | {start} | {len(rows)} | {right} of {first['clips']} "
        f"| {spread([row['nats'] for row in rows], '.2f')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("found", type=Path, nargs="+")
    parser.add_argument("--sort", choices=["pointing", "accuracy", "name"], default="pointing")
    asked = parser.parse_args()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for file in asked.found:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "real" in row:
                key = ("real", row["real"], row["start"], row["start clips"], row["variant"])
            else:
                key = ("rendered", row["clips"], row["epochs"], row["variant"])
            groups[key].append(row)

    def rank(rows: list[dict[str, Any]]) -> Any:
        if asked.sort == "name":
            return rows[0]["variant"]
        if asked.sort == "accuracy":
            return -statistics.mean(row["0.2"]["accuracy"] for row in rows)
        return -statistics.mean(row["0.2"]["frame"] for row in rows)

    trained = [rows for key, rows in groups.items() if key[0] == "rendered"]
    if trained:
        print(HEADER)
        print("\n".join(rendered(rows) for rows in sorted(trained, key=rank)))
    folds = [rows for key, rows in groups.items() if key[0] == "real"]
    if folds:
        print(f"\n{REAL}")
        print("\n".join(real(rows) for rows in sorted(folds, key=lambda rows: rows[0]["variant"])))


if __name__ == "__main__":
    main()
