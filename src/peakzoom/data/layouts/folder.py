"""One folder a class, with or without folders train/, val/ and test/ above the classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from peakzoom.data.entries import NO_CLASS, Entry, Problem, VideoSet, ordered, some
from peakzoom.data.layouts.files import folder_at, is_video, subfolders, videos_among, walk
from peakzoom.data.layouts.lists import SPLIT_NAMES
from peakzoom.data.layouts.ucf101 import recording
from peakzoom.utils.errors import UserError


def read_folder(root: str | Path, without_classes: bool = False) -> VideoSet:
    """Videos in one folder a class, with or without folders train/, val/, test/ above the classes (docs/data.md).

    Hidden and known side files are passed over; other files, empty class folders and videos outside the class folders
    become problems. Groups are unknown, unless every file is named as UCF101 names its own (``v_..._gNN_cNN``).
    ``without_classes`` takes a folder of videos without class folders too, as one class that has no name.

    Raises:
        UserError: no such folder; no video in it; videos but no class folders; split folders mixed with class
            folders.
    """
    root = folder_at(root)
    problems: list[Problem] = []
    listed = walk(root, problems)
    parents = _split_folders(root, listed, problems) or {root: None}
    inside: dict[Path, list[Path]] = defaultdict(list)  # by class folder
    beside: list[Path] = []
    depth = 1 if root in parents else 2  # of class folders
    for file in listed:
        below = file.relative_to(root).parts
        if len(below) > depth:
            inside[root.joinpath(*below[:depth])].append(file)
        elif file.parent == root or file.parent in parents:
            beside.append(file)
    found: list[tuple[str, Path, str | None]] = []
    for parent, split in parents.items():
        for folder in subfolders(parent):
            videos = videos_among(inside[folder], problems)
            found += [(folder.name, file, split) for file in videos]
            if not videos:
                problems.append(Problem(str(folder), "class folder without a video"))
    loose = videos_among(sorted(beside), problems)
    if without_classes and loose and not found:
        notes = [
            "no class folders: read as videos without a class, which can be looked at but not trained on"
        ]
        entries = [Entry(file, 0, parents.get(file.parent)) for file in loose]
        return VideoSet([NO_CLASS], entries, problems, root.resolve().name, notes)
    problems += [Problem(str(file), "lies beside the class folders, so it has no class") for file in loose]
    if not found:
        kind = "videos but no class folders" if loose else "no videos"
        raise UserError(f"{root} holds {kind}: put videos into one folder a class, or pass a manifest")

    classes = ordered(name for name, _, _ in found)
    place = {name: label for label, name in enumerate(classes)}
    notes = ["read as class folders" if root in parents else "read as split folders of class folders"]
    groups = [recording(name, file) for name, file, _ in found]
    if None in groups:
        groups = [None] * len(found)
    else:
        notes.append("file names are UCF101's, so class and recording (v_..._gNN_cNN) are the group")
    entries = [
        Entry(file, place[name], split, group)
        for (name, file, split), group in zip(found, groups, strict=True)
    ]
    return VideoSet(classes, entries, problems, root.resolve().name, notes)


def _split_folders(root: Path, listed: Iterable[Path], problems: list[Problem]) -> dict[Path, str | None]:
    """Folders named like a split that hold folders (a class may be called "train" as well), and their splits.

    ``listed`` are all files below the root.
    """
    folders = subfolders(root)
    splits: dict[Path, str | None] = {
        folder: SPLIT_NAMES[folder.name.casefold()]
        for folder in folders
        if folder.name.casefold() in SPLIT_NAMES and subfolders(folder)
    }
    others = [folder for folder in folders if splits and folder not in splits]
    filled = {file.relative_to(root).parts[0] for file in listed if is_video(file)}
    mixed = [folder.name for folder in others if folder.name in filled]
    if mixed:
        raise UserError(
            f"{root} holds split folders ({some(folder.name for folder in splits)}) and other folders with videos "
            f"({some(mixed)}); move the others into a split folder or elsewhere"
        )
    problems += [
        Problem(str(folder), "not one of the split folders, and no video in it") for folder in others
    ]
    return splits
