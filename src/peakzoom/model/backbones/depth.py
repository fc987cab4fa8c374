"""Stochastic depth: in training, a clip goes without some of a transformer's residual branches, others each time.

Huang, Sun, Liu, Sedra and Weinberger, "Deep networks with stochastic depth", ECCV 2016. A branch that is left out adds
nothing, and one that is kept adds so much more that the mean stays. The first block is always kept, and each one after
it is left out a little more often, up to the rate at the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Zero for some of the clips in training, as much larger for the others; in evaluation it changes nothing.

    Args:
        rate: share that becomes zero, from 0 to less than 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """What a residual branch adds, (B, ...), with one draw for each of the B."""
        if not (self.training and self.rate):
            return branch
        kept = branch.new_empty((len(branch), *[1] * (branch.dim() - 1))).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


def leave_out(blocks: Sequence[nn.Module], ends: Sequence[str], rate: float) -> None:
    """Let blocks go without their residual branches in training.

    Args:
        blocks: from the first to the last.
        ends: in each block, names of modules that change nothing (a dropout of 0) and that its branches pass last.
        rate: of the last block.

    Raises:
        AttributeError: a block has no module of that name.
    """
    for number, block in enumerate(blocks):
        for name in ends:
            block.get_submodule(name)
            parent, _, last = name.rpartition(".")
            own = StochasticDepth(rate * number / max(1, len(blocks) - 1))
            setattr(block.get_submodule(parent), last, own)
