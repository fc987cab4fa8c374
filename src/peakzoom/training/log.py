"""One row of ``metrics.csv``, one redrawn plot and one line an epoch."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from peakzoom.data.runs import read_metrics as read_metrics
from peakzoom.display.figures import plot_curves
from peakzoom.training.module import Training
from peakzoom.training.options import Say
from peakzoom.utils.durable import whole


class EpochLog(Callback):
    """One row of ``metrics.csv`` and one redrawn plot an epoch; one line a time where there is no progress bar."""

    def __init__(self, folder: Path, say: Say | None, name: str) -> None:
        self.file, self.say, self.name = folder / "metrics.csv", say, name
        self.began = time.monotonic()
        self.first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.log_epoch("train")
        if not trainer.is_global_zero:
            return
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rows = read_metrics(self.file)
        epoch = trainer.current_epoch
        attention = pl_module.model.attention
        row = {
            "epoch": epoch + 1,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "beta_dis": float(attention.beta_dis.detach()),
            "beta_com": float(attention.beta_com.detach()),
            **measured,
        }
        rows = [old for old in rows if old["epoch"] <= epoch] + [row]  # a resumed run writes its epochs once
        columns = list(dict.fromkeys(name for each in rows for name in each))
        with whole(self.file) as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        with whole(self.file.with_name("curves.png"), "wb") as stream:
            plot_curves(rows, stream, self.name)
        if self.say:
            took = time.monotonic() - self.began
            left = took / (epoch + 1 - self.first) * ((trainer.max_epochs or 0) - epoch - 1)
            shown = [f"{name} {measured[key]:{form}}" for key, name, form in SHOWN if key in measured]
            self.say(
                f"{self.name} epoch {epoch + 1}/{trainer.max_epochs}: {', '.join(shown)}, {left:.0f} s left"
            )


SHOWN = (
    ("train_loss", "loss", ".3f"),
    ("train_accuracy", "accuracy", ".1%"),
    ("val_loss", "validation loss", ".3f"),
    ("val_accuracy", "validation accuracy", ".1%"),
)
