"""``peakzoom weights``: what a training can start from, and what predicts without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from peakzoom.cli.console import print_result, say, show_table

if TYPE_CHECKING:
    from peakzoom.model.starts import Start


def weights() -> None:
    """List the weights that come with peakzoom, trained on generated clips only, and public ones that it can fetch.

    Examples:
    - `peakzoom weights`
    - `peakzoom train clips/ --model tcnn_xs_local --out runs/first`
    - `peakzoom train clips/ --weights kinetics400/r2plus1d_18 --out runs/k400`
    - `peakzoom predict kinetics400/r2plus1d_18 clip.mp4`
    """
    from peakzoom.model.public import public_weights
    from peakzoom.model.starts import LICENCE, starts
    from peakzoom.utils.folders import cache_home

    whole, damaged = _whole_ones(starts())
    rows = [
        (
            start.name,
            start.network,
            f"{start.width:g}",
            f"{start.parameters / 1e6:.2f}",
            f"{start.file.stat().st_size / 1e6:.1f}",
            f"{start.card['clips']:,}",
            f"{start.card['accuracy']:.1f}%",
        )
        for start in whole
    ]
    columns = ("--init", "network", "width", "weights\n(M)", "MB", "clips", "top-1")
    show_table(f"Start weights, licence {LICENCE}", columns, rows)
    card = starts()[0].card
    shown = " or ".join(map(str, sorted({start.card["shown"] for start in starts()})))
    print_result(
        f"clips: generated ones that it was trained on, each shown {shown} times.\n"
        f"top-1: on {card['tests']:,} further ones of the same {card['classes']} classes.\n"
        "licence: that of peakzoom. Nobody was filmed, and no data set's licence hangs on\n"
        "these weights.\n"
        "'peakzoom train' starts from those that fit --model, width, and mean and std of\n"
        "the pixels; --init none trains from scratch."
    )
    public = public_weights().values()
    lines = [
        (each.name, f"{each.accuracy:.1f}%", each.licence, "yes" if each.is_here else "no") for each in public
    ]
    show_table("Public weights", ("--weights", "top-1", "licence", "here"), lines)
    print_result(
        "The network is what stands behind the stroke, without who published it.\n"
        "top-1: as published, on the data set that the name begins with; for ImageNet of\n"
        "single images, and these know no actions.\n"
        "licence: of the repository that publishes the file. What the terms of the data\n"
        "that it was trained on say of the weights is for you to find out.\n"
        "here: whether it has been fetched; one that is used is, and kept in\n"
        f"{cache_home() / 'weights'}"
    )
    for line in damaged:
        say(line)
    if damaged:
        raise typer.Exit(1)


def _whole_ones(known: Sequence[Start]) -> tuple[list[Start], list[str]]:
    """The starts whose files are as their cards say, and an error's line for each other one."""
    from peakzoom.utils.errors import UserError

    whole, damaged = [], []
    for start in known:
        try:
            start.expect_whole()
            whole.append(start)
        except UserError as error:
            damaged.append(f"error: {error}")
    return whole, damaged
