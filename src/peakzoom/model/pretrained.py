"""Models as folders and on the Hugging Face hub: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import contextlib
import io
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from peakzoom.model.config import PeakZoomConfig
from peakzoom.utils.errors import UserError

KEYS = {"backbone", *(field.name for field in fields(PeakZoomConfig))}  # of config.json


class Pretrained(PyTorchModelHubMixin):
    """huggingface_hub's ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, but for three things.

    Weights must fit the network. They are read from safetensors only, for a pickle can run code. And no model card is
    written: a card tells of data and training, which a network does not know (:mod:`peakzoom.hub.card` does).
    """

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """What ``save_pretrained`` saves as README.md: nothing."""
        return SimpleNamespace(save=lambda path: None)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, strict: bool = True, config: Any = None, **kwargs: Any
    ) -> Any:
        # The mixin passes config.json whole and, since the constructor takes **settings, key by key: also keys that
        # only another version knows.
        settings = {key: value for key, value in kwargs.items() if key in KEYS or key not in (config or {})}
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints where it reads from
            return super()._from_pretrained(model_id=model_id, strict=strict, **settings)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise UserError(
            "these weights are a pickle, which can run code when read: expected model.safetensors"
        )
