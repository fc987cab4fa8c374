"""A network whose answers and attention are known beforehand, and videos for it.

``Colours`` answers red, green or blue, whichever its cells see most of, and each class's map is where that colour is.
So where the peaks of a video must lie can be read off its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import CellGeometry, PeakZoom
from peakzoom.video.views import Preprocess

NAMES = ["red", "green", "blue"]
GREY = 110


class Colours(nn.Module):
    """How much there is of each strong colour, in 8 x 8 cells, frame by frame; blurred colours are not strong."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.stride = size // 8
        middle = (self.stride - 1) / 2
        self.cells = CellGeometry((1, self.stride, self.stride), (0, middle, middle))
        self.num_features = 3
        self.fc = nn.Linear(3, 3)
        with torch.no_grad():
            self.fc.weight.copy_(100 * torch.eye(3))
            self.fc.bias.zero_()

    def features(self, video: Tensor) -> Tensor:
        beyond = 1.5 * video - video.sum(1, keepdim=True) / 2  # how much more than the mean of the two others
        return F.avg_pool3d((beyond - 0.5).clamp(min=0) * 4, (1, self.stride, self.stride))


def recognizer(
    *,
    size: int = 32,
    frames: int = 4,
    stride: int = 1,
    fps: float | None = None,
    test_canvas: bool = False,
    zoom_source: int = 1,
    **options: object,
) -> Recognizer:
    """``Colours`` in three branches that all answer alike."""
    pre = Preprocess(
        size,
        frames,
        stride,
        fps,
        canvas=(size, size + 8),
        test_canvas=test_canvas,
        zoom_source=zoom_source,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    model = PeakZoom(Colours(size), 3, classes=NAMES, preprocess=pre.to_dict(), **options)  # type: ignore[arg-type]
    model.start_heads_from_original()
    return Recognizer.of(model, "cpu")


Square = tuple[str, float, float]  # colour, and the middle's x and y in shares of the frame


def write_squares(
    path: Path,
    squares: Callable[[int], list[Square]],
    *,
    frames: int = 12,
    size: tuple[int, int] = (60, 80),
    side: int = 12,
    pts: list[int] | None = None,
    setup: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """A lossless video of coloured squares on grey; ``pts`` in milliseconds, 40 apart where not given."""
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        stream.codec_context.time_base = Fraction(1, 1000)
        setup(stream)
        for number in range(frames):
            pixels = np.full((height, width, 3), GREY, np.uint8)
            for colour, x, y in squares(number):
                top, left = round(y * height - side / 2), round(x * width - side / 2)
                pixels[max(top, 0) : top + side, max(left, 0) : left + side] = [
                    230 if name == colour else 30 for name in NAMES
                ]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = pts[number] if pts else 40 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def middle_of(colour: str, frame: np.ndarray) -> tuple[float, float]:
    """(x, y) of the centre of gravity of a colour in a frame, uint8 (H, W, 3): where its square is, by its pixels."""
    index = NAMES.index(colour)
    others = frame.astype(int).sum(2) - frame[..., index]
    y, x = np.nonzero(frame[..., index].astype(int) - others / 2 > 60)
    assert len(x)
    return float(x.mean()), float(y.mean())
