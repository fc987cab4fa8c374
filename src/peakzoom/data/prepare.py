"""UCF101 and HMDB51 from their official downloads: found or unpacked, and compared with the official lists.

What the user downloaded lies in one folder: the archives as they are, the same packed otherwise, or what was unpacked
from them already. What is unpacked is used where it lies; what is not is unpacked beside it, into ``videos`` and
``splits``, and nothing that is there is written over.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from peakzoom.data.archives import archive_stem, new_folder, unpack
from peakzoom.data.entries import Entry, Problem, some
from peakzoom.data.layouts.files import files_in, folder_at, is_video, subfolders
from peakzoom.data.layouts.hmdb51 import list_hmdb51
from peakzoom.data.layouts.lists import list_key, videos_by_key
from peakzoom.data.layouts.ucf101 import list_ucf101
from peakzoom.utils.errors import UserError
from peakzoom.utils.progress import Progress
from peakzoom.utils.words import counted

DEPTH = 3  # how far below the folder things are looked for: the archives nest their folders twice
SPLITS = (1, 2, 3)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Official:
    """A data set as its authors publish it."""

    name: str  # of the layout, as ``--format`` takes it
    title: str
    classes: int  # how many
    videos: int
    counts: tuple[tuple[int, int], ...]  # training and test videos of each split
    page: str  # where it is downloaded
    videos_file: str  # what its archive of videos is called there
    lists_file: str
    is_videos: re.Pattern[str]  # fits the names of such archives, lower case, without their suffix
    is_lists: re.Pattern[str]
    marks: str  # pattern of a file by which a folder of lists is known
    read: Callable[[Path, int], tuple[list[str], list[Entry]]]  # what the lists in a folder name for a split


# Counts are those of the lists themselves. UCF101 also publishes lists for detection, which are others;
# HMDB51 also publishes stabilised videos (hmdb51_sta), which no paper in our tables uses.
OFFICIAL = {
    "ucf101": Official(
        name="ucf101",
        title="UCF101",
        classes=101,
        videos=13320,
        counts=((9537, 3783), (9586, 3734), (9624, 3696)),
        page="https://www.crcv.ucf.edu/data/UCF101.php",
        videos_file="UCF101.rar",
        lists_file="UCF101TrainTestSplits-RecognitionTask.zip",
        is_videos=re.compile(r"ucf[-_ ]?101"),
        is_lists=re.compile(r"ucf.*train.*test(?!.*detection).*|.*splits?"),
        marks="classInd.txt",
        read=list_ucf101,
    ),
    "hmdb51": Official(
        name="hmdb51",
        title="HMDB51",
        classes=51,
        videos=6766,
        counts=((3570, 1530), (3570, 1530), (3570, 1530)),
        page="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        videos_file="hmdb51_org.rar",
        lists_file="test_train_splits.rar",
        is_videos=re.compile(r"hmdb[-_ ]?51([-_ ]org)?"),
        is_lists=re.compile(r".*splits?"),
        marks="*_test_split1.txt",
        read=list_hmdb51,
    ),
}


@dataclass(frozen=True)
class Split:
    """How many videos the lists name, and how many of those are there, for training and for testing."""

    number: int
    listed: tuple[int, int]
    found: tuple[int, int]


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` found."""

    official: Official
    videos: Path  # folder of the class folders
    lists: Path  # folder of the official lists
    classes: int  # that have videos
    found: int  # videos that are there and in a list
    splits: list[Split]
    missing: dict[str, tuple[str | None, ...]]  # videos that are not there, each with its part in every split
    problems: list[Problem]  # whatever else is not as it is published, in any split

    @property
    def complete(self) -> bool:
        """Whether it is the whole data set, by its official counts."""
        counts = tuple(split.found for split in self.splits)
        return not self.missing and self.found == self.official.videos and counts == self.official.counts

    @property
    def commands(self) -> tuple[str, str]:
        """To go on with: a look at every video, and a training on the first split."""
        data = f"{shlex.quote(str(self.videos))} --splits {shlex.quote(str(self.lists))}"
        train = f"peakzoom train {data} --split-number 1 --recipe paper --out runs/{self.official.name}-1"
        return f"peakzoom data check {data}", train


def prepare(official: Official, root: str | Path, progress: Progress | None = None) -> Prepared:
    """Find or unpack a data set, and compare what is there with its lists.

    ``progress`` is called with (files done, all files) of an archive.

    Raises:
        UserError: neither the videos or lists nor their archives are there; an archive is broken or unsafe; a list is
            missing or malformed.
        ModuleNotFoundError: there is a RAR file to unpack, and rarfile is not installed.
    """
    root = folder_at(root)
    lists = _find_lists(official, root) or _unpack_lists(official, root, progress)
    classes, _ = official.read(lists, 1)
    videos = _find_videos(root, classes) or _unpack_videos(official, root, classes, progress)
    return _compare(official, videos, lists)


def _compare(official: Official, videos: Path, lists: Path) -> Prepared:
    problems: list[Problem] = []
    there = videos_by_key(videos, problems)
    names: dict[tuple[str, str], str] = {}
    parts: list[dict[tuple[str, str], str | None]] = []  # of each split: what it uses a video for
    splits = []
    for number, counts in zip(SPLITS, official.counts, strict=True):
        _, entries = official.read(lists, number)
        part = {list_key(entry.path): entry.split for entry in entries}
        for entry in entries:
            names.setdefault(list_key(entry.path), entry.path.as_posix())
        listed, found = Counter(part.values()), Counter(part[key] for key in part.keys() & there.keys())
        split = Split(number, (listed["train"], listed["test"]), (found["train"], found["test"]))
        if split.listed != counts:
            came = f"{listed['train']} training and {listed['test']} test videos are listed"
            reason = f"split {number}: {came}, officially {counts[0]} and {counts[1]}"
            problems.append(Problem(str(lists), reason))
        parts.append(part)
        splits.append(split)
    missing = {
        name: tuple(part.get(key) for part in parts) for key, name in names.items() if key not in there
    }
    problems += [Problem(str(path), "in no list") for key, path in there.items() if key not in names]
    present = there.keys() & names.keys()
    if not present:
        raise UserError(
            f"{videos} holds {counted(len(there), 'video')} and none of the {len(names)} that {lists} lists, "
            f"such as {next(iter(names.values()))}"
        )
    classes = {folder for folder, _ in present}
    return Prepared(official, videos, lists, len(classes), len(present), splits, missing, problems)


def _unpack_lists(official: Official, root: Path, progress: Progress | None) -> Path:
    archive = _archive(official, root, official.is_lists, official.lists_file, "official lists")
    with new_folder(root / "splits") as folder:
        unpack(archive, folder, progress)
        lists = _find_lists(official, folder)
        if lists is None:
            raise UserError(f"{archive} has no {official.marks} in it: is it {official.lists_file}?")
    return root / "splits" / lists.relative_to(folder)


def _unpack_videos(official: Official, root: Path, classes: list[str], progress: Progress | None) -> Path:
    """The archive, and the archives of single classes that it holds or that lie in its place."""
    parts = _class_archives(root, classes)
    archive = None
    if not parts:
        archive = _archive(official, root, official.is_videos, official.videos_file, "videos")
    with new_folder(root / "videos") as folder:
        if archive is not None:
            unpack(archive, folder, progress)
            parts = _class_archives(folder, classes)
        for name, part in parts.items():
            target = folder / name
            unpack(part, target, progress)
            inner = subfolders(target)
            if len(inner) == 1 and inner[0].name.casefold() == name.casefold() and not files_in(target):
                # The archive holds the folder itself, as HMDB51's do.
                lifted = inner[0].rename(folder / f".{name}")
                target.rmdir()
                lifted.rename(target)
            if archive is not None:
                part.unlink()
        videos = _find_videos(folder, classes)
        if videos is None:
            raise UserError(
                f"{archive or root} has no folder of a class in it, such as {classes[0]}: "
                f"is it {official.videos_file}?"
            )
    return root / "videos" / videos.relative_to(folder)


def _folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """``root`` and the folders below."""
    yield root
    if depth:
        for folder in subfolders(root):
            yield from _folders(folder, depth - 1)


def _find_lists(official: Official, root: Path) -> Path | None:
    return next((folder for folder in _folders(root) if next(folder.glob(official.marks), None)), None)


def _find_videos(root: Path, classes: list[str]) -> Path | None:
    """The folder with most folders that are called as a class and hold a video."""
    wanted = {name.casefold() for name in classes}
    found: dict[Path, int] = {}
    for folder in _folders(root, DEPTH - 1):
        named = [each for each in subfolders(folder) if each.name.casefold() in wanted]
        if filled := sum(any(map(is_video, files_in(each))) for each in named):
            found[folder] = filled
    best = max(found, key=found.__getitem__, default=None)
    if len(found) > 1:
        others = some(str(folder) for folder in found if folder != best)
        log.warning("the class folders in %s are used, those in %s are not", best, others)
    return best


def _archives(root: Path) -> Iterator[tuple[str, Path]]:
    """Archives in ``root`` and below, each with its name without suffix."""
    for folder in _folders(root):
        for file in files_in(folder):
            if (stem := archive_stem(file)) is not None:
                yield stem, file


def _class_archives(root: Path, classes: list[str]) -> dict[str, Path]:
    """Archives that are called as a class, by its name: of several the first."""
    stems: dict[str, Path] = {}
    for stem, file in _archives(root):
        stems.setdefault(stem, file)
    return {name: stems[name.casefold()] for name in classes if name.casefold() in stems}


def _archive(official: Official, root: Path, wanted: re.Pattern[str], published: str, what: str) -> Path:
    """The archive in ``root`` that has such a name; a UserError says what to download if there is none."""
    found = [file for stem, file in _archives(root) if wanted.fullmatch(stem)]
    if not found:
        raise UserError(
            f"{root} holds neither the {what} of {official.title} nor an archive of them: "
            f"put {published} there, from {official.page}"
        )
    if len(found) > 1:
        log.warning("%s is used, %s is not", found[0], some(map(str, found[1:])))
    return found[0]
