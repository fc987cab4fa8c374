"""What a network saw in a whole video: class scores, response and peaks of every frame (paper, Eq. 1-5).

The answer is that of ``predict``. For the evidence the video is gone through once more, in clips that overlap by half
so that every frame lies in one, and each clip's first pass is kept: here frames 0 to 20, clips of 8 frames::

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

from peakzoom.explanation.classes import frame_probabilities, respond_to, speaking_classes
from peakzoom.explanation.evidence import ClipEvidence, Evidence, Region
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.utils.extras import needed_for
from peakzoom.utils.progress import Told, progress_bar
from peakzoom.video.clips import clip_indices, clip_span
from peakzoom.video.decode import frames_of
from peakzoom.video.guard import guards, streamed
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.scan import Scan, VideoInfo, scan
from peakzoom.video.views import Preprocess, frames_at


class Explanation(Evidence):
    """Evidence as :func:`explain` returns it: a notebook shows its prediction and its video."""

    def _repr_html_(self) -> str:
        with needed_for("the video of evidence"):
            from peakzoom.explanation.write import video_html
        return self.prediction._repr_html_() + video_html(self)


def explain(
    recognizer: Recognizer,
    file: str | Path,
    target: str | None = None,
    views: Views | None = None,
    crop: int | None = None,
    progress: bool | Told = True,
) -> Explanation:
    """Recognise a video and note what the network saw in it.

    Args:
        recognizer: a trained model; any engine computes the answer, PyTorch the evidence.
        file: a video file of any length.
        target: look for what speaks for this class; the response that the network itself zooms by when not given.
        views: the views whose scores are averaged to the answer; the paper's 30 when not given.
        crop: which crop the evidence is taken from; the one whose views score the class highest when not given.
        progress: show a bar; a function is called with (done, all) frames instead.

    Raises:
        DecodeError: the file gives no frame.
        UserError: no class is called so, there is no such crop, or there is no network but an exported file.
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
    pre, views = recognizer.preprocess, views or Views()
    with guards() as (guard,):
        decoded = decode_views(file, pre, views, guard)
        scanned = guard.run(file, scan, file)
    prediction = recognizer.score(decoded)
    given = target is not None
    target = prediction.top(1)[0][0] if target is None else target

    found = prediction.views["fused"][:, classes.index(target)].reshape(-1, len(decoded.offsets)).mean(0)
    crop = int(found.argmax()) if crop is None else crop
    if not 0 <= crop < len(decoded.offsets):
        raise UserError(
            f"crop is {crop}, expected 0 to {len(decoded.offsets) - 1}: there are {len(decoded.offsets)}"
        )
    corner = decoded.offsets[crop]

    base = frames_at(scanned.info.path, scanned.timestamps, pre.fps)
    engine = recognizer.engine
    network = engine.network if isinstance(engine, TorchEngine) else InferenceNetwork(model)
    size = pre.test_size(scanned.info.height, scanned.info.width)
    with progress_bar(f"looking at {scanned.info.path.name}", progress) as told:
        seen = [
            _see(network, view, start, classes.index(target) if given else None)
            for start, view in _clips(scanned, base, pre, size, corner, told)
        ]
    return Explanation(
        prediction,
        target,
        given,
        scanned,
        base,
        seen,
        (crop, len(decoded.offsets)),
        _region(scanned.info, size, corner, pre),
        network.model,
    )


def _starts(count: int, span: int) -> np.ndarray:
    """First frames of clips that cover ``count`` frames and overlap by half: int64, the last one ends with them."""
    last = max(count - span, 0)
    clips = 1 + math.ceil(2 * last / span)
    return np.unique(np.arange(clips) * last // max(clips - 1, 1))


def _clips(
    scanned: Scan,
    base: np.ndarray,
    pre: Preprocess,
    size: tuple[int, int],
    corner: tuple[int, int],
    told: Told,
) -> Iterator[tuple[int, Tensor]]:
    """Each clip's start and its view, uint8 (1, T, 3, s, s); no frame is kept longer than clips need it."""
    waiting = [
        (int(start), base[clip_indices(int(start), len(base), pre.frames, pre.stride)])
        for start in _starts(len(base), clip_span(pre.frames, pre.stride))
    ]
    waiting.reverse()
    wanted = np.unique(np.concatenate([frames for _, frames in waiting]))
    (top, left), side = corner, pre.source_size
    held: dict[int, Tensor] = {}
    for number, pixels in streamed(scanned.info.path, frames_of, scanned, wanted, size):
        held[number] = pixels[top : top + side, left : left + side].permute(2, 0, 1)
        while waiting and waiting[-1][1].max() <= number:
            start, frames = waiting.pop()
            yield start, torch.stack([held[each] for each in frames.tolist()])[None]
            first = min((each[1].min() for each in waiting[-1:]), default=number + 1)
            held = {each: kept for each, kept in held.items() if each >= first}
        told(number + 1, int(wanted[-1]) + 1)


@torch.inference_mode()
def _see(network: InferenceNetwork, view: Tensor, start: int, target: int | None) -> ClipEvidence:
    model, frames = network.model, network.preprocess.frames
    seen = network.look(view.to(next(model.parameters()).device))
    if target is None:
        responses, peaks = model.respond(seen.features, frames, seen.size)
        labels = speaking_classes(model, seen.features, frames, seen.size)
    else:
        responses, peaks = respond_to(model, seen.features, frames, seen.size, target)
        labels = torch.full_like(peaks, target, dtype=torch.int64)
    scores = frame_probabilities(model, seen.features, frames)
    only = slice(1) if model.config.attention_per == "clip" else slice(None)
    responses, peaks, labels = (each[0, only].cpu() for each in (responses, peaks, labels))
    return ClipEvidence(
        start,
        scores[0].float().cpu().numpy(),
        (responses * 255).round().to(torch.uint8).numpy(),
        peaks.nonzero().numpy(),
        responses[peaks].float().numpy(),
        labels[peaks].numpy(),
    )


def _region(info: VideoInfo, size: tuple[int, int], corner: tuple[int, int], pre: Preprocess) -> Region:
    (height, width), (top, left), side = size, corner, pre.source_size
    down, across = info.height / height, info.width / width
    return Region(top * down, left * across, side * down, side * across)
