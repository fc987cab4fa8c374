"""From decoded frames to what the network sees: sizes, crops, augmentation, normalisation (docs/method.md, section 6).

Decoded frames are uint8 (T, 3, h, w) and stay so until the last step, :func:`to_input`, which runs where the network
is. A *view* is a crop of a clip; testing averages over ten clips times three crops.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import resample

# One wrong timestamp can make years of five frames. Where videos are brought to a rate they would be that many frames:
# a cache that fills the disk, an explanation that never ends. So a video may become this many frames (an hour at 25 a
# second), or, where it is longer, this many times its own.
LONG, MOST_REPEATS = 100_000, 100


FASTER = 1.2  # more than that, and two frame rates show an action at another tempo


def differ(rates: Collection[float]) -> bool:
    """Whether frame rates are too far apart to be taken alike."""
    return max(rates) > FASTER * min(rates)


@dataclass(frozen=True)
class Preprocess:
    """How clips are made; saved with a model, which is fed with the same again when it is loaded.

    Attributes:
        size: side of the network's square input in pixels.
        frames, stride: T, frames of a clip, and their distance in frames.
        fps: rate to which videos are brought first, by showing at each time the frame then on display; None takes
            frames as they are stored (paper).
        trained_fps: rate of the videos that the network was trained on, where they were taken as stored and had about
            the same one. A file whose rate is more than ``FASTER`` times higher or lower is brought to it, for an
            action at another tempo may be another action; None where that is not known.
        canvas: (height, width) to which every frame is resized before training crops, whatever its shape (paper:
            256 x 342).
        test_canvas: testing does so too, so that neither the size nor the aspect ratio of a file can be read from its
            frames; else it brings the short side to ``size`` (paper).
        short_side: testing brings the short side of frames to so many pixels, and the crops of ``size`` are cut out of
            that; None: to ``size`` itself (paper).
        zoom_source: the zoomed videos are read from frames this many times as large as the input; 1: from the input
            itself (paper).
        mean, std: normalisation of pixels in [0, 1] (the field's values for networks trained from scratch on video,
            Feichtenhofer et al., 2019; the paper is silent).
    """

    size: int = 224
    frames: int = 16
    stride: int = 1
    fps: float | None = None
    trained_fps: float | None = None
    canvas: tuple[int, int] = (256, 342)
    test_canvas: bool = False
    short_side: int | None = None
    zoom_source: int = 1
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    def __post_init__(self) -> None:
        for name in ("size", "frames", "stride", "zoom_source"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"preprocess.{name} is {value}, expected 1 or more")
        if min(self.canvas) < self.size:
            raise ValueError(
                f"preprocess.canvas is {self.canvas}, expected two sides of at least {self.size}, which is "
                "preprocess.size"
            )
        if self.short_side is not None and self.short_side < self.size:
            raise ValueError(
                f"preprocess.short_side is {self.short_side}, expected at least {self.size}, which is preprocess.size"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Read what :meth:`to_dict` wrote (JSON turns tuples into lists)."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"preprocess has {', '.join(unknown)}, expected only {', '.join(sorted(known))}")
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**read)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def fps_for(self, file_fps: float | None) -> float | None:
        """The rate to which a file of a rate (0 or None: unknown) is brought first; None: it stays as it is."""
        if self.fps is not None or not self.trained_fps or not file_fps:
            return self.fps
        return self.trained_fps if differ([file_fps, self.trained_fps]) else None

    @property
    def source_size(self) -> int:
        """Side of a view in pixels: as large as the zoom reads."""
        return self.size * self.zoom_source

    @property
    def view_shape(self) -> tuple[int, int, int, int]:
        """(T, 3, s, s) of a view."""
        return self.frames, 3, self.source_size, self.source_size

    @property
    def stored_canvas(self) -> tuple[int, int]:
        """(height, width) of the frames that training crops from: the canvas, as large as the zoom reads."""
        return self.canvas[0] * self.zoom_source, self.canvas[1] * self.zoom_source

    def test_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which a displayed frame is resized for testing."""
        if self.test_canvas:
            return self.stored_canvas
        short = (self.short_side or self.size) * self.zoom_source
        scale = short / min(height, width)
        return max(short, round(height * scale)), max(short, round(width * scale))


@dataclass(frozen=True)
class Augment:
    """Random changes of a training clip, the same for all its frames."""

    area: tuple[float, float] | None = None  # the crop's share of the canvas; None: ``size`` pixels (paper)
    aspect: tuple[float, float] = (1.0, 1.0)  # the crop's width over height, relative to the canvas
    flip: bool = True  # half of the clips (wrong where left and right are different classes)
    brightness: float = 0.0  # largest relative change
    contrast: float = 0.0  # largest relative change, about the clip's mean

    @property
    def computes(self) -> bool:
        """There is more to do than to cut out a crop and mirror it."""
        return self.area is not None or bool(self.brightness or self.contrast)


def frames_at(path: Path, timestamps: np.ndarray, fps: float | None) -> np.ndarray:
    """Frame numbers, int64 (m,), of a video brought to ``fps``; every frame where that is None.

    Raises:
        DecodeError: the file does not say when its frames are shown, or would become far too many frames.
    """
    if fps is None:
        return np.arange(len(timestamps))
    lasts, frames = float(timestamps[-1] - timestamps[0]), len(timestamps)
    if lasts * fps > max(LONG, MOST_REPEATS * frames):
        raise DecodeError(
            path,
            f"cannot be taken at {fps:g} frames a second: its {frames} frames last {lasts:.6g} s by its timestamps, "
            f"and would become {lasts * fps:.6g}",
        )
    try:
        return resample(timestamps, fps)
    except UserError as error:
        raise DecodeError(path, f"cannot be taken at {fps:g} frames a second: {error}") from error


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, antialiased resize of uint8 (T, 3, h, w) frames; fastest on channels-last ones."""
    if frames.shape[2:] == (height, width):
        return frames
    if frames.is_cuda:  # which has no such resize of uint8
        return _resize_in_float(frames, height, width)
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def _resize_in_float(frames: Tensor, height: int, width: int) -> Tensor:
    resized = F.interpolate(frames.float(), (height, width), mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


class Change(NamedTuple):
    """The random changes of one training clip, as plain numbers that a loader can send to the device."""

    top: int  # of the crop, in pixels of the frames
    left: int
    height: int
    width: int
    flip: bool
    gain: float  # of the brightness, 1 as it is
    contrast: float  # about the clip's mean, 1 as it is


def draw_change(
    height: int, width: int, preprocess: Preprocess, augment: Augment, generator: torch.Generator
) -> Change:
    """Draw what is done to a training clip, whose frames are (height, width): a whole multiple of the canvas."""
    if augment.area is None:
        tall = wide = preprocess.size * height // preprocess.canvas[0]
    else:
        share = _uniform(*augment.area, generator)
        ratio = math.exp(_uniform(math.log(augment.aspect[0]), math.log(augment.aspect[1]), generator))
        tall = min(height, round(height * math.sqrt(share / ratio)))
        wide = min(width, round(width * math.sqrt(share * ratio)))
    top = int(torch.randint(height - tall + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    flip = augment.flip and bool(torch.rand((), generator=generator) < 0.5)
    gain = contrast = 1.0
    if augment.brightness or augment.contrast:
        gain += _uniform(-augment.brightness, augment.brightness, generator)
        contrast += _uniform(-augment.contrast, augment.contrast, generator)
    return Change(top, left, tall, wide, flip, gain, contrast)


def changed(frames: Tensor, change: Change, side: int) -> Tensor:
    """A training clip as it was drawn for its frames: uint8 (T, 3, h, w) -> (T, 3, side, side).

    The same on every device but for rounding: a GPU resizes in float32, a CPU in fixed point, and a pixel may differ
    by one of 255.
    """
    top, left, tall, wide = change[:4]
    view = resize(frames[:, :, top : top + tall, left : left + wide], side, side)
    if change.flip:
        view = view.flip(3)
    return _recolour(view, change.gain, change.contrast)


def _recolour(view: Tensor, gain: float, contrast: float) -> Tensor:
    """Contrast about the clip's mean, then brightness: one table of 256 values for all pixels."""
    if gain == contrast == 1:
        return view
    mean = view[:, :, ::8, ::8].float().mean()  # every eighth pixel is plenty for a mean
    if view.is_cuda:  # where arithmetic is cheaper than looking up
        return _recoloured(view, mean, gain, contrast)
    table = _recoloured(torch.arange(256), mean, gain, contrast)
    pixels = view.permute(0, 2, 3, 1)  # in memory order, where NumPy's take runs straight through
    return torch.from_numpy(table.numpy()[pixels.numpy()]).permute(0, 3, 1, 2)


def _recoloured(values: Tensor, mean: Tensor, gain: float, contrast: float) -> Tensor:
    """uint8 of numbers from 0 to 255, integers of any kind."""
    return (gain * (contrast * (values - mean) + mean)).round().clamp(0, 255).to(torch.uint8)


def centre_view(frames: Tensor, preprocess: Preprocess) -> Tensor:
    """The middle crop of a clip on the training canvas, which validation during training looks at."""
    side = preprocess.source_size
    plain = preprocess.size * frames.shape[2] // preprocess.canvas[0]
    top, left = (frames.shape[2] - plain) // 2, (frames.shape[3] - plain) // 2
    return resize(frames[:, :, top : top + plain, left : left + plain], side, side)


def crop_offsets(height: int, width: int, side: int, crops: int = 3) -> list[tuple[int, int]]:
    """(top, left) of test crops, spread evenly along the longer side, in the middle of the other one.

    Three are the left, middle and right of a wide frame, the top, middle and bottom of a tall one (paper, Sec. 3.1);
    one is the middle. On a square frame the crops run from left to right.
    """
    room_y, room_x = height - side, width - side
    at = [0.5] if crops == 1 else [index / (crops - 1) for index in range(crops)]
    if width >= height:
        return [(room_y // 2, int(room_x * share)) for share in at]
    return [(int(room_y * share), room_x // 2) for share in at]


def to_input(views: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor | None]:
    """What the network takes: uint8 (B, T, 3, s, s) -> video (B, 3, T, size, size), and the larger source or None.

    With ``zoom_source`` k > 1 the video is the k x k area average of the source.
    """
    factor = preprocess.zoom_source
    # A batch is some hundred megabytes: normalised in place, in the order in which it will be read.
    source = torch.empty_like(
        views.transpose(1, 2), dtype=torch.float32, memory_format=torch.contiguous_format
    )
    source.copy_(views.transpose(1, 2))
    for channel, (mean, std) in enumerate(zip(preprocess.mean, preprocess.std, strict=True)):
        source[:, channel].sub_(255 * mean).div_(255 * std)
    if factor == 1:
        return source, None
    return F.avg_pool3d(source, (1, factor, factor)), source
