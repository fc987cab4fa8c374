"""Resampling a frame so that attended regions grow (paper, Sec. 2.2, after Recasens et al., 2018; METHOD.md, 4).

An output position (x, y) reads the input at the mean of the positions around it, weighted by attention::

    u(x, y) = sum Q(x', y') k(x - x', y - y') x' / sum Q(x', y') k(x - x', y - y')

and v(x, y) likewise with y'. k is a Gaussian window, Q is continued by its border values while positions go on
linearly, so flat attention reads every pixel where it stands.

The published code convolves Q with a 61 x 61 window. But k is separable and the continuation is linear, so all of it
folds into two fixed g x g matrices: K, the blur, and D, the blur times the displacement x' - x. With A = Q K^T,
the denominator is K A, and the displacements are K (Q D^T) / K A and D A / K A. Displacements rather than positions,
because they are exactly zero for flat attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.geometry import exact


def blur_matrices(grid: int, fwhm: float, padding: int) -> tuple[Tensor, Tensor]:
    """K and D above, each (g, g) float64; displacements in units of the frame side.

    Args:
        grid: g.
        fwhm: full width at half maximum of k, in cells.
        padding: cells by which Q is continued, and half the window of k.
    """
    cell = torch.arange(grid, dtype=torch.float64)
    extended = torch.arange(-padding, grid + padding, dtype=torch.float64)
    apart = extended - cell[:, None]  # (g, g + 2 padding), x' - x in cells
    window = torch.exp(-4 * math.log(2) * (apart / fwhm).square()) * (apart.abs() <= padding)
    # Continuing by the border value: every cell beyond the border lends its weight to the border cell.
    inside = extended.clamp(0, grid - 1).long()
    fold = F.one_hot(inside, grid).to(window.dtype)  # (g + 2 padding, g)
    return window @ fold, (window * apart / (grid - 1)) @ fold


class ZoomSampler(nn.Module):
    """Enlarges where attention is high.

    Args:
        grid: side g of the attention map.
        fwhm: width of the Gaussian in cells (13: Ding et al., 2019).
        padding: half the window in cells (30: likewise).
    """

    blur: Tensor
    shift: Tensor

    def __init__(self, grid: int = 31, fwhm: float = 13.0, padding: int = 30) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"grid is {grid}, expected at least 2")
        blur, shift = blur_matrices(grid, fwhm, padding)
        dtype = torch.get_default_dtype()
        self.register_buffer("blur", blur.to(dtype), persistent=False)
        self.register_buffer("shift", shift.to(dtype), persistent=False)

    def displacement(self, attention: Tensor) -> Tensor:
        """How far from its own place each grid position reads: (N, g, g) -> (N, g, g, 2), as (x, y), in frame sides.

        What would lie outside the frame reads its border.
        """
        if attention.dim() != 3 or attention.shape[1:] != self.blur.shape:
            raise ValueError(
                f"attention has shape {tuple(attention.shape)}, expected (N, g, g), g = {len(self.blur)}"
            )
        with exact(attention):
            attention = attention.to(self.blur.dtype)
            across = attention @ self.blur.T
            x = self.blur @ (attention @ self.shift.T)
            y = self.shift @ across
            shift = torch.stack((x, y), dim=-1) / (self.blur @ across)[..., None]
            place = _identity(shift.shape[1], shift.shape[2], like=shift)
            return torch.minimum(torch.maximum(shift, (-1 - place) / 2), (1 - place) / 2)

    def grid(self, attention: Tensor) -> Tensor:
        """Where each grid position reads: (N, g, g) -> (N, g, g, 2) in [-1, 1] as (x, y), corners aligned."""
        shift = self.displacement(attention)
        return _identity(shift.shape[1], shift.shape[2], like=shift) + 2 * shift

    def forward(self, frames: Tensor, attention: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resample frames by their attention.

        Args:
            frames: (N, 3, H, W) float, of any size.
            attention: (N, g, g), positive.
            size: (height, width) of the result; the frames' own when not given. Frames may be larger than the result
                (zooming then shows detail that the result's size could not hold); where they are larger by a whole
                factor, positions are read at the frames' size and averaged, so that what is not enlarged does
                not alias and flat attention gives the area-averaged frame.

        Returns:
            (N, 3, *size).
        """
        if frames.dim() != 4 or len(frames) != len(attention):
            raise ValueError(
                f"frames {tuple(frames.shape)} and attention {tuple(attention.shape)} do not fit, "
                "expected (N, 3, H, W) and (N, g, g)"
            )
        height, width = size or (frames.shape[2], frames.shape[3])
        factor = max(1, min(frames.shape[2] // height, frames.shape[3] // width))
        fine = (height * factor, width * factor)
        shift = self.displacement(attention).permute(0, 3, 1, 2)
        with exact(frames):
            shift = F.interpolate(shift, fine, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
            # Of the attention's precision: bfloat16 would round positions to whole pixels.
            positions = _identity(fine[0], fine[1], like=shift) + 2 * shift
            zoomed = F.grid_sample(
                frames.to(positions.dtype),
                positions,
                mode="bilinear",
                padding_mode="border",
                align_corners=True,
            )
            return F.avg_pool2d(zoomed, factor) if factor > 1 else zoomed


def _identity(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) positions of the pixels themselves in [-1, 1], as (x, y)."""
    x = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    y = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
