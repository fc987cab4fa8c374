"""``peakzoom train``: the two steps, on a user's own videos."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from peakzoom.cli.console import answer, say
from peakzoom.cli.inputs import adapted, names_of, open_videos
from peakzoom.cli.options import (
    DataArg,
    DataOptions,
    MachineOptions,
    NetworkOptions,
    RecipeOptions,
    ValFractionOpt,
    grouped,
)
from peakzoom.utils.errors import UserError
from peakzoom.video.guard import start_early


class Steps(str, Enum):
    """Which trainings to run."""

    both = "both"
    tcnn = "tcnn"
    joint = "joint"


@grouped
def train(
    data: DataArg,
    out: Annotated[Path, typer.Option(help="New folder for the run.", show_default=False)],
    *,
    steps: Annotated[
        Steps, typer.Option(help="T-CNN, joint training of the three branches, or both.")
    ] = Steps.both,
    branches: Annotated[
        str | None, typer.Option(help="Of the joint training: O, D and C, or some of them, as O or OD.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Trained model to start from; other classes get a new head.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Public weight file of the --model to start from, .safetensors or PyTorch's."),
    ] = None,
    network: NetworkOptions,
    recipe: RecipeOptions,
    val_fraction: ValFractionOpt = 0.15,
    test_groups: Annotated[
        str | None, typer.Option(help="Groups to set aside for testing, as 4,8,9.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, crops and splits.")] = 0,
    machine: MachineOptions,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out.")] = False,
    reading: DataOptions,
) -> None:
    """Train on your own videos: the T-CNN first, then all three branches from it.

    Examples: `peakzoom train clips/ --out runs/first`,
    `peakzoom train UCF-101 --splits ucfTrainTestlist --recipe paper --init k400 --out runs/ucf1` and
    `peakzoom train clips/ --model tsm --weights resnet50.pth --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    --out runs/tsm`
    """
    start_early()
    from peakzoom.data.runs import PHASES
    from peakzoom.data.splits import hold_out_groups
    from peakzoom.training.distributed import is_main_process
    from peakzoom.training.options import Options
    from peakzoom.training.train import train as run

    asked = adapted(recipe, network)
    if branches is not None:
        asked = dataclasses.replace(asked, branches=_branches(branches))
    videos = open_videos(data, reading, reading.split_number)
    if test_groups is not None:
        videos = dataclasses.replace(videos, entries=hold_out_groups(videos.entries, names_of(test_groups)))
    options = Options(
        **machine.asked(),
        seed=seed,
        val_fraction=val_fraction,
        num_nodes=num_nodes,
        patience=patience,
        steps=PHASES if steps == Steps.both else (steps.value,),
        init=init,
        weights=weights,
    )
    run(videos, asked, out, options, resume, say)
    if is_main_process():
        tested = any(entry.split == "test" for entry in videos.entries)
        answer(f"Run: {out}\nNext: peakzoom evaluate {out}" + ("" if tested else " TEST_DATA"))


def _branches(letters: str) -> tuple[str, ...]:
    """Such as "OD" for the original and the discriminative branch."""
    from peakzoom.model.config import LETTERS

    wanted = letters.upper().replace("+", "")
    if not wanted or len(set(wanted)) < len(wanted) or set(wanted) - set(LETTERS.values()):
        raise UserError(f"--branches is {letters!r}, expected O, D and C or some of them, as ODC, OD or O")
    return tuple(name for name, letter in LETTERS.items() if letter in wanted)
