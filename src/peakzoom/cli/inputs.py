"""What the command line's words mean to the library: videos, views, recipes, files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peakzoom.cli.console import say
from peakzoom.cli.options import DataOptions, LayoutOptions, NetworkOptions, RecipeOptions, ViewOptions
from peakzoom.utils.errors import UserError

if TYPE_CHECKING:
    from peakzoom.data.entries import Entry, VideoSet
    from peakzoom.training.recipes import Recipe
    from peakzoom.video.sampling import Views


def open_videos(data: Path, options: LayoutOptions, number: int = 1) -> VideoSet:
    """The labelled videos of DATA; what is to be known about how they were read is said.

    Args:
        data: as given.
        options: layout, folder of split files, root.
        number: of the official split.
    """
    from peakzoom.data.datasets import open_data

    found = open_data(data, options.layout.value, options.splits, number, options.root)
    for note in found.notes:
        say(note)
    return found


def videos_to_score(
    run: str, data: Path | None, reading: DataOptions, split: str
) -> tuple[VideoSet, list[Entry]]:
    """All videos of DATA, or of the run where none is named, and those of a split that the run was not trained on.

    Raises:
        UserError: neither knows such videos.
    """
    from peakzoom.data.runs import run_folder, run_videos
    from peakzoom.evaluation.evaluate import choose_entries

    home = run_folder(run)
    if data is not None:
        videos = open_videos(data, reading, reading.split_number)
    elif home is not None:
        videos = run_videos(home)
    else:
        raise UserError(f"{run} does not know its {split} videos: name the DATA to test on")
    return videos, choose_entries(videos, home, split)


def chosen_views(views: ViewOptions) -> Views:
    """The views of a test video."""
    from peakzoom.video.sampling import Views

    return Views(views.clips, views.num_clips, views.crops)


def adapted(asked: RecipeOptions, network: NetworkOptions | None = None) -> Recipe:
    """The recipe with what the command line asks for instead.

    Raises:
        UserError: ``--mean`` or ``--std`` are no three numbers for pixels between 0 and 1.
    """
    from peakzoom.training.recipes import RECIPES

    network = network or NetworkOptions()
    recipe = RECIPES[asked.recipe.value]()
    pre, augment, tcnn, joint = recipe.preprocess, recipe.augment, recipe.tcnn, recipe.joint
    if (size := asked.size) is not None:
        canvas = (round(pre.canvas[0] * size / pre.size), round(pre.canvas[1] * size / pre.size))
        pre = replace(pre, size=size, canvas=canvas)
    pre = replace(pre, **_given(frames=asked.frames, fps=asked.fps, zoom_source=asked.zoom_source))
    if asked.mean is not None:
        pre = replace(pre, mean=_colours(asked.mean, "--mean", "0.485,0.456,0.406", zero=True))
    if asked.std is not None:
        pre = replace(pre, std=_colours(asked.std, "--std", "0.229,0.224,0.225", zero=False))
    if asked.epochs is not None:
        tcnn = replace(tcnn, epochs=asked.epochs, min_steps=0)
    if asked.joint_epochs is not None:
        joint = replace(joint, epochs=asked.joint_epochs, min_steps=0)
    if asked.lr is not None:
        tcnn = replace(tcnn, lr=asked.lr, final_lr=min(tcnn.final_lr, asked.lr))
        joint = replace(joint, lr=asked.lr, final_lr=min(joint.final_lr, asked.lr))
    if asked.no_flip:
        augment = replace(augment, flip=False)
    rest = _given(
        model=network.model,
        width=network.width,
        batch_size=asked.batch_size,
        dropout=asked.dropout,
        stride=asked.stride,
        attention_per=asked.attention_per,
        response=asked.response,
        erase=asked.erase,
    )
    return replace(recipe, preprocess=pre, augment=augment, tcnn=tcnn, joint=joint, **rest)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _colours(text: str, option: str, example: str, zero: bool) -> tuple[float, float, float]:
    """Three numbers up to 1, for red, green and blue; whether 0 may be among them is said by ``zero``."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{option} is {text!r}, expected three numbers, as {example}") from error
    if not all(0 <= value <= 1 and (zero or value > 0) for value in (red, green, blue)):
        lowest = "from 0" if zero else "above 0"
        raise UserError(
            f"{option} is {text!r}, expected three numbers {lowest} up to 1, as {example}: pixels go from 0 to 1"
        )
    return red, green, blue


def whole_numbers(text: str, option: str) -> list[int]:
    """Each of "0,1,2" once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{option} is {text!r}, expected whole numbers, as 0,1,2")
    return [int(part) for part in dict.fromkeys(parts)]


def names_of(text: str) -> list[str]:
    """The names in "ann, bob", without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def find_videos(files: list[Path]) -> Iterator[Path]:
    """Files as they are named, and the videos in folders, sorted.

    Raises:
        UserError: a folder has none.
    """
    from peakzoom.data.layouts.files import videos_below, without_videos

    for file in files:
        if not file.is_dir():
            yield file
            continue
        inside = videos_below(file)
        if not inside:
            raise without_videos(file)
        yield from inside


def beside(run: str) -> Path:
    """The folder to put results into: the run, or that of an exported file; here for a model of the hub."""
    path = Path(run)
    return path if path.is_dir() else path.parent if path.is_file() else Path()


def check_new(file: Path, option: str) -> None:
    """Refuse a file to write that is there, before the work and not after it."""
    if file.exists():
        raise UserError(f"{file} exists: name another file for {option}, or remove it")
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is no folder: make it first, or name another file for {option}")
