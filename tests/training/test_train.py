"""Training: what it leaves, what it never looks at, and that stopping and going on changes not a bit of it."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import begin, command, quick, quick_command
from safetensors.torch import load_file, save_file
from tiny import longer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from peakzoom.data import loading
from peakzoom.data.cache import FrameCache
from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry, Problem, VideoSet
from peakzoom.data.loading import Batch, ViewMaker
from peakzoom.data.runs import read_metrics
from peakzoom.data.splits import hold_out_groups
from peakzoom.inference.recognizer import load
from peakzoom.model import BACKBONES, PeakZoom
from peakzoom.training.check import check_settings
from peakzoom.training.folder import alone_in
from peakzoom.training.module import Training
from peakzoom.training.optimizer import make_optimizer, schedule
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, StageSettings
from peakzoom.training.start import class_weights, start_from
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.video.guard import Guard
from peakzoom.video.scan import probe

pytestmark = pytest.mark.usefixtures("no_curves")

Said = Callable[[], list[str]]  # the fixture: what has been logged
PLAIN = Options(val_fraction=0.0, workers=0, accelerator="cpu", progress=False)
TCNN = replace(PLAIN, steps=("tcnn",))
VALIDATED = replace(PLAIN, val_fraction=0.2)


@pytest.fixture(scope="module")
def small() -> Recipe:
    """``tiny`` with a quarter of the channels."""
    return longer(1, 1)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def weights(run: Path) -> dict[str, bytes]:
    """Every saved weight file of a run."""
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("*.safetensors"))}


def epochs(recipe: Recipe, tcnn: int, joint: int) -> Recipe:
    return replace(recipe, tcnn=replace(recipe.tcnn, epochs=tcnn), joint=replace(recipe.joint, epochs=joint))


# Small parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("steps", [1, 7, 200])
def test_schedule_against_the_closed_form(warmup: float, steps: int) -> None:
    stage = StageSettings(1, "sgd", 0.1, 1e-4, warmup=warmup)
    rates = np.array([schedule(step, steps, stage) * stage.lr for step in range(steps + 1)])
    rise = warmup * steps
    for step, rate in enumerate(rates):
        if step < rise:
            assert rate == pytest.approx(0.1 * (step + 1) / (rise + 1))
        else:
            share = min(1.0, (step - rise) / max(1.0, steps - rise))
            assert rate == pytest.approx(1e-4 + 0.5 * (0.1 - 1e-4) * (1 + math.cos(math.pi * share)))
    if steps > 1:
        assert rates[-1] == pytest.approx(1e-4)
    assert rates.min() > 0 and rates.max() <= 0.1 + 1e-12
    if not warmup:
        assert rates[0] == pytest.approx(0.1) and (np.diff(rates) <= 0).all()


def videos(*counts: int) -> list[Entry]:
    return [Entry(Path(f"{label}-{i}"), label) for label, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize("counts", [(1, 20), (3, 4, 5), (2, 0, 6)])
@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_class_weights(counts: tuple[int, ...], balance: float) -> None:
    weight = class_weights(videos(*counts), len(counts), balance)
    assert weight is not None and weight.shape == (len(counts),)
    assert sum(w * n for w, n in zip(weight.tolist(), counts, strict=True)) == pytest.approx(sum(counts))
    for one, first in enumerate(counts):
        for other, second in enumerate(counts):
            if first and second:
                assert weight[one] / weight[other] == pytest.approx((second / first) ** balance)
    if balance == 1.0 and 0 not in counts:  # every class weighs the same, N / (S n_c)
        assert weight.tolist() == pytest.approx([sum(counts) / len(counts) / n for n in counts])


def test_no_class_weights_where_none_are_needed() -> None:
    assert class_weights(videos(3, 3), 2, 1.0) is None
    assert class_weights(videos(1, 9), 2, 0.0) is None


def test_adamw_spares_biases_norms_and_betas() -> None:
    model = PeakZoom("tcnn_xs", 3, width=0.25)
    recipe = StageSettings(1, "adamw", 1e-3, 1e-5, weight_decay=0.05)
    decayed, spared = make_optimizer(model, recipe).param_groups
    assert decayed["weight_decay"] == 0.05 and spared["weight_decay"] == 0
    matrices = {
        parameter
        for part in model.modules()
        if isinstance(part, (nn.Conv3d, nn.Linear))
        for parameter in [part.weight]
    }
    assert set(decayed["params"]) == matrices
    assert {model.attention.beta_dis, model.attention.beta_com} <= set(spared["params"])
    sgd = make_optimizer(model, replace(recipe, optimizer="sgd"))
    assert len(sgd.param_groups) == 1 and sgd.param_groups[0]["momentum"] == 0.9


# The run folder --------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_what_its_page_says(run: Path, clip_data: VideoSet) -> None:
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    for name in ("command.txt", "config.json", "classes.txt", "videos.csv", "problems.csv"):
        assert name in page and (run / name).stat().st_size > 0
    for stage in ("tcnn", "joint"):
        for name in ("checkpoints/last.ckpt", "best/model.safetensors", "best/config.json"):
            assert (run / stage / name).stat().st_size > 0
        assert (run / stage / "last" / "model.safetensors").exists()
        curves = (run / stage / "curves.png").read_bytes()
        assert curves.startswith(b"\x89PNG") and len(curves) > 10_000  # of an empty sheet it is 2,000
        assert any((run / stage / "tensorboard").iterdir())
        (row,) = read_metrics(run / stage / "metrics.csv")
        assert row["epoch"] == 1 and 0 <= row["train_accuracy"] <= 1 and row["train_loss"] > 0
        assert row["val_score"] == pytest.approx(row["val_accuracy"] - 1e-3 * min(10, row["val_loss"]))
        assert ("val_accuracy_discriminative" in row) == (stage == "joint")
        assert not list((run / stage).glob("*.part"))
    assert (run / "classes.txt").read_text().split() == clip_data.classes == ["kick", "nod", "wave"]
    assert rows(run / "problems.csv") == []
    assert json.loads((run / "config.json").read_text())["options"]["val_fraction"] == 0.2


def test_saved_models_know_their_classes_and_preprocessing(
    run: Path, tiny: Recipe, clip_data: VideoSet
) -> None:
    rate = probe(clip_data.entries[0].path).fps  # all clips have it
    for stage, branches in (("tcnn", 2), ("joint", 4)):
        recognizer = load(run / stage)
        assert recognizer.classes == ["kick", "nod", "wave"]
        assert recognizer.preprocess == replace(tiny.preprocess, trained_fps=rate)
        assert len(recognizer.model.branches) == (1 if branches == 2 else 3)


def test_videos_csv_and_the_validation_groups(run: Path, clip_data: VideoSet) -> None:
    listed = rows(run / "videos.csv")
    assert sorted(row["path"] for row in listed) == sorted(str(entry.path) for entry in clip_data.entries)
    wanted = {str(entry.path): entry for entry in clip_data.entries}
    groups: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for row in listed:
        entry = wanted[row["path"]]
        assert row["class"] == clip_data.classes[entry.label] and int(row["label"]) == entry.label
        assert (row["split"] == "test") == (entry.split == "test")
        groups[row["split"]].add(row["group"])
    assert all(groups.values())
    assert not groups["train"] & groups["val"] and not groups["train"] & groups["test"]
    assert {row["class"] for row in listed if row["split"] == "train"} == set(clip_data.classes)


def test_test_videos_are_never_looked_at(
    clip_data: VideoSet, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    looked: list[Path] = []

    run = Guard.run

    def watched(self: Guard, path: Path, *rest: object) -> object:
        looked.append(Path(path))
        return run(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Guard, "run", watched)
    test = {entry.path for entry in clip_data.entries if entry.split == "test"}
    small = replace(
        small, preprocess=replace(small.preprocess, zoom_source=2)
    )  # frames larger than the first step needs
    train(clip_data, small, tmp_path / "on", TCNN)
    train(clip_data, small, tmp_path / "off", replace(TCNN, cache="off"))
    assert len(test) == 6 and len(set(looked)) == 18 and not test & set(looked)
    kept = {file.name for file in (tmp_path / "cache" / "peakzoom" / "frames").glob("*.npy")}
    store = FrameCache(tmp_path / "cache" / "peakzoom" / "frames", small.preprocess.stored_canvas)
    assert len(kept) == 18 and not {store.file(path).name for path in test} & kept
    assert weights(tmp_path / "on") == weights(tmp_path / "off")  # and the cache changes nothing


def test_a_validation_split_of_the_data_is_taken(clip_data: VideoSet, small: Recipe, tmp_path: Path) -> None:
    entries = [entry for entry in clip_data.entries if entry.split == "train"]
    marked = [replace(entry, split="val" if i < 4 else None) for i, entry in enumerate(entries)]
    train(replace(clip_data, entries=marked), small, tmp_path / "run", replace(TCNN, val_fraction=0.5))
    split = {row["path"]: row["split"] for row in rows(tmp_path / "run" / "videos.csv")}
    assert [split[str(entry.path)] for entry in marked] == ["val"] * 4 + ["train"] * 14


def test_best_is_the_epoch_of_the_best_score(clip_data: VideoSet, small: Recipe, tmp_path: Path) -> None:
    out = train(clip_data, epochs(small, 4, 1), tmp_path / "run", replace(TCNN, val_fraction=0.3))
    scores = [row["val_score"] for row in read_metrics(out / "tcnn" / "metrics.csv")]
    assert len(scores) == 4
    best = torch.load(out / "tcnn" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmax(scores))
    # Whatever the score: a run that is stopped goes on from the epoch that it had reached.
    assert torch.load(out / "tcnn" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3
    saved = PeakZoom.from_pretrained(str(out / "tcnn" / "best")).state_dict()
    for name, value in saved.items():
        assert torch.equal(value, best["state_dict"][f"model.{name}"])
    same = weights(out)["tcnn/best/model.safetensors"] == weights(out)["tcnn/last/model.safetensors"]
    assert same == (np.argmax(scores) == 3)


def test_patience(
    clip_data: VideoSet, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that stays as it is, no epoch after the first is better."""
    as_it_is = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(_BatchNorm, "training", as_it_is, raising=False)
    options = replace(TCNN, val_fraction=0.3, patience=2)
    frozen = replace(small, tcnn=replace(small.tcnn, epochs=9, lr=1e-30, final_lr=1e-30))
    out = train(clip_data, frozen, tmp_path / "run", options)
    assert len(read_metrics(out / "tcnn" / "metrics.csv")) == 3


# Stopping and going on -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return train(clip_data, longer(3, 2), out, VALIDATED)


@pytest.mark.parametrize(
    "stage,stop,error",
    [("tcnn", 2, RuntimeError), ("joint", 1, KeyboardInterrupt)],
)
def test_a_resumed_training_is_bit_for_bit_the_one_never_stopped(
    unbroken: Path,
    clip_data: VideoSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    stop: int,
    error: type[BaseException],
) -> None:
    arguments = (clip_data, longer(3, 2), tmp_path / "run", VALIDATED)
    start = Training.on_train_batch_start

    def stopping(self: Training, batch: loading.Batch, batch_idx: int) -> None:
        joint = len(self.model.branches) > 1
        if joint == (stage == "joint") and self.current_epoch == stop and batch_idx == 1:
            raise error("stopped by the test")
        start(self, batch, batch_idx)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_batch_start", stopping)
        with pytest.raises(error):
            train(*arguments)
    assert signal.getsignal(signal.SIGINT) == before
    assert len(read_metrics(tmp_path / "run" / stage / "metrics.csv")) == stop  # at most an epoch is lost
    # With a process that loads ahead, before it is known which epoch it is.
    train(*arguments[:3], replace(VALIDATED, workers=1), resume=True)
    assert weights(tmp_path / "run") == weights(unbroken)
    for name in ("tcnn/metrics.csv", "joint/metrics.csv", "videos.csv", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (unbroken / name).read_bytes()


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, killed once its first checkpoint is there, whatever it does just then."""

    def words(out: str, *more: str) -> list[str]:
        small = (
            "--size 32 --set preprocess.frames=4 --set stride=2 --epochs 4 --joint-epochs 1 --batch-size 6 "
            "--set preprocess.zoom_source=1 --set width=0.25"
        )
        plain = "--val-fraction 0 --workers 0 --set accelerator=cpu"
        where = ["train", str(clips / "clips.csv"), "--out", str(tmp_path / out)]
        return [*where, *small.split(), *plain.split(), *more]

    def call(*arguments: str) -> None:
        with pytest.raises(SystemExit) as left:
            command(*arguments)
        assert left.value.code == 0

    monkeypatch.setattr("peakzoom.hub.card.write_missing_cards", lambda _: None)
    monkeypatch.setattr(sys, "argv", [])  # and put back what the command sets
    child = begin(quick_command, *words("killed"))
    file = tmp_path / "killed" / "tcnn" / "checkpoints" / "last.ckpt"
    while not file.exists():
        assert child.is_alive(), "it ended before its first checkpoint"
        time.sleep(0.001)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL and not (tmp_path / "killed" / "joint" / "best").exists()
    call(*words("killed", "--resume"))
    call(*words("whole"))
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 4
    call(*words("killed", "--resume"))  # nothing is left to do


def by_script(*words: str) -> None:
    sys.argv = list(words)
    quick()
    runpy.run_path(words[0], run_name="__main__")


@pytest.mark.slow
def test_two_processes_train_together(clips: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 70)
    lines = [f"{entry.path},{clip_data.classes[entry.label]},{entry.split}" for entry in clip_data.entries]
    lines.append(f"{tmp_path / 'broken.mp4'},nod,train")
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    script = tmp_path / "peakzoom"  # Lightning starts the other process by the name of this one's script
    script.write_text("from peakzoom.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    small = (
        "--size 32 --set preprocess.frames=4 --set preprocess.zoom_source=1 --set width=0.25 "
        "--epochs 1 --joint-epochs 1 --batch-size 4 --workers 0 --set cache=off"
    )
    out, said, shown = (tmp_path / name for name in ("run", "said", "shown"))
    words = ["train", tmp_path / "list.csv", "--root", "/", "--out", out, *small.split()]
    child = begin(
        by_script,
        *map(str, [script, *words, "--set", "accelerator=cpu", "--set", "devices=2"]),
        out=shown,
        err=said,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    child.join()
    assert child.exitcode == 0, said.read_text("utf-8")
    assert shown.read_text("utf-8").count("Next: peakzoom evaluate") == 1
    assert said.read_text("utf-8").count("joint epoch 1/1") == 1
    assert len(weights(out)) == 4 and len(rows(out / "videos.csv")) == 25
    assert [row["path"] for row in rows(out / "problems.csv")] == [str(tmp_path / "broken.mp4")]
    assert load(out).classes == clip_data.classes


def test_folders_in_use(run: Path, clip_data: VideoSet, tiny: Recipe, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    used = replace(PLAIN, val_fraction=0.2)
    with pytest.raises(UserError, match="not empty: --resume"):
        train(clip_data, tiny, run, used)
    for recipe, options, data, changed in [
        (replace(tiny, batch_size=7), used, clip_data, "recipe"),
        (tiny, replace(used, seed=1), clip_data, "options"),
        (tiny, used, replace(clip_data, entries=clip_data.entries[1:]), "data"),
    ]:
        with pytest.raises(UserError, match=f"begun with another .*{changed}"):
            train(data, recipe, run, options, resume=True)
    assert sorted(run.rglob("*")) == before
    with pytest.raises(UserError, match="nothing to resume"):
        train(clip_data, tiny, tmp_path / "none", PLAIN, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        train(clip_data, tiny, tmp_path / "file", PLAIN)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"not empty|no training"):
            train(clip_data, tiny, tmp_path / "other", PLAIN, resume)


def test_what_may_change_on_resume(
    clip_data: VideoSet, tiny: Recipe, run: Path, tmp_path: Path, said: Said
) -> None:
    options = replace(PLAIN, val_fraction=0.2, workers=1, cache="off")
    train(clip_data, tiny, shutil.copytree(run, tmp_path / "run"), options, resume=True)
    assert "tcnn: done before" in said() and "joint: done before" in said()


# Data as it comes ------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """A folder with 1 and 20 videos of two classes, of several sizes, rates and lengths, one of them broken."""
    root = tmp_path / "mixed"
    make_clip(root / "wave" / "only.mp4", "wave", height=32, width=96, frames=9, fps=30.0)
    for index in range(20):
        shape = {"height": 32 + 16 * (index % 2), "width": 32 + 16 * (index % 3), "frames": 2 + index % 4}
        make_clip(root / "nod" / f"{index:02}.mp4", "nod", seed=index, fps=[10.0, 15.0][index % 2], **shape)
    (root / "nod" / "broken.mp4").write_bytes(b"no video" * 60)
    return root


@pytest.mark.parametrize("cached", ["auto", "off"])
def test_unequal_classes_sizes_rates_and_a_broken_file(
    mixed: Path, small: Recipe, tmp_path: Path, cached: str, said: Said
) -> None:
    recipe = replace(small, same_rate=True, stride=None, reach=0.8)
    out = train(open_data(mixed), recipe, tmp_path / "run", replace(PLAIN, cache=cached, val_fraction=0.15))
    (problem,) = rows(out / "problems.csv")
    assert problem["path"] == str(mixed / "nod" / "broken.mp4") and "\n" not in problem["reason"]
    assert any("problems.csv" in line for line in said())
    assert any(
        "frame rates differ (10 to 15): all videos are taken at 10 a second" in line for line in said()
    )
    listed = rows(out / "videos.csv")
    assert len(listed) == 22  # the broken one too, as unreadable or, without a cache, where it was put
    assert [row["split"] for row in listed if row["class"] == "wave"] == ["train"]
    assert len(weights(out)) == 4
    for value in read_metrics(out / "joint" / "metrics.csv")[0].values():
        assert math.isfinite(value)


def test_a_file_that_breaks_while_training_is_listed(
    tmp_path: Path, make_clip: Callable[..., Path], small: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        make_clip(tmp_path / name / f"{i}.mp4", name, seed=i) for name in ("wave", "nod") for i in range(3)
    ]
    data = VideoSet(
        ["wave", "nod"], [Entry(path, i // 3, "train") for i, path in enumerate(paths)], [], "data"
    )
    data.entries.append(Entry(make_clip(tmp_path / "val.mp4"), 0, "val"))
    start = Training.on_train_batch_start

    def breaking(self: Training, batch: loading.Batch, batch_idx: int) -> None:
        if self.current_epoch == 1:
            for path in (*paths[:2], tmp_path / "val.mp4"):
                path.write_bytes(b"")
        start(self, batch, batch_idx)

    monkeypatch.setattr(Training, "on_train_batch_start", breaking)
    recipe = epochs(replace(small, batch_size=2), 3, 1)
    out = train(data, recipe, tmp_path / "run", replace(PLAIN, cache="off"))
    listed = rows(out / "problems.csv")
    assert {Path(row["path"]) for row in listed} == {*paths[:2], tmp_path / "val.mp4"}
    assert all("empty" in row["reason"] for row in listed)
    scores = [row["val_score"] for row in read_metrics(out / "tcnn" / "metrics.csv")]
    assert len(scores) == 3 and scores[0] > -1  # the epoch that could be validated is the best
    best = torch.load(out / "tcnn" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmax(scores))
    assert len(weights(out)) == 4


def test_no_video_can_be_validated(tmp_path: Path, make_clip: Callable[..., Path], small: Recipe) -> None:
    data = VideoSet(["wave", "nod"], [], [], "data")
    data.entries += [
        Entry(make_clip(tmp_path / f"{i}.mp4", data.classes[i % 2], seed=i), i % 2) for i in range(4)
    ]
    (tmp_path / "bad.mp4").write_bytes(b"")
    data.entries.append(Entry(tmp_path / "bad.mp4", 0, "val"))
    for cached in ("off", "on"):
        out = train(data, epochs(small, 2, 1), tmp_path / cached, replace(TCNN, cache=cached, patience=None))
        assert [row["path"] for row in rows(out / "problems.csv")] == [str(tmp_path / "bad.mp4")]
        kept = weights(out)
        assert kept["tcnn/best/model.safetensors"] == kept["tcnn/last/model.safetensors"]


def test_nothing_can_be_decoded(tmp_path: Path, small: Recipe) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    data = VideoSet(["a", "b"], [Entry(tmp_path / "a.mp4", 0), Entry(tmp_path / "b.mp4", 1)], [], "bad")
    with pytest.raises(UserError, match="none of 2 videos could be decoded"):
        train(data, small, tmp_path / "run", PLAIN)
    with pytest.raises(UserError, match="no training videos"):
        train(VideoSet(["a"], [Entry(tmp_path / "a.mp4", 0, "test")], [], "x"), small, tmp_path / "r", PLAIN)


def test_a_row_listed_twice_is_still_trained_on(
    tmp_path: Path, make_clip: Callable[..., Path], small: Recipe
) -> None:
    paths = [make_clip(tmp_path / f"{name}.mp4", name) for name in ("wave", "nod")]
    text = "path,label\n" + "".join(f"{path},{path.stem}\n" for path in [*paths, paths[0]])
    (tmp_path / "list.csv").write_text(text)
    out = train(open_data(tmp_path / "list.csv"), small, tmp_path / "run", TCNN)
    assert len(rows(out / "videos.csv")) == 2 and len(rows(out / "problems.csv")) == 1


def test_held_out_groups_are_test_videos(clip_data: VideoSet, small: Recipe, tmp_path: Path) -> None:
    group = clip_data.entries[0].group
    assert group is not None
    data = replace(clip_data, entries=hold_out_groups(clip_data.entries, [group]))
    out = train(data, small, tmp_path / "run", TCNN)
    for row in rows(out / "videos.csv"):
        assert (row["split"] == "test") == (row["group"] == group)


# Refusals before any work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe,options,message",
    [
        ({"model": "resnet"}, {}, "tcnn_xs"),
        ({"attention_per": "pixel"}, {}, "frame, clip"),
        ({"tcnn": StageSettings(1, "sgd", 0.0, 0.0)}, {}, r"tcnn\.lr is 0\.0"),
        ({}, {"patience": 2}, "--set patience needs validation"),
        ({}, {"steps": ("joint",)}, "--init"),
        ({}, {"init": "no/such/run"}, "does not exist"),
        ({}, {"weights": "no/such/file.pth"}, "no/such/file.pth is no file"),
        ({}, {"weights": "w.pth", "init": "run"}, "--init and --weights exclude one another"),
        ({}, {"weights": "w.pth", "steps": ("joint",)}, "--weights is for stage 1"),
        ({}, {"precision": "17"}, "precision 17"),
        ({}, {"accelerator": "abacus"}, "accelerator abacus"),
        ({}, {"devices": "many"}, "devices many"),
        ({}, {"val_fraction": 1.0}, "fraction"),
    ],
)
def test_settings_are_refused_before_a_folder_is_made(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, recipe: dict, options: dict, message: str, said: Said
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(clip_data, replace(tiny, **recipe), tmp_path / "run", replace(PLAIN, **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists() and said() == []


@pytest.mark.parametrize("asked", ["bf16-mixed", "16-mixed"])  # of which Lightning makes bf16-mixed on a CPU
def test_a_precision_with_wrong_gradients_is_refused(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr("peakzoom.training.check.gradient_error", lambda _: 0.83)
    with pytest.raises(UserError, match=r"wrong gradients in precision bf16-mixed .* off by 83% .*32-true"):
        train(clip_data, tiny, tmp_path / "run", replace(PLAIN, precision=asked))
    assert not (tmp_path / "run").exists()


def test_the_check_of_the_settings_is_silent(tiny: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    """Also where no training came before it, as in a study: Lightning does not list the GPUs that it found."""
    lightning = logging.getLogger("lightning.pytorch")
    lightning.setLevel(logging.INFO)  # as importing it does
    lightning.addHandler(caplog.handler)
    try:
        check_settings(tiny, PLAIN, ["a", "b"], validates=False)
    finally:
        lightning.removeHandler(caplog.handler)
    assert caplog.records == []


@pytest.mark.parametrize("asked", ["bf16-mixed", "16-mixed"])
def test_a_precision_that_this_cpu_only_imitates_is_logged(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, asked: str, said: Said
) -> None:
    old = {"architecture": "x86_64", "avx2": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: old, raising=False)
    monkeypatch.setattr("peakzoom.training.check.gradient_error", lambda _: 0.003)
    check_settings(tiny, replace(PLAIN, precision=asked), ["a", "b"], validates=False)
    assert len([line for line in said() if "no instructions for bf16-mixed" in line]) == 1
    assert len([line for line in said() if "trains in precision bf16-mixed" in line]) == (asked == "16-mixed")


def test_changes_that_a_device_makes_give_the_same_weights(
    clip_data: VideoSet, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, run on the CPU, where the pixels are the same to the bit."""

    class Deferring(ViewMaker):
        defer = property(lambda _: True, lambda *_: None)  # type: ignore[assignment]

    options = replace(PLAIN, steps=("tcnn",))
    train(clip_data, small, tmp_path / "here", options)
    monkeypatch.setattr("peakzoom.training.stage.ViewMaker", Deferring)
    moved: list[bool] = []
    to = Batch.to
    monkeypatch.setattr(Batch, "to", lambda self, *how: moved.append(bool(self.changes)) or to(self, *how))
    train(clip_data, small, tmp_path / "there", options)
    assert True in moved
    one, other = (
        load_file(tmp_path / name / "tcnn" / "last" / "model.safetensors") for name in ("here", "there")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_loss_that_is_no_number_ends_the_training(
    clip_data: VideoSet, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves the epochs before it: the checkpoint of the first is whole, no weights are called trained."""
    recipe = replace(small, tcnn=replace(small.tcnn, epochs=3))
    run = Training._run

    def broken(self: Training, *arguments: object) -> object:
        output = run(self, *arguments)
        assert output.original is not None
        return replace(output, original=output.original * torch.nan) if self.current_epoch == 1 else output

    monkeypatch.setattr(Training, "_run", broken)
    with pytest.raises(UserError, match=r"no longer a finite number in epoch 2, step 3: .*--lr"):
        train(clip_data, recipe, tmp_path / "run", TCNN)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "tcnn" / "best" / "model.safetensors").exists()
    assert len(rows(tmp_path / "run" / "tcnn" / "metrics.csv")) == 1
    last = torch.load(tmp_path / "run" / "tcnn" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0 and all(value.isfinite().all() for value in last["state_dict"].values())


# Starting from a trained model -----------------------------------------------------------------------------------


def test_other_classes_get_a_new_head(run: Path, said: Said) -> None:
    trained = PeakZoom.from_pretrained(str(run / "tcnn" / "best")).backbone.state_dict()
    model = PeakZoom("tcnn_xs", 5, branches=("original",))
    head = model.backbone.fc.weight.detach().clone()
    start_from(model, run / "tcnn")
    assert torch.equal(model.backbone.fc.weight, head) and len(said()) == 1 and "starts anew" in said()[0]
    for name, value in model.backbone.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(value, trained[name])
    # The same number of classes, but others: a head of another meaning is no head.
    for classes, kept in ((["kick", "nod", "wave"], True), (["nod", "kick", "wave"], False)):
        model = PeakZoom("tcnn_xs", 3, branches=("original",), classes=classes)
        start_from(model, run / "tcnn")
        assert torch.equal(model.backbone.fc.weight, trained["fc.weight"]) == kept
    with pytest.raises(UserError, match="name its --model"):
        start_from(PeakZoom("tcnn_s", 3), run / "tcnn")


def frozen(recipe: Recipe) -> Recipe:
    """One epoch that leaves the weights as they are."""
    return replace(recipe, width=0.25, tcnn=replace(recipe.tcnn, lr=1e-30, final_lr=1e-30))


@pytest.mark.parametrize("classes", [3, 400])
def test_the_first_step_starts_from_public_weights(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, classes: int, said: Said
) -> None:
    torch.manual_seed(1)
    public = BACKBONES["tcnn_xs"](classes, width=0.25).state_dict()
    save_file(public, tmp_path / "public.safetensors")
    options = replace(TCNN, weights=str(tmp_path / "public.safetensors"))
    out = train(clip_data, frozen(tiny), tmp_path / "run", options)
    loaded = len(public) if classes == 3 else len(public) - 2
    assert f"{loaded} tensors of public.safetensors loaded" in said()
    assert ("the classifier of 400 classes was left out, this model has 3" in said()) == (classes == 400)
    assert [line for line in said() if "mean" in line] == [
        "pixels are normalised with mean 0.45,0.45,0.45 and std 0.225,0.225,0.225; "
        "the weights' own may differ: give it with --set preprocess.mean and --set preprocess.std"
    ]
    for name, value in PeakZoom.from_pretrained(str(out / "tcnn" / "last")).backbone.named_parameters():
        if classes == 3 or not name.startswith("fc."):
            assert torch.allclose(value, public[name], rtol=0, atol=1e-25), name

    # A resumed run asks for the same weights.
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "public.safetensors").read_bytes())
    for other in (None, str(tmp_path / "copy.safetensors")):
        with pytest.raises(UserError, match="begun with another options"):
            train(clip_data, frozen(tiny), out, replace(options, weights=other), resume=True)
    train(clip_data, frozen(tiny), out, options, resume=True)
    assert "tcnn: done before" in said()


def test_a_run_without_public_weights_is_recorded_as_ever(run: Path) -> None:
    asked = json.loads((run / "config.json").read_text(encoding="utf-8"))["options"]
    assert "weights" not in asked and "init" in asked


def test_a_normalisation_that_was_chosen_is_only_said(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, said: Said
) -> None:
    save_file(BACKBONES["tcnn_xs"](3, width=0.25).state_dict(), tmp_path / "public.safetensors")
    imagenet = replace(tiny.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    options = replace(TCNN, weights=str(tmp_path / "public.safetensors"))
    recipe = replace(frozen(tiny), preprocess=imagenet)
    out = train(clip_data, recipe, tmp_path / "run", options)
    assert "pixels are normalised with mean 0.485,0.456,0.406 and std 0.229,0.224,0.225" in said()
    assert load(out / "tcnn").preprocess.mean == (0.485, 0.456, 0.406)


def test_weights_of_another_network_are_refused_before_a_video_is_decoded(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path, said: Said
) -> None:
    save_file(BACKBONES["tcnn_xs"](3, width=0.5).state_dict(), tmp_path / "wide.safetensors")
    options = replace(TCNN, weights=str(tmp_path / "wide.safetensors"))
    with pytest.raises(UserError, match=r"is not of this network: .*name the --model"):
        train(clip_data, frozen(tiny), tmp_path / "run", options)
    assert not (tmp_path / "run").exists() and said() == []


def test_training_on_from_a_run_of_other_classes(
    run: Path, tmp_path: Path, make_clip: Callable[..., Path], tiny: Recipe, said: Said
) -> None:
    entries = [Entry(make_clip(tmp_path / f"{i}.mp4", "clap", seed=i), i % 2) for i in range(4)]
    data = VideoSet(["left", "right"], entries, [], "other")
    options = replace(PLAIN, steps=("joint",), init=str(run))
    out = train(data, tiny, tmp_path / "run", options)
    assert any("starts anew" in line for line in said())
    assert load(out).classes == ["left", "right"] and not (out / "tcnn").exists()


def test_the_joint_step_starts_where_the_first_ended(
    run: Path, clip_data: VideoSet, small: Recipe, tmp_path: Path
) -> None:
    frozen = replace(small, joint=replace(small.joint, lr=1e-30, final_lr=1e-30))
    out = train(clip_data, frozen, tmp_path / "run", PLAIN)
    first = PeakZoom.from_pretrained(str(out / "tcnn" / "best")).backbone
    second = PeakZoom.from_pretrained(str(out / "joint" / "best")).backbone
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_batch_norms_that_are_frozen_keep_the_statistics_of_stage_1(
    run: Path, clip_data: VideoSet, tiny: Recipe, tmp_path: Path
) -> None:
    """The weights move, the statistics stay; and a recipe without the key is recorded without it."""
    recipe = replace(tiny, joint=replace(tiny.joint, frozen_norms=True))
    out = train(clip_data, recipe, tmp_path / "run", replace(PLAIN, steps=("joint",), init=str(run / "tcnn")))
    first, frozen, moved = (
        PeakZoom.from_pretrained(str(each)).backbone.state_dict()
        for each in (run / "tcnn" / "best", out / "joint" / "best", run / "joint" / "best")
    )
    norms = [name for name in first if name.endswith(("running_mean", "running_var"))]
    assert len(norms) > 10 and all(torch.equal(frozen[name], first[name]) for name in norms)
    assert not any(torch.equal(moved[name], first[name]) for name in norms)
    weights = [name for name in first if name.endswith("weight")]
    assert not any(torch.equal(frozen[name], first[name]) for name in weights)
    asked = [json.loads((each / "config.json").read_text())["recipe"] for each in (run, out)]
    assert "frozen_norms" not in asked[0]["joint"] and asked[1]["joint"]["frozen_norms"] is True


def test_pickled_weights_are_refused(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((run / "tcnn" / "best" / "config.json").read_bytes())
    torch.save(
        PeakZoom.from_pretrained(str(run / "tcnn" / "best")).state_dict(), folder / "pytorch_model.bin"
    )
    for path in (folder, run / "tcnn" / "checkpoints", run / "tcnn" / "checkpoints" / "last.ckpt"):
        with pytest.raises(UserError, match="safetensors"):
            start_from(PeakZoom("tcnn_xs", 3), path)
        with pytest.raises(UserError, match="safetensors"):
            load(path)


def test_problems_of_the_list_are_told_too(clip_data: VideoSet, small: Recipe, tmp_path: Path) -> None:
    data = replace(clip_data, problems=[Problem("gone.mp4", "listed, but there is no such file")])
    out = train(data, small, tmp_path / "run", TCNN)
    assert rows(out / "problems.csv") == [{"path": "gone.mp4", "reason": "listed, but there is no such file"}]


def test_two_at_once_in_one_folder(
    clip_data: VideoSet, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second gets a sentence, also by another way to the folder, which is free again afterwards."""
    out = tmp_path / "runs" / "one"
    out.mkdir(parents=True)
    (tmp_path / "link").symlink_to(out)
    monkeypatch.chdir(out)
    with alone_in(out):
        for same in (tmp_path / "link", Path(), out / ".." / "one"):
            with pytest.raises(UserError, match="is being written by another process: wait for it"):
                train(clip_data, small, same, TCNN)
    out.rmdir()
    monkeypatch.chdir(tmp_path)
    with alone_in(out):
        for resume in (False, True):
            with pytest.raises(UserError, match=r"one is being written by another process: wait for it"):
                train(clip_data, small, out, TCNN, resume=resume)
    assert not list(out.parent.iterdir())
    with pytest.raises(UserError, match="there is nothing to resume"):
        train(clip_data, small, out, TCNN, resume=True)
