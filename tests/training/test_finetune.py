"""Fine-tuning: depth-wise rates, accumulation, averages, frozen networks, low-rank matrices, changes of a batch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import longer
from torch import Tensor, nn
from torch.nn import functional as F

from peakzoom.data import loading
from peakzoom.data.entries import VideoSet
from peakzoom.data.runs import read_metrics
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import load
from peakzoom.model import BACKBONES, CellGeometry, PeakZoom
from peakzoom.model.backbones import TORCHVISION, TRANSFORMERS, options_for
from peakzoom.model.losses import distillation
from peakzoom.training.batch_augment import BatchChanges, told_changes
from peakzoom.training.folder import save_stage
from peakzoom.training.lora import add_lora, expect_rank, without_lora
from peakzoom.training.module import Training
from peakzoom.training.optimizer import blocks, make_optimizer
from peakzoom.training.options import Options
from peakzoom.training.recipes import CHANGES, BatchAugment, Recipe, StageSettings, finetune, paper, small
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.video.views import to_input

pytestmark = pytest.mark.usefixtures("no_curves")

Said = Callable[[], list[str]]
PLAIN = Options(val_fraction=0.2, workers=0, accelerator="cpu", progress=False)
TCNN = replace(PLAIN, steps=("tcnn",))


@pytest.fixture(scope="module")
def start(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from."""
    return train(clip_data, longer(2, 1), tmp_path_factory.mktemp("start") / "run", TCNN)


def saved(run: Path, stage: str = "tcnn", which: str = "last") -> dict[str, Tensor]:
    return load_file(run / stage / which / "model.safetensors")


# Rates by depth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*BACKBONES} - TORCHVISION))
def test_blocks_are_all_of_a_backbone_once_and_in_order(name: str) -> None:
    """The first block is the one that sees the clip, the last one the one that the classifier reads."""
    if name in TRANSFORMERS:
        pytest.importorskip("transformers")
    with torch.device("meta"):
        network = BACKBONES[name](4, **options_for(name, 32, 16, 224))
    found = blocks(network)
    names = {id(value): key for key, value in network.named_parameters()}
    listed = [names[id(value)] for block in found for value in block]
    assert sorted([*listed, "fc.weight", "fc.bias"]) == sorted(names.values())
    assert len(found) >= (5 if name == "c3d" else 8)
    first, last = ({names[id(value)] for value in block} for block in (found[0], found[-1]))
    order = [key for key in names.values() if not key.startswith("fc.")]
    assert order[0] in first and order[-1] in last


@pytest.mark.parametrize("decay", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_block_learns_more_slowly_than_the_next(decay: float, kind: str) -> None:
    model = PeakZoom("tsn", 3, width=0.125)
    settings = StageSettings(1, kind, 1e-2, 1e-5, weight_decay=0.05, layer_decay=decay)
    optimizer = make_optimizer(model, settings)
    rate = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    found = blocks(model.backbone)
    assert len(found) > 12  # so the first block has the rate of a network with twelve
    for depth, block in enumerate(found):
        wanted = 1e-2 * decay ** (12 * (1 - depth / len(found)))
        assert [rate[id(value)] for value in block] == pytest.approx([wanted] * len(block))
    for part in (model.backbone.fc, model.heads, model.fc_fused, model.attention):
        assert {rate[id(value)] for value in part.parameters()} == {1e-2}
    if kind == "adamw":  # kernels alone are decayed, at every depth
        for group in optimizer.param_groups:
            assert {value.dim() > 1 for value in group["params"]} == {group["weight_decay"] > 0}


# Steps of several batches, and averages ----------------------------------------------------------------------------


def plain(recipe: Recipe) -> Recipe:
    """Nothing random but the crops, and no mean over a batch but that of the loss."""
    still = replace(recipe.tcnn, frozen_norms=True, warmup=0.0)
    return replace(recipe, dropout=0.0, class_balance=0.0, tcnn=still)


def test_two_batches_make_the_step_of_one_as_large(clip_data: VideoSet, start: Path, tmp_path: Path) -> None:
    options = replace(TCNN, val_fraction=0.0, init=str(start))
    recipe = plain(longer(2, 1))
    whole = train(clip_data, replace(recipe, batch_size=6), tmp_path / "whole", options)
    parts = train(clip_data, replace(recipe, batch_size=3, accumulate=2), tmp_path / "parts", options)
    other = train(clip_data, replace(recipe, batch_size=3), tmp_path / "other", options)
    one, two, three = saved(whole), saved(parts), saved(other)
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=2e-5), name
    assert any(not torch.allclose(three[name], value, atol=1e-4) for name, value in one.items())


def test_the_last_step_of_an_epoch_counts_as_much_with_fewer_batches(
    clip_data: VideoSet, start: Path, tmp_path: Path
) -> None:
    """18 videos: batches of 12 and 6, or two of 6 and one; SGD, whose step is as long as the gradient."""
    options = replace(TCNN, val_fraction=0.0, init=str(start))
    recipe = plain(longer(2, 1))
    recipe = replace(recipe, tcnn=replace(recipe.tcnn, optimizer="sgd", lr=0.05, clip_gradient=None))
    whole = train(clip_data, replace(recipe, batch_size=12), tmp_path / "whole", options)
    parts = train(clip_data, replace(recipe, batch_size=6, accumulate=2), tmp_path / "parts", options)
    one, two = saved(whole), saved(parts)
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=2e-5), name


@pytest.mark.parametrize("steps", [1, 4])
def test_every_batch_of_a_step_draws_its_own(
    clip_data: VideoSet, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    run = Training._run

    def noting(self: Training, batch: loading.Batch, part: Any = None) -> Any:
        if self.training:
            seen.append(torch.rand(2))
        return run(self, batch, part)

    monkeypatch.setattr(Training, "_run", noting)
    recipe = replace(longer(1, 1), batch_size=3, accumulate=steps)
    train(clip_data, recipe, tmp_path / "run", replace(TCNN, val_fraction=0.0))
    assert len({tuple(draw.tolist()) for draw in seen}) == len(seen) == 6


def test_an_average_is_that_of_the_steps(
    clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a plain second reading: the weights after every step, averaged here."""
    passed: list[dict[str, Tensor]] = []
    ended = Training.on_train_batch_end if hasattr(Training, "on_train_batch_end") else None

    def noting(self: Training, *arguments: Any) -> None:
        passed.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
        if ended:
            ended(self, *arguments)

    monkeypatch.setattr(Training, "on_train_batch_end", noting)
    recipe = replace(longer(3, 1), average=0.6)
    run = train(clip_data, recipe, tmp_path / "run", replace(TCNN, val_fraction=0.0))
    mean = passed[0]
    for n, weights in enumerate(passed[1:], 1):
        decay = min(0.6, (1 + n) / (10 + n))
        mean = {
            name: decay * mean[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in weights.items()
        }
    for which in ("last", "best"):
        found = saved(run, which=which)
        for name, value in mean.items():
            assert torch.allclose(found[name], value, atol=1e-6), name
    assert any(not torch.allclose(found[name], passed[-1][name], atol=1e-5) for name in mean)


ALSO: dict[str, dict[str, Any]] = {
    "average": {"average": 0.9},
    "frozen": {"frozen_views": 2},
    "lora": {"lora": 2},
    "strong": {"batch_augment": BatchAugment(1, 9, 0.5, 0.8, 1.0), "accumulate": 2, "distill": 0.5},
}


@contextmanager
def stopped_in(epoch: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The training in the block ends at the second batch of an epoch."""
    begin = Training.on_train_batch_start

    def stopping(self: Training, batch: loading.Batch, batch_idx: int) -> None:
        if self.current_epoch == epoch and batch_idx == 1:
            raise RuntimeError("stopped by the test")
        begin(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_batch_start", stopping)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            yield


@pytest.mark.parametrize("what", sorted(ALSO))
@pytest.mark.parametrize("stage", ["tcnn", pytest.param("joint", marks=pytest.mark.slow)])
def test_a_stopped_training_ends_bit_for_bit_as_the_one_never_stopped(
    clip_data: VideoSet, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stage: str
) -> None:
    options = replace(PLAIN, init=str(start), steps=(stage,))
    recipe = replace(longer(3, 3), **ALSO[what])
    recipe = recipe if stage == "joint" else replace(recipe, distill=0.0)  # which stage 1 by itself refuses
    unbroken = train(clip_data, recipe, tmp_path / "unbroken", options)
    with stopped_in(2, monkeypatch):
        train(clip_data, recipe, tmp_path / "run", options)
    resumed = train(clip_data, recipe, tmp_path / "run", options, resume=True)
    assert read_metrics(resumed / stage / "metrics.csv") == read_metrics(unbroken / stage / "metrics.csv")
    for which in ("best", "last"):
        one, other = saved(resumed, stage, which), saved(unbroken, stage, which)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (resumed / "features").exists()
    with pytest.raises(UserError, match="begun with another recipe"):
        train(clip_data, longer(3, 3), resumed, options, resume=True)


def test_gradients_from_checkpoints_are_the_same(clip_data: VideoSet, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    recipe = replace(
        longer(1, 1), model="videomae_s", width=1 / 6, preprocess=replace(longer(1, 1).preprocess, frames=4)
    )
    options = replace(TCNN, init="none", val_fraction=0.0)
    runs = [
        train(clip_data, replace(recipe, checkpoint=often), tmp_path / f"{often}", options)
        for often in (False, True)
    ]
    one, other = map(saved, runs)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    with pytest.raises(UserError, match="checkpoint"):
        train(clip_data, replace(longer(1, 1), checkpoint=True), tmp_path / "none", TCNN)


# A network that keeps its weights ----------------------------------------------------------------------------------


def test_a_frozen_network_keeps_its_weights_and_its_classifier_learns_from_its_features(
    clip_data: VideoSet, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are those that the network gives to the views of those epochs, computed here once more."""
    looked: list[tuple[Tensor, Tensor]] = []
    run = Training._run
    from peakzoom.training.frozen import FeatureTraining

    own = FeatureTraining._run

    def noting(self: FeatureTraining, batch: loading.Batch, part: Any = None) -> Any:
        if self.training:
            looked.append((batch.views.clone(), batch.labels.clone()))
        return own(self, batch, part)

    recipe = replace(longer(4, 1), frozen_views=2)
    options = replace(TCNN, val_fraction=0.0, init=str(start))
    with monkeypatch.context() as patch:
        patch.setattr(FeatureTraining, "_run", noting)
        frozen = train(clip_data, recipe, tmp_path / "frozen", options)

    seen: list[tuple[Tensor, Tensor]] = []

    def watching(self: Training, batch: loading.Batch, part: Any = None) -> Any:
        if self.training:
            video, _ = to_input(batch.views, self.recipe.preprocess)
            was = self.model.training
            self.model.eval()
            with torch.no_grad():
                seen.append((self.model.gather(self.model.backbone.features(video)), batch.labels.clone()))
            self.model.train(was)
            self.on_train_epoch_start()  # its norms stay as they were
        return run(self, batch, part)

    with monkeypatch.context() as patch:  # the same views, by a training whose weights do not change
        patch.setattr(Training, "_run", watching)
        still = replace(longer(2, 1).tcnn, lr=1e-30, final_lr=1e-30, frozen_norms=True)
        train(clip_data, replace(longer(2, 1), tcnn=still), tmp_path / "still", options)

    for epoch in range(4):  # three batches of 18 videos an epoch; epoch 2 looks at what epoch 0 looked at
        one, own = (torch.cat(each) for each in zip(*looked[3 * epoch :][:3], strict=True))
        two, its = (torch.cat(each) for each in zip(*seen[3 * (epoch % 2) :][:3], strict=True))
        nearest = torch.cdist(one, two).argmin(1)
        assert sorted(nearest.tolist()) == list(range(18))
        assert torch.allclose(one, two[nearest], atol=1e-5) and torch.equal(own, its[nearest])

    before, after = saved(start, which="best"), saved(frozen)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"backbone.fc.weight", "backbone.fc.bias"}


def test_frozen_with_three_branches_learns_classifiers_and_betas(
    clip_data: VideoSet, start: Path, tmp_path: Path
) -> None:
    recipe = replace(longer(2, 2), frozen_views=1)
    run = train(clip_data, recipe, tmp_path / "run", replace(PLAIN, init=str(start)))
    before, after = saved(run, "tcnn", "best"), saved(run, "joint")
    for name, value in after.items():
        if name.startswith("backbone."):
            assert torch.equal(value, before[name]) == (not name.startswith("backbone.fc.")), name
    first = PeakZoom("tcnn_xs", 3, width=0.25)
    for name in ("beta_dis", "beta_com"):
        assert after[f"attention.{name}"] != getattr(first.attention, name)
    weight = before["backbone.fc.weight"]
    for name in ("heads.discriminative.weight", "heads.complementary.weight"):
        assert not torch.equal(after[name], weight)
    assert load(run).predict_files(clip_data.entries[0].path)


def test_a_broken_file_is_listed_and_left_out_of_the_features(
    clip_data: VideoSet, start: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    entry = replace(next(each for each in clip_data.entries if each.split == "train"), path=broken)
    data = replace(clip_data, entries=[*clip_data.entries, entry])
    recipe = replace(longer(1, 1), frozen_views=1)
    for cache in ("on", "off"):
        options = replace(TCNN, val_fraction=0.0, init=str(start), cache=cache)
        run = train(data, recipe, tmp_path / cache, options)
        assert "broken.mp4" in (run / "problems.csv").read_text()
        assert saved(run)


@pytest.mark.parametrize("epoch", [0, 1])
def test_features_are_of_the_weights_that_are_there(
    clip_data: VideoSet, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """Weights replaced between a kill and --resume: features anew before the first epoch's end, refused after it."""
    init = Path(shutil.copytree(start, tmp_path / "start"))
    options, recipe = replace(TCNN, val_fraction=0.0, init=str(init)), replace(longer(3, 1), frozen_views=1)
    with stopped_in(epoch, monkeypatch):
        train(clip_data, recipe, tmp_path / "run", options)
    file = init / "tcnn" / "best" / "model.safetensors"
    other = {
        name: value * 1.1 if value.is_floating_point() else value for name, value in load_file(file).items()
    }
    save_file(other, file)
    if epoch:
        with pytest.raises(UserError, match="started from have changed: put back"):
            train(clip_data, recipe, tmp_path / "run", options, resume=True)
        return
    run = train(clip_data, recipe, tmp_path / "run", options, resume=True)
    fresh = train(clip_data, recipe, tmp_path / "fresh", options)
    one, two = saved(run), saved(fresh)
    assert all(torch.equal(one[name], two[name]) for name in one)


class Pools(nn.Module):
    """A network that has nothing to learn but its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.num_features, self.fc = CellGeometry((1, 1, 1)).then(8, 8), 3, nn.Linear(3, 4)

    def features(self, video: Tensor) -> Tensor:
        return F.avg_pool3d(video, (1, 8, 8))


def test_a_network_without_layers() -> None:
    """It has rates by depth all the same, and nothing for low-rank matrices."""
    model = PeakZoom(Pools(), 4)
    assert blocks(model.backbone) == []
    optimizer = make_optimizer(model, replace(finetune().tcnn, layer_decay=0.5))
    assert {group["lr"] for group in optimizer.param_groups} == {finetune().tcnn.lr}
    with pytest.raises(UserError, match="has no layer that --lora can adapt"):
        expect_rank(model, 2)


# Low-rank matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [("tcnn_xs", 32), ("tsn", 32), ("i3d", 64), ("videomae_s", 32), ("timesformer", 32), ("vivit", 32)],
)
def test_what_low_rank_matrices_have_learnt_is_in_the_saved_weights(
    name: str, size: int, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    transformer = name in ("videomae_s", "timesformer", "vivit")
    if transformer:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    options = options_for(name, 16, 8, size)
    model = PeakZoom(name, 3, width=1 / 6 if transformer else 0.25, backbone_options=options, dropout=0.0)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    add_lora(model, 2)
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert all("lora_" in key or not key.startswith("backbone.") or "backbone.fc." in key for key in trained)
    video, target = torch.randn(2, 3, 8, size, size), torch.tensor([0, 2])
    assert torch.equal(
        without_lora(model).eval()(video).fused, model.eval()(video).fused
    )  # nothing learnt yet
    model.backbone.eval()
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], 0.02)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(model(video), target).backward()
        optimizer.step()
    for key, value in model.named_parameters():  # no product is passed by
        assert "lora_" not in key or (value.grad is not None and value.grad.abs().max() > 0), key
    model.eval()
    save_stage(model, tmp_path)
    assert hasattr(model.backbone, "peft_config")  # the one that is trained on keeps its matrices
    loaded = PeakZoom.from_pretrained(tmp_path / "last")
    with torch.no_grad():
        assert torch.allclose(loaded(video).fused, model(video).fused, atol=1e-4)
    after = loaded.backbone.state_dict()
    assert after.keys() == before.keys()
    ranks = set()
    for key, value in before.items():
        step = after[key] - value
        if step.dim() < 2:
            assert torch.equal(after[key], value) or key == "fc.bias", key
        elif key != "fc.weight" and step.abs().max() > 0:
            sizes = torch.linalg.svdvals(step.flatten(1).double())
            ranks.add(int((sizes > 1e-5 * sizes[0]).sum()))
    assert ranks and max(ranks) <= 2


# Changes of a batch ------------------------------------------------------------------------------------------------


def clips(batch: int = 4, frames: int = 3, size: int = 32) -> tuple[Tensor, Tensor]:
    """Clips of one still frame each."""
    draw = torch.Generator().manual_seed(batch)
    still = torch.randint(0, 256, (batch, 1, 3, size, size), generator=draw, dtype=torch.uint8)
    return still.expand(-1, frames, -1, -1, -1).contiguous(), torch.arange(batch)


@pytest.mark.parametrize("wanted", [BatchAugment(1), BatchAugment(3, 29), BatchAugment(erasing=1.0)])
@pytest.mark.parametrize("seed", range(4))
def test_the_frames_of_a_clip_are_changed_alike_and_clips_each_in_its_own_way(
    wanted: BatchAugment, seed: int
) -> None:
    pytest.importorskip("kornia")
    views, labels = clips()
    torch.manual_seed(seed)
    changes = BatchChanges(wanted)
    mixed = changes(views, labels)
    assert mixed.views.dtype == torch.uint8 and mixed.views.shape == views.shape
    assert (mixed.views == mixed.views[:, :1]).all()
    assert torch.equal(mixed.labels, labels) and mixed.others is None and mixed.share == 0
    assert not torch.equal(mixed.views, views)
    torch.manual_seed(seed)
    assert torch.equal(changes(views, labels).views, mixed.views)
    one, _ = clips(1)
    same = one.expand(4, -1, -1, -1, -1).contiguous()
    torch.manual_seed(seed)
    drawn = changes(same, labels).views
    assert any(not torch.equal(drawn[0], drawn[i]) for i in range(1, 4))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_mixup_is_a_weighted_sum_of_two_clips_and_labels_say_of_which(seed: int, batch: int) -> None:
    pytest.importorskip("kornia")
    views, labels = clips(batch)
    torch.manual_seed(seed)
    mixed = BatchChanges(BatchAugment(mixup=0.8))(views, labels)
    assert mixed.others is not None and 0 <= mixed.share <= 0.5
    wanted = (1 - mixed.share) * views[mixed.labels].float() + mixed.share * views[mixed.others].float()
    assert (mixed.views.float() - wanted).abs().max() <= 0.51


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_cutmix_pastes_a_box_and_labels_count_its_area(seed: int, batch: int) -> None:
    pytest.importorskip("kornia")
    views, labels = clips(batch)
    torch.manual_seed(seed)
    mixed = BatchChanges(BatchAugment(cutmix=1.0))(views, labels)
    assert mixed.others is not None and 0 <= mixed.share <= 0.5
    for clip, label, other in zip(mixed.views, mixed.labels, mixed.others, strict=True):
        own = (clip == views[label]).all(1)  # (T, H, W)
        its = (clip == views[other]).all(1)
        assert (own | its).all()
        if label != other:
            assert float((~own).float().mean()) == pytest.approx(mixed.share, abs=2e-3)


def test_one_clip_alone_is_not_mixed() -> None:
    pytest.importorskip("kornia")
    views, labels = clips(1)
    mixed = BatchChanges(BatchAugment(mixup=1.0, cutmix=1.0))(views, labels)
    assert torch.equal(mixed.views, views) and mixed.others is None


def test_the_loss_of_mixed_clips_is_that_of_both_classes(clip_data: VideoSet) -> None:
    model = PeakZoom("tcnn_xs", 3, width=0.125).train()
    training = Training(model, longer(1, 1), longer(1, 1).tcnn, 0, None)
    output = model(torch.randn(4, 3, 4, 32, 32))
    labels, others = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    from peakzoom.training.batch_augment import Mixed

    found = training._loss(output, Mixed(torch.empty(0), labels, others, 0.3))
    soft = 0.7 * F.one_hot(labels, 3) + 0.3 * F.one_hot(others, 3)
    wanted = sum(
        F.cross_entropy(logits, soft.float(), label_smoothing=training.settings.label_smoothing)
        for logits in output.logits().values()
    )
    assert torch.allclose(found, torch.as_tensor(wanted), atol=1e-6)


def test_what_is_changed_is_said() -> None:
    recipe = small()
    said = {
        name: told_changes(replace(recipe, augment=of_clip, batch_augment=of_batch))
        for name, (of_clip, of_batch) in CHANGES.items()
    }
    assert said["none"] == "random changes of a clip: crops of the input's size"
    assert "brightness up to 30%" in said["light"] and "mixup" not in said["light"]
    for word in ("RandAugment", "erased", "mixup", "cutmix"):
        assert word in said["strong"]
    assert "mirrored" in told_changes(paper()) and "brightness" not in told_changes(paper())


# Distillation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_is_the_divergence_and_teaches_the_student_alone(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    found = distillation(student, teacher, temperature)
    p = (teacher / temperature).softmax(1).double().detach().numpy()
    q = (student / temperature).softmax(1).double().detach().numpy()
    assert found.item() == pytest.approx(temperature**2 * float((p * np.log(p / q)).sum(1).mean()), rel=1e-5)
    found.backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().max() > 0
    assert distillation(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_distilling_brings_the_original_nearer_to_the_fused_prediction() -> None:
    video, target = torch.randn(6, 3, 4, 32, 32), torch.tensor([0, 1, 2, 2, 1, 0])
    gap = {}
    for weight in (0.0, 100.0):
        torch.manual_seed(0)
        model = PeakZoom("tcnn_xs", 3, width=0.25, dropout=0.0, train_mode="expected").train()
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(12):
            optimizer.zero_grad()
            output = model(video)
            model.loss(output, target, distill=weight).backward()
            optimizer.step()
        assert output.original is not None
        gap[weight] = float(distillation(output.original.detach(), output.fused.detach()))
    assert gap[100.0] < gap[0.0] / 2


def test_a_distilled_branch_is_saved_as_a_model_of_one_pass(
    clip_data: VideoSet, start: Path, tmp_path: Path
) -> None:
    options = replace(PLAIN, steps=("joint",), init=str(start))
    run = train(clip_data, replace(longer(1, 1), distill=1.0), tmp_path / "run", options)
    whole, alone = load(run), load(run / "joint" / "one_pass")
    test = [entry.path for entry in clip_data.entries if entry.split == "test"]
    for one, other in zip(whole.predict_many(test), alone.predict_many(test), strict=True):
        assert isinstance(one, Prediction) and isinstance(other, Prediction)
        assert np.array_equal(one.scores["original"], other.scores["fused"])
    assert alone.model is not None and not alone.model.zooms
    assert not (train(clip_data, longer(1, 1), tmp_path / "plain", options) / "joint" / "one_pass").exists()


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"frozen_views": 1}, {"init": "none"}, "--freeze keeps the weights .* starts from scratch"),
        ({"lora": 2}, {"init": "none"}, "--lora keeps the weights .* starts from scratch"),
        ({"lora": 2, "frozen_views": 1}, {}, "exclude one another"),
        ({"lora": 1000}, {}, r"--lora 1000 would train [\d,]+ numbers in place of the [\d,]+ of the layers"),
        (
            {"distill": 1.0, "branches": ("original",)},
            {},
            "this training zooms nowhere: take --recipe spatial",
        ),
        ({"distill": 1.0}, {"steps": ("tcnn",)}, "this training zooms nowhere"),
        ({"frozen_views": 1, "batch_augment": BatchAugment(mixup=1)}, {}, "features once"),
        ({"frozen_views": 1}, {"devices": "2"}, "in one process, and 2 came"),
        ({"accumulate": 0}, {}, "accumulate is 0, expected 1 or more"),
        ({"average": 1.0}, {}, "average is 1.0, expected from 0 to less than 1"),
        ({"batch_augment": BatchAugment(operations=11)}, {}, "operations is 11, expected from 0 to 10"),
        ({"batch_augment": BatchAugment(magnitude=30)}, {}, "magnitude is 30, expected from 1 to 29"),
        ({}, {"logger": "paper"}, "logger is 'paper', expected one of tensorboard, wandb, mlflow"),
    ],
)
def test_settings_that_mean_nothing(
    clip_data: VideoSet, start: Path, tmp_path: Path, changes: Any, options: Any, sentence: str
) -> None:
    recipe = replace(longer(1, 1), **{"batch_size": 6, **changes})
    with pytest.raises(UserError, match=sentence):
        train(clip_data, recipe, tmp_path / "run", replace(PLAIN, **{"init": str(start), **options}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("module", "changes", "logger", "what"),
    [
        (
            "kornia.augmentation",
            {"batch_augment": BatchAugment(1)},
            "tensorboard",
            "--augment strong needs kornia",
        ),
        ("peft", {"lora": 2}, "tensorboard", "--lora needs peft"),
        ("wandb", {}, "wandb", "--logger wandb needs wandb"),
        ("mlflow", {}, "mlflow", "--logger mlflow needs mlflow"),
    ],
)
def test_an_extra_that_is_missing(
    clip_data: VideoSet,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    changes: Any,
    logger: str,
    what: str,
) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.split(".")[0] == module.split(".")[0]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    recipe = replace(longer(1, 1), **changes)
    with pytest.raises(UserError, match=f"{what}, which is not installed: pip install"):
        train(clip_data, recipe, tmp_path / "run", replace(TCNN, init=str(start), logger=logger))
    assert not (tmp_path / "run").exists()


# Loggers -----------------------------------------------------------------------------------------------------------


def test_mlflow_has_the_figures_of_the_run(
    clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # and gone after the test
    run = train(clip_data, longer(2, 1), tmp_path / "run", replace(TCNN, logger="mlflow"))
    client = mlflow.MlflowClient(f"file:{tmp_path / 'run' / 'mlruns'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "peakzoom"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "run-tcnn" and found.data.params["model"] == "tcnn_xs"
    last = read_metrics(run / "tcnn" / "metrics.csv")[-1]
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert found.data.metrics[name] == pytest.approx(last[name], abs=1e-6)


def test_wandb_has_the_figures_of_the_run(
    clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(clip_data, longer(2, 1), tmp_path / "run", replace(TCNN, logger="wandb"))
    (file,) = (run / "tcnn").glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    for word in (b"val_accuracy", b"run-tcnn", b"tcnn_xs"):
        assert word in content


def test_a_logger_that_cannot_begin(
    clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    with pytest.raises(UserError, match="--logger mlflow cannot begin: "):
        train(clip_data, longer(1, 1), tmp_path / "run", replace(TCNN, logger="mlflow"))


# The command -------------------------------------------------------------------------------------------------------


def test_options_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from peakzoom.cli.options import MachineOptions, RecipeOptions
    from peakzoom.cli.recipe import recipe_and_options

    wanted = RecipeOptions(accumulate=4, augment="strong", lora=8, distill=True)
    recipe, options = recipe_and_options(wanted, MachineOptions(logger="mlflow"))
    assert (recipe.accumulate, recipe.lora, recipe.distill) == (4, 8, 1.0)
    assert (recipe.augment, recipe.batch_augment) == CHANGES["strong"]
    assert options.logger == "mlflow" and "logger" not in options.recorded()
    recipe, _ = recipe_and_options(RecipeOptions(freeze=True, augment="none"), MachineOptions())
    assert recipe.frozen_views == 4 and not recipe.augment.flip and recipe.augment.area is None
    with pytest.raises(UserError, match="--freeze and --lora exclude one another"):
        recipe_and_options(RecipeOptions(freeze=True, lora=2), MachineOptions())


def test_older_runs_are_still_known() -> None:
    """A recipe without what is new is recorded as it was before there was any of it."""
    recorded = longer(1, 1).recorded()
    new = ("accumulate", "average", "frozen_views", "lora", "distill", "batch_augment", "layer_decay")
    assert not set(new) & {*recorded, *recorded["tcnn"], *recorded["joint"]}
    assert {"average", "layer_decay"} <= {*finetune().recorded(), *finetune().recorded()["tcnn"]}
