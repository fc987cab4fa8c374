"""What a user may ask of a training beside the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peakzoom.data.runs import PHASES as PHASES

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a user may ask of a training beside the recipe.

    Attributes:
        seed: of weights, order, crops and splits.
        val_fraction: share of the training videos held back for choosing the epoch; 0 trains on all and keeps the
            last epoch.
        cache: "auto", "on" or "off".
        workers: loader processes; None = one less than the processors.
        accelerator, devices, num_nodes, precision: Lightning's; where ``torchrun`` started the processes, devices
            "auto" and one node mean as many as it did.
        sync_batch_norm: batch norms take their statistics from all processes' clips, not from each one's own.
        patience: epochs without a better validation before a phase stops; None = never.
        steps: which phases to train.
        init: weights to start the T-CNN from (a run folder, a saved model); a head of other classes is made new.
        weights: a public weight file to start it from instead, see :func:`peakzoom.model.weights.load_weights`.
        progress: show progress bars, where there is a terminal or a notebook to show them.
    """

    seed: int = 0
    val_fraction: float = 0.15
    cache: str = "auto"
    workers: int | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    patience: int | None = None
    steps: tuple[str, ...] = PHASES
    init: str | None = None
    weights: str | None = None
    progress: bool = True
    sync_batch_norm: bool = False
