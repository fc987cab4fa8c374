"""Evidence as pictures: panes of one frame, the time line, the frames of a video and a figure (paper, Fig. 1 and 2).

Panes keep the shape of what the camera saw, also where the network's input is squashed: attention and warp are given
in shares of the view, so they fit either. The zoomed panes are read from the file's own pixels and not from the
network's input, so that a person sees what there is to see; where they read from is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from peakzoom.display.figures import BRANCH_COLOURS, INK, MUTED, Plot, shortened
from peakzoom.display.fonts import draw_line, pillow_font, with_fonts
from peakzoom.explanation.evidence import ZOOMED, Evidence
from peakzoom.inference.prediction import NONE
from peakzoom.model.zoom import ZoomSampler

ROWS = ("frame", "response, peaks")  # and the zoomed frames
LINES = ("#be123c", "#2563eb", "#15803d", "#7c3aed", "#a16207")
PANE_HEIGHT, PANES_WIDTH = 360, 1440  # at most
NARROWEST = 720  # video: the time line of a narrower one cannot be read
GAP, HEAD, TITLE, TIMELINE = 8, 40, 26, 200  # pixels
INFERNO = torch.from_numpy(matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).float()  # (256, 3)


class Painter:
    """Draws the panes of an evidence's frames at one size.

    Args:
        evidence: whose.
        scale: pixels of a pane for each pixel of the displayed frame.
    """

    def __init__(self, evidence: Evidence, scale: float) -> None:
        self.evidence, region = evidence, evidence.region
        info = evidence.info
        self.size = (max(2, round(info.height * scale)), max(2, round(info.width * scale)))
        down, across = self.size[0] / info.height, self.size[1] / info.width
        self.top, self.left = round(region.top * down), round(region.left * across)
        self.height = max(1, min(round(region.height * down), self.size[0] - self.top))
        self.width = max(1, min(round(region.width * across), self.size[1] - self.left))
        self.sampler = ZoomSampler(evidence.model.config.grid)
        self.radius = max(2.0, 0.014 * max(self.size))

    def paint(self, frame: int, pixels: Tensor) -> list[np.ndarray]:
        """One frame several times: with its response and peaks, and as each branch sees it that sees it zoomed.

        Args:
            frame: its number in the file.
            pixels: uint8 (*self.size, 3).

        Returns:
            uint8 (h, w, 3) each, of one height but for rounding.
        """
        heat, peaks, attention = self.evidence.attention(frame)
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        crop = pixels[rows, columns].permute(2, 0, 1)[None].float()
        zoomed = [
            self.sampler(crop, attention[[ZOOMED.index(name)]])[0].round().clamp(0, 255).to(torch.uint8)
            for name in self.evidence.zoomed
        ]
        overlay = pixels.float() * 0.45  # what the network was not shown is dark
        overlay[rows, columns] = self._heated(crop[0].permute(1, 2, 0), heat, self.evidence.confidence(frame))
        image = Image.fromarray(overlay.round().to(torch.uint8).numpy())
        self._mark(image, peaks)
        return [np.asarray(image), *(each.permute(1, 2, 0).numpy() for each in zoomed)]

    def _heated(self, crop: Tensor, heat: np.ndarray, confidence: float) -> Tensor:
        """The view under its response: more of the colour for more response, and none where the class is a guess."""
        whole = F.interpolate(
            torch.from_numpy(heat)[None, None].float(),
            (self.height, self.width),
            mode="bilinear",
            align_corners=True,
        )[0, 0]
        colour = INFERNO[whole.long()]
        share = 0.65 * confidence * (whole / 255)[..., None]
        return crop * (1 - share) + colour * share

    def _mark(self, image: Image.Image, peaks: np.ndarray) -> None:
        draw = ImageDraw.Draw(image)
        if (self.height, self.width) != self.size:
            box = (self.left, self.top, self.left + self.width - 1, self.top + self.height - 1)
            draw.rectangle(box, outline="white")
        last = self.evidence.model.config.grid - 1
        for row, column, response, further in sorted(peaks.tolist(), key=lambda each: each[2]):
            x = self.left + column / last * (self.width - 1)
            y = self.top + row / last * (self.height - 1)
            colour = BRANCH_COLOURS[ZOOMED[0] if response >= 0.5 or not self.evidence.zoomed else ZOOMED[1]]
            radius = self.radius * (0.6 + 0.6 * response)
            draw.circle((x, y), radius + 1.5, fill=None if further else "black", outline="black", width=2)
            draw.circle((x, y), radius, fill=None if further else colour, outline=colour, width=2)


def draw_figure(evidence: Evidence, moments: int = 6) -> Figure:
    """Moments of a video, evenly spread: frame, response and peaks, zoomed frames; below, the time line."""
    info, rows = evidence.info, (*ROWS, *evidence.zoomed)
    count = min(max(1, moments), info.frames)
    wanted = ((np.arange(count) + 0.5) * info.frames / count).astype(int)
    across = 2.1 if info.width >= info.height else 1.5
    height = len(rows) * across * min(info.height / info.width, 2)
    figure = Plot(figsize=(max(7.5, across * count + 0.6), height + 3.3), layout="constrained")
    figure.suptitle(headline(evidence), fontsize=12, color=INK, parse_math=False)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(height + 0.5, 2.4))[:, 0]
    axes = upper.subplots(len(rows), count, squeeze=False)
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name, fontsize=9, color=INK)
    for axis, number in zip(axes[0], wanted, strict=True):
        axis.set_title(f"{evidence.times[number]:.2f} s", fontsize=9, color=INK)
    _show(evidence, wanted, axes.T)
    axis = lower.subplots()
    timeline(evidence, axis)
    for number in wanted:
        axis.axvline(evidence.times[number], color=MUTED, linewidth=0.8, linestyle=":")
    return with_fonts(figure)


def draw_middles(
    evidence: Sequence[Evidence],
    titles: Sequence[str],
    title: str = "",
    shares: Sequence[tuple[float, float]] = (),
) -> Figure:
    """The middle frame of some videos, a row each: frame, response and peaks, zoomed frames.

    Args:
        evidence: of the videos, by one model.
        titles: of the rows.
        title: of the figure.
        shares: the pointing game beside each row, in [0, 1] of frames: where the highest peak lies on the action, and
            where the middle of the frame would; no such column where it is empty.
    """
    shown = (*ROWS, *evidence[0].zoomed)
    tallest = max(each.info.height / each.info.width for each in evidence)
    columns = len(shown) + bool(shares)
    size = (2.5 * columns, (2.35 * tallest + 0.15) * len(evidence) + (0.6 if title else 0.3))
    figure = Plot(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    axes = figure.subplots(len(evidence), columns, squeeze=False)
    for axis, what in zip(axes[0], shown, strict=False):
        axis.set_title(what, fontsize=10, color=INK)
    for row, each, name in zip(axes, evidence, titles, strict=True):
        row[0].set_ylabel(name, fontsize=7.5, color=INK, parse_math=False)
        _show(each, np.array([each.info.frames // 2]), row[None, : len(shown)])
    if shares:
        axes[0, -1].set_title(
            "highest peak on the action,\nframes of all clips of the class", fontsize=9, color=INK
        )
    for axis, (hits, middle) in zip(axes[:, -1], shares, strict=False):
        _draw_share(axis, hits, middle)
    return with_fonts(figure)


def _draw_share(axis: Axes, hits: float, middle: float) -> None:
    """One bar from 0 to 100% with its figure above, and where the middle of the frame would be."""
    axis.barh(0, hits, 0.5, color=BRANCH_COLOURS[ZOOMED[0]])
    axis.plot([middle, middle], [-0.4, 0.4], color=INK, linewidth=1.4, linestyle=":", clip_on=False)
    axis.text(0, 0.45, f"{hits:.0%}", fontsize=9, color=INK, va="bottom")
    axis.text(1, -0.5, f"middle of the frame {middle:.0%}", fontsize=7.5, color=MUTED, va="top", ha="right")
    axis.set(xlim=(0, 1), ylim=(-1.4, 1.4), yticks=[])
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right", "left"]].set_visible(False)


def write_strip(evidence: Evidence, number: int, side: int, file: Path) -> None:
    """One frame as a PNG without words: frame, response and peaks, and the zoomed frames that the model looks at.

    Args:
        evidence: whose.
        number: of the frame in the file.
        side: pixels of the longer side of each pane.
        file: where the PNG goes.
    """
    info = evidence.info
    painter = Painter(evidence, side / max(info.height, info.width))
    _, pixels = next(iter(evidence.video.frames(np.array([number]), painter.size)))
    shown = [pixels.numpy(), *painter.paint(number, pixels)]
    width = sum(pane.shape[1] for pane in shown) + GAP * (len(shown) - 1)
    strip, left = (
        Image.new("RGBA", (width, max(pane.shape[0] for pane in shown))),
        0,
    )  # transparent beside them
    for pane in shown:
        strip.paste(Image.fromarray(pane), (left, 0))
        left += pane.shape[1] + GAP
    strip.save(file, format="PNG")


def _show(evidence: Evidence, wanted: np.ndarray, axes: np.ndarray) -> None:
    """Frames of a file into axes (frames, rows): each as it is, with its response, and zoomed."""
    painter = Painter(evidence, min(2.0, 300 / max(evidence.info.height, evidence.info.width)))
    for place, (number, pixels) in enumerate(evidence.video.frames(wanted, painter.size)):
        for axis, picture in zip(axes[place], (pixels.numpy(), *painter.paint(number, pixels)), strict=True):
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)


def timeline(evidence: Evidence, axis: Axes) -> None:
    """Class scores of every frame against time, the evidence's own class thickest."""
    times = np.append(evidence.times, evidence.end)  # the last frame stays until the end
    for rank, index in enumerate(evidence.best(len(LINES))):
        values = evidence.scores[:, index]
        axis.plot(
            times,
            np.append(values, values[-1]),
            color=LINES[rank],
            linewidth=2.4 if rank == 0 else 1.3,
            label=shortened(evidence.prediction.classes[index], 24),
            zorder=3 if rank == 0 else 2,
        )
    axis.set_xlim(0, max(evidence.end, 1e-3))
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("seconds", fontsize=9, color=INK)
    axis.set_ylabel("class score\nof the frame", fontsize=9, color=INK)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(
        frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.005, 0.5), borderaxespad=0.0
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def headline(evidence: Evidence) -> str:
    """The prediction in one line, and the class of the evidence where the caller named it."""
    prediction = evidence.prediction
    named = [f"{shortened(name, 40)}  {score:.2f}" for name, score in prediction.labels[:3]]
    closest, score = prediction.top(1)[0]
    near = f"closest {shortened(closest, 40)}  {score:.2f}"
    line = f"not sure; {near}" if prediction.unsure else ", ".join(named) or f"{NONE}; {near}"
    if evidence.target_given:
        own = prediction.score_of(evidence.target)
        line += f"   ·   evidence for {shortened(evidence.target, 40)}  {own:.2f}"
    return line


class EvidenceVideo:
    """Pictures of every frame: its panes, below them the time line with the moment marked."""

    def __init__(self, evidence: Evidence) -> None:
        info, region = evidence.info, evidence.region
        zoomed = len(evidence.zoomed)
        scale = min(PANE_HEIGHT / info.height, PANES_WIDTH / (info.width + zoomed * region.width))
        self.evidence, self.painter = evidence, Painter(evidence, scale)
        painter = self.painter
        self._widths = [painter.size[1], *[painter.width] * zoomed]
        panes = sum(self._widths) + zoomed * GAP
        self.width = _even(max(NARROWEST, panes))
        self.height = _even(HEAD + TITLE + painter.size[0] + GAP + TIMELINE)
        self._margin = (self.width - panes) // 2
        self._still = self._draw_still()

    def _draw_still(self) -> np.ndarray:
        """What does not move: the prediction, the panes' titles, the time line."""
        image = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(image)
        draw_line(draw, (GAP, HEAD / 2), headline(self.evidence), 18, INK)
        painter = self.painter
        after = np.cumsum([0, *self._widths[:-1]]) + GAP * np.arange(len(self._widths))
        self._places = (self._margin + after).tolist()
        names = ("video", *self.evidence.zoomed)
        for left, wide, name in zip(self._places, self._widths, names, strict=True):
            colour = BRANCH_COLOURS.get(name)
            at = left + 2
            if colour and wide > 40:
                draw.circle((left + 8, HEAD + TITLE / 2), 5, fill=colour, outline="black")
                at = left + 18
            draw.text(
                (at, HEAD + TITLE / 2), _fitting(name, wide - 20), fill=INK, font=pillow_font(14), anchor="lm"
            )
        figure = Figure(figsize=(self.width / 100, TIMELINE / 100), dpi=100, layout="constrained")
        axis = figure.subplots()
        timeline(self.evidence, axis)
        canvas = FigureCanvasAgg(with_fonts(figure))
        canvas.draw()
        self._line_top = HEAD + TITLE + painter.size[0] + GAP
        image.paste(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), (0, self._line_top))
        ends = axis.transData.transform([(0.0, 0.0), (0.0, 1.0)])[:, 1]
        self._mark_rows = tuple(self._line_top + TIMELINE - each for each in ends)
        self._seconds_to_x = lambda seconds: axis.transData.transform((seconds, 0.0))[0]
        return np.asarray(image)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number and picture, uint8 (height, width, 3), of every frame of the file."""
        top = HEAD + TITLE
        for number, pixels in self.evidence.video.frames(None, self.painter.size):
            picture = self._still.copy()
            for left, pane in zip(self._places, self.painter.paint(number, pixels), strict=True):
                high, wide = pane.shape[:2]
                lower = top + (self.painter.size[0] - high) // 2
                picture[lower : lower + high, left : left + wide] = pane
            yield number, self._marked(picture, number)

    def _marked(self, picture: np.ndarray, number: int) -> np.ndarray:
        image = Image.fromarray(picture)
        draw = ImageDraw.Draw(image)
        time = float(self.evidence.times[number])
        x = self._seconds_to_x(time)
        low, high = self._mark_rows
        draw.line((x, high, x, low), fill=INK, width=2)
        scores = self.evidence.scores[number]
        for rank, index in reversed(list(enumerate(self.evidence.best(len(LINES))))):
            y = low + (high - low) * float(scores[index])
            draw.circle((x, y), 5 if rank == 0 else 3.5, fill=LINES[rank], outline="white")
        clock = f"{time:.2f} s of {self.evidence.end:.2f}"
        draw.text((self.width - GAP, HEAD / 2), clock, fill=MUTED, font=pillow_font(15), anchor="rm")
        return np.asarray(image)


def _even(length: int) -> int:
    """H.264 in 4:2:0 has no odd sides."""
    return length + length % 2


def _fitting(text: str, width: float) -> str:
    """As many letters as fit."""
    return text if pillow_font(14).getlength(text) <= width else text[: max(1, int(width / 9))]
