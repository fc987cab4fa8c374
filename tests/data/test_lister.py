"""One lister of folders: predict, the archive, the page's examples and data sets see the same files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from data.files import touch

from peakzoom import cli
from peakzoom.apps.batch.listing import find_items
from peakzoom.cli.inputs import find_videos
from peakzoom.data.entries import Problem, VideoSet
from peakzoom.data.layouts.files import is_passed_over, walk
from peakzoom.data.layouts.folder import read_folder
from peakzoom.utils.errors import DecodeError
from peakzoom.video.decode import decode
from peakzoom.video.scan import probe

Listing = Callable[[Path], list[str]]


def trained_on(root: Path) -> list[str]:
    """What ``peakzoom train`` hands to the training."""
    found: list[VideoSet] = []

    def note(videos: VideoSet, *_: object) -> None:
        found.append(videos)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peakzoom.training.train.train", note)
        cli.app(["train", str(root), "--out", str(root.parent / "run")], standalone_mode=False)
    return [str(entry.path) for entry in found[0].entries]


WAYS: dict[str, Listing] = {
    "predict": lambda root: [str(file) for file in find_videos([root])],
    "archive": lambda root: [item.path for item in find_items([root])],
    "train": trained_on,
    "data set": lambda root: [str(entry.path) for entry in read_folder(root).entries],
}
PASSED_OVER = (
    *(".Trash-1000/files/a/1.mp4", "__MACOSX/._clip.mp4", "__MACOSX/a/1.mp4", "a/.hidden/deep/4.mp4"),
    *("a/sub/._2.mp4", "a/.3.mp4", ".Trash/5.mp4", "b/$RECYCLE.BIN/6.mp4", "b/@eaDir/3.mp4/view.mp4"),
    *("b/Thumbs.db", "lost+found/a/7.mp4", "System Volume Information/a/8.mp4", ".git/a/9.mp4"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of videos, a third one by a link, and all that is no video of the user's."""
    root = tmp_path / "clips"
    touch(root, "a/1.mp4", "a/sub/2.mp4", "b/3.mp4", *PASSED_OVER)
    touch(tmp_path, "elsewhere/deep/6.mp4", "elsewhere/.hidden/7.mp4")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    return root


def of(root: Path, *names: str) -> list[str]:
    return [str(root / name) for name in names]


@pytest.mark.parametrize("way", WAYS)
def test_hidden_files_and_links(root: Path, way: str) -> None:
    assert WAYS[way](root) == of(root, "a/1.mp4", "a/sub/2.mp4", "b/3.mp4", "c/deep/6.mp4")


@pytest.mark.parametrize("way", WAYS)
def test_links_in_circles_and_twice(root: Path, way: str) -> None:
    (root / "a" / "up").symlink_to(root)  # would make every class a class of "a"
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "above").symlink_to(root.parent.parent)
    (root / "b" / "again").symlink_to(root / "a")  # would give its videos two classes
    (root / "c" / "back").symlink_to(root.parent / "elsewhere")
    (root / "round").symlink_to(root / "round")
    assert WAYS[way](root) == of(root, "a/1.mp4", "a/sub/2.mp4", "b/3.mp4", "c/deep/6.mp4")


@pytest.mark.parametrize("way", WAYS)
def test_links_that_lead_nowhere_and_pipes_are_listed_for_their_reason(root: Path, way: str) -> None:
    (root / "b" / "gone.mp4").symlink_to(root / "nowhere")
    (root / "b" / "loop.mp4").symlink_to(root / "b" / "loop.mp4")
    os.mkfifo(root / "b" / "pipe.mp4")
    (root / "b" / "folder.mp4").mkdir()
    touch(root, "b/folder.mp4/4.mp4")
    names = ["b/3.mp4", "b/gone.mp4", "b/loop.mp4", "b/pipe.mp4", "b/folder.mp4/4.mp4"]
    assert sorted(WAYS[way](root)) == sorted(of(root, "a/1.mp4", "a/sub/2.mp4", *names, "c/deep/6.mp4"))


@pytest.mark.parametrize("way", WAYS)
def test_links_that_lead_nowhere_have_that_reason(
    root: Path, way: str, said: Callable[[], list[str]]
) -> None:
    """One that is called as a folder or another file is left out with it; of a video it is the reason."""
    for name in ("b/photos", "b/notes.dat", "gone"):
        (root / name).symlink_to(root / "nowhere" / name)
    (root / "b" / "gone.mp4").symlink_to(root / "nowhere")
    names = ("a/1.mp4", "a/sub/2.mp4", "b/3.mp4", "b/gone.mp4", "c/deep/6.mp4")
    assert WAYS[way](root) == of(root, *names)
    problems = {f"{each.path}: {each.reason}" for each in read_folder(root).problems}
    found = problems if way in ("data set", "train") else set(said())
    assert found == {
        f"{root / name}: a link that leads nowhere" for name in ("b/photos", "b/notes.dat", "gone")
    }
    for look in (probe, decode):
        with pytest.raises(DecodeError) as caught:
            look(root / "b" / "gone.mp4")
        assert caught.value.reason == "a link that leads nowhere"


def test_what_is_not_followed_is_said(root: Path, said: Callable[[], list[str]]) -> None:
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "again").symlink_to(root / "a")
    expected = [
        Problem(str(root / "b" / "again"), f"the same folder as {root / 'a'}, which is listed"),
        Problem(str(root / "a" / "up"), "a link to a folder that it lies in: not followed"),
    ]
    assert set(read_folder(root).problems) == set(expected)
    for way in ("predict", "archive"):
        before = len(said())
        WAYS[way](root)
        assert set(said()[before:]) == {f"{each.path}: {each.reason}" for each in expected}


def test_a_class_under_a_second_name_is_a_problem(root: Path) -> None:
    (root / "d").symlink_to(root / "a")
    data = read_folder(root)
    assert data.classes == ["a", "b", "c"]
    assert [problem.path for problem in data.problems] == of(root, "d", "d")


def test_a_folder_that_cannot_be_read_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    true = os.scandir

    def refuse(folder: str | Path) -> object:
        if Path(folder) == root / "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return true(folder)

    monkeypatch.setattr("peakzoom.data.layouts.files.os.scandir", refuse)
    assert WAYS["predict"](root) == of(root, "a/1.mp4", "a/sub/2.mp4", "c/deep/6.mp4")
    assert said() == [f"{root / 'b'}: folder cannot be read (Permission denied)"]


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    """Only what lies below a folder is passed over, never what the user names."""
    touch(tmp_path, ".clips/a.mp4", "._b.mp4")
    assert [file.name for file in find_videos([tmp_path / ".clips", tmp_path / "._b.mp4"])] == [
        "a.mp4",
        "._b.mp4",
    ]


def test_a_storage_is_listed_alike() -> None:
    import fsspec

    storage = fsspec.filesystem("memory")
    for name in (*PASSED_OVER, "a/1.mp4", "b/3.mp4"):
        storage.pipe(f"/listed/{name}", b"x")
    try:
        assert [item.path for item in find_items(["memory://listed"])] == [
            "memory:///listed/a/1.mp4",
            "memory:///listed/b/3.mp4",
        ]
        assert len(find_items(["memory://listed/a/.3.mp4"])) == 1
    finally:
        storage.rm("/listed", recursive=True)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_splits_that_are_links(tmp_path: Path, split: str) -> None:
    touch(tmp_path, "pool/wave/1.mp4", "pool/kick/2.mp4", "pool/.x/3.mp4")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / split).symlink_to(tmp_path / "pool")
    data = read_folder(tmp_path / "clips")
    assert data.classes == ["kick", "wave"] and {entry.split for entry in data.entries} == {split}
    assert data.problems == []


def test_files_come_before_folders_as_ever(tmp_path: Path) -> None:
    """A run that was begun before there was one lister knows its videos by this order."""
    touch(tmp_path, "z.mp4", "a/y.mp4", "a.b/x.mp4", "B/w.mp4")
    problems: list[Problem] = []
    found = [file.relative_to(tmp_path).as_posix() for file in walk(tmp_path, problems)]
    assert found == ["z.mp4", "B/w.mp4", "a/y.mp4", "a.b/x.mp4"] and problems == []


def test_files_of_the_system_are_told_from_folders() -> None:
    assert is_passed_over(("Thumbs.db",)) and not is_passed_over(("thumbs.db", "1.mp4"))
    assert is_passed_over(("__macosx", "1.mp4")) and not is_passed_over(("readme", "1.mp4"))
