"""Peaks split in two, and the sparse attention of each side (paper, Eq. 5-7; docs/method.md, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peakzoom.model.numerics import exact, remembered

MODES = ("sample", "expected", "threshold")


class SparseAttention(nn.Module):
    """From peaks to two attention maps, discriminative and complementary.

    Eq. 5 sends peak i, of response R_i, to the discriminative side when R_i >= phi_i, else to the complementary one.
    Eq. 6 gives it a Gaussian there, with distances d as fractions of the grid side: R exp(-d^2 / (R beta_dis^2)) or
    (1 / R) exp(-d^2 / (R beta_com^2)). Eq. 7 adds them up, over a constant ``base`` that keeps the context in view.

    A Gaussian is an outer product of its two axes, so the sum over the peaks is one (g, K) x (K, g) matrix product
    for each map; no g x g map per peak is made.

    Args:
        beta_dis: initial width of the discriminative Gaussians, learnable (0.09 of Ding et al., 2019, times sqrt 2,
            because they write 2 sigma^2 where Eq. 6 has R beta^2).
        beta_com: likewise of the complementary ones (0.3 times sqrt 2).
        base: attention where there is no peak (Ding et al.).
        mode: how peaks are split when ``forward`` is not told: "sample" draws phi ~ U(0, 1) (training); "expected"
            counts every peak on both sides with its probability of falling there, the mean of Eq. 5-7 over phi;
            "threshold" puts phi = 0.5.
    """

    eps = 1e-3  # Eq. 6 divides by R: responses below this count as this

    def __init__(
        self, beta_dis: float = 0.127, beta_com: float = 0.424, base: float = 0.09, mode: str = "expected"
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        self.every_cell = (
            False  # whether shapes must not depend on how many peaks there are (an exported model's)
        )
        self.beta_dis = nn.Parameter(torch.tensor(float(beta_dis)))
        self.beta_com = nn.Parameter(torch.tensor(float(beta_com)))
        self.base = base
        self.mode = mode

    def forward(
        self,
        response: Tensor,
        peaks: Tensor,
        phi: Tensor | None = None,
        *,
        mode: str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention maps (Q_dis, Q_com), each (N, g, g), at least ``base`` everywhere.

        Args:
            response: (N, g, g) in [0, 1].
            peaks: (N, g, g) bool.
            phi: (N, g, g) in [0, 1], the draws of mode "sample", which other modes do not use; drawn when not given.
            mode: overrides the module's for this call.
            generator: where draws come from; the device's default when not given.
        """
        if response.dim() != 3 or response.shape != peaks.shape or response.shape[1] != response.shape[2]:
            raise ValueError(
                f"response {tuple(response.shape)} and peaks {tuple(peaks.shape)} do not fit, expected (N, g, g) each"
            )
        with exact(response):
            return self._attend(response, peaks, phi, mode or self.mode, generator)

    def _attend(
        self,
        response: Tensor,
        peaks: Tensor,
        phi: Tensor | None,
        mode: str,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        count, side = response.shape[:2]
        found = peaks.flatten(1).to(response.dtype)
        if self.every_cell:
            cell = torch.arange(side * side, device=response.device).expand_as(found)
        else:
            # Peak k of each map, as many columns as the richest map has; the rest carry weight 0.
            most = int(found.sum(1).amax()) if count else 0
            found, cell = found.topk(most, dim=1)  # (N, K)
        value = response.flatten(1).gather(1, cell)
        share = self._share(value, cell, phi, response.shape, mode, generator)

        value = value.clamp(min=self.eps)
        apart = _squared_distances(side, response.dtype, response.device)
        row, column = apart[cell // side], apart[cell % side]  # (N, K, g)

        # Both sides at once: (2, N, K), discriminative first.
        weight = found * torch.stack((share * value, (1 - share) / value))
        width = (value * torch.stack((self.beta_dis, self.beta_com)).square()[:, None, None])[..., None]
        rows = weight[..., None] * torch.exp(-row / width)
        q_dis, q_com = self.base + rows.transpose(-1, -2) @ torch.exp(-column / width)  # (g, K) x (K, g)
        return q_dis, q_com

    def _share(
        self,
        value: Tensor,
        cell: Tensor,
        phi: Tensor | None,
        shape: torch.Size,
        mode: str,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Eq. 5: how much of each peak (N, K) falls to the discriminative side."""
        if mode == "expected":
            return value
        if mode == "threshold":
            return (value >= 0.5).to(value.dtype)
        if mode != "sample":
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        if phi is None:
            phi = torch.rand(shape, generator=generator, device=value.device, dtype=value.dtype)
        return (value >= phi.flatten(1).gather(1, cell)).to(value.dtype)


@remembered
def _squared_distances(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of any two lines of a grid, as fractions of its side: (g, g)."""
    line = torch.arange(side, dtype=dtype) / side
    return (line - line[:, None]).square().to(device)
