"""Models as folders and on the Hugging Face hub: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import contextlib
import io
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from peakzoom.model.config import PeakZoomConfig
from peakzoom.utils.errors import UserError

KEYS = {"backbone", *(field.name for field in fields(PeakZoomConfig))}  # of config.json


def _folder_of(model_id: str, where: dict[str, Any]) -> Path:
    """The folder that a model was just read from, with its card; of a model on the hub, its snapshot in the cache."""
    if Path(model_id).is_dir():
        return Path(model_id)
    with contextlib.suppress(HfHubHTTPError, OSError):  # it has no card, or is offline and the cache has none
        hf_hub_download(model_id, "README.md", **where)
    return Path(hf_hub_download(model_id, "config.json", local_files_only=True, **where)).parent


class Pretrained(PyTorchModelHubMixin):
    """huggingface_hub's ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, but for two things.

    Weights must fit the network, and they are read from safetensors only, for a pickle can run code.
    """

    origin: Path | None = None  # the folder that from_pretrained read

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that ``save_pretrained`` and ``push_to_hub`` write: :func:`peakzoom.hub.card.card_of`."""
        from peakzoom.hub.card import card_of

        return card_of(self, **kwargs)  # type: ignore[arg-type]

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, strict: bool = True, config: Any = None, **kwargs: Any
    ) -> Any:
        # The mixin passes config.json whole and, since the constructor takes **settings, key by key: also keys that
        # only another version knows.
        settings = {key: value for key, value in kwargs.items() if key in KEYS or key not in (config or {})}
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints where it reads from
            model = super()._from_pretrained(model_id=model_id, strict=strict, **settings)
        model.origin = _folder_of(model_id, {key: kwargs[key] for key in ("revision", "cache_dir", "token")})
        return model

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise UserError(
            "these weights are a pickle, which can run code when read: expected model.safetensors"
        )
