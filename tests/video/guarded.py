"""What a decoder may do wrong, as functions that another process can import."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peakzoom.utils.errors import DecodeError, UserError


def sleep_forever(*_: object) -> None:
    time.sleep(1000)


def allocate_with_numpy(*_: object) -> int:
    return sum(len(each) for each in [np.ones(64 * 2**20, np.uint8) for _ in range(10**6)])


def allocate_with_torch(*_: object) -> int:
    return sum(len(each) for each in [torch.ones(64 * 2**20, dtype=torch.uint8) for _ in range(10**6)])


def crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(*_: object) -> None:
    os._exit(3)


def is_no_video(path: Path) -> None:
    raise DecodeError(path, "is no video")


def is_refused(path: Path) -> None:
    raise UserError(f"{path} is refused")


def slip(*_: object) -> None:
    raise KeyError("a bug")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def shown(path: Path) -> None:
    print("a library prints")  # noqa: T201
    os.write(1, b"a C library too\n")


def pid(*_: object) -> int:
    return os.getpid()


def threads(*_: object) -> int:
    return torch.get_num_threads()


def frames(count: int) -> Tensor:
    """Channels-last, as decoded frames are."""
    return torch.arange(count * 4 * 5 * 3).to(torch.uint8).reshape(count, 4, 5, 3).permute(0, 3, 1, 2)


def several(count: int, last: str = "") -> Iterator[Tensor]:
    for number in range(count):
        yield torch.full((100, 100), number)
    if last == "sleep":
        time.sleep(1000)
    if last == "crash":
        crash()
    if last == "raise":
        raise DecodeError("a", "gave out")
