"""``peakzoom train``: both stages, on a user's own videos."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from peakzoom.cli.console import answer
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import names_of
from peakzoom.cli.options import (
    DataArg,
    DataOptions,
    MachineOptions,
    NetworkOptions,
    RecipeOptions,
    ValFractionOpt,
    data_option,
    network_option,
    output_option,
    training_option,
)
from peakzoom.cli.recipe import chosen_options, chosen_recipe
from peakzoom.utils.errors import UserError
from peakzoom.video.guard import start_early


@dataclass(frozen=True)
class HeldOut:
    """Which of the videos are not trained on."""

    val_fraction: ValFractionOpt = 0.15
    test_groups: Annotated[str | None, data_option(help="Groups to set aside for testing, as 4,8,9.")] = None


@dataclass(frozen=True)
class TrainedNetwork(NetworkOptions):
    """Which network is trained, and from what."""

    branches: Annotated[
        str | None, network_option(help="Of stage 2: some of O, D and C, as OD.", show_default="ODC")
    ] = None
    init: Annotated[
        str | None, network_option(help="Trained model to start from; other classes get a new head.")
    ] = None
    weights: Annotated[
        str | None,
        network_option(help="Public weight file of the --model to start from, .safetensors or PyTorch's."),
    ] = None


@grouped
def train(
    data: DataArg,
    *,
    reading: DataOptions,
    held_out: HeldOut,
    network: TrainedNetwork,
    recipe: RecipeOptions,
    steps: Annotated[
        Literal["both", "tcnn", "joint"],
        training_option(help="tcnn: stage 1 alone; joint: stage 2 alone, from --init."),
    ] = "both",
    seed: Annotated[int, training_option(min=0, help="Of weights, order, crops and splits.")] = 0,
    machine: MachineOptions,
    out: Annotated[Path, output_option(help="New folder for the run.", show_default=False)],
    resume: Annotated[bool, output_option(help="Go on with the training in --out.")] = False,
) -> None:
    """Train on your own videos: the video network first (stage 1), then all three branches from it (stage 2).

    Examples: `peakzoom train clips/ --out runs/first`,
    `peakzoom train UCF-101 --splits ucfTrainTestlist --recipe paper --init k400 --out runs/ucf1` and
    `peakzoom train clips/ --size 128 --set dropout=0.2 --set preprocess.fps=15 --out runs/second`
    """
    start_early()
    from peakzoom.data.runs import STAGES
    from peakzoom.data.splits import hold_out_groups
    from peakzoom.hub.card import write_missing_cards
    from peakzoom.training.distributed import is_main_process
    from peakzoom.training.train import train as run

    chosen = chosen_recipe(recipe, network)
    if network.branches is not None:
        chosen = dataclasses.replace(chosen, branches=_branches(network.branches))
    videos = reading.videos(data, reading.split_number)
    if held_out.test_groups is not None:
        groups = names_of(held_out.test_groups)
        videos = dataclasses.replace(videos, entries=hold_out_groups(videos.entries, groups))
    options = chosen_options(
        recipe,
        machine,
        seed=seed,
        val_fraction=held_out.val_fraction,
        steps=STAGES if steps == "both" else (steps,),
        init=network.init,
        weights=network.weights,
    )
    run(videos, chosen, out, options, resume)
    if is_main_process():
        write_missing_cards(out)
        tested = any(entry.split == "test" for entry in videos.entries)
        answer(f"Run: {out}\nNext: peakzoom evaluate {out}" + ("" if tested else " TEST_DATA"))


def _branches(letters: str) -> tuple[str, ...]:
    """Such as "OD" for the original and the discriminative branch."""
    from peakzoom.model.config import LETTERS

    wanted = letters.upper().replace("+", "")
    if not wanted or len(set(wanted)) < len(wanted) or set(wanted) - set(LETTERS.values()):
        raise UserError(f"--branches is {letters!r}, expected O, D and C or some of them, as ODC, OD or O")
    return tuple(name for name, letter in LETTERS.items() if letter in wanted)
