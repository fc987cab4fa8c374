"""What is shown of a first pass: LayerCAM and the response against plain readings, and a square that is followed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from model import reference as ref
from scipy import ndimage
from torch import Tensor

from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.respond import follows, respond, stem_evidence
from peakzoom.model import PeakZoom
from peakzoom.model.backbones.tcnn import TCNN, Plan, Stage
from peakzoom.model.response import find_peaks, normalise
from peakzoom.video.views import Preprocess, to_input

CLASSES = 4


def lone(
    name: str | Plan, frames: int = 16, size: int = 48, max_stride: int = 32, **settings: Any
) -> PeakZoom:
    """A network of the original branch alone, with batch norms that do something."""
    torch.manual_seed(0)
    network = name if isinstance(name, str) else TCNN(CLASSES, plan=name, max_stride=max_stride)
    pre = Preprocess(frames=frames, size=size, stride=1)
    given = {"branches": ("original",), "response": "evidence", "erase": 0.15, "width": 1 / 8, **settings}
    model = PeakZoom(network, CLASSES, preprocess=pre.to_dict(), **given)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    with torch.no_grad():
        model.backbone.fc.weight.mul_(8)  # classes that differ
    return model.eval()


def views(batch: int, frames: int = 16, size: int = 48) -> Tensor:
    """Noise in which a bright square moves."""
    made = torch.randint(0, 120, (batch, frames, 3, size, size), generator=torch.Generator().manual_seed(2))
    for clip in range(batch):
        for frame in range(frames):
            left, top = 2 + 2 * frame % (size - 12), 8 + 9 * clip
            made[clip, frame, :, top : top + 9, left : left + 9] += 120
    return made.to(torch.uint8)


def layer_cam(model: PeakZoom, video: Tensor, target: int | None, step: int) -> np.ndarray:
    """(B, T, g, g) in float64, from the network as it is trained, gradient by gradient, place by place."""
    model, video = model.double(), video.double()
    backbone: Any = model.backbone
    output = backbone.stem(video)
    leaf = output.detach().requires_grad_()
    _, scores = model.class_maps(backbone.blocks(leaf))
    scores = scores.mean(2)
    rests = []
    for each in scores:
        if target is not None:
            rests.append(each[target] if model.multi_label else each[target] - each.mean())
        elif model.multi_label:
            speaks = [n for n in range(CLASSES) if each[n] >= 0 or each[n] == each.max()]
            rests.append(sum(each[n] for n in speaks))
        else:
            chance = each.detach().softmax(0)
            rests.append(sum((chance[n] - 1 / CLASSES) * each[n] for n in range(CLASSES)))
    (gradient,) = torch.autograd.grad(sum(rests), leaf)
    places = (gradient.clamp(min=0) * output).sum(1).detach().numpy()
    wide = 2 * (backbone.cells.stride[1] // 4) + 1
    ones = np.ones(places.shape[2:])
    blurred = [
        [
            ndimage.uniform_filter(each, wide, mode="constant")
            / ndimage.uniform_filter(ones, wide, mode="constant")
            for each in clip
        ]
        for clip in places
    ]
    read = max(1, step // backbone.plan.stem_stride)  # the answer reads every so many slices
    blurred = np.array(blurred)[:, ::read]
    stride = (max(step, backbone.plan.stem_stride), 4, 4)
    return ref.place_response(
        blurred, stride, (0.0, 0.0, 0.0), video.shape[2], tuple(video.shape[3:]), model.config.grid
    )


@pytest.mark.parametrize("target", [None, 2])
@pytest.mark.parametrize(
    ("name", "frames", "settings", "step"),
    [
        ("tcnn_xs_local", 16, {}, 1),
        ("tcnn_xs_local", 8, {}, 1),
        ("tcnn_xs", 13, {}, 1),
        ("tcnn_s", 8, {"attention_per": "clip"}, 1),
        ("tcnn_xs_local", 8, {"thresholds": (0.5,) * CLASSES}, 1),
        ("tcnn", 16, {}, 4),
        ("tcnn_16", 8, {}, 1),
        (Plan(8, (Stage(16, (1, 2), (2, 2)),), every_frame=True), 13, {"max_stride": 4}, 1),
        (Plan(8, (Stage(8, (0,), (1, 3)), Stage(16, (2,), (2, 1))), stem_stride=4), 16, {}, 8),
        (Plan(8, (Stage(16, (1,), (1, 2)),), local=True, stem_stride=1), 7, {}, 1),
        (Plan(8, (Stage(8, (2,)), Stage(16, (1,), (3, 2))), factored=True), 16, {}, 2),
    ],
)
def test_a_response_times_what_the_stem_gives(
    name: str | Plan, frames: int, settings: dict[str, Any], step: int, target: int | None
) -> None:
    model, clips = lone(name, frames, **settings), views(2, frames)
    network = InferenceNetwork(model)
    with torch.inference_mode():
        first = network.first_pass(clips)
        found, peaks = respond(network, first, target)
        stem = stem_evidence(network, first, target)
        assert follows(network.model)
    video, _ = to_input(clips, Preprocess.from_dict(model.preprocess))
    with torch.no_grad():
        features = model.backbone.features(video)
        maps, _ = model.class_maps(features)
        slices = model.slice_responses(features)
        if target is not None:
            slices = maps[:, target] - (0 if model.multi_label else maps.mean(1))
        cells = model.cells(slices.shape[1], frames)
        size, grid = tuple(video.shape[3:]), model.config.grid
        response = ref.place_response(slices.double().numpy(), cells.stride, cells.offset, frames, size, grid)
    expected = layer_cam(model, video, target, step)
    np.testing.assert_allclose(stem.numpy(), expected, rtol=2e-3, atol=2e-3 * expected.max())
    taken = normalise(torch.from_numpy(expected))
    taken[torch.from_numpy(np.ptp(expected, (2, 3)) <= 1e-6 * expected.max())] = (
        1.0  # frames that nothing reads
    )
    product = normalise(torch.from_numpy(response)) * taken
    np.testing.assert_allclose(found.numpy(), normalise(product.sqrt()).numpy(), atol=0.02)
    assert peaks.shape == found.shape and torch.equal(peaks, find_peaks(found)) and peaks.any((-1, -2)).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tcnn_xs", {"response": "gate"}),  # the paper's
        ("tcnn_xs", {"branches": ("original", "discriminative")}),
        ("tsm", {}),
    ],
)
def test_other_models_show_the_response_itself(name: str, settings: dict[str, Any]) -> None:
    network = InferenceNetwork(lone(name, 8, **settings))
    with torch.inference_mode():
        first = network.first_pass(views(2, 8))
        for found, wanted in zip(
            respond(network, first), network.model.respond(first.features, 8, first.size), strict=True
        ):
            assert torch.equal(found, wanted)


def test_what_is_shown_follows_a_square() -> None:
    """With kernels that all average, the last cells hardly tell one frame from another, and the stem does."""
    model = lone("tcnn_xs_local", 16, 96, erase=0.0)
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.weight.fill_(1 / module.weight[0].numel())
            elif isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.zero_()
                module.running_var.fill_(1.0)
        model.backbone.fc.weight.zero_()
        model.backbone.fc.weight[1] = 1.0
    clips = torch.zeros((1, 16, 3, 96, 96), dtype=torch.uint8)
    middles = [8 + 5 * frame for frame in range(16)]
    for frame, middle in enumerate(middles):
        clips[0, frame, :, 44:53, middle - 4 : middle + 5] = 255
    network = InferenceNetwork(model)
    with torch.inference_mode():
        first = network.first_pass(clips)
        shown, _ = respond(network, first)
        alone, _ = network.model.respond(first.features, 16, first.size)
    away = [
        np.median([abs(float(each[frame].argmax() % 31) * 95 / 30 - middles[frame]) for frame in range(16)])
        for each in (shown[0], alone[0])
    ]
    assert away[0] < 4 and away[0] < away[1] / 2, away


def test_a_clip_of_one_colour_has_no_place() -> None:
    network = InferenceNetwork(lone("tcnn_xs", 8))
    with torch.inference_mode():
        found, _ = respond(network, network.first_pass(torch.full((1, 8, 3, 48, 48), 90, dtype=torch.uint8)))
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1


def test_it_is_computed_in_half_precision_too() -> None:
    model, clips = lone("tcnn_xs", 8), views(2, 8)
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        network = InferenceNetwork(model, dtype=dtype)
        with torch.inference_mode():
            maps.append(stem_evidence(network, network.first_pass(clips)))
    assert maps[1].dtype == torch.float32
    both = np.corrcoef(*(each.flatten().numpy() for each in maps))[0, 1]
    assert both > 0.98, both


@pytest.mark.parametrize("half", [False, True])
def test_another_thread_may_predict_meanwhile(half: bool) -> None:
    """As watch does, whose evidence is made in a thread beside it: here a prediction falls between any two blocks."""
    network = InferenceNetwork(lone("tcnn_xs", 8), dtype=torch.bfloat16 if half else torch.float32)
    clips, other = views(2, 8), views(1, 8).flip(3)
    with torch.inference_mode():
        first = network.first_pass(clips)
        shown, wanted = respond(network, first), network(other)["fused"]
    beside: list[Tensor] = []
    inside = False

    @torch.inference_mode()
    def predict() -> Tensor:
        return network(other)["fused"]

    def interrupt(_module: torch.nn.Module, _given: object) -> None:
        nonlocal inside
        if not inside:
            inside = True
            beside.append(pool.submit(predict).result())
            inside = False

    parts = [network.model.backbone.stem, *network.model.backbone.blocks]  # type: ignore[union-attr, misc]
    hooks = [part.register_forward_pre_hook(interrupt) for part in parts]
    with ThreadPoolExecutor(1) as pool, torch.inference_mode():
        again = respond(network, first)
    for hook in hooks:
        hook.remove()
    assert len(beside) == len(parts) and all(torch.equal(each, wanted) for each in beside)
    assert all(torch.equal(*each) for each in zip(shown, again, strict=True))
    assert not any(each.requires_grad or each.grad is not None for each in network.parameters())


def test_clips_of_a_batch_do_not_show_in_each_other() -> None:
    """The gradient is that of a sum over clips, so each has its own, as alone."""
    network, clips = InferenceNetwork(lone("tcnn_xs_local", 8)), views(3, 8)
    with torch.inference_mode():
        together = stem_evidence(network, network.first_pass(clips))
        alone = torch.cat([stem_evidence(network, network.first_pass(each[None])) for each in clips])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * float(alone.max()))


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("classes", [1, CLASSES])
def test_clips_of_a_frame_or_two_and_a_single_class(frames: int, classes: int) -> None:
    """One class has no others to speak against: nothing is shown of it, as its response is flat."""
    pre = Preprocess(frames=frames, size=48, stride=1)
    torch.manual_seed(0)
    options = {"branches": ("original",), "response": "evidence", "width": 1 / 8}
    network = InferenceNetwork(PeakZoom("tcnn_xs", classes, preprocess=pre.to_dict(), **options))
    with torch.inference_mode():
        first = network.first_pass(views(2, frames))
        for target in (None, 0):
            found, peaks = respond(network, first, target)
            assert found.shape == peaks.shape == (2, frames, 31, 31) and found.isfinite().all()
            assert classes > 1 or not (found.any() or peaks.any())


def test_a_network_made_in_inference_mode() -> None:
    """As by somebody who loads a model and explains with it in one ``with``."""
    network, clips = InferenceNetwork(lone("tcnn_xs", 8)), views(1, 8)
    with torch.inference_mode():
        shown, _ = respond(network, network.first_pass(clips))
        made = InferenceNetwork(lone("tcnn_xs", 8))
        again, _ = respond(made, made.first_pass(clips))
    torch.testing.assert_close(again, shown, rtol=0, atol=1e-4)
