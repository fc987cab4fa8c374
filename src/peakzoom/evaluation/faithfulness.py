"""Is the evidence true? What blurring the attended places does to the prediction, against equally large other places.

Of every view (docs/explain.md)

* the share of each frame where the response is highest is blurred ("attended");
* the same shapes, moved by one random offset a clip and wrapped at the borders, are ("random");
* a disc of the same area in the middle of the frame is ("centre"), where people stand.

All three blur equally many pixels with the same Gaussian. (Deletion with a baseline: Petsiuk et al., BMVC 2018; blur as
what hides: Fong and Vedaldi, ICCV 2017.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.data.entries import Entry, Problem
from peakzoom.evaluation.stats import PairedTest, paired_test
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.respond import respond
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.journal import Journal
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.sampling import Views, decode_ahead

SHARE = 0.2  # of each frame that is blurred
SIGMA = 0.08  # of the frame's side: no hand or foot is left of it
DRAWS, SEED = 3, 0  # random places for each view
KINDS = ("attended", "random", "centre")


@dataclass(frozen=True)
class Drop:
    """What blurring did to the prediction for one video; scores are softmax, averaged over the views."""

    path: str
    group: str | None
    label: str  # the class predicted
    score: float  # its score as it is
    attended: float  # by how much the score falls when that is blurred, as for the other two
    random: float  # mean of the draws
    centre: float


class ClassMeans(NamedTuple):
    """Of the videos with one predicted class the means of :class:`Drop`'s figures."""

    label: str
    videos: int
    score: float
    attended: float
    random: float
    centre: float


@dataclass(frozen=True)
class Faithfulness:
    """Drops of all videos, and whether attended places matter more than others.

    Attributes:
        drops: of the videos that could be decoded.
        views: of a video.
        problems: the videos that could not.
    """

    drops: list[Drop]
    views: int
    problems: list[Problem] = field(default_factory=list)

    def test(self, against: str = "random") -> PairedTest:
        """Attended less ``against``, in points of score, paired by video and grouped where groups are known."""
        difference = np.array([100 * (each.attended - getattr(each, against)) for each in self.drops])
        groups = [each.group for each in self.drops]
        return paired_test(difference, groups if all(groups) else None)

    def rows(self) -> list[ClassMeans]:
        """Means by the class predicted, "all" last."""
        names = sorted({each.label for each in self.drops})
        parts = {name: [each for each in self.drops if each.label == name] for name in names}
        rows = []
        for name, part in [*parts.items(), ("all", self.drops)]:
            means = (float(np.mean([getattr(each, key) for each in part])) for key in ("score", *KINDS))
            rows.append(ClassMeans(name, len(part), *means))
        return rows

    def summary(self) -> dict[str, Any]:
        """Settings, class means and tests as plain data."""
        keys = ("class", "videos", "score", *KINDS)
        return {
            "share": SHARE,
            "sigma": SIGMA,
            "draws": DRAWS,
            "seed": SEED,
            "views": self.views,
            "classes": [dict(zip(keys, row, strict=True)) for row in self.rows()],
            "attended_less": {name: asdict(self.test(name)) for name in KINDS[1:]},
        }


def attended(responses: Tensor, side: int, share: float) -> Tensor:
    """The share of each frame where its response is highest; ties go to the first in row-major order.

    Args:
        responses: (B, T, g, g) in [0, 1], on grid lines j at pixel j (side - 1) / (g - 1).
        side: of the frames in pixels.
        share: in (0, 1).

    Returns:
        bool (B, T, side, side), ``round(share * side^2)`` true in each frame.
    """
    whole = F.interpolate(responses, (side, side), mode="bilinear", align_corners=True).flatten(2)
    most = round(share * side * side)
    chosen = whole.sort(dim=2, descending=True, stable=True).indices[..., :most]
    mask = torch.zeros_like(whole, dtype=torch.bool).scatter(2, chosen, True)
    return mask.unflatten(2, (side, side))


def centre(side: int, share: float) -> Tensor:
    """The ``round(share * side^2)`` pixels nearest to the middle of a frame: bool (side, side)."""
    line = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2).square()
    order = (line[:, None] + line).flatten().sort(stable=True).indices[: round(share * side * side)]
    return torch.zeros(side * side, dtype=torch.bool).scatter(0, order, True).unflatten(0, (side, side))


def moved(mask: Tensor, generator: torch.Generator) -> Tensor:
    """The shapes of bool (B, T, side, side) elsewhere: each clip's by one random offset, wrapped at the borders."""
    offsets = _offsets(len(mask), mask.shape[-1], generator)
    return torch.stack([each.roll((y, x), (1, 2)) for each, (y, x) in zip(mask, offsets, strict=True)])


def _offsets(clips: int, side: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """By how much each clip's shapes are moved down and to the right."""
    return [(y, x) for y, x in torch.randint(side, (clips, 2), generator=generator).tolist()]


def blur(views: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of every frame of uint8 (B, T, 3, s, s), borders continued; sigma in pixels.

    A Gaussian is separable: one (s, s) matrix from the left and from the right, many times faster than convolving.
    """
    side, reach = views.shape[-1], max(1, round(3 * sigma))
    apart = torch.arange(-reach, reach + 1)
    weight = torch.exp(-apart.square() / (2 * sigma**2))
    pixel = torch.arange(side)
    matrix = torch.zeros(side, side)
    for offset, each in zip(apart.tolist(), (weight / weight.sum()).tolist(), strict=True):
        matrix[pixel, (pixel + offset).clamp(0, side - 1)] += each  # beyond the border its pixel counts
    frames = matrix @ views.float() @ matrix.T
    return frames.round().clamp(0, 255).to(torch.uint8)


def torch_engine(recognizer: Recognizer) -> TorchEngine:
    """The engine, which must be able to say what it attends to; UserError if it is another."""
    if not isinstance(recognizer.engine, TorchEngine):
        raise UserError(
            f"engine torch alone knows what a network attends to, not {recognizer.engine.name}: leave --engine out"
        )
    return recognizer.engine


def measure_faithfulness(
    recognizer: Recognizer,
    entries: Sequence[Entry],
    views: Views | None = None,
    *,
    workers: int = 1,
    progress: bool | Progress = True,
    journal: Journal | None = None,
) -> Faithfulness:
    """Blur what the network attends to, and as much elsewhere, and see what becomes of its predictions.

    Args:
        recognizer: a trained model on PyTorch.
        entries: the videos; their labels are not used.
        views: the views; the paper's 30 when not given.
        workers: decoding threads.
        progress: show a bar; a function is called with (done, all) videos instead.
        journal: where each video's line goes, and those of a stopped measurement of the same are.

    Raises:
        UserError: the engine is not PyTorch, or not one video can be decoded.
    """
    engine, views = torch_engine(recognizer), views or Views()
    generator = torch.Generator().manual_seed(SEED)
    lines: list[dict[str, Any]] = list(journal.lines[: len(entries)]) if journal else []
    for line in lines:
        # The places of a known video are drawn again, so that those of the videos that follow are what they would be.
        for _ in range(0 if "error" in line else views.clips * DRAWS):
            _offsets(views.crops, recognizer.preprocess.source_size, generator)
    paths = [entry.path for entry in entries[len(lines) :]]
    decoded = decode_ahead(paths, recognizer.preprocess, views, workers)
    with progress_bar(f"blurring {counted(len(entries), 'video')}", progress) as report:
        for video in decoded:
            if isinstance(video, DecodeError):
                line = {"error": video.reason}
            else:
                scores = [_scores(engine, batch, generator) for batch in video.batches()]
                line = _drop(np.concatenate(scores).mean(0), recognizer.classes)
            lines.append(line)
            if journal:
                journal.add(line)
            report(len(lines), len(entries))
    drops = [
        Drop(str(entry.path), entry.group, **line)
        for entry, line in zip(entries, lines, strict=True)
        if "error" not in line
    ]
    if not drops:
        raise UserError("not one of the videos could be decoded; run 'peakzoom data check' on them")
    problems = [
        Problem(str(entry.path), line["error"])
        for entry, line in zip(entries, lines, strict=True)
        if "error" in line
    ]
    return Faithfulness(drops, views.clips * views.crops, problems)


def _drop(mean: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of :class:`Drop` from scores (2 + draws + 1, S) as of :func:`_scores`, averaged over the views."""
    predicted = int(mean[0].argmax())
    before, seen, *others, middle = mean[:, predicted].tolist()
    return {
        "label": classes[predicted],
        "score": before,
        "attended": before - seen,
        "random": before - float(np.mean(others)),
        "centre": before - middle,
    }


@torch.inference_mode()
def _scores(engine: TorchEngine, views: Tensor, generator: torch.Generator) -> np.ndarray:
    """Fused softmax (B, 2 + draws + 1, S): as it is, attended blurred, each random place, the centre."""
    network, side = engine.network, views.shape[-1]
    first = network.first_pass(views.to(engine.device))
    responses, _ = respond(network, first)
    mask = attended(responses.float().cpu(), side, SHARE)
    soft = blur(views, SIGMA * side)
    elsewhere = [moved(mask, generator) for _ in range(DRAWS)]
    masks = [mask, *elsewhere, centre(side, SHARE).expand_as(mask)]
    blurred = [torch.where(each[:, :, None], soft, views) for each in masks]
    logits = [engine.stage2(first), *(engine(each)["fused"] for each in blurred)]
    return torch.stack(logits, 1).softmax(2).numpy()
