"""``peakzoom quickstart``: the whole way on synthetic clips."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from peakzoom.cli.console import print_result, show_table
from peakzoom.cli.evaluate import show_pointing


def quickstart(
    out: Annotated[Path, typer.Option(help="New folder for clips, run and results.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    train_clips: Annotated[int, typer.Option(min=1, help="Synthetic clips to train on.")] = 400,
    test_clips: Annotated[int, typer.Option(min=1, help="Synthetic clips to test on.")] = 120,
    workers: Annotated[int, typer.Option(help="Processes that render and decode.")] = 2,
) -> None:
    """Render a small set of synthetic action clips, train both stages, evaluate, and draw where the network looked.

    Example:
    - `peakzoom quickstart`
    """
    began = time.monotonic()
    from peakzoom.cli.quickstart_run import quickstart as run

    found = run(out, seed, train_clips, test_clips, workers)
    branches = {"T-CNN alone (stage 1)": found.tcnn.fused}
    branches |= {f"T-CNN + spatial: {name}": branch for name, branch in found.joint.branches.items()}
    show_table(
        "Held-out performers and backgrounds",
        ("network", "top-1", "mean class accuracy"),
        ((name, f"{branch.top1:.1%}", f"{branch.mean_class:.1%}") for name, branch in branches.items()),
        strong="T-CNN + spatial: fused",
    )
    if found.joint.pointing:
        show_pointing(found.joint.pointing, found.joint.branches)
    print_result(
        f"Where it looked: {found.figure}, the first test clip of each class\n"
        f"Table, scores, confusion: {out / 'evaluation-joint'}\n"
        f"Took {time.monotonic() - began:.0f} s.\n\n"
        "Next, with this model:\n"
        f"  peakzoom explain {out / 'run'} {min((out / 'clips').rglob('test_*.mp4'))}\n"
        f"  peakzoom report {out / 'evaluation-joint'} --model {out / 'run'}\n"
        "and with your own videos, one folder a class (clips/kick/a.mp4, clips/wave/b.mp4 ...):\n"
        "  peakzoom data check clips/\n"
        "  peakzoom train clips/ --out runs/first\n"
        "  peakzoom evaluate runs/first\n"
        "  peakzoom report runs/first"
    )
