"""Reading an evaluation: which folder, damaged files, files that contradict one another."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import ALL, COMP, DISC, ORIG, make_scores, write_folder

from peakzoom.evaluation.files import SCORES, find_evaluation, read_evaluation
from peakzoom.evaluation.report.page import write_report
from peakzoom.utils.errors import UserError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_folder(make_scores(6, ALL, 2, 1, 3), tmp_path / "run" / "tcnn" / "evaluation-test-paper")


def test_which_evaluation(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert find_evaluation(run) == find_evaluation(run / "tcnn") == find_evaluation(str(small)) == small
    write_report(small)
    assert find_evaluation(run) == small
    other = write_folder(make_scores(6, ALL, 2, 1, 3), run / "evaluation-val-paper")
    with pytest.raises(UserError, match="holds 2 evaluations, name one") as told:
        find_evaluation(run)
    assert str(other) in str(told.value) and str(small) in str(told.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"run 'peakzoom evaluate .*empty' first"):
        find_evaluation(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        find_evaluation(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        find_evaluation(small / "metrics.json")


def test_folders_in_use(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a file"):
        write_report(small, small / "metrics.json")
    with pytest.raises(UserError, match="not empty"):
        write_report(small, tmp_path / "run")
    (tmp_path / "new").mkdir()
    assert write_report(small, tmp_path / "new").parent == tmp_path / "new"


@pytest.mark.parametrize("name", ["scores.csv", "views.npz", "metrics.json"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00broken", b"path,label\n", b"{}", b"a,b\n1,2\n", b"[]"]
)
def test_damaged_files(small: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (small / name).unlink()
    else:
        (small / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(name)) as told:
        write_report(small)
    assert len(str(told.value).splitlines()) == 1
    assert not (small / "report").exists()


def change_views(folder: Path, **changed: np.ndarray) -> None:
    with np.load(folder / "views.npz") as file:
        content = {name: file[name] for name in file.files}
    np.savez(folder / "views.npz", **{**content, **changed})


def change_metrics(folder: Path, old: str, new: str) -> None:
    text = (folder / "metrics.json").read_text()
    assert old in text
    (folder / "metrics.json").write_text(text.replace(old, new, 1))


def test_files_that_contradict_one_another(tmp_path: Path) -> None:
    scores = make_scores(6, ALL, 2, 1, 3)
    views = scores.views
    lines = (write_folder(scores, tmp_path / "first") / "scores.csv").read_text().splitlines(keepends=True)
    broken = {
        "shape": lambda at: change_views(at, scores=views[:, :, :1]),
        "int64": lambda at: change_views(at, scores=views.astype(np.int64)),
        "average": lambda at: change_views(at, scores=views[::-1]),
        "NaN": lambda at: change_views(at, scores=views * np.nan),
        "order": lambda at: change_views(at, labels=(scores.labels + 1) % 3),
        "branches": lambda at: change_views(at, branches=np.array(["fused", ORIG, DISC, COMP])),
        "every video": lambda at: change_views(at, paths=np.array(["one"])),
        "shape ": lambda at: change_metrics(at, '"clips": 2', '"clips": 3'),
        "clip rule": lambda at: change_metrics(at, '"paper"', '"papier"'),
        "other videos": lambda at: change_metrics(at, '"videos": 6', '"videos": 7'),
        "accuracy of original": lambda at: change_metrics(at, '"top1": ', '"top1": 7'),
        "row": lambda at: (at / "scores.csv").write_text("".join(lines[:-1])),
        "classes, counted": lambda at: (at / "scores.csv").write_text(
            "".join([lines[0], *(re.sub(r"mp4,\d", "mp4,7", line) for line in lines[1:])])
        ),
    }
    for place, (word, change) in enumerate(broken.items()):
        folder = write_folder(scores, tmp_path / str(place))
        change(folder)
        told = "average" if word == "NaN" else word.strip()
        with pytest.raises(UserError, match=f"{told}.*evaluate again$"):
            read_evaluation(folder)


@pytest.mark.parametrize(
    "classes",
    [
        ["path", "label", "fused"],
        ["score:path", "path", "wave"],
        ["branch", "score:score:branch", "score:branch"],
    ],
)
def test_classes_called_as_columns_are(classes: list[str], tmp_path: Path) -> None:
    """No two columns of a table are called alike, and the names come back."""
    given = replace(make_scores(6, ALL, 2, 1, 3), classes=classes)
    folder = write_folder(given, tmp_path / "evaluation")
    for name in ("scores.csv", "confusion.csv"):
        with (folder / name).open(newline="", encoding="utf-8") as stream:
            columns, *rows = csv.reader(stream)
        assert len(columns) == len(set(columns)) == len(rows[0])
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    columns = list(table[0])[len(SCORES) :]
    for at, row in enumerate(row for row in table if row["branch"] == "fused"):
        assert row["path"] == given.paths[at] and classes[int(row["label"])] == row["class"]
        assert [float(row[name]) for name in columns] == given.means["fused"][at].tolist()
    read = read_evaluation(folder)
    assert read.classes == classes
    for name in given.branches:
        np.testing.assert_array_equal(read.means[name], given.means[name])
    write_report(folder)
