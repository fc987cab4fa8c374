"""Where a network saw what it answers, frame by frame: what is drawn and measured of a first pass (paper, Eq. 1-4).

Where a model zooms, that is the response it zooms by. The original branch alone zooms nowhere, and may say more than
Eq. 1 can. A cell of the last features has seen nearly the whole clip: where people go through the picture it responds
where they were and will be, too. The stem sees at most three frames at a time, and a motion stem the clip's mean frame.
So what is shown is the geometric mean of each frame's response and of what the answer takes from the stem there
(:func:`stem_evidence`; docs/method.md, section 7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.inference.network import FirstPass, InferenceNetwork
from peakzoom.model.backbones.tcnn import TCNN
from peakzoom.model.geometry import place_response
from peakzoom.model.network import PeakZoom
from peakzoom.model.numerics import exact
from peakzoom.model.response import evidence_weights, normalise, speaking


def respond(network: InferenceNetwork, first: FirstPass, target: int | None = None) -> tuple[Tensor, Tensor]:
    """Responses in [0, 1] and peaks on the attention grid of every frame.

    Args:
        network: a trained model's.
        first: its first pass of B clips.
        target: a class, for what speaks for it, whatever the network thinks of it; of what it predicts if not given.

    Returns:
        (B, T, g, g) float and (B, T, g, g) bool; the same in all frames where one attention serves a clip.
    """
    model, frames = network.model, network.preprocess.frames
    if not follows(model) and target is None:
        return model.respond(first.features, frames, first.size)
    with torch.no_grad(), exact(first.features):
        slices = _slices(model, first.features, target)
        where = model.cells(slices.shape[1], frames), frames, first.size, model.config.grid
        placed = place_response(slices, *where, average=model.config.averages)
        if follows(model):
            taken = normalise(stem_evidence(network, first, target))
            flat = taken.amax((-2, -1), keepdim=True) == 0  # nothing tells this frame's places apart
            placed = (normalise(placed) * torch.where(flat, 1.0, taken)).sqrt()
        responses, peaks = model.find_peaks(placed)
        return responses.expand(-1, frames, -1, -1), peaks.expand(-1, frames, -1, -1)


def follows(model: PeakZoom) -> bool:
    """Whether a model's responses are joined with the evidence of its stem: a lone T-CNN's, but not Eq. 3's."""
    return not model.zooms and model.config.response == "evidence" and isinstance(model.backbone, TCNN)


def _slices(model: PeakZoom, features: Tensor, target: int | None) -> Tensor:
    """(B, T', h, w): the response, or what speaks for one class."""
    if target is None:
        return model.slice_responses(features)
    maps, _ = model.class_maps(features)
    # The mean map says nothing of one class against the others (see evidence_map); Eq. 1 leaves it in. With a
    # sigmoid a class has no others.
    against = model.config.response == "evidence" and not model.multi_label
    return maps[:, target] - (maps.mean(1) if against else 0)


def stem_evidence(network: InferenceNetwork, first: FirstPass, target: int | None = None) -> Tensor:
    """What the answer takes from each place of the stem's output, frame by frame: (B, T, g, g), 0 or more.

    LayerCAM (Jiang et al., IEEE TIP 2021, Eq. 5-7): the sum over channels of the output times its gradient where that
    is positive. The gradient is that of the classes' scores, each as :func:`~peakzoom.model.response.evidence_map`
    weighs it. Single pixels are noise, so each place has the mean over as far as the next feature cell on either side.

    Arguments as of :func:`respond`, of a network whose backbone is a T-CNN.
    """
    model, frames = network.model, network.preprocess.frames
    backbone: Any = model.backbone
    output, gradient = _stem_gradient(network, first, target)
    with torch.no_grad(), exact(output):
        places = (output * gradient.clamp(min=0)).sum(1)  # (B, T', h, w)
        stem = backbone.stem_cells
        stem = replace(stem, stride=(max(stem.stride[0], network.step), *stem.stride[1:]))
        around = [wide // fine for wide, fine in zip(backbone.cells.stride[1:], stem.stride[1:], strict=True)]
        window = [2 * each + 1 for each in around]
        places = F.avg_pool2d(places, window, 1, around, count_include_pad=False)
        return place_response(places, stem, frames, first.size, model.config.grid)


def _stem_gradient(network: InferenceNetwork, first: FirstPass, target: int | None) -> tuple[Tensor, Tensor]:
    """The stem's output (B, K, T', h, w), and the gradient of what the answer rests on; both float32.

    The network's parts are called one after the other. A hook would be in the way of other threads, which may predict
    with the same network meanwhile, as ``watch`` does while it records evidence.
    """
    backbone: Any = network.model.backbone
    with torch.inference_mode(False), torch.enable_grad():
        output = network.compute(backbone.stem_features, first.video.clone()).detach().requires_grad_()
        _, scores = network.model.class_maps(network.compute(backbone.blocks, output))
        rests = _rests_on(network.model, scores.mean(2), target)
        (gradient,) = torch.autograd.grad(rests, output)
    return output.detach(), gradient


def _rests_on(model: PeakZoom, scores: Tensor, target: int | None) -> Tensor:
    """Of a batch's scores (B, S), the sum that evidence is of: of a class, or of all by how probable they are."""
    if target is not None:
        others = 0 if model.multi_label else scores.mean(1)
        return (scores[:, target] - others).sum()
    weights = speaking(scores[..., None])[..., 0] if model.multi_label else evidence_weights(scores)
    return (weights.detach() * scores).sum()
