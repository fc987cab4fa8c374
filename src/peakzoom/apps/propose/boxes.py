"""Boxes around the peaks of a class's response: where in the frame an event is, from the windows that make it.

A moment's box is around the places that are joined to the highest peak and respond at least a fifth as much as it, as
class activation maps localise (Zhou et al., Learning deep features for discriminative localization, CVPR 2016, sec.
3.2). A person corrects few boxes more readily than one a frame, so those of half a second become one, edge by edge
their median.

A file is read forward once more, however many its events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import Break
from peakzoom.apps.watch.source import Frame, Source, TimedFrame, open_source
from peakzoom.apps.watch.windows import Clip, Windows
from peakzoom.data.exchange.clock import Clock
from peakzoom.data.exchange.project import Box
from peakzoom.explanation.classes import frame_probabilities
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.respond import respond
from peakzoom.utils.errors import UserError
from peakzoom.video.clips import TIMESTAMP_ROUNDING, clip_indices
from peakzoom.video.sampling import Region
from peakzoom.video.views import crop_offsets

SHARE = 0.2  # of the highest peak
APART = 0.5  # seconds

WindowTime = tuple[float, float]  # when a window starts and ends


class Moment(NamedTuple):
    """Where a class responds in one frame of a window."""

    time: float  # seconds since the first frame of the file
    edges: np.ndarray  # float64 (4,): left, top, right, bottom in pixels of the frame as displayed
    score: float  # the class's in that frame (Eq. 1, softmax)


def network_of(recognizer: Recognizer) -> InferenceNetwork:
    """The network that responds; a UserError where there is only an exported file."""
    if isinstance(recognizer.engine, TorchEngine):
        return recognizer.engine.network
    try:
        return InferenceNetwork(recognizer.model)
    except ValueError as error:
        raise UserError(f"boxes need the network itself, or --no-boxes: {error}") from error


def look_at_windows(
    recognizer: Recognizer, file: Path, options: WatchOptions, wanted: Mapping[WindowTime, str]
) -> dict[WindowTime, list[Moment]]:
    """Where a class responds in each of some windows of a file, by when they start and end.

    Args:
        recognizer: any engine with a network.
        file: the video.
        options: those that it was watched with, which make the windows.
        wanted: the class of each window.

    Raises:
        DecodeError: the file cannot be read.
        UserError: there is no network.
    """
    network, found = network_of(recognizer), {}
    with closing(open_source(file, recognizer.preprocess.test_size)) as source:
        for clip in _clips(source, recognizer, options):
            if name := wanted.get((clip.start, clip.end)):
                label = recognizer.classes.index(name)
                found[clip.start, clip.end] = moments(network, clip, (source.height, source.width), label)
    return found


def _clips(source: Source, recognizer: Recognizer, options: WatchOptions) -> Iterator[Clip[Tensor]]:
    """The windows of a source, as :func:`peakzoom.apps.watch.watch.watch` scores them."""
    pre = recognizer.preprocess
    fps = pre.fps_for(source.rate)
    windows: Windows[Frame, Tensor] = Windows(
        *(pre.frames, pre.stride, fps, source.rate, options.every, source.convert), nth=options.nth
    )
    for item in source.items:
        if isinstance(item, TimedFrame):
            yield from windows.add(item.time, item.frame)
        elif isinstance(item, Break):
            yield from windows.end()
    yield from windows.end()


@torch.inference_mode()
def moments(
    network: InferenceNetwork, clip: Clip[Tensor], displayed: tuple[int, int], label: int
) -> list[Moment]:
    """Where a class responds in the frames of a window, as far as it does; its middle crop is looked at.

    Args:
        network: a trained one.
        clip: T frames, uint8 (H, W, 3), of the preprocessing's test size.
        displayed: height and width of the frame as displayed, in pixels.
        label: the class.
    """
    frames = torch.stack(clip.frames).permute(0, 3, 1, 2)
    height, width = frames.shape[2:]
    side = network.preprocess.source_size
    ((top, left),) = crop_offsets(height, width, side, 1)
    view = frames[None, :, :, top : top + side, left : left + side]
    count, model = network.preprocess.frames, network.model
    first = network.first_pass(view.to(next(model.parameters()).device))
    responses, peaks = respond(network, first, label)
    scores = frame_probabilities(model, first.features, count)[0, label].cpu().numpy()
    down, across = displayed[0] / height, displayed[1] / width
    region = Region(top * down, left * across, side * down, side * across)
    interval = (clip.end - clip.start) / clip.covered
    shown = clip_indices(0, clip.covered, count, network.preprocess.stride)
    one_for_all = model.config.averages
    found = []
    for frame in range(1 if one_for_all else count):
        edges = _edges(responses[0, frame].cpu().numpy(), peaks[0, frame].cpu().numpy())
        if edges is not None:
            time = clip.start + float(shown[frame]) * interval
            score = float(scores.mean() if one_for_all else scores[frame])
            found.append(Moment(time, _pixels(edges, region, network, displayed), score))
    return found


def _edges(heat: np.ndarray, peaks: np.ndarray) -> np.ndarray | None:
    """First and last row and column of the highest peak's places on the grid, int64 (4,); None where no peak is."""
    if not peaks.any():
        return None
    row, column = np.unravel_index(np.where(peaks, heat, -1).argmax(), heat.shape)
    joined, _ = ndimage.label(heat >= SHARE * heat[row, column])
    rows, columns = np.nonzero(joined == joined[row, column])
    return np.array((rows.min(), columns.min(), rows.max(), columns.max()))


def _pixels(
    edges: np.ndarray, region: Region, network: InferenceNetwork, displayed: tuple[int, int]
) -> np.ndarray:
    grid, size = network.model.config.grid, network.preprocess.size
    left, top = region.place(edges[0] - 0.5, edges[1] - 0.5, grid, size)
    right, bottom = region.place(edges[2] + 0.5, edges[3] + 0.5, grid, size)
    height, width = displayed
    return np.clip(np.array((left, top, right, bottom)) + 0.5, 0, (width, height, width, height))


def boxes_of(found: Sequence[Moment], clock: Clock, first: int, after: int) -> tuple[Box, ...]:
    """One box for each half second of some frames of a file, in the order of time; none where it is that before.

    Args:
        found: the moments of the windows of an event.
        clock: of the file.
        first: frame of the event.
        after: the frame after its last.
    """
    stretches: dict[int, list[tuple[int, Moment]]] = defaultdict(list)
    for moment in found:
        frame = int(np.searchsorted(clock.times, moment.time + TIMESTAMP_ROUNDING, side="right")) - 1
        if first <= frame < after:
            since = clock.times[frame] - clock.times[first] + TIMESTAMP_ROUNDING
            stretches[int(since / APART)].append((frame, moment))
    boxes: list[Box] = []
    for _, inside in sorted(stretches.items()):
        left, top, right, bottom = np.median([each.edges for _, each in inside], axis=0).tolist()
        score = float(np.mean([each.score for _, each in inside]))
        box = Box(min(frame for frame, _ in inside), left, top, right, bottom, score)
        if not boxes or boxes[-1][1:5] != box[1:5]:
            boxes.append(box)
    return tuple(boxes)
