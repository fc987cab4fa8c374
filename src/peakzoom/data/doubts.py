"""What should be known of a data set before anybody trains on it, a sentence each: ``data check`` shows it too."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from peakzoom.data.entries import NO_CLASS, Entry, VideoSet, label_counts, some
from peakzoom.utils.segments import segment_of
from peakzoom.utils.words import counted

Parts = Mapping[str, Sequence[Entry]]  # videos by what they are for: "train", "val", "test"
SHOWN = 3  # pairs of files that a sentence names
PURPOSES = {"val": "validation", "test": "test"}


def parts_of(data: VideoSet) -> dict[str, list[Entry]]:
    """Videos by their split; those of none are for training."""
    return {
        part: [entry for entry in data.entries if (entry.split or "train") == part]
        for part in ("train", "val", "test")
    }


def doubts(classes: Sequence[str], parts: Parts, twins: Sequence[Sequence[Path]]) -> list[str]:
    """All that is doubtful.

    Args:
        classes: their names.
        parts: videos by what they are for.
        twins: files with the same bytes (:func:`peakzoom.utils.digests.same_bytes`).
    """
    return [*_names(classes), *_counts(classes, parts), *_divided(parts), *_twins(classes, parts, twins)]


def _divided(parts: Parts) -> Iterator[str]:
    """Files with segments in several parts: what is beside a segment looks like it."""
    purposes: dict[Path, set[str]] = defaultdict(set)
    for part, entries in parts.items():
        for entry in entries:
            if segment := segment_of(entry.path):
                purposes[segment.file].add(part)
    for part, purpose in PURPOSES.items():
        if files := [str(file) for file, found in purposes.items() if {"train", part} <= found]:
            yield (
                f"{counted(len(files), 'file')} with segments in training and in {purpose}, so accuracies on them "
                f"flatter the model: {some(files, SHOWN)}"
            )


def _names(classes: Sequence[str]) -> Iterator[str]:
    """Names that nobody could tell apart, or that no file can hold."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        seen = "".join(each for each in name if unicodedata.category(each) != "Cf")  # nobody sees those
        alike[" ".join(unicodedata.normalize("NFKC", seen).casefold().split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            looks = Counter(unicodedata.normalize("NFC", name) for name in names)
            same = max(looks.values()) > 1  # then they look the same
            shown = " and ".join(ascii(name) if same else repr(name) for name in names)
            how = "in case, spaces, what is not seen, or the form of letters"
            how = "in how their letters are stored" if same else how
            yield f"classes {shown} differ only {how}: if they are one class, give them one name"
    if odd := [name for name in classes if not is_utf8(name)]:
        yield f"{counted(len(odd), 'class')} with a name that is not UTF-8, so nothing can be trained: {some(odd)}"


def _counts(classes: Sequence[str], parts: Parts) -> Iterator[str]:
    """Classes that cannot be learned, or hardly."""
    trained = label_counts(parts["train"])
    if not trained or list(classes) == [NO_CLASS]:  # a list of test videos alone
        return
    if len(classes) == 1:
        yield f"{classes[0]!r} is the only class, and training needs two"
        return
    elsewhere = label_counts(entry for part in PURPOSES for entry in parts[part])
    for wanted, text in (
        (0, "no training video, so it is never learned"),
        (1, "one training video only, so nothing of it can be held out for validation or a test"),
    ):
        found = [
            f"{name!r}" + (f" ({elsewhere[label]} to validate or test)" if elsewhere[label] else "")
            for label, name in enumerate(classes)
            if trained[label] == wanted
        ]
        if found:
            text = text.replace("it is", "they are") if len(found) > 1 else text
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            yield f"{counted(len(found), 'class')} with {text}: {', '.join(found[:8])}{more}"


def _twins(classes: Sequence[str], parts: Parts, twins: Sequence[Sequence[Path]]) -> Iterator[str]:
    """The same bytes where they should not be."""
    part_of = {entry.path: part for part, entries in parts.items() for entry in entries}
    labels_of = {entry.path: entry.labels for entries in parts.values() for entry in entries}
    told: set[int] = set()
    for part, purpose in PURPOSES.items():
        pairs = {
            number: (each, trained)
            for number, files in enumerate(twins)
            if (each := next((file for file in files if part_of.get(file) == part), None))
            and (trained := next((file for file in files if part_of.get(file) == "train"), None))
        }
        if pairs:
            told |= pairs.keys()
            count = sum(part_of.get(file) == part for number in pairs for file in twins[number])
            yield (
                f"{counted(count, f'{purpose} video')} with the same bytes as a training video, so accuracies on them "
                f"flatter the model: {_pairs(list(pairs.values()))}"
            )
    mixed = {
        number: (files[0], other)
        for number, files in enumerate(twins)
        if (other := next((file for file in files if labels_of[file] != labels_of[files[0]]), None))
    }
    if mixed:
        labels = [label for pair in mixed.values() for file in pair for label in labels_of[file]]
        names = some(dict.fromkeys(classes[label] for label in labels))
        yield (
            f"{counted(len(mixed), 'video')} with the same bytes in several classes ({names}): "
            f"{_pairs(list(mixed.values()))}"
        )
    copies = [(files[0], files[1]) for number, files in enumerate(twins) if number not in told | mixed.keys()]
    if copies:
        yield f"{counted(len(copies), 'video')} with the same bytes under several names: {_pairs(copies)}"


def is_utf8(name: str) -> bool:
    """Whether a name can be written; that of a folder need not be text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pairs(pairs: Sequence[tuple[Path, Path]]) -> str:
    """The first pairs of files."""
    shown = "; ".join(f"{str(one)!r} and {str(other)!r}" for one, other in pairs[:SHOWN])
    return shown + (f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else "")
