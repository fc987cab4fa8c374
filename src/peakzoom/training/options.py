"""The options of a training: all that a user may decide beside the recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from peakzoom.data.runs import STAGES
from peakzoom.training.distributed import launched

FROM_SCRATCH = "none"  # as a start


@dataclass(frozen=True)
class Options:
    """All that a user may decide of a training beside the recipe.

    Attributes:
        seed: of weights, order, crops and splits.
        val_fraction: share of the training videos held back for choosing the epoch; 0 trains on all and keeps the
            last epoch. None: 0.15, or 0 where a class has fewer than five.
        cache: "auto", "on" or "off".
        workers: loader processes; None = one less than the processors.
        accelerator, devices, num_nodes, precision: Lightning's; where ``torchrun`` started the processes, devices
            "auto" and one node mean as many as it did.
        logger: where figures go beside the run's folder: one of :data:`peakzoom.training.loggers.LOGGERS`.
        sync_batch_norm: batch norms take their statistics from the clips of all GPUs, not of each one's own.
        patience: epochs without a better validation before a stage stops; None = never.
        steps: which stages to train: "tcnn" is stage 1, "joint" is stage 2.
        init: weights to start the T-CNN from (a run folder, a saved model, a name of
            :func:`peakzoom.model.starts.starts`); a head of other classes is made new. None: those that come with the
            package, where they fit (:func:`peakzoom.training.start.resolved`); "none": from scratch.
        weights: a public weight file to start it from instead, see :func:`peakzoom.model.weights.load_weights`.
        progress: show how far the training is: by bars where there is a terminal or a notebook, else by a line an
            epoch in the log.
    """

    seed: int = 0
    val_fraction: float | None = None
    cache: str = "auto"
    workers: int | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    patience: int | None = None
    steps: tuple[str, ...] = STAGES
    init: str | None = None
    weights: str | None = None
    progress: bool = True
    sync_batch_norm: bool = False
    logger: str = "tensorboard"

    def hardware(self) -> dict[str, Any]:
        """Arguments of ``lightning.Trainer``: what to compute on, in how many processes, in which precision."""
        devices: int | str = int(self.devices) if self.devices.isdigit() else self.devices
        nodes = self.num_nodes
        if started := launched():
            devices = started[0] if devices == "auto" else devices
            nodes = started[1] if nodes == 1 else nodes
        return {
            "accelerator": self.accelerator,
            "devices": devices,
            "num_nodes": nodes,
            "precision": self.precision,
            "sync_batchnorm": self.sync_batch_norm,
        }

    def recorded(self) -> dict[str, Any]:
        """What a resumed run must ask for again: all but where the run is made and how many processes serve it."""
        values = asdict(self)
        for name in ("workers", "progress", "cache", "logger"):
            del values[name]
        if values["init"] == FROM_SCRATCH:
            values["init"] = None  # as runs have it that were begun before anything came with the package
        # Runs that were begun before there were these options do not have them:
        for name, default in (("weights", None), ("sync_batch_norm", False)):
            if values[name] == default:
                del values[name]
        return values
