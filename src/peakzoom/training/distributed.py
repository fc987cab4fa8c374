"""Several processes that train one network: what each of them has to know of the others.

They share one batch, cut into equal runs of neighbours. So that the mean of their gradients is the one that a single
process would compute, each needs from the others how many clips they could decode, which is its place in the batch for
random draws, and how much these clips weigh in the loss (docs/scale.md).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from peakzoom.utils.parent import end_with_parent

# What an error says where another process is gone.
LOST = re.compile("gloo|nccl|connection (closed|reset) by peer", re.IGNORECASE)
STARTER = (
    "PEAKZOOM_TRAINING_STARTER"  # in the environment: the process that may start others to train with it
)


class Slice(NamedTuple):
    """Which clips of the whole batch a process has: ``first`` and those after it, of ``total``."""

    first: int
    total: int


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Processes on each machine and machines, as ``torchrun`` started them; None if it did not."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    here = int(environment["LOCAL_WORLD_SIZE"])
    return here, max(1, int(environment["WORLD_SIZE"]) // here)


def end_with_launcher() -> None:
    """End this process when the one is gone that started it to train together: torchrun, or Lightning in the first one.

    Whoever starts processes by other means may leave them alone.
    """
    if launched() or os.environ.get(STARTER) == str(os.getppid()):
        end_with_parent()
    os.environ[STARTER] = str(os.getpid())  # Lightning hands it on


def place() -> tuple[int, int]:
    """This process's number and how many there are, before they have met: (0, 1) for one alone."""
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    return rank, int(os.environ.get("WORLD_SIZE", 1))


class Together:
    """Plain numbers among the processes, over the processors (gloo): a GPU that computes is not waited for.

    Args:
        world: how many processes; with one nothing is sent anywhere.
    """

    def __init__(self, world: int) -> None:
        self.world = world
        self.group: Any = dist.new_group(backend="gloo") if world > 1 else None

    def slice(self, clips: int) -> Slice:
        """This process's place in the batch, of which it has so many clips."""
        if self.world == 1:
            return Slice(0, clips)
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([clips]), group=self.group)
        each = [int(count) for count in counts]
        return Slice(sum(each[: dist.get_rank()]), sum(each))

    def sums(self, values: list[float]) -> list[float]:
        """Sums of the same numbers over all processes."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.tolist()

    def lists(self, values: list[Any]) -> list[Any]:
        """The lists of all processes behind one another."""
        if self.world == 1:
            return values
        lists: list[Any] = [None] * self.world
        dist.all_gather_object(lists, values, group=self.group)
        return [value for each in lists for value in each]


class SharedDropout(nn.Dropout):
    """A dropout that draws for the whole batch of all processes and takes the rows of this process's clips.

    So a clip gets the mask that it would get in one process. Without ``slice`` it is an ordinary dropout.
    """

    slice: Slice | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) -> the same shape."""
        if self.slice is None or not self.training:
            return super().forward(input)
        first, total = self.slice
        mask = super().forward(input.new_ones((total, *input.shape[1:])))
        return input * mask[first : first + len(input)]


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of several that train together."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


@contextmanager
def first_process_logs() -> Iterator[None]:
    """Let the first of several processes alone log, in the block: the others would log the same."""
    logger = logging.getLogger("peakzoom")
    before = logger.level
    if not is_main_process():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
