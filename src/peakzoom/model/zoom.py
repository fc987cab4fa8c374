"""Resampling a frame so that attended regions grow (paper, Sec. 2.2, after Recasens et al.; docs/method.md, section 4).

An output position (x, y) reads the input at the mean of the positions around it, weighted by attention::

    u(x, y) = sum Q(x', y') k(x - x', y - y') x' / sum Q(x', y') k(x - x', y - y')

and v(x, y) with y' for the last x'. k is a Gaussian window, Q is continued by its border values while positions go on
linearly, so flat attention reads every pixel where it stands.

The published code convolves Q with a 61 x 61 window. But k is separable and the continuation is linear, so all of it
folds into two fixed g x g matrices: K, the blur, and D, the blur times the displacement x' - x. With A = Q K^T,
the denominator is K A, and the displacements are K (Q D^T) / K A and D A / K A: three parts of one product of Q with
both matrices on either side. Displacements rather than positions, because they are exactly zero for flat attention.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.model.geometry import interpolation_matrix
from peakzoom.model.numerics import exact, remembered


def blur_matrices(grid: int, fwhm: float, padding: int) -> tuple[Tensor, Tensor]:
    """K and D above, each (g, g) float64, on the CPU; displacements in units of the frame side.

    Args:
        grid: g.
        fwhm: full width at half maximum of k, in cells.
        padding: cells by which Q is continued, and half the window of k.
    """
    cell = torch.arange(grid, dtype=torch.float64, device="cpu")
    extended = torch.arange(-padding, grid + padding, dtype=torch.float64, device="cpu")
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
        padding: half the window in cells (30: the same source).
    """

    both: Tensor  # (2 g, g): D above K

    def __init__(self, grid: int = 31, fwhm: float = 13.0, padding: int = 30) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"grid is {grid}, expected at least 2")
        blur, shift = blur_matrices(grid, fwhm, padding)
        dtype = torch.get_default_dtype()
        both = torch.cat((shift, blur)).to(torch.get_default_device(), dtype)
        self.register_buffer("both", both, persistent=False)
        self.side = grid

    def displacement(self, attention: Tensor) -> Tensor:
        """How far from its own place each grid position reads: (N, g, g) -> (N, g, g, 2), as (x, y), in frame sides.

        What would lie outside the frame reads its border.
        """
        side = self.side
        if attention.dim() != 3 or attention.shape[1:] != (side, side):
            raise ValueError(f"attention has shape {tuple(attention.shape)}, expected (N, g, g), g = {side}")
        with exact(attention):
            # Of its four parts, D Q D^T is of no use.
            products = self.both @ (attention.to(self.both.dtype) @ self.both.T)
            x, y, weight = products[:, side:, :side], products[:, :side, side:], products[:, side:, side:]
            shift = torch.stack((x, y), dim=-1) / weight[..., None]
            return torch.clamp(shift, *_reach(side, shift.dtype, shift.device))

    def grid(self, attention: Tensor) -> Tensor:
        """Where each grid position reads: (N, g, g) -> (N, g, g, 2) in [-1, 1] as (x, y), corners aligned."""
        shift = self.displacement(attention)
        return _identity(self.side, shift.dtype, shift.device) + 2 * shift

    def forward(self, frames: Tensor, attention: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resample frames by their attention.

        Args:
            frames: (N, C, H, W) float, of any size; C is 3, or 3 T where the frames of a clip share one attention.
            attention: (k N, g, g), positive: N maps for each of k resamplings of the same frames, one after the other.
            size: (height, width) of the result; the frames' own when not given. Frames may be larger than the
                result, and zooming then shows detail that the result's size could not hold. What is not enlarged
                does not alias: flat attention gives the area average of 2 x 2 or 4 x 4 pixels where frames are twice
                or four times as large.

        Returns:
            (k N, C, *size).
        """
        if frames.dim() != 4 or attention.shape[0] % frames.shape[0]:
            raise ValueError(
                f"frames {tuple(frames.shape)} and attention {tuple(attention.shape)} do not fit, "
                "expected (N, 3, H, W) and (k N, g, g)"
            )
        height, width = size or frames.shape[2:]
        shift = self.displacement(attention).unflatten(0, (-1, frames.shape[0]))
        with exact(frames):
            axes = (frames.shape[2], height), (frames.shape[3], width)
            reading = _reading(*axes, self.side, shift.dtype, shift.device)
            # Of the attention's precision: bfloat16 would round positions to whole pixels.
            positions = _positions(shift.transpose(0, 1), reading)
            zoomed = _read(frames.to(positions.dtype), positions).flatten(0, 1)  # (k N, C, n height, m width)
            return zoomed if reading.times == (1, 1) else F.avg_pool2d(zoomed, reading.times)


def _positions(shift: Tensor, reading: _Reading) -> Tensor:
    """Where grid_sample reads: (..., g, g, 2) displacements in frame sides, added to places -> (..., h, w, 2)."""
    *several, grid, _, _ = shift.shape
    height, width = reading.place.shape[:2]
    # Along x first, (2 N g, g) x (g, w), and along y then, (h, g) x (N, g, 2 w): so x and y come side by side.
    along = (shift * reading.scale).transpose(-1, -2).reshape(-1, grid) @ reading.across.T
    along = along.view(-1, grid, 2, width).transpose(2, 3).flatten(2)
    # Added, not multiplied: a GPU may round the factors of a product.
    moved = torch.baddbmm(reading.place.flatten(1)[None], reading.down.expand(along.shape[0], -1, -1), along)
    return moved.view(*several, height, width, 2)


def _read(frames: Tensor, positions: Tensor) -> Tensor:
    """(N, C, H, W) read at (N, k, h, w, 2) positions -> (k, N, C, h, w)."""
    # Copied first, a clip is read nearly twice as fast: its channels lie T frames apart, out of the caches.
    frames, (several, height) = frames.contiguous(), positions.shape[1:3]
    if frames.shape[0] == 1:  # threads share out images, so the k readings of one image are made k images
        images = frames.expand(several, -1, -1, -1)
        return F.grid_sample(images, positions[0], padding_mode="border", align_corners=True)[:, None]
    # One reading below the other, (N, C, k h, w): making k images of each frame would copy them all.
    whole = F.grid_sample(frames, positions.flatten(1, 2), padding_mode="border", align_corners=True)
    return whole.unflatten(2, (several, height)).permute(2, 0, 1, 3, 4)


class _Reading(NamedTuple):
    """How a result of h x w positions reads frames; positions are grid_sample's, corners aligned."""

    times: tuple[int, int]  # positions that a pixel of the result averages, down and across
    place: Tensor  # (h, w, 2), where they are when nothing is displaced, as (x, y)
    down: Tensor  # (h, g), from grid lines to these positions
    across: Tensor  # (w, g)
    scale: Tensor  # (2,), from frame sides to positions, as (x, y)


@remembered
def _reading(
    down: tuple[int, int], across: tuple[int, int], grid: int, dtype: torch.dtype, device: torch.device
) -> _Reading:
    """Of frames and results of so many pixels down and across, from displacements on a grid of side g."""
    (high, y, rows, y_scale), (wide, x, columns, x_scale) = (_axis(*each, grid) for each in (down, across))
    tensors = _places(y, x), rows, columns, y.new_tensor((x_scale, y_scale))
    return _Reading((high, wide), *(each.to(device, dtype) for each in tensors))


def _axis(frames: int, length: int, grid: int) -> tuple[int, Tensor, Tensor, float]:
    """The positions at which ``length`` pixels read an axis of ``frames`` pixels.

    Pixel p of the result covers frame pixels from r p to r (p + 1), r = frames / length, and reads at their centre:
    r (p + 1/2) - 1/2. For r = 2 that is the middle of two pixels, where linear interpolation is their average; larger
    r average several such readings.

    Returns:
        times, positions a pixel averages; (times x length,) where they are; (times x length, g) from grid lines to
        them; from frame sides to positions.
    """
    ratio = frames / length
    times = max(1, math.ceil(ratio / 2))
    pixel = (torch.arange(times * length, dtype=torch.float64) + 0.5) / times - 0.5  # in pixels of the result
    spread = interpolation_matrix(pixel, grid, max(length - 1, 1) / (grid - 1), 0.0)
    scale = 2 / max(frames - 1, 1)
    place = (ratio * (pixel + 0.5) - 0.5) * scale - 1
    return times, place, spread, scale * ratio * (length - 1)


@remembered
def _identity(grid: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(g, g, 2) positions of the grid's own lines in [-1, 1], as (x, y)."""
    line = torch.linspace(-1, 1, grid, dtype=dtype)
    return _places(line, line).to(device)


def _places(y: Tensor, x: Tensor) -> Tensor:
    """(h,) and (w,) -> (h, w, 2), as (x, y)."""
    return torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1)


@remembered
def _reach(grid: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The lowest and the highest displacement that stays within the frame, each (g, g, 2), in frame sides."""
    place = _identity(grid, dtype, device)
    return (-1 - place) / 2, (1 - place) / 2
