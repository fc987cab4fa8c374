"""``peakzoom train``: both stages, on a user's own videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from peakzoom.cli.console import print_result
from peakzoom.cli.grouped import grouped
from peakzoom.cli.held_out import HeldOutOptions, next_step
from peakzoom.cli.options import (
    DataArg,
    DataOptions,
    InitOpt,
    MachineOptions,
    ModelOpt,
    RecipeOptions,
    WeightsOpt,
    output_option,
    training_option,
)
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.video.guard import start_early


@grouped
def train(
    data: DataArg,
    *,
    reading: DataOptions,
    held_out: HeldOutOptions,
    model: ModelOpt = None,
    init: InitOpt = None,
    weights: WeightsOpt = None,
    wanted: RecipeOptions,
    steps: Annotated[
        Literal["both", "tcnn", "joint"],
        training_option(help="tcnn: stage 1 alone; joint: stage 2 alone, from --init."),
    ] = "both",
    seed: Annotated[int, training_option(min=0, help="Seed of weights, order, crops and splits.")] = 0,
    machine: MachineOptions,
    out: Annotated[Path, output_option(help="New folder for the run.", show_default=False)],
    resume: Annotated[bool, output_option(help="Go on with the training in --out.")] = False,
) -> None:
    """Train on your own videos: the video network first (stage 1), then the recipe's branches from it (stage 2).

    Examples:
    - `peakzoom train clips/ --out runs/first`
    - `peakzoom train clips/ --recipe spatial --out runs/zoom`
    - `peakzoom train clips/ --weights kinetics400/r2plus1d_18 --out runs/k400`
    - `peakzoom train UCF-101 --splits ucfTrainTestlist --recipe paper --init k400 --out runs/ucf1`
    - `peakzoom train clips/ --size 128 --set dropout=0.2 --set preprocess.fps=15 --out runs/second`
    """
    start_early()
    from peakzoom.data.runs import STAGES
    from peakzoom.hub.card import write_missing_cards
    from peakzoom.training.distributed import is_main_process
    from peakzoom.training.train import train as run

    parts = STAGES if steps == "both" else (steps,)
    recipe, options = recipe_and_options(
        *(wanted, machine, model),
        seed=seed,
        val_fraction=held_out.val_fraction,
        steps=parts,
        init=init,
        weights=weights,
    )
    videos = held_out.from_videos(reading.videos(data, reading.split_number), out, resume)
    run(videos, recipe, out, options, resume)
    if is_main_process():
        write_missing_cards(out)
        print_result(next_step(out, videos))
