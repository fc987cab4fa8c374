"""How many processors this process may use: a container or a scheduler often gives fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def processors() -> int:
    """At least 1: those that it may run on (affinity), or as many as its cgroup's quota of time comes to, if less."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # no Linux
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """The lowest quota of this process's cgroup and those around it, in processors; infinity where there is none."""
    return min((_of(folder) for folder in _folders()), default=math.inf)


def _folders() -> list[Path]:
    """Of this process's cgroup and those around it, of either version; a container sees its own at the root."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = Path(path.strip("/"))
        roots = (
            [CGROUPS / name for name in ("cpu", "cpu,cpuacct", "cpuacct,cpu")] if controllers else [CGROUPS]
        )
        found += [root / each for root in roots for each in (inner, *inner.parents)]
    return found


def _of(folder: Path) -> float:
    """The quota of one cgroup: version 2 has "max 100000" or "150000 100000", version 1 two files and -1 for none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip()
                for name in ("quota", "period")
            )
        share = math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # it has none, or it cannot be read
        return math.inf
    return share if share > 0 else math.inf
