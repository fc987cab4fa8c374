"""Where the figures of a training go beside its folder: TensorBoard's files; Weights & Biases or MLflow too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from peakzoom.training.recipes import Recipe
from peakzoom.utils.errors import UserError, first_line
from peakzoom.utils.extras import needed_for
from peakzoom.utils.journal import hash_of

PROJECT = "peakzoom"  # of Weights & Biases, the experiment of MLflow
LOGGERS = ("tensorboard", "wandb", "mlflow")


@contextmanager
def ended(found: Iterable[Logger]) -> Iterator[None]:
    """End a stage's run of Weights & Biases after the block: the next stage would else go on with it."""
    failed = 1
    try:
        yield
        failed = 0
    finally:
        for each in found:
            if isinstance(each, WandbLogger):
                each.experiment.finish(exit_code=failed)


def expect_logger(kind: str) -> None:
    """UserError if what a kind of logger needs is not installed."""
    with needed_for(f"--logger {kind}"):
        if kind == "wandb":
            import wandb as wandb
        elif kind == "mlflow":
            import mlflow as mlflow


def loggers(kind: str, folder: Path, recipe: Recipe) -> list[Logger]:
    """Lightning's loggers of a stage.

    Args:
        kind: one of :data:`LOGGERS`; TensorBoard's files are always written.
        folder: of the stage, in that of the run.
        recipe: noted with the figures.

    Raises:
        UserError: the service takes no run.
    """
    name = f"{folder.parent.name}-{folder.name}"
    found: list[Logger] = [TensorBoardLogger(folder, name="tensorboard", version="")]
    try:
        if kind == "wandb":
            # The same run again when the training is resumed.
            known = hash_of([str(folder.resolve())])
            found.append(WandbLogger(project=PROJECT, name=name, id=known, resume="allow", save_dir=folder))
        elif kind == "mlflow":
            home = os.environ.get("MLFLOW_TRACKING_URI")
            if home is None:  # mlflow 3.18 asks to be told that files are meant
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
                home = f"file:{folder.parent.resolve() / 'mlruns'}"
            found.append(MLFlowLogger(PROJECT, name, tracking_uri=home))
        for each in found[1:]:
            each.log_hyperparams(recipe.recorded())  # this begins the run there
    except Exception as error:  # of that service: nobody logged in, no server, no right
        raise UserError(f"--logger {kind} cannot begin: {first_line(error)}") from error
    return found
