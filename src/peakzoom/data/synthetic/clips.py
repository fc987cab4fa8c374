"""Synthetic action clips as ordinary H.264 files with a list of them.

Why: a stranger can train and test in a minute without downloading a data set, and a network can be pre-trained on as
many clips as wanted. What a clip shows: :mod:`peakzoom.data.synthetic.scene`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from peakzoom.data.entries import SEPARATOR, Place
from peakzoom.data.places import COLUMNS as PLACE_COLUMNS
from peakzoom.data.synthetic.people import ACTIONS, EVERY_ACTION
from peakzoom.data.synthetic.scene import BYSTANDERS, STREAM, ClipSpec, clip_frames, telling_parts
from peakzoom.utils.durable import DRAFT, draft_of, write_csv
from peakzoom.utils.errors import UserError
from peakzoom.utils.parent import end_with_parent
from peakzoom.utils.progress import Progress
from peakzoom.utils.system import expect_place

COLUMNS = ("path", "label", "split", "group", "background", "seed")  # of clips.csv
Result = TypeVar("Result")

BATCH = 8  # clips that a process is given at once, at most


@dataclass(frozen=True)
class DatasetSpec:
    """What a synthetic data set holds; the same specification gives the same files.

    Classes are balanced to one clip. A clip depends on these settings and its own number alone: asking for more clips
    leaves the first ones as they are.
    """

    train_clips: int = 400
    test_clips: int = 120
    classes: Sequence[str] = tuple(ACTIONS)
    height: int = 192  # this and the next four: of every clip, as of :class:`ClipSpec`
    width: int = 256
    frames: int = 32
    fps: float = 15.0
    difficulty: float = 0.5
    performers: int = 24  # how many different ones
    backgrounds: int = 24
    test_share: float = (
        0.25  # of both, that test clips alone show; without test or training clips none is held out
    )
    seed: int = 0
    together: int = (
        1  # actions that a clip shows at once, at most; as many as there are parts of the body to do them
    )
    stature: float = 1.0  # factor on how tall people are, of every clip

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise UserError(f"classes are {list(self.classes)}; give each class once, at least one")
        if min(self.train_clips, self.test_clips) < 0 or self.train_clips + self.test_clips < 1:
            raise UserError(
                f"{self.train_clips} training and {self.test_clips} test clips were asked for; give at least one clip"
            )
        if self.together < 1:
            raise UserError(f"{self.together} actions are to be together; give at least one")
        if not 1 <= self.performers <= BYSTANDERS or self.backgrounds < 1 or not 0 < self.test_share < 1:
            raise UserError(
                f"{self.performers} performers, {self.backgrounds} backgrounds, test share {self.test_share}: give at "
                f"least one of each, at most {BYSTANDERS} performers, and a share between 0 and 1"
            )

    def clips(self) -> Iterator[tuple[str, str, ClipSpec]]:
        """Path (``<class>/<split>_<number>.mp4``), split and specification of each clip.

        Where several actions are together there is no folder a class.

        Raises:
            UserError: too few performers or backgrounds to hold some out; a value that no clip can have.
        """
        shares = np.random.default_rng([self.seed, STREAM["share"]])
        people = self._share_out(self.performers, "performers", shares)
        places = self._share_out(self.backgrounds, "backgrounds", shares)
        shape = (self.height, self.width, self.frames, self.fps, self.difficulty)
        for split, count in (("train", self.train_clips), ("test", self.test_clips)):
            for number in range(count):
                rng = np.random.default_rng([self.seed, STREAM[split], number])
                name = self.classes[number % len(self.classes)]
                person, place = int(rng.choice(people[split])), int(rng.choice(places[split]))
                also = self._also(name, split, number)
                spec = ClipSpec(
                    name, person, place, int(rng.integers(2**31)), self.seed, *shape, also, self.stature
                )
                folder = "" if self.together > 1 else f"{name}/"
                yield f"{folder}{split}_{number:05d}.mp4", split, spec

    def _also(self, name: str, split: str, number: int) -> tuple[str, ...]:
        """Further actions of a clip, as many as it draws, each of another part of the body."""
        rng = np.random.default_rng([self.seed, STREAM["together"], STREAM[split], number])
        found: list[str] = []
        for _ in range(int(rng.integers(self.together))):
            moved = {EVERY_ACTION[each].part for each in (name, *found)}
            if free := [each for each in self.classes if EVERY_ACTION[each].part not in moved]:
                found.append(str(rng.choice(free)))
        return tuple(found)

    def _share_out(self, count: int, what: str, rng: np.random.Generator) -> dict[str, list[int]]:
        """Numbers 0 to count - 1 for training and for testing, disjoint where there are clips of both."""
        numbers = rng.permutation(count).tolist()
        if not (self.train_clips and self.test_clips):
            return {"train": numbers, "test": numbers}
        held = max(1, round(self.test_share * count))
        if held >= count:
            raise UserError(
                f"{count} {what} with a test share of {self.test_share} leave none to train on; give more {what}"
            )
        return {"train": sorted(numbers[held:]), "test": sorted(numbers[:held])}


def write_clip(spec: ClipSpec, path: Path) -> None:
    """Write a clip as :func:`write_frames` does; the same bytes for the same specification."""
    write_frames(clip_frames(spec), spec, path)


def stored_rate(fps: float) -> Fraction:
    """Frames a second of a file that is written at ``fps``: 30000/1001 for 29.97003."""
    return Fraction(fps).limit_denominator(30_000)


def write_frames(frames: Iterable[np.ndarray], spec: ClipSpec, path: Path) -> None:
    """Write frames of a specification's size and rate as H.264 in MP4, with PyAV's own encoder."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=stored_rate(spec.fps))
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        # One thread: the processes already fill the machine. Quality 18 leaves no visible loss (x264's documentation).
        stream.options = {"preset": "ultrafast", "crf": "18", "threads": "1"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def render_dataset(
    root: str | Path,
    spec: DatasetSpec | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write the clips of a data set, and their list ``clips.csv`` last: a folder without it is unfinished.

    The list has the columns :data:`COLUMNS`; the group is the performer, as "p07". Beside it, ``places.csv`` says where
    the action shows in each frame (:mod:`peakzoom.data.places`).

    Args:
        root: new or empty folder, which is returned.
        spec: what to write; the defaults of :class:`DatasetSpec` when not given.
        workers: processes; at most 1: none beside this one. As always with processes, a script calls this below
            ``if __name__ == "__main__":``.
        progress: called with (done, all) from this process.

    Raises:
        UserError: ``root`` holds something already, or a value is out of its range.
    """
    root = empty_folder(root)
    plan = list((spec or DatasetSpec()).clips())
    for folder in {(root / path).parent for path, _, _ in plan}:
        folder.mkdir(parents=True, exist_ok=True)
    # Sorted by background, so that a process draws a background once for many clips.
    jobs = [(clip, root / path) for path, _, clip in sorted(plan, key=lambda item: item[2].background)]
    shown = {}
    for (_, file), places in zip(jobs, each_job(_write, jobs, workers), strict=True):
        shown[file] = places
        if progress:
            progress(len(shown), len(jobs))
    rows = (
        (path, frame, place.part, *(f"{value:.1f}" for value in (place.x, place.y, place.radius)))
        for path, _, _ in plan
        for frame, places in enumerate(shown[root / path])
        for place in places
    )
    write_csv(root / "places.csv", PLACE_COLUMNS, rows)
    write_csv(
        root / "clips.csv",
        COLUMNS,
        (
            (
                path,
                SEPARATOR.join(clip.actions),
                split,
                f"p{clip.performer:02d}",
                f"b{clip.background:02d}",
                clip.seed,
            )
            for path, split, clip in plan
        ),
    )
    return root


def empty_folder(root: str | Path) -> Path:
    """A folder to render into, which need not be there yet; UserError if it holds something, or cannot be."""
    root = Path(root)
    expect_place(root, utf8=True)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root} is not an empty folder; give a new one, so that nothing is overwritten or mixed up"
        )
    return root


def each_job(work: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Result]:
    """``work`` with the arguments of each job, in several processes or in this one; results in the jobs' order."""
    if workers <= 1:
        yield from starmap(work, jobs)
        return
    size = max(1, min(BATCH, len(jobs) // (4 * workers)))
    # "spawn" works the same on all systems and carries no threads or locks of the caller over.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        yield from pool.map(work, *zip(*jobs, strict=True), chunksize=size)


def _write(spec: ClipSpec, path: Path) -> list[list[Place]]:
    # Hidden until it is whole; FFmpeg knows a format by how a name ends.
    with draft_of(path, path.with_name(f"{DRAFT}.{path.name}")) as draft:
        write_clip(spec, draft)
    parts = telling_parts(spec)
    return [
        [Place(name, float(x), float(y), radius) for name, (x, y), radius in at]
        for at in (
            [(name, centres[frame], radius) for name, centres, radius in parts]
            for frame in range(spec.frames)
        )
    ]
