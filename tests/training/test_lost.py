"""Nothing lost: processes killed, disks full, files cut off; then the same command again, and the same bytes.

Every test compares with a run that nothing happened to. ``benchmarks/kills.py`` does the same at many more moments.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import begin, command, quick
from tiny import longer, made

from peakzoom.apps.batch.worker import Notes
from peakzoom.cli import main
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.evaluation.evaluate import evaluate, part_of, score_shard
from peakzoom.evaluation.faithfulness import measure_faithfulness
from peakzoom.evaluation.results import Evaluation
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.training.checkpoints import newest, read_checkpoint
from peakzoom.training.module import Training
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.training.train import train
from peakzoom.utils import durable
from peakzoom.utils.errors import UserError
from peakzoom.utils.journal import Journal, settings_file, whole_lines
from peakzoom.video.sampling import DecodedViews, Views

pytestmark = pytest.mark.usefixtures("no_curves")

OPTIONS = Options(val_fraction=0.3, workers=0, accelerator="cpu", progress=False)
ONE = replace(OPTIONS, steps=("tcnn",))
FEW = Views(clips=2, crops=1)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def go_on(data: VideoSet, recipe: Recipe, out: Path, options: Options = OPTIONS) -> None:
    """Train as a user would: with --resume, where there is something to resume."""
    train(data, recipe, out, options, (out / "config.json").exists())


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return longer(3, 1)


@pytest.fixture(scope="module")
def whole(clip_data: VideoSet, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    return train(clip_data, recipe, out, OPTIONS)


# Training --------------------------------------------------------------------------------------------------------


def trained_until(data: VideoSet, recipe: Recipe, out: Path, at: int) -> None:
    """Train, and be killed at the ``at``-th call of a function: no clock, so a busy machine changes nothing."""
    calls = 0

    def count(*event: object) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)

    quick()
    sys.setprofile(count if at else None)  # which takes longer than the training
    go_on(data, recipe, out)
    sys.setprofile(None)
    out.with_suffix(".calls").write_text(str(calls))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_training_killed_at_random_moments(
    clip_data: VideoSet, recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    def start(out: Path, at: int) -> int | None:
        child = begin(trained_until, clip_data, recipe, out, at)
        child.join()
        return child.exitcode

    assert start(tmp_path / "undisturbed", -1) == 0
    assert made(tmp_path / "undisturbed") == made(whole)
    every = int((tmp_path / "undisturbed.calls").read_text())
    draw, ends = random.Random(6), []
    for _ in range(3):
        ends.append(start(tmp_path / "run", int(draw.uniform(0.1, 0.45) * every)))
        if not ends[-1]:
            break
    assert ends.count(-signal.SIGKILL) >= 2 and set(ends) <= {-signal.SIGKILL, 0}
    assert start(tmp_path / "run", 0) == 0 and made(tmp_path / "run") == made(whole)


class Power(BaseException):
    """The process is gone: nothing after it may tidy up."""


class Disk:
    """Fails at the ``at``-th sync, which every file that counts goes through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fsync, self.calls, self.at, self.error = os.fsync, 0, -1, errno.ENOSPC
        monkeypatch.setattr(durable.os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(self.error, os.strerror(self.error))
        self.fsync(handle)


@pytest.fixture(scope="module")
def short(
    clip_data: VideoSet, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, dict[str, bytes], int]:
    """A T-CNN of two epochs, what comes of it, and how often it syncs."""
    recipe = replace(recipe, tcnn=replace(recipe.tcnn, epochs=2))
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        out = train(clip_data, recipe, tmp_path_factory.mktemp("short") / "run", ONE)
    return recipe, made(out), disk.calls


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_disk_is_full_at_a_write(
    clip_data: VideoSet,
    short: tuple[Recipe, dict[str, bytes], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    recipe, expected, syncs = short
    disk = Disk(monkeypatch)
    disk.at = 1 + round(share * (syncs - 1))
    disk.error = errno.EDQUOT if share == 0.6 else errno.ENOSPC
    reason = os.strerror(disk.error).lower()
    with pytest.raises(UserError, match=rf"{reason}.* free in .*: make room and ") as caught:
        train(clip_data, recipe, tmp_path / "run", ONE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("--resume" if (tmp_path / "run" / "config.json").exists() else "anew")
    for file in (tmp_path / "run").rglob("*.ckpt"):
        read_checkpoint(file)
    go_on(clip_data, recipe, tmp_path / "run", ONE)
    assert made(tmp_path / "run") == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.name == "nt" or os.geteuid() != 0:
        pytest.skip("a small file system is mounted by root alone")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_full(clip_data: VideoSet, recipe: Recipe, whole: Path, small_disk: Path) -> None:
    """Room for the best, the last and the previous checkpoint, and for half of another."""
    room = (whole / "tcnn" / "checkpoints" / "last.ckpt").stat().st_size * 7 // 2
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    with pytest.raises(UserError, match=r"(?i)no space left.*: make room and go on with --resume$"):
        train(clip_data, recipe, small_disk / "run", OPTIONS)
    kept = sorted((small_disk / "run" / "tcnn" / "checkpoints").iterdir())
    assert [file.name for file in kept] == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    for file in kept:
        read_checkpoint(file)
    (small_disk / "filler").unlink()
    go_on(clip_data, recipe, small_disk / "run")
    assert made(small_disk / "run") == made(whole)


@pytest.fixture(scope="module")
def gone(clip_data: VideoSet, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T-CNN whose process was gone after two of three epochs."""
    out = tmp_path_factory.mktemp("gone") / "run"

    def end(self: Training) -> None:
        if self.current_epoch == 2:
            raise Power

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "on_train_epoch_start", end, raising=False)
        with pytest.raises(Power):
            train(clip_data, recipe, out, ONE)
    assert sorted(file.name for file in (out / "tcnn" / "checkpoints").iterdir()) == [
        *["best.ckpt", "last.ckpt", "previous.ckpt"]
    ]
    return out


def stage(run: Path) -> dict[str, bytes]:
    """What a T-CNN leaves."""
    return {name: data for name, data in made(run).items() if name.startswith("tcnn")}


DAMAGE = [0, 1, 0.3, 0.9, -1, "flip", "zeros"]


def harm(file: Path, damage: float | str) -> None:
    """Cut a file off after a share of it, or but for its last byte; change one bit; fill it with zeros; remove it."""
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "flip":
        data[len(data) // 2] ^= 16
        file.write_bytes(data)
    elif damage == "zeros":
        file.write_bytes(bytes(len(data)))
    else:
        assert not isinstance(damage, str)
        file.write_bytes(data[: -1 if damage == -1 else int(damage * len(data)) if damage < 1 else 1])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_known(
    gone: Path, tmp_path: Path, damage: float | str, said: Callable[[], list[str]]
) -> None:
    kept = tmp_path / "checkpoints"
    shutil.copytree(gone / "tcnn" / "checkpoints", kept)
    assert newest(kept) == kept / "last.ckpt"
    assert [read_checkpoint(kept / f"{name}.ckpt")["epoch"] for name in ("last", "previous")] == [1, 0]
    harm(kept / "last.ckpt", damage)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_checkpoint(kept / "last.ckpt")
    assert newest(kept) == kept / "previous.ckpt"
    (line,) = said()
    assert line.startswith(f"{kept / 'last.ckpt'} is damaged (")
    assert line.endswith("the one before it is taken") and "\n" not in line


@pytest.mark.parametrize("damage", [0.5, "none left", "best"])
def test_a_damaged_checkpoint_changes_no_weight(
    clip_data: VideoSet,
    recipe: Recipe,
    whole: Path,
    gone: Path,
    tmp_path: Path,
    damage: float | str,
    said: Callable[[], list[str]],
) -> None:
    """And neither does a folder that was moved meanwhile: Lightning's own callback forgets its best epoch there."""
    run = tmp_path / "run"
    shutil.copytree(gone, run)
    kept = run / "tcnn" / "checkpoints"
    if damage == "none left":
        harm(kept / "last.ckpt", 0.5)
        harm(kept / "previous.ckpt", 0)
    elif damage == "best":
        harm(kept / "best.ckpt", 0.5)
    else:
        harm(kept / "last.ckpt", damage)
    train(clip_data, recipe, run, ONE, True)
    if damage in ("none left", "best"):
        assert any(line.endswith("this stage begins anew") for line in said())
    assert stage(run) == stage(whole)


class Code:
    """What runs when its pickle is read without care: it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.file),)


def spoil(kept: Path, names: list[str], form: str, ran: Path) -> None:
    """Make files of checkpoints that run code when they are read without care."""
    for name in names:
        file = kept / f"{name}.ckpt"
        state = {"code": Code(ran)}
        if form == "in a checkpoint":
            state = {**read_checkpoint(file), **state}
        file.unlink()  # last and previous may be two names of one file
        torch.save(state, file, _use_new_zipfile_serialization=form != "old")
        torch.load(file, weights_only=False)
        assert ran.is_dir()  # it would
        ran.rmdir()


@pytest.mark.parametrize("form", ["zip", "old", "in a checkpoint"])
@pytest.mark.parametrize("names", [["last"], ["best"], ["last", "previous", "best"]], ids="-".join)
def test_a_checkpoint_that_would_run_code_is_damaged(
    gone: Path, tmp_path: Path, names: list[str], form: str, said: Callable[[], list[str]]
) -> None:
    """Like any other: the one before it is taken, or the stage begins anew."""
    kept, ran = tmp_path / "checkpoints", tmp_path / "ran"
    shutil.copytree(gone / "tcnn" / "checkpoints", kept)
    spoil(kept, names, form, ran)
    assert newest(kept) == (None if "best" in names else kept / "previous.ckpt")
    assert not ran.exists()
    for name in set(names) - {"best"}:
        assert any(line.startswith(f"{kept / name}.ckpt is damaged (") for line in said())
    begun_anew = any(line.endswith("this stage begins anew") for line in said())
    assert begun_anew == ("best" in names) and all("\n" not in line for line in said())


def test_checkpoints_that_would_run_code_change_no_weight(
    clip_data: VideoSet, recipe: Recipe, whole: Path, gone: Path, tmp_path: Path
) -> None:
    run, ran = tmp_path / "run", tmp_path / "ran"
    shutil.copytree(gone, run)
    spoil(run / "tcnn" / "checkpoints", ["last", "previous", "best"], "in a checkpoint", ran)
    go_on(clip_data, recipe, run, ONE)
    assert not ran.exists() and stage(run) == stage(whole)


def test_a_stopped_run_that_is_moved_keeps_its_best_epoch(
    clip_data: VideoSet, recipe: Recipe, gone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch of a training that learns nothing new is the best; another folder must not change that."""
    run = tmp_path / "run"
    shutil.copytree(gone, run)
    kept = run / "tcnn" / "checkpoints"
    state = read_checkpoint(kept / "last.ckpt")
    (callback,) = (value for value in state["callbacks"].values() if value.get("monitor") == "val_score")
    assert callback["dirpath"] == str(gone / "tcnn" / "checkpoints")
    callback["best_model_score"] = callback["current_score"] = callback["kth_value"] = torch.tensor(9.0)
    callback["best_k_models"] = {path: torch.tensor(9.0) for path in callback["best_k_models"]}
    torch.save(state, kept / "last.ckpt")
    before = (kept / "best.ckpt").read_bytes()
    go_on(clip_data, recipe, run, ONE)
    assert (kept / "best.ckpt").read_bytes() == before  # no epoch has a score of 9


@pytest.mark.parametrize("left", [["config.json.part"], ["config.json"]])
def test_a_run_that_was_killed_before_it_began(
    clip_data: VideoSet, recipe: Recipe, whole: Path, tmp_path: Path, left: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    for name in left:
        content = (whole / "config.json").read_bytes() if name == "config.json" else b"{"
        (tmp_path / "run" / name).write_bytes(content)
    short = replace(OPTIONS, steps=("tcnn",)) if left != ["config.json"] else OPTIONS
    go_on(clip_data, recipe, tmp_path / "run", short)
    assert (tmp_path / "run" / "command.txt").exists()
    tcnn = {name: data for name, data in made(whole).items() if name.startswith("tcnn")}
    assert tcnn and tcnn.items() <= made(tmp_path / "run").items()


def test_what_a_stopped_run_has_met_is_still_listed(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path
) -> None:
    """A stage that is done looks at its videos no more, and without a cache only the stage meets a broken one."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 70)
    data = replace(clip_data, entries=[*clip_data.entries, Entry(broken, 1, "train")])
    options = replace(OPTIONS, val_fraction=0.0, cache="off")
    train(data, tiny, tmp_path / "run", options)
    listed = (tmp_path / "run" / "problems.csv").read_bytes()
    assert str(broken).encode() in listed
    go_on(data, tiny, tmp_path / "run", options)
    assert (tmp_path / "run" / "problems.csv").read_bytes() == listed


@pytest.mark.slow
def test_what_a_stopped_stage_has_met_is_still_listed(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path
) -> None:
    """Stopped between its last checkpoint and its end, a stage meets no video again: the checkpoint names them."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 70)
    data = replace(clip_data, entries=[*clip_data.entries, Entry(broken, 1, "train")])
    options = replace(ONE, val_fraction=0.0, cache="off")

    def end(self: Training) -> None:
        raise Power

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "on_fit_end", end, raising=False)
        with pytest.raises(Power):
            train(data, tiny, tmp_path / "run", options)
    last = read_checkpoint(tmp_path / "run" / "tcnn" / "checkpoints" / "last.ckpt")
    assert [path for path, _ in last["problems"]] == [str(broken)]
    assert str(broken) not in (tmp_path / "run" / "problems.csv").read_text(encoding="utf-8")
    go_on(data, tiny, tmp_path / "run", options)
    with (tmp_path / "run" / "problems.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [str(broken)]


# Predictions -----------------------------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["peakzoom", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code


QUICK = ["--num-clips", "2", "--crops", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips and one broken file among them."""
    out = tmp_path_factory.mktemp("camera")
    for index, clip in enumerate(sorted(clips.rglob("*.mp4"))[:5]):
        shutil.copy(clip, out / f"{'abdef'[index]}.mp4")
    (out / "c.mp4").write_bytes(b"no video" * 70)
    return out


@pytest.fixture(scope="module")
def answers(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("answers") / "whole.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "predict", run, folder, "--jsonl", file, *QUICK) == 1
    assert len(file.read_bytes().splitlines()) == 6
    return file.read_bytes()


@pytest.mark.slow
def test_predictions_go_on_from_every_byte(
    run: Path,
    folder: Path,
    answers: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A process may be killed after any byte of a line: all of the line's borders, and some bytes within."""
    file = tmp_path / "a.jsonl"
    command = ["predict", run, folder, "--jsonl", file, *QUICK, "--resume"]
    assert (
        call(monkeypatch, *command) == 1 and file.read_bytes() == answers
    )  # nothing to resume: from the start
    ends = np.cumsum([len(line) for line in answers.splitlines(keepends=True)]).tolist()
    draw = random.Random(0)
    cuts = {0, ends[0] - 1, ends[2], ends[3] + 1, ends[5] - 1, ends[5], draw.randrange(len(answers))}
    for cut in sorted(cuts):
        file.write_bytes(answers[:cut])
        capsys.readouterr()
        assert call(monkeypatch, *command) == 1
        assert file.read_bytes() == answers, cut
        done = sum(end <= cut for end in ends)
        shown = capsys.readouterr()
        assert f"{done} of 6 files were predicted before" in shown.err
        assert "1 of 6 files gave no prediction" in shown.err  # whoever met it
        assert sum(line.startswith(str(folder)) for line in shown.out.splitlines()) == len(
            [end for end in ends if end > cut and end != ends[2]]
        )
    file.write_bytes(answers[: ends[1]] + b"\0" * 100 + b"\n" + answers[ends[2] :])  # of a power cut
    assert call(monkeypatch, *command) == 1 and file.read_bytes() == answers
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.settings.json"]


def test_a_folder_that_has_grown_is_answered_in_what_is_new(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "camera")
    (tmp_path / "camera" / "a.mp4").rename(tmp_path / "a.mp4")
    command = ["predict", run, tmp_path / "camera", "--jsonl", tmp_path / "a.jsonl", *QUICK]
    assert call(monkeypatch, *command) == 1
    before = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.mp4").rename(tmp_path / "camera" / "a.mp4")
    assert call(monkeypatch, *command, "--resume") == 1
    after = (tmp_path / "a.jsonl").read_bytes()
    assert after.startswith(before)
    (line,) = after[len(before) :].splitlines()
    assert json.loads(line)["file"] == str(tmp_path / "camera" / "a.mp4")
    # A file that is named twice has two lines, whenever it was stopped.
    twice = [tmp_path / "camera" / "b.mp4"] * 2
    command = ["predict", run, *twice, "--jsonl", tmp_path / "b.jsonl", *QUICK]
    assert call(monkeypatch, *command) == 0
    lines = (tmp_path / "b.jsonl").read_bytes()
    assert len(lines.splitlines()) == 2
    (tmp_path / "b.jsonl").write_bytes(lines[: len(lines) // 2])
    assert call(monkeypatch, *command, "--resume") == 0 and (tmp_path / "b.jsonl").read_bytes() == lines


def test_other_settings_are_refused(
    run: Path,
    folder: Path,
    answers: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "a.jsonl"
    command = ["predict", run, folder, "--jsonl", file, *QUICK]
    assert call(monkeypatch, *command) == 1
    capsys.readouterr()
    for other, changed in [
        (["predict", run / "tcnn", *command[2:], "--resume"], "weights"),
        ([*command, "--resume", "--crops", "2"], "views"),
        ([*command, "--resume", "--clips", "slowfast"], "views"),
        ([*command, "--resume", "--top", "2"], "top"),
        (command, "exists"),
    ]:
        assert call(monkeypatch, *other) == 2
        assert changed in capsys.readouterr().err and file.read_bytes() == answers
    (tmp_path / "a.jsonl.settings.json").unlink()
    assert call(monkeypatch, *command, "--resume") == 2
    assert "does not say how it was made" in capsys.readouterr().err
    (tmp_path / "a.jsonl.settings.json").write_text("{")
    assert call(monkeypatch, *command, "--resume") == 2
    assert "damaged" in capsys.readouterr().err and file.read_bytes() == answers
    assert call(monkeypatch, "predict", run, folder, "--resume") == 2
    assert "--jsonl" in capsys.readouterr().err


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", {"a": 1}) as journal:
        journal.add({"b": 2})
        code = (
            "import sys; from pathlib import Path; from peakzoom.utils.journal import Journal\n"
            f"Journal(Path({str(tmp_path / 'a.jsonl')!r}), {{'a': 1}}, True)"
        )
        other = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert "UserError" in other.stderr and "another process" in other.stderr
    assert (tmp_path / "a.jsonl").read_text() == '{"b": 2}\n'
    with Journal(tmp_path / "a.jsonl", {"a": 1}, resume=True) as journal:
        assert journal.lines == [{"b": 2}]


def test_every_line_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a journal and of a worker's notes; and their names are, which a power cut would take with every line."""
    fsync, synced = os.fsync, []

    def recording(handle: int) -> None:
        fsync(handle)
        found = os.fstat(handle)
        synced.append((found.st_ino, 0 if stat.S_ISDIR(found.st_mode) else found.st_size))

    monkeypatch.setattr(os, "fsync", recording)
    for file in (tmp_path / "a.jsonl", tmp_path / "notes.jsonl"):
        writing = Journal(file, {}) if file.stem == "a" else Notes(file)
        with writing:
            assert synced[-1] == (tmp_path.stat().st_ino, 0) and file.exists()
            for number in range(3):
                synced.clear()
                writing.add({"number": number}) if isinstance(writing, Journal) else writing.begin(number)
                assert synced == [(file.stat().st_ino, file.stat().st_size)]
                assert file.read_bytes().count(b"\n") == number + 1


@pytest.mark.parametrize(
    "data,lines",
    [
        (b"", 0), (b"{}", 0), (b"{}\n", 1), (b'{"a": 1}\n{"a": 2', 1), (b'{"a": 1}\n{"a": 2}', 1),
        (b'{}\n\0\0\n{}\n', 1), (b"{}\n[]\n{}\n", 1), (b"{}\n\n{}\n", 1), (b'{}\n"\xff"\n', 1), (b"{}\n" * 9, 9),
    ],
)  # fmt: skip
def test_lines_that_count(data: bytes, lines: int) -> None:
    found, end = whole_lines(data)
    assert len(found) == lines and data[:end].count(b"\n") == lines


@pytest.mark.slow
def test_a_full_disk_while_predicting(
    run: Path,
    folder: Path,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """So many lines that they need several pages of the file system, of which it has one for them."""
    page = os.statvfs(small_disk).f_frsize
    clip, whole, file = folder / "a.mp4", tmp_path / "whole.jsonl", small_disk / "a.jsonl"
    assert call(monkeypatch, "predict", run, clip, "--jsonl", whole, *QUICK) == 0
    count = 2 * page // whole.stat().st_size + 1
    command = ["predict", run, *[clip] * count, *QUICK, "--jsonl"]
    whole.unlink()
    settings_file(whole).unlink()
    assert call(monkeypatch, *command, whole) == 0 and whole.stat().st_size > 2 * page
    filler = small_disk / "filler"
    settings = -(-settings_file(whole).stat().st_size // page)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - (settings + 1) * page))
    capsys.readouterr()
    assert call(monkeypatch, *command, file) == 2
    shown = capsys.readouterr().err
    (said,) = shown.strip().splitlines()
    assert said.startswith(f"error: {file} could not be written (no space left on device; 0 bytes free in ")
    assert said.endswith("make room and go on with --resume")
    kept = len(whole_lines(file.read_bytes())[0])
    assert 0 < kept < count and whole.read_bytes().startswith(file.read_bytes())
    filler.unlink()
    assert call(monkeypatch, *command, file, "--resume") == 0
    assert f"{kept} of {count} files were predicted before" in capsys.readouterr().err
    assert file.read_bytes() == whole.read_bytes()


# Evaluations -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    return load(run, "cpu")


@pytest.fixture(scope="module")
def videos(clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    """Seven videos, one of them broken."""
    broken = tmp_path_factory.mktemp("broken") / "broken.mp4"
    broken.write_bytes(b"no video" * 70)
    test = [entry for entry in clip_data.entries if entry.split == "test"]
    return replace(clip_data, entries=[*test[:3], Entry(broken, 1, "test"), *test[3:]])


@pytest.fixture(scope="module")
def scores(
    recognizer: Recognizer,
    videos: VideoSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("scores") / "out"
    evaluate(recognizer, videos, out, FEW, progress=False)
    assert not part_of(out).exists()
    with (out / "scores.csv").open(newline="", encoding="utf-8") as stream:
        assert len({row["path"] for row in csv.DictReader(stream)}) == 6
    return files(out)


def dying(after: int) -> Callable[[Recognizer, DecodedViews], Prediction]:
    """Scores so many videos; then the process is gone."""
    score, left = Recognizer.score, after

    def scoring(self: Recognizer, views: DecodedViews) -> Prediction:
        nonlocal left
        if not left:
            raise Power
        left -= 1
        return score(self, views)

    return scoring


@pytest.mark.parametrize("after,torn", [(0, 0), (3, 40), (5, 1)])
def test_an_evaluation_goes_on(
    recognizer: Recognizer,
    videos: VideoSet,
    scores: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    torn: int,
) -> None:
    """Killed after so many videos, and so many bytes of the last line never reached the disk."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Recognizer, "score", dying(after))
        with pytest.raises(Power):
            evaluate(recognizer, videos, out, FEW, progress=False)
    assert not out.exists()
    file = part_of(out) / "rest.jsonl"
    file.write_bytes(file.read_bytes()[: -torn or None])
    kept = len(whole_lines(file.read_bytes())[0])
    if kept:
        with pytest.raises(UserError, match="not complete: go on with --resume"):
            evaluate(recognizer, videos, out, FEW, progress=False)
    for other in ({"views": Views(clips=3, crops=1)}, {"data": replace(videos, entries=videos.entries[:5])}):
        asked = {"views": FEW, "data": videos, **other}
        with pytest.raises(UserError, match=r"begun with another (views|videos)"):
            evaluate(recognizer, out=out, progress=False, resume=True, **asked)  # type: ignore[arg-type]
    told: list[tuple[int, int]] = []
    evaluate(recognizer, videos, out, FEW, progress=lambda *each: told.append(each), resume=True)
    assert told == [(done, 7) for done in range(kept + 1, 8)]  # no video a second time
    assert files(out) == scores and not part_of(out).exists()
    with pytest.raises(UserError, match="not empty"):
        evaluate(recognizer, videos, out, FEW, progress=False, resume=True)


def test_an_evaluation_that_was_complete_but_for_tidying_up(
    recognizer: Recognizer,
    videos: VideoSet,
    scores: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after its folder appeared, before what it was made from was removed."""
    out = tmp_path / "out"

    def power(_: object) -> None:
        raise Power

    with monkeypatch.context() as patch:
        patch.setattr("peakzoom.evaluation.evaluate.shutil.rmtree", power)
        with pytest.raises(Power):
            evaluate(recognizer, videos, out, FEW, progress=False)
    assert files(out) == scores and part_of(out).exists()
    with pytest.raises(UserError, match="not empty"):
        evaluate(recognizer, videos, out, FEW, progress=False)
    evaluate(recognizer, videos, out, FEW, progress=False, resume=True)
    assert files(out) == scores and not part_of(out).exists()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_disk_is_full_while_evaluating(
    recognizer: Recognizer,
    videos: VideoSet,
    scores: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    disk = Disk(monkeypatch)
    evaluate(recognizer, videos, tmp_path / "whole", FEW, progress=False)
    disk.at, disk.calls = 1 + round(share * (disk.calls - 1)), 0
    with pytest.raises(UserError, match=r"(?i)no space left.*: make room and go on with --resume$"):
        evaluate(recognizer, videos, tmp_path / "out", FEW, progress=False)
    if not (tmp_path / "out").exists():  # else it failed after the folder had its name
        evaluate(recognizer, videos, tmp_path / "out", FEW, progress=False, resume=True)
    assert files(tmp_path / "out") == scores


@pytest.mark.parametrize("count", [1, 3, 9])
def test_shards_count_every_video_once(
    recognizer: Recognizer,
    videos: VideoSet,
    scores: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """Seven videos on as many processes or more, or numbers that do not divide them; one of the processes dies."""
    out = tmp_path / "out"
    shares = []
    for number in range(count, 0, -1):
        with monkeypatch.context() as patch:
            if number == 1:
                patch.setattr(Recognizer, "score", dying(1))
                try:
                    score_shard(recognizer, videos, out, (number, count), FEW, progress=False)
                except Power:
                    continue
            else:
                score_shard(recognizer, videos, out, (number, count), FEW, progress=False)
        lines = whole_lines((part_of(out) / f"shard-{number}-of-{count}.jsonl").read_bytes())[0]
        shares += [line["video"] for line in lines]
    assert len(shares) == len(set(shares))
    if count == 3:  # the one that died, after one score and a broken file, is started again, and goes on
        assert score_shard(recognizer, videos, out, (1, 3), FEW, progress=False) == (3, 2)
        assert score_shard(recognizer, videos, out, (1, 3), FEW, progress=False) == (3, 3)
    evaluate(recognizer, videos, out, FEW, progress=False, resume=True)
    assert files(out) == scores and not part_of(out).exists()
    with pytest.raises(UserError, match="expected such as 1/4"):
        score_shard(recognizer, videos, tmp_path / "b", (count + 1, count), FEW)


@pytest.fixture(scope="module")
def faithful(
    recognizer: Recognizer, videos: VideoSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Evaluation]:
    out = tmp_path_factory.mktemp("faithful") / "out"
    return out, evaluate(recognizer, videos, out, FEW, progress=False, faithfulness=True)


def test_the_broken_one_takes_no_draw_from_those_behind_it(
    recognizer: Recognizer, videos: VideoSet, faithful: tuple[Path, Evaluation]
) -> None:
    """The fourth."""
    whole = faithful[1].faithfulness
    assert whole is not None
    assert str(videos.entries[3].path) not in [each.path for each in whole.drops]
    others = [each for each in videos.entries if each != videos.entries[3]]
    assert measure_faithfulness(recognizer, others, FEW, progress=False).drops == whole.drops


def test_faithfulness_goes_on(
    recognizer: Recognizer,
    videos: VideoSet,
    scores: dict[str, bytes],
    faithful: tuple[Path, Evaluation],
    tmp_path: Path,
) -> None:
    """Killed after it blurred three videos: the broken one is the first to be met when it goes on."""
    call = partial(evaluate, recognizer, videos, tmp_path / "out", FEW, faithfulness=True)
    told: list[tuple[int, int]] = []

    def dying(*each: int) -> None:
        told.append(each)
        if len(told) == 7 + 3:  # the first seven are scores
            raise Power

    with pytest.raises(Power):
        call(progress=dying)
    assert not (tmp_path / "out").exists()
    told.clear()
    found = call(progress=lambda *each: told.append(each), resume=True)
    assert told == [(done, 7) for done in range(4, 8)]
    made = files(tmp_path / "out")
    assert made == files(faithful[0]) and not part_of(tmp_path / "out").exists()
    assert {"faithfulness.csv", "faithfulness.json"} == made.keys() - scores.keys()
    assert scores.items() <= made.items()
    assert found.faithfulness == faithful[1].faithfulness and found.faithfulness is not None


def test_a_shard_that_is_still_running_is_waited_for(
    recognizer: Recognizer, videos: VideoSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score_shard(recognizer, videos, out, (1, 2), FEW, progress=False)
    settings = json.loads((part_of(out) / "shard-1-of-2.jsonl.settings.json").read_text())
    with (
        Journal(part_of(out) / "shard-1-of-2.jsonl", settings, resume=True),
        pytest.raises(UserError, match="still being written"),
    ):
        evaluate(recognizer, videos, out, FEW, progress=False, resume=True)


@pytest.fixture(scope="module")
def evaluated(run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], Path]:
    """A command but for its folder, and what it leaves; of a copy of the run, for the model card is renewed."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(run, folder / "run")
    command = ["evaluate", folder / "run", clips / "clips.csv", *QUICK, "--out"]
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, *command, folder / "whole") == 0
    return command, folder / "whole"


def test_evaluations_and_shards_from_the_command_line(
    evaluated: tuple[list[object], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, whole = evaluated
    for number in (1, 2, 3, 4):
        assert call(monkeypatch, *command, tmp_path / "out", "--shard", f"{number}/4") == 0
    assert "Shard 4/4: 1 of 6 videos scored" in capsys.readouterr().out
    assert call(monkeypatch, *command, tmp_path / "out") == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert call(monkeypatch, *command, tmp_path / "out", "--resume") == 0
    assert files(tmp_path / "out") == files(whole)
    for wrong in ("5/4", "0/4", "2", "a/b", "1/2/3"):
        assert call(monkeypatch, *command, tmp_path / "c", "--shard", wrong) == 2
        assert f"--shard is {wrong!r}" in capsys.readouterr().err
    assert call(monkeypatch, *command, tmp_path / "c", "--shard", "1/2", "--resume") == 2
    assert not (tmp_path / "c").exists() and not part_of(tmp_path / "c").exists()


def beside(other: str, *words: str) -> None:
    """In a process of its own: it goes on from its first line when the other shard has one too."""
    add = Journal.add

    def adding(self: Journal, line: dict[str, Any]) -> None:
        add(self, line)
        late = time.monotonic() + 60
        while not (Path(other).exists() and Path(other).stat().st_size):
            assert time.monotonic() < late, "the other shard has not begun"
            time.sleep(0.01)

    Journal.add = adding  # type: ignore[method-assign]
    command(*words)


@pytest.mark.slow
def test_shards_by_two_processes_at_the_same_time(
    evaluated: tuple[list[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked, whole), out = evaluated, tmp_path / "out"
    lines = [part_of(out) / f"shard-{number}-of-2.jsonl" for number in (1, 2)]
    both = [
        begin(
            beside,
            *map(str, [other, *asked, out, "--shard", f"{number}/2"]),
            err=tmp_path / f"said-{number}",
        )
        for number, other in ((1, lines[1]), (2, lines[0]))
    ]
    for number, child in enumerate(both, 1):
        child.join()
        assert child.exitcode == 0, (tmp_path / f"said-{number}").read_text("utf-8")
    with (whole / "scores.csv").open(newline="", encoding="utf-8") as stream:
        videos = sorted({row["path"] for row in csv.DictReader(stream)})
    scored = [line["path"] for file in lines for line in whole_lines(file.read_bytes())[0]]
    assert sorted(scored) == videos and len(videos) == 6
    scoring: list[Path] = []
    monkeypatch.setattr(Recognizer, "score", lambda self, views: scoring.append(views.path))
    assert call(monkeypatch, *asked, out, "--resume") == 0
    assert not scoring and files(out) == files(whole) and not part_of(out).exists()
