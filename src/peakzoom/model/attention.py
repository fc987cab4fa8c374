"""Peaks split between two branches, and the sparse attention of each (paper, Eq. 5-7; docs/method.md, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peakzoom.model.numerics import exact, remembered

MODES = ("sample", "expected", "threshold")


class SparseAttention(nn.Module):
    """From peaks to two attention maps, discriminative and complementary.

    Eq. 5 sends peak i, of response R_i, to the discriminative branch when R_i >= phi_i, else to the complementary one.
    Eq. 6 gives it a Gaussian there, with distances d as fractions of the grid side: R exp(-d^2 / (R beta_dis^2)) or
    (1 / R) exp(-d^2 / (R beta_com^2)). Eq. 7 adds them up, over a constant ``base`` that keeps the context in view.

    A Gaussian is an outer product of its two axes, so the sum over the peaks is one (g, K) x (K, g) matrix product
    for each map; no g x g map per peak is made.

    Args:
        beta_dis: first width of the discriminative Gaussians, learnable (0.09 of Ding et al., 2019, times sqrt 2,
            because they write 2 sigma^2 where Eq. 6 has R beta^2).
        beta_com: first width of the complementary ones, learnable (0.3 times sqrt 2).
        base: attention where there is no peak (Ding et al.).
        faintest: Eq. 6 divides by R; responses below this count as this, once it is decided where a peak falls. A
            larger one keeps faint peaks from outweighing the clear ones in the complementary branch.
        mode: how peaks are split unless ``forward`` says otherwise: "sample" by phi ~ U(0, 1), as in training;
            "expected" counts every peak in both branches with its probability of falling there, the mean of Eq. 5-7
            over phi; "threshold" by phi = 0.5.
    """

    def __init__(
        self,
        beta_dis: float = 0.127,
        beta_com: float = 0.424,
        base: float = 0.09,
        mode: str = "expected",
        faintest: float = 1e-3,
    ) -> None:
        super().__init__()
        self.beta_dis = nn.Parameter(torch.tensor(float(beta_dis)))
        self.beta_com = nn.Parameter(torch.tensor(float(beta_com)))
        self.base = base
        self.faintest = faintest
        self.mode = mode

    def forward(
        self, response: Tensor, peaks: Tensor, phi: Tensor | None = None, *, mode: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention maps (Q_dis, Q_com), each (N, g, g), at least ``base`` everywhere.

        Args:
            response: (N, g, g) in [0, 1].
            peaks: (N, g, g) bool.
            phi: (N, g, g) in [0, 1], the draws of mode "sample", from the device's default generator when not given;
                other modes do not use them.
            mode: in place of the module's.

        Raises:
            ValueError: shapes that do not fit, or another mode.
        """
        if response.dim() != 3 or response.shape != peaks.shape or response.shape[1] != response.shape[2]:
            raise ValueError(
                f"response {tuple(response.shape)} and peaks {tuple(peaks.shape)} do not fit, expected (N, g, g) each"
            )
        with exact(response):
            found, cell = self.listed(peaks.to(response.dtype))
            value = response.flatten(1).gather(1, cell)
            share = self._share(value, response, cell, phi, mode or self.mode)

            value = value.clamp(min=self.faintest)
            side = response.shape[1]
            apart = _squared_distances(side, response.dtype, response.device)
            row, column = apart[cell // side], apart[cell % side]  # (N, K, g)

            # Both branches at once: (2, N, K), discriminative first.
            weight = found * torch.stack((share * value, (1 - share) / value))
            width = (value * torch.stack((self.beta_dis, self.beta_com)).square()[:, None, None])[..., None]
            rows = weight[..., None] * torch.exp(-row / width)
            q_dis, q_com = self.base + rows.transpose(-1, -2) @ torch.exp(-column / width)  # (g, K) x (K, g)
            return q_dis, q_com

    def listed(self, peaks: Tensor) -> tuple[Tensor, Tensor]:
        """Peaks, (N, g, g) of 0 and 1, as lists of K cells: K is the number of peaks of the map that has most.

        Returns:
            (N, K), 1 for a peak and 0 where a map has fewer than K; (N, K) int64, the cells' places in the flat map.
        """
        found = peaks.flatten(1)
        most = int(found.sum(1).amax()) if len(found) else 0
        values, cells = found.topk(most, dim=1)
        return values, cells

    def _share(self, value: Tensor, response: Tensor, cell: Tensor, phi: Tensor | None, mode: str) -> Tensor:
        """Eq. 5: how much of each peak (N, K) falls to the discriminative branch."""
        if mode == "expected":
            return value
        if mode == "threshold":
            return (value >= 0.5).to(value.dtype)
        if mode != "sample":
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        if phi is None:
            phi = torch.rand_like(response)
        return (value >= phi.flatten(1).gather(1, cell)).to(value.dtype)


@remembered
def _squared_distances(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of any two lines of a grid, as fractions of its side: (g, g)."""
    line = torch.arange(side, dtype=dtype) / side
    return (line - line[:, None]).square().to(device)
