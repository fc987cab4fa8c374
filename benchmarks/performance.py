"""Measures the tables of benchmarks/performance.md again, in place: ``make bench``.

The log's text stays; what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is replaced by the table of that name
and a line that says when, where and by which command it was made. ``pages.py`` brings docs/performance.md after it.

    python benchmarks/performance.py                        # all of them, about forty minutes on two cores
    python benchmarks/performance.py --only growth          # one
    python benchmarks/performance.py --study studies/ut-pre --row tcnn_xsx0.5-ODC    # that of the cascade too
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import takewhile
from pathlib import Path

import attention_cost
import cascade
import compiled
import decoding
import growth
import inference
import layers
import loader
import soak
import training
from blocks import replaced
from timing import machine

LOG = Path(__file__).with_name("performance.md")


@cache
def printed(command: str) -> str:
    """What a script prints, from a process of its own: how memory is allocated is part of what it measures.

    Args:
        command: script and arguments.
    """
    script, *arguments = command.split()
    called = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    return subprocess.run(called, check=True, stdout=subprocess.PIPE, text=True).stdout


def by_itself(command: str, header: str) -> list[str]:
    """The rows of the last table that a script prints under a header."""
    below = printed(command).rsplit(header, 1)[1].lstrip("\n")
    return list(takewhile(lambda line: line.startswith("|"), below.splitlines()))


TABLES: dict[str, tuple[str, str, Callable[[], Iterable[str]]]] = {  # name: script, header, rows
    name: (command, header, partial(by_itself, command, header))
    for name, command, header in (
        ("inference", "inference.py --rounds 5 --device cpu", inference.HEADER),
        ("layers", "layers.py --clips 3", layers.HEADER),
        ("attention", "attention_cost.py --rounds 7 --device cpu", attention_cost.SHARE_HEADER),
        ("published", "attention_cost.py --rounds 7 --device cpu", attention_cost.PUBLISHED_HEADER),
        ("training", "training.py --rounds 9 --device cpu", training.HEADER),
        ("compiled", "compiled.py --rounds 5 --device cpu", compiled.HEADER),
        ("loader", "loader.py --rounds 3 --device cpu", loader.HEADER),
        ("decoders", "decoding.py --rounds 5", decoding.DECODERS_HEADER),
        ("shares", "decoding.py --rounds 5", decoding.SHARES_HEADER),
        ("soak", "soak.py --videos 1000", soak.HEADER),
    )
}
TABLES["growth"] = ("growth.py --rounds 3", growth.HEADER, partial(growth.rows, 3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=[*TABLES, "cascade"])
    parser.add_argument("--study", type=Path)
    parser.add_argument("--row", default="tcnn_xs-ODC")
    asked = parser.parse_args()
    tables = dict(TABLES)
    if asked.study:
        command = f"cascade.py {asked.study} {asked.row}"
        tables["cascade"] = (command, cascade.HEADER, lambda: cascade.rows(asked.study, asked.row, 0.2))
    for name, (command, header, rows) in tables.items():
        if asked.only and name not in asked.only:
            continue
        print(f"{name} ...", flush=True)
        made = f"{datetime.date.today():%-d %B %Y}, {machine()}: `python benchmarks/{command}`"
        lines = [made, "", *header.splitlines(), *rows()]
        print("\n".join(lines), flush=True)
        LOG.write_text(replaced(LOG.read_text(encoding="utf-8"), name, lines), encoding="utf-8")
    if "cascade" not in tables:
        print("cascade: left as it is; name a --study to make it again (docs/studies.md)")
    print("python benchmarks/pages.py brings docs/performance.md after the log")


if __name__ == "__main__":
    main()
