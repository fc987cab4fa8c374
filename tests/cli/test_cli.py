"""The command line: help with examples, one sentence for a mistake, and results that a program can read."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from terminal import environment, in_terminal

import peakzoom
from peakzoom import cli
from peakzoom.cli.evaluate import show_pointing
from peakzoom.cli.inputs import new_file
from peakzoom.cli.study import _starts
from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.pointing import PointedFrame, Pointing
from peakzoom.hub.card import update_card
from peakzoom.inference.recognizer import load
from peakzoom.model.config import BRANCHES
from peakzoom.model.public import public_weights
from peakzoom.model.starts import starts
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, paper, small, spatial
from peakzoom.utils.errors import DecodeError
from peakzoom.video.sampling import Views

pytestmark = pytest.mark.usefixtures("no_curves")
ESCAPE = "\x1b"
QUICK = ["--num-clips", "1", "--crops", "1", "--device", "cpu"]


@dataclass
class Result:
    code: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture(scope="module")
def run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of all tests: evaluating it writes its model card anew."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("cli") / "run", symlinks=True))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["peakzoom", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        code = left.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


def mistake(result: Result) -> str:
    """The sentence of a user's mistake: alone on standard error, exit code 2."""
    assert result.code == 2, result
    lines = [
        line for line in result.err.splitlines() if not line.startswith("read as ")
    ]  # how data were taken
    assert len(lines) == 1 and lines[0].startswith("error: "), result.err
    assert "Traceback" not in result.err and ESCAPE not in result.err
    return lines[0]


# Help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        *(
            ["quickstart"],
            ["train"],
            ["recipe"],
            ["weights"],
            ["evaluate"],
            ["predict"],
            ["explain"],
            ["watch"],
        ),
        *(["report"], ["serve"], ["calibrate"], ["export"], ["push"], ["ablate"], ["compare"]),
        *(["data", "check"], ["data", "render"]),
    ],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(call: Call, command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.code == 0 and result.err == ""
    assert "Example" in result.out
    assert f"peakzoom {' '.join(command)}" in " ".join(result.out.split())
    assert ESCAPE not in result.out


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_examples_stand_one_a_line(call: Call, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    lines = call("predict", "--help").out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() == "Examples:")
    last = next(number for number, line in enumerate(lines) if "Arguments" in line)
    examples = [line.strip() for line in lines[first + 1 : last] if line.lstrip().startswith("•")]
    assert len(examples) == 3 and all(each.startswith("• peakzoom predict runs/first") for each in examples)
    assert examples[0] == "• peakzoom predict runs/first clip.mp4"
    assert max(map(len, lines)) <= columns


def test_no_command(call: Call) -> None:
    for arguments in ([], ["data"], ["--help"]):
        result = call(*arguments)
        assert "Commands" in result.out + result.err and "Traceback" not in result.err
        assert result.code == (0 if arguments == ["--help"] else 2)


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments,said",
    [
        ("tarin", "No such command"),
        ("train", "Missing argument"),
        ("train {clips}", "--out"),
        ("train {clips} --out {new} --frobnicate", "--frobnicate"),
        ("train {tmp}/gone --out {new}", "does not exist"),
        ("train {tmp}/empty --out {new}", "no videos"),
        ("train {tmp}/loose --out {new}", "no class folders"),
        ("train {tmp}/single --out {new}", "one class"),
        (
            "train {clips} --out {new} --recipe large",
            "expected small, spatial, finetune, paper, quickstart, or a file",
        ),
        ("train {clips} --out {new} --recipe {clips}", "no TOML"),
        ("train {clips} --out {new} --recipe {tmp}/empty", "or a file"),
        ("train {clips} --out {new} --model resnet", "tcnn_xs"),
        ("train {clips} --out {new} --steps three", "joint"),
        ("train {clips} --out {new} --steps joint", "--init"),
        ("train {clips} --out {new} --set branches=OD", "original, discriminative, complementary"),
        ("train {clips} --out {new} --init {tmp}/gone", "does not exist"),
        ("train {clips} --out {new} --weights {tmp}/gone.pth", "gone.pth is no file"),
        ("train {clips} --out {new} --weights {clips}", "cannot be read|no weight file"),
        ("train {clips} --out {new} --weights {tmp}/gone.pth --init {run}", "exclude one another"),
        ("train {clips} --out {new} --weights {tmp}/gone.pth --steps joint", "--weights is for stage 1"),
        ("train {clips} --out {new} --set preprocess.mean=0.5,0.5", "a list of 3 values"),
        ("train {clips} --out {new} --set preprocess.mean=a,b,c", "a number"),
        ("train {clips} --out {new} --set preprocess.mean=123.7,116.3,103.5", "from 0 to 1"),
        ("train {clips} --out {new} --set preprocess.std=0.2,0,0.2", "above 0 up to 1"),
        ("train {clips} --out {new} --set preprocess.std=0.2,nan,0.2", "above 0 up to 1"),
        ("train {clips} --out {new} --epochs 0", "tcnn.epochs is 0"),
        ("train {clips} --out {new} --epochs many", "--epochs"),
        ("train {clips} --out {new} --lr 0", "tcnn.lr is 0.0"),
        ("train {clips} --out {new} --lr nan", "tcnn.lr is nan"),
        ("train {clips} --out {new} --seed -1", "--seed"),
        ("train {clips} --out {new} --size 16", "preprocess.size is 16"),
        ("train {clips} --out {new} --set preprocess.fps=0", "preprocess.fps is 0"),
        ("train {clips} --out {new} --set attention_per=pixel", "frame, clip"),
        ("train {clips} --out {new} --set dropout", "expected KEY=VALUE"),
        ("train {clips} --out {new} --set droput=0.2", "did you mean dropout"),
        ("train {clips} --out {new} --set lr=0.2", "--set has no lr, which is an option: --lr 0.2"),
        ("train {clips} --out {new} --set patiense=2", "did you mean patience"),
        ("train {clips} --out {new} --set patience=0", "1 or more"),
        ("train {clips} --out {new} --set cache=maybe", "auto, on, off"),
        ("train {clips} --out {new} --precision 17", "precision 17"),
        ("train {clips} --out {new} --set accelerator=abacus", "abacus"),
        ("train {clips} --out {new} --set num_nodes=two", "a whole number"),
        ("train {clips} --out {new} --accelerator=cpu", "--accelerator is given as --set accelerator=cpu"),
        (
            "train {clips} --out {new} --set preprocess.stride=4",
            "--set has no preprocess.stride: did you mean stride?",
        ),
        ("train {clips} --out {new} --set fames=8", "did you mean preprocess.frames?"),
        ("train {clips} --out {new} --set seed=8", "--set has no seed, which is an option: --seed 8"),
        ("train {clips} --out {new} --size 64 --set preprocess.size=96", "give one of them"),
        ("train {clips} --out {new} --no-flip", "--no-flip is given as --set augment.flip=false"),
        ("ablate {clips} --out {new} --stride 4", "--stride is given as --set stride=4"),
        ("predict {run} {clips} --stride 4", "No such option"),
        ("train {clips} --out {new} --val-fraction 1", "--val-fraction"),
        ("train {clips} --out {new} --val-fraction 0 --set patience=3", "--set patience needs"),
        ("train {clips} --out {new} --test-groups nobody", "unknown group 'nobody'"),
        ("train {clips} --out {new} --test-groups ,", "no group"),
        ("train {clips} --out {new} --split-number 4", "1, 2 or 3"),
        ("train {clips} --out {new} --format ucf101", "folder"),
        ("train {clips} --out {new} --resume", "nothing to resume"),
        ("train {clips} --out {run}", "not empty"),
        ("train {clips} --out {clips}", "is a file"),
        ("evaluate {tmp}/gone", "does not exist"),
        ("evaluate {tmp}/empty", "no trained model"),
        ("evaluate {run} {tmp}/gone", "does not exist"),
        ("evaluate {run} --split nonsense", "nonsense"),
        ("evaluate {run} --clips tsm", "tsm-dense"),
        ("evaluate {run} --num-clips 0", "at least 1"),
        ("evaluate {run} --crops 0", "at least 1"),
        ("evaluate {run} --out {run}", "not empty"),
        ("evaluate {run} --out {clips}", "is a file"),
        ("evaluate {run} --device abacus", "abacus"),
        ("predict {run}", "Missing argument"),
        ("predict {tmp}/gone {clips}", "does not exist"),
        ("predict owner/name {clips}", "no folder here"),
        ("predict {run} {tmp}/empty", "without videos"),
        ("predict {run} {clips} --clips dense", "paper"),
        ("predict {run} {clips} --top 0", "--top"),
        ("predict {run} {clips} --jsonl {clips}", "exists"),
        (
            "predict {run} {video} --jsonl {new} --csv {new}",
            "--jsonl and --csv would both write {new}: name another",
        ),
        ("predict {run} {video} --jsonl {new} --csv {tmp}/empty/../new", "would both write"),
        ("predict {run} {video} --jsonl {new} --csv {tmp}/link/new --resume", "would both write"),
        ("predict {run} {video} --jsonl {new} --csv {tmp}/to_new", "would both write"),
        ("predict {run} {video} --jsonl {new} --csv {new}.settings.json", "would both write"),
        ("predict {run} {video} --jsonl {new} --csv {new}.lock", "would both write"),
        ("predict {run} {video} --jsonl {new}.lock --csv {new}", "would both write"),
        ("predict {run} {clips} --jsonl {tmp}/no/such/folder.jsonl", "no folder"),
        ("evaluate {run} --faithfulness --cascade", "ask for one of them"),
        ("evaluate {run} --places {clips} --shard 1/2", "--places is for all"),
        ("evaluate {run} --places {clips}", "has no column 'frame'"),
        ("explain {run}", "Missing argument"),
        ("explain {tmp}/gone {video}", "does not exist"),
        ("explain {run} {tmp}/gone.mp4 --out {new}", "no such file"),
        ("explain {run} {clips} --out {new}", "is a text, not a video"),
        ("explain {run} {video} --out {new} --class swim", "no class is called 'swim', expected one of"),
        ("explain {run} {video} --out {new} --crop 3", "crop is 3, expected 0 to 2"),
        ("explain {run} {video} --out {run}", "not empty"),
        ("explain {run} {video} --out {clips}", "is a file"),
        ("report {tmp}/gone", "does not exist"),
        ("report {run}", "holds no evaluation"),
        # What a path was probably meant to be.
        ("train {tmp}/clases --out {new}", "does not exist: did you mean {tmp}/classes?"),
        ("train {tmp}/dangling --out {new}", "is a link that leads nowhere"),
        ("train {tmp}/classes --out {new} --splits {tmp}/clases", "did you mean {tmp}/classes?"),
        ("evaluate {run} {tmp}/clases", "did you mean {tmp}/classes?"),
        ("evaluate {run} --places {tmp}/clases", "did you mean {tmp}/classes?"),
        ("calibrate {run} {tmp}/clases", "did you mean {tmp}/classes?"),
        ("calibrate {tmp}/clases", "did you mean {tmp}/classes?"),
        ("ablate {tmp}/clases --out {new}", "did you mean {tmp}/classes?"),
        ("compare {tmp}/clases --out {new}", "did you mean {tmp}/classes?"),
        ("report {tmp}/clases", "did you mean {tmp}/classes?"),
        ("data check {tmp}/clases", "did you mean {tmp}/classes?"),
        ("data check {clips} --against {tmp}/clases", "did you mean {tmp}/classes?"),
        ("data convert {tmp}/clases {new} --to cvat", "did you mean {tmp}/classes?"),
        ("data prepare ucf101 {tmp}/clases", "did you mean {tmp}/classes?"),
        ("export {tmp}/clases --to onnx", "did you mean {tmp}/classes?"),
        ("push {tmp}/clases owner/name", "did you mean {tmp}/classes?"),
        ("predict {run} {tmp}/clases --on ray --out {new}", "did you mean {tmp}/classes?"),
        ("serve {run} --examples {tmp}/clases", "did you mean {tmp}/classes?"),
        ("serve {run} --examples {tmp}/xyz", "does not exist: expected a folder of clips to try"),
        ("serve {run} --examples {tmp}/empty", "without videos"),
        ("watch {run} {video}#t=0,1", "is a segment, and whole files are watched: name {video}"),
        ("propose {run} {video}#t=0,1 --to cvat --out {new}", "whole files are watched: name {video}"),
        ("predict {run} {video}#t=2,1 --on ray --out {new}", "an end after the start"),
        ("predict {run} memory://a.mp4#t=0,1 --on ray --out {new}", "taken of files on a disk only"),
        ("ablate {clips}", "--out"),
        ("ablate {clips} --out {new} --model resnet", "tcnn_xs"),
        ("ablate {clips} --out {new} --seeds 0,one", "whole numbers, as 0,1,2"),
        ("ablate {clips} --out {new} --seeds ,", "whole numbers, as 0,1,2"),
        ("ablate {clips} --out {new} --fold p00,nobody", "unknown group 'nobody'"),
        ("ablate {clips} --out {new} --fold {train} --fold {train}", "in two folds"),
        ("ablate {clips} --out {new} --fold {train} --leave-one-group-out", "exclude one another"),
        ("ablate {clips} --out {new} --split-numbers 1,2 --leave-one-group-out", "exclude one another"),
        ("ablate {clips} --out {new} --split-numbers 1,4", "1, 2 or 3"),
        ("ablate {tmp}/classes --out {new}", "no test videos"),
        ("ablate {tmp}/classes --out {new} --leave-one-group-out", "without one"),
        ("ablate {clips} --out {new} --init tcnn_s={run}", "expected NAME=RUN with NAME one of tcnn_xs"),
        ("ablate {clips} --out {new} --init tcnn_xs_local={tmp}/gone", "does not exist"),
        ("ablate {clips} --out {new} --lr 0", "tcnn.lr is 0.0"),
        ("ablate {clips} --out {new} --set preprocess.std=1,2,3", "above 0 up to 1"),
        ("ablate {clips} --out {new} --crops 0", "at least 1"),
        ("ablate {clips} --out {clips}", "is a file"),
        ("ablate {clips} --out {run}", "holds no study"),
        ("compare {clips} --out {new} --models resnet", "tcnn_xs"),
        ("compare {clips} --out {new} --models tcnn_xs,", "--models has ''"),
        ("compare {clips} --out {new} --spatial tsm", "expected all, none or some of tcnn_xs"),
        ("compare {clips} --out {new} --seeds 1-3", "whole numbers, as 0,1,2"),
        ("compare {clips} --out {new} --fold nobody", "unknown group 'nobody'"),
        ("compare {clips} --out {new} --cost 100000", "no width reaches"),
        ("compare {clips} --out {new} --models tcnn_xs,tsm --init tsm={run}", "--init has no tcnn_xs"),
        ("compare {clips} --out {new} --rounds 0", "--rounds"),
        ("compare {clips} --out {new} --width 0.5", "--width"),
        ("data", "check"),
        ("data chekc", "No such command"),
        ("data check", "Missing argument"),
        ("data check {tmp}/gone", "does not exist"),
        ("data check {clips} --format films", "--format"),
        ("data check {clips} --out {clips}", "exists"),
        ("data check {clips} --workers 0", "--workers"),
        ("data render {run}", "not an empty folder"),
        ("data render {clips}", "not an empty folder"),
        ("data render {new} --train-clips 0 --test-clips 0", "at least one clip"),
        ("data render {new} --train-clips -1", "--train-clips"),
        ("data render {new} --difficulty 2", "--difficulty"),
        ("data render {new} --test-share 1", "share between 0 and 1"),
        ("data render {new} --performers 1", "give more performers"),
        ("data render {new} --height 33", "even sides"),
        ("data render {new} --workers 0", "--workers"),
        ("quickstart --out {run}", "not empty"),
        ("quickstart --out {clips}", "is a file"),
        ("quickstart --out {new} --train-clips 0", "--train-clips"),
        ("quickstart --out {new} --seed -1", "--seed"),
    ],
)
def test_mistakes_are_one_sentence(
    call: Call, run: Path, clips: Path, clip_data: VideoSet, tmp_path: Path, arguments: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("loose", "single/wave", "classes/nod", "classes/wave"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.mp4").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "to_new").symlink_to(tmp_path / "new")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    places = {"clips": clips / "clips.csv", "run": run, "tmp": tmp_path, "new": tmp_path / "new"}
    places["video"] = clip_data.entries[-1].path
    places["train"] = next(entry.group for entry in clip_data.entries if entry.split == "train")
    before = sorted(run.rglob("*"))
    result = call(*[word.format(**places) for word in arguments.split()])
    if arguments == "data":  # help is the answer
        assert result.code == 2 and said in result.out + result.err
        return
    assert any(each.format(**places) in mistake(result) for each in said.split("|"))
    assert result.out == ""
    assert not (tmp_path / "new").exists() and sorted(run.rglob("*")) == before


def test_what_is_not_installed_is_named(call: Call, monkeypatch: pytest.MonkeyPatch, clips: Path) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    for name in ("peakzoom.training.train", "peakzoom.training.stage", "peakzoom.cli.quickstart_run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    said = mistake(call("train", clips / "clips.csv", "--out", clips / "new"))
    assert "lightning" in said and "pip install '.[train]'" in said


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, clips: Path) -> None:
    from peakzoom.data import check

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(check, "check", broken)
    monkeypatch.setattr(sys, "argv", ["peakzoom", "data", "check", str(clips)])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_ctrl_c(call: Call, monkeypatch: pytest.MonkeyPatch, clips: Path) -> None:
    from peakzoom.data import check

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check", stopped)
    result = call("data", "check", clips)
    assert result.code == 130 and result.err.splitlines()[-1] == "stopped"


# What commands do ------------------------------------------------------------------------------------------------


def test_train_evaluate_predict(call: Call, clips: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    group = clip_data.entries[0].group
    tiny = "--size 32 --epochs 1 --joint-epochs 1 --batch-size 6 --workers 0"
    tiny += " --set preprocess.frames=4 --set accelerator=cpu --recipe spatial --val-fraction 0.15"
    out = tmp_path / "run"
    result = call("train", clips / "clips.csv", "--out", out, "--test-groups", group, *tiny.split())
    assert result.code == 0 and f"peakzoom evaluate {out}" in result.out
    assert "tcnn epoch 1/1" in result.err and "joint epoch 1/1" in result.err
    assert "s left" in result.err and "validation accuracy" in result.err
    assert (out / "command.txt").read_text().startswith("peakzoom train ")
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"]["preprocess"]["size"] == 32 and config["recipe"]["tcnn"]["epochs"] == 1

    result = call("evaluate", out, *QUICK)
    assert result.code == 0 and "mean class" in result.out and "fused" in result.out
    folder = out / "evaluation-test-paper"
    held = [entry for entry in clip_data.entries if entry.group == group]
    assert json.loads((folder / "metrics.json").read_text())["videos"] == len(held)
    assert "not empty" in mistake(call("evaluate", out, *QUICK))

    result = call("predict", out, held[0].path, *QUICK)
    lines = result.out.splitlines()
    assert result.code == 0 and lines[0] == str(held[0].path) and len(lines) == 4
    scores = [float(line.split()[-1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=2e-4)
    assert ESCAPE not in result.out + result.err


def test_training_from_public_weights(call: Call, clips: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from peakzoom.model import BACKBONES

    public = BACKBONES["tcnn_xs_local"](400, width=0.25).state_dict()
    save_file(public, tmp_path / "k400.safetensors")
    tiny = "--size 32 --epochs 1 --batch-size 9 --workers 0"
    tiny += " --set preprocess.frames=4 --set accelerator=cpu --set width=0.25"
    command = ("train", clips / "clips.csv", "--out", tmp_path / "run", "--steps", "tcnn", *tiny.split())
    command += ("--val-fraction", 0, "--set", "cache=off", "--set", "preprocess.mean=0.5,0.5,0.5")
    command += ("--set", "preprocess.std=0.25,0.25,0.25")
    result = call(*command, "--weights", tmp_path / "k400.safetensors")
    assert result.code == 0
    assert f"{len(public) - 2} tensors of k400.safetensors loaded" in result.err
    assert "the classifier of 400 classes was left out" in result.err
    assert "mean 0.5,0.5,0.5 and std 0.25,0.25,0.25\n" in result.err and "may differ" not in result.err
    pre = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["preprocess"]
    assert pre["mean"] == [0.5] * 3 and pre["std"] == [0.25] * 3
    assert load(tmp_path / "run").preprocess.std == (0.25, 0.25, 0.25)
    assert "another options" in mistake(call(*command, "--resume"))
    assert call(*command, "--weights", tmp_path / "k400.safetensors", "--resume").code == 0


def test_a_plain_folder_is_tested_too(
    call: Call, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos of a folder without a list: a fifth is for the test, unless a run was begun without one."""
    seen: list[Counter[str | None]] = []

    def train(data: VideoSet, *_: object) -> None:
        seen.append(Counter(entry.split for entry in data.entries))

    monkeypatch.setattr("peakzoom.training.train.train", train)
    for name, count in (("kick", 6), ("wave", 9)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(count):
            shutil.copyfile(next(clips.rglob("*.mp4")), tmp_path / "clips" / name / f"{number}.mp4")

    def divided(*words: object, data: Path = tmp_path / "clips") -> tuple[int, str]:
        result = call("train", data, "--out", tmp_path / "run", *words)
        assert result.code == 0, result.err
        return seen[-1]["test"], result.out + result.err

    share, said = divided()
    assert share == 3 and "3 of 15 videos are set aside for testing and never looked at" in said
    assert "TEST_DATA" not in said
    assert divided("--seed", 5)[0] == 3 and divided("--test-fraction", 0.4)[0] == 6
    share, said = divided("--test-fraction", 0)
    assert share == 0 and "TEST_DATA" in said
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "videos.csv").write_text("path,label,split\nkick/0.mp4,kick,train\n")
    assert divided("--resume")[0] == 0
    (tmp_path / "run" / "videos.csv").write_text("path,label,split\nkick/0.mp4,kick,test\n")
    assert divided("--resume")[0] == 3
    with (tmp_path / "listed.csv").open("w") as listed:  # who lists what is for training has decided
        listed.write("path,label,split\n")
        listed.writelines(f"clips/{each}/0.mp4,{each},train\n" for each in ("kick", "wave"))
    assert divided(data=tmp_path / "listed.csv")[0] == 0
    command = ("train", clips / "clips.csv", "--out", tmp_path / "new", "--test-fraction", 0.3)
    assert "says which videos are for what" in mistake(call(*command))
    assert "exclude one another" in mistake(call(*command, "--test-groups", "a"))


def test_what_a_training_is_asked_for(
    call: Call, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options stand for values of the recipe, ``--set`` gives any of them, and a printed recipe comes back."""
    calls: list[tuple[Recipe, Options]] = []

    def train(data: VideoSet, recipe: Recipe, out: Path, options: Options, *_: object) -> None:
        calls.append((recipe, options))

    monkeypatch.setattr("peakzoom.training.train.train", train)

    def chosen(*words: str) -> tuple[Recipe, Options]:
        result = call("train", clips / "clips.csv", "--out", tmp_path / "run", *words)
        assert result.code == 0, result.err
        return calls[-1]

    assert chosen() == (small(), Options())
    assert chosen("--recipe", "paper", "--set", "augment.flip=false") == (
        replace(paper(), augment=replace(paper().augment, flip=False)),
        Options(),
    )
    words = "--epochs 2 --joint-epochs 3 --lr 1e-6 --size 64 --batch-size 4 --model tsm --set width=0.5"
    words += " --set dropout=0.2 --set preprocess.frames=8 --set stride=2"
    words += " --set branches=original,discriminative"
    recipe, _ = chosen(*words.split())
    assert recipe == replace(
        small(),
        model="tsm",
        width=0.5,
        stride=2,
        batch_size=4,
        dropout=0.2,
        branches=("original", "discriminative"),
        tcnn=replace(small().tcnn, epochs=2, min_steps=0, lr=1e-6, final_lr=1e-6),
        joint=replace(small().joint, epochs=3, min_steps=0, lr=1e-6, final_lr=1e-6),
        preprocess=replace(small().preprocess, size=64, canvas=(72, 72), frames=8),
    )
    rare = (
        "--set cache=off --set patience=3 --set num_nodes=2 --set sync_batch_norm=true --steps tcnn --seed 5 "
        "--set accelerator=cpu --set devices=2"
    )
    assert chosen(*rare.split())[1] == Options(
        cache="off",
        patience=3,
        num_nodes=2,
        sync_batch_norm=True,
        steps=("tcnn",),
        seed=5,
        accelerator="cpu",
        devices="2",
    )
    for name, recipe in (("small", small()), ("paper", paper())):
        printed = call("recipe", name)
        assert printed.code == 0 and printed.err == ""
        (tmp_path / "mine.toml").write_text(printed.out)
        assert chosen("--recipe", str(tmp_path / "mine.toml"))[0] == recipe


def test_weights_are_listed_in_80_columns(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peakzoom.cli.console.out_console.width", 80)
    result = call("weights")
    assert result.code == 0 and result.err == ""
    *lines, folder = result.out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in result.out and folder.endswith("peakzoom/weights")
    for start in starts():
        (row,) = (line for line in lines if f" {start.name} " in line)
        assert f" {start.network} " in row and f"{start.card['accuracy']:.1f}%" in row
    assert "Apache-2.0" in lines[0] and "--init none trains from scratch" in result.out
    assert all(any(f" {name} " in line for line in lines) for name in public_weights())


@pytest.mark.parametrize("content", [None, b"", b"cut"])
def test_damaged_start_weights_are_named_below_the_others(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    bad, *whole = starts()
    for start in whole:
        (tmp_path / start.file.name).symlink_to(start.file)
    if content is not None:
        (tmp_path / bad.file.name).write_bytes(content)
    monkeypatch.setattr("peakzoom.model.starts.FOLDER", tmp_path)  # the cards have been read
    result = call("weights")
    listed = [start.name for start in starts() if f" {start.name} " in result.out]
    assert result.code == 1 and listed == [start.name for start in whole]
    (line,) = result.err.splitlines()
    assert str(tmp_path / bad.file.name) in line and "install peakzoom again" in line
    assert all(f" {name} " in result.out for name in public_weights())


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("none", {}), ("tcnn_xs=a, tsm=b", {"tcnn_xs": "a", "tsm": "b"})]
)
def test_what_the_networks_of_a_study_start_from(text: str | None, expected: dict[str, str] | None) -> None:
    assert _starts(text, ["tcnn_xs", "tsm"]) == expected


def test_the_defaults_that_help_shows_are_the_recipes(call: Call) -> None:
    shown = re.sub(r"[│\s]+", " ", call("train", "--help").out)
    a, b = small(), paper()
    for option, default in (
        ("--model", f"{a.model}, paper: {b.model}"),
        ("--epochs", f"{a.tcnn.epochs}, paper: {b.tcnn.epochs}"),
        ("--joint-epochs", f"{a.joint.epochs}, spatial: {spatial().joint.epochs}, paper: {b.joint.epochs}"),
        ("--lr", f"{a.tcnn.lr}, then {a.joint.lr}; paper: {b.joint.lr}"),
        ("--size", f"{a.preprocess.size}, paper: {b.preprocess.size}"),
    ):
        assert re.search(rf"{option} [^-]*?\[default: \({re.escape(default)}\)\]", shown), option
    assert (a.stride, a.batch_size, a.preprocess.frames, a.width) == (None, 16, 16, 1)
    assert (b.tcnn.lr, b.batch_size, b.preprocess.frames, b.width) == (b.joint.lr, 16, 16, 1)


def test_version(call: Call) -> None:
    result = call("--version")
    assert result.code == 0 and result.out == f"peakzoom {peakzoom.__version__}\n"


def test_evaluating_one_stage_on_other_data(call: Call, run: Path, clips: Path, tmp_path: Path) -> None:
    result = call("evaluate", run / "tcnn", clips / "clips.csv", "--out", tmp_path / "out", *QUICK)
    assert result.code == 0 and "6 test videos" in result.out
    result = call("evaluate", run, "--split", "val", "--clips", "slowfast", "--out", tmp_path / "val", *QUICK)
    assert result.code == 0 and "val videos" in result.out


def test_files_that_are_written_at_the_end(call: Call, clips: Path, tmp_path: Path) -> None:
    """The second process that would write one is refused before its work, and what the first has written stays."""
    out = tmp_path / "problems.csv"
    listed = ("data", "check", clips / "clips.csv", "--out", out)
    other = ("data", "prepare", "ucf101", clips, "--out", out)
    with new_file(out, "--out"):
        for words in (listed, other):
            assert f"{out} is being written by another process: wait for it" in mistake(call(*words))
        out.write_text("the first one's")
    for words in (listed, other):
        assert f"{out} exists: name another file for --out" in mistake(call(*words))
    assert [each.name for each in tmp_path.iterdir()] == [out.name] and out.read_text() == "the first one's"


def test_json_lines(call: Call, run: Path, clips: Path, tmp_path: Path) -> None:
    good = sorted(clips.rglob("test_*.mp4"))[:2]
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 80)
    files = [good[0], tmp_path / "broken.mp4", good[1], tmp_path / "gone.mp4"]
    written = ["--jsonl", tmp_path / "answers.jsonl", "--csv", tmp_path / "answers.csv"]
    result = call("predict", run, *files, *written, *QUICK)
    assert result.code == 1 and "2 of 4 files gave no prediction" in result.err
    assert [line for line in result.err.splitlines() if line.startswith(str(tmp_path))] == [
        f"{tmp_path / 'broken.mp4'}: no prediction: {_reason(tmp_path / 'broken.mp4')}",
        f"{tmp_path / 'gone.mp4'}: no prediction: no such file",
    ]
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [str(file) for file in files]
    assert [sorted(line) for line in lines[1::2]] == [["error", "file"]] * 2
    assert [each["class"] for each in lines[0]["top"]] == sorted(
        lines[0]["scores"]["fused"], key=lambda name: -lines[0]["scores"]["fused"][name]
    )

    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    for line, row in zip(lines, table, strict=True):
        assert row["file"] == line["file"] and row["problem"] == (
            line.get("error") or line.get("problem") or ""
        )
        if "error" in line:
            assert not any(value for name, value in row.items() if name not in ("file", "problem"))
        else:
            assert row["class"] == line["class"] and float(row["score"]) == line["score"]
            assert {name: float(row[name]) for name in line["scores"]["fused"]} == line["scores"]["fused"]

    # What was there is in the table too; and it is not written over.
    again = call("predict", run, *files, *written[:2], "--resume", "--csv", tmp_path / "again.csv", *QUICK)
    assert (
        again.code == 1 and (tmp_path / "again.csv").read_bytes() == (tmp_path / "answers.csv").read_bytes()
    )
    said = mistake(call("predict", run, good[0], *written[2:], *QUICK))
    assert "answers.csv exists: name another file for --csv, or remove it" in said

    # Nor by another process that begins while the first one is at work.
    for words in (("--csv", tmp_path / "at_once.csv"), ("--jsonl", tmp_path / "at_once.csv")):
        with new_file(tmp_path / "at_once.csv", "--csv"):
            said = mistake(call("predict", run, good[0], *words, *QUICK))
        assert "at_once.csv is being written by another process: wait for it" in said
    assert not list(tmp_path.glob("at_once*"))

    # To standard output instead of tables; and a file alone says what it said among others.
    alone = call("predict", run, good[1], "--jsonl", "-", *QUICK)
    assert alone.code == 0 and alone.err == ""
    assert [json.loads(line) for line in alone.out.splitlines()] == [lines[2]]
    prediction = load(run, "cpu").predict(good[1], cli_protocol())
    assert lines[2]["scores"]["fused"] == dict(
        zip(prediction.classes, prediction.scores["fused"].tolist(), strict=True)
    )
    said = mistake(call("predict", run, good[0], "--jsonl", tmp_path / "answers.jsonl"))
    assert "answers.jsonl exists: name another file for --jsonl, or go on with it by --resume" in said


def cli_protocol() -> object:
    from peakzoom.video.sampling import Views

    return Views(clips=1, crops=1)


def _reason(path: Path) -> str:
    from peakzoom.utils.errors import DecodeError
    from peakzoom.video.scan import probe

    with pytest.raises(DecodeError) as caught:
        probe(path)
    return caught.value.reason


def test_folders_are_searched(call: Call, run: Path, clips: Path) -> None:
    result = call("predict", run, clips, "--jsonl", "-", "--workers", "2", *QUICK)
    assert result.code == 0
    files = [json.loads(line)["file"] for line in result.out.splitlines()]
    assert files == [str(path) for path in sorted(clips.rglob("*.mp4"))] and len(files) == 24


def test_every_nasty_file_gets_a_prediction_or_a_reason(
    call: Call, run: Path, shared_data: Path, tmp_path: Path
) -> None:
    files = [path for path in sorted((shared_data / "nasty").rglob("*")) if path.is_file()]
    result = call("predict", run, *files, "--jsonl", tmp_path / "all.jsonl", *QUICK)
    assert result.code == 1 and "Traceback" not in result.err
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in files]
    failed = {Path(line["file"]).name: line["error"] for line in lines if "error" in line}
    assert set(failed) == {"broken.mp4", "empty.flv", "report.txt"}  # as report.txt found
    assert all(reason and "\n" not in reason for reason in failed.values())
    for line in lines:
        if "scores" in line:
            assert sum(line["scores"]["fused"].values()) == pytest.approx(1)
    corrupted = next(line for line in lines if line["file"].endswith("corrupted.mp4"))
    assert "28 frames" in corrupted["problem"]
    # One line a file on standard error, and the count.
    assert len(result.err.splitlines()) == 1 + len(failed) + sum(bool(line.get("problem")) for line in lines)


def test_explain(call: Call, run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    video = clip_data.entries[-1].path
    plain = call("explain", run, video, "--out", tmp_path / "plain", *QUICK)
    assert plain.code == 0
    said = call("predict", run, video, "--top", 3, *QUICK).out.splitlines()[1:]
    assert [line.split() for line in plain.out.splitlines()[:3]] == [line.split() for line in said]
    files = [tmp_path / "plain" / f"evidence.{suffix}" for suffix in ("mp4", "png", "json")]
    assert plain.out.splitlines()[-3:] == [str(file) for file in files] and all(map(Path.exists, files))
    told = json.loads(files[2].read_text())
    asked = next(name for name in clip_data.classes if name != told["class"])
    other = call("explain", run, video, "--out", tmp_path / "other", "--class", asked, *QUICK)
    assert other.code == 0 and f"Evidence for {asked}" in other.out
    again = json.loads((tmp_path / "other" / "evidence.json").read_text())
    assert again["evidence_for"] == asked and again["scores"] == told["scores"]
    assert {peak["class"] for peak in again["peaks"]} <= {asked}


T = TypeVar("T")


def result_or_reason(ask: Callable[..., T], file: Path) -> tuple[T | None, str | None]:
    try:
        return ask(file, views=Views(clips=1, crops=1)), None
    except DecodeError as error:
        return None, error.reason


@pytest.mark.slow
def test_every_nasty_file_is_explained_or_refused(run: Path, shared_data: Path) -> None:
    """Turned, odd, variable, cut off: what predicts also explains, and what does not gives the same reason.

    The large ones are more frames of the same kinds.
    """
    trained = load(run, "cpu")
    for file in sorted((shared_data / "nasty").rglob("*")):
        if not file.is_file() or file.stat().st_size > 310_000:
            continue
        prediction, refused = result_or_reason(trained.predict, file)
        evidence, again = result_or_reason(partial(peakzoom.explain, trained), file)
        assert again == refused, file
        if evidence is None or prediction is None:
            continue
        assert evidence.prediction.to_dict() == prediction.to_dict(), file
        assert np.isfinite(evidence.scores).all() and len(evidence.scores) == evidence.info.frames, file
        assert (np.diff(evidence.times) >= 0).all() and evidence.end >= evidence.times[-1], file


def test_evaluate_where_it_looks(call: Call, run: Path, clips: Path, tmp_path: Path) -> None:
    """Faithfulness and pointing: printed, written, and in the card."""
    out, places = tmp_path / "e", clips / "places.csv"
    result = call("evaluate", run, "--out", out, "--faithfulness", "--places", places, *QUICK)
    assert result.code == 0 and "attended less random" in result.out and "attended less centre" in result.out
    told, metrics, pointing = (
        json.loads((out / f"{name}.json").read_text()) for name in ("faithfulness", "metrics", "pointing")
    )
    assert told["classes"][-1]["class"] == "all" and told["classes"][-1]["videos"] == metrics["videos"]
    with (out / "pointing.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    everything = pointing["parts"][-1]
    assert everything["frames"] == len(rows) > 0 and everything["name"] == "all"
    assert everything["highest"] == pytest.approx(np.mean([row["highest"] == "True" for row in rows]))
    # One middle clip of 8 frames is seen of each of the videos, which have 12.
    assert len(rows) == 8 * metrics["videos"]
    assert f"no view shows the place in {4 * metrics['videos']} frames of the table" in result.err
    groups = {row["group"] for row in rows}
    assert (everything["units"], everything["count"]) == ("groups", len(groups)) and 1 < len(groups) < 10
    assert f"intervals draw whole groups, and with {len(groups)} of them they are too narrow" in result.err
    card = (run / "joint" / "best" / "README.md").read_text(encoding="utf-8")
    assert f"Whether its attention lies where the action is: in {everything['highest']:.1%}" in card
    low, high = everything["interval"]
    assert f"(95% interval over {len(groups)} groups: {low:.1%} to {high:.1%})" in card
    assert "Whether its attention is true: where 20% of each frame are blurred" in card


def test_the_pointing_table_has_the_branches_that_the_network_has(capsys: pytest.CaptureFixture[str]) -> None:
    frame = PointedFrame("a.mp4", None, 0, "wave", "hand", True, True, False, 0.1, 2.5, 1.5)
    found = Pointing([frame], 0, [])
    for branches, shown in ((BRANCHES[:2], ("2.5x",)), (BRANCHES, ("2.5x", "1.5x"))):
        show_pointing(found, branches)
        assert tuple(re.findall(r"\d\.\dx", capsys.readouterr().out)) == 2 * shown  # of the hand, and of all


def test_report(call: Call, run: Path, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    assert call("evaluate", run, clips / "clips.csv", "--out", folder, *QUICK).code == 0
    result = call("report", tmp_path)  # the only one inside
    page = Path(result.out.strip().removeprefix("Page: "))
    assert result.code == 0 and page.suffix == ".html" and page.parent == folder / "report"
    assert page.stat().st_size > 0
    assert "not empty" in mistake(call("report", folder))
    assert str(tmp_path / "page") in call("report", folder, "--out", tmp_path / "page").out


def test_data_render(call: Call, tmp_path: Path) -> None:
    tiny = "--train-clips 9 --test-clips 3 --frames 5 --fps 10 --height 32 --width 48 --workers 1 --seed 3"
    result = call("data", "render", tmp_path / "made", *tiny.split(), "--performers", 5, "--difficulty", 0)
    listed = tmp_path / "made" / "clips.csv"
    assert result.code == 0 and result.err == ""  # nobody watches a bar here
    assert result.out.splitlines() == [f"List: {listed}", f"Next: peakzoom train {listed} --out RUN"]
    with listed.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["split"] for row in rows] == ["train"] * 9 + ["test"] * 3
    split_of = {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert not split_of["train"] & split_of["test"]
    checked = call("data", "check", listed, "--workers", "1").out
    assert "12 videos" in checked and "32x48" in checked and "12 at 10" in checked
    again = call("data", "render", tmp_path / "test", *tiny.split(), "--train-clips", 0, "--tempos")
    with (tmp_path / "test" / "clips.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == {"wave_slow", "wave_fast", "wag_hand_slow"}
    assert again.out.splitlines()[1] == f"Next: peakzoom evaluate RUN {tmp_path / 'test' / 'clips.csv'}"


# Studies ----------------------------------------------------------------------------------------------------------

TINY = [
    *["--size", 32, "--epochs", 1, "--joint-epochs", 1, "--batch-size", 9, "--workers", 0],
    *["--set", "preprocess.frames=4", "--set", "preprocess.zoom_source=1"],
    *["--set", "cache=off", "--set", "accelerator=cpu"],
    *["--seeds", 0, "--num-clips", 1, "--crops", 1],
]


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("trained again")


@pytest.mark.slow
def test_ablate(call: Call, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("ablate", clips / "clips.csv", "--out", tmp_path / "study", "--set", "width=0.25", *TINY)
    first = call(*command)
    assert first.code == 0 and "5 of 5 trainings" in first.err and "epoch 1/1" not in first.err
    labels = ("O", "O + D", "O + C", "D + C", "O + D + C")
    table = (tmp_path / "study" / "table.md").read_text(encoding="utf-8")
    assert "1 fold (test), 6 test videos, seed 0" in table and table.count("against O |") == 4
    assert (
        "1 fold (test), 6 test videos, seed 0" in first.out
        and max(map(len, first.out.split("Table")[0].splitlines()[:9])) <= 80
    )
    assert all(f" {label} " in first.out for label in labels)
    with (tmp_path / "study" / "table.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == list(labels)
    assert (tmp_path / "study" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "study" / "answers.csv").open(newline="", encoding="utf-8") as stream:
        answers = list(csv.DictReader(stream))
    assert len(answers) == 5 * 6 and {row["width"] for row in answers} == {"0.25"}

    # The same again trains nothing and says the same; another question is refused.
    monkeypatch.setattr("peakzoom.studies.study.train", refuse)
    second = call(*command)
    assert second.code == 0 and second.out == first.out
    assert second.err.splitlines()[-1] == "5 of 5 trainings were done before"
    assert "begun with another recipe" in mistake(call(*command, "--set", "augment.flip=false"))
    assert "begun with another options" in mistake(call(*command, "--val-fraction", 0.2))


@pytest.mark.slow
def test_compare(
    call: Call, clips: Path, clip_data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = sorted({entry.group for entry in clip_data.entries if entry.group is not None})
    plan = tmp_path / "mine.json"
    plan.write_text('{"stem": 24, "stages": [{"channels": 48, "dilations": [0, 2], "stride": [2, 2]}]}')
    models = f"tcnn_xs,{plan}"
    command = ("compare", clips / "clips.csv", "--out", tmp_path / "study", "--models", models, *TINY)
    command += ("--spatial", "tcnn_xs", "--cost", 0.02, "--rounds", 1, "--fold", ",".join(groups[:3]))
    first = call(*command)
    assert first.code == 0 and "3 of 3 trainings" in first.err
    with (tmp_path / "study" / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [re.split(" x |-", row["label"])[0] for row in rows] == ["tcnn_xs", "tcnn_xs", "mine"]
    assert [row["label"].endswith("+ spatial") for row in rows] == [False, True, False]
    table = (tmp_path / "study" / "table.md").read_text(encoding="utf-8")
    assert "Milliseconds: forward alone" in table and all(row["label"] in table for row in rows)
    assert "difference" in first.out and "table.md" in first.out
    assert (tmp_path / "study" / "cost.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr("peakzoom.studies.study.train", refuse)
    assert call(*command).err.splitlines()[-1] == "3 of 3 trainings were done before"


def test_data_check(call: Call, clips: Path, tmp_path: Path) -> None:
    (clips / "nod" / "broken.mp4").write_bytes(b"no video" * 80)
    try:
        result = call("data", "check", clips, "--out", tmp_path / "problems.csv", "--workers", "1")
    finally:
        (clips / "nod" / "broken.mp4").unlink()
    assert result.code == 0 and ESCAPE not in result.out
    assert "25 videos, 3 classes" in result.out and "64x64" in result.out and "24 at 15" in result.out
    with (tmp_path / "problems.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["path"].endswith("broken.mp4") and f"{row['path']}: {row['reason']}" in result.out


# Model cards -------------------------------------------------------------------------------------------------------


def test_an_evaluation_goes_into_the_card(call: Call, run: Path, clips: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    file = copied / "joint" / "best" / "README.md"
    file.unlink()
    assert update_card(file.parent)
    before = file.read_text()
    result = call("evaluate", copied, clips / "clips.csv", *QUICK)
    assert result.code == 0 and result.err == "read as a manifest\n"
    assert result.out.splitlines()[-1] == f"Model card: {file}"
    assert "### clips: 6 videos" in file.read_text() and "###" not in before
    file.write_text(before + "Filmed in our kitchen.\n")
    result = call("evaluate", copied, clips / "clips.csv", "--out", tmp_path / "again", *QUICK)
    assert result.code == 0 and f"{file} was edited and is left as it is" in result.err
    assert file.read_text() == before + "Filmed in our kitchen.\n"
    file.unlink()
    result = call("evaluate", copied, clips / "clips.csv", "--out", tmp_path / "outside", *QUICK)
    assert file.read_text().count("### clips: 6 videos") == 2  # the one inside, and the one just made


def test_a_card_that_cannot_be_written(
    call: Call, run: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("peakzoom.hub.card.update_card", refuse)
    result = call("evaluate", run, clips / "clips.csv", "--out", tmp_path / "out", *QUICK)
    assert result.code == 1 and (tmp_path / "out" / "scores.csv").exists()
    said, folder = result.err.splitlines()[-1], run / "joint" / "best"
    assert said.startswith(
        f"{folder / 'README.md'} could not be written (permission denied), so the model card"
    )
    assert f"they are in {tmp_path / 'out'}: make {folder} a place that can be written to" in said


def test_push_tells_mistakes(call: Call, run: Path, tmp_path: Path) -> None:
    assert "expected owner/name" in mistake(call("push", run, "kitchen"))
    assert "does not exist" in mistake(call("push", tmp_path / "gone", "anna/kitchen"))
    assert "HF_HUB_OFFLINE is set" in mistake(call("push", run, "anna/kitchen"))


# What a terminal and a name can do ----------------------------------------------------------------------------------


def test_names_are_not_markup(call: Call, run: Path, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    names = ("[/b]", ":smile:", "[red]x")
    lines = [f"{make_clip(tmp_path / f'{index}.mp4')},{name}" for index, name in enumerate(names)]
    (tmp_path / "data [v1].csv").write_text("\n".join(["path,label", *lines]))
    result = call("data", "check", tmp_path / "data [v1].csv", "--workers", "1")
    assert result.code == 0
    for name in (*names, "data [v1]"):
        assert name in result.out
    file = make_clip(tmp_path / "[bold]clip[/nope] :+1:.mp4")
    result = call("predict", run, file, tmp_path / "[/gone].mp4", *QUICK)
    assert result.code == 1 and str(file) in result.out and "[/gone].mp4: no prediction" in result.err


def test_long_names_stay_on_their_line(
    call: Call, run: Path, tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    file = make_clip(tmp_path / ("long" * 40) / "clip.mp4")
    assert call("predict", run, file, *QUICK).out.splitlines()[0] == str(file)
    missing = tmp_path / ("gone" * 50) / "run"
    assert str(missing) in mistake(call("predict", missing, file))


def test_file_names_that_are_no_text(
    run: Path, tmp_path: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    try:
        clip.rename(clip.with_name(os.fsdecode(b"caf\xe9.mp4")))
    except OSError:
        pytest.skip("this file system wants names to be text")
    # Streams as Python opens them where PYTHONIOENCODING is ascii.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["peakzoom", "predict", str(run), str(tmp_path), *QUICK])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code and out.errors == err.errors == "backslashreplace"
    assert b"caf" in out.buffer.getvalue() and not err.buffer.getvalue()  # type: ignore[attr-defined]


def in_a_terminal(*arguments: str, **values: str) -> str:
    """What a command writes when it believes that somebody watches."""
    code = "from peakzoom.cli import main; main()"
    return in_terminal(["-c", code, *arguments], environment(**values))[1]


def test_no_color() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m")
    assert colour.search(in_a_terminal("train", "--help"))
    assert not colour.search(in_a_terminal("train", "--help", NO_COLOR="1"))


def test_help_needs_no_torch() -> None:
    code = "import sys\nfrom peakzoom.cli import main\ntry: main()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_quickstart(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: object) -> None:
    from peakzoom.training.recipes import RECIPES

    monkeypatch.setitem(RECIPES, "quickstart", lambda: tiny)
    out = tmp_path / "quick"
    result = call("quickstart", "--out", out, "--train-clips", "10", "--test-clips", "10", "--workers", "1")
    assert result.code == 0
    for name in ("T-CNN alone", "original", "discriminative", "complementary", "spatial: fused"):
        assert name in result.out
    assert "Where the attention lies" in result.out and (out / "evaluation-joint" / "pointing.json").exists()
    assert (out / "attention.png").read_bytes().startswith(b"\x89PNG")
    report = next(line for line in result.out.splitlines() if line.startswith("  peakzoom report"))
    assert call(*shlex.split(report)[1:]).code == 0 and result.out.index("peakzoom train clips/") > 0
    for stage in ("tcnn", "joint"):
        scored = json.loads((out / f"evaluation-{stage}" / "metrics.json").read_text())
        assert scored["videos"] == 10
    assert np.isfinite(load(out / "run").predict(next((out / "clips").rglob("*.mp4"))).scores["fused"]).all()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_loses_no_value_however_narrow_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peakzoom.cli import console

    monkeypatch.setattr(console.out_console, "_width", width)
    rows = [
        ("wave", "86.8% (80.1 to 90.4)", 2.5, "x" * 12),
        ("a name that is long " * 3, "91.1%", 1.5, "y" * 12),
    ]
    console.show_table(
        "numbers", ["class", "one of three best on it", "discriminative enlarges", "last"], rows
    )
    out = capsys.readouterr().out
    for _, *values in rows:
        assert all(str(value) in out for value in values)
    assert (
        "".join("a name that is long " * 3).replace(" ", "") in out.replace(" ", "").replace("\n", "")
        or width < 200
    )
    assert all(word in out for word in ("class", "discriminative", "three", "wave"))
