"""What a token that reads all patches has read of each: class maps of networks that classify one token.

Such a token's last block adds up what it takes from the patches, u = r + sum over x of z(x): z(x) are the values at
patch x, weighted by the token's attention and projected; r is all that is of no patch (the token itself, what it takes
from itself, biases). What follows is not linear, but for factors that all patches of a clip share:

    LN(u) = (u - mu(u)) / s(u) * g + b      s(u), the deviation of the channels, is one number
    GELU(h) = h * gate(h)                   gate(h) is one number a hidden channel

With these factors as u has them, both are linear, and of the N patches each has its share u(x) = r + N z(x) of u, which
is their mean. The same layers on u(x), the factors held, make the feature at x; the mean of the features is the token,
exactly, and so are its logits and gradients. Only how the token is divided among patches is a choice: the factors, and
the attention itself, are held, though each patch had a part in making them (Ali et al., "XAI for transformers: better
explanations through conservative propagation", ICML 2022, hold the same ones).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Gate = Callable[[Tensor], Tensor]


def gelu_gate(hidden: Tensor) -> Tensor:
    """GELU(h) / h: the normal distribution function."""
    return 0.5 * (1 + torch.erf(hidden * math.sqrt(0.5)))


def fast_gelu_gate(hidden: Tensor) -> Tensor:
    """The same of GELU's approximation by a hyperbolic tangent, which some networks are trained with."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))


def shared_norm(tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm of the mean of tokens (B, N, C), divided among them: (B, N, C), whose mean is that LayerNorm."""
    mean = tokens.mean(1, keepdim=True)
    spread = torch.var(mean, dim=-1, correction=0, keepdim=True) + norm.eps
    return (tokens - tokens.mean(-1, keepdim=True)) * spread.rsqrt() * norm.weight + norm.bias


def shared_block(
    tokens: Tensor, norm: nn.LayerNorm, first: nn.Module, gate: Gate, second: Callable[[Tensor], Tensor]
) -> Tensor:
    """The second half of a block, u + second(GELU(first(norm(u)))), of the mean u of tokens, divided among them.

    Args:
        tokens: (B, N, C), the shares u(x).
        norm: the block's second.
        first: the linear layer before its activation.
        gate: GELU(h) / h of that activation.
        second: the linear layer after it.

    Returns:
        (B, N, C), whose mean is the block's output for the mean of the tokens.
    """
    hidden = first(shared_norm(tokens, norm))
    return tokens + second(hidden * gate(hidden.mean(1, keepdim=True)))


def taken(attention: Tensor, values: Tensor, project: nn.Linear | None = None) -> Tensor:
    """z(x) of a token's attention (B, heads, N) to values (B, heads, N, c): (B, N, C), no bias added."""
    weighted = (attention[..., None] * values).transpose(1, 2).flatten(2)
    return weighted if project is None else nn.functional.linear(weighted, project.weight)
