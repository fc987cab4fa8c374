"""Open a data set: its layout is recognised, and a reader of :mod:`peakzoom.data.layouts` reads it."""

from __future__ import annotations

from pathlib import Path

from peakzoom.data.doubts import is_utf8
from peakzoom.data.entries import VideoSet
from peakzoom.data.exchange.reading import TOOLS, read_project, tool_of
from peakzoom.data.layouts.files import files_in
from peakzoom.data.layouts.folder import read_folder
from peakzoom.data.layouts.hmdb51 import read_hmdb51
from peakzoom.data.layouts.kinetics import read_kinetics
from peakzoom.data.layouts.lists import list_folders, read_table
from peakzoom.data.layouts.manifest import is_manifest, read_manifest
from peakzoom.data.layouts.ucf101 import read_ucf101
from peakzoom.utils.errors import UserError
from peakzoom.utils.missing import missing

OFFICIAL = ("ucf101", "hmdb51")  # with lists of three splits
FORMATS = ("auto", "folder", "manifest", "ucf101", "hmdb51", "kinetics", *TOOLS)


def open_data(
    path: str | Path,
    format: str = "auto",
    splits: str | Path | None = None,
    split: int = 1,
    root: str | Path | None = None,
    multi_label: bool = False,
) -> VideoSet:
    """Open a data set, whatever its layout (docs/data.md); ``notes[0]`` names the layout that was recognised.

    "auto": XML, an archive and JSON are of the annotation tool that they look like
    (:mod:`peakzoom.data.exchange`); a file with a column youtube_id is a Kinetics list, any other file a manifest; a
    folder with UCF101's or HMDB51's lists in it (or with ``splits`` pointing to them) is that data set, one with XML
    files of CVAT is these, any other folder is class folders.

    Args:
        path: a folder, a manifest, a Kinetics list, or the file of an annotation tool.
        format: one of :data:`FORMATS`.
        splits: folder of official lists, for UCF101 and HMDB51.
        split: 1, 2 or 3, for UCF101 and HMDB51.
        root: folder of the videos, for manifests, Kinetics lists and annotation tools; None: the list's own.
        multi_label: a video may have several labels, in a manifest separated by ``;``.

    Raises:
        UserError: path missing, empty or of another layout; unknown format; split not 1 to 3; splits, a split or a root
            that the layout does not have; fewer than two classes with videos, or one whose name is no text; and as the
            reader of the format does.
    """
    path = Path(path).expanduser()
    data = open_to_look(path, format, splits, split, root, multi_label, without_classes=False)
    present = [name for name, count in data.counts().items() if count]
    if len(present) < 2:
        raise UserError(f"{path} has videos of one class only ({present[0]}), expected at least two classes")
    if odd := [name for name in data.classes if not is_utf8(name)]:
        raise UserError(
            f"class {odd[0]!r} has a name that is not UTF-8, and a model keeps names as text: rename it"
        )
    return data


def open_to_look(
    path: str | Path,
    format: str = "auto",
    splits: str | Path | None = None,
    split: int = 1,
    root: str | Path | None = None,
    multi_label: bool = False,
    without_classes: bool = True,
) -> VideoSet:
    """The same of a data set that nobody trains on yet: one class will do, or a folder of videos without any."""
    path = Path(path).expanduser()
    if split not in (1, 2, 3):
        raise UserError(f"split is {split!r}, expected 1, 2 or 3")
    if format not in FORMATS:
        raise UserError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise missing(path, "a folder of class folders, a manifest (CSV), or the file of an annotation tool")
    kind = _recognise(path, splits) if format == "auto" else format
    _expect_meant(path, kind, splits, split, root)
    if kind == "folder":
        data = read_folder(path, without_classes)
        for file in filter(_looks_like_manifest, files_in(path)):
            data.notes.append(f"{file.name} looks like a manifest and was not read; pass the file to use it")
    elif kind == "manifest":
        data = read_manifest(path, root, multi_label)
    elif kind in TOOLS:
        data = read_project(path, kind, root)
    elif kind == "ucf101":
        data = read_ucf101(path, splits, split)
    elif kind == "hmdb51":
        data = read_hmdb51(path, splits, split)
    else:
        data = read_kinetics(path, root)
    data.multi_label = multi_label
    return data


def _expect_meant(
    path: Path, kind: str, splits: str | Path | None, split: int, root: str | Path | None
) -> None:
    """Refuse (UserError) what says how another layout is read: nobody would see that it does not count."""
    official, listed = kind in OFFICIAL, kind not in (*OFFICIAL, "folder")
    for name, given, counts, expected in (
        (f"splits {splits}", splits is not None, official, "UCF101 or HMDB51"),
        (f"split {split}", split != 1, official, "UCF101 or HMDB51"),
        (f"root {root}", root is not None, listed, "a list or a file of a tool"),
    ):
        if given and not counts:
            raise UserError(f"{path} is read as {kind}, and {name} is for {expected}: leave it out")


def _recognise(path: Path, splits: str | Path | None) -> str:
    if path.is_file():
        if tool := tool_of(path):
            return tool
        columns, _ = read_table(path)
        return "kinetics" if "youtube_id" in columns else "manifest"
    if splits is not None and not Path(splits).expanduser().exists():
        raise missing(splits, "a folder of official lists")
    for folder in list_folders(path, splits):
        if (folder / "classInd.txt").is_file():
            return "ucf101"
        if next(folder.glob("*_test_split?.txt"), None):
            return "hmdb51"
    if splits is not None:
        raise UserError(
            f"{splits} holds neither UCF101's classInd.txt nor HMDB51's <class>_test_split1.txt; check the folder"
        )
    return tool_of(path) or "folder"


def _looks_like_manifest(file: Path) -> bool:
    try:
        return file.suffix.lower() in (".csv", ".tsv") and is_manifest(read_table(file)[0])
    except UserError:
        return False
