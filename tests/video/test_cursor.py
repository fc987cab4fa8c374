"""Reading on in a file: the same items as from the beginning, and none read twice for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from peakzoom.video.cursor import Cursor


@pytest.mark.parametrize("keep", [-1, 0, 10, 10**6])
def test_any_order_of_parts(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    begun: list[int] = []

    def begin() -> Iterator[int]:
        begun.append(0)
        for number in range(100):
            begun[-1] += 1
            yield number

    cursor: Cursor[int] = Cursor(lambda item: 1, keep)
    rng = np.random.default_rng(0)
    for _ in range(300):
        first, count = int(rng.integers(0, 110)), int(rng.integers(0, 30))
        found = list(islice(cursor.read(file, 0, begin, first), count))
        assert found == list(range(100))[first : first + count]
    assert len(begun) > 1 if keep < 100 else len(begun) == 1


def test_what_overlaps_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    begun: list[int] = []

    def begin() -> Iterator[int]:
        begun.append(1)
        yield from range(100)

    cursor: Cursor[int] = Cursor(lambda item: 1, 10)
    for first in range(0, 95, 5):
        assert list(islice(cursor.read(file, 0, begin, first), 10)) == list(
            range(first, min(first + 10, 100))
        )
    assert len(begun) == 1
    list(islice(cursor.read(file, 0, begin, 80), 1))  # too far back
    list(islice(cursor.read(file, 1, begin, 90), 1))  # another part
    file.write_bytes(b"ab")
    list(islice(cursor.read(file, 1, begin, 95), 1))  # another file
    cursor.forget()
    assert list(cursor.read(file, 1, begin, 97)) == [97, 98, 99] and len(begun) == 5
