"""Checkpoints of a training that survive a kill, a full disk and a power cut.

``last.ckpt`` is written after every epoch; the one before it stays as ``previous.ckpt``. A checkpoint is PyTorch's zip
file, whose every record has a CRC-32: reading checks them all, and no pickled code is run.
"""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from peakzoom.utils.durable import draft_of, sync

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class SafeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and keeps the one that was last before it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Serialise in memory, write beside, sync, rename."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with draft_of(file) as draft:
            draft.write_bytes(buffer.getbuffer())
            sync(draft)
            if file.name == LAST and file.exists():
                _keep(file)


def _keep(file: Path) -> None:
    """Give the last checkpoint a second name, so that there is a ``last`` at every moment."""
    previous, link = file.with_name(PREVIOUS), file.with_name(PREVIOUS + ".part")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(file)
    except OSError:  # a file system without such names; between two renames there is a previous one alone
        file.replace(previous)
    else:
        link.replace(previous)
    sync(file.parent)


class Kept(ModelCheckpoint):
    """Knows its best checkpoint again in a folder that was moved; Lightning's own begins to choose anew there."""

    @property
    def state_key(self) -> str:
        """As of Lightning's own: checkpoints of older versions are still known."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was saved, with this folder in place of the one that it was saved from."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(value) if name.endswith("_path") else value for name, value in state_dict.items()}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**moved, "dirpath": self.dirpath, "best_k_models": best})


def checkpoint_callback(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    """Writes ``name``.ckpt into a folder at the end of every epoch, or of every better one."""
    return Kept(folder, filename=name, save_on_train_epoch_end=True, enable_version_counter=False, **options)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Raises:
        ValueError: it is cut off or damaged; one line.
    """
    try:
        with zipfile.ZipFile(file) as records:
            if bad := records.testzip():
                raise ValueError(f"its record {bad} is not what was written")
        found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return found
    except (zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, None where the stage begins anew; every damaged one is logged.

    A checkpoint counts if the best one that it names can be read too: the end of the training needs both.
    """
    files = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for file in files:
        rest = "this stage begins anew" if file == files[-1] else "the one before it is taken"
        try:
            state = read_checkpoint(file)
        except ValueError as error:
            log.warning("%s is damaged (%s): %s", file, error, rest)
            continue
        try:
            if _names_best(state):
                read_checkpoint(folder / BEST)
            return file
        except ValueError as error:
            log.warning("%s is damaged (%s): this stage begins anew", folder / BEST, error)
            return None
    return None


def _names_best(state: dict[str, Any]) -> bool:
    """Whether a checkpoint's callbacks had saved a best epoch."""
    return any(
        value.get("monitor") and value.get("best_model_path")
        for name, value in state.get("callbacks", {}).items()
        if name.startswith(ModelCheckpoint.__qualname__)
    )
