"""VideoMAE: the same logits as transformers' own, exact class maps, and cells where its patches are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from published import videomae
from torch import Tensor

from peakzoom.inference.cost import multiply_adds, parameters
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import BACKBONES
from peakzoom.model.backbones.videomae import DEPTHS, VideoMAE
from peakzoom.utils.errors import UserError

transformers = pytest.importorskip("transformers")
WIDTH = 1 / 6


def random_network(classes: int = 5, frames: int = 4, size: int = 48, width: float = WIDTH) -> VideoMAE:
    """Weights far from those that it is made with, so that every part matters."""
    torch.manual_seed(frames + size)
    network = VideoMAE(classes, width, kind="videomae_s", frames=frames, size=size).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.25)
    return network


def clips(frames: int = 4, size: int = 48, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("frames", "size"), [(2, 16), (4, 48), (8, 32), (16, 64)])
@pytest.mark.parametrize("width", [1 / 6, 1 / 2])
def test_logits_are_those_of_transformers(frames: int, size: int, width: float) -> None:
    network = random_network(frames=frames, size=size, width=width)
    heads = round(6 * width)
    published = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(
            image_size=size,
            num_frames=frames,
            hidden_size=64 * heads,
            num_hidden_layers=12,
            num_attention_heads=heads,
            intermediate_size=256 * heads,
            num_labels=5,
        )
    ).eval()
    names = {"body.": "videomae.", "norm.": "fc_norm.", "fc.": "classifier."}
    state = {
        next(theirs + key.removeprefix(ours) for ours, theirs in names.items() if key.startswith(ours)): value
        for key, value in network.state_dict().items()
    }
    published.load_state_dict(state)
    video = clips(frames, size)
    with torch.no_grad():
        wanted = published(pixel_values=video.transpose(1, 2)).logits
        assert torch.allclose(network(video), wanted, atol=1e-5 * float(wanted.abs().max()))
    adapted = network.adapt_weights(published.state_dict())
    assert adapted.keys() == network.state_dict().keys()


def test_class_maps_are_exact() -> None:
    """Eq. 1: the mean of a class's map and its bias are its logit."""
    model = PeakZoom(random_network(), 5, branches=("original",)).eval()
    video = clips()
    with torch.no_grad():
        features = model.backbone.features(video)
        maps, _ = model.class_maps(features)
        logits = maps.mean((2, 3, 4)) + model.backbone.fc.bias
        assert torch.allclose(logits, model(video).fused, rtol=1e-4, atol=1e-4)
        assert maps.shape == (2, 5, 2, 3, 3) and maps.flatten(2).std(-1).min() > 1e-3


def test_cells_are_where_the_patches_are() -> None:
    """A patch of the input changes the first layer's token of its own cell, and of no other."""
    network = random_network()
    cells = network.cells
    tokens = []
    network.body.embeddings.register_forward_hook(lambda _, __, out: tokens.append(out))
    video = clips(batch=1)
    with torch.no_grad():
        network(video)
        for t, i, j in ((0, 0, 0), (1, 2, 1), (0, 1, 2)):
            centre = [round(o + n * s) for o, s, n in zip(cells.offset, cells.stride, (t, i, j), strict=True)]
            changed = video.clone()
            changed[:, :, centre[0], centre[1], centre[2]] += 5
            network(changed)
            moved = (tokens[-1] - tokens[0]).abs().sum(-1).view(2, 3, 3)
            assert moved.nonzero().tolist() == [[t, i, j]]


def test_three_branches_learn_and_come_back_from_disk(tmp_path: Path) -> None:
    options = {"frames": 4, "size": 48, "max_stride": 16}
    model = PeakZoom("videomae_s", 3, width=WIDTH, backbone_options=options)
    video = clips()
    model.train().loss(model(video), torch.tensor([0, 2])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(PeakZoom.from_pretrained(tmp_path)(video).fused, model(video).fused)


@pytest.mark.parametrize("kind", DEPTHS)
def test_published_names_and_shapes(kind: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[kind](400)
    heads, layers = DEPTHS[kind]
    table = {name: torch.empty(shape, device="meta") for name, shape in videomae(64 * heads, layers).items()}
    assert isinstance(network, VideoMAE)
    adapted = network.adapt_weights(table)
    assert {name: value.shape for name, value in adapted.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize(
    ("kind", "cost", "millions"), [("videomae_s", 57, 22), ("videomae_b", 180, 87), ("videomae_l", 597, 305)]
)
def test_published_cost(kind: str, cost: float, millions: float) -> None:
    """G multiply-adds of a clip and M parameters, from the paper's comparison on Kinetics-400."""
    with torch.device("meta"):
        network = BACKBONES[kind](400)
    assert multiply_adds(network, frames=16, size=224) == pytest.approx(cost, rel=5e-3)
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=1)


@pytest.mark.parametrize("options", [{"frames": 3}, {"size": 40}, {"max_stride": 8}])
def test_what_cannot_be_cut_into_patches(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="videomae_b takes an even number of frames"):
        BACKBONES["videomae_b"](3, **options)
    with pytest.raises(ValueError, match="expected"):
        random_network()(clips(2))


def test_without_transformers_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="videomae_s needs transformers, which is not installed: pip install"):
        BACKBONES["videomae_s"](3)
