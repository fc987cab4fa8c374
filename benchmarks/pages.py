"""Writes tables and charts of docs/performance.md, docs/results.md and the log from stored figures; measures nothing.

    python benchmarks/pages.py

The figures are the tables of benchmarks/performance.md and benchmarks/results.md, which the benchmarks print, and the
predictions in docs/results/*.jsonl. A page's text stays; what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is
replaced by the table of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from blocks import Table, markdown, number, read_tables, replaced
from charts import engines_chart, growth_chart
from matplotlib.figure import Figure
from results_tables import native, networks, pairs, real, searched

ROOT = Path(__file__).resolve().parents[1]
DOCS, LOGS = ROOT / "docs", ROOT / "benchmarks"
IMAGES = DOCS / "images"
DPI = 200

Tables = Mapping[str, Table]
Lines = list[str]


def whole(cell: str) -> str:
    """The median of "75 (75 to 76)"."""
    return f"{number(cell):.0f}"


def engines(log: Tables) -> Lines:
    """One clip on two CPU cores."""
    timed = ("as trained, ms", "torch, ms", "torch in bfloat16, ms", "openvino, ms", "onnx, ms")
    rows = [
        [
            f"`{row['network'].replace(',', '`')}, {row['branches']}",
            f"{number(row['G multiply-adds a clip']):.3g}", *(whole(row[column]) for column in timed),
        ]
        for row in log["inference"].rows
        if row["clips"] == "1"
    ]  # fmt: skip
    header = ["network, pixels, branches", "G", "PyTorch, ms", "peakzoom", "bf16", "OpenVINO", "ONNX"]
    return [*markdown(header, rows), "", f"*{log['inference'].made}.*"]


def training(log: Tables) -> Lines:
    """A training step on the CPU, and in bfloat16 on the GPU."""
    columns = ("T-CNN step, ms", "three branches, ms")
    rows = [
        [
            row["recipe, size"], row["clips"], f"{device}, {row['precision']}", *(whole(row[each]) for each in columns),
            row["ratio"], row["largest memory, GB"],
        ]
        for name, device, precision in (("training", "CPU", "float32"), ("gpu-training", "GPU", "bfloat16"))
        for row in log[name].rows
        if row["precision"] == precision
    ]  # fmt: skip
    header = ["recipe, pixels", "clips", "on", "T-CNN, ms", "O + D + C, ms", "ratio", "GPU memory, GB"]
    made = "; the GPU: ".join(log[name].made for name in ("training", "gpu-training"))
    return [*markdown(header, rows), "", f"*{made}.*"]


def quickstart(log: Tables) -> Lines:
    """The three seeds of the quickstart."""
    columns = ("T-CNN alone", "O", "D", "fused", "pointing", "D enlarges", "seconds")
    found = enumerate(log["quickstart"].rows)
    rows = [[f"seed {seed}", *(row[each] for each in columns)] for seed, row in found]
    header = ["", *columns[:4], "highest peak on the acting part", "D enlarges it", "seconds"]
    return markdown(header, rows)


BLOCKS: dict[str, dict[str, Callable[[Tables], Lines]]] = {
    "docs/performance.md": {
        "engines": engines,
        "training": training,
    },
    "docs/results.md": {
        "real": lambda log: real(log["branches"].rows),
        "pairs": lambda _: pairs(),
        "networks": lambda log: networks(log["named"].rows),
        "quickstart": quickstart,
        "searched": lambda _: searched(),
    },
    "benchmarks/results.md": {"native": lambda _: native()},
}


def read_log(page: str) -> Tables:
    """The tables of the log that belongs to a page of docs."""
    return read_tables((LOGS / page).read_text(encoding="utf-8"))


def written(page: str, text: str) -> str:
    """A page's text with every table made again.

    Args:
        page: its path from the root of the repository, a key of ``BLOCKS``.
        text: what stands there now.
    """
    log = read_log(Path(page).name)
    for name, table in BLOCKS[page].items():
        text = replaced(text, name, table(log))
    return text


def charts() -> dict[str, Figure]:
    """By the name of the file in docs/images."""
    log = read_log("performance.md")
    return {
        "engines.png": engines_chart([row for row in log["inference"].rows if row["clips"] == "1"]),
        "growth.png": growth_chart(log["growth"].rows),
    }


def main() -> None:
    for page in BLOCKS:
        file = ROOT / page
        file.write_text(written(page, file.read_text(encoding="utf-8")), encoding="utf-8")
    for name, figure in charts().items():
        figure.savefig(IMAGES / name, dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
