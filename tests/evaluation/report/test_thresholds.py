"""Thresholds of one class against counts in plain Python, and what the page and the command make of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from synthetic import ALL, make_scores, write_folder

from peakzoom.cli import main
from peakzoom.evaluation.files import Scores
from peakzoom.evaluation.report.thresholds import RECALLS, threshold_curves
from peakzoom.utils.errors import UserError


def reported(scores: Scores, name: str, threshold: float) -> tuple[int, int]:
    """Videos of the class, and others, whose score is at least this."""
    place = scores.classes.index(name)
    hit = [
        (label == place)
        for label, score in zip(scores.labels, scores.means["fused"][:, place], strict=True)
        if score >= threshold
    ]
    return sum(hit), len(hit) - sum(hit)


def test_every_threshold_is_counted_by_hand(scores: Scores) -> None:
    counts = {name: int((scores.labels == place).sum()) for place, name in enumerate(scores.classes)}
    usable = [name for name, count in counts.items() if 0 < count < len(scores.labels)]
    for name in usable:
        (curves,) = threshold_curves(scores, [name])
        of_class, others = counts[name], len(scores.labels) - counts[name]
        assert (curves.videos, curves.others) == (of_class, others)
        assert curves.thresholds == sorted(
            {*scores.means["fused"][:, scores.classes.index(name)]}, reverse=True
        )
        for place, threshold in enumerate(curves.thresholds):
            right, false = reported(scores, name, threshold)
            assert curves.recall[place] == pytest.approx(right / of_class)
            assert curves.precision[place] == pytest.approx(right / (right + false))
            assert curves.false_alarms[place] == pytest.approx(false / others)
        steps = zip(curves.recall, [0, *curves.recall], curves.precision, strict=False)
        assert curves.average_precision == pytest.approx(
            sum((to - since) * prec for to, since, prec in steps)
        )
        own = scores.means["fused"][scores.labels == scores.classes.index(name), scores.classes.index(name)]
        rest = scores.means["fused"][scores.labels != scores.classes.index(name), scores.classes.index(name)]
        wins = sum((one > two) + 0.5 * (one == two) for one in own for two in rest)
        assert curves.auroc == pytest.approx(wins / (of_class * others))
        for wanted, row in zip(RECALLS, curves.rows, strict=True):
            right, false = reported(scores, name, row.threshold)
            assert (row.recall.right, row.precision.videos, row.false_alarms.right) == (
                right,
                right + false,
                false,
            )
            assert right >= wanted * of_class - 1e-9
            higher = [each for each in curves.thresholds if each > row.threshold]
            assert all(reported(scores, name, each)[0] < wanted * of_class for each in higher)


def test_which_classes_are_shown() -> None:
    two, five = make_scores(30, ALL, 1, 1, 3), make_scores(40, ALL, 1, 1, 5)
    assert threshold_curves(five) == []
    both = Scores(**{**vars(two), "classes": ["class 0", "class 1"]})
    assert [each.name for each in threshold_curves(both)] == ["class 0", "class 1"]
    named = threshold_curves(five, ["class 2", "class 0", "class 2"])
    assert [each.name for each in named] == ["class 2", "class 0"]
    with pytest.raises(UserError, match="no class is called clas 2: did you mean class 2"):
        threshold_curves(five, ["clas 2"])
    with pytest.raises(UserError, match="no class is called xyz, expected one of 'class 0', "):
        threshold_curves(five, ["xyz"])
    with pytest.raises(UserError, match="0 of 40 test videos are of class class 4"):
        threshold_curves(five, ["class 4"])
    alone = make_scores(12, ALL, 1, 1, 2)  # all of one class
    assert threshold_curves(alone) == []


@pytest.mark.slow
def test_the_page_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = make_scores(40, ALL, 2, 1, 5)
    write_folder(scores, tmp_path / "e")

    def report(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["peakzoom", "report", str(tmp_path / "e"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert report("--out", str(tmp_path / "plain")) == 0
    assert "as an alarm" not in (tmp_path / "plain" / "report.html").read_text("utf-8")
    assert report("--thresholds", "class 1", "--thresholds", "class 3") == 0
    page = (tmp_path / "e" / "report" / "report.html").read_text("utf-8")
    assert "as an alarm" in page and "<h3>class 1</h3>" in page and "<h3>class 3</h3>" in page
    assert (tmp_path / "e" / "report" / "thresholds1.png").exists()
    assert report("--thresholds", "class 9", "--out", str(tmp_path / "other")) == 2
    assert "did you mean" in capsys.readouterr().err and not (tmp_path / "other").exists()
