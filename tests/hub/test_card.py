"""Model cards: every figure again from the run's files, nothing that the run does not say, no text overwritten."""

from __future__ import annotations

import csv
import html
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.stats import bootstrap_interval
from peakzoom.hub.card import FILE, is_untouched, model_card, update_card, write_missing_cards
from peakzoom.hub.facts import gather
from peakzoom.inference.cost import multiply_adds_by_pass
from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom
from peakzoom.model.load import digest
from peakzoom.video.sampling import Views
from peakzoom.video.views import Preprocess

QUICK = Views(clips=2, crops=1)


def text_of(folder: Path) -> str:
    return (folder / FILE).read_text(encoding="utf-8")


def head_of(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def table(text: str, first: str) -> list[list[str]]:
    """Rows of the table whose head begins with a word, its head first."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")])
    return [rows[0], *rows[2:]]


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


@pytest.fixture(scope="module")
def tested(run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one evaluation inside, and the card made anew."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("tested") / "run", symlinks=True))
    entries = [entry for entry in clip_data.entries if entry.split == "test"]
    evaluate(
        load(folder, "cpu"), replace(clip_data, entries=entries), folder / "evaluation-test-paper", QUICK
    )
    assert update_card(folder / "joint" / "best")
    return folder


# What a card says --------------------------------------------------------------------------------------------------


def test_every_saved_model_has_a_card(run: Path, clip_data: VideoSet) -> None:
    for place in ("tcnn/best", "tcnn/last", "joint/best", "joint/last"):
        text = text_of(run / place)
        head = head_of(text)
        assert head["library_name"] == "peakzoom" and head["pipeline_tag"] == "video-classification"
        assert "model-index" not in head and "datasets" not in head
        assert head["license"] == "unknown"  # nobody has chosen one
        assert is_untouched(text) and "no test of these weights is here" in text
        assert text == str(model_card(run / place))
        assert ("spatial attention;" in text) == place.startswith("joint")


def test_classes_and_data_again_from_the_list_of_videos(run: Path) -> None:
    text = text_of(run / "joint" / "best")
    with (run / "videos.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    counts = Counter((row["class"], row["split"]) for row in rows)
    names = (run / "classes.txt").read_text().splitlines()
    parts = {"training videos": "train", "validation": "val", "test": "test"}
    head, *body = table(text, "class")
    assert head == ["class", *parts]
    assert body == [[name, *(str(counts[name, part]) for part in parts.values())] for name in names]
    groups = {part: {row["group"] for row in rows if row["split"] == part} for part in parts.values()}
    _, *body = table(text, "part")
    assert [row[0] for row in body] == ["training", "validation", "test"]
    for row, part in zip(body, parts.values(), strict=True):
        here = [each for each in rows if each["split"] == part]
        assert row[1:] == [str(len(here)), str(len({each["class"] for each in here})), str(len(groups[part]))]
    assert f"Its training videos are of {len(groups['train'])} groups" in text
    assert not (groups["train"] | groups["val"]) & groups["test"]
    assert "No test video is of a group that was in training." in text
    assert "Name of the data: clips." in text


def test_the_recipe_and_the_epoch(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    with (run / "joint" / "metrics.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    text = text_of(run / "joint" / "best")
    settings = dict(table(text, "setting")[1:])
    assert settings["joint.lr"] == str(config["recipe"]["joint"]["lr"])
    assert settings["augment.area"] == "0.7, 1.0" and settings["seed"] == "0" and settings["init"] == "none"
    leaves = sum(
        len(part) if isinstance(part, dict) else 1
        for half in ("recipe", "options")
        for part in config[half].values()
    )
    assert len(settings) == leaves
    assert "weights of epoch 1 of 1, the best one on the validation videos" in text
    assert f"{float(row['val_accuracy']):.1%} top-1 in epoch 1." in text


def test_a_licence_goes_with_what_is_trained_on(copied: Path, tmp_path: Path) -> None:
    """The card of a model that started from a model names the public weights that this one started from."""

    def begun(name: str, **options: str) -> Path:
        folder = Path(shutil.copytree(copied, tmp_path / name, symlinks=True))
        config = json.loads((folder / "config.json").read_text())
        config["options"].update({"init": None, **options})
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    first = begun("first", weights="kinetics400/videomae_s")
    second = begun("second", init=str(first))
    third = begun("third", init=str(second / "joint" / "best"))
    for run, said in ((first, "It started"), (second, "model, first."), (third, "model, second.")):
        text = str(model_card(run / "joint" / "best"))
        assert said in text and "CC-BY-NC-4.0 (MCG-NJU)" in text and "videomae" in text
        assert ("another trained model" in text) == (run != first)
    shutil.rmtree(first)
    text = str(model_card(third / "joint" / "best"))
    assert "bind what is made of it" in text and "CC-BY-NC" not in text
    text = str(model_card(begun("circle", init=str(tmp_path / "circle")) / "joint" / "best"))
    assert "another trained model, circle." in text


def test_an_address_that_lets_its_owner_in_is_not_published(copied: Path) -> None:
    address = "https://me:word@host/net.pth?X-Signature=abc/secret#part"
    (copied / "command.txt").write_text(f"peakzoom train clips --weights '{address}' --out run\n")
    config = json.loads((copied / "config.json").read_text())
    config["options"]["weights"] = address
    (copied / "config.json").write_text(json.dumps(config))
    text = str(model_card(copied / "joint" / "best"))
    assert "--weights net.pth" in text and ["weights", "net.pth"] in table(text, "setting")
    assert not any(word in text for word in ("secret", "abc", "me:word", "host"))


@pytest.mark.parametrize("scores,best", [([0.1, 0.7, 0.7, 0.3], 2), ([0.9, 0.2, 0.1, 0.1], 1)])
def test_the_first_of_the_best_epochs(copied: Path, scores: list[float], best: int) -> None:
    """As Lightning keeps it: a later one has to be better."""
    lines = [f"{epoch},{score},{score}" for epoch, score in enumerate(scores, start=1)]
    (copied / "joint" / "metrics.csv").write_text("\n".join(["epoch,val_accuracy,val_score", *lines]))
    update_card(copied / "joint" / "best")
    update_card(copied / "joint" / "last")
    assert f"weights of epoch {best} of 4, the best" in text_of(copied / "joint" / "best")
    assert f"{max(scores):.1%} top-1 in epoch {best}." in text_of(copied / "joint" / "best")
    last = text_of(copied / "joint" / "last")
    assert "weights of epoch 4 of 4." in last and f"{scores[-1]:.1%} top-1 in epoch 4.\n" in last


def test_accuracies_with_intervals(tested: Path) -> None:
    text = text_of(tested / "joint" / "best")
    folder = tested / "evaluation-test-paper"
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    _, *body = table(text, "prediction")
    assert [row[0] for row in body] == list(metrics["branches"])
    for name, top1, interval, mean in body:
        right = [row["predicted"] == row["class"] for row in rows if row["branch"] == name]
        assert top1 == f"{np.mean(right):.1%}"
        assert mean == f"{metrics['branches'][name]['mean_class_accuracy']:.1%}"
        assert interval == " to ".join(f"{end:.1%}" for end in wilson(sum(right), len(right)))
    results = head_of(text)["model-index"][0]["results"]
    found = {each["name"]: each["value"] for each in results[0]["metrics"]}
    fused = metrics["branches"]["fused"]
    assert found["top-1"] == pytest.approx(fused["top1"], abs=1e-4)
    assert found["mean class accuracy"] == pytest.approx(fused["mean_class_accuracy"], abs=1e-4)
    assert results[0]["dataset"] == {"name": "clips", "type": "clips", "split": "test"}
    assert "### clips: 6 videos" in text and "2 clips x 1 crops, clip rule paper" in text
    assert "too few for an interval over groups" in text and "no test of these weights" not in text


def wilson(right: int, videos: int) -> tuple[float, float]:
    """Shares p at which the seen one is 1.96 standard errors of p away (Wilson, 1927), by bisection."""
    z, seen = 1.959964, right / videos

    def far(p: float) -> bool:
        return abs(seen - p) > z * math.sqrt(p * (1 - p) / videos)

    def between(outside: float) -> float:
        inside = seen
        if not far(outside):
            return outside
        for _ in range(60):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if far(middle) else (outside, middle)
        return inside

    return between(1e-12), between(1 - 1e-12)


def test_cost(run: Path) -> None:
    model = load(run, "cpu").model
    whole = sum(multiply_adds_by_pass(model))
    size = sum(value.numel() for value in model.parameters()) / 1e6
    text = text_of(run / "joint" / "best")
    assert f"{size:.3g} M parameters. One view takes {whole:.3g} G" in text
    assert f"30 views {30 * whole:.3g} G" in text


# Which evaluations ---------------------------------------------------------------------------------------------------


def made_up(folder: Path, weights: str | None, groups: int = 12, **changed: Any) -> np.ndarray:
    """An evaluation of 24 videos in so many groups, as its files; returns which were right, (24,)."""
    right = np.arange(24) % 5 > 0
    folder.mkdir(parents=True)
    with (folder / "scores.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "class", "group", "branch", "predicted", "kick", "nod", "wave"])
        for video, good in enumerate(right):
            group = f"anna-{video % groups}" if groups else ""
            writer.writerow([f"/home/anna/{video}.mp4", 0, "kick", group, "fused", "kick" if good else "nod"])
    metrics = {
        **{"data": "kitchen", "videos": 24, "unscored": 2, "splits": {"test": 26}, "weights": weights},
        **{"engine": "torch", "protocol": {"rule": "paper", "clips": 10, "crops": 3}},
        "branches": {"fused": {"top1": right.mean(), "top5": 1.0, "mean_class_accuracy": right.mean()}},
    }
    (folder / "metrics.json").write_text(json.dumps({**metrics, **changed}))
    return right


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_top5_where_it_says_something(classes: int, tmp_path: Path) -> None:
    """Older evaluations have it for two classes, too, and those of few classes have none."""
    names = [f"c{index}" for index in range(classes)]
    model = PeakZoom("tcnn_xs", classes, classes=names, width=0.25, branches=("original",))
    old = made_up(tmp_path / "old", digest(model))
    branch = {"top1": old.mean(), "mean_class_accuracy": old.mean()}
    made_up(
        tmp_path / "new", digest(model), branches={"fused": branch if classes < 6 else {**branch, "top5": 1}}
    )
    found = gather(model, tmp_path)
    assert len(found.tested) == 2 and not found.unlisted
    for each in found.tested:
        ((_, top1, _, *top5, mean),) = each.rows()
        assert top1 == mean == "79.2%" and top5 == ([] if classes < 6 else ["100.0%"])


def test_only_evaluations_of_these_weights(copied: Path) -> None:
    weights = load(copied, "cpu").weights
    made_up(copied / "joint" / "of-these", weights)
    made_up(copied / "of-others", "0" * 16, data="garden")
    made_up(copied / "of-nobody", None, data="cellar")
    made_up(copied / "damaged", weights, data="attic")
    (copied / "damaged" / "scores.csv").write_text("path\nno score\n")
    update_card(copied / "joint" / "best")
    text = text_of(copied / "joint" / "best")
    assert "### kitchen: 24 videos" in text and "Not listed: 3 further evaluations" in text
    assert "Left out, because they got no score: 2 videos." in text
    for name in ("garden", "cellar", "attic"):
        assert name not in text
    made_up(copied.parent / "elsewhere", weights, data="roof")
    assert update_card(copied / "joint" / "best", [copied.parent / "elsewhere"])
    assert "### roof: 24 videos" in text_of(copied / "joint" / "best")


def test_intervals_over_whole_groups(copied: Path) -> None:
    weights = load(copied, "cpu").weights
    right = made_up(copied / "many", weights, 12)
    made_up(copied / "few", weights, 4, data="few")
    made_up(copied / "none", weights, 0, data="none")
    update_card(copied / "joint" / "best")
    few, many, none = text_of(copied / "joint" / "best").split("\n### ")[1:]
    low, high = bootstrap_interval(right, groups=[video % 12 for video in range(24)])
    assert (
        f"By whole groups (12, bootstrap) the interval of the fused prediction is {low:.1%} to {high:.1%}"
        in many
    )
    assert "4 groups: too few" in few and "By whole" not in few
    assert "too few" not in none and "By whole" not in none


def test_training_videos_are_no_test(copied: Path) -> None:
    weights = load(copied, "cpu").weights
    made_up(copied / "a", weights, splits={"train": 24})
    made_up(copied / "b", weights, splits={"not said": 24}, engine="onnx", data="b")
    effort = {"views": 3.25, "closer": 1.5}
    made_up(copied / "c", weights, cascade=effort, data="c")
    update_card(copied / "joint" / "best")
    text = text_of(copied / "joint" / "best")
    first, second, third = text.split("\n### ")[1:]
    assert "videos that it was trained on: this is no test" in first and "this is no test" not in second
    assert "24 of a split not stated" in second and "Computed by onnx." in second
    assert "3.2 views of a video on average, 1.5 of them also with their enlarged parts." in third
    names = [each["dataset"]["name"] for each in head_of(text)["model-index"][0]["results"]]
    assert names == ["kitchen", "b"]  # a cascade's accuracy is not the model's own


# What stays out ------------------------------------------------------------------------------------------------------


def test_no_folder_and_no_name_of_a_person(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    made_up(copied / "evaluation", load(copied, "cpu").weights)
    command = ["/home/anna/.venv/bin/peakzoom", "train", "/home/anna/My Clips/"]
    command += ["--out=C:\\Users\\anna\\runs\\first", "--init", "../anna/start", "--test-groups", "anna,bert"]
    command += ["--splits=~/anna/lists", "--mean", "0.4,0.5,0.6", "--fold=anna,carl"]
    (copied / "command.txt").write_text(shlex.join(command) + "\n")
    config = json.loads((copied / "config.json").read_text())
    config["options"]["init"] = "/home/anna/start"
    (copied / "config.json").write_text(json.dumps(config))
    update_card(copied / "joint" / "best")
    text = text_of(copied / "joint" / "best")
    for secret in ("anna", "bert", "carl", "home", str(tmp_path), copied.parent.name, "/tmp"):
        assert secret not in text, secret
    shown = "peakzoom train 'My Clips' --out=first --init start --test-groups ... --splits=lists"
    assert f"{shown} --mean 0.4,0.5,0.6 --fold=..." in text
    assert dict(table(text, "setting")[1:])["init"] == "start"


@pytest.mark.parametrize(
    "command", ["/usr/bin/ipykernel_launcher.py -f /home/anna/kernel-1.json", "peakzoom train 'open", ""]
)
def test_what_is_no_command(copied: Path, command: str) -> None:
    (copied / "command.txt").write_text(command)
    update_card(copied / "joint" / "best")
    text = text_of(copied / "joint" / "best")
    assert "anna" not in text and "```sh" not in text and "not trained by a peakzoom command" in text


NASTY = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "a | b",
    "--> <b>bold</b>",
    "```\n# loud\n```",
    "![x](http://example.org/x.png)",
    "---\nlicense: mit\n---",
    "**strong** _weak_ `code` $x$ &amp; \\",
    "café 走",
]


def test_names_are_shown_and_never_read(tmp_path: Path) -> None:
    """By a reader of Markdown that lets HTML through, as the hub's does not."""
    folder = faked_run(tmp_path / "run", NASTY, ["g"] * len(NASTY), ["train"] * len(NASTY), data="<i>d</i>")
    (tmp_path / "run" / "command.txt").write_text("peakzoom train '```<b>x</b>' --out r")
    made_up(tmp_path / "run" / "e", digest(load(folder, "cpu").model), data="x\n---\n# <u>y</u>")
    update_card(folder)
    text = text_of(folder)
    assert head_of(text)["license"] == "unknown"
    body = text.split("---\n", 2)[2]
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    for tag in ("<script", "<b>", "<i>", "<u>", "<a ", "<img", 'javascript:alert(1)"', "<em>", "<h1>loud"):
        assert tag not in page, tag
    assert page.count("<h1>") == 1 and page.count("<strong>") == 0
    cells = [
        line.removeprefix("<td>").split("</td>")[0] for line in page.splitlines() if line.startswith("<td>")
    ]
    shown = {html.unescape(cell) for cell in cells}
    for name in NASTY:
        assert name.replace("\n", "\\n") in shown
    assert is_untouched(text)


def faked_run(home: Path, classes: list[str], groups: list[str], splits: list[str], data: str = "d") -> Path:
    """A run of one video a class, never trained; returns its saved model."""
    pre = Preprocess(size=32, frames=4, canvas=(32, 32))
    model = PeakZoom("tcnn_xs", len(classes), width=0.25, classes=classes, preprocess=pre.to_dict())
    home.mkdir()
    (home / "classes.txt").write_text("\n".join(name.replace("\n", " ") for name in classes))
    (home / "data.txt").write_text(data)
    (home / "config.json").write_text("{}")
    with (home / "videos.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "class", "group", "split"])
        for label, (group, split) in enumerate(zip(groups, splits, strict=True)):
            writer.writerow([f"/v/{label}.mp4", label, "", group, split])
    folder = home / "joint" / "best"
    folder.parent.mkdir()
    model.save_pretrained(folder)
    update_card(folder)
    return folder


@pytest.mark.parametrize(
    "groups,said",
    [
        (["a", "a", "b", "b"], "No test video is of a group that was in training."),
        (["a", "b", "b", "c"], "1 of the 2 test videos are of groups that were also in training"),
        (["a", "", "b", "c"], "of the test videos were also in training is not known"),
        (["a", "b", "c", ""], "of the test videos were also in training is not known"),
    ],
)
def test_whether_test_groups_are_others(tmp_path: Path, groups: list[str], said: str) -> None:
    splits = ["train", "val", "test", "test"]
    assert said in text_of(faked_run(tmp_path / "run", list("wxyz"), groups, splits))


def test_many_classes_are_folded_and_few_videos_named(tmp_path: Path) -> None:
    names = [f"c{index}" for index in range(31)]
    text = text_of(faked_run(tmp_path / "many", names, [""] * 31, ["train"] * 31))
    assert "<summary>31 classes</summary>" in text and "Fewer than 20 training videos: c0, c1, " in text
    assert "c19 and 11 more." in text and "how many different people or recordings" in text
    text = text_of(faked_run(tmp_path / "some", names[:30], [""] * 30, ["train"] * 30))
    assert "<summary>" not in text.split("## Data")[0]
    assert "Whether people or recordings" not in text  # there is no test video


def test_a_model_in_no_run(tmp_path: Path, run: Path, clip_data: VideoSet) -> None:
    model = PeakZoom("tcnn_xs", 3, width=0.25, branches=("original",))
    model.save_pretrained(tmp_path / "alone")
    update_card(tmp_path / "alone")
    text = text_of(tmp_path / "alone")
    assert "What it was trained on is not known" in text and "How it was trained is not known." in text
    assert "does not say how clips are made" in text and "multiply-adds" not in text
    assert [row[0] for row in table(text, "class")[1:]] == ["0", "1", "2"]
    # An evaluation inside a saved model that lies in no run is known.
    shutil.copytree(run / "joint" / "best", tmp_path / "taken")
    entries = [entry for entry in clip_data.entries if entry.split == "test"][:2]
    evaluate(
        load(tmp_path / "taken", "cpu"),
        replace(clip_data, entries=entries),
        tmp_path / "taken" / "evaluation",
        QUICK,
    )
    update_card(tmp_path / "taken")
    assert "### clips: 2 videos" in text_of(tmp_path / "taken")


# Whose text it is ----------------------------------------------------------------------------------------------------


def test_an_edited_card_is_left_as_it_is(copied: Path) -> None:
    file = copied / "joint" / "best" / FILE
    written = file.read_text(encoding="utf-8")
    for edited in (
        written.replace("## Limits", "## Our limits"),
        written + "\nOne more line.\n",
        "license: mit".join(written.split("license: unknown")),
        "# My own card\n",
        "",
    ):
        file.write_text(edited, encoding="utf-8")
        assert not is_untouched(edited) and not update_card(file.parent)
        assert file.read_text(encoding="utf-8") == edited
    file.write_bytes(written.replace("\n", "\r\n").encode())  # as git may lay it out on Windows
    assert update_card(file.parent)
    file.unlink()
    assert update_card(file.parent) and file.read_text(encoding="utf-8") == written


def test_the_card_that_the_hub_s_library_fills_in_counts_as_none(copied: Path) -> None:
    from huggingface_hub import PyTorchModelHubMixin

    pytest.importorskip("jinja2")
    file = copied / "joint" / "best" / FILE
    unfilled = str(PyTorchModelHubMixin.generate_model_card(PeakZoom("tcnn_xs", 2, width=0.25)))
    assert "More Information Needed" in unfilled and is_untouched(unfilled)
    assert not is_untouched(unfilled + "\n\nFilmed in our kitchen.\n")
    file.write_text(unfilled)
    assert update_card(file.parent) and "## Limits" in text_of(file.parent)


def test_missing_cards_are_written_and_no_other(copied: Path) -> None:
    mine, gone = copied / "tcnn" / "best" / FILE, copied / "joint" / "last" / FILE
    before = gone.read_text(encoding="utf-8")
    mine.write_text("# Mine\n")
    gone.unlink()
    write_missing_cards(copied)
    assert mine.read_text() == "# Mine\n" and gone.read_text(encoding="utf-8") == before
    load(copied, "cpu").model.save_pretrained(copied / "again")
    assert sorted(each.name for each in (copied / "again").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.slow
def test_cards_need_no_extra(run: Path) -> None:
    code = """
import sys
for name in ("matplotlib", "lightning", "torchmetrics", "tensorboard", "PIL"):
    sys.modules[name] = None
from peakzoom.hub.card import model_card
sys.stdout.write(str(model_card(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.stdout == text_of(run / "joint" / "best"), done.stderr
