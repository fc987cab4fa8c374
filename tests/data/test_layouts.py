"""The readers against the official lists and hand-made folders."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from data.files import lines, names, one_sentence, touch, write

from peakzoom.data.datasets import open_data
from peakzoom.data.layouts.files import VIDEO_SUFFIXES
from peakzoom.data.layouts.folder import read_folder
from peakzoom.data.layouts.hmdb51 import read_hmdb51
from peakzoom.data.layouts.kinetics import read_kinetics
from peakzoom.data.layouts.lists import MISSING
from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.data.layouts.ucf101 import read_ucf101
from peakzoom.utils.errors import UserError

# Class folders


def test_folder(tmp_path):
    touch(tmp_path, "walk/b.mp4", "walk/a.MOV", "Run/day2/c.avi", "run_fast/d.mkv", "zoom/e.webm")
    data = read_folder(tmp_path)
    assert data.classes == ["Run", "run_fast", "walk", "zoom"]  # alphabetical, case ignored
    assert names(data.entries, tmp_path) == [
        ("Run/day2/c.avi", 0, None, None),
        ("run_fast/d.mkv", 1, None, None),
        ("walk/a.MOV", 2, None, None),
        ("walk/b.mp4", 2, None, None),
        ("zoom/e.webm", 3, None, None),
    ]
    assert data.problems == [] and data.notes == ["read as class folders"]
    assert data.counts() == {"Run": 1, "run_fast": 1, "walk": 2, "zoom": 1}


def test_folder_problems_and_side_files(tmp_path):
    touch(
        tmp_path, "walk/a.mp4", "run/b.mp4", "walk/poster.jpg", "loose.mp4", "walk/.c.mp4.part", ".git/x.mp4"
    )
    touch(
        tmp_path,
        "labels.csv",
        "walk/notes.txt",
        "walk/Thumbs.db",
        "__MACOSX/walk/a.mp4",
        "LICENSE",
        "readme.md",
    )
    (tmp_path / "empty").mkdir()
    data = read_folder(tmp_path)
    assert data.classes == ["run", "walk"]
    found = {Path(problem.path).name: problem.reason for problem in data.problems}
    assert set(found) == {"poster.jpg", "loose.mp4", "empty"}
    assert (
        "extension" in found["poster.jpg"]
        and "no class" in found["loose.mp4"]
        and "without a video" in found["empty"]
    )
    assert len(data.problems) == 3


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folder_with_splits(tmp_path, val):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", f"{val}/a/3.mp4", "test/c/4.mp4", "train/5.mp4")
    (tmp_path / "annotations").mkdir()
    data = read_folder(tmp_path)
    assert data.classes == ["a", "b", "c"]
    assert {(e.path.name, e.label, e.split) for e in data.entries} == {
        ("1.mp4", 0, "train"), ("2.mp4", 1, "train"), ("3.mp4", 0, "val"), ("4.mp4", 2, "test"),
    }  # fmt: skip
    assert {Path(problem.path).name for problem in data.problems} == {"5.mp4", "annotations"}
    assert data.splits() == {"train": 2, "val": 1, "test": 1}


def test_class_named_train(tmp_path):
    touch(tmp_path, "train/a.mp4", "bus/b.mp4")
    assert read_folder(tmp_path).classes == ["bus", "train"]


def test_split_folders_mixed_with_classes(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "walk/3.mp4")
    with pytest.raises(UserError, match="walk") as error:
        read_folder(tmp_path)
    one_sentence(error)


def test_numeric_class_folders_and_links(tmp_path):
    touch(tmp_path / "data", "10/a.mp4", "2/b.mp4", "1/c.mp4")
    touch(tmp_path / "elsewhere", "d.mp4")
    (tmp_path / "data" / "3").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "1" / "round").symlink_to(tmp_path / "data" / "1")  # a link to its own folder
    data = read_folder(tmp_path / "data")
    assert data.classes == ["1", "2", "3", "10"]
    assert len(data.entries) == 4


def test_folder_of_ucf101_names_has_groups(tmp_path):
    touch(
        tmp_path,
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g01_c02.avi",
        "Biking/v_Biking_g01_c01.avi",
    )
    assert [entry.group for entry in read_folder(tmp_path).entries] == [
        "Archery_g01",
        "Archery_g01",
        "Biking_g01",
    ]
    touch(tmp_path, "Biking/own.avi")
    assert {entry.group for entry in read_folder(tmp_path).entries} == {None}


# Manifests


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_manifest_forms(tmp_path, delimiter, end, encoding):
    touch(tmp_path, "x/a.mp4", "x/b.mp4", "x/ü c.mp4")
    rows = [
        "Path,LABEL,class,split,group,width",
        "x/a.mp4,10,walk,train,g1,640",
        "x/b.mp4,2,run,,,",
        "",
        "x/ü c.mp4,10,,validation,g2,7",
    ]
    file = write(tmp_path / "list.csv", end.join(rows).replace(",", delimiter), encoding)
    data = read_manifest(file)
    assert data.classes == ["run", "walk"]  # 2, then 10
    assert names(data.entries, tmp_path) == [
        ("x/a.mp4", 1, "train", "g1"), ("x/b.mp4", 0, None, None), ("x/ü c.mp4", 1, "val", "g2"),
    ]  # fmt: skip
    assert data.problems == []


def test_manifest_with_names_and_quotes(tmp_path):
    touch(tmp_path / "videos", "a, b.mp4", "c.mp4", "d.mp4")
    file = write(tmp_path / "list.csv", 'path,label\n"a, b.mp4",Zumba\nc.mp4,archery\nd.mp4,"""quoted"""\n')
    data = read_manifest(file, tmp_path / "videos")
    assert data.classes == ['"quoted"', "archery", "Zumba"]
    file = write(tmp_path / "list.csv", "path,class\nc.mp4,b\nd.mp4,a\n")
    assert read_manifest(file, str(tmp_path / "videos")).classes == ["a", "b"]


def test_manifest_problems(tmp_path):
    touch(tmp_path / "in", "a.mp4", "b.mp4", "sub/w.mp4")
    touch(tmp_path, "out.mp4")
    text = (
        "path,label\na.mp4,1\nb.mp4,2.0\nmissing.mp4,3\n,1\nc.mp4,\nd.mp4\n../out.mp4,1\n/etc/passwd,1\na.mp4,1\n"
        f"b.mp4,1\nx,y,z\nsub,1\n{'n' * 5000},1\ne.mp4,-1\nsub\\w.mp4,1\n..\\out.mp4,2\n{tmp_path}/in/sub/../a.mp4,1\n"
    )
    data = read_manifest(write(tmp_path / "in" / "list.csv", text))
    assert [entry.path.name for entry in data.entries] == ["a.mp4", "b.mp4", "w.mp4"]
    assert data.classes == ["1", "2", "3"]  # 3 keeps its place though its file is missing
    assert data.counts() == {"1": 2, "2": 1, "3": 0}
    reasons = Counter(problem.reason.split(";")[0].split(" (")[0] for problem in data.problems)
    assert reasons == {
        "listed, but there is no such file": 3, "no path": 1, "no label": 2, f"outside {tmp_path / 'in'}": 3,
        "listed again": 2, "listed again with another label": 1, "more fields than columns": 1, "negative label": 1,
    }  # fmt: skip


def test_manifest_links_are_followed(tmp_path):
    """Data sets are linked together: only names are judged."""
    touch(tmp_path, "out/a.mp4", "out/b.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").symlink_to(tmp_path / "out" / "a.mp4")
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "out")
    data = read_manifest(
        write(tmp_path / "in" / "list.csv", "path,label\na.mp4,1\nsub/b.mp4,1\nsub/../a.mp4,2\n")
    )
    assert [entry.path for entry in data.entries] == [
        tmp_path / "in" / "a.mp4",
        tmp_path / "in" / "sub" / "b.mp4",
    ]


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "empty"),
        (",,,\n", "path"),
        ("a.mp4 1\nb.mp4 2\n", "'path' and 'label'"),
        ("path,group\na.mp4,1\n", "'path' and 'label'"),
        ("path,label,split\na.mp4,1,holdout\n", "line 2: split is 'holdout'"),
        ("path,label,label\na.mp4,1,1\n", "more than one column"),
        ("path,label,class\na.mp4,1,walk\nb.mp4,1,run\n", "line 3: label 1 is called 'run'"),
        ("path,label,class\na.mp4,1,walk\nb.mp4,2,walk\n", "several labels"),
        ("path,label\nnone.mp4,1\n", "no usable video"),
        ("path,label\n", "no videos"),
    ],
)
def test_manifest_errors(tmp_path, text, says):
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(UserError) as error:
        read_manifest(write(tmp_path / "list.csv", text))
    assert says in one_sentence(error)


@pytest.mark.parametrize(
    "labels, classes",
    [
        (["001", "002", "010"], ["001", "002", "010"]),
        (["1", "01"], ["01", "1"]),  # two names, not one number
        (["1e5", "NA", "null", "True", "None", "nan", "-", "0x1F"], None),
        (["1", "2.0", "10"], ["1", "2", "10"]),  # of a spreadsheet
        (["1", "2.0", "walk"], ["1", "2.0", "walk"]),
        (["1.5", "1.50"], ["1.5", "1.50"]),
        (["٣", "٤"], ["٣", "٤"]),  # digits elsewhere
        (["1_0", "10"], ["10", "1_0"]),
        (["9" * 5000, "8"], ["8", "9" * 5000]),
        (["-1", "a"], ["-1", "a"]),
        (["a\u2028b", "a\u0085b", "a\x0bb", "a\x1cb", "a\u2029b", "a\nb"], None),
        (["\x1b[31m", "\u202ex"], None),
        (["Run", "run", "caf\u00e9", "cafe\u0301"], None),
    ],
)
@pytest.mark.parametrize("column", ["label", "class"])
def test_labels_are_text(tmp_path, labels, classes, column):
    touch(tmp_path, *(f"{number}.mp4" for number in range(len(labels))))
    rows = [f'{number}.mp4,"{label}"' for number, label in enumerate(labels)]
    data = read_manifest(write(tmp_path / "list.csv", "\n".join([f"path,{column}", *rows])))
    if column == "class" and classes == ["1", "2", "10"]:
        classes = ["1", "10", "2.0"]  # a name is no number
    assert [data.classes[entry.label] for entry in data.entries] == (
        labels if column == "class" or "2.0" not in labels or "walk" in labels else ["1", "2", "10"]
    )
    assert set(data.classes) == set(classes or labels) and data.problems == []
    if classes:
        assert data.classes == classes


def test_an_empty_label_is_a_problem_and_no_class(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    data = read_manifest(write(tmp_path / "list.csv", "path,label\na.mp4,x\nb.mp4,\nc.mp4,  \n"))
    assert data.classes == ["x"] and [problem.reason for problem in data.problems] == ["no label"] * 2


def test_a_name_in_a_list_may_hold_other_line_ends(tmp_path):
    lists = make_ucf(tmp_path)
    write(lists / "classInd.txt", "1 Archery\n2 Hand\u2028stand\x85\n")
    for file in ("trainlist01.txt", "testlist01.txt"):
        text = (lists / file).read_text().replace("HandstandPushups/", "Hand\u2028stand/")
        write(lists / file, text)
    (tmp_path / "HandstandPushups").rename(tmp_path / "Hand\u2028stand")
    data = read_ucf101(tmp_path)
    assert data.classes == ["Archery", "Hand\u2028stand"] and len(data.entries) == 4


def test_manifest_that_is_not_utf8(tmp_path):
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(write(tmp_path / "list.csv", "path,label\nü.mp4,1\n", "latin-1"))


# UCF101


@pytest.mark.parametrize("split, train, test", [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101(ucf_root, ucf_lists, split, train, test):
    data = read_ucf101(ucf_root, ucf_lists, split)
    assert data.splits() == {"train": train, "test": test} and data.problems == []
    assert len({entry.path for entry in data.entries}) == 13320
    assert (
        len(data.classes) == 101
        and data.classes[0] == "ApplyEyeMakeup"
        and data.classes[36] == "HandstandPushups"
    )
    assert all(data.classes[entry.label] == entry.path.parent.name for entry in data.entries)
    assert data.entries[0].path.is_file()
    groups: dict[str | None, set[str]] = defaultdict(set)
    for entry in data.entries:
        groups[entry.group].add(entry.split or "")
    assert len(groups) == 101 * 25 and None not in groups
    assert all(len(splits) == 1 for splits in groups.values())  # none shared between train and test


def make_ucf(root: Path, end: str = "\n") -> Path:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    train = ["Archery/v_Archery_g08_c01.avi 1", "HandstandPushups/v_HandStandPushups_g09_c02.avi 2", ""]
    test = ["Archery/v_Archery_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi", ""]
    write(lists / "classInd.txt", end.join(["1 Archery", "2 HandstandPushups", ""]))
    write(lists / "trainlist01.txt", end.join(train))
    write(lists / "testlist01.txt", end.join(test))
    touch(root, *(line.split()[0] for line in train + test if line))
    return lists


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ucf101_made_by_hand(tmp_path, end):
    make_ucf(tmp_path, end)
    data = open_data(tmp_path)
    assert data.classes == ["Archery", "HandstandPushups"] and data.name == "UCF101 split 1"
    assert names(data.entries, tmp_path) == [
        ("Archery/v_Archery_g08_c01.avi", 0, "train", "Archery_g08"),
        ("HandstandPushups/v_HandStandPushups_g09_c02.avi", 1, "train", "HandstandPushups_g09"),
        ("Archery/v_Archery_g01_c01.avi", 0, "test", "Archery_g01"),
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", 1, "test", "HandstandPushups_g01"),
    ]


def test_ucf101_other_spelling_extension_missing_and_extra(tmp_path):
    make_ucf(tmp_path)
    (tmp_path / "HandstandPushups").rename(tmp_path / "HandStandPushups")
    (tmp_path / "Archery/v_Archery_g01_c01.avi").rename(tmp_path / "Archery/v_archery_g01_c01.mp4")
    (tmp_path / "Archery/v_Archery_g08_c01.avi").unlink()
    touch(tmp_path, "Archery/v_Archery_g30_c01.avi")
    data = read_ucf101(tmp_path)
    assert len(data.entries) == 3
    assert sorted(problem.reason for problem in data.problems) == [
        "in no list of this split", "listed, but there is no such file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "file, text, says",
    [
        ("classInd.txt", "0 Archery\n", "line 1"),
        ("trainlist01.txt", "Archery/v_Archery_g08_c01.avi 2\n", "does not fit classInd.txt"),
        ("testlist01.txt", "Polo/v_Polo_g08_c01.avi\n", "does not fit classInd.txt"),
        ("trainlist01.txt", None, "missing"),
        ("classInd.txt", None, "splits"),
    ],
)
def test_ucf101_malformed(tmp_path, file, text, says):
    lists = make_ucf(tmp_path)
    (lists / file).unlink()
    if text is not None:
        write(lists / file, text)
    with pytest.raises(UserError) as error:
        read_ucf101(tmp_path)
    assert says in one_sentence(error)


def test_ucf101_without_videos(ucf_lists, tmp_path):
    with pytest.raises(UserError, match="13,320 times"):
        read_ucf101(tmp_path, ucf_lists)


# HMDB51


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51(hmdb_root, shared_data, split):
    lists = shared_data / "splits" / "hmdb51"
    data = open_data(hmdb_root, splits=lists, split=split)
    assert data.splits() == {"train": 3570, "test": 1530} and data.name == f"HMDB51 split {split}"
    assert {name: count for name, count in data.counts().items() if count != 100} == {}  # 70 and 30 each
    assert set(data.classes) == set(lines(lists / "class_list.txt")) and data.classes == sorted(data.classes)
    assert data.problems == [] and any("1,666" in note for note in data.notes)  # 6,766 - 5,100
    assert all(data.classes[entry.label] == entry.path.parent.name for entry in data.entries)
    # Every name tells its film, and no film straddles within one class.
    sides: dict[tuple[int, str], set[str]] = defaultdict(set)
    for entry in data.entries:
        assert entry.group is not None and entry.path.name.startswith(
            f"{entry.group}_{data.classes[entry.label]}_"
        )
        sides[entry.label, entry.group].add(entry.split or "")
    assert all(len(side) == 1 for side in sides.values())


def test_hmdb51_film_whose_title_names_the_class(tmp_path):
    film = "How_to_do_a_Cartwheel"
    files = [
        f"{film}_cartwheel_f_nm_np1_le_med_1.avi",
        f"{film}_cartwheel_u_cm_np2_ri_goo_12.avi",
        "odd name.avi",
    ]
    touch(
        tmp_path,
        *(f"cartwheel/{name}" for name in files),
        "dive/a_dive_f_nm_np1_le_med_0.avi",
        "dive/new.avi",
    )
    write(tmp_path / "cartwheel_test_split1.txt", f"{files[0]} 1 \r\n{files[1]} 2 \r\n{files[2]} 1\r\n")
    write(
        tmp_path / "dive_test_split1.txt", "a_dive_f_nm_np1_le_med_0.avi 1\nb_dive_f_nm_np1_le_med_0.avi 0\n"
    )
    data = read_hmdb51(tmp_path)
    assert [entry.group for entry in data.entries] == [film, film, None, "a"]
    assert [problem.path for problem in data.problems] == [str(tmp_path / "dive" / "new.avi")]
    write(tmp_path / "dive_test_split1.txt", "a_dive_f_nm_np1_le_med_0.avi 3\n")
    with pytest.raises(UserError, match="line 1"):
        read_hmdb51(tmp_path)
    with pytest.raises(UserError, match="_test_split2"):
        read_hmdb51(tmp_path, split=2)


# Kinetics


KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
arm wrestling,aaa,12,22,train,0
arm wrestling,b-b,3,13,validate,0
Yoga,_cc,0,10,test,0
Yoga,gone,0,10,train,0
,ddd,0,10,test,0
zumba,eee,0,10,train,0
"""


@pytest.mark.parametrize("layout", ["{label}/", "{under}/", "", "{split}/{label}/", "{split}/"])
def test_kinetics(tmp_path, layout):
    (tmp_path / "lists").mkdir()
    file = write(tmp_path / "lists" / "k.csv", KINETICS)
    for label, stem, split in [
        ("arm wrestling", "aaa_000012_000022.mp4", "train"),
        ("arm wrestling", "b-b_000003_000013.mkv", "val"),
        ("Yoga", "_cc_000000_000010.mp4", "test"),
        ("Yoga", "unlisted_000000_000010.mp4", "test"),
    ]:
        folder = layout.format(label=label, under=label.replace(" ", "_"), split=split)
        touch(tmp_path / "videos", folder + stem)
    data = open_data(file, root=tmp_path / "videos")
    assert data.classes == ["arm wrestling", "Yoga", "zumba"] and "Kinetics" in data.notes[0]
    assert [(e.path.name[:3], e.label, e.split, e.group) for e in data.entries] == [
        ("aaa", 0, "train", "aaa"), ("b-b", 0, "val", "b-b"), ("_cc", 1, "test", "_cc"),
    ]  # fmt: skip
    assert sorted(problem.reason for problem in data.problems) == [MISSING, MISSING, "no label"]
    assert any(note.startswith("1 video under") for note in data.notes)


def test_kinetics_wrong_folder_twice_and_bad_times(tmp_path):
    text = "label,youtube_id,time_start,time_end\nyoga,a,0,10\nyoga,a,0,10\nzumba,b,0,10\nzumba,c,x,10\nzumba,d,1,11\n"
    touch(tmp_path, "yoga/a_000000_000010.mp4", "yoga/b_000000_000010.mp4", "zumba/d_000001_000011.mp4")
    data = read_kinetics(write(tmp_path / "k.csv", text))
    assert [entry.group for entry in data.entries] == ["a", "d"]
    assert len(data.problems) == 3 and {entry.split for entry in data.entries} == {None}
    with pytest.raises(UserError, match="youtube_id"):
        read_kinetics(write(tmp_path / "k.csv", "label,id\na,b\n"))
    with pytest.raises(UserError, match="no usable video"):
        read_kinetics(write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end\nyoga,zz,0,10\n"))


def test_kinetics_as_class_folders(tmp_path):
    touch(tmp_path, "train/arm wrestling/aaa_000012_000022.mp4", "val/yoga/b_000000_000010.mp4")
    assert open_data(tmp_path).classes == ["arm wrestling", "yoga"]


@pytest.mark.parametrize("number, count", [(400, 400), (600, 600), (700, 700)])
def test_kinetics_class_order_is_the_label_maps(shared_data, tmp_path, number, count):
    labels = (shared_data / "splits" / "kinetics" / f"label_map_k{number}.txt").read_text().splitlines()
    rows = [f'"{label}",v{i},0,10,train' for i, label in enumerate(labels)]
    random.Random(0).shuffle(rows)
    touch(tmp_path, "v0_000000_000010.mp4", "v1_000000_000010.mp4")
    file = write(tmp_path / "k.csv", "\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    data = read_kinetics(file)
    assert len(labels) == count and data.classes == labels and len(data.problems) == count - 2


def test_video_suffixes_are_lower_case():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in VIDEO_SUFFIXES)
