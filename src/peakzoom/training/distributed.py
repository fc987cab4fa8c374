"""Several processes that train one network: what each of them has to know of the others.

The processes share one batch: what one process would take as a batch of B clips is cut into W runs of neighbours. So
that the sum of their gradients is the one that a single process would compute, a process needs three things from the
others: how many clips they have (its own place in the batch, for random draws), how much these clips weigh in the loss,
and, if asked for, the sums of every batch norm.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Share(NamedTuple):
    """Which clips of the whole batch a process has: ``first`` and those after it, of ``total``."""

    first: int
    total: int


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Processes on each machine and machines, as ``torchrun`` started them; None if it did not."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    here = int(environment["LOCAL_WORLD_SIZE"])
    return here, max(1, int(environment["WORLD_SIZE"]) // here)


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

    def share(self, clips: int) -> Share:
        """This process's place in the batch, of which it has so many clips."""
        if self.world == 1:
            return Share(0, clips)
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([clips]), group=self.group)
        each = [int(count) for count in counts]
        return Share(sum(each[: dist.get_rank()]), sum(each))

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

    def all(self, true: bool) -> bool:
        """Whether it is true in every process."""
        return self.sums([float(not true)]) == [0.0]


class _AllSum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, because every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class SharedDropout(nn.Dropout):
    """A dropout that draws for the whole batch of all processes and takes the rows of this process's clips.

    So a clip gets the mask that it would get in one process. Without ``share`` it is an ordinary dropout.
    """

    share: Share | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) -> the same shape."""
        if self.share is None or not self.training:
            return super().forward(input)
        first, total = self.share
        mask = super().forward(input.new_ones((total, *input.shape[1:])))
        return input * mask[first : first + len(input)]


class SyncBatchNorm(_BatchNorm):
    """A batch norm whose training statistics are those of all processes' clips.

    PyTorch's own runs on GPUs alone, and does not know a process without a clip. Such a process computes with one that
    stands in, so that it takes part in every exchange in the same order as the others; with ``counts`` False that
    clip's sums are left out.
    """

    counts: bool = True

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any (B, C, ...)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape. Statistics in float32, or float64 for such input."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        wide = (1, -1, *[1] * (input.dim() - 2))
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        counts = float(self.counts)
        own = x.new_tensor([x.numel() / x.shape[1]])
        total: Tensor = _AllSum.apply(torch.cat((x.sum(axes), own)) * counts)
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean.view(wide)
        variance: Tensor = _AllSum.apply(centred.square().sum(axes) * counts) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                seen = self.num_batches_tracked
                # momentum None is PyTorch's cumulative average
                part = (
                    self.momentum if self.momentum is not None else 1 / int(seen if seen is not None else 1)
                )
                unbiased = variance * count / (count - 1)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), part)
        made = centred * (variance + self.eps).rsqrt().view(wide)
        if self.affine:
            made = made * self.weight.view(wide) + self.bias.view(wide)
        return made.to(input.dtype)


def synchronise(model: nn.Module) -> None:
    """Let every batch norm in a model take its statistics from all processes; in place, weights as they are."""
    for parent in list(model.modules()):
        for name, old in list(parent.named_children()):
            if not isinstance(old, _BatchNorm) or isinstance(old, SyncBatchNorm):
                continue
            new = SyncBatchNorm(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
            new.load_state_dict(old.state_dict())
            new.to(next(old.parameters(), torch.empty(0)))
            new.train(old.training)
            setattr(parent, name, new)


def lost_another(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "connection closed by peer", "connection reset by peer", "nccl")
    )


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of several that train together."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0
