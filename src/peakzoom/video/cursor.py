"""Reading on in a file of which parts are wanted one after the other: what lies between two of them is read once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Cursor(threading.local, Generic[Item]):
    """Where the reading of a file stands, in each thread; of one file at a time.

    Args:
        size: of an item, in bytes.
        keep: bytes of the last items that are kept, so that parts may overlap; the last item is not counted.
    """

    _key: tuple[object, ...] | None
    _items: Iterator[Item]
    _position: int  # number of the next item
    _kept: deque[Item]  # the last ones before it
    _ahead: deque[Item]  # those from it on that were kept before
    _kept_size: int

    def __init__(self, size: Callable[[Item], int] = lambda item: 0, keep: int = -1) -> None:
        self._size, self._keep = size, keep
        self.forget()

    def read(
        self, file: Path, part: object, begin: Callable[[], Iterator[Item]], first: int
    ) -> Iterator[Item]:
        """The items of a file from number ``first`` on.

        Goes on where the last reading has stopped, unless ``first`` is before what is kept of it.

        Args:
            file: which, as long as it does not change.
            part: what of the file the items are, such as the number of a stream.
            begin: all items from the beginning.
            first: counted from 0.
        """
        facts = file.stat()
        key = (file, part, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if self._key != key or first < self._position - len(self._kept):
            self.forget()
            self._key, self._items = key, begin()
        self._ahead.extendleft(reversed(self._kept))
        self._position -= len(self._kept)
        self._kept, self._kept_size = deque(), 0
        while True:
            if self._ahead:
                item = self._ahead.popleft()
            elif (following := next(self._items, None)) is not None:
                item = following
            else:
                return
            self._position += 1
            self._remember(item)
            if self._position > first:
                yield item

    def _remember(self, item: Item) -> None:
        if self._keep < 0:
            return
        self._kept.append(item)
        self._kept_size += self._size(item)
        while len(self._kept) > 1 and self._kept_size > self._keep:
            self._kept_size -= self._size(self._kept.popleft())

    def forget(self) -> None:
        """Let the file go."""
        self._key, self._items, self._position = None, iter(()), 0
        self._kept, self._ahead, self._kept_size = deque(), deque(), 0
