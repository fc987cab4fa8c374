"""Does the attention lie where the action is? The pointing game, on videos in which somebody said where that is.

Of every frame of a view that shows a known place (:mod:`peakzoom.data.places`), or, where a few frames of a video were
marked and its views have none of them, of clips around these; with slack of half a feature cell, because a network
cannot place its evidence more finely:

* whether the highest peak of the response lies on it, or one of the three highest;
* the same for the middle of the frame, and for a point drawn at random (its probability), which look at nothing;
* by how much each zoomed video enlarges the place, in area.

(Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, sec. 4.2.)
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from peakzoom.data.entries import Entry, Place, Places, Problem
from peakzoom.data.places import expect_place
from peakzoom.evaluation.faithfulness import torch_engine
from peakzoom.evaluation.stats import RESAMPLES, bootstrap_interval
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.respond import respond
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.utils.words import counted
from peakzoom.video.guard import Guard
from peakzoom.video.sampling import DecodedViews, Region, Views, decode_ahead, decode_views

BEST = 3  # peaks that count as "one of the highest"


@dataclass(frozen=True)
class PointedFrame:
    """One frame of one view.

    Attributes:
        path, group: of the video.
        frame: its number in the file.
        label: the video's class.
        part: what acts there, as "hand".
        highest, best: whether the highest peak, or one of the three highest, lies on it.
        middle: whether the middle of the frame does.
        random: the probability that a place of the attention grid does.
        discriminative, complementary: by how much each zoomed video enlarges it, in area.
    """

    path: str
    group: str | None
    frame: int
    label: str
    part: str
    highest: bool
    best: bool
    middle: bool
    random: float
    discriminative: float
    complementary: float


@dataclass(frozen=True)
class PointingRow:
    """Means of :class:`PointedFrame` over some frames; enlargements are medians.

    A frame that several views show counts once, as the mean of what they say.

    Attributes:
        name: a part, a class, or "all".
        interval: 95% of ``highest``, by bootstrap over groups, or over videos where groups are unknown; too narrow
            with fewer than ten.
        units, count: "groups" or "videos", whichever were drawn, and how many there are.
    """

    name: str
    videos: int
    frames: int
    highest: float
    interval: tuple[float, float]
    units: str
    count: int
    best: float
    middle: float
    random: float
    discriminative: float
    complementary: float


@dataclass(frozen=True)
class Pointing:
    """The frames of all videos.

    Attributes:
        frames: those of the views that show a known place, its middle at least; a frame of two views comes twice here.
        unseen: how many frames have a known place that no view shows, because no clip has the frame, or no crop the
            place.
        problems: videos that could not be decoded.
    """

    frames: list[PointedFrame]
    unseen: int
    problems: list[Problem]

    def rows(self) -> list[PointingRow]:
        """One row a part, "all" last."""
        return self._rows("part")

    def by_class(self) -> list[PointingRow]:
        """One row a class, "all" last."""
        return self._rows("label")

    def _rows(self, key: str) -> list[PointingRow]:
        names = sorted({getattr(each, key) for each in self.frames})
        parts = {name: [each for each in self.frames if getattr(each, key) == name] for name in names}
        return [_row(name, part) for name, part in [*parts.items(), ("all", self.frames)]]

    def summary(self) -> dict[str, Any]:
        """Rows by part and by class as plain data."""
        return {
            "best": BEST,
            "unseen": self.unseen,
            "parts": [vars(each) for each in self.rows()],
            "classes": [vars(each) for each in self.by_class()[:-1]],
        }


def _row(name: str, frames: Sequence[PointedFrame]) -> PointingRow:
    same: dict[tuple[str, int], list[PointedFrame]] = defaultdict(list)
    for each in frames:
        same[each.path, each.frame].append(each)

    def values(key: str) -> np.ndarray:
        return np.array([np.mean([getattr(each, key) for each in views]) for views in same.values()])

    grouped = all(each.group for each in frames)
    units = [views[0].group if grouped else views[0].path for views in same.values()]
    return PointingRow(
        name,
        len({path for path, _ in same}),
        len(same),
        float(values("highest").mean()),
        bootstrap_interval(values("highest"), groups=units, resamples=RESAMPLES),
        "groups" if grouped else "videos",
        len(set(units)),
        *(float(values(key).mean()) for key in ("best", "middle", "random")),
        *(float(np.median(values(key))) for key in ("discriminative", "complementary")),
    )


def measure_pointing(
    recognizer: Recognizer,
    entries: Sequence[Entry],
    places: Places,
    views: Views | None = None,
    *,
    workers: int = 1,
    progress: bool | Progress = True,
) -> Pointing:
    """See whether the peaks lie where the action is, and whether the zoomed videos enlarge it.

    Args:
        recognizer: a trained model on PyTorch.
        entries: the videos; those of which no place is known are left out.
        places: where the action is.
        views: the views; the paper's 30 when not given.
        workers: decoding processes.
        progress: show a bar; a function is called with (done, all) videos instead.

    Raises:
        UserError: the engine is not PyTorch, a place has no finite middle or no radius above 0, or the views show none.
    """
    game = PointingGame(recognizer, entries, places)
    play(game, views or Views(), workers, progress)
    return game.result()


class PointingGame:
    """The pointing game on videos that somebody decodes: :func:`play`, or an evaluation, which shows it each.

    Args:
        recognizer, entries, places: as of :func:`measure_pointing`.
    """

    def __init__(self, recognizer: Recognizer, entries: Sequence[Entry], places: Places) -> None:
        self.recognizer, self.engine = recognizer, torch_engine(recognizer)
        self.places: dict[Path, dict[int, list[Place]]] = {}
        for path, frames in places.items():
            for number, marked in frames.items():
                for place in marked:
                    expect_place(place, f"frame {number} of {path}")
                    self.places.setdefault(path.resolve(), {}).setdefault(number, []).append(place)
        self.entries = [entry for entry in entries if entry.path.resolve() in self.places]
        self.videos = len(entries)
        if not self.entries:
            raise self._nothing()
        self._seen: dict[Path, tuple[list[PointedFrame], int] | Problem] = {}
        self._between: set[Path] = set()

    @property
    def missing(self) -> list[Entry]:
        """The videos with places that it has not been shown."""
        return [entry for entry in self.entries if entry.path not in self._seen]

    @property
    def between(self) -> list[Entry]:
        """The videos whose clips have no marked frame: all lie between those that the clips take, or beyond them."""
        return [entry for entry in self.entries if entry.path in self._between]

    def look(self, entry: Entry, video: DecodedViews | DecodeError) -> None:
        """Play on a video's views; one without a place is passed over."""
        if (here := self.places.get(entry.path.resolve())) is None:
            return
        if isinstance(video, DecodeError):
            self._seen[entry.path] = Problem(str(entry.path), video.reason)
            return
        if not np.isin(video.clips, list(here)).any():
            self._between.add(entry.path)
        frames = _pointed(self.engine, entry, entry.named(self.recognizer.classes), video, here)
        self._seen[entry.path] = frames, len(here.keys() - {each.frame for each in frames})

    def result(self) -> Pointing:
        """Of the videos so far, in the order of the entries; UserError if no view of theirs shows a place."""
        seen = [self._seen[entry.path] for entry in self.entries if entry.path in self._seen]
        problems = [each for each in seen if isinstance(each, Problem)]
        played = [each for each in seen if not isinstance(each, Problem)]
        frames = list(itertools.chain.from_iterable(found for found, _ in played))
        if not frames:
            raise self._nothing()
        return Pointing(frames, sum(unseen for _, unseen in played), problems)

    def _nothing(self) -> UserError:
        return UserError(
            f"no view of {counted(self.videos, 'video')} shows a known place: name the table that belongs to them, or "
            f"ask for more clips and crops"
        )


def play(game: PointingGame, views: Views, workers: int = 1, progress: bool | Progress = True) -> None:
    """Decode the videos that a game has not been shown, and show it them.

    A video of which the views have no marked frame, as where somebody marked only one, is shown in clips around these.
    """
    _show(game, game.missing, views, workers, progress)
    _show(game, game.between, views, workers, progress, around=True)


def _show(
    game: PointingGame,
    entries: Sequence[Entry],
    views: Views,
    workers: int,
    progress: bool | Progress,
    around: bool = False,
) -> None:
    if not entries:
        return
    pre = game.recognizer.preprocess

    def decode(guard: Guard | None, entry: Entry) -> DecodedViews:
        marked = sorted(game.places[entry.path.resolve()]) if around else None
        return decode_views(entry.path, pre, views, guard, around=marked)

    decoded = decode_ahead(entries, pre, views, workers, decode=decode)
    with progress_bar(f"pointing in {counted(len(entries), 'video')}", progress) as report:
        for done, (entry, video) in enumerate(zip(entries, decoded, strict=True), start=1):
            game.look(entry, video)
            report(done, len(entries))


def _pointed(
    engine: TorchEngine, entry: Entry, label: str, video: DecodedViews, places: Mapping[int, list[Place]]
) -> list[PointedFrame]:
    """The frames of a video's views that show a known place."""
    network, found = engine.network, []
    size, cell = network.preprocess.size, network.model.backbone.cells.stride[1:]
    regions = [video.region(crop) for crop in range(len(video.offsets))]
    for numbers, batch in zip(video.clips, video.batches(), strict=True):
        marked = [(at, number) for at, number in enumerate(numbers.tolist()) if number in places]
        if not marked:
            continue
        peaks, grids = _look(engine, batch)
        for (crop, region), (at, number) in itertools.product(enumerate(regions), marked):
            shown = [
                (place.part, disc)
                for place in places[number]
                if (disc := _Disc.of(place, region, size, cell)).is_inside(size)
            ]
            if not shown:  # no peak of this crop can lie there
                continue
            discs = [disc for _, disc in shown]
            hits = _holds(discs, peaks[crop, at])
            found.append(
                PointedFrame(
                    *(str(entry.path), entry.group, number, label),
                    part="+".join(sorted({part for part, _ in shown})),
                    highest=bool(hits[0]),
                    best=bool(hits.any()),
                    middle=bool(_holds(discs, np.full((1, 2), (size - 1) / 2)).any()),
                    random=float(_holds(discs, _grid_places(grids.shape[-2], size)).mean()),
                    discriminative=_enlarged(grids[0, crop, at], discs, size),
                    complementary=_enlarged(grids[1, crop, at], discs, size),
                )
            )
    return found


@torch.inference_mode()
def _look(engine: TorchEngine, views: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The highest peaks and the zoom of uint8 views (B, T, 3, s, s).

    Returns:
        (B, T, BEST, 2), x and y in pixels of the network's input, NaN where a frame has fewer peaks; and
        (2, B, T, g, g, 2), where the discriminative and the complementary video read, in [-1, 1], corners aligned.
    """
    network, model = engine.network, engine.network.model
    first = network.first_pass(views.to(engine.device))
    responses, peaks = respond(network, first)
    attention = model.attention(responses.flatten(0, 1), peaks.flatten(0, 1), mode=model.config.eval_mode)
    grids = torch.stack([model.sampler.grid(each).unflatten(0, peaks.shape[:2]) for each in attention])
    values, cells = responses.masked_fill(~peaks, -1).flatten(2).topk(BEST)
    side = responses.shape[-1]
    places = torch.stack((cells % side, cells // side), -1) * ((network.preprocess.size - 1) / (side - 1))
    return places.masked_fill(values[..., None] < 0, torch.nan).cpu().numpy(), grids.float().cpu().numpy()


class _Disc(NamedTuple):
    """A place in pixels of the network's input, where it is an ellipse if the frame was squeezed."""

    centre: np.ndarray  # (2,), x and y
    reach: np.ndarray  # (2,), its radii, with half a feature cell

    @classmethod
    def of(cls, place: Place, region: Region, size: int, cell: Sequence[float]) -> _Disc:
        across, down = size / region.width, size / region.height
        slack = np.array((cell[1], cell[0])) / 2
        radii = np.array((place.radius, place.radius if place.down is None else place.down))
        return cls(
            np.array(region.in_input(place.x, place.y, size)),
            radii * np.array((across, down)) + slack,
        )

    def is_inside(self, size: int) -> bool:
        """Whether its middle lies in the input, from the outer edge of the first pixel to that of the last."""
        return bool(np.all(np.abs(self.centre - (size - 1) / 2) <= size / 2))


def _holds(discs: Sequence[_Disc], points: np.ndarray) -> np.ndarray:
    """Whether one of the discs holds each of the points (K, 2): bool (K,)."""
    inside = [np.square((points - disc.centre) / disc.reach).sum(1) <= 1 for disc in discs]
    return np.any(inside, axis=0)


def _grid_places(grid: int, size: int) -> np.ndarray:
    """Every place of the attention grid in pixels of the input: (g^2, 2)."""
    line = np.linspace(0, size - 1, grid)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def _enlarged(grid: np.ndarray, discs: Sequence[_Disc], size: int) -> float:
    """By how much a zoomed video enlarges the places in area, the largest of several: 1 / |Jacobian| there.

    The grid (g, g, 2) says where the result reads; the step of it that reads nearest to a place shows the place.
    """
    step = 2 / (len(grid) - 1)
    down, right = np.diff(grid, axis=0)[:, :-1] / step, np.diff(grid, axis=1)[:-1] / step
    area = np.abs(right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0])
    middle = (grid[:-1, :-1] + grid[1:, 1:]) / 2
    at = [disc.centre / (size - 1) * 2 - 1 for disc in discs]
    nearest = [np.unravel_index(np.square(middle - each).sum(-1).argmin(), area.shape) for each in at]
    return float((1 / np.maximum([area[each] for each in nearest], 1e-3)).max())
