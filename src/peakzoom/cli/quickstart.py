"""``peakzoom quickstart``: the whole way on synthetic clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from peakzoom.cli.console import answer, out_console

NAMES = {
    "original": "T-CNN + spatial: original (O)",
    "discriminative": "T-CNN + spatial: discriminative (D)",
    "complementary": "T-CNN + spatial: complementary (C)",
    "fused": "T-CNN + spatial: fused",
}


def quickstart(
    out: Annotated[Path, typer.Option(help="New folder for clips, run and results.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    train_clips: Annotated[int | None, typer.Option(min=1, help="Synthetic clips to train on.")] = None,
    test_clips: Annotated[int | None, typer.Option(min=1, help="Synthetic clips to test on.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that render and decode.")] = 2,
) -> None:
    """Render a small set of synthetic action clips, train both stages, evaluate, and draw where the network looked.

    Example: `peakzoom quickstart`
    """
    from peakzoom.cli.quickstart_run import TEST_CLIPS, TRAIN_CLIPS
    from peakzoom.cli.quickstart_run import quickstart as run

    done = run(
        out,
        seed=seed,
        train_clips=TRAIN_CLIPS if train_clips is None else train_clips,
        test_clips=TEST_CLIPS if test_clips is None else test_clips,
        workers=workers,
    )
    table = Table(title="Held-out performers and backgrounds", title_justify="left")
    for column in ("network", "top-1", "mean class accuracy"):
        table.add_column(column, justify="left" if column == "network" else "right")
    alone = done.tcnn.fused
    table.add_row("T-CNN alone (stage 1)", f"{alone.top1:.1%}", f"{alone.mean_class:.1%}", end_section=True)
    for name, branch in done.joint.branches.items():
        table.add_row(
            NAMES[name],
            f"{branch.top1:.1%}",
            f"{branch.mean_class:.1%}",
            style="bold" if name == "fused" else "",
        )
    out_console.print(table)
    answer(
        f"Where it looked: {done.figure}\nTable, scores, confusion: {done.out / 'evaluation-joint'}\n"
        f"Model: {done.out / 'run'}, for instance: peakzoom predict {done.out / 'run'} CLIP.mp4\n"
        f"Took {done.seconds:.0f} s."
    )
