"""Reading saved models: huggingface_hub's two hooks, made strict and without pickles."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError


def _folder_of(model_id: str, where: dict[str, Any]) -> Path:
    """The folder that a model was just read from, with its card; of a model on the hub, its snapshot in the cache."""
    if Path(model_id).is_dir():
        return Path(model_id)
    with contextlib.suppress(HfHubHTTPError, OSError):  # it has no card, or is offline and the cache has none
        hf_hub_download(model_id, "README.md", **where)
    return Path(hf_hub_download(model_id, "config.json", local_files_only=True, **where)).parent
