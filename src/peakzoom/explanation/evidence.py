"""What was seen in one video: peaks, responses, scores against time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peakzoom.inference.prediction import Prediction
from peakzoom.model import PeakZoom
from peakzoom.utils.progress import Told
from peakzoom.video.clips import clip_span
from peakzoom.video.decode import Scan, VideoInfo
from peakzoom.video.views import Preprocess

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SIDES = ("discriminative", "complementary")


@dataclass(frozen=True)
class Peak:
    """A peak of the class response, as long as it stays.

    Attributes:
        first, last: frames of the file, both counted.
        start, end: seconds; the end is when the next frame is shown.
        x, y: in pixels of the frame as displayed (turned, square pixels), (0, 0) the middle of the top left one.
        response: in [0, 1], Eq. 4; also the probability of the discriminative side (Eq. 5).
        side: the likelier side, discriminative from 0.5 on.
        label: the class that adds most to the response there.
    """

    first: int
    last: int
    start: float
    end: float
    x: float
    y: float
    response: float
    label: str

    @property
    def side(self) -> str:
        """Discriminative or complementary."""
        return SIDES[0] if self.response >= 0.5 else SIDES[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; seconds and pixels to a thousandth and a tenth."""
        return {
            "first_frame": self.first,
            "last_frame": self.last,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "x": round(self.x, 1),
            "y": round(self.y, 1),
            "class": self.label,
            "response": round(self.response, 4),
            "side": self.side,
        }


@dataclass(frozen=True)
class Look:
    """What the first pass saw in one clip; without a time axis where a clip is attended to as one.

    Attributes:
        start: first frame, counted in frames at the network's rate.
        scores: float32 (S, T), Eq. 1's class scores of each frame, softmax.
        heat: uint8 (T or 1, g, g), the response times 255.
        places: int64 (P, 3): frame, row and column of each peak.
        values: float32 (P,), the response there.
        labels: int64 (P,), the class that speaks there.
    """

    start: int
    scores: np.ndarray
    heat: np.ndarray
    places: np.ndarray
    values: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Window:
    """The part of the displayed frame that the network was shown, in displayed pixels; edges, not centres."""

    top: float
    left: float
    height: float
    width: float

    def place(self, row: float, column: float, grid: int, size: int) -> tuple[float, float]:
        """(x, y) of a grid place in displayed pixels, (0, 0) the middle of the first.

        Grid line j lies on pixel j (size - 1) / (grid - 1) of the input, whose pixels share the window evenly.
        """
        x, y = ((each * (size - 1) / (grid - 1) + 0.5) / size for each in (column, row))
        return self.left + x * self.width - 0.5, self.top + y * self.height - 0.5


@dataclass(frozen=True)
class Evidence:
    """Where, when and how sure. Times count from the first frame.

    Attributes:
        prediction: the answer, as ``predict`` gives it.
        target: the class that the evidence is for.
        asked: whether that class was asked for, and is not just the answer.
        scan: the file.
        base: int64 (m,), the file's frames at the network's rate.
        looks: one a clip, in order.
        crop: which of the views' crops was looked at, and how many there are.
        window: where it lies.
        model: whose evidence it is.
    """

    prediction: Prediction
    target: str
    asked: bool
    scan: Scan
    base: np.ndarray
    looks: list[Look]
    crop: tuple[int, int]
    window: Window
    model: PeakZoom

    @property
    def info(self) -> VideoInfo:
        """About the file."""
        return self.scan.info

    @property
    def times(self) -> np.ndarray:
        """When each frame of the file is shown, float64 (N,) seconds."""
        return self.scan.timestamps

    @property
    def zooms(self) -> bool:
        """Whether the model looks at the zoomed videos at all; one with the original branch alone does not."""
        return self.model.branches != ("original",)

    @cached_property
    def _preprocess(self) -> Preprocess:
        return Preprocess.from_dict(self.model.preprocess)

    @cached_property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        return float(self.times[-1]) + (1 / self.info.fps if self.info.fps else 0.0)

    @cached_property
    def scores(self) -> np.ndarray:
        """Eq. 1's class scores of every frame of the file, softmax, the original branch's: float64 (N, S)."""
        pre = self._preprocess
        total = np.zeros((len(self.base), len(self.prediction.classes)))
        times = np.zeros(len(self.base))
        span = clip_span(pre.frames, pre.stride)
        for look in self.looks:
            inside = np.arange(look.start, min(look.start + span, len(self.base)))
            at = (inside - look.start) / pre.stride
            low = np.minimum(at.astype(int), pre.frames - 1)
            high = np.minimum(low + 1, pre.frames - 1)
            share = (at - low)[:, None]
            total[inside] += look.scores.T[low] * (1 - share) + look.scores.T[high] * share
            times[inside] += 1
        return (total / times[:, None])[self._base_of]

    @cached_property
    def _base_of(self) -> np.ndarray:
        """Of each frame of the file, the frame at the network's rate that is shown with it: int64 (N,)."""
        return np.searchsorted(self.base, np.arange(self.info.frames), side="right") - 1

    @cached_property
    def _shown(self) -> np.ndarray:
        """Of each frame of the file, the look and the frame in it that show it: int64 (N, 2)."""
        pre = self._preprocess
        starts = np.array([look.start for look in self.looks])
        middles = starts + (min(clip_span(pre.frames, pre.stride), len(self.base)) - 1) / 2
        which = np.abs(self._base_of[:, None] - middles).argmin(1)
        frame = np.rint((self._base_of - starts[which]) / pre.stride).astype(int).clip(0, pre.frames - 1)
        if len(self.looks[0].heat) == 1:
            frame[:] = 0
        return np.stack((which, frame), 1)

    def attention(self, frame: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """What was seen in a frame of the file.

        Returns:
            The response, uint8 (g, g); its peaks, float (P, 3): row, column, response; and the attention of the
            two sides, float (2, g, g).
        """
        which, inner = self._shown[frame]
        look, grid = self.looks[which], self.model.grid
        here = look.places[:, 0] == inner
        places, values = look.places[here, 1:], look.values[here]
        response = torch.zeros((1, grid, grid))
        response[0, places[:, 0], places[:, 1]] = torch.from_numpy(values)
        attention = self.model.attention
        device = attention.beta_dis.device
        with torch.no_grad():
            sides = attention(response.to(device), (response > 0).to(device), mode="expected")
        return look.heat[inner], np.column_stack((places, values)), torch.cat(sides).cpu()

    @cached_property
    def peaks(self) -> list[Peak]:
        """Every peak, in order of time, then of response."""
        shown = self._shown
        cuts = np.flatnonzero((np.diff(shown, axis=0) != 0).any(1)) + 1
        pre = self._preprocess
        ends = np.append(self.times[1:], self.end)
        found = []
        for first, last in zip([0, *cuts], [*cuts - 1, len(shown) - 1], strict=True):
            look = self.looks[shown[first, 0]]
            here = np.flatnonzero(look.places[:, 0] == shown[first, 1])
            for each in here[np.argsort(-look.values[here], kind="stable")]:
                _, row, column = look.places[each].tolist()
                x, y = self.window.place(row, column, self.model.grid, pre.size)
                found.append(
                    Peak(
                        int(first),
                        int(last),
                        float(self.times[first]),
                        float(ends[last]),
                        x,
                        y,
                        float(look.values[each]),
                        self.prediction.classes[int(look.labels[each])],
                    )
                )
        return found

    def best(self, most: int = 5) -> list[int]:
        """Classes worth a line in the time line: the evidence's own first, then the highest anywhere."""
        own = self.prediction.classes.index(self.target)
        rest = [int(each) for each in np.argsort(-self.scores.max(0), kind="stable") if each != own]
        return [own, *rest[: most - 1]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the answer, the scores of the ten best classes frame by frame, every peak."""
        info, window = self.info, self.window
        index, count = self.crop
        return {
            **self.prediction.to_dict(),
            "evidence_for": self.target,
            "video": {
                "frames": info.frames,
                "fps": info.fps,
                "seconds": round(self.end, 3),
                "width": info.width,
                "height": info.height,
                "rotation": info.rotation,
                "pixels": "as displayed: turned by the file's rotation, square",
            },
            "view": {
                "crop": index,
                "crops": count,
                **{name: round(getattr(window, name), 1) for name in ("left", "top", "width", "height")},
            },
            "times": [round(each, 4) for each in self.times.tolist()],
            "frame_scores": {
                self.prediction.classes[each]: [round(value, 5) for value in self.scores[:, each].tolist()]
                for each in self.best(10)
            },
            "peaks": [peak.to_dict() for peak in self.peaks],
        }

    def plot(self, moments: int = 6) -> Figure:
        """The sheet: moments of the video, what was seen in them, and the time line (paper, Fig. 1 and 2)."""
        from peakzoom.explanation.draw import sheet

        return sheet(self, moments)

    def save(self, folder: str | Path, progress: bool | Told = True) -> list[Path]:
        """Write ``evidence.mp4``, ``evidence.png`` and ``evidence.json`` into a new or empty folder.

        The folder appears when it is complete; until then it is called FOLDER.part.

        Raises:
            UserError: the folder has something in it, or the disk is full.
        """
        from peakzoom.explanation.save import save

        return save(self, Path(folder), progress)

    def _repr_html_(self) -> str:
        """For notebooks: the answer, and the film."""
        from peakzoom.explanation.save import film_html

        return self.prediction._repr_html_() + film_html(self)

    def __repr__(self) -> str:
        name, score = self.prediction.top(1)[0]
        return (
            f"Evidence({self.info.path.name!r}: {name} {score:.2f}; {len(self.peaks)} peaks for {self.target!r}"
            f" in {self.end:.1f} s)"
        )
