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
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.geometry import exact, interpolation_matrix


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
            return torch.clamp(shift, (-1 - place) / 2, (1 - place) / 2)

    def grid(self, attention: Tensor) -> Tensor:
        """Where each grid position reads: (N, g, g) -> (N, g, g, 2) in [-1, 1] as (x, y), corners aligned."""
        shift = self.displacement(attention)
        return _identity(shift.shape[1], shift.shape[2], like=shift) + 2 * shift

    def forward(
        self,
        frames: Tensor,
        attention: Tensor,
        size: tuple[int, int] | None = None,
        apart: bool = False,
    ) -> Tensor:
        """Resample frames by their attention.

        Args:
            frames: (N, C, H, W) float, of any size; C is 3, or 3 T where the frames of a clip share one attention.
            attention: (k N, g, g), positive: N maps for each of k resamplings of the same frames, one after the other.
            size: (height, width) of the result; the frames' own when not given. Frames may be larger than the
                result, and zooming then shows detail that the result's size could not hold. What is not enlarged
                does not alias: flat attention gives the area average of 2 x 2 or 4 x 4 pixels where frames are twice
                or four times as large.
            apart: keep the k resamplings in an axis of their own, which saves a copy where N > 1 and nothing is learnt.

        Returns:
            (k N, C, *size), or (k, N, C, *size), perhaps not contiguous, if ``apart``.
        """
        if frames.dim() != 4 or attention.shape[0] % frames.shape[0]:
            raise ValueError(
                f"frames {tuple(frames.shape)} and attention {tuple(attention.shape)} do not fit, "
                "expected (N, 3, H, W) and (k N, g, g)"
            )
        height, width = size or (frames.shape[2], frames.shape[3])
        shift = self.displacement(attention).unflatten(0, (-1, frames.shape[0]))
        with exact(frames):
            grid, (high, wide) = len(self.blur), frames.shape[2:]
            y = _reading(high, height, grid, like=shift)
            x = y if (high, height) == (wide, width) else _reading(wide, width, grid, like=shift)
            # Of the attention's precision: bfloat16 would round positions to whole pixels.
            positions = _positions(shift.transpose(0, 1), y, x)
            zoomed = _read(frames.to(positions.dtype), positions)  # (k, N, C, n height, m width)
            if (y.times, x.times) != (1, 1):
                pooled = F.avg_pool2d(zoomed.flatten(0, 1), (y.times, x.times))
                zoomed = pooled.unflatten(0, zoomed.shape[:2])
            return zoomed if apart else zoomed.flatten(0, 1)


def _positions(shift: Tensor, y: _Axis, x: _Axis) -> Tensor:
    """Where grid_sample reads: (..., g, g, 2) displacements in frame sides, added to places -> (..., h, w, 2)."""
    *several, grid, _, _ = shift.shape
    height, width = len(y.place), len(x.place)
    # Along x first, (2 N g, g) x (g, w), and along y then, (h, g) x (N, g, 2 w): so x and y come side by side.
    along = (shift * shift.new_tensor((x.scale, y.scale))).transpose(-1, -2).reshape(-1, grid) @ x.spread.T
    along = along.view(-1, grid, 2, width).transpose(2, 3)
    place = torch.stack((x.place.expand(height, width), y.place[:, None].expand(height, width)), dim=-1)
    # Added, not multiplied: a GPU may round the factors of a product.
    spread = y.spread.expand(along.shape[0], -1, -1)
    return torch.baddbmm(place.flatten(1)[None], spread, along.flatten(2)).view(*several, height, width, 2)


def _read(frames: Tensor, positions: Tensor) -> Tensor:
    """(N, C, H, W) read at (N, k, h, w, 2) positions -> (k, N, C, h, w); no frame is copied."""
    if frames.shape[0] == 1:  # the k readings run side by side
        return _sample(frames.expand(positions.shape[1], -1, -1, -1), positions[0])[:, None]
    if positions.requires_grad:  # their gradient comes as it lies here; below, it would be copied first
        return torch.stack([_sample(frames, each) for each in positions.unbind(1)])
    times, height = positions.shape[1:3]
    whole = _sample(frames, positions.flatten(1, 2))  # (N, C, k h, w), one reading below the other
    return whole.unflatten(2, (times, height)).permute(2, 0, 1, 3, 4)


def _sample(frames: Tensor, positions: Tensor) -> Tensor:
    return F.grid_sample(frames, positions, mode="bilinear", padding_mode="border", align_corners=True)


class _Axis(NamedTuple):
    """How one axis of the result reads the frames; positions are grid_sample's, corners aligned."""

    times: int  # positions a pixel of the result averages
    place: Tensor  # (times x length,), where it reads when nothing is displaced
    spread: Tensor  # (times x length, g), from grid lines to these positions
    scale: float  # from frame sides to positions


def _reading(frames: int, length: int, grid: int, like: Tensor) -> _Axis:
    """The positions at which ``length`` pixels read an axis of ``frames`` pixels.

    Pixel p of the result covers frame pixels from r p to r (p + 1), r = frames / length, and reads at their centre:
    r (p + 1/2) - 1/2. For r = 2 that is the middle of two pixels, where linear interpolation is their average; larger
    r average several such readings.
    """
    ratio = frames / length
    times = max(1, math.ceil(ratio / 2))
    pixel = (torch.arange(times * length, dtype=torch.float64) + 0.5) / times - 0.5  # in pixels of the result
    spread = interpolation_matrix(pixel, grid, max(length - 1, 1) / (grid - 1), 0.0)
    scale = 2 / max(frames - 1, 1)
    place = (ratio * (pixel + 0.5) - 0.5) * scale - 1
    return _Axis(times, place.to(like), spread.to(like), scale * ratio * (length - 1))


def _identity(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) positions of the pixels themselves in [-1, 1], as (x, y)."""
    x = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    y = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
