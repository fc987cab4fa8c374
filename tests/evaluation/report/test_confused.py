"""How a report opens, and its confused videos: which, of which network, and what is said where there are none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import ALL, best, make_scores
from test_page import read_page

from peakzoom.data.entries import VideoSet
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_evaluation
from peakzoom.evaluation.report.about import interval_of_top1, read_about
from peakzoom.evaluation.report.confused import CLASSES, VIDEOS, draw_confused, surest_mistakes
from peakzoom.evaluation.report.page import write_report
from peakzoom.evaluation.stats import accuracy_interval
from peakzoom.inference.recognizer import load
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views


@pytest.fixture(scope="module")
def evaluated(run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of ten videos in a copy of a run; one epoch is not enough to be right about them all."""
    copy = Path(shutil.copytree(run, tmp_path_factory.mktemp("runs") / "copied"))
    (copy / "command.txt").write_text("/home/a/bin/peakzoom train /home/a/clips --out runs/copied\n")
    data = replace(clip_data, entries=clip_data.entries[:10])
    evaluate(load(copy, "cpu"), data, copy / "evaluation-test-paper", Views("paper", 1, 1))
    return copy / "evaluation-test-paper"


@pytest.mark.parametrize("seed", range(4))
def test_the_surest_mistakes_of_the_worst_classes(seed: int) -> None:
    scores = make_scores(80, ALL, 1, 1, 9, seed)
    wrong: dict[int, list[tuple[float, int]]] = {}
    right = dict.fromkeys(range(9), 0)
    for video, (row, label) in enumerate(
        zip(scores.means["fused"].tolist(), scores.labels.tolist(), strict=True)
    ):
        if best(row) == label:
            right[label] += 1
        else:
            wrong.setdefault(label, []).append((-row[best(row)], video))
    worst = sorted(wrong, key=lambda label: (right[label] / (right[label] + len(wrong[label])), label))
    expected = [video for label in worst[:CLASSES] for _, video in sorted(wrong[label])[:VIDEOS]]
    assert surest_mistakes(scores) == expected and len(expected) > CLASSES


def test_no_mistake_no_videos() -> None:
    scores = make_scores(20, ALL, 1, 1, 4)
    assert surest_mistakes(replace(scores, labels=scores.means["fused"].argmax(1))) == []


def test_a_page_opens_with_what_was_tested_and_shows_the_confused(evaluated: Path, tmp_path: Path) -> None:
    scores = read_evaluation(evaluated)
    chosen = surest_mistakes(scores)
    assert chosen
    file = write_report(evaluated, tmp_path / "page")
    numbers = json.loads((file.parent / "numbers.json").read_text())
    assert [each["path"] for each in numbers["confused"]] == [scores.paths[video] for video in chosen]
    for each in numbers["confused"]:
        with Image.open(file.parent / each["picture"]) as picture:
            assert picture.width > 3 * picture.height  # four square panes: frame, peaks, two zooms
        assert each["label"] != each["answer"] and each["score"] >= each["score_of_label"]
    page = read_page(file)
    text = " ".join("".join(page.text).split())
    opening = text[: text.index("What is confused")]
    low, high, _ = interval_of_top1(evaluated)
    about = numbers["about"]
    for part in (
        "copied: tcnn_xs, recipe tiny",
        about["weights"],
        about["date"],
        "1 x 1 a video",
        f"{low:.1%}",
    ):
        assert part in opening
    assert "peakzoom train clips --out copied" in opening and "worst class" in opening
    assert (
        text.index("What is confused") < text.index("Do the scores mean") < text.index("Branches and views")
    )
    assert page.tags["details"] == 1
    right = scores.right("fused")
    assert (low, high) == accuracy_interval(right, None)  # two groups are too few to be drawn whole


def test_a_video_that_is_gone_has_its_reason(evaluated: Path, tmp_path: Path) -> None:
    scores = read_evaluation(evaluated)
    scores = replace(scores, paths=[f"/nowhere/{place}.mp4" for place in range(len(scores.paths))])
    found = draw_confused(scores, load(evaluated.parent, "cpu"), tmp_path)
    assert len(found) == len(surest_mistakes(scores)) and not list(tmp_path.iterdir())
    assert all(each.picture is None and each.path in each.reason for each in found)


def test_only_the_network_that_was_evaluated_is_asked(evaluated: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(evaluated, tmp_path / "other"))
    text = (other / "metrics.json").read_text()
    file = write_report(other, tmp_path / "a")  # outside of its run
    assert "name the model by --model" in " ".join("".join(read_page(file).text).split())
    file = write_report(other, tmp_path / "b", model=evaluated.parent)
    assert json.loads((file.parent / "numbers.json").read_text())["confused"]
    weights = json.loads(text)["weights"]
    (other / "metrics.json").write_text(text.replace(weights, "0" * 16))
    with pytest.raises(UserError, match="has other weights than those of"):
        write_report(other, tmp_path / "c", model=evaluated.parent)
    assert not (tmp_path / "c").exists()
    file = write_report(other, tmp_path / "d", thumbnails=False)
    assert "--no-thumbnails was given" in " ".join("".join(read_page(file).text).split())


def test_what_is_not_known_is_said(evaluated: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(evaluated, tmp_path / "other"))
    about = read_about(other)
    assert about.model.startswith("not known") and about.command is None and about.data
    assert np.isclose(interval_of_top1(other)[:2], interval_of_top1(evaluated)[:2]).all()
