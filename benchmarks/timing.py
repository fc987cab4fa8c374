"""What the benchmarks share: calls timed in turn, a machine's matrix-product rate, and how a figure is written."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from peakzoom.utils.memory import keep_freed_memory


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Milliseconds of every round of each call, one after the other, so that slow moments fall on all of them."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm, rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 0:
                spent[name].append(1000 * (time.perf_counter() - start))
    return spent


def cell(spent: list[float], form: str = ".0f") -> str:
    """Median (fastest to slowest)."""
    return f"{statistics.median(spent):{form}} ({min(spent):{form}} to {max(spent):{form}})"


def matrix_product(device: torch.device | str = "cpu") -> Callable[[], object]:
    """A product of two square matrices, the yardstick of what a machine can do."""
    side = side_of(device)
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    return lambda: left @ right


def side_of(device: torch.device | str) -> int:
    """Of the matrices: a GPU does the product of small ones in the time that it takes to ask for it."""
    return 8192 if torch.device(device).type == "cuda" else 2048


def rate(spent: list[float], device: torch.device | str = "cpu") -> float:
    """GFLOP/s of :func:`matrix_product`."""
    return 2 * side_of(device) ** 3 / statistics.median(spent) / 1e6


def machine() -> str:
    """Processor, threads and versions in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        name = models[0] if models else name
        name += next(
            (f" ({each})" for each in ("avx512_bf16", "avx512f", "avx2") if each in flags.split()), ""
        )
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def settled(call: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The call, and the wait for its end."""

    def both() -> None:
        call()
        wait(device)

    return both


def named(device: torch.device) -> str:
    """The device and versions in one line."""
    if device.type != "cuda":
        return machine()
    return f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} cores, torch {torch.__version__}"


def show(header: str, rows: Iterable[str]) -> None:
    """Print a table line by line, as it is made."""
    print(header)
    for row in rows:
        print(row, flush=True)


def show_last(header: str, rows: Iterable[str]) -> None:
    """Print rows as they are made, which may take minutes, and the table as a whole at the end."""
    found = [header]
    for row in rows:
        print(row, flush=True)
        found.append(row)
    print("\n".join(found))


def show_steps(
    doc: str | None, default: int, header: str, rows: Callable[[int, torch.device], Iterable[str]]
) -> None:
    """The table of a benchmark that takes training steps, with memory kept as a training on a CPU keeps it.

    Args:
        doc: of the script.
        default: number of rounds.
        header: of the table.
        rows: its lines, from rounds and device.
    """
    rounds, device = rounds_and_device(doc, default)
    if device.type == "cpu":
        keep_freed_memory()
    print(named(device))
    show_last(header, rows(rounds, device))


def runs_of(study: Path, row: str) -> list[Path]:
    """The run folders of one row of a study (docs/studies.md), of every fold and seed."""
    runs = sorted(study.glob(f"runs/*/seed-*/{row}"))
    if not runs:
        raise SystemExit(f"no run of {row} in {study}")
    return runs


def study_parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of a benchmark that is about one row of a study."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("row", help="a folder name, such as tcnn_xs-ODC")
    return parser


def number_from(doc: str | None, option: str, default: int) -> int:
    """The one option, such as ``--rounds``, of a benchmark that is called by itself."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(option, dest="number", type=int, default=default)
    return parser.parse_args().number


def show_by_number(
    doc: str | None, option: str, default: int, header: str, rows: Callable[[int], Iterable[str]]
) -> None:
    """The table of a benchmark whose one option is a number, on a CPU."""
    number = number_from(doc, option, default)
    print(machine())
    show(header, rows(number))


def rounds_and_device(doc: str | None, default: int) -> tuple[int, torch.device]:
    """``--rounds`` and ``--device`` of one that runs on a GPU where there is one.

    Matrix products are then computed in TF32 on a GPU if convolutions are, as they are by default: one is the other's
    yardstick. ``--search`` lets cuDNN time its algorithms and take the fastest, which a training does not.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--search", action="store_true", help="let cuDNN time its algorithms")
    asked = parser.parse_args()
    torch.backends.cudnn.benchmark = asked.search
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    return asked.rounds, torch.device(asked.device)
