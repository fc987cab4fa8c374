"""Models as folders and on the Hugging Face hub: ``model.safetensors`` and ``config.json``.

Both may come from anyone. ``config.json`` is read by the rules of :mod:`peakzoom.model.schema`; then the network is
made without its numbers and is compared with the shapes in the weight file. Only what fits is given memory, and is
asked whether it takes the clips that the file tells of.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn

from peakzoom.model.backbones import EXPECTED, is_network, is_own
from peakzoom.model.backbones.own import expect_allowed
from peakzoom.model.config import PeakZoomConfig
from peakzoom.model.names import expect_on_hub
from peakzoom.model.outline import without_numbers
from peakzoom.model.schema import CLIP, Rule, expect
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.plain import read_object

WEIGHTS, CONFIG = "model.safetensors", "config.json"
log = logging.getLogger(__name__)

KEYS = {"backbone", *(field.name for field in fields(PeakZoomConfig))}  # of config.json


class Pretrained(PyTorchModelHubMixin):
    """huggingface_hub's ``save_pretrained``, ``push_to_hub`` and ``from_pretrained``, but for three things.

    Both files are checked before anything is made of them. Weights are read from safetensors only, for a pickle can run
    code. And no model card is written: a card tells of data and training, which a network does not know
    (:mod:`peakzoom.hub.card` does).
    """

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """What ``save_pretrained`` saves as README.md: nothing."""
        return SimpleNamespace(save=lambda path: None)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        **settings: Any,
    ) -> Any:
        """The model in a folder that ``save_pretrained`` wrote, or of that name on the hub; in ``eval()``.

        Args:
            pretrained_model_name_or_path: which.
            force_download: as the next four, an argument of ``huggingface_hub.hf_hub_download``.
            token: as there.
            cache_dir: as there.
            local_files_only: as there.
            revision: as there.
            map_location: device of the weights.
            settings: arguments of the constructor, in place of those in ``config.json``.

        Raises:
            UserError: ``config.json`` is damaged, or tells of no model; the weights do not fit; it is neither a folder
                here nor a name of the hub, or looks like the mistyped name of something here.
            OSError: it could not be had from the hub.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            expect_on_hub(str(pretrained_model_name_or_path))
            folder = _from_hub(
                str(pretrained_model_name_or_path),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        if unknown := sorted(settings.keys() - KEYS - {"config"}):
            raise TypeError(f"from_pretrained() got an unexpected keyword argument {unknown[0]!r}")
        made_with = {**read_config(folder / CONFIG), **settings}
        if "backbone" not in made_with:
            raise UserError(
                f"{folder / CONFIG} names no backbone: expected {EXPECTED}; or give the module that the model was made "
                "with"
            )
        if own := is_own(made_with["backbone"]):
            expect_allowed(made_with["backbone"], str(folder / CONFIG))
        if isinstance(made_with["backbone"], str):
            expect_fit(lambda: cls(**made_with), folder, own)
        model: Any = cls(**made_with)
        load_model(model, folder / WEIGHTS, device=map_location)
        if isinstance(made_with["backbone"], str) and model.preprocess and not own:
            expect_clips(model, folder / CONFIG)
        return model.eval()


def _from_hub(name: str, **how: Any) -> Path:
    """The folder in the hub's cache with both files of a model."""
    config = hf_hub_download(name, CONFIG, **how)
    try:
        hf_hub_download(name, WEIGHTS, **how)
    except EntryNotFoundError as error:
        if isinstance(error, FileNotFoundError):  # there is no network: whether the hub has it is not known
            raise
        raise UserError(
            f"{name} has no {WEIGHTS} on the hub: other weights are a pickle, which can run code when read"
        ) from error
    return Path(config).parent


def read_config(file: Path) -> dict[str, Any]:
    """What ``config.json`` says, as arguments of :class:`~peakzoom.model.PeakZoom`.

    Keys that only another version knows are left out.

    Raises:
        UserError: it is missing, is no JSON object, or has a value that cannot be.
    """
    values = {key: value for key, value in read_object(file).items() if key in KEYS}
    try:
        if "backbone" in values:
            expect("backbone", values["backbone"], Rule(EXPECTED, is_network))
        PeakZoomConfig(**{key: value for key, value in values.items() if key != "backbone"})
    except UserError as error:
        raise UserError(f"{file} tells of no model of peakzoom: {error}") from error
    return values


def expect_fit(make: Callable[[], Any], folder: Path, own: bool = False) -> None:
    """Refuse a model whose network cannot be, or is not the one of the weights.

    Nothing is computed and no memory taken: the network is made on PyTorch's device without numbers.

    Args:
        make: the model.
        folder: with its weights.
        own: it is of a user's own network, which may not be made for that device: then it is made on the CPU.

    Raises:
        UserError: as above.
        SafetensorError: the weights are damaged.
    """
    file = folder / CONFIG
    try:
        with without_numbers():
            model = make() if not own else _outline(make)
    except UserError:  # of settings that a caller gave in place of the file's
        raise
    except Exception as error:  # whatever a network says of settings that it cannot be made with
        raise UserError(f"{file} tells of no network that can be: {first_line(error)}") from error
    with safe_open(folder / WEIGHTS, "pt") as stored:
        there = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    if wrong := _difference(model, there):
        if model.preprocess and not own:
            expect_clips(model, file)  # what it says comes first
        raise UserError(f"{folder / WEIGHTS} does not fit {file.name}: {wrong}; take both files of one model")


@torch.inference_mode()
def expect_clips(model: Any, file: Path) -> None:
    """Refuse a model that does not take the clips that its ``config.json``, the file, tells of; nothing is computed.

    The network is given a batch of no clips. Where it refuses that, one clip without numbers says whether this is for
    the clips' shape: PyTorch imports its whole compiler (1.5 s) for that.

    Raises:
        UserError: it takes none of that shape.
    """
    clip = {**CLIP, **model.preprocess}
    shape = 3, clip["frames"], clip["size"], clip["size"]
    network = model.eval().backbone
    try:
        if (device := next(network.parameters()).device).type != "meta":
            network.features(torch.empty((0, *shape), device=device))
            return
    except Exception as error:  # noqa: BLE001 - of the clips, or because there are none
        log.debug("%s: of no clips: %s", file, first_line(error))
    try:
        copy.deepcopy(network).to("meta").features(torch.empty((1, *shape), device="meta"))
    except Exception as error:  # whatever a network says of clips that it does not take
        raise UserError(f"{file} tells of no network that can be: {first_line(error)}") from error


def _outline(make: Callable[[], Any]) -> Any:
    """A model on PyTorch's device without numbers where its network can be made there, else on the CPU."""
    try:
        return make()
    except UserError:
        with torch.device("cpu"):
            return make()


def _difference(model: nn.Module, there: Mapping[str, tuple[int, ...]]) -> str:
    """In which tensor a model is not that of the shapes in a file; empty if it is."""
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, shape in here.items():
        if name not in there:
            return f"it lacks {name}"
        if there[name] != shape:
            return f"{name} is {there[name]} there and {shape} here"
    return f"it has {min(extra)} beside" if (extra := there.keys() - here.keys()) else ""
