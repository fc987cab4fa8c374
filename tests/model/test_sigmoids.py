"""A network whose clips may be of several classes: responses, loss and configuration, against plain loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from peakzoom.explanation.classes import frame_probabilities, speaking_classes, speaking_shares
from peakzoom.inference.engines.base import Description
from peakzoom.inference.network import InferenceNetwork
from peakzoom.model import PeakZoom
from peakzoom.model.losses import several_labels_loss
from peakzoom.model.response import class_probabilities, several_classes_map, speaking
from peakzoom.utils.errors import UserError
from peakzoom.video.views import Preprocess


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def network(response: str = "evidence", **settings: object) -> PeakZoom:
    torch.manual_seed(0)
    made = {"width": 0.125, "response": response, "thresholds": (0.2, 0.5, 0.9), **settings}
    return PeakZoom("tcnn_xs", 3, **made).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("shift", [-6.0, 0.0, 6.0])  # no class speaks, some do, all do
def test_the_classes_that_speak(classes: int, shift: float) -> None:
    scores = draw(3, classes, 4, seed=classes) + shift
    found = speaking(scores)
    for clip in range(3):
        for time in range(4):
            each = scores[clip, :, time].tolist()
            wanted = [sigmoid(value) >= 0.5 for value in each]
            if not any(wanted):
                wanted = [value == max(each) for value in each]
            assert found[clip, :, time].tolist() == wanted


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("response", ["gate", "evidence"])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_response_of_several_classes(classes: int, response: str, bias: bool) -> None:
    maps, scores, offset = (
        draw(2, classes, 3, 4, 5, seed=1),
        draw(2, classes, 3, seed=2),
        draw(classes, seed=3),
    )
    found = several_classes_map(maps, scores, offset if bias else None, response)
    on = speaking(scores)
    for index in np.ndindex(2, 3, 4, 5):
        clip, time, row, column = index
        total = 0.0
        for name in range(classes):
            here = maps[clip, name, time, row, column].item()
            if response == "gate":
                total += here if on[clip, name, time] else 0.0
            else:
                of_place = sigmoid(here + (offset[name].item() if bias else 0.0))
                total += sigmoid(scores[clip, name, time].item()) * of_place
        assert found[index].item() == pytest.approx(total, abs=1e-5)


def test_a_class_that_denies_a_place_takes_nothing_from_it() -> None:
    """Two classes speak, each in one cell and denying the other: both cells are as high as if each were alone."""
    maps = torch.full((1, 2, 1, 1, 3), -6.0)
    maps[0, 0, 0, 0, 0] = maps[0, 1, 0, 0, 2] = 6.0
    scores = torch.tensor([[[4.0], [4.0]]])
    both = several_classes_map(maps, scores, None, "evidence")[0, 0, 0]
    assert both[0] == pytest.approx(both[2].item()) and both[0] > 100 * both[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_binary_cross_entropy_of_each_class(smoothing: float, weighted: bool) -> None:
    logits = draw(4, 3, seed=5)
    target = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]])
    weight = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    found = several_labels_loss(logits, target, smoothing, weight)
    total = 0.0
    for row, labels in zip(logits.tolist(), target.tolist(), strict=True):
        for place, (value, label) in enumerate(zip(row, labels, strict=True)):
            soft, p = label * (1 - smoothing) + smoothing / 2, sigmoid(value)
            positive = 1.0 if weight is None else weight[place].item()
            total -= positive * soft * math.log(p) + (1 - soft) * math.log(1 - p)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)
    if not smoothing and not weighted:
        probabilities = logits.double().sigmoid().numpy()
        each = [log_loss(target[:, at], probabilities[:, at], labels=[0, 1]) for at in range(3)]
        assert found.item() == pytest.approx(sum(each), rel=1e-5)


def test_its_gradient_is_that_of_a_softmax() -> None:
    """p - t for each logit, so that learning rates keep their meaning."""
    logits = draw(2, 4).requires_grad_()
    target = torch.tensor([[0.0, 1, 0, 0], [1, 0, 1, 0]])
    (found,) = torch.autograd.grad(several_labels_loss(logits, target), logits)
    assert torch.allclose(found, (logits.sigmoid() - target) / 2, atol=1e-6)


@pytest.mark.parametrize("branches", [("original",), ("original", "discriminative", "complementary")])
@pytest.mark.parametrize("response", ["gate", "evidence"])
def test_the_loss_of_a_network_is_that_of_all_its_branches(response: str, branches: tuple[str, ...]) -> None:
    model = network(response, branches=branches).train()
    output = model(draw(2, 3, 8, 32, 32))
    target = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    each = [
        several_labels_loss(value, target)
        for name, value in output.logits().items()
        if name != "fused" or len(branches) > 1
    ]
    found = model.loss(output, target, quiet=1.0)
    assert found.item() == pytest.approx(sum(each).item(), rel=1e-6)  # type: ignore[union-attr]
    found.backward()
    assert all(value.grad is not None for value in model.backbone.parameters())


def test_the_network_of_inference_is_the_same() -> None:
    pre = Preprocess(size=32, frames=8, canvas=(36, 36))
    for response in ("gate", "evidence"):
        model = network(response, preprocess=pre.to_dict())
        views = torch.randint(
            0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        from peakzoom.video.views import to_input

        expected = model(*to_input(views, pre)).logits()
        found = InferenceNetwork(model)(views)
        for name, logits in expected.items():
            assert torch.allclose(found[name], logits, atol=2e-4), name


def test_what_explanations_ask() -> None:
    model = network()
    features = model.backbone.features(draw(2, 3, 8, 32, 32))
    maps, scores = model.class_maps(features)
    chances = frame_probabilities(model, features, 8)
    assert chances.shape == (2, 3, 8) and not torch.allclose(chances.sum(1), torch.ones(()))
    assert torch.allclose(chances.mean(2), scores.sigmoid().mean(2), atol=0.2)
    labels = speaking_classes(model, features, 8, (32, 32))
    on = speaking(scores)
    for clip in range(2):
        assert set(labels[clip].unique().tolist()) <= set(on[clip].any(1).nonzero().flatten().tolist())
    shares = speaking_shares(maps, scores, model.backbone.fc.bias)
    silent = ~on[..., None, None].expand_as(maps)
    assert torch.isinf(shares[silent]).all() and torch.isfinite(shares[~silent]).all()


def test_probabilities() -> None:
    logits = draw(5, 4)
    assert torch.equal(class_probabilities(logits, False), logits.softmax(1))
    assert torch.equal(class_probabilities(logits, True), logits.sigmoid())


def test_thresholds_are_kept_with_the_model(tmp_path: Path) -> None:
    model = network()
    assert model.multi_label
    model.set_thresholds([0.1, 0.25, 0.5])
    model.save_pretrained(tmp_path / "several")
    again = PeakZoom.from_pretrained(tmp_path / "several")
    assert again.config.thresholds == (0.1, 0.25, 0.5) and again.config == model.config
    plain = network(thresholds=None)
    plain.save_pretrained(tmp_path / "one")
    assert "thresholds" not in json.loads((tmp_path / "one" / "config.json").read_text())
    assert not PeakZoom.from_pretrained(tmp_path / "one").multi_label


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ((0.5, 0.5), "2 thresholds for 3 classes"),
        ((0.5, 0.5, 1.5), "thresholds is .*expected a list of numbers from 0 to 1"),
        ((0.5, 0.5, float("nan")), "expected a list of numbers from 0 to 1"),
        ((), "expected a list of numbers from 0 to 1"),
        ("0.5", "expected a list of numbers from 0 to 1"),
        ((0.5, 0.5, True), "expected a list of numbers from 0 to 1"),
    ],
)
def test_thresholds_that_cannot_be(thresholds: object, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        network(thresholds=thresholds)


def test_exported_files_have_them() -> None:
    pre = Preprocess(size=32, frames=8, canvas=(36, 36))
    for thresholds in ((0.2, 0.5, 0.9), None):
        about = Description.of(network(thresholds=thresholds, preprocess=pre.to_dict()))
        assert about.thresholds == thresholds and ("thresholds" in about.to_json()) == (
            thresholds is not None
        )
        assert Description.from_json(about.to_json(), "file") == about
    harmed = json.loads(Description.of(network(preprocess=pre.to_dict())).to_json())
    for wrong in ([0.5], "x", [0.5, 2.0, 0.5]):
        with pytest.raises(UserError, match="expected a file that 'peakzoom export' wrote"):
            Description.from_json(json.dumps({**harmed, "thresholds": wrong}), "file")
