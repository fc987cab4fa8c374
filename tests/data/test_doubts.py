"""What is doubtful of a data set is said before training, and shown by ``data check``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from data.files import touch

from peakzoom.data.datasets import open_data, open_to_look
from peakzoom.data.doubts import doubts, parts_of
from peakzoom.data.entries import NO_CLASS, Entry, VideoSet
from peakzoom.utils.digests import digest_of, digests, same_bytes
from peakzoom.utils.errors import UserError


def told(root: Path) -> list[str]:
    data = open_to_look(root)
    return doubts(data.classes, parts_of(data), same_bytes(entry.path for entry in data.entries))


def put(root: Path, **content: str) -> Path:
    """Files by class and name, as ``train__a__1="bytes"``."""
    for name, text in content.items():
        file = root / (name.replace("__", "/") + ".mp4")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_nothing_is_doubtful(tmp_path: Path) -> None:
    assert told(put(tmp_path, a__1="1", a__2="2", b__3="3", b__4="44")) == []


@pytest.mark.parametrize(
    "names, how",
    [
        (["Run", "run"], "'Run' and 'run' differ only in case"),
        (["RUN", "Run", "run"], "'RUN' and 'Run' and 'run' differ only in case"),
        (["STRASSE", "straße"], "'STRASSE' and 'straße' differ only in case"),
        (
            ["caf\u00e9", "cafe\u0301"],
            r"'caf\xe9' and 'cafe\u0301' differ only in how their letters are stored",
        ),
        (["\u212b", "\u00e5"], "differ only in case"),  # Angstrom, and a small a with a ring
        (
            ["ﬁt", "fit"],
            "'ﬁt' and 'fit' differ only in case, spaces, what is not seen, or the form of letters",
        ),
        (["high jump", "high  jump"], "differ only in case, spaces"),
        (["wave", "wave\u200b"], "'wave' and 'wave\\u200b' differ only in case, spaces, what is not seen"),
        (["run", "\ufeffrun\u202e"], "differ only in case, spaces, what is not seen"),
        (["１", "1"], "differ only in case, spaces, what is not seen, or the form of letters"),
    ],
)
def test_names_that_nobody_tells_apart(names: list[str], how: str) -> None:
    entries = [Entry(Path(f"{label}{number}"), label) for label in range(4) for number in "ab"]
    (line,) = doubts([*names, "other", "another"][:4], parts_of(VideoSet([], entries, [], "")), [])
    assert how in line and line.endswith("if they are one class, give them one name")


def test_classes_that_cannot_be_learned(tmp_path: Path) -> None:
    put(tmp_path, train__a__1="1", train__a__2="22", train__b__3="333", test__c__4="4444", val__c__5="55555")
    assert told(tmp_path) == [
        "1 class with no training video, so it is never learned: 'c' (2 to validate or test)",
        "1 class with one training video only, so nothing of it can be held out for validation or a test: 'b'",
    ]


def test_a_class_of_a_manifest_whose_files_are_missing(tmp_path: Path) -> None:
    put(tmp_path, v1="1", v2="22", v3="333", v4="4444")
    rows = ["path,label", "v1.mp4,a", "v2.mp4,a", "v3.mp4,b", "v4.mp4,b", "gone.mp4,c", "lost.mp4,d"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert told(tmp_path / "list.csv") == [
        "2 classes with no training video, so they are never learned: 'c', 'd'"
    ]


def test_a_list_of_test_videos_alone_misses_no_training_video(tmp_path: Path) -> None:
    assert told(put(tmp_path, test__a__1="1", test__b__2="22")) == []


def test_the_same_bytes(tmp_path: Path) -> None:
    """In training and test, in training and validation, in two classes, and twice in one."""
    put(
        tmp_path,
        train__a__1="one",
        train__a__2="two",
        train__a__2copy="two",
        train__b__3="three",
        train__b__4="4",
    )
    put(
        tmp_path,
        test__a__5="one",
        test__a__5copy="one",
        val__b__6="4",
        test__b__7="two4",
        train__a__8="three",
    )
    (tmp_path / "val" / "b" / "link.mp4").symlink_to(tmp_path / "train" / "b" / "4.mp4")
    val, test, mixed, copies = told(tmp_path)
    train = tmp_path / "train"
    assert val == (
        "2 validation videos with the same bytes as a training video, so accuracies on them flatter the model: "
        f"'{tmp_path}/val/b/6.mp4' and '{train}/b/4.mp4'"
    )
    assert test.startswith("2 test videos with the same bytes as a training video")
    assert test.endswith(f"'{tmp_path}/test/a/5.mp4' and '{train}/a/1.mp4'")
    assert mixed == (
        f"1 video with the same bytes in several classes ('a', 'b'): '{train}/a/8.mp4' and '{train}/b/3.mp4'"
    )
    assert copies == (
        f"1 video with the same bytes under several names: '{train}/a/2.mp4' and '{train}/a/2copy.mp4'"
    )


def test_only_files_of_one_length_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, a="1", b="22", c="33", d="", e="", f="33")
    read: list[str] = []
    true = digest_of
    monkeypatch.setattr("peakzoom.utils.digests.digest_of", lambda file: read.append(file.stem) or true(file))
    files = sorted(tmp_path.iterdir())
    assert same_bytes([*files, *files, tmp_path / "gone.mp4"]) == [[tmp_path / "c.mp4", tmp_path / "f.mp4"]]
    assert sorted(read) == ["b", "c", "f"]


def test_digests_notice_a_byte_whatever_the_clock_says(tmp_path: Path) -> None:
    file = put(tmp_path, a="x" * 3_000_000) / "a.mp4"
    before, facts = digests([file]), file.stat()
    with file.open("r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"y")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert digests([file]) != before
    assert digests([tmp_path / "gone", tmp_path]) == {tmp_path / "gone": "", tmp_path: ""}


def test_a_folder_without_classes(tmp_path: Path) -> None:
    put(tmp_path, b="1", a="22", c="1")
    touch(tmp_path, ".hidden.mp4", "Thumbs.db")
    data = open_to_look(tmp_path)
    assert data.classes == [NO_CLASS] and [entry.path.stem for entry in data.entries] == ["a", "b", "c"]
    assert data.problems == [] and "without a class" in data.notes[0]
    assert told(tmp_path) == [
        f"1 video with the same bytes under several names: '{tmp_path}/b.mp4' and '{tmp_path}/c.mp4'"
    ]
    with pytest.raises(UserError, match="videos but no class folders"):
        open_data(tmp_path)


def test_one_class_can_be_looked_at(tmp_path: Path) -> None:
    put(tmp_path, a__1="1")
    assert open_to_look(tmp_path).classes == ["a"] and told(tmp_path) == [
        "'a' is the only class, and training needs two"
    ]
    with pytest.raises(UserError, match="one class only"):
        open_data(tmp_path)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(UserError, match="no videos"):
        open_to_look(tmp_path)
