"""What a network saw in a whole video: class scores, response and peaks of every frame (paper, Eq. 1-5).

The prediction is that of ``predict``. For the evidence the network goes through the video once more, in clips that
overlap by half so that every frame lies in one, and each clip's first pass is kept: here frames 0 to 20, clips of 8
frames::

    frame     0 1 2 3 4 5 6 7 8 9 ...                20
    clips     |------0------|
                      |------1------|
                                  |------2------|          and so on; the last one ends with the video
    shown     0 0 0 0 0 0 1 1 1 1 1 1 2 2 2 ...            by the clip whose middle is nearest

A frame's class scores are the mean over the clips that it lies in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peakzoom.explanation.classes import frame_probabilities, speaking_classes
from peakzoom.explanation.evidence import ClipEvidence, Evidence
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.inference.respond import respond
from peakzoom.model.response import find_peaks
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for
from peakzoom.utils.progress import Progress, progress_bar
from peakzoom.video.clips import clip_indices, clip_span
from peakzoom.video.held import HeldVideo
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess, frames_at


class Explanation(Evidence):
    """Evidence as :func:`explain` returns it: a notebook shows its prediction and its video."""

    def _repr_html_(self) -> str:
        with needed_for("the video of evidence"):
            from peakzoom.explanation.write import video_html
        return self.prediction._repr_html_() + video_html(self)


def explain(
    recognizer: Recognizer,
    file: str | Path | HeldVideo,
    target: str | None = None,
    views: Views | None = None,
    crop: int | None = None,
    progress: bool | Progress = True,
    prediction: Prediction | None = None,
) -> Explanation:
    """Recognise a video and note what the network saw in it.

    Args:
        recognizer: a trained model; any engine computes the prediction, PyTorch the evidence.
        file: a video file of any length. One that is held (:mod:`peakzoom.video.held`) is not decoded again.
        target: look for what speaks for this class; the response that the network itself zooms by when not given.
        views: the views whose scores are averaged to the prediction, see :meth:`Recognizer.choose_views`.
        crop: which crop the evidence is taken from; the one whose views score the class highest when not given.
        progress: show a bar; a function is called with (done, all) frames instead.
        prediction: that of these views, where it is known already.

    Raises:
        DecodeError: the file gives no frame.
        UserError: no class is called so, there is no such crop, there is no network but an exported file, or the
            recognizer exits early.
    """
    classes = recognizer.classes
    if target is not None and target not in classes:
        raise UserError(f"no class is called {target!r}, expected one of {', '.join(classes)}")
    try:
        model = recognizer.model
    except ValueError as error:
        raise UserError(f"evidence needs the network itself: {error}") from error
    if recognizer.early_exit is not None:
        raise UserError("evidence needs every view, and this model exits early: load it without cascade")
    pre, engine, chosen = recognizer.preprocess, recognizer.engine, recognizer.choose_views(views)
    network = engine.network if isinstance(engine, TorchEngine) else InferenceNetwork(model)
    with file if isinstance(file, HeldVideo) else HeldVideo(file) as video:
        decoded = video.views(pre, chosen)
        prediction = prediction or recognizer.score(decoded)
        shown = target or prediction.name or prediction.top(1)[0][0]
        offsets = decoded.offsets
        if crop is None:
            scores = prediction.views["fused"][:, classes.index(shown)]
            crop = int(scores.reshape(-1, len(offsets)).mean(0).argmax())
        if not 0 <= crop < len(offsets):
            raise UserError(f"crop is {crop}, expected 0 to {len(offsets) - 1}: there are {len(offsets)}")
        base = frames_at(video.path, video.scan.timestamps, pre.fps_for(video.scan.info.fps))
        with progress_bar(f"looking at {video.path.name}", progress) as report:
            clips = [
                _see(network, view, start, None if target is None else classes.index(target))
                for start, view in _clips(video, base, pre, offsets[crop], report)
            ]
    region = decoded.region(crop)
    place = (crop, len(offsets))
    return Explanation(
        prediction, shown, target is not None, video, base, clips, place, region, network.model
    )


def _starts(count: int, span: int) -> np.ndarray:
    """First frames of clips that cover ``count`` frames and overlap by half: int64, the last one ends with them."""
    last = max(count - span, 0)
    clips = 1 + math.ceil(2 * last / span)
    return np.unique(np.arange(clips) * last // max(clips - 1, 1))


def _clips(
    video: HeldVideo, base: np.ndarray, pre: Preprocess, corner: tuple[int, int], report: Progress
) -> Iterator[tuple[int, Tensor]]:
    """Each clip's start and its view, uint8 (1, T, 3, s, s); no frame is kept longer than clips need it."""
    size = pre.test_size(video.scan.info.height, video.scan.info.width)
    waiting = [
        (int(start), base[clip_indices(int(start), len(base), pre.frames, pre.stride)])
        for start in _starts(len(base), clip_span(pre.frames, pre.stride))
    ]
    waiting.reverse()
    wanted = np.unique(np.concatenate([frames for _, frames in waiting]))
    (top, left), side = corner, pre.source_size
    held: dict[int, Tensor] = {}
    for number, pixels in video.frames(wanted, size):
        held[number] = pixels[top : top + side, left : left + side].permute(2, 0, 1)
        while waiting and waiting[-1][1].max() <= number:
            start, frames = waiting.pop()
            yield start, torch.stack([held[each] for each in frames.tolist()])[None]
            first = min((each[1].min() for each in waiting[-1:]), default=number + 1)
            held = {each: kept for each, kept in held.items() if each >= first}
        report(number + 1, int(wanted[-1]) + 1)


@torch.inference_mode()
def _see(network: InferenceNetwork, view: Tensor, start: int, target: int | None) -> ClipEvidence:
    model, frames = network.model, network.preprocess.frames
    first = network.first_pass(view.to(next(model.parameters()).device))
    responses, peaks = respond(network, first, target)
    if target is None:
        labels = speaking_classes(model, first.features, frames, first.size)
    else:
        labels = torch.full_like(peaks, target, dtype=torch.int64)
    scores = frame_probabilities(model, first.features, frames)
    # A further peak's response is lowered, below what is around it.
    further = peaks & ~find_peaks(responses)
    only = slice(1) if model.config.averages else slice(None)
    responses, peaks, labels, further = (each[0, only].cpu() for each in (responses, peaks, labels, further))
    return ClipEvidence(
        start,
        scores[0].float().cpu().numpy(),
        (responses * 255).round().to(torch.uint8).numpy(),
        peaks.nonzero().numpy(),
        responses[peaks].float().numpy(),
        labels[peaks].numpy(),
        further[peaks].numpy(),
    )
