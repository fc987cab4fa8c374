"""Start weights that come with the package.

They were trained on composed clips alone (:mod:`peakzoom.data.synthetic.composed`): nobody was filmed, no licence of a
data set hangs on them, and they are under the package's own. ``scripts/start.py`` makes them again.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from peakzoom.model.weights import load_weights
from peakzoom.utils.digests import digest_of
from peakzoom.utils.errors import UserError

FOLDER = Path(__file__).parent.parent / "weights"  # NAME.safetensors, and one cards.json for all
LICENCE = "Apache-2.0"  # the package's own
WAY_OUT = "install peakzoom again, or train from scratch with --init none"


@dataclass(frozen=True)
class Start:
    """Weights of a video network, without a classifier.

    Attributes:
        name: as ``--init`` takes it.
        network, width: that they fit, as in a recipe.
        mean, std: of red, green and blue, from 0 to 1: how the pixels were normalised that they were trained on.
        card: what else is known of them. "clips", how many were generated, "shown", how often each, of "classes";
            "accuracy", in %, on "tests" further clips; "frames" and "size" of a clip, in pixels; "seed"; "sha256" of
            the file.
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

    @property
    def parameters(self) -> int:
        """How many numbers were learned: statistics of batch norms do not count."""
        with safe_open(self.file, "numpy") as stored:
            return sum(
                math.prod(stored.get_slice(name).get_shape())
                for name in stored.keys()  # noqa: SIM118, it is no dict
                if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
            )

    def fits(self, network: str, width: float, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
        """Whether a network has these names and shapes, and sees pixels as they were trained on."""
        return (self.network, self.width, self.mean, self.std) == (network, width, tuple(mean), tuple(std))

    def expect_whole(self) -> None:
        """UserError if the file is not there, or is not the one of the card."""
        try:
            found = digest_of(self.file)
        except OSError as error:
            raise UserError(f"{self.file} cannot be read ({error.strerror}): {WAY_OUT}") from error
        if found != self.card["sha256"]:
            raise UserError(f"{self.file} is damaged, its checksum is not that of its card: {WAY_OUT}")

    def load(self, network: nn.Module) -> None:
        """Load the weights into a video network that they fit, in its own precision; its classifier stays as it is.

        Raises:
            UserError: the file is damaged, or of another network.
        """
        self.expect_whole()
        load_weights(network, self.file)


@cache
def starts() -> tuple[Start, ...]:
    """All that come with the package, in the order of their cards.

    Raises:
        UserError: the cards are missing or damaged.
    """
    file = FOLDER / "cards.json"
    try:
        cards = json.loads(file.read_text(encoding="utf-8"))
        return tuple(
            Start(name, card["network"], card["width"], tuple(card["mean"]), tuple(card["std"]), card)
            for name, card in cards.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is missing or damaged: {WAY_OUT}") from error


def start_of(name: str) -> Start | None:
    """The one of that name, if any."""
    return next((start for start in starts() if start.name == name), None)


def fitting_start(
    network: str, width: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> Start | None:
    """The one that fits a network and how its pixels are normalised, if any."""
    return next((start for start in starts() if start.fits(network, width, mean, std)), None)


def expect_fit(
    start: Start, network: str, width: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """UserError if a start is of another network, or of pixels that are normalised otherwise."""
    if start.fits(network, width, mean, std):
        return
    if (start.network, start.width) != (network, width):
        raise UserError(
            f"{start.name} is of {start.network} at width {start.width:g}, and this network is {network} at width "
            f"{width:g}; give --model {start.network} --set width={start.width:g}, or --init none"
        )
    own = " and ".join(",".join(f"{value:g}" for value in values) for values in (start.mean, start.std))
    raise UserError(
        f"{start.name} was trained on pixels with mean and std {own}; leave --set preprocess.mean and "
        "preprocess.std out, or give --init none"
    )
