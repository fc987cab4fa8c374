"""The widest network of a space, computed as a mixture of all that lie within it (no equation of the paper).

A candidate with fewer channels is the widest layer with its last channels set to zero (FBNetV2, Wan et al., CVPR 2020);
one with fewer blocks is what comes out of an earlier block; a dilation is the layer's three taps laid so far apart, or
the middle one alone. Weights of the candidates add these up, so that a loss has a gradient for each weight. Where one
candidate of every choice has weight 1, the result is that of the discrete network, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.backbones.base import check_video
from peakzoom.model.backbones.space import STEM, Space, channels, depth, dilation, inner
from peakzoom.model.backbones.tcnn import TCNN, Block


class Relaxed(TCNN):
    """A T-CNN with the widest plan of a space, and weights of the candidates of every choice.

    Its batch norms have no running statistics, for these would be of no mixture in particular: they take a batch's own.

    Args:
        num_classes: S.
        space: the candidates.
        dropout: as of every :class:`~peakzoom.model.backbones.base.VideoNetwork`.

    Attributes:
        mixture: (J,) weights of the J candidates of every choice in the next forward pass; a candidate of weight 0 is
            not computed. At first the widest network.
    """

    def __init__(self, num_classes: int, space: Space, dropout: float = 0.0) -> None:
        super().__init__(
            num_classes, dropout=dropout, plan=space.widest, pool=space.pool, max_stride=space.max_stride
        )
        self.space = space
        self.mixture = space.one_hot({name: len(each) - 1 for name, each in space.choices.items()})
        for part in self.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.track_running_stats, part.running_mean, part.running_var = False, None, None

    def features(self, video: Tensor) -> Tensor:
        """Features of the last stage: (B, 3, T, H, W) float -> (B, C, T', h, w); channels left out are 0."""
        video = check_video(video)
        if not self.motion:
            video = video.contiguous(memory_format=torch.channels_last_3d)
        first, relu, second, _ = self.stem
        x = self._kept(relu(second(self._kept(relu(first(video)), STEM))), STEM)
        blocks = iter(self.blocks)
        for number, stage in enumerate(self.space.widest.stages, 1):
            wanted, mixed = self.mixture[depth(number)], []
            for block in range(1, len(stage.dilations) + 1):
                part: Any = next(blocks)
                if wanted[block - 1 :].any():
                    x = self._through(part, x, number, block)
                    mixed.append(wanted[block - 1] * x)
            x = torch.stack(mixed).sum(0) if len(mixed) > 1 else mixed[0]
        return x

    def _through(self, part: Block, x: Tensor, stage: int, block: int) -> Tensor:
        """A block, (B, C, T, H, W) -> (B, C', T', h, w)."""
        y = self._kept(F.relu(part.conv1(x)), inner(stage, block))
        second: Any = part.conv2
        if self.plan.factored:
            space, relu, second = second
            y = self._kept(relu(space(y)), inner(stage, block))
        conv, norm = second
        look = dilation(stage, block)
        y = norm(convolve_mixed(y, conv, self.space.choices[look], self.mixture[look]))
        return self._kept(F.relu(y + part.shortcut(x)), channels(stage))

    def _kept(self, x: Tensor, choice: str) -> Tensor:
        """Each channel times the weight of the candidates that have it."""
        weights, values = self.mixture[choice].to(x), torch.tensor(self.space.choices[choice])
        there = torch.arange(x.shape[1]) < values[:, None]  # (J, C)
        return x * (weights @ there.to(x)).view(-1, 1, 1, 1)


def convolve_mixed(x: Tensor, conv: nn.Conv3d, dilations: Sequence[int], weights: Tensor) -> Tensor:
    """A convolution of three taps in time, mixed over how far apart they lie.

    Args:
        x: (B, C, T, H, W).
        conv: without bias, of stride 1.
        dilations: of J candidates; 0 is the middle tap alone.
        weights: (J,).
    """
    side = conv.kernel_size[1] // 2
    mixed = []
    for look, weight in zip(dilations, weights, strict=True):
        if weight:
            kernel = conv.weight if look else conv.weight[:, :, 1:2]
            taken = F.conv3d(x, kernel, None, 1, (look, side, side), (max(look, 1), 1, 1))
            mixed.append(weight.to(x) * taken)
    return torch.stack(mixed).sum(0) if len(mixed) > 1 else mixed[0]


class Choices(nn.Module):
    """The probabilities of a search: a softmax over a learned number for every candidate."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.logits = nn.ParameterDict(
            {name: torch.zeros(len(values)) for name, values in space.choices.items()}
        )

    def probabilities(self) -> dict[str, Tensor]:
        """(J,) of every choice."""
        return {name: each.softmax(0) for name, each in self.logits.items()}

    def draw(self, temperature: float, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Weights (J,) of every choice: of two candidates, drawn by their probabilities; the others are 0.

        Two, as in Transformable Architecture Search (Dong and Yang, NeurIPS 2019): one is always compared with another.
        Gumbel noise draws them, and the softmax of the two noisy numbers over ``temperature`` weighs them: the lower,
        the nearer to one alone.
        """
        drawn = {}
        for name, logits in self.logits.items():
            uniform = torch.rand(len(logits), generator=generator, device=logits.device).clamp(1e-9, 1 - 1e-7)
            noisy = logits - (-uniform.log()).log()
            best = noisy.topk(min(2, len(logits)))
            weights = (best.values / temperature).softmax(0)
            drawn[name] = torch.zeros_like(logits).scatter(0, best.indices, weights)
        return drawn
