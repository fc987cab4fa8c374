"""Where feature cells look: from cells to pixels, grid lines and frames (docs/method.md, section 2).

A convolution of kernel 3, stride 2 and padding 1 centres its output cell i on input cell 2 i. Through the paper's
T-CNN, cell i of the last stage is centred on pixel 32 i and slice t' on frame 4 t', so on 224 pixels the seven cells
sit at 0, 32, ... 192 and none at 223::

    pixel   0       32      64      96      128     160     192     223
    cells   |0      |1      |2      |3      |4      |5      |6       .
    grid    | | | | | | | | | | | | | | | | | | | | | | | | | | | | | |      line j on pixel j (H - 1) / (g - 1)

Neither setting of ``align_corners`` says this: aligned corners put cell 6 on pixel 223, half-pixel centres put every
cell 16 pixels too far. So the placing is written out here, as one small interpolation matrix per axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from peakzoom.model.numerics import exact, remembered

Three = int | tuple[int, int, int]  # one number for (time, height, width), or three


@dataclass(frozen=True)
class CellGeometry:
    """Cell i of an axis is centred on input position ``offset + stride * i``; axes are (time, height, width).

    Strides and offsets are in input frames and pixels.
    """

    stride: tuple[int, int, int]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def step(self, wanted: int, most: int) -> int:
        """The spatial stride ``wanted``, or 1 where it would take the cells more than ``most`` pixels apart."""
        return wanted if self.stride[1] * wanted <= most else 1

    def then(self, kernel: Three, stride: Three = 1, padding: Three = 0, dilation: Three = 1) -> CellGeometry:
        """Where the cells of a convolution or pooling on top of these cells look: its windows' centres.

        Output i covers the cells from ``stride i - padding`` on, over ``dilation (kernel - 1)`` of them. For padding
        that differs between the two ends, ``padding`` is that in front.
        """
        steps, sizes, pads, gaps = (
            value if isinstance(value, tuple) else (value,) * 3
            for value in (stride, kernel, padding, dilation)
        )
        apart = (self.stride[0] * steps[0], self.stride[1] * steps[1], self.stride[2] * steps[2])
        first = [
            offset + before * (gap * (size - 1) / 2 - pad)
            for offset, before, size, pad, gap in zip(
                self.offset, self.stride, sizes, pads, gaps, strict=True
            )
        ]
        return CellGeometry(apart, (first[0], first[1], first[2]))

    def centred(self, slices: int, last: int) -> CellGeometry:
        """The same cells with the middle of their T' slices halfway to frame ``last``, the last that they see.

        A cell's field reaches beyond both ends of the clip, where nothing is. What it does see is centred nearer to the
        middle of the clip than the field is: slices with fields around frames 0, 4, 8 and 12 of 16 see, and show, what
        comes after these.
        """
        first = (last - self.stride[0] * (slices - 1)) / 2
        return replace(self, offset=(first, *self.offset[1:]))


@runtime_checkable
class Backbone(Protocol):
    """What the three branches need of a video network; any module that has it will do.

    A module that chooses among its cells says how by ``pool``, a string (:mod:`peakzoom.model.pooling`); of one without
    it the mean of the features is classified, as in the paper. One whose slices each see nearly the whole clip may say
    so by ``frames_apart``, an integer: of how many frames it sees one.
    """

    cells: CellGeometry  # where the feature cells sit in the input
    num_features: int  # channels C of the features
    fc: nn.Linear  # classifier on the pooled features, (S, C)

    def features(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T', h, w)."""
        ...


def is_backbone(network: object) -> bool:
    """Whether it has all that a :class:`Backbone` has.

    From Python 3.12 on, ``isinstance`` does not look where a module keeps its layers, and would not find ``fc``.
    """
    return all(hasattr(network, name) for name in ("cells", "num_features", "fc", "features"))


def interpolation_matrix(positions: Tensor, cells: int, stride: float, offset: float) -> Tensor:
    """Linear interpolation from cells to positions along one axis; beyond the outer cells their value holds.

    Args:
        positions: (n,) float64 input positions (pixels or frames).
        cells: number of cells.
        stride: distance of two cells in input positions.
        offset: input position of cell 0.

    Returns:
        (n, cells) float64; rows sum to 1.
    """
    at = ((positions - offset) / stride).clamp(0, cells - 1)
    distance = (at[:, None] - torch.arange(cells, dtype=at.dtype, device=at.device)).abs()
    return (1 - distance).clamp(min=0)


def place_response(
    response: Tensor,
    cells: CellGeometry,
    frames: int,
    size: tuple[int, int],
    grid: int = 31,
    *,
    step: int = 1,
    average: bool = False,
) -> Tensor:
    """Bring response maps from feature cells onto the attention grid of every input frame (docs/method.md, section 2).

    Args:
        response: (B, T', h, w) float.
        cells: where the cells sit in the input.
        frames: T, the number of input frames.
        size: (H, W) of the input in pixels.
        grid: side g of the attention grid; its line j lies on pixel ``j * (H - 1) / (g - 1)``.
        step: return only every ``step``-th frame, the first included.
        average: return only the mean over all T frames.

    Returns:
        (B, T, g, g), linear between cells in space and time, constant beyond the outer ones; T / step rounded up in
        place of T, or 1 with ``average``.

    Raises:
        ValueError: a response of another number of dimensions.
    """
    if response.dim() != 4:
        raise ValueError(f"response has shape {tuple(response.shape)}, expected (B, T', h, w)")

    def axis(last: int, steps: int, index: int) -> Tensor:
        where = response.shape[index + 1], cells.stride[index], cells.offset[index]
        return axis_matrix(last, steps, *where, response.dtype, response.device)

    with exact(response):
        time = axis(frames - 1, frames, 0)  # (T, T')
        time = time.mean(0, keepdim=True) if average else time[::step]
        rows = axis(size[0] - 1, grid, 1)  # (g, h)
        columns = axis(size[1] - 1, grid, 2)  # (g, w)
        placed = rows @ response @ columns.T  # (B, T', g, g)
        return (time @ placed.flatten(2)).unflatten(2, (grid, grid))


@remembered
def axis_matrix(
    last: int, steps: int, cells: int, stride: float, offset: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """:func:`interpolation_matrix` to ``steps`` positions from 0 to ``last``: (steps, cells); to be read only."""
    positions = torch.linspace(0, last, steps, dtype=torch.float64)
    return interpolation_matrix(positions, cells, stride, offset).to(device, dtype)
