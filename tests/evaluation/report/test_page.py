"""The page: against the evaluation's other files, read by a parser, with names that try to be markup."""

from __future__ import annotations

import base64
import csv
import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from synthetic import ALL, make_scores, write_folder

from peakzoom.data.entries import Problem, VideoSet
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import Scores, find_evaluation, read_evaluation, write_rejection
from peakzoom.evaluation.rejection import JudgedVideo, RejectionScores
from peakzoom.evaluation.report.numbers import confusion_matrix, measure_all
from peakzoom.evaluation.report.page import write_report
from peakzoom.inference.recognizer import load
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

NASTY = ["<script>alert(1)</script>", "a|b", "[x](y) & *z*", "two\nlines\\", "$\\frac$"]


# A real evaluation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(run: Path, clip_data: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, 4 x 3 views, in the run's folder's way: alone inside another folder."""
    test = [entry for entry in clip_data.entries if entry.split == "test"]
    test += [entry for entry in clip_data.entries if entry.split == "train" and entry.label == 2][:2]
    out = tmp_path_factory.mktemp("real") / "evaluation-test-paper"
    evaluate(load(run, "cpu"), replace(clip_data, entries=test), out, Views("paper", 4, 3))
    return out


def test_numbers_are_those_of_the_evaluation(real: Path) -> None:
    assert find_evaluation(real.parent) == find_evaluation(real) == real
    page = write_report(real)
    assert page == real / "report" / "report.html"
    numbers = json.loads((real / "report" / "numbers.json").read_text())
    metrics = json.loads((real / "metrics.json").read_text())
    rows = {row["name"]: row for row in numbers["subsets"]}
    assert list(rows) == ["O", "D", "C", "O+D", "O+C", "D+C", "O+D+C", "fused"]
    for name, letter in zip(ALL, ("O", "D", "C", "fused"), strict=True):
        stated = metrics["branches"][name]  # float32, as torchmetrics counts
        assert np.float32(rows[letter]["top1"]["value"]) == np.float32(stated["top1"])
        assert rows[letter]["mean_class"] == pytest.approx(stated["mean_class_accuracy"], rel=3e-7)
        assert numbers["views"][-1]["top1"][name] == rows[letter]["top1"]
    assert {row["branch"]: row["mean"] for row in numbers["votes"]} == {
        name: rows[letter]["top1"] for name, letter in zip(ALL, ("O", "D", "C", "fused"), strict=True)
    }
    assert numbers["protocol"] == metrics["protocol"] and numbers["videos"] == metrics["videos"] == 8
    with (real / "per_class.csv").open(newline="", encoding="utf-8") as stream:
        for line, own, hint in zip(
            csv.DictReader(stream), numbers["per_class"], numbers["scenery"], strict=True
        ):
            assert (line["class"], int(line["videos"])) == (own["name"], own["found"]["videos"])
            assert np.float32(own["found"]["value"]) == np.float32(line["fused"])
            for name in ALL:
                assert np.float32(hint["right"][name] / hint["videos"]) == np.float32(line[name])
    with (real / "confusion.csv").open(newline="", encoding="utf-8") as stream:
        stated_confusion = [list(map(int, line[1:])) for line in list(csv.reader(stream))[1:]]
    assert confusion_matrix(read_evaluation(real)).tolist() == stated_confusion
    with pytest.raises(UserError, match="not empty"):
        write_report(real)
    again = write_report(real, real.parent / "again").parent
    for file in ("numbers.json", "report.html"):
        assert (again / file).read_bytes() == (real / "report" / file).read_bytes()


def test_a_run_with_the_original_branch_alone(run: Path, clip_data: VideoSet, tmp_path: Path) -> None:
    test = [entry for entry in clip_data.entries if entry.split == "test"]
    evaluate(
        load(run / "tcnn", "cpu"), replace(clip_data, entries=test), tmp_path / "e", Views("paper", 2, 1)
    )
    folder = write_report(tmp_path / "e").parent
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["disagreement"] is None and numbers["scenery"] is None
    assert [row["name"] for row in numbers["subsets"]] == ["O", "fused"]
    text = " ".join("".join(read_page(folder / "report.html").text).split())
    assert "has one branch, original" in text and "Left out" in text
    assert "complementary view alone" not in text and "branches disagree" not in text and "gained" not in text
    assert sorted(file.name for file in folder.glob("*.png")) == [
        "calibration.png",
        "confusion.png",
        "subsets.png",
        "views.png",
    ]


# The page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that elements close, and collects what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read_page(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


def test_page_from_the_scores(scores: Scores, tmp_path: Path) -> None:
    folder = write_folder(scores, tmp_path / "evaluation")
    again = read_evaluation(folder)
    assert again.labels.tolist() == scores.labels.tolist() and again.protocol == scores.protocol
    assert again.paths == scores.paths
    for name in scores.branches:
        np.testing.assert_array_equal(again.means[name], scores.means[name])
    file = write_report(folder)
    page = read_page(file)
    assert page.tags["script"] == 0 and page.tags["link"] == 0
    assert page.sources and all(each.startswith("data:image/png;base64,") for each in page.sources)
    pictures = {base64.b64encode(each.read_bytes()).decode() for each in file.parent.glob("*.png")}
    assert {each.partition(",")[2] for each in page.sources} == pictures
    assert len(pictures) == len(page.sources) == page.tags["img"]
    numbers = measure_all(again)
    assert f"{numbers.subsets[-1].top1.value:.1%}" in "".join(page.text)


@pytest.mark.parametrize("unknown", [0, 3])
def test_rejections_are_shown(tmp_path: Path, unknown: int) -> None:
    """The page's figures are those of ``rejection.csv``, counted by hand; a damaged one is a sentence."""
    scores = make_scores(24, ALL, 2, 1, 4)
    folder = write_folder(scores, tmp_path / "evaluation")
    draw = np.random.default_rng(0)
    right = scores.right("fused").tolist() + unknown * [False]
    assert min(sum(right), len(right) - sum(right)) >= 5
    videos = [
        JudgedVideo(path, label, "a", float(draw.uniform(0, 0.6) + 0.4 * good), False, good, None)
        for path, label, good in zip(
            [*scores.paths, *map(str, range(unknown))], [*(24 * ["a"]), *(unknown * [""])], right, strict=True
        )
    ]
    videos = [replace(each, rejected=each.confidence < 0.4) for each in videos]
    assert measure_all(read_evaluation(folder)).rejection is None
    write_rejection(folder, RejectionScores("probability", 0.4, videos, groups=False))
    file = write_report(folder)
    text = " ".join("".join(read_page(file).text).split())
    kept = [each.right for each in videos if each.label and not each.rejected]
    auroc = roc_auc_score(right, [each.confidence for each in videos])
    assert "None of these" in text and "largest probability is at least 0.4" in text
    assert (
        f"{auroc:.3f}" in text and f"{len(kept) / 24:.1%}" in text and f"{sum(kept) / len(kept):.1%}" in text
    )
    assert (f"{unknown} unknown videos that are rejected" in text) == bool(unknown)
    written = json.loads((file.parent / "numbers.json").read_text())["rejection"]
    assert written == json.loads((folder / "rejection.json").read_text())
    table = (folder / "rejection.csv").read_text()
    for old, new, said in (
        ("True", "yes", "rejection.csv is damaged"),
        ("confidence", "trust", "rejection.csv is damaged"),
        (scores.paths[3], "other.mp4", "is of other videos than scores.csv"),
    ):
        (folder / "rejection.csv").write_text(table.replace(old, new))
        with pytest.raises(UserError, match=said):
            measure_all(read_evaluation(folder))
    (folder / "rejection.csv").unlink()
    with pytest.raises(UserError, match=r"has no rejection\.csv"):
        measure_all(read_evaluation(folder))


def test_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    found = make_scores(40, ALL, 2, 1, 5)
    names = [f"{name.replace('/', '')}{place}.mp4" for place, name in enumerate(NASTY * 8)]
    found = replace(found, classes=NASTY, paths=names)
    folder = write_folder(found, tmp_path / "e", [Problem("<b>|.mp4", "broken: <i>\nx")])
    report = write_report(folder)
    page = read_page(report)
    seen = "".join(page.text)
    assert page.tags["script"] == page.tags["b"] == page.tags["i"] == page.tags["z"] == 0
    for name in (
        "<script>alert(1)</script>",
        "a|b",
        "[x](y) & *z*",
        r"two\nlines",
        r"$\frac$",
        r"broken: <i>\nx",
    ):
        assert name in seen


@pytest.mark.slow
def test_many_classes(tmp_path: Path) -> None:
    folder = write_folder(make_scores(150, ALL, 1, 1, 101), tmp_path / "e")
    page = read_page(write_report(folder))
    assert page.tags["details"] == 3
    assert (folder / "report" / "classes.png").stat().st_size < 2**20
