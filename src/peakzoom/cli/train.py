"""``peakzoom train``: both stages, on a user's own videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from peakzoom.cli.console import print_result
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import names_of
from peakzoom.cli.options import (
    DataArg,
    DataOptions,
    InitOpt,
    MachineOptions,
    ModelOpt,
    RecipeOptions,
    ValFractionOpt,
    WeightsOpt,
    data_option,
    output_option,
    training_option,
)
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.utils.errors import UserError
from peakzoom.video.guard import start_early

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet


TestGroupsOpt = Annotated[str | None, data_option(help="Groups to set aside for testing, as 4,8,9.")]
TestFractionOpt = Annotated[
    float | None,
    data_option(
        min=0.0,
        max=0.9,
        help="Share of the videos to set aside for testing, whole groups where groups are known; 0: none.",
        show_default="0.2 where the data have no splits; 0 where a class has fewer than 5",
    ),
]


@grouped
def train(
    data: DataArg,
    *,
    reading: DataOptions,
    val_fraction: ValFractionOpt = None,
    test_groups: TestGroupsOpt = None,
    test_fraction: TestFractionOpt = None,
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
        wanted, machine, model, seed=seed, val_fraction=val_fraction, steps=parts, init=init, weights=weights
    )
    read = reading.videos(data, reading.split_number)
    videos = with_tests(read, test_groups, test_fraction, untested=resume and tests_nothing(out))
    run(videos, recipe, out, options, resume)
    if is_main_process():
        write_missing_cards(out)
        tested = any(entry.split == "test" for entry in videos.entries)
        print_result(f"Run: {out}\nNext: peakzoom evaluate {out}" + ("" if tested else " TEST_DATA"))


def with_tests(videos: VideoSet, groups: str | None, share: float | None, untested: bool) -> VideoSet:
    """The videos, some groups or a share of them set aside for testing if the data do not say which.

    ``untested``: they belong to a run that was begun without test videos, and by default goes on so.
    """
    from peakzoom.data.splits import hold_out_groups, hold_out_share

    if groups is not None and share is not None:
        raise UserError("--test-groups and --test-fraction exclude one another: give one of them")
    if groups is not None:
        return replace(videos, entries=hold_out_groups(videos.entries, names_of(groups)))
    if all(entry.split is None for entry in videos.entries):
        wanted = 0.0 if share is None and untested else share
        return replace(videos, entries=hold_out_share(videos.entries, wanted))
    if share is not None:
        raise UserError(
            f"--test-fraction is {share:g}, but {videos.name} says which videos are for what: leave the option out"
        )
    return videos


def tests_nothing(run: Path) -> bool:
    """Whether a run was begun without test videos, as runs on a plain folder were once."""
    from peakzoom.utils.durable import read_csv

    return (run / "videos.csv").exists() and all(
        row["split"] != "test" for row in read_csv(run / "videos.csv")
    )
