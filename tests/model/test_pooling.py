"""How cells make a score: every pooling against its formula, and networks whose answers are pooled so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from peakzoom.inference.network import InferenceNetwork
from peakzoom.model import BACKBONES, PeakZoom, class_response_maps
from peakzoom.model.geometry import CellGeometry, is_backbone
from peakzoom.model.pooling import drop_channels, gather, pool_cells, quiet_loss, score
from peakzoom.video.views import Preprocess, to_input

CLASSES, SIZE, FRAMES = 4, 48, 8
POOLS = ["best:2", "peaks", "0.5*mean+0.5*best:2"]


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def peakzoom(pool: str, **options: object) -> PeakZoom:
    torch.manual_seed(0)
    preprocess = Preprocess(size=SIZE, frames=FRAMES, canvas=(SIZE, SIZE)).to_dict()
    return PeakZoom(
        "tcnn_xs",
        CLASSES,
        width=0.25,
        backbone_options={"max_stride": 8, "local": True, "pool": pool},
        preprocess=preprocess,
        **options,  # type: ignore[arg-type]
    ).eval()


# A map and its score --------------------------------------------------------------------------------------------------


def test_each_pooling_is_its_formula() -> None:
    some = maps(3, 2, 5, 4)
    cells = some.flatten(2)
    ordered = cells.sort(dim=2, descending=True).values
    expected = {
        "mean": cells.mean(2),
        "best:3": ordered[..., :3].mean(2),
        "best:1000": cells.mean(2),
        "0.25*mean + 0.75*best:1": 0.25 * cells.mean(2) + 0.75 * ordered[..., 0],
    }
    for how, values in expected.items():
        torch.testing.assert_close(pool_cells(some, how), values, msg=how)


def test_peaks_are_the_mean_of_local_maxima() -> None:
    one = torch.tensor([[0.0, 0.1, 0.0, 0.0], [0.1, 2.0, 0.1, 0.0], [0.0, 0.1, 0.0, 1.0]])
    assert pool_cells(one, "peaks") == 1.5
    twice = pool_cells(torch.stack((one, one + 1)), "peaks")
    torch.testing.assert_close(twice, torch.tensor([1.5, 2.5]))


@pytest.mark.parametrize("how", POOLS)
def test_a_score_learns_from_the_cells_that_make_it(how: str) -> None:
    some = maps(2, 3, 4, 4).requires_grad_()
    pool_cells(some, how).sum().backward()
    assert some.grad is not None
    torch.testing.assert_close(some.grad.sum((2, 3)), torch.ones(2, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["", "worst:2", "best", "best:0", "mean:3", "0.5*", "best:2+"])
def test_what_is_no_pooling_is_refused(how: str) -> None:
    with pytest.raises(ValueError, match="pooling is"):
        pool_cells(maps(2, 3, 3), how)


# The loss of cells that do not speak ----------------------------------------------------------------------------------


def test_silence_costs_least() -> None:
    bias, target = torch.zeros(CLASSES), torch.tensor([0, 1])
    silent = quiet_loss(torch.zeros(2, CLASSES, 1, 4, 4), bias, target)
    assert float(quiet_loss(maps(2, CLASSES, 1, 4, 4), bias, target)) > math.log(CLASSES)
    assert float(silent) == 0 or float(silent) == pytest.approx(math.log(CLASSES))


def test_cells_that_speak_for_the_true_class_may() -> None:
    some = torch.zeros(1, CLASSES, 1, 4, 4)
    some[0, 2, 0] = torch.arange(16.0).view(4, 4) * 1e-3  # the last four stand out
    louder = some.clone()
    louder[0, 2, 0, 3] += 5
    bias, target = torch.zeros(CLASSES), torch.tensor([2])
    assert quiet_loss(some, bias, target) == quiet_loss(louder, bias, target)
    some[0, 1, 0, 0, 0] += 5
    assert quiet_loss(some, bias, target) > quiet_loss(louder, bias, target)


# Networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", POOLS)
def test_slices_scores_are_pooled_as_the_answer_is(how: str) -> None:
    model = peakzoom(how, branches=("original",))
    video = maps(2, 3, FRAMES, SIZE, SIZE)
    with torch.no_grad():
        features = model.backbone.features(video)
        found, scores = model.class_maps(features)
        torch.testing.assert_close(found, class_response_maps(features, model.backbone.fc.weight))
        torch.testing.assert_close(model(video).fused, scores.mean(2))
        torch.testing.assert_close(model.backbone(video), scores.mean(2))


def test_means_in_two_halves_are_the_mean() -> None:
    """The way of other poolings, taken for the mean, ends where its own way does."""
    halves, whole = peakzoom("0.5*mean+0.5*mean"), peakzoom("mean")
    video = maps(2, 3, FRAMES, SIZE, SIZE)
    with torch.no_grad():
        found, expected = halves(video).logits(), whole(video).logits()
        torch.testing.assert_close(whole.backbone(video), expected["original"])
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_dropout_leaves_out_channels_of_whole_clips() -> None:
    model = peakzoom("best:2", dropout=0.5).train()
    features = torch.ones(2, model.backbone.num_features, 2, 3, 3)
    torch.manual_seed(0)
    kept = drop_channels(features, model.dropout)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept, kept[:, :, :1, :1, :1].expand_as(kept))


def test_the_engine_answers_as_the_network() -> None:
    model = peakzoom("0.5*mean+0.5*best:2")
    views = torch.randint(0, 256, (2, FRAMES, 3, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(*to_input(views, Preprocess.from_dict(model.preprocess))).logits()
        found = InferenceNetwork(model)(views)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_saved_network_pools_as_it_did(tmp_path: Path) -> None:
    model = peakzoom("peaks")
    model.save_pretrained(tmp_path)
    again = PeakZoom.from_pretrained(tmp_path).eval()
    assert again.pool == "peaks"
    video = maps(1, 3, FRAMES, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again(video).fused, model(video).fused)


class Own(nn.Module):
    """The least that is a backbone, and perhaps more."""

    cells, num_features = CellGeometry((1, 4, 4)), 8

    def __init__(self, **more: object) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv3d(3, 8, (1, 4, 4), stride=(1, 4, 4)), nn.Linear(8, CLASSES)
        for name, value in more.items():
            setattr(self, name, value)

    def features(self, video: Tensor) -> Tensor:
        return self.body(video)


def test_a_backbone_of_ones_own_is_averaged_unless_it_names_a_pooling() -> None:
    layer = {"pool": nn.AdaptiveAvgPool3d(1)}  # what many networks call their pooling layer
    for more, pool in (({}, "mean"), (layer, "mean"), ({"pool": "peaks"}, "peaks")):
        torch.manual_seed(0)
        model, video = PeakZoom(Own(**more), CLASSES).eval(), maps(1, 3, FRAMES, SIZE, SIZE)
        with torch.no_grad():
            features = model.backbone.features(video)
            logits = model(video).original
        assert torch.equal(logits, score(gather(features, pool), model.backbone.fc, pool))


def test_a_local_cell_sees_less_and_costs_less() -> None:
    def seen(local: bool) -> tuple[int, int]:
        torch.manual_seed(0)
        network = BACKBONES["tcnn_xs"](CLASSES, width=0.25, max_stride=8, local=local, motion=False).eval()
        video = maps(1, 3, FRAMES, 256, 256).requires_grad_()
        network.features(video)[0, :, 1, 16, 16].sum().backward()
        assert video.grad is not None
        touched = video.grad.abs().amax((0, 1, 2, 3)) > 0  # columns
        return int(touched.sum()), sum(each.numel() for each in network.parameters())

    local, full = seen(True), seen(False)
    assert local[0] < 0.6 * full[0] and local[1] < 0.5 * full[1]


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="some"):
        BACKBONES["tcnn_xs"](CLASSES, pool="some")


def test_a_backbone_has_all_that_the_branches_need() -> None:
    network = BACKBONES["tcnn_xs"](CLASSES, width=0.25)
    assert is_backbone(network) and not is_backbone(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="is no backbone"):
        PeakZoom(nn.Linear(2, 2), CLASSES)


@pytest.mark.parametrize("name", ["tcnn_s_local", "tcnn_xs_local"])
def test_the_local_networks_are_the_small_ones_with_what_makes_maps_mark_the_action(name: str) -> None:
    torch.manual_seed(0)
    network = BACKBONES[name](CLASSES, width=0.25, max_stride=16).eval()
    plain = BACKBONES[name.removesuffix("_local")](
        CLASSES, width=0.25, max_stride=8, local=True, pool="0.5*mean+0.5*best:2"
    ).eval()
    plain.load_state_dict(network.state_dict())
    clip = torch.randn(1, 3, 16, 96, 96)
    assert network.cells.stride == (4, 8, 8) == plain.cells.stride
    assert torch.equal(network(clip), plain(clip))


@pytest.mark.parametrize("first", [1, 3, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_quiet_loss_of_parts_of_a_batch_adds_up_to_that_of_the_batch(first: int, weighted: bool) -> None:
    some, bias = maps(5, CLASSES, 2, 4, 6), torch.randn(CLASSES)
    some[2] = 0  # all cells are alike, so none of this clip's is silent
    target = torch.arange(5) % CLASSES
    weight = torch.rand(CLASSES) + 0.1 if weighted else None
    shares = torch.ones(5) if weight is None else weight[target]
    parts = [slice(None, first), slice(first, None)]
    losses = [quiet_loss(some[part], bias, target[part], class_weight=weight) for part in parts]
    together = sum(loss * shares[part].sum() for loss, part in zip(losses, parts, strict=True)) / shares.sum()
    torch.testing.assert_close(quiet_loss(some, bias, target, class_weight=weight), together)


def test_the_quiet_loss_is_added_to_eq_8_in_training_alone() -> None:
    torch.manual_seed(0)
    model = PeakZoom("tcnn_xs_local", CLASSES, width=0.25, dropout=0.0, branches=("original",))
    clips, target = torch.randn(2, 3, 8, 32, 32), torch.tensor([0, 1])
    output = model(clips)
    maps = class_response_maps(model.backbone.features(clips), model.backbone.fc.weight)
    torch.testing.assert_close(output.maps, maps, rtol=1e-4, atol=1e-5)
    plain, quiet = model.loss(output, target), model.loss(output, target, quiet=0.5)
    torch.testing.assert_close(quiet - plain, 0.5 * quiet_loss(maps, model.backbone.fc.bias, target))
    quiet.backward()
    assert model.backbone.stem[0][0].weight.grad.abs().sum() > 0
    assert model.eval()(clips).maps is None
    assert (
        PeakZoom("tcnn_xs", CLASSES, width=0.25)(clips).maps is None
    )  # means have nothing to be quiet about
