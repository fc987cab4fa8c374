"""In the process that decodes: the frames of one file, kept as the decoder gave them until they have been converted.

Whoever asks for them says first that the file be decoded (:func:`hold`), then which frames it wants
(:func:`held_frames`), once or several times, and at the end that they be let go. Nothing here needs PyTorch, see
:mod:`peakzoom.video.stored`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from peakzoom.video.scan import HOLD_BYTES, Scan, scan
from peakzoom.video.stored import StoredFrame, stored_frames

Chunk = list[tuple[int, StoredFrame]]

CHUNK_BYTES = 2**22  # of frames that go to whoever asked for them in one message

_held: Scan | None = None


def hold(path: Path, most: int | None) -> Scan:
    """Decode a file and keep its frames; returns the scan without them."""
    global _held
    _held = None  # those of the file before
    _held = scan(path, HOLD_BYTES, most)
    return replace(_held, held=None)


def drop() -> None:
    """Let the frames go."""
    global _held
    _held = None


def held_frames(
    scanned: Scan, wanted: np.ndarray | None, size: tuple[int, int], last: bool = False
) -> Iterator[Chunk]:
    """The wanted frames of a file, see :func:`peakzoom.video.stored.stored_frames`, some together.

    The file is decoded again where its frames are not kept. With ``last`` each is let go as it is converted.
    """
    chunk: Chunk = []
    for number, frame in stored_frames(_with_frames(scanned, last), wanted, size):
        chunk.append((number, replace(frame, pixels=np.ascontiguousarray(frame.pixels))))
        if sum(each.pixels.nbytes for _, each in chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _with_frames(scanned: Scan, last: bool) -> Scan:
    """The scan with its frames, which whoever takes them may let go; without, where they are not kept."""
    global _held
    held, _held = _held, None if last else _held
    if held is None or held.held is None or held.info != scanned.info:
        return scanned
    return replace(scanned, held=held.held if last else deque(held.held))
