"""A whole search: what it leaves, that it can be stopped, what it learns on what, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from tiny import longer, made, undrawn

from peakzoom.cli.search import multiply_adds
from peakzoom.data.entries import VideoSet
from peakzoom.data.loading import Batch, TurnsSampler
from peakzoom.inference.cost import multiply_adds as counted
from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom
from peakzoom.model.backbones import backbone_factory
from peakzoom.model.backbones.architecture import plan_from_dict
from peakzoom.model.backbones.space import Space
from peakzoom.model.backbones.tcnn import TCNN
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.search import search as module
from peakzoom.training.search.module import Searching
from peakzoom.training.search.relaxed import Relaxed
from peakzoom.training.search.search import search
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.utils.plain import read_object

OPTIONS = Options(val_fraction=0.2, workers=0, accelerator="cpu", progress=False)
BUDGET = 0.005  # G, about what tcnn_xs costs at a quarter of its width and 8 frames of 32 x 32


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return replace(longer(2, 1), branches=("original",))


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peakzoom.training.log.curves_figure", undrawn)


@pytest.fixture(scope="module")
def found(clip_data: VideoSet, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peakzoom.training.log.curves_figure", undrawn)
        return search(clip_data, recipe, out, BUDGET, OPTIONS, epochs=3)


def all_of(run: Path) -> dict[str, bytes]:
    return {
        **made(run),
        **{name: (run / name).read_bytes() for name in ("architecture.json", "search/probabilities.csv")},
    }


def test_what_a_search_leaves(found: Path, clip_data: VideoSet, recipe: Recipe, tmp_path: Path) -> None:
    plan, pool = plan_from_dict(read_object(found / "architecture.json"))
    network = TCNN(3, plan=plan, pool=pool)
    assert 0.9 * BUDGET <= counted(network, 8, 32) <= BUDGET
    assert (found / "search.png").read_bytes().startswith(b"\x89PNG")
    for stage in ("tcnn", "joint"):  # the run is one of that network
        trained = load(found / stage / "best").model.backbone
        assert {name: value.shape for name, value in trained.state_dict().items()} == {
            name: value.shape for name, value in network.state_dict().items()
        }
    chances: dict[tuple[str, str], float] = defaultdict(float)
    with (found / "search" / "probabilities.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            chances[row["epoch"], row["choice"]] += float(row["probability"])
    assert {epoch for epoch, _ in chances} == {"1", "2", "3"}
    assert all(total == pytest.approx(1, abs=1e-4) for total in chances.values())


@pytest.mark.parametrize(
    "stage,stop", [("search", 2), ("search", 1), pytest.param("tcnn", 1, marks=pytest.mark.slow)]
)
def test_a_resumed_search_is_bit_for_bit_the_one_never_stopped(
    found: Path,
    clip_data: VideoSet,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    stop: int,
) -> None:
    start = Training.on_train_batch_start

    def stopping(self: Training, batch: Batch, batch_idx: int) -> None:
        searching = isinstance(self, Searching)
        if searching == (stage == "search") and self.current_epoch == stop and batch_idx == 1:
            raise RuntimeError("stopped by the test")
        start(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_batch_start", stopping)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            search(clip_data, recipe, tmp_path / "run", BUDGET, OPTIONS, epochs=3)
    assert (tmp_path / "run" / "architecture.json").exists() == (stage == "tcnn")
    beside = replace(OPTIONS, workers=1)  # a process loads ahead, from the epoch that it is told
    search(clip_data, recipe, tmp_path / "run", BUDGET, beside, resume=True, epochs=3)
    assert all_of(tmp_path / "run") == all_of(found)
    search(
        clip_data, recipe, tmp_path / "run", BUDGET, OPTIONS, resume=True, epochs=3
    )  # nothing is left to do
    words = "another search: --budget=0.005G there, --budget=0.01G here; resume with --budget=0.005G, or"
    with pytest.raises(UserError, match=words):
        search(clip_data, recipe, tmp_path / "run", 2 * BUDGET, OPTIONS, resume=True, epochs=3)
    with pytest.raises(UserError, match="--search-epochs=3 there, no --search-epochs here"):
        search(clip_data, recipe, tmp_path / "run", BUDGET, OPTIONS, resume=True)
    with pytest.raises(UserError, match=r"--budget=0.005G there, no --budget here"):
        train(clip_data, recipe, tmp_path / "run", OPTIONS, resume=True)


def test_a_plan_that_was_edited_is_no_result_and_one_that_was_removed_comes_again(
    found: Path, clip_data: VideoSet, recipe: Recipe, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(found, tmp_path / "run"))
    file = run / "architecture.json"
    before = file.read_bytes()
    shutil.rmtree(run / "joint")
    for changes in (
        {"stem": 7},
        {"motion": False},
        {"pool": "best:3"},
        {"stages": json.loads(before)["stages"][:1]},
    ):
        file.write_text(json.dumps({**json.loads(before), **changes}))
        with pytest.raises(
            UserError, match="was changed since the search: remove it, and --resume writes again"
        ):
            search(clip_data, recipe, run, BUDGET, OPTIONS, resume=True, epochs=3)
    file.unlink()
    search(clip_data, recipe, run, BUDGET, OPTIONS, resume=True, epochs=3)
    assert all_of(run) == all_of(found)


@pytest.mark.slow
def test_in_double_precision_the_large_network_teaches_too(
    clip_data: VideoSet, recipe: Recipe, tmp_path: Path
) -> None:
    wanted = replace(OPTIONS, precision="64-true", steps=("tcnn",))
    run = search(clip_data, recipe, tmp_path / "run", BUDGET, wanted, epochs=1)
    assert (run / "tcnn" / "best" / "model.safetensors").exists()


def test_gradients_are_clipped_as_they_are_not_as_half_precision_scales_them(
    clip_data: VideoSet, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the weights alone, and to the largest norm itself, where a loss is scaled up before its gradient is taken."""
    norms: dict[str, list[float]] = {"AdamW": [], "Adam": []}
    step = torch.amp.GradScaler.step

    def watched(self: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, *rest: Any, **more: Any) -> Any:
        grads = [
            each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None
        ]
        norms[type(optimizer).__name__].append(float(torch.stack([each.norm() for each in grads]).norm()))
        return step(self, optimizer, *rest, **more)

    class Scaled(MixedPrecision):
        """As of a GPU, in single precision."""

        def forward_context(self) -> Any:
            return nullcontext()

    monkeypatch.setattr(torch.amp.GradScaler, "step", watched)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer = module.make_trainer

    def scaling(stage: Any) -> Any:
        made = trainer(stage)
        made.strategy.precision_plugin = Scaled("16-mixed", "cpu", scaler=scaler)
        return made

    monkeypatch.setattr(module, "make_trainer", scaling)
    monkeypatch.setattr(module, "train_stages", lambda *_: None)
    small = replace(recipe, tcnn=replace(recipe.tcnn, clip_gradient=0.05))
    search(clip_data, small, tmp_path / "run", BUDGET, OPTIONS, epochs=2)
    assert norms["AdamW"] and all(norm == pytest.approx(0.05, rel=1e-3) for norm in norms["AdamW"])
    assert max(norms["Adam"]) > 0.06


def test_probabilities_learn_from_videos_and_groups_that_the_weights_never_see(
    clip_data: VideoSet, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, set[str]] = {0: set(), 1: set()}
    step = Searching.training_step
    moved: dict[int, set[str]] = {0: set(), 1: set()}

    def watched(self: Searching, batch: Batch, batch_idx: int) -> Any:
        seen[batch_idx % 2] |= set(batch.videos)
        before = {name: value.clone() for name, value in self.state_dict().items()}
        result = step(self, batch, batch_idx)
        moved[batch_idx % 2] |= {
            name.partition(".")[0]
            for name, value in self.state_dict().items()
            if not torch.equal(value, before[name])
        }
        return result

    monkeypatch.setattr(Searching, "training_step", watched)
    monkeypatch.setattr(module, "train_stages", lambda *_: None)
    search(clip_data, recipe, tmp_path / "run", BUDGET, OPTIONS, epochs=3)
    group = {str(entry.path): entry.group for entry in clip_data.entries}
    assert all(seen.values()) and not seen[0] & seen[1]
    assert not {group[path] for path in seen[0]} & {group[path] for path in seen[1]}
    assert moved == {0: {"model"}, 1: {"choices"}}


def test_the_large_network_starts_from_what_the_given_one_starts_from(
    found: Path, clip_data: VideoSet, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_fit", lambda *_: (_ for _ in ()).throw(RuntimeError("far enough")))
    start = train(clip_data, recipe, tmp_path / "start", replace(OPTIONS, steps=("tcnn",)))
    large: dict[str, torch.Tensor] = {}
    kept = module._large_network

    def keeping(*arguments: Any) -> Any:
        made = kept(*arguments)
        large.update(made.backbone.state_dict())
        return made

    monkeypatch.setattr(module, "_large_network", keeping)
    with pytest.raises(RuntimeError, match="far enough"):
        search(clip_data, recipe, tmp_path / "run", BUDGET, replace(OPTIONS, init=str(start)))
    own = load(start / "tcnn" / "best").model.backbone.state_dict()
    first, mine = own["stem.0.0.weight"], large["stem.0.0.weight"]
    assert len(mine) > len(first)
    torch.testing.assert_close(mine[: len(first)], first)


@pytest.mark.parametrize("share,sign", [(0.5, -1), (0.99, -1), (1.0, 0), (1.04, 0), (1.2, 1), (3.0, 1)])
def test_the_cost_pushes_towards_the_budget(recipe: Recipe, share: float, sign: int) -> None:
    """Down where the likeliest network costs more than the budget, up where less, and not at all just below it."""
    given = backbone_factory("tcnn_xs")(3, width=0.25)
    assert isinstance(given, TCNN)
    space = Space(given, 8, 32)
    network: Any = Relaxed(3, space)
    likeliest = space.any_point(torch.Generator().manual_seed(0))
    training = Searching(
        *(PeakZoom(network, num_classes=3), recipe, recipe.tcnn, 0, None),
        space=space,
        budget=share * space.cost(likeliest),
    )
    for name, index in likeliest.items():
        training.choices.logits[name].data[index] += 0.5
    before = float(space.expected_cost(training.choices.probabilities()))
    training._price().backward()
    for logits in training.choices.parameters():
        assert logits.grad is not None
        logits.data -= 0.01 * logits.grad
    after = float(space.expected_cost(training.choices.probabilities()))
    assert (after > before) - (after < before) == sign
    if (
        sign
    ):  # twice the logarithm: to first order, a step of the gradient changes the expected cost by so much
        size = sum(
            float((each.grad**2).sum()) for each in training.choices.parameters() if each.grad is not None
        )
        assert 2 * (after / before - 1) == pytest.approx(sign * 0.01 * size, rel=0.05)


@pytest.mark.parametrize(
    "changes,options,words",
    [
        ({"model": "r3d_18"}, {}, "--model is r3d_18, expected a T-CNN"),
        ({"lora": 4}, {}, "--freeze and --lora keep"),
        ({}, {"devices": "2"}, "one process"),
        ({}, {"num_nodes": 2}, "one process"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(
    changes: dict[str, Any],
    options: dict[str, Any],
    words: str,
    clip_data: VideoSet,
    recipe: Recipe,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=words):
        search(clip_data, replace(recipe, **changes), tmp_path / "run", BUDGET, replace(OPTIONS, **options))
    assert not (tmp_path / "run").exists()


def test_one_group_cannot_be_halved(clip_data: VideoSet, recipe: Recipe, tmp_path: Path) -> None:
    alone = [replace(entry, group="all", split="train") for entry in clip_data.entries]
    with pytest.raises(UserError, match="cannot be halved, whole groups to one side"):
        search(
            replace(clip_data, entries=alone),
            recipe,
            tmp_path / "run",
            BUDGET,
            replace(OPTIONS, val_fraction=0.0),
        )
    assert not (tmp_path / "run").exists(), "before videos are decoded"


@pytest.mark.parametrize(
    "text,value",
    [("0.3G", 0.3), ("300M", 0.3), ("300m", 0.3), ("2", 2.0), (".5g", 0.5), (" 1.5 G ", 1.5)],
)
def test_budgets(text: str, value: float) -> None:
    assert multiply_adds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "0M", "1e3", "1T", "nan", "one"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget is .*, expected multiply-adds of a clip, as 300M or 0.3G"):
        multiply_adds(text)


@pytest.mark.parametrize("sizes", [(7, 7), (3, 10), (1, 1), (16, 5)])
def test_batches_of_two_sets_in_turn(sizes: tuple[int, int]) -> None:
    videos = sum(sizes)
    sets = list(range(sizes[0])), list(range(sizes[0], videos))
    sampler = TurnsSampler(sets, 4, videos, seed=3)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) and {key // videos for key in keys} == {epoch}
        batches = [[key % videos for key in keys[i : i + 4]] for i in range(0, len(keys), 4)]
        for turn, batch in enumerate(batches):
            assert len(batch) == 4 and set(batch) <= set(sets[turn % 2])
        assert {video for batch in batches for video in batch} == set(range(videos)), "each at least once"
        epochs.append(batches)
    assert videos < 4 or epochs[0] != epochs[1]
