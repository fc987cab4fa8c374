"""UCF101 and HMDB51 from made-up downloads in the official form, and the official lists against their counts."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from data.files import one_sentence, touch
from data.rar import write_rar
from data.test_archives import files_below, write_tar, write_zip

from peakzoom import cli
from peakzoom.data.archives import UNPACKING
from peakzoom.data.datasets import open_data
from peakzoom.data.prepare import OFFICIAL, Official, prepare
from peakzoom.utils.errors import UserError

# As published: the lists with CRLF ends, the odd spelling of one class's files.
UCF_CLASSES = ["Archery", "HandstandPushups"]
UCF_FILES = [
    f"{folder}/v_{name}_g{group:02d}_c01.avi"
    for folder, name in (("Archery", "Archery"), ("HandstandPushups", "HandStandPushups"))
    for group in (1, 2, 3)
]
HMDB_CLASSES = ["brush_hair", "wave"]
HMDB_FILES = [
    f"{name}/film_{name}_f_nm_np1_fr_med_{number}.avi" for name in HMDB_CLASSES for number in range(4)
]


def ucf_lists() -> dict[str, bytes]:
    """Split n tests on recording n."""
    lists = {"classInd.txt": [f"{number} {name}" for number, name in enumerate(UCF_CLASSES, 1)]}
    for split in (1, 2, 3):
        tested = [name for name in UCF_FILES if f"_g0{split}_" in name]
        lists[f"testlist0{split}.txt"] = tested
        lists[f"trainlist0{split}.txt"] = [
            f"{name} {UCF_CLASSES.index(name.split('/')[0]) + 1}" for name in UCF_FILES if name not in tested
        ]
    return {f"ucfTrainTestlist/{name}": "\r\n".join([*rows, ""]).encode() for name, rows in lists.items()}


def hmdb_lists() -> dict[str, bytes]:
    """Split n tests on video n of each class; video 0 is used by none."""
    lists = {}
    for split in (1, 2, 3):
        for name in HMDB_CLASSES:
            rows = [
                f"{file.split('/')[1]} {0 if number == 0 else 2 if number == split else 1} \n"
                for number, file in enumerate(each for each in HMDB_FILES if each.startswith(name))
            ]
            lists[f"testTrainMulti_7030_splits/{name}_test_split{split}.txt"] = "".join(rows).encode()
    return lists


UCF = replace(OFFICIAL["ucf101"], classes=2, videos=6, counts=((4, 2),) * 3)
HMDB = replace(OFFICIAL["hmdb51"], classes=2, videos=8, counts=((4, 2),) * 3)


def contents(names: list[str], above: str = "") -> dict[str, bytes]:
    return {f"{above}{name}": name.encode() for name in names}


def hmdb_archive(file: Path) -> Path:
    """One RAR a class, as published, in one RAR."""
    inner = {}
    for name in HMDB_CLASSES:
        part = write_rar(
            file.parent / "parts" / f"{name}.rar",
            contents([each for each in HMDB_FILES if each.startswith(name)]),
        )
        inner[part.name] = part.read_bytes()
        part.unlink()
    (file.parent / "parts").rmdir()
    return write_rar(file, inner)


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def as_published(root: Path) -> None:
    write_rar(root / "UCF101.rar", contents(UCF_FILES, "UCF-101/"))
    write_zip(root / "UCF101TrainTestSplits-RecognitionTask.zip", ucf_lists())


def repacked(root: Path) -> None:
    (root / "sub").mkdir()
    write_zip(root / "sub" / "ucf-101.ZIP", contents(UCF_FILES))
    write_tar(root / "sub" / "splits.tar.gz", ucf_lists())


def videos_unpacked(root: Path) -> None:
    put(root / "data" / "UCF-101", contents(UCF_FILES))
    write_zip(root / "UCF101TrainTestSplits-RecognitionTask.zip", ucf_lists())
    write_zip(root / "UCF101TrainTestSplits-DetectionTask.zip", {"other/trainlist01.txt": b"x"})


def all_unpacked(root: Path) -> None:
    put(root, contents([name.lower().replace(".avi", ".mp4") for name in UCF_FILES]))
    put(root, ucf_lists())


@pytest.mark.parametrize("lay", [as_published, repacked, videos_unpacked, all_unpacked])
def test_ucf101(tmp_path: Path, caplog: pytest.LogCaptureFixture, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    before = files_below(tmp_path)
    found = prepare(UCF, tmp_path)
    assert found.complete and found.missing == {} and found.problems == []
    assert (found.found, found.classes) == (6, 2)
    assert [(split.number, split.found, split.listed) for split in found.splits] == [
        (number, (4, 2), (4, 2)) for number in (1, 2, 3)
    ]
    # What was there is there as it was; what was unpacked already is not unpacked again.
    after = files_below(tmp_path)
    assert before.items() <= after.items()
    made = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert (
        made
        == {
            as_published: {"videos", "splits"},
            repacked: {"videos", "splits"},
            videos_unpacked: {"splits"},
            all_unpacked: set(),
        }[lay]
    )
    # A second run finds what the first one left, and unpacks nothing.
    caplog.clear()
    assert prepare(UCF, tmp_path) == found and caplog.messages == []
    assert files_below(tmp_path) == after
    # The commands that it ends with read the data set.
    for command in found.commands:
        words = shlex.split(command)
        data = open_data(words[words.index("--splits") - 1], splits=words[words.index("--splits") + 1])
        assert (
            data.name == "UCF101 split 1" and data.splits() == {"train": 4, "test": 2} and not data.problems
        )


def hmdb_published(root: Path) -> None:
    hmdb_archive(root / "hmdb51_org.rar")
    write_rar(root / "test_train_splits.rar", hmdb_lists())


def hmdb_half_unpacked(root: Path) -> None:
    """The outer archive is unpacked, the classes' are not; one has no folder of its own inside."""
    names = [each for each in HMDB_FILES if each.startswith("wave")]
    write_rar(root / "hmdb51_org" / "wave.rar", {each.split("/")[1]: each.encode() for each in names})
    write_rar(
        root / "hmdb51_org" / "brush_hair.rar", contents([each for each in HMDB_FILES if each not in names])
    )
    put(root, hmdb_lists())


def hmdb_in_one_zip(root: Path) -> None:
    write_zip(root / "HMDB51.zip", contents(HMDB_FILES, "hmdb/"))
    put(root / "lists", hmdb_lists())


@pytest.mark.parametrize("lay", [hmdb_published, hmdb_half_unpacked, hmdb_in_one_zip])
def test_hmdb51(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    before = files_below(tmp_path)
    found = prepare(HMDB, tmp_path)
    assert found.complete and found.found == 8 and found.problems == []
    assert before.items() <= files_below(tmp_path).items()
    assert files_below(found.videos) == contents(HMDB_FILES)
    data = open_data(found.videos, splits=found.lists, split=3)
    assert data.name == "HMDB51 split 3" and data.splits() == {"train": 4, "test": 2}
    assert prepare(HMDB, tmp_path) == found


def test_an_interrupted_unpacking_is_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    as_published(tmp_path)
    put(tmp_path / f"{UNPACKING}videos" / "UCF-101", contents(UCF_FILES[:2]))
    found = prepare(UCF, tmp_path)
    assert found.complete and "interrupted" in caplog.text
    assert files_below(found.videos) == contents(UCF_FILES)
    assert not (tmp_path / f"{UNPACKING}videos").exists()


def test_what_is_missing(tmp_path: Path) -> None:
    all_unpacked(tmp_path)
    (tmp_path / "archery" / "v_archery_g02_c01.mp4").unlink()
    touch(tmp_path, "archery/v_archery_g09_c01.avi")
    found = prepare(UCF, tmp_path)
    assert not found.complete and found.found == 5
    assert found.missing == {"Archery/v_Archery_g02_c01.avi": ("train", "test", "train")}
    assert [split.found for split in found.splits] == [(3, 2), (4, 1), (3, 2)]
    assert [Path(problem.path).name for problem in found.problems] == ["v_archery_g09_c01.avi"]


def test_lists_that_are_not_the_official_ones(tmp_path: Path) -> None:
    all_unpacked(tmp_path)
    lists = tmp_path / "ucfTrainTestlist" / "trainlist02.txt"
    lists.write_text("\n".join(lists.read_text().splitlines()[1:]))
    found = prepare(UCF, tmp_path)
    assert not found.complete and found.missing == {}
    (problem,) = found.problems
    assert "split 2: 3 training and 2 test videos are listed, officially 4 and 2" in problem.reason


def no_lists(root: Path) -> None:
    put(root, contents(UCF_FILES))


def no_videos(root: Path) -> None:
    put(root, ucf_lists())
    write_zip(root / "UCF50.zip", {"x": b""})


def other_lists(root: Path) -> None:
    write_zip(root / "splits.zip", {"a.txt": b""})


def other_videos(root: Path) -> None:
    put(root, ucf_lists())
    write_zip(root / "UCF101.zip", {"readme.txt": b"", "Biking/a.avi": b""})


def taken(root: Path) -> None:
    as_published(root)
    put(root / "videos", {"mine.txt": b"mine"})


def foreign(root: Path) -> None:
    put(root, ucf_lists())
    put(root, {"Archery/mine.avi": b""})


def one_list_short(root: Path) -> None:
    all_unpacked(root)
    (root / "ucfTrainTestlist" / "testlist03.txt").unlink()


@pytest.mark.parametrize(
    "lay,words",
    [
        (no_lists, "UCF101TrainTestSplits-RecognitionTask.zip there, from https://www.crcv.ucf.edu"),
        (no_videos, "put UCF101.rar there"),
        (other_lists, "has no classInd.txt in it"),
        (other_videos, "no folder of a class in it, such as Archery"),
        (taken, "videos exists already"),
        (foreign, "none of the 6 that"),
        (one_list_short, "testlist03.txt is missing"),
    ],
)
def test_mistakes(tmp_path: Path, lay: Callable[[Path], None], words: str) -> None:
    lay(tmp_path)
    before = files_below(tmp_path)
    with pytest.raises(UserError) as error:
        prepare(UCF, tmp_path)
    assert words in one_sentence(error)
    after = files_below(tmp_path)
    assert before.items() <= after.items() and not any(UNPACKING in name for name in after)


def test_two_of_everything_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    all_unpacked(tmp_path)
    put(tmp_path / "again", contents(UCF_FILES[:3]))
    assert prepare(UCF, tmp_path).complete
    assert "again" in caplog.messages[0] and "are not" in caplog.messages[0]


# The real lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_every_official_video(
    shared_data: Path, ucf_root: Path, hmdb_root: Path, tmp_path: Path, name: str
) -> None:
    official = OFFICIAL[name]
    (tmp_path / "lists").symlink_to(shared_data / "splits" / name)
    (tmp_path / "all").symlink_to(ucf_root if name == "ucf101" else hmdb_root)
    found = prepare(official, tmp_path)
    assert found.complete and found.problems == []
    assert (found.found, found.classes) == (official.videos, official.classes)
    assert tuple(split.listed for split in found.splits) == official.counts


def test_the_command(
    shared_data: Path,
    hmdb_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lists = shared_data / "splits" / "hmdb51"
    files = [
        f"{file.name.removesuffix('_test_split1.txt')}/{line.split()[0]}"
        for file in sorted(lists.glob("*_test_split1.txt"))
        for line in file.read_text().splitlines()
        if line.strip()
    ]
    folder = tmp_path / "my data"
    folder.mkdir()
    for whole in sorted({name.split("/")[0] for name in files} - {files[-1].split("/")[0]}):
        (folder / whole).symlink_to(hmdb_root / whole)
    touch(folder, *(name for name in files[:-12] if not (folder / name).exists()))
    (tmp_path / "my data" / "splits").symlink_to(lists)
    table = tmp_path / "missing.csv"
    argv = ["peakzoom", "data", "prepare", "hmdb51", str(tmp_path / "my data"), "--out", str(table)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        cli.main()
    out = capsys.readouterr().out
    assert left.value.code == 1
    assert "6,754 of 6,766 videos, 51 of 51 classes" in out and "missing videos: 12" in out
    named = [line for line in out.splitlines() if line.startswith("  ") and ".avi: " in line]
    assert len(named) == 10 and all("in split" in line or "used by no split" in line for line in named)
    assert "and 2 more; --out" in out
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == sorted(files[-12:], key=files.index)
    assert {row[f"split{number}"] for row in rows for number in (1, 2, 3)} <= {"train", "test", ""}
    check, train = (line.removeprefix("Next:").strip() for line in out.splitlines()[-2:])
    assert shlex.split(check)[:4] == ["peakzoom", "data", "check", str(tmp_path / "my data")]
    assert shlex.split(train)[-2:] == ["--out", "runs/hmdb51-1"]


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["peakzoom", "data", "prepare", "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out = " ".join(capsys.readouterr().out.split())
    assert left.value.code in (0, None) and "peakzoom data prepare ucf101" in out


def test_official_names() -> None:
    def fits(official: Official, stem: str) -> str:
        videos, lists = official.is_videos.fullmatch(stem), official.is_lists.fullmatch(stem)
        return "both" if videos and lists else "videos" if videos else "lists" if lists else ""

    names = {
        "ucf101": "videos", "ucf-101": "videos", "ucf101traintestsplits-recognitiontask": "lists",
        "ucf101traintestsplits-detectiontask": "", "splits": "lists", "ucf50": "", "hmdb51_org": "",
    }  # fmt: skip
    assert {name: fits(OFFICIAL["ucf101"], name) for name in names} == names
    names = {"hmdb51_org": "videos", "hmdb51": "videos", "hmdb51_sta": "", "test_train_splits": "lists"}
    assert {name: fits(OFFICIAL["hmdb51"], name) for name in names} == names
