"""Start weights that come with the package.

They were trained on composed clips alone (:mod:`peakzoom.data.synthetic.composed`): nobody was filmed, and no licence
of a data set hangs on them. ``scripts/start.py`` makes them again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peakzoom.utils.errors import UserError

FOLDER = Path(__file__).parent.parent / "weights"  # NAME.safetensors, and one cards.json for all


@dataclass(frozen=True)
class Start:
    """Weights of a video network, without a classifier.

    Attributes:
        name: as ``--init`` takes it.
        network, width: that they fit.
        mean, std: of the pixels that they were trained with.
        card: what else is known of them.
    """

    name: str
    network: str
    width: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    card: dict[str, Any]

    @property
    def file(self) -> Path:
        """Of the weights, safetensors."""
        return FOLDER / f"{self.name}.safetensors"


@cache
def starts() -> tuple[Start, ...]:
    """All that come with the package."""
    cards = json.loads((FOLDER / "cards.json").read_text(encoding="utf-8"))
    return tuple(
        Start(name, card["network"], card["width"], tuple(card["mean"]), tuple(card["std"]), card)
        for name, card in cards.items()
    )


def start_of(name: str) -> Start | None:
    """The one of that name, if any."""
    return next((start for start in starts() if start.name == name), None)


def fitting_start(
    network: str, width: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> Start | None:
    """The one that fits a network and how its pixels are normalised, if any."""
    wanted = (network, width, mean, std)
    return next(
        (each for each in starts() if (each.network, each.width, each.mean, each.std) == wanted), None
    )


def expect_start(name: str, network: str, width: float) -> Start:
    """The start of that name; UserError if it is of another network."""
    start = start_of(name)
    assert start is not None, name
    if (start.network, start.width) != (network, width):
        raise UserError(
            f"{name} is of {start.network} at width {start.width:g}, and this network is {network} at width {width:g}; "
            f"give --model {start.network} --set width={start.width:g}, or --init none"
        )
    return start
