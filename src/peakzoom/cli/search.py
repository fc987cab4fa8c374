"""``peakzoom search``: a T-CNN for a user's own videos and budget."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

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
    output_option,
    training_option,
)
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.utils.errors import UserError
from peakzoom.video.guard import start_early


@grouped
def search(
    data: DataArg,
    *,
    budget: Annotated[
        str,
        training_option(
            metavar="N[M|G]",
            help="Multiply-adds that a clip may cost, in millions or thousands of millions, as 300M or 0.3G.",
            show_default=False,
        ),
    ],
    reading: DataOptions,
    held_out: HeldOutOptions,
    model: ModelOpt = None,
    init: InitOpt = None,
    wanted: RecipeOptions,
    search_epochs: Annotated[
        int | None,
        training_option(min=1, help="Epochs of the search.", show_default="as many as of stage 1"),
    ] = None,
    seed: Annotated[int, training_option(min=0, help="Seed of weights, order, crops and splits.")] = 0,
    machine: MachineOptions,
    out: Annotated[Path, output_option(help="New folder for the run.", show_default=False)],
    resume: Annotated[bool, output_option(help="Go on with the search in --out.")] = False,
) -> None:
    """Find a T-CNN for your own videos: which frames each block looks at, how many blocks and channels, for a budget.

    It looks around --model: blocks and channels may become fewer or more. One large network learns on half of the
    training videos, and the probabilities of what to keep of it on the other half. The network that is found trains
    from the large one's weights, and learns from its predictions. OUT/architecture.json is the network, which
    every --model takes; OUT is a run.

    Examples:
    - `peakzoom search clips/ --budget 0.3G --out runs/search`
    - `peakzoom search clips/ --budget 100M --model tcnn_xs --recipe quickstart --out runs/small`
    - `peakzoom train clips/ --model runs/search/architecture.json --out runs/found`
    """
    start_early()
    from peakzoom.hub.card import write_missing_cards
    from peakzoom.training.search.search import search as run

    recipe, options = recipe_and_options(
        wanted, machine, model, seed=seed, val_fraction=held_out.val_fraction, init=init
    )
    videos = held_out.from_videos(reading.videos(data, reading.split_number), out, resume)
    run(videos, recipe, out, multiply_adds(budget), options, resume, search_epochs)
    write_missing_cards(out)
    print_result(
        f"Network: {out / 'architecture.json'}, for every --model\nHow it was found: {out / 'search.png'}\n"
        f"{next_step(out, videos)}"
    )


def multiply_adds(text: str) -> float:
    """G multiply-adds out of 0.3G, 300M or 0.3; UserError for what is none."""
    if not (found := re.fullmatch(r"(\d+\.?\d*|\.\d+) *([mMgG]?)", text.strip())) or not float(found[1]):
        raise UserError(f"--budget is {text!r}, expected multiply-adds of a clip, as 300M or 0.3G")
    return float(found[1]) / (1000 if found[2] in ("m", "M") else 1)
