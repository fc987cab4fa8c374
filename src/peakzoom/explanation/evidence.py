"""Evidence as plain data: the peaks, responses and scores of one video against time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peakzoom.inference.prediction import Prediction, above_guessing
from peakzoom.model import PeakZoom
from peakzoom.utils.words import counted
from peakzoom.video.clips import clip_span
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import Region
from peakzoom.video.scan import VideoInfo
from peakzoom.video.views import Preprocess

ZOOMED = ("discriminative", "complementary")  # those that see a zoomed video


@dataclass(frozen=True)
class Peak:
    """A peak of the class response, as long as it stays."""

    first: int  # frames of the file, both counted
    last: int
    start: float  # seconds
    end: float  # when the next frame is shown
    x: float  # pixels of the frame as displayed (turned, square pixels), (0, 0) the middle of the top left one
    y: float
    response: float  # in [0, 1], Eq. 4; also the probability of the discriminative branch (Eq. 5)
    label: str  # the class that adds most to the response there
    further: bool  # no peak of the response itself, but of what is left where its peaks are erased

    @property
    def branch(self) -> str:
        """The branch that the place is likelier to be enlarged for: discriminative from 0.5 on."""
        return ZOOMED[0] if self.response >= 0.5 else ZOOMED[1]

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
            "side": self.branch,
            "further": self.further,
        }


@dataclass(frozen=True)
class ClipEvidence:
    """What the first pass saw in one clip; one frame stands for all where a clip has one attention."""

    start: int  # first frame, counted in frames at the network's rate
    scores: np.ndarray  # float32 (S, T), Eq. 1's class scores of each frame as probabilities
    heat: np.ndarray  # uint8 (T or 1, g, g), the response times 255
    places: np.ndarray  # int64 (P, 3): frame, row and column of each peak
    values: np.ndarray  # float32 (P,), the response there
    labels: np.ndarray  # int64 (P,), the class that speaks there
    further: np.ndarray  # bool (P,), see Peak


@dataclass(frozen=True)
class Evidence:
    """Where, when and how sure. Times count from the first frame."""

    prediction: Prediction  # the one that ``predict`` gives
    target: str  # the class that the evidence is for
    target_given: bool  # whether the caller named that class; otherwise it is the predicted one
    video: HeldVideo  # its frames are those that are drawn
    base: np.ndarray  # int64 (m,), the file's frames at the network's rate
    clips: list[ClipEvidence]  # in order
    crop: tuple[
        int, int
    ]  # number of the crop that the evidence is taken from, and how many crops the views have
    region: Region  # where that crop lies
    model: PeakZoom

    @property
    def info(self) -> VideoInfo:
        """About the file."""
        return self.video.scan.info

    @property
    def times(self) -> np.ndarray:
        """When each frame of the file is shown, float64 (N,) seconds."""
        return self.video.scan.timestamps

    @cached_property
    def _preprocess(self) -> Preprocess:
        return Preprocess.from_dict(self.model.preprocess)

    @cached_property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        return float(self.times[-1]) + (1 / self.info.fps if self.info.fps else 0.0)

    @cached_property
    def scores(self) -> np.ndarray:
        """Eq. 1's class scores of every frame of the file as probabilities, the original branch's: float64 (N, S)."""
        pre = self._preprocess
        total = np.zeros((len(self.base), len(self.prediction.classes)))
        times = np.zeros(len(self.base))
        span = clip_span(pre.frames, pre.stride)
        for clip in self.clips:
            inside = np.arange(clip.start, min(clip.start + span, len(self.base)))
            at = (inside - clip.start) / pre.stride
            low = np.minimum(at.astype(int), pre.frames - 1)
            high = np.minimum(low + 1, pre.frames - 1)
            share = (at - low)[:, None]
            total[inside] += clip.scores.T[low] * (1 - share) + clip.scores.T[high] * share
            times[inside] += 1
        return (total / times[:, None])[self._base_of]

    @cached_property
    def _base_of(self) -> np.ndarray:
        """For each frame of the file, the frame at the network's rate that is shown with it: int64 (N,)."""
        return np.searchsorted(self.base, np.arange(self.info.frames), side="right") - 1

    @cached_property
    def _shown(self) -> np.ndarray:
        """For each frame of the file, the clip and the frame in it that stand for it: int64 (N, 2)."""
        pre = self._preprocess
        starts = np.array([clip.start for clip in self.clips])
        middles = starts + (min(clip_span(pre.frames, pre.stride), len(self.base)) - 1) / 2
        which = np.abs(self._base_of[:, None] - middles).argmin(1)
        frame = np.rint((self._base_of - starts[which]) / pre.stride).astype(int).clip(0, pre.frames - 1)
        if len(self.clips[0].heat) == 1:
            frame[:] = 0
        return np.stack((which, frame), 1)

    @property
    def zoomed(self) -> tuple[str, ...]:
        """The zoomed videos that the model looks at, which are the ones that are shown."""
        return tuple(name for name in ZOOMED if name in self.model.zoomed)

    def confidence(self, frame: int) -> float:
        """How far the score of the evidence's class lies above guessing in a frame of the file: from 0 to 1.

        Of several labels a guess is 0, for the scores do not share 1.
        """
        classes = self.prediction.classes
        score = float(self.scores[frame, classes.index(self.target)])
        return above_guessing(score, 1 if self.model.multi_label else len(classes))

    def attention(self, frame: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """What the network saw in a frame of the file.

        Returns:
            The response, uint8 (g, g); its peaks, float (P, 4): row, column, response, 1 for a further peak and 0 for
            one of the response itself; and the attention of the discriminative and the complementary branch, float
            (2, g, g).
        """
        which, inner = self._shown[frame]
        clip, grid = self.clips[which], self.model.config.grid
        here = clip.places[:, 0] == inner
        places, values = clip.places[here, 1:], clip.values[here]
        response = torch.zeros((1, grid, grid))
        response[0, places[:, 0], places[:, 1]] = torch.from_numpy(values)
        attention, mode = self.model.attention, self.model.config.eval_mode
        if mode == "sample":  # every prediction draws anew: their mean
            mode = "expected"
        device = attention.beta_dis.device
        with torch.no_grad():
            branches = attention(response.to(device), (response > 0).to(device), mode=mode)
        return (
            clip.heat[inner],
            np.column_stack((places, values, clip.further[here])),
            torch.cat(branches).cpu(),
        )

    @cached_property
    def peaks(self) -> list[Peak]:
        """Every peak, in order of time, then of response."""
        shown, grid, size = self._shown, self.model.config.grid, self._preprocess.size
        cuts = np.flatnonzero((np.diff(shown, axis=0) != 0).any(1)) + 1
        ends = np.append(self.times[1:], self.end)
        found = []
        for first, last in zip([0, *cuts.tolist()], [*(cuts - 1).tolist(), len(shown) - 1], strict=True):
            clip, inner = self.clips[shown[first, 0]], shown[first, 1]
            start, end = float(self.times[first]), float(ends[last])
            here = np.flatnonzero(clip.places[:, 0] == inner)
            for each in here[np.argsort(-clip.values[here], kind="stable")]:
                _, row, column = clip.places[each].tolist()
                x, y = self.region.place(row, column, grid, size)
                label = self.prediction.classes[int(clip.labels[each])]
                response, further = float(clip.values[each]), bool(clip.further[each])
                found.append(Peak(first, last, start, end, x, y, response, label, further))
        return found

    def best(self, most: int = 5) -> list[int]:
        """Indices of the classes that the time line shows: the evidence's own first, then those that score highest."""
        own = self.prediction.classes.index(self.target)
        rest = [int(each) for each in np.argsort(-self.scores.max(0), kind="stable") if each != own]
        return [own, *rest[: most - 1]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the prediction, the scores of the ten best classes frame by frame, every peak."""
        info, region = self.info, self.region
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
                **{name: round(getattr(region, name), 1) for name in ("left", "top", "width", "height")},
            },
            "times": [round(each, 4) for each in self.times.tolist()],
            "frame_scores": {
                self.prediction.classes[each]: [round(value, 5) for value in self.scores[:, each].tolist()]
                for each in self.best(10)
            },
            "peaks": [peak.to_dict() | ({} if self.zoomed else {"side": None}) for peak in self.peaks],
        }

    def __repr__(self) -> str:
        name, score = self.prediction.top(1)[0]
        return (
            f"Evidence({self.info.path.name!r}: {name} {score:.2f}; {counted(len(self.peaks), 'peak')} for "
            f"{self.target!r}"
            f" in {self.end:.1f} s)"
        )
