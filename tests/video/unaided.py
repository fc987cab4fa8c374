"""What the process that decodes has imported, as a function that brings nothing with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator


def imported(*_: object) -> list[str]:
    return sorted(sys.modules)


def wait(seconds: float) -> None:
    time.sleep(seconds)


def wait_for_one(seconds: float) -> Iterator[int]:
    time.sleep(seconds)
    yield 1
