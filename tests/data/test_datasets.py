"""Recognition of what the user names, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.files import one_sentence, touch, write

from peakzoom.data.datasets import open_data
from peakzoom.utils.errors import UserError


def test_real_manifest(shared_data):
    data = open_data(shared_data / "ut_interaction" / "clips.csv")
    assert data.classes == ["hand_shaking", "hugging", "kicking", "pointing", "punching", "pushing"]
    assert set(data.counts().values()) == {20} and data.problems == []
    assert {entry.group for entry in data.entries} == {str(i) for i in range(1, 21)}
    assert all(entry.path.is_file() for entry in data.entries) and data.notes == ["read as a manifest"]
    folder = open_data(shared_data / "ut_interaction")
    assert folder.counts() == data.counts() and {e.path for e in folder.entries} == {
        e.path for e in data.entries
    }
    assert any("clips.csv" in note for note in folder.notes)


def test_ucf101_without_its_top_folder_and_by_auto(ucf_root, ucf_lists):
    data = open_data(ucf_root / "UCF-101", splits=ucf_lists, split=2)
    assert len(data.entries) == 13320 and "UCF101" in data.notes[0]


def test_open_data_errors(tmp_path):
    touch(tmp_path / "flat", "a.mp4", "b.mp4")
    touch(tmp_path / "one", "walk/a.mp4", "walk/b.mp4")
    touch(tmp_path / "good", "walk/a.mp4", "run/b.mp4")
    (tmp_path / "empty").mkdir()
    for arguments, says in [
        ({"path": tmp_path / "nowhere"}, "does not exist"),
        ({"path": tmp_path / "empty"}, "no videos"),
        ({"path": tmp_path / "flat"}, "no class folders"),
        ({"path": tmp_path / "one"}, "one class only"),
        ({"path": tmp_path / "good", "format": "imagenet"}, "'imagenet', expected one of auto, folder"),
        ({"path": tmp_path / "good", "split": 4}, "1, 2 or 3"),
        ({"path": tmp_path / "good", "split": 0}, "1, 2 or 3"),
        ({"path": tmp_path / "good", "splits": tmp_path / "empty"}, "classInd.txt"),
        ({"path": tmp_path / "good", "splits": tmp_path / "nowhere"}, "nowhere does not exist"),
        ({"path": tmp_path / "good", "format": "manifest"}, "expected a CSV file"),
        ({"path": tmp_path / "good", "format": "kinetics"}, "expected a CSV file"),
        ({"path": tmp_path / "good" / "run" / "b.mp4", "format": "folder"}, "is a file"),
        ({"path": tmp_path / "good" / "run" / "b.mp4"}, "empty"),
    ]:
        with pytest.raises(UserError) as error:
            open_data(**arguments)
        assert says in one_sentence(error), arguments


def test_what_another_layout_is_read_by(clips: Path, ucf_root: Path, ucf_lists: Path) -> None:
    """Lists, their number and a root are refused where they would not count."""
    listed, official = clips / "clips.csv", "and {} is for UCF101 or HMDB51: leave it out"
    for path, kind in ((listed, "manifest"), (clips, "folder")):
        for split in (2, 3):
            with pytest.raises(UserError, match=f"{kind}, {official.format(f'split {split}')}"):
                open_data(path, split=split)
        with pytest.raises(UserError, match=f"{kind}, {official.format('splits .*')}"):
            open_data(path, format=kind, splits=ucf_lists)
    with pytest.raises(UserError, match=f"manifest, {official.format('splits .*')}"):
        open_data(listed, splits=ucf_lists)
    for path, kind in ((clips, "folder"), (ucf_root, "ucf101")):
        splits = ucf_lists if kind == "ucf101" else None
        with pytest.raises(UserError, match=f"{kind}, and root .* is for a list or a file of a tool: leave"):
            open_data(path, splits=splits, root=clips)
    assert open_data(listed, root=clips, split=1).classes == ["kick", "nod", "wave"]


def test_open_data_reads_a_relative_path(tmp_path, monkeypatch):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    monkeypatch.chdir(tmp_path)
    data = open_data(".")
    assert len(data.entries) == 2 and data.name == tmp_path.name
    write(tmp_path / "list.csv", "path,label\nwalk/a.mp4,1\nrun/b.mp4,0\n../x.mp4,1\n")
    data = open_data("list.csv")
    assert len(data.entries) == 2 and len(data.problems) == 1


def test_with_classes(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    data = open_data(tmp_path).with_classes(["jump", "walk", "run"])
    assert {(entry.path.name, entry.label) for entry in data.entries} == {("a.mp4", 1), ("b.mp4", 2)}
    with pytest.raises(UserError, match="run"):
        data.with_classes(["jump", "walk"])
