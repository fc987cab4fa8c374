"""Low-rank matrices on networks of a user's own: every one that is put in learns, and its product is saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import longer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from peakzoom.data.entries import VideoSet
from peakzoom.model import CellGeometry, PeakZoom
from peakzoom.training import lora
from peakzoom.training.frames import Frames
from peakzoom.training.lora import add_lora, expect_rank, passed_by, without_lora
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.stage import build_stage, stage_run
from peakzoom.utils.errors import UserError

SIZE, CHANNELS = 16, 8
Network = Callable[[], nn.Module]


class Own(nn.Module):
    """A stem of convolutions, then tokens (B, cells, C) through a body, as cells 8 pixels apart."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, CHANNELS, (1, 8, 8), (1, 8, 8))
        self.body = body
        self.cells, self.num_features = CellGeometry((1, 1, 1)).then(8, 8), CHANNELS
        self.fc = nn.Linear(CHANNELS, 3)

    def features(self, video: Tensor) -> Tensor:
        x: Tensor = self.stem(video)
        tokens: Tensor = self.body(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(x.shape)


class Attends(nn.Module):
    """Linear layers and PyTorch's attention, which multiplies by the weights of its ``out_proj`` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(CHANNELS, 16), nn.ReLU(), nn.Linear(16, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = y + self.mlp(y)
        return out


class Convolves(nn.Module):
    """Convolutions over tokens as a picture: plain, dilated, grouped, and with a border of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.dilated = nn.ModuleDict({"proj": nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2)})
        self.grouped = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2)
        self.mirrored = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2).unflatten(2, (-1, 2))
        for layer in (self.proj, self.dilated["proj"], self.grouped, self.mirrored):
            y = y + torch.relu(layer(y))
        return y.flatten(2).transpose(1, 2)


class Ties(nn.Module):
    """A layer in two places, a weight in two layers, one that is computed, a block in two places, and a plain layer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = self.again = nn.Linear(CHANNELS, CHANNELS)
        self.one, self.other = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.other.weight = self.one.weight
        self.normed = weight_norm(nn.Linear(CHANNELS, CHANNELS))
        block = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.GELU())
        self.blocks = nn.ModuleList([block, block])
        self.plain = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.twice, self.again, self.one, self.other, self.normed, *self.blocks, self.plain):
            x = x + layer(x)
        return x


def encoder(**given: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(CHANNELS, 2, 16, 0.0, batch_first=True, **given)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


BODIES: dict[
    str, tuple[Network, set[str], set[str]]
] = {  # a body, its layers that are adapted, and those that are not
    "attention": (Attends, {"mlp.0", "mlp.2"}, {"attention.out_proj"}),
    **{
        name: (
            make,
            {f"layers.{index}.linear{number}" for index in (0, 1) for number in (1, 2)},
            {f"layers.{index}.self_attn.out_proj" for index in (0, 1)},
        )
        for name, make in {
            "encoder": encoder,
            "encoder, norm first": lambda: encoder(norm_first=True),
        }.items()
    },
    "convolutions": (Convolves, {"proj"}, {"dilated.proj", "grouped", "mirrored"}),
    "ties": (Ties, {"blocks.0.0", "plain"}, {"twice", "one", "other", "normed"}),
}


def adapted(body: nn.Module) -> PeakZoom:
    model = PeakZoom(Own(body), 3, branches=("original",), dropout=0.0)
    add_lora(model, 1)
    return model


def learn(model: PeakZoom, video: Tensor, steps: int = 3) -> None:
    model.train()
    model.backbone.eval()  # as in a training
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(model(video), torch.tensor([0, 2])).backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("name", BODIES)
def test_every_product_learns_and_is_in_what_is_saved(name: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("peft")
    make, wanted, left = BODIES[name]
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO, logger=lora.__name__):
        model = adapted(make())
    found = {key.split(".lora_")[0] for key, _ in model.backbone.named_parameters() if ".lora_" in key}
    assert found == {"stem", *(f"body.{each}" for each in wanted)}
    said = "\n".join(caplog.messages)
    assert sum(f"body.{each}" in said for each in left) == min(len(left), lora.NAMED)
    assert sum(int(message.split()[3]) for message in caplog.messages) == len(left), said
    video = torch.randn(2, 3, 4, SIZE, SIZE)
    before = without_lora(model).eval()(video).fused
    learn(model, video)
    assert passed_by(model) == []
    for key, value in model.backbone.named_parameters():
        assert (value.grad is not None and value.grad.abs().max() > 0) == value.requires_grad, key
    plain = without_lora(model)
    assert not any("lora_" in key for key in plain.state_dict())
    # As validation runs it, and a network of the saved weights that was never adapted, by PyTorch's quick way.
    fresh = PeakZoom(Own(make()), 3, branches=("original",), dropout=0.0).eval()
    fresh.load_state_dict(plain.state_dict())
    with torch.no_grad():
        after = model(video).fused
        assert torch.allclose(fresh(video).fused, after, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-2)


def test_a_layer_that_is_left_is_not_counted() -> None:
    """The sum of --lora is of the layers that it adapts: 8 x 192 of the stem, and 16 x 8 twice."""
    with pytest.raises(UserError, match=r"in place of the 1,792 of the layers"):
        expect_rank(PeakZoom(Own(Attends()), 3), 100)


class PassesBy(nn.Module):
    """One layer that is called, and one whose weights are multiplied by, as only its author can know."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.called(x) + F.linear(x, self.read.weight, self.read.bias)
        return out


def test_a_layer_that_is_passed_by_is_named(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("peft")
    video = torch.randn(2, 3, 4, SIZE, SIZE)
    model = adapted(PassesBy())
    learn(model, video, steps=1)
    assert passed_by(model) == ["body.read"]
    recipe = replace(longer(1, 1), lora=1)
    training = Training(model, recipe, recipe.tcnn, 0, None)
    for _ in range(2):
        training.on_after_backward()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "--lora: 1 layer of Own will learn nothing (body.read), as no gradient"
    )
    backbone = Own(PassesBy())
    backbone.read_weights = r"\.read$"  # type: ignore[assignment]
    model = PeakZoom(backbone, 3, branches=("original",), dropout=0.0)
    add_lora(model, 1)
    learn(model, video, steps=1)
    assert passed_by(model) == []


@pytest.mark.parametrize(
    ("change", "option"), [({"lora": 1}, "--lora"), ({"frozen_views": 1}, "--freeze"), ({}, "")]
)
def test_what_plays_no_part_is_logged(
    change: dict[str, int], option: str, clip_data: VideoSet, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if "lora" in change:
        pytest.importorskip("peft")
    recipe = replace(longer(1, 1), stochastic_depth=0.1, **change)
    recipe = replace(recipe, tcnn=replace(recipe.tcnn, layer_decay=0.5))
    parts = {"train": clip_data.entries, "val": []}
    stage = stage_run("tcnn", tmp_path, recipe, Options(), parts, Frames(recipe.preprocess))
    with caplog.at_level(logging.INFO, logger="peakzoom"):
        build_stage(stage, clip_data.classes, start=lambda model: None)
    said = [message for message in caplog.messages if "plays no part" in message]
    if option:
        assert len(said) == 2 and all(option in message for message in said)
    else:
        assert said == ["stochastic_depth 0.1 plays no part: tcnn_xs has no blocks that it leaves out"]
