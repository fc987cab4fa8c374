"""Decoded once, kept on disk: resized uint8 frames of every training video.

Training looks at a video once per epoch, and decoding it each time would cost more than a small network does. Each
video becomes one ``.npy`` file, (n, h, w, 3) uint8, read by memory map. Its name is a digest of the file's path, size
and time of change and of how frames were made, so an edited file or another size never meets an old entry. Beside it
lies a ``.txt`` with the number of frames, their rate, the file's problem and the digest of the ``.npy``: an entry that
its disk has changed is decoded anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from peakzoom.utils.digests import digest_of
from peakzoom.utils.durable import DRAFT, whole
from peakzoom.utils.errors import DecodeError
from peakzoom.utils.folders import cache_home
from peakzoom.utils.progress import Progress
from peakzoom.utils.segments import file_of
from peakzoom.video.decode import frames_of
from peakzoom.video.parallel import each_file
from peakzoom.video.scan import HOLD_BYTES, scan
from peakzoom.video.views import frames_at

FORMAT = 3  # part of every name: raise it when the meaning of the stored frames changes
DAY = 86_400.0  # seconds
AUTO_LIMIT = 8 * 2**30  # bytes; "auto" makes no cache larger than this, nor than half of the free disk


def frames_home() -> Path:
    """``frames`` in the cache of peakzoom."""
    return cache_home() / "frames"


@dataclass(frozen=True)
class CachedVideo:
    """A video that was decoded.

    Attributes:
        file: its frames.
        frames: how many.
        fps: of the video.
        problem: what was wrong with it; None = nothing.
        renewed: its entry was damaged, and has been made anew.
    """

    file: Path
    frames: int
    fps: float
    problem: str | None
    renewed: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class FrameCache:
    """Where and how frames are kept."""

    folder: Path  # of the ``.npy`` files
    size: tuple[int, int]  # (height, width) of the frames
    fps: float | None = None  # rate to which videos are brought; None keeps every frame

    def file(self, path: Path) -> Path:
        """Where the frames of a video are, or will be."""
        try:
            stat = file_of(path).stat()
        except OSError as error:
            raise DecodeError(path, (error.strerror or str(error)).lower()) from error
        key = (FORMAT, str(path.resolve()), stat.st_size, stat.st_mtime_ns, self.size, self.fps)
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npy"

    def add(self, path: Path) -> CachedVideo:
        """Decode a video unless its frames are there already. Errors as :func:`~peakzoom.video.decode.decode`."""
        file = self.file(path)
        notes = file.with_suffix(".txt")
        known = self._known(file, notes)
        if isinstance(known, CachedVideo):
            return known
        self.folder.mkdir(parents=True, exist_ok=True)
        scanned = scan(path, HOLD_BYTES)
        base = frames_at(path, scanned.timestamps, self.fps)
        wanted, times = np.unique(base, return_counts=True)  # a low rate shows frames several times
        draft = file.with_suffix(f".{os.getpid()}{DRAFT}")  # several processes may decode the same video
        header = BytesIO()
        shape = (len(base), *self.size, 3)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        digest = hashlib.sha256(header.getvalue())
        with whole(file, "wb", draft) as stream:
            stream.write(header.getvalue())
            # Frame by frame: a long video has no room in memory.
            for (_, pixels), count in zip(frames_of(scanned, wanted, self.size), times, strict=True):
                frames = pixels.numpy().tobytes() * int(count)
                digest.update(frames)
                stream.write(frames)
        info = scanned.info
        with whole(notes, "w", draft) as stream:  # last: an entry without it does not count
            stream.write(f"{len(base)}\n{info.fps!r}\n{info.problem or ''}\n{digest.hexdigest()}\n")
        return CachedVideo(file, len(base), info.fps, info.problem, renewed=known)

    def _known(self, file: Path, notes: Path) -> CachedVideo | bool:
        """The entry, if it is there and as it was written; else whether it is damaged, and not merely missing.

        One without a digest, as they were once, counts as missing.
        """
        try:
            lines = notes.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:  # never made, or not to its end
            return False
        except (OSError, ValueError):
            return True
        if len(lines) == 4:  # three, and what is behind the last line end
            return False
        try:
            count, rate, problem, digest, _ = lines
            found = CachedVideo(file, int(count), float(rate), problem or None)
            same = read_cached(found).shape == (found.frames, *self.size, 3) and digest_of(file) == digest
        except (OSError, ValueError, EOFError):
            return True
        return found if same else True


def read_cached(video: CachedVideo) -> np.ndarray:
    """Memory map of a cached video, uint8 (n, h, w, 3); OSError or ValueError if it was removed or damaged."""
    return np.load(video.file, mmap_mode="r", allow_pickle=False)


def fill(
    cache: FrameCache, paths: Sequence[Path], workers: int = 1, progress: Progress | None = None
) -> dict[Path, CachedVideo | DecodeError]:
    """Decode what is not in the cache yet; a file that cannot be decoded gives its error instead."""
    _remove_old_drafts(cache.folder)
    # Starting processes takes longer than decoding a few videos.
    return each_file(cache.add, paths, workers if len(paths) >= 4 else 1, progress)


def _remove_old_drafts(folder: Path) -> None:
    """What decoding that was stopped has left; a draft that is being written is younger, as no file takes a day."""
    for draft in folder.glob(f"*{DRAFT}"):
        with suppress(FileNotFoundError):  # another process does the same
            if time.time() - draft.stat().st_mtime > DAY:
                draft.unlink()
