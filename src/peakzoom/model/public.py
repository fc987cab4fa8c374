"""Weights that others have published, by name: where they are, and how the clips were made that they know.

The table is ``weights/public.toml``; the package has the addresses alone. A file is fetched when it is first asked for
(:mod:`peakzoom.utils.download`), and read without running code (:mod:`peakzoom.model.weights`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from peakzoom.model.backbones import backbone_factory, options_for
from peakzoom.model.network import PeakZoom
from peakzoom.model.outline import without_numbers
from peakzoom.model.starts import FOLDER
from peakzoom.model.weights import fitting_weights, load_weights, read_weights
from peakzoom.utils.download import cached_file, fetch, is_address
from peakzoom.utils.errors import UserError, did_you_mean
from peakzoom.utils.missing import alike
from peakzoom.utils.words import counted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STRIDE = 32  # in pixels, of the published networks' feature cells at most


@dataclass(frozen=True)
class PublicWeights:
    """One line of the table.

    Attributes:
        name: as ``--weights`` takes it, DATA/NETWORK.
        network: name in ``BACKBONES``, at width 1.
        address, digits: of the file, and the first of its SHA-256 where its publisher states them.
        licence: of the repository that publishes it, which is named.
        data: what it was trained on; what that data's terms say of the weights is for the user to find out.
        accuracy, views: top-1 in %, and of which views, as published.
        preprocess: of its clips, by the fields of ``peakzoom.video.views.Preprocess``; a stride of 0 is open.
        mirrors: whether a mirrored clip is of the same class; Something-Something has classes of left and right.
        class_list: a file beside the table with the classes of its classifier, one a line.
    """

    name: str
    network: str
    address: str
    digits: str
    licence: str
    data: str
    accuracy: float
    views: str
    preprocess: Mapping[str, Any]
    class_list: str = field(default="")
    mirrors: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the classifier, in its order; none where the file has none that predicts actions."""
        if not self.class_list:
            return ()
        return tuple((FOLDER / self.class_list).read_text(encoding="utf-8").splitlines())

    @property
    def is_here(self) -> bool:
        """Whether the file is in the cache."""
        return cached_file(self.address).exists()

    @property
    def options(self) -> dict[str, int]:
        """What the network is told of its clips."""
        return options_for(self.network, STRIDE, self.preprocess["frames"], self.preprocess["size"])

    def file(self) -> Path:
        """Of the weights, fetched where it is not in the cache.

        Raises:
            UserError: the network needs what is not installed; the file cannot be had, or what came is none of it, and
                was not kept.
            OSError: the cache cannot be written.
        """
        if self.is_here:
            return fetch(self.address, self.digits)
        with without_numbers():
            network = backbone_factory(self.network)(max(1, len(self.classes)), **self.options)
        return fetch(self.address, self.digits, partial(fitting_weights, network))

    def model(self) -> PeakZoom:
        """The network with its published classifier, which predicts without any training.

        Raises:
            UserError: the file has no classes that are known, cannot be had, or is of another network.
        """
        classes = self.classes
        if not classes:
            raise UserError(
                f"{self.name} was trained on {self.data} and knows no actions: train from it, "
                f"'peakzoom train DATA --weights {self.name} --out RUN'"
            )
        model = PeakZoom(
            self.network,
            len(classes),
            branches=("original",),
            backbone_options=self.options,
            classes=classes,
            preprocess=dict(self.preprocess),
        )
        before = model.backbone.fc.weight.clone()
        load_weights(model.backbone, self.file())
        if before.equal(model.backbone.fc.weight):
            raise UserError(
                f"{self.address} has no classifier of {counted(len(classes), 'class')}: {self.name} is wrong"
            )
        return model.eval()


@cache
def public_weights() -> Mapping[str, PublicWeights]:
    """All of them, by name."""
    table = tomllib.loads((FOLDER / "public.toml").read_text(encoding="utf-8"))
    return {
        name: PublicWeights(
            name, **{"class_list" if key == "classes" else key: value for key, value in entry.items()}
        )
        for name, entry in table.items()
    }


def find_public(name: str) -> PublicWeights | None:
    """The one of that name; a file or folder that is called so goes before it.

    Raises:
        UserError: the name begins as they do, DATA/, and is none.
    """
    if Path(name).exists():
        return None
    known = public_weights()
    if name not in known and name.partition("/")[0] in {each.partition("/")[0] for each in known}:
        raise UserError(
            f"no public weights are called {name}{did_you_mean(name, known)}; 'peakzoom weights' lists them"
        )
    return known.get(name)


def weights_file(given: str) -> Path:
    """The file that ``--weights`` means: a name of the table, an address, or a file that is here.

    Raises:
        UserError: it is none of these, or as :meth:`PublicWeights.file`.
    """
    if public := find_public(given):
        return public.file()
    if not is_address(given) and not Path(given).exists():
        like = did_you_mean(given, public_weights(), alike(Path(given)))
        raise UserError(
            f"{given} is no file{like or '; expected weights, or a name that peakzoom weights lists'}"
        )
    return fetch(given, check=read_weights) if is_address(given) else Path(given)
