"""Lists of labelled videos: class folders, manifests, and the layouts of UCF101, HMDB51 and Kinetics.

Every reader gives a :class:`VideoSet`: class names, one :class:`Entry` a video, and one :class:`Problem` for
each thing that was named or found but is not used, with the reason. Nothing is decoded here; a file that
cannot be decoded is found later, by whoever decodes it.

Order of classes: the official one where there is one (UCF101's classInd.txt); numeric where all labels are
whole numbers; else alphabetical without regard to case. Two lists of one data set can hold different classes
(a manifest of the test videos may lack one), so labels of two sets are compared by name:
:meth:`VideoSet.with_classes`.

A group is what must not be divided between training and test: clips of one recording look alike, and a
network that has seen one knows the others.

Sources: the data sets' own split files (METHOD section 6); HMDB51's file names as in its README
(``<film>_<class>_<visible body>_<camera motion>_np<people>_<viewpoint>_<quality>_<number>.avi``); Kinetics'
file names as its official crawler writes them (``<youtube id>_<start, 6 digits>_<end, 6 digits>.mp4``).
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from peakzoom.errors import UserError

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
))
# Files that data sets keep beside their videos; they are passed over without a problem.
SIDE_SUFFIXES = frozenset((
    ".csv", ".tsv", ".txt", ".json", ".md", ".xml", ".yaml", ".yml", ".pdf", ".html", ".log", ".srt", ".vtt",
))
# fmt: on
SIDE_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "license", "readme", "makefile"))

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
FORMATS = ("auto", "folder", "manifest", "ucf101", "hmdb51", "kinetics")
# Where the official split files are looked for when no folder is named; the second and third are the
# archives' own names.
SPLIT_FOLDERS = (".", "ucfTrainTestlist", "testTrainMulti_7030_splits", "splits", "annotations")
DELIMITERS = (",", "\t", ";", "|")

_MISSING = "listed, but there is no such file"
_UCF_NAME = re.compile(r"v_(?P<name>.+)_g(?P<group>\d+)_c\d+$", re.IGNORECASE)
_WHOLE = re.compile(r"-?\d+(\.0+)?$")  # "3.0" is what a spreadsheet with empty cells makes of 3


@dataclass(frozen=True)
class Entry:
    """One labelled video; ``split`` is "train", "val", "test" or None (not said), ``group`` None if unknown."""

    path: Path
    label: int
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something named or found that is not used, and why."""

    path: str
    reason: str


@dataclass
class VideoSet:
    """Labelled videos of one data set.

    Attributes:
        classes: class names; an entry's ``label`` is a position in this list.
        entries: the videos.
        problems: what was left out, one by one.
        name: what to call the set in reports.
        notes: facts on how it was read (the layout taken, counts left out by rule), one sentence each.
    """

    classes: list[str]
    entries: list[Entry]
    problems: list[Problem]
    name: str
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Videos of each class, in class order, zeros included."""
        found = Counter(entry.label for entry in self.entries)
        return {name: found[label] for label, name in enumerate(self.classes)}

    def problem_counts(self) -> dict[str, int]:
        """Problems of each reason, the most frequent first."""
        return dict(Counter(problem.reason for problem in self.problems).most_common())

    def splits(self) -> dict[str, int]:
        """Videos of each split ("train", "val", "test", or "" where none is stated), those that occur."""
        found = Counter(entry.split or "" for entry in self.entries)
        return {name: found[name] for name in ("train", "val", "test", "") if found[name]}

    def with_split(self, name: str) -> VideoSet:
        """The entries of split ``name`` ("train", "val" or "test"), possibly none."""
        if name not in ("train", "val", "test"):
            raise UserError(f"split is {name!r}, expected 'train', 'val' or 'test'")
        return replace(self, entries=[entry for entry in self.entries if entry.split == name])

    def with_classes(self, classes: list[str]) -> VideoSet:
        """The same videos with labels that point into ``classes``, say those of a trained model.

        Raises:
            UserError: if a class that has videos is not in ``classes``.
        """
        place = {name: label for label, name in enumerate(classes)}
        unknown = [name for name, count in self.counts().items() if count and name not in place]
        if unknown:
            raise UserError(
                f"{self.name} has classes that are not among the {len(classes)} expected: {_some(unknown)}"
            )
        entries = [replace(entry, label=place[self.classes[entry.label]]) for entry in self.entries]
        return replace(self, classes=list(classes), entries=entries)


# ----------------------------------------------------------------------------------------------------
# Class folders


def read_folder(root: str | Path) -> VideoSet:
    """Videos in one folder a class, with or without folders train/, val/, test/ above the classes.

    ::

        root/walk/a.mp4               root/train/walk/a.mp4
        root/walk/day2/b.mp4          root/validation/walk/b.mp4     (also training, val, valid, testing)
        root/run/c.avi                root/test/run/c.avi

    A class folder is searched to its depths. Hidden files and known side files (:data:`SIDE_SUFFIXES`) are
    passed over; other files, empty class folders and videos outside the class folders become problems. Groups
    are unknown, unless every file is named as UCF101 names its own (``v_..._gNN_cNN``): then as in
    :func:`read_ucf101`.

    Raises:
        UserError: no such folder; no video in it; videos but no class folders; split folders mixed with class
        folders.
    """
    root = _folder(root)
    problems: list[Problem] = []
    folders = _subfolders(root)
    split_folders = [folder for folder in folders if _is_split_folder(folder)]
    if split_folders:
        others = [f for f in folders if f not in split_folders]
        mixed = [f.name for f in others if any(_is_video(file) for file in _walk(f, problems))]
        if mixed:
            raise UserError(
                f"{root} holds split folders ({_some([f.name for f in split_folders])}) and other folders with videos "
                f"({_some(mixed)}); move the others into a split folder or elsewhere"
            )
        problems += [
            Problem(str(folder), "not one of the split folders, and no video in it") for folder in others
        ]
        parents: list[tuple[Path, str | None]] = [
            (folder, SPLIT_NAMES[folder.name.casefold()]) for folder in split_folders
        ]
    else:
        parents = [(root, None)]

    found: list[tuple[str, Path, str | None]] = []
    for parent, split in parents:
        for folder in _subfolders(parent):
            count = len(found)
            for file in _walk(folder, problems):
                if _is_video(file):
                    found.append((folder.name, file, split))
                elif not _is_side(file):
                    problems.append(Problem(str(file), "not a video, judged by its extension"))
            if len(found) == count:
                problems.append(Problem(str(folder), "class folder without a video"))
    loose = [file for parent in {root, *(p for p, _ in parents)} for file in _files(parent)]
    for file in sorted(loose):
        if _is_video(file):
            problems.append(Problem(str(file), "lies beside the class folders, so it has no class"))
        elif not _is_side(file):
            problems.append(Problem(str(file), "not a video, judged by its extension"))

    if not found:
        if any(_is_video(file) for file in loose):
            raise UserError(
                f"{root} holds videos but no class folders; put them into one folder a class, or pass a manifest"
            )
        raise UserError(f"{root} holds no videos; expected one folder a class with videos in it")
    classes = _order({name for name, _, _ in found})
    place = {name: label for label, name in enumerate(classes)}
    kind = "split folders of class folders" if split_folders else "class folders"
    notes = [f"read as {kind}"]
    matches = [_UCF_NAME.match(file.stem) for _, file, _ in found]
    groups: list[str | None] = [None] * len(found)
    if all(matches):
        groups = [
            f"{name}_g{match['group']}" for match, (name, _, _) in zip(matches, found, strict=True) if match
        ]
        notes.append("file names are UCF101's, so class and recording (v_..._gNN_cNN) are the group")
    entries = [
        Entry(f, place[name], split, group) for (name, f, split), group in zip(found, groups, strict=True)
    ]
    return VideoSet(classes, entries, problems, root.resolve().name, notes)


# ----------------------------------------------------------------------------------------------------
# Manifests


def read_manifest(file: str | Path, root: str | Path | None = None) -> VideoSet:
    """Videos listed in a CSV or TSV file.

    The first line names the columns, in any order, case ignored; the delimiter (comma, tab, semicolon or bar)
    is the one that makes sense of it. UTF-8, with or without a byte order mark, any line ends::

        path,label,class,split,group          path: relative to ``root``
        punch/a.avi,4,punching,train,1        label: a class index or a class name
        hug/b.avi,1,hugging,test,2            class: the label's name; split, group: all three optional

    Without a label column the class column is the label. Where all labels are whole numbers the classes stand
    in numeric order and are renumbered from 0 without gaps; a class without a name is called by its number.
    A class all of whose files are missing keeps its place, with no videos.

    Problems, counted and left out: files that are not there, rows without path or label, negative labels,
    rows with more fields than the header, paths that leave ``root`` (symbolic links may), paths listed
    before.

    Args:
        file: the manifest.
        root: folder that the paths start from; None: the manifest's own.

    Raises:
        UserError: no such file or root; not UTF-8; no column path, or neither label nor class; an unknown
            split; one label with two class names or the reverse; not one usable row.
    """
    file = _file(file)
    root = _folder(root) if root is not None else file.parent
    columns, rows = _table(file)
    if "path" not in columns or not {"label", "class"} & set(columns):
        raise UserError(
            f"{file} has the columns {_some(columns)} in its first line, expected 'path' and 'label' "
            f"(and possibly 'class', 'split', 'group')"
        )
    problems: list[Problem] = []
    found: list[tuple[str, Path, str | None, str | None]] = []
    labels: set[str] = set()
    names: dict[str, str] = {}
    seen: dict[Path, str] = {}
    for line, row, fields in rows:
        path, label, name = row.get("path", ""), row.get("label", ""), row.get("class", "")
        label = label if "label" in columns else name
        label = str(int(float(label))) if _WHOLE.match(label) else label
        split = _split_name(row.get("split", ""), f"{file}, line {line}")
        place = _within(root, path)
        if fields > len(columns):
            problems.append(
                Problem(f"{file}, line {line}", "more fields than columns (a delimiter in a name?)")
            )
            continue
        if not path or not label:
            problems.append(Problem(path or f"{file}, line {line}", "no label" if path else "no path"))
            continue
        if _WHOLE.match(label) and int(label) < 0:
            problems.append(Problem(path, "negative label"))
            continue
        if name and names.setdefault(label, name) != name:
            raise UserError(
                f"{file}, line {line}: label {label} is called {name!r}, but {names[label]!r} before"
            )
        labels.add(
            label
        )  # before the file is looked for, so that the numbering does not hang on what is there
        if place is None:
            problems.append(Problem(path, f"outside {root}; pass the folder that holds all videos as root"))
        elif place in seen:
            again = "listed again" if seen[place] == label else "listed again with another label"
            problems.append(Problem(path, f"{again}; the first row counts"))
        elif not _is_file(place):
            problems.append(Problem(path, _MISSING))
        else:
            seen[place] = label
            found.append((label, place, split, row.get("group", "") or None))
    if not found:
        raise UserError(_nothing(file, problems, root))
    whole = all(_WHOLE.match(label) for label in labels)
    called = {label: names.get(label, label) for label in labels}
    twice = [name for name, count in Counter(called.values()).items() if count > 1]
    if twice:
        numbers = _order(label for label in labels if called[label] == twice[0])
        raise UserError(f"{file}: class {twice[0]!r} has several labels, {_some(numbers)}, expected one")
    order = (
        sorted(labels, key=int) if whole else sorted(labels, key=lambda label: _alphabetical(called[label]))
    )
    place_of = {label: position for position, label in enumerate(order)}
    entries = [Entry(path, place_of[label], split, group) for label, path, split, group in found]
    return VideoSet([called[label] for label in order], entries, problems, file.stem, ["read as a manifest"])


# ----------------------------------------------------------------------------------------------------
# Official layouts


def read_ucf101(root: str | Path, splits: str | Path | None = None, split: int = 1) -> VideoSet:
    """UCF101 by its official lists: classInd.txt, trainlist0N.txt and testlist0N.txt (METHOD section 6).

    Videos lie in ``root/<class>/`` or ``root/UCF-101/<class>/``. Case and extension of a file may differ from
    the list (the folder HandstandPushups holds files named v_HandStandPushups_...; some copies are re-encoded
    to mp4). Classes stand in classInd.txt's order, all of them, present or not. The group is class and
    recording, as in ``Archery_g07``: g07 of one class has nothing to do with g07 of another.

    Args:
        root: folder of the videos.
        splits: folder of the lists; None: looked for in ``root`` (:data:`SPLIT_FOLDERS`).
        split: 1, 2 or 3.

    Raises:
        UserError: folders or lists missing, a split that is not 1 to 3, a malformed list, none of the videos
        there.
    """
    root, split = _folder(root), _split_number(split)
    lists = _split_folder(root, splits, "classInd.txt")
    classes: list[str] = []
    for line, text in _lines(lists / "classInd.txt"):
        number, _, name = text.partition(" ")
        if number != str(len(classes) + 1) or not name:
            raise UserError(
                f"{lists / 'classInd.txt'}, line {line}: {text!r}, expected '{len(classes) + 1} <class>'"
            )
        classes.append(name.strip())
    place = {name.casefold(): label for label, name in enumerate(classes)}

    problems: list[Problem] = []
    videos = _index(root / "UCF-101" if (root / "UCF-101").is_dir() else root, problems)
    entries: list[Entry] = []
    listed: set[tuple[str, str]] = set()
    for part, kind in (("train", "trainlist"), ("test", "testlist")):
        file = lists / f"{kind}{split:02d}.txt"
        for line, text in _lines(file):
            path, _, number = text.partition(" ")  # no path of UCF101 has a space; test lists have no numbers
            folder, _, name = path.replace("\\", "/").rpartition("/")
            stem = Path(name).stem
            match = _UCF_NAME.match(stem)
            label = place.get(folder.casefold())
            if label is None or match is None or (number and number.strip() != str(label + 1)):
                raise UserError(
                    f"{file}, line {line}: {text!r} does not fit classInd.txt, expected '<class>/v_..._gNN_cNN.avi'"
                )
            key = (folder.casefold(), stem.casefold())
            if key in listed:
                problems.append(Problem(path, "listed again; the first line counts"))
            elif key not in videos:
                problems.append(Problem(path, _MISSING))
            else:
                entries.append(Entry(videos[key], label, part, f"{classes[label]}_g{match['group']}"))
            listed.add(key)
    problems += [
        Problem(str(f), "in neither list of this split") for key, f in videos.items() if key not in listed
    ]
    if not entries:
        raise UserError(_nothing(lists, problems, root))
    return VideoSet(
        classes, entries, problems, f"UCF101 split {split}", [f"read as UCF101 by the lists in {lists}"]
    )


def read_hmdb51(root: str | Path, splits: str | Path | None = None, split: int = 1) -> VideoSet:
    """HMDB51 by its official lists, one a class: <class>_test_splitN.txt, lines "<file> 1|2|0".

    1 is training, 2 test, 0 not used by this split (counted in a note). Videos lie in ``root/<class>/``; case
    and extension may differ from the list. Classes are the lists' names, alphabetical.

    The group is the source film. A name ends in class and seven fixed attributes, so the film is what stands
    before the last ``_<class>_`` that they follow: ``How_to_do_a_Cartwheel`` of
    ``How_to_do_a_Cartwheel_cartwheel_f_nm_np1_le_med_1.avi`` (cutting at the first would give
    ``How_to_do_a``; that goes wrong in 353 of the 6,766 names). A name of another form has no group. One film
    serves several classes, and the official lists keep a film apart only within a class: in split 1, 133 of
    1,352 films have training clips of one class and test clips of another.

    Args, Raises: as :func:`read_ucf101`.
    """
    root, split = _folder(root), _split_number(split)
    lists = _split_folder(root, splits, f"*_test_split{split}.txt")
    ending = f"_test_split{split}.txt"
    files = {file.name[: -len(ending)]: file for file in lists.glob(f"*{ending}")}
    classes = _order(files)

    problems: list[Problem] = []
    videos = _index(root, problems)
    entries: list[Entry] = []
    listed: set[tuple[str, str]] = set()
    unused = 0
    for label, name in enumerate(classes):
        film = re.compile(rf"(.+)_{re.escape(name)}_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$", re.IGNORECASE)
        for line, text in _lines(files[name]):
            path, _, use = text.rpartition(" ")
            if use not in ("0", "1", "2") or not path:
                raise UserError(
                    f"{files[name]}, line {line}: {text!r}, expected '<file> 0', '<file> 1' or '<file> 2'"
                )
            stem = Path(path.strip()).stem
            key = (name.casefold(), stem.casefold())
            if key in listed:
                problems.append(Problem(f"{name}/{path}", "listed again; the first line counts"))
            elif use == "0":
                unused += 1
            elif key not in videos:
                problems.append(Problem(f"{name}/{path}", _MISSING))
            else:
                match = film.match(stem)
                part = "train" if use == "1" else "test"
                entries.append(Entry(videos[key], label, part, match[1] if match else None))
            listed.add(key)
    problems += [
        Problem(str(f), "in no list of this split") for key, f in videos.items() if key not in listed
    ]
    if not entries:
        raise UserError(_nothing(lists, problems, root))
    notes = [
        f"read as HMDB51 by the lists in {lists}",
        f"{unused} videos are marked 0, not used by split {split}",
    ]
    return VideoSet(classes, entries, problems, f"HMDB51 split {split}", notes)


def read_kinetics(file: str | Path, root: str | Path | None = None) -> VideoSet:
    """Kinetics by an official CSV: columns label, youtube_id, time_start, time_end, split (METHOD section 6).

    A video is ``<youtube_id>_<start>_<end>.mp4`` with six digits each (any video extension), in a folder
    named like its label, with spaces or underscores, or in none; a folder train, val or test may stand
    above::

        root/arm wrestling/0Jx_000012_000022.mp4      root/0Jx_000012_000022.mp4
        root/arm_wrestling/0Jx_000012_000022.mp4      root/train/arm wrestling/0Jx_000012_000022.mp4

    Many videos have left YouTube: those not there are problems, one each. Classes are the labels of the whole
    file, alphabetical, spaces kept, whether their videos are there or not. The group is the YouTube video.

    Args:
        file: the CSV.
        root: folder of the videos; None: the CSV's own.

    Raises:
        UserError: no such file or folder, columns missing, unknown split names, none of the videos there.
    """
    file = _file(file)
    root = _folder(root) if root is not None else file.parent
    columns, rows = _table(file)
    needed = ("label", "youtube_id", "time_start", "time_end")
    if not set(needed) <= set(columns):
        raise UserError(
            f"{file} has the columns {_some(columns)} in its first line, expected {_some(needed)}"
        )
    problems: list[Problem] = []
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in _walk(root, problems):
        if _is_video(path):
            videos[path.stem].append(path)

    found: list[tuple[str, Path, str | None, str]] = []
    labels: set[str] = set()
    seen: set[tuple[str, str]] = set()
    used: set[Path] = set()
    for line, row, _ in rows:
        label, youtube = row.get("label", ""), row.get("youtube_id", "")
        split = _split_name(row.get("split", ""), f"{file}, line {line}")
        if not label or not youtube:
            problems.append(Problem(f"{file}, line {line}", "no label" if youtube else "no youtube_id"))
            continue
        labels.add(label)
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
        except (KeyError, ValueError, OverflowError):
            problems.append(Problem(f"{file}, line {line}", "time_start or time_end is not a number"))
            continue
        stem = f"{youtube}_{start:06d}_{end:06d}"
        own = {label.casefold(), label.casefold().replace(" ", "_")}
        in_own = [path for path in videos.get(stem, []) if path.parent.name.casefold() in own]
        in_none = [
            p for p in videos.get(stem, []) if p.parent == root or p.parent.name.casefold() in SPLIT_NAMES
        ]
        fitting = in_own + in_none
        if (label, stem) in seen:
            problems.append(Problem(stem, "listed again; the first row counts"))
        elif fitting:
            found.append((label, fitting[0], split, youtube))
            used.add(fitting[0])
        elif videos.get(stem):
            problems.append(Problem(str(videos[stem][0]), "lies in another label's folder"))
        else:
            problems.append(Problem(f"{label}/{stem}.mp4", _MISSING))
        seen.add((label, stem))
    if not found:
        raise UserError(_nothing(file, problems, root))
    classes = _order(labels)
    place = {name: label for label, name in enumerate(classes)}
    entries = [Entry(path, place[label], split, group) for label, path, split, group in found]
    notes = ["read as a Kinetics list"]
    unlisted = sum(len(paths) for paths in videos.values()) - len(used)
    if unlisted:
        notes.append(f"{unlisted} videos under {root} are not taken, for the list does not name them")
    return VideoSet(classes, entries, problems, file.stem, notes)


def open_data(
    path: str | Path,
    format: str = "auto",
    splits: str | Path | None = None,
    split: int = 1,
    root: str | Path | None = None,
) -> VideoSet:
    """A data set from whatever the user names; ``notes[0]`` says as what it was read.

    "auto": a file with a column youtube_id is a Kinetics list, any other file a manifest; a folder with
    UCF101's or HMDB51's lists in it (or with ``splits`` pointing to them) is that data set, any other folder
    is class folders.

    Args:
        path: a folder, a manifest or a Kinetics list.
        format: one of :data:`FORMATS`.
        splits: folder of official lists, for UCF101 and HMDB51.
        split: 1, 2 or 3, for UCF101 and HMDB51.
        root: folder of the videos, for manifests and Kinetics lists; None: the list's own.

    Raises:
        UserError: path missing, empty or of another layout; unknown format; split not 1 to 3; fewer than two
            classes with videos; and as the reader of the format does.
    """
    path = Path(path).expanduser()
    _split_number(split)
    if format not in FORMATS:
        raise UserError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"{path} does not exist; pass a folder of class folders or a manifest (CSV)")
    kind = _recognise(path, splits) if format == "auto" else format
    if kind == "folder":
        data = read_folder(path)
        lists = [f for f in _files(path) if f.suffix.lower() in (".csv", ".tsv") and _looks_like_manifest(f)]
        data.notes += [
            f"{f.name} looks like a manifest and was not read; pass the file to use it" for f in lists
        ]
    elif kind == "manifest":
        data = read_manifest(path, root)
    elif kind == "ucf101":
        data = read_ucf101(path, splits, split)
    elif kind == "hmdb51":
        data = read_hmdb51(path, splits, split)
    else:
        data = read_kinetics(path, root)
    present = [name for name, count in data.counts().items() if count]
    if len(present) < 2:
        raise UserError(f"{path} has videos of one class only ({present[0]}), expected at least two classes")
    return data


def _recognise(path: Path, splits: str | Path | None) -> str:
    if path.is_file():
        columns, _ = _table(path)
        return "kinetics" if "youtube_id" in columns else "manifest"
    for folder in (
        [Path(splits).expanduser()] if splits is not None else [path / name for name in SPLIT_FOLDERS]
    ):
        if (folder / "classInd.txt").is_file():
            return "ucf101"
        if next(folder.glob("*_test_split?.txt"), None):
            return "hmdb51"
    if splits is not None:
        raise UserError(
            f"{splits} holds neither UCF101's classInd.txt nor HMDB51's <class>_test_split1.txt; check the folder"
        )
    return "folder"


def _looks_like_manifest(file: Path) -> bool:
    try:
        columns, _ = _table(file)
    except UserError:
        return False
    return "path" in columns and bool({"label", "class"} & set(columns))


# ----------------------------------------------------------------------------------------------------
# Splitting


def split_validation(entries: list[Entry], fraction: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Sets part of the training videos aside for validation.

    A group goes wholly to one side. Class shares stay near: in random order, and again until nothing changes, a
    group is set aside, or given back, if that brings the validation counts v_c nearer to fraction * n_c (the sum over
    classes of (v_c - fraction n_c)^2 / n_c falls). Videos without a group, or alone in theirs, then fill what is
    missing in their class, the total rounded to the nearest. Every class keeps at least one training video. If
    nothing was taken so, the one group (or video) that fits best is.

    Args:
        entries: training videos, any order; the result does not depend on it.
        fraction: share to set aside, 0 <= fraction < 1; 0 sets nothing aside.
        seed: any whole number; the same seed gives the same division.

    Returns:
        ``(train, val)``, both in the order of ``entries``, with ``split`` set to "train" and "val".

    Raises:
        UserError: fraction outside [0, 1), or no group or video that can go without emptying a class.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction is {fraction}, expected 0 or more and less than 1")
    chosen: set[int] = set()
    if fraction > 0 and entries:
        chosen = _choose(entries, fraction, random.Random(seed))
        if not chosen:
            raise UserError(
                f"nothing can be set aside for validation from {len(entries)} videos: every group (or video) holds the "
                f"last training videos of a class; add videos, or list a validation split"
            )
    train = [replace(entry, split="train") for i, entry in enumerate(entries) if i not in chosen]
    val = [replace(entry, split="val") for i, entry in enumerate(entries) if i in chosen]
    return train, val


def _choose(entries: list[Entry], fraction: float, rng: random.Random) -> set[int]:
    """Positions of the validation entries."""
    order = sorted(range(len(entries)), key=lambda i: (entries[i].label, str(entries[i].path)))
    by_group: dict[str, list[int]] = defaultdict(list)
    single: list[int] = []
    for i in order:
        group = entries[i].group
        if group is None:
            single.append(i)
        else:
            by_group[group].append(i)
    groups = [by_group[name] for name in sorted(by_group) if len(by_group[name]) > 1]
    single += [by_group[name][0] for name in sorted(by_group) if len(by_group[name]) == 1]
    rng.shuffle(groups)
    rng.shuffle(single)

    total = Counter(entry.label for entry in entries)
    taken: Counter[int] = Counter()
    chosen: set[int] = set()

    def cost(unit: list[int], sign: int = 1) -> float | None:
        """Change of the sum if ``unit`` is set aside (sign 1) or given back (-1); None if a class would be lost."""
        change = 0.0
        for label, count in Counter(entries[i].label for i in unit).items():
            if sign > 0 and total[label] - taken[label] - count < 1:
                return None
            over = taken[label] - fraction * total[label]
            change += ((over + sign * count) ** 2 - over**2) / total[label]
        return change

    def take(unit: list[int]) -> None:
        chosen.update(unit)
        taken.update(entries[i].label for i in unit)

    moved = True
    while moved:  # ends, for the sum falls with every move; a few rounds in practice
        moved = False
        for unit in groups:
            inside = unit[0] in chosen
            change = cost(unit, -1 if inside else 1)
            if change is not None and change < -1e-9:
                moved = True
                if inside:
                    chosen.difference_update(unit)
                    taken.subtract(entries[i].label for i in unit)
                else:
                    take(unit)

    # Singles: whole parts first, then the largest remainders until the total is met.
    pools: dict[int, list[int]] = defaultdict(list)
    for i in single:
        pools[entries[i].label].append(i)
    remainders: list[tuple[float, int]] = []
    for label, pool in pools.items():  # in shuffled order, which decides between equal remainders
        room = min(len(pool), total[label] - taken[label] - 1)
        wanted = fraction * total[label] - taken[label]
        whole = min(max(int(wanted), 0), room)
        for i in pool[:whole]:
            take([i])
        if whole < room and wanted > whole:
            remainders.append((wanted - whole, pool[whole]))
    missing = round(fraction * len(entries)) - len(chosen)
    remainders.sort(key=lambda pair: -pair[0])
    for _, i in remainders[: max(missing, 0)]:
        take([i])

    if not chosen:
        costs = [
            (change, unit) for unit in [*groups, *([i] for i in single)] if (change := cost(unit)) is not None
        ]
        if costs:
            take(min(costs, key=lambda pair: pair[0])[1])
    return chosen


def hold_out_groups(entries: list[Entry], groups: Iterable[str | int]) -> list[Entry]:
    """The same entries, with split "test" for those whose group is named and "train" for all others.

    Raises:
        UserError: a group that no entry has, no group named, or nothing left to train on.
    """
    wanted = {str(groups)} if isinstance(groups, (str, int)) else {str(group) for group in groups}
    known = {entry.group for entry in entries if entry.group is not None}
    unknown = _order(wanted - known)
    if unknown:
        way_out = (
            f"the groups are {_some(_order(known), 40)}" if known else "no video has one (a manifest can)"
        )
        raise UserError(f"unknown group {_some(unknown)}; {way_out}")
    if not wanted:
        raise UserError(f"no group was named to hold out; the groups are {_some(_order(known), 40)}")
    if all(entry.group in wanted for entry in entries):
        raise UserError(f"holding out {_some(_order(wanted))} leaves no video to train on; name fewer groups")
    return [replace(entry, split="test" if entry.group in wanted else "train") for entry in entries]


# ----------------------------------------------------------------------------------------------------
# Small parts


def _alphabetical(name: str) -> tuple[str, str]:
    return name.casefold(), name


def _order(names: Iterable[str]) -> list[str]:
    """Numeric order if all are whole numbers, else alphabetical without regard to case."""
    names = set(names)
    if names and all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names, key=_alphabetical)


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def _nothing(source: Path, problems: list[Problem], root: Path) -> str:
    if not problems:
        return f"{source} lists no videos, expected one a line"
    reason, count = Counter(problem.reason for problem in problems).most_common(1)[0]
    first = next(problem.path for problem in problems if problem.reason == reason)
    return (
        f"{source} gives no usable video under {root}: {count} times {reason!r}, first {first!r}; "
        f"check the folder of the videos"
    )


def _folder(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist, expected a folder")
    if not path.is_dir():
        raise UserError(f"{path} is a file, expected a folder")
    return path


def _file(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist, expected a CSV file")
    if not path.is_file():
        raise UserError(f"{path} is not a file, expected a CSV file")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.casefold() in SIDE_NAMES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_side(path: Path) -> bool:
    return _hidden(path) or path.suffix.lower() in SIDE_SUFFIXES


def _subfolders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and not _hidden(path)]
    return sorted(found, key=lambda path: _alphabetical(path.name))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not _hidden(path))


def _is_split_folder(folder: Path) -> bool:
    """A folder named like a split that holds folders: a class may be called "train" as well."""
    return folder.name.casefold() in SPLIT_NAMES and bool(_subfolders(folder))


def _walk(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """All files below, sorted, hidden ones left out; follows links, but enters no folder twice."""

    def unreadable(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"folder cannot be read ({error.strerror})"))

    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(Path(name)))
        yield from (Path(parent, name) for name in sorted(files) if not _hidden(Path(name)))


def _index(root: Path, problems: list[Problem]) -> dict[tuple[str, str], Path]:
    """(class folder, stem) of every video in the folders right below ``root``, case ignored."""
    videos: dict[tuple[str, str], Path] = {}
    for folder in _subfolders(root):
        for path in _files(folder):
            if not _is_video(path):
                continue
            key = (folder.name.casefold(), path.stem.casefold())
            if key in videos:
                problems.append(Problem(str(path), f"same name as {videos[key].name}, which is taken"))
            else:
                videos[key] = path
    return videos


def _within(root: Path, path: str) -> Path | None:
    """``path`` below ``root``, or None if it leads outside, judged by the names: links may lead anywhere."""
    base = Path(os.path.normpath(root.absolute()))
    full = Path(os.path.normpath(base / path))
    if os.sep == "/" and "\\" in path and not full.exists():
        return _within(root, path.replace("\\", "/"))  # a list made on Windows
    return full if full.is_relative_to(base) else None


def _split_name(text: str, where: str) -> str | None:
    if not text:
        return None
    if text.casefold() not in SPLIT_NAMES:
        raise UserError(f"{where}: split is {text!r}, expected train, val or test (or nothing)")
    return SPLIT_NAMES[text.casefold()]


def _split_number(split: int) -> int:
    if split not in (1, 2, 3):
        raise UserError(f"split is {split!r}, expected 1, 2 or 3")
    return int(split)


def _split_folder(root: Path, splits: str | Path | None, pattern: str) -> Path:
    folders = [_folder(splits)] if splits is not None else [root / name for name in SPLIT_FOLDERS]
    for folder in folders:
        if next(folder.glob(pattern), None) is not None:
            return folder
    places = _some(str(folder) for folder in folders)
    raise UserError(f"no {pattern} in {places}; pass the folder of the official lists as splits")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of the lines that are not blank, without line ends."""
    if not file.is_file():
        raise UserError(f"{file} is missing; pass the folder with all official lists")
    for number, text in enumerate(_text(file).splitlines(), 1):
        if text.strip():
            yield number, text.strip()


def _table(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str], int]]]:
    """Columns (lower case) and rows (line number, values by column, number of fields) of a CSV file."""
    text = _text(file)
    if not text.strip():
        raise UserError(f"{file} is empty, expected a first line with column names")
    header = text.lstrip().splitlines()[0]
    delimiter = max(DELIMITERS, key=header.count)  # the first, a comma, where none occurs
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{file} is not a table that can be read: {error}") from None
    rows = [(line, row) for line, row in rows if any(row)]
    columns = [name.casefold() for name in rows[0][1]] if rows else []
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UserError(f"{file} has more than one column {twice[0]!r} in its first line; rename all but one")
    return columns, [(line, dict(zip(columns, row, strict=False)), len(row)) for line, row in rows[1:]]
