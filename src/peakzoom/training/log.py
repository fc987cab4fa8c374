"""What is shown and kept of a training: a row of ``metrics.csv``, a redrawn plot and a line of the log an epoch."""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from peakzoom.data.runs import read_metrics
from peakzoom.display.figures import curves_figure
from peakzoom.training.module import Training
from peakzoom.training.time_left import TimeLeft
from peakzoom.utils.durable import whole, write_csv
from peakzoom.utils.progress import Progress, progress_bar

log = logging.getLogger(__name__)

DRAW_AFTER = 15.0  # seconds: a plot takes a second, and short epochs would wait for it
SHOWN = (  # in the line: the column, its name there, its form
    ("train_loss", "loss", ".3f"),
    ("train_accuracy", "accuracy", ".1%"),
    ("train_map", "mAP", ".3f"),
    ("val_loss", "validation loss", ".3f"),
    ("val_accuracy", "validation accuracy", ".1%"),
    ("val_map", "validation mAP", ".3f"),
    ("expected_cost", "expected G multiply-adds", ".3g"),
)


def quiet_lightning() -> None:
    """Keep Lightning from announcing itself, and from warning of what is meant."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # which importing it has set to INFO
    # What is logged is summed over the processes already (sync_dist).
    for text in ("does not have many workers", "sync_dist=True", "Checkpoint directory .* exists and is not"):
        warnings.filterwarnings("ignore", f".*{text}.*")


class EpochLog(Callback):
    """Writes down what was measured after every epoch.

    Args:
        folder: of the stage.
        name: of the stage.
        left: the time that is.
        lines: log a line an epoch, which stays where a bar is wiped away.
    """

    def __init__(self, folder: Path, name: str, left: TimeLeft, lines: bool) -> None:
        self.file, self.name, self.left, self.lines = folder / "metrics.csv", name, left, lines
        self.drawn = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.log_epoch("train")
        if not trainer.is_global_zero:
            return
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        attention = pl_module.model.attention
        row = {
            "epoch": epoch + 1,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "beta_dis": float(attention.beta_dis.detach()),
            "beta_com": float(attention.beta_com.detach()),
            **measured,
        }
        # A resumed run writes its epochs once.
        rows = [*(old for old in read_metrics(self.file) if old["epoch"] <= epoch), row]
        columns = list(dict.fromkeys(name for each in rows for name in each))
        write_csv(self.file, columns, ([each.get(name, "") for name in columns] for each in rows))
        if time.monotonic() - self.drawn > DRAW_AFTER:
            self._draw()
        if self.lines:
            shown = [f"{name} {measured[key]:{form}}" for key, name, form in SHOWN if key in measured]
            log.info(
                f"{self.name} epoch {epoch + 1}/{trainer.max_epochs}: {', '.join(shown)}, {self.left.said}"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.file.exists():
            self._draw()

    def _draw(self) -> None:
        with whole(self.file.with_name("curves.png"), "wb") as stream:
            curves_figure({self.name: read_metrics(self.file)}).savefig(stream, dpi=110, format="png")
        self.drawn = time.monotonic()


class EpochBar(Callback):
    """One line that is redrawn where somebody watches: the stage, the epoch, how far it is; wiped away at its end.

    Args:
        name: of the stage.
        left: the time that is, of the whole training.
    """

    def __init__(self, name: str, left: TimeLeft) -> None:
        self.name, self.left = name, left
        self._stack = ExitStack()
        self._report: Progress = lambda done, total: None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the epoch's."""
        if not trainer.is_global_zero:
            return
        so_far = f", {self.left.said}" if self.left.done else ""
        title = f"{self.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{so_far}"
        self._report = self._stack.enter_context(progress_bar(title))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        if trainer.is_global_zero:
            self._report(batch_idx + 1, int(trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wipe it away."""
        self._stack.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Wipe it away."""
        self._stack.close()
