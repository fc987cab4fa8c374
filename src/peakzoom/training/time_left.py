"""How long a training still takes, of all its stages, said before the first epoch has ended."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from peakzoom.data.runs import STAGES

log = logging.getLogger(__name__)

FIRST_SAID = 15.0  # seconds after the start, once a few batches are done: the first ones are slower
FEWEST = 3


def shown_time(seconds: float) -> str:
    """In the largest unit that leaves two digits.

    >>> shown_time(7.2), shown_time(150), shown_time(30_000)
    ('7 s', '2 min', '8.3 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class TimeLeft(Callback):
    """Measures how long a batch takes, with what validation there was, and counts those that are left.

    Args:
        name: of the stage.
        later: how many batches of this stage the stages after it come to.
    """

    def __init__(self, name: str, later: float) -> None:
        self.name, self.later = name, later
        self.began, self.done, self.total = time.monotonic(), 0, 0.0
        self.is_said = False

    @property
    def seconds(self) -> float:
        """Left of the whole training; of a search, which cannot know its network's, of that alone."""
        return (time.monotonic() - self.began) / max(1, self.done) * (self.total - self.done + self.later)

    @property
    def said(self) -> str:
        """How long all of it still takes."""
        stages = " for both stages" if self.later else "" if self.name in STAGES else f" of the {self.name}"
        return f"about {shown_time(self.seconds)} left{stages}"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what is to be done."""
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch
        self.began, self.done, self.total = time.monotonic(), 0, epochs * trainer.num_training_batches

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and say it once where an epoch takes long."""
        self.done += 1
        slow = time.monotonic() - self.began >= FIRST_SAID and self.done >= FEWEST
        if slow and not self.is_said and trainer.is_global_zero:
            self.is_said = True
            log.info(f"{self.name}: {self.said}")
