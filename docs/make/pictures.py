"""The pictures of docs/method.md, made by the package itself: no training, the same picture at every call.

    python docs/make/pictures.py

``images/cells.png``: where feature cells look, and where the two usual ways of resizing would put them.
``images/zoom.png``: a response with two peaks put by hand into a synthetic frame, the two attention maps of Eq. 6 and
7, and the two frames that they give.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peakzoom.data.synthetic.scene import ClipSpec, render_clip
from peakzoom.display.figures import COLOURS, INK, MUTED
from peakzoom.model import SparseAttention, ZoomSampler, find_peaks, normalise
from peakzoom.model.backbones import BACKBONES

IMAGES = Path(__file__).parents[1] / "images"
GRID = 31


def bare(axis: Axes, title: str) -> None:
    """A picture needs no scales."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=10, color=INK)


def plot_cells(file: Path) -> None:
    """Centres along 224 pixels of the seven cells of the T-CNN's last stage, by its geometry and by resizing."""
    side = 224
    cells = BACKBONES["tcnn"](2).cells
    count = 7
    place = np.arange(count)
    rows = {
        "where they look": cells.offset[1] + cells.stride[1] * place,
        "align_corners=True": place * (side - 1) / (count - 1),
        "align_corners=False": (place + 0.5) * side / count - 0.5,
    }
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    axis = figure.subplots()
    for row, centres in enumerate(rows.values()):
        colour = COLOURS["train"] if row == 0 else MUTED
        axis.plot((0, side - 1), (-row, -row), color="#cbd2d9", linewidth=1, zorder=1)
        axis.scatter(centres, np.full(count, -row), color=colour, s=36, zorder=2)
        for centre in centres:
            axis.annotate(
                f"{centre:.0f}",
                (centre, -row),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    axis.set_yticks([0, -1, -2], list(rows))
    axis.set_ylim(-2.4, 0.7)
    axis.set_xlabel("pixel of 224")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.savefig(file, dpi=110)


def bump(row: float, column: float, height: float, width: float = 2.6) -> torch.Tensor:
    """A smooth response of a height around a cell of the grid."""
    line = torch.arange(GRID, dtype=torch.float32)
    apart = (line - row).square()[:, None] + (line - column).square()
    return height * torch.exp(-apart / (2 * width**2))


def plot_zoom(file: Path) -> None:
    """From a response with two peaks to the two resampled frames."""
    spec = ClipSpec(
        "wave", performer=3, background=2, seed=4, frames=9, difficulty=0.2, height=192, width=192
    )
    frame = render_clip(spec)[4].transpose(1, 2, 0)
    response = normalise(bump(10, 8, 1.0) + bump(22, 17, 0.35))
    peaks = find_peaks(response)
    places = [(int(row), int(column)) for row, column in peaks.nonzero()]
    assert len(places) == 2, places
    with torch.no_grad():
        maps = SparseAttention(mode="threshold")(response[None], peaks[None])
        video = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        zoomed = ZoomSampler(GRID)(video, torch.cat(maps))
        shown = [picture.permute(1, 2, 0).round().clamp(0, 255).byte().numpy() for picture in zoomed]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    side = frame.shape[0]
    scale = (side - 1) / (GRID - 1)
    extent = (-scale / 2, side - 1 + scale / 2, side - 1 + scale / 2, -scale / 2)
    for row, (name, attention, result) in enumerate(zip(("dis", "com"), maps, shown, strict=True)):
        axes[row, 0].imshow(frame)
        axes[row, 0].imshow(
            response, cmap="inferno", alpha=0.5, vmin=0, vmax=1, extent=extent, interpolation="bilinear"
        )
        for y, x in places:
            value = float(response[y, x])
            mine = (value >= 0.5) == (name == "dis")
            axes[row, 0].scatter(
                x * scale,
                y * scale,
                s=60,
                c="cyan" if mine else "none",
                edgecolors="black" if mine else "white",
            )
            axes[row, 0].annotate(
                f"R = {value:.2f}",
                (x * scale, y * scale),
                (8, 6),
                textcoords="offset points",
                fontsize=9,
                color="white",
            )
        bare(axes[row, 0], "frame, response and its peaks")
        axes[row, 0].set_xlim(-0.5, side - 0.5)
        axes[row, 0].set_ylim(side - 0.5, -0.5)
        axes[row, 1].imshow(attention[0], cmap="viridis", vmin=0)
        bare(axes[row, 1], f"$Q_{{\\mathrm{{{name}}}}}$")
        axes[row, 2].imshow(result)
        bare(axes[row, 2], "discriminative frame" if name == "dis" else "complementary frame")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    plot_cells(IMAGES / "cells.png")
    plot_zoom(IMAGES / "zoom.png")
