"""What is remembered of something endless: the newest of it, and the beginning of what is still needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Bound(NamedTuple):
    """How much is remembered."""

    size: int  # in whatever unit sizes are given
    seconds: float


class _Entry(NamedTuple, Generic[Item]):
    item: Item
    time: float
    size: int


class _Part(Generic[Item]):
    """Consecutive items and the number of the first one."""

    def __init__(self, bound: Bound) -> None:
        self.entries: deque[_Entry[Item]] = deque()
        self.first = 0
        self.size = 0
        self._bound = bound

    @property
    def end(self) -> int:
        """The number after the last one."""
        return self.first + len(self.entries)

    def append(self, entry: _Entry[Item]) -> None:
        self.entries.append(entry)
        self.size += entry.size

    def pop(self) -> _Entry[Item]:
        entry = self.entries.popleft()
        self.first += 1
        self.size -= entry.size
        return entry

    def too_much(self, more: _Entry[Item] | None = None) -> bool:
        """Whether it is above its bound, or would be with one more."""
        if not self.entries:
            return False
        size, last = self.size, self.entries[-1]
        if more is not None:
            size, last = size + more.size, more
        return size > self._bound.size or last.time - self.entries[0].time > self._bound.seconds


class Lately(Generic[Item]):
    """The newest items up to a bound, and the oldest that are still needed up to another.

    Items are numbered as they come. As long as what is needed is newer than the bound allows, nothing is missing::

        item     0 1 2 3 4 5 6 7 8 9          "keep" 3: what goes from the newest part is put to the beginning
                       |-----|=======|        until that is full; then there is a gap
                        begin  newest

    Args:
        newest: of the newest part. One item is always kept.
        begin: of the beginning.
    """

    def __init__(self, newest: Bound, begin: Bound) -> None:
        self._newest: _Part[Item] = _Part(newest)
        self._begin: _Part[Item] = _Part(begin)
        self._needed = 0

    @property
    def size(self) -> int:
        """Of all that is remembered."""
        return self._begin.size + self._newest.size

    def add(self, item: Item, time: float, size: int = 1) -> int:
        """Remember an item of a time in seconds, which never falls; returns its number, counted from 0."""
        newest, begin = self._newest, self._begin
        newest.append(_Entry(item, time, size))
        while len(newest.entries) > 1 and newest.too_much():
            entry, number = newest.pop(), newest.first - 1
            if number < self._needed or begin.too_much(entry):
                continue
            if not begin.entries:
                begin.first = number
            if begin.end == number:  # else something is missing already
                begin.append(entry)
        return newest.end - 1

    def keep(self, number: int) -> None:
        """Items before this one are no longer needed."""
        self._needed = max(number, self._needed)
        while self._begin.entries and self._begin.first < self._needed:
            self._begin.pop()

    def stretches(self) -> list[tuple[int, Sequence[Item]]]:
        """All that is remembered: one or two stretches without a gap, with the number of the first item of each."""
        parts = [part for part in (self._begin, self._newest) if part.entries]
        found = [(part.first, [entry.item for entry in part.entries]) for part in parts]
        if len(found) == 2 and parts[0].end == parts[1].first:
            return [(found[0][0], [*found[0][1], *found[1][1]])]
        return list(found)
