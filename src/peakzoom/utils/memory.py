"""What becomes of freed memory, on Linux with glibc; elsewhere nothing here does anything.

glibc keeps freed blocks in heaps of its own. A training wants all of them kept, because the next step asks for the
same again. A run over many videos of different sizes wants them returned now and then, or its heaps fill with holes and
grow by some hundred megabytes over a thousand videos (benchmarks/performance.md).
"""

from __future__ import annotations

import ctypes
from typing import Any


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees: a quarter of its time on a CPU (benchmarks/results.md)."""
    if mallopt := _of_libc("mallopt"):
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: which is not trimmed


def return_freed_memory() -> None:
    """Give everything that is free back to the system; takes some milliseconds."""
    if trim := _of_libc("malloc_trim"):
        trim(0)


def _of_libc(name: str) -> Any:
    """A function of the C library, None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
